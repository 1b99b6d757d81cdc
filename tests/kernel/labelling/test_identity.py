"""Frames that differ in what decides about their label have different ids."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_alpot.kernel.dataset import Dataset, write
from aiida_alpot.kernel.labelling.identity import label_ids
from aiida_alpot.kernel.labelling.results import find_known_labels, sort_rows
from aiida_alpot.kernel.splitting import find_superseded


def iron(moments=None):
    atoms = bulk("Fe", cubic=True)
    del atoms.arrays["initial_magmoms"]  # ASE gives iron 2.3
    if moments is not None:
        atoms.set_initial_magnetic_moments(moments)
    return atoms


def ids_of(path, frames):
    write(path, frames)
    with Dataset.open(path) as dataset:
        return label_ids(dataset).tolist(), dataset.frame_ids(labels=False).tolist()


def test_starting_moments_tell_calculations_of_one_structure_apart(tmp_path):
    starts = [[2.5, 2.5], [2.5, -2.5], None, [0.0, 0.0], [2.5, -2.5]]
    found, structures = ids_of(tmp_path / "iron.h5", [iron(start) for start in starts])
    assert len(set(structures)) == 1
    assert found[2] == found[3] == structures[0]
    assert found[1] == found[4]
    assert len(set(found)) == 3


@pytest.mark.parametrize(
    ("marks", "rows", "superseded"),
    [
        (("old", "old"), ["renew", "renew"], [False, False]),
        (("new", "old"), ["keep", "renew"], [False, False]),
        (("old", ""), ["renew", "label"], [False, False]),
        (("old", "new"), ["renew", "keep"], [False, False]),
        (("old", "old", "new"), ["keep", "renew", "keep"], [True, False, False]),
    ],
)
def test_ferromagnetic_and_antiferromagnetic_labels_do_not_stand_for_each_other(tmp_path, marks, rows, superseded):
    """Ferromagnetic, antiferromagnetic, ferromagnetic."""
    frames = []
    for fingerprint, sign in zip(marks, (1.0, -1.0, 1.0), strict=False):
        atoms = iron([2.5, sign * 2.5])
        atoms.info.update(status="labelled" if fingerprint else "unlabelled", fingerprint=fingerprint)
        if fingerprint:
            atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((2, 3)))
        frames.append(atoms)
    write(tmp_path / "iron.h5", frames)
    with Dataset.open(tmp_path / "iron.h5") as dataset:
        assert sort_rows(dataset, "new") == rows
        assert find_superseded(label_ids(dataset), dataset.column("fingerprint")).tolist() == superseded


def test_without_moments_it_is_the_structure(tmp_path):
    found, structures = ids_of(tmp_path / "iron.h5", [iron(), bulk("Al")])
    assert found == structures


def test_vectors_are_moments_too(tmp_path):
    along = [np.outer([1.0, 1.0], axis) for axis in np.eye(3)]
    found, _ = ids_of(tmp_path / "iron.h5", [iron(start) for start in along])
    assert len(set(found)) == 3


def test_a_label_of_another_magnetic_start_is_not_taken(tmp_path):
    labelled = iron([2.5, 2.5])
    labelled.calc = SinglePointCalculator(labelled, energy=1.0, forces=np.zeros((2, 3)))
    labelled.info.update(status="labelled", fingerprint="f")
    write(tmp_path / "known.h5", [labelled])
    write(tmp_path / "new.h5", [iron([2.5, -2.5]), iron([2.5, 2.5])])
    with Dataset.open(tmp_path / "known.h5") as known, Dataset.open(tmp_path / "new.h5") as new:
        assert find_known_labels(new, known, "f") == {1: 0}
