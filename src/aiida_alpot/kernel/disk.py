"""Errors of files that say nothing of the task: the disk is full, over its quota, or broken."""

from __future__ import annotations

import errno
import re
from typing import Final

_NUMBERS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE})
_MESSAGES: Final = ("no space left on device", "disk quota exceeded", "input/output error", "stale file handle")


def is_disk_error(error: BaseException) -> bool:
    """Return whether an exception tells of the disk; HDF5 raises RuntimeError when a file is closed on a full one."""
    if isinstance(error, OSError) and error.errno in _NUMBERS:
        return True
    found = re.search(r"errno = (\d+)", str(error)) if isinstance(error, (OSError, RuntimeError)) else None
    return found is not None and int(found[1]) in _NUMBERS


def tells_of_disk(text: str) -> bool:
    """Return whether a line that a program printed tells of the disk."""
    return any(message in text.lower() for message in _MESSAGES)
