"""Vacancies: how many, and never all."""

import numpy as np
import pytest
from ase.build import bulk, molecule

from aiida_alpot.kernel.augmentation import NotApplicableError, VacancySettings, make_vacancies


@pytest.mark.parametrize("name", ["Si", "Cu"])
def test_small_cells_are_never_emptied(name):
    with pytest.raises(NotApplicableError, match="too_few_atoms"):
        make_vacancies(bulk(name), VacancySettings(per_frame=2, max_fraction=0.99), np.random.default_rng(0))


@pytest.mark.parametrize(("n_cells", "n_removed"), [(1, 1), (2, 2), (8, 2)])
def test_at_most_the_set_fraction_is_removed(n_cells, n_removed):
    atoms = bulk("Cu", cubic=True) * (n_cells, 1, 1)
    step = make_vacancies(atoms, VacancySettings(), np.random.default_rng(0))
    assert len(atoms) - len(step.atoms) == n_removed
    assert step.text == f"vacancy {n_removed}"


def test_remaining_atoms_do_not_move_and_all_sites_are_drawn():
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    missing = set()
    for seed in range(60):
        left = make_vacancies(atoms, VacancySettings(per_frame=1), np.random.default_rng(seed)).atoms
        gaps = [i for i, r in enumerate(atoms.positions) if not (left.positions == r).all(axis=1).any()]
        assert len(gaps) == 1
        missing.update(gaps)
    assert missing == set(range(8))


def test_molecule_keeps_its_atoms_unless_asked():
    ethanol = molecule("CH3CH2OH")
    with pytest.raises(NotApplicableError, match="no_periodic_axis"):
        make_vacancies(ethanol, VacancySettings(), np.random.default_rng(0))
    left = make_vacancies(ethanol, VacancySettings(molecules=True), np.random.default_rng(0)).atoms
    assert len(left) == 7


@pytest.mark.parametrize("bad", [{"fraction": 1.5}, {"per_frame": 0}, {"max_fraction": 1.0}])
def test_settings_out_of_range_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        VacancySettings(**bad)
