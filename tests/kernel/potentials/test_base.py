"""The arrays of predictions and features, and the helpers every adapter shares."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_alpot.kernel.potentials import (
    Features,
    Predictions,
    check_species,
    concatenate,
    concatenate_features,
    has_stress,
    offsets_of,
    reference_predictions,
    voigt_stress,
)


def predictions(*sizes: int, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
    return Predictions(
        rng.normal(size=len(sizes)), rng.normal(size=(offsets[-1], 3)), rng.normal(size=(len(sizes), 6)), offsets
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"energy": np.zeros((2, 1))}, r"energy: expected the shape \(any\)"),
        ({"forces": np.zeros((4, 3))}, r"forces: expected the shape \(5, 3\), got \(4, 3\)"),
        ({"stress": np.zeros((2, 3, 3))}, r"stress: expected the shape \(2, 6\)"),
        ({"offsets": [0, 5]}, r"offsets: expected the shape \(3\)"),
        ({"offsets": [1, 2, 5]}, "start with 0"),
        ({"offsets": [0, 6, 5]}, "never decrease"),
    ],
)
def test_predictions_refuse_arrays_that_do_not_fit_together(change, message):
    good = {"energy": np.zeros(2), "forces": np.zeros((5, 3)), "stress": np.zeros((2, 6)), "offsets": [0, 2, 5]}
    Predictions(**good)
    with pytest.raises(ValueError, match=message):
        Predictions(**(good | change))


def test_frames_of_predictions_concatenate_to_the_whole():
    whole = predictions(2, 0, 3)
    again = concatenate([whole.frame(0), whole.frame(1), whole.frame(-1)])
    for name in ("energy", "forces", "stress", "offsets"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(again, name))
    assert (whole.n_frames, whole.n_atoms) == (3, 5)
    with pytest.raises(IndexError, match="frame 3 of predictions of 3 frames"):
        whole.frame(3)


def test_concatenation_of_nothing_is_empty_and_legal():
    assert concatenate([]).n_frames == 0
    assert offsets_of([]).tolist() == [0]
    assert reference_predictions([]).n_atoms == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": np.zeros(3)}, "values"),
        ({"species": [1, 1]}, "species"),
        ({"frame_index": [0, 1, 0]}, "never decrease"),
        ({"frame_index": [-1, 0, 0]}, "non-negative"),
    ],
)
def test_features_refuse_arrays_that_do_not_fit_together(change, message):
    good = {"values": np.zeros((3, 4)), "species": [1, 1, 8], "frame_index": [0, 0, 1]}
    Features(**good)
    with pytest.raises(ValueError, match=message):
        Features(**(good | change))


def test_concatenated_features_renumber_frames_and_count_empty_ones():
    part = Features(np.ones((2, 3)), np.array([1, 1]), np.array([0, 0]))
    both = concatenate_features([part, part], n_frames=[2, 1])
    assert both.frame_index.tolist() == [0, 0, 2, 2]


def test_unknown_species_are_refused_by_name_and_frame():
    frames = [molecule("H2O"), molecule("CH3Cl")]
    check_species(frames, (1, 6, 8, 17))
    with pytest.raises(ValueError, match="frame 1 contains C, Cl, but the potential knows only H, O"):
        check_species(frames, (1, 8))


@pytest.mark.parametrize(
    ("atoms", "expected"),
    [
        (bulk("Cu"), True),
        (fcc111("Cu", (1, 1, 2), vacuum=5.0), True),
        (fcc111("Cu", (1, 1, 2)), False),
        (molecule("H2O"), False),
        (molecule("H2O", vacuum=5.0), False),
        (Atoms("H", cell=np.diag([4.0, 4.0, 5.0]), pbc=(False, False, True)), True),
        (Atoms("H", cell=[[1, 0, 0], [0, 1, 0], [1, 1, 0]], pbc=True), False),
    ],
)
def test_stress_needs_three_independent_vectors_and_a_periodic_axis(atoms, expected):
    assert has_stress(atoms) is expected


def test_labels_become_predictions_and_what_is_missing_is_nan():
    labelled = bulk("Cu", cubic=True)
    labelled.calc = SinglePointCalculator(labelled, energy=1.5, forces=np.ones((4, 3)), stress=np.arange(6.0))
    molecule_with_stress = molecule("H2O")
    molecule_with_stress.calc = SinglePointCalculator(molecule_with_stress, energy=2.0, stress=np.ones(6))
    bare = bulk("Cu")
    bare.calc = EMT()
    reference = reference_predictions([labelled, molecule_with_stress, bare])
    np.testing.assert_array_equal(reference.energy, [1.5, 2.0, np.nan])
    np.testing.assert_array_equal(reference.stress[0], np.arange(6.0))
    assert np.isnan(reference.stress[1:]).all()
    assert np.isnan(reference.forces[4:]).all()


def test_labels_of_a_frame_that_was_changed_afterwards_are_refused():
    atoms = bulk("Cu")
    atoms.calc = SinglePointCalculator(atoms.copy(), energy=1.0)
    atoms.info["split"] = "train"
    assert reference_predictions([atoms]).energy[0] == 1.0
    atoms.positions[0] += 0.1
    with pytest.raises(ValueError, match="frame 0 was changed after it was labelled"):
        reference_predictions([atoms])


def test_voigt_order_is_the_one_of_ase():
    tensor = np.array([[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]])
    for form in (tensor, tensor.ravel(), [1, 2, 3, 4, 5, 6]):
        np.testing.assert_array_equal(voigt_stress(form), [1, 2, 3, 4, 5, 6])
    with pytest.raises(ValueError, match="6 components"):
        voigt_stress(np.zeros(5))
