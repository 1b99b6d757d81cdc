"""Datasets of frames in columnar HDF5 files: writing, reading, merging, splits, exchange formats."""

from aiida_alpot.kernel.dataset.exchange import export_format, read_frames, write_frames
from aiida_alpot.kernel.dataset.merge import filter_frames, merge
from aiida_alpot.kernel.dataset.parts import MAX_PARTS, check_types, find_parts, group_parts, part_names
from aiida_alpot.kernel.dataset.reader import Dataset, DatasetView
from aiida_alpot.kernel.dataset.schema import BOOKKEEPING, SCHEMA, SCHEMA_VERSION, SCIENCE, ColumnSpec, DatasetError
from aiida_alpot.kernel.dataset.splits import assign_splits
from aiida_alpot.kernel.dataset.writer import write

__all__ = [
    "BOOKKEEPING",
    "MAX_PARTS",
    "SCHEMA",
    "SCHEMA_VERSION",
    "SCIENCE",
    "ColumnSpec",
    "Dataset",
    "DatasetError",
    "DatasetView",
    "assign_splits",
    "check_types",
    "export_format",
    "filter_frames",
    "find_parts",
    "group_parts",
    "merge",
    "part_names",
    "read_frames",
    "write",
    "write_frames",
]
