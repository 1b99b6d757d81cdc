"""The control arm of a comparison: frames without regard to their uncertainty."""

from __future__ import annotations

from aiida_alpot.kernel.selection.threshold import pick_uniform

pick_random = pick_uniform
"""The same draw as ``threshold``, but its pool holds every healthy candidate; see the registry."""
