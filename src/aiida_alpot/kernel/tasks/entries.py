"""What a task reads of its task file: each entry is looked for, converted and, if it names a file, found beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from aiida_alpot.kernel.settings import SettingsError, convert

T = TypeVar("T")
TASK_FILE = "task.json"


def read_entry(task: Mapping[str, Any], key: str, kind: type[T], where: str = TASK_FILE) -> T:
    """Return ``task[key]`` as *kind*.

    :param kind: a type that a setting may have.
    :param where: names the mapping in messages.
    :raises SettingsError: if there is no such entry, or it is of another type.
    """
    if not isinstance(task, Mapping):
        raise SettingsError(f"{where}: expected a mapping, got {task!r:.80}")
    if key not in task:
        raise SettingsError(f"{where}: {key!r} is required")
    value: T = convert(task[key], kind, f"{where}: {key}")
    return value


def find_file(task: Mapping[str, Any], key: str, folder: Path, where: str = TASK_FILE) -> Path:
    """Return the path of the file that ``task[key]`` names.

    :param folder: of the job, which the file must be in.
    :raises SettingsError: if there is no such entry, or no such file in the folder.
    """
    return check_file(read_entry(task, key, str, where), folder, f"{where}: {key}")


def check_file(name: str, folder: Path, where: str) -> Path:
    """Return the path of the file *name* in the folder of the job, or of a folder with the parts of a dataset.

    :raises SettingsError: if it lies elsewhere or is not there.
    """
    if "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise SettingsError(f"{where}: {name!r} is not in the folder of the job; name a file beside {TASK_FILE}")
    path = folder / name
    if not path.is_file() and not any(path.glob("dataset-*.h5")):
        raise SettingsError(f"{where}: there is no file {name!r} in the folder of the job; was it copied there?")
    return path
