"""Which candidates are worth a label: strategies, control share, splits by group, budget and de-duplication."""

from aiida_alpot.kernel.selection.absorbing import grade_limit, require_active_set
from aiida_alpot.kernel.selection.context import AtomFeatures, PickContext, Picks
from aiida_alpot.kernel.selection.distance import require_one_composition, sorted_distance_features
from aiida_alpot.kernel.selection.flags import Flags, Limit, flag
from aiida_alpot.kernel.selection.registry import STRATEGIES, Strategy, get_strategy
from aiida_alpot.kernel.selection.select import Selection, select
from aiida_alpot.kernel.selection.table import CandidateTable

__all__ = [
    "STRATEGIES",
    "AtomFeatures",
    "CandidateTable",
    "Flags",
    "Limit",
    "PickContext",
    "Picks",
    "Selection",
    "Strategy",
    "flag",
    "get_strategy",
    "grade_limit",
    "require_active_set",
    "require_one_composition",
    "select",
    "sorted_distance_features",
]
