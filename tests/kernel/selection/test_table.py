"""The table of candidates: shapes, rows, joins."""

import numpy as np
import pytest

from aiida_alpot.kernel.selection import CandidateTable


def table(n: int, *, features: int | None = None, name: str = "t") -> CandidateTable:
    return CandidateTable(
        energy=np.zeros(n),
        force=np.arange(n),
        force_max=np.zeros(n),
        stress=np.full(n, np.nan),
        grade=np.zeros(n),
        healthy=np.ones(n),
        group=[name] * n,
        structure_id=[f"{name}{i}" for i in range(n)],
        features=None if features is None else np.zeros((n, features)),
    )


def test_lists_become_typed_columns():
    made = table(3, features=2)
    assert made.n_candidates == len(made) == 3
    assert made.healthy.dtype == bool
    assert made.force.dtype == np.float64
    assert made.structure_id.tolist() == ["t0", "t1", "t2"]


def test_empty_table_is_legal():
    assert len(table(0)) == 0


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("force", [1.0], "'force' has shape"),
        ("stress", [-1.0, 0.0], "'stress' holds a negative number at row 0"),
        ("features", [[1.0], [np.nan]], "feature is not finite"),
        ("features", [1.0, 2.0], "'features' has shape"),
    ],
)
def test_wrong_columns_are_named(column, value, message):
    columns = {name: getattr(table(2), name) for name in CandidateTable.__dataclass_fields__}
    with pytest.raises(ValueError, match=message):
        CandidateTable(**{**columns, column: value})
