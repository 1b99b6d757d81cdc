"""Labels that were too few to be compared when they were made are compared once they are enough."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_alpot.kernel.dataset import Dataset, write
from aiida_alpot.kernel.labelling.quality import QualitySettings, review_part
from aiida_alpot.kernel.labelling.review_plan import MAX_CONTEXT, plan_review

QUICK = QualitySettings(use_surrogate=False)
RYDBERG = 13.605693


def labelled_frame(k: int, fingerprint: str = "pbe", scale: float = 1.0, **info) -> Atoms:
    """A rattled crystal, different for every *k*, with its energy divided by *scale*."""
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
    atoms.rattle(0.05, seed=k)
    atoms.calc = EMT()
    forces = atoms.get_forces()
    energy = (atoms.get_potential_energy() - 4.0 * len(atoms)) / scale
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces - forces.mean(axis=0))
    atoms.info.update(status="labelled", fingerprint=fingerprint, **info)
    return atoms


@pytest.fixture(scope="module")
def frames():
    """Forty labels, the fourth of them in Ry."""
    return [labelled_frame(k, scale=RYDBERG if k == 3 else 1.0) for k in range(40)]


@pytest.fixture
def opened(tmp_path):
    """Return a function that writes frames and opens them as a dataset."""
    with ExitStack() as stack:

        def make(frames):
            path = tmp_path / f"{len(list(tmp_path.iterdir()))}.h5"
            write(path, frames)
            return stack.enter_context(Dataset.open(path))

        yield make


def test_a_wrong_unit_among_the_first_labels_is_caught_once_there_are_enough(opened, frames):
    first = review_part(opened(frames[:10]), None, QualitySettings())
    assert (first["n_quarantined"], first["n_not_compared"], first["n_min"]) == (0, 10, 30)
    second = review_part(opened(frames[10:29]), None, QualitySettings(), opened(frames[:10]))
    assert (second["n_reviewed"], second["n_quarantined"], second["n_not_compared"]) == (19, 0, 19)
    known = opened(frames[:29])
    third = review_part(opened(frames[29:]), None, QualitySettings(), known)
    assert (third["n_reviewed"], third["n_late"], third["n_not_compared"]) == (40, 29, 0)
    assert list(third["quarantined"]) == [known.frame_ids()[3]]
    assert "off the sum of its atoms" in third["quarantined"][known.frame_ids()[3]]["reason"]


def test_labels_that_were_enough_are_not_judged_again(opened, frames):
    known = opened(frames[:30])
    summary = review_part(opened(frames[30:]), None, QUICK, known)
    assert (summary["n_reviewed"], summary["n_late"], summary["quarantined"]) == (10, 0, {})


def test_labels_that_a_labelling_was_given_are_judged_late_as_well(opened, frames):
    labelled = opened(frames)
    given = opened([*frames[:5], *(bare(atoms) for atoms in frames[5:])])
    summary = review_part(labelled, given, QUICK)
    assert (summary["n_reviewed"], summary["n_late"]) == (40, 5)
    assert list(summary["quarantined"]) == [labelled.frame_ids()[3]]


def bare(atoms: Atoms) -> Atoms:
    copy = atoms.copy()
    copy.calc = None
    copy.info = {}
    return copy


def test_late_verdicts_depend_neither_on_the_order_of_labels_nor_on_the_parts(opened, frames):
    expected = review_part(opened(frames[20:]), None, QUICK, opened(frames[:20]))
    order = np.random.default_rng(0).permutation(20)
    new, known = opened([frames[20 + k] for k in order]), opened([frames[k] for k in order])
    assert review_part(new, None, QUICK, known) == expected
    parts = [review_part(new, None, QUICK, known, part=k, n_parts=3) for k in range(3)]
    assert sum(part["n_late"] for part in parts) == 20
    assert {identity for part in parts for identity in part["quarantined"]} == set(expected["quarantined"])


def test_labels_of_other_settings_or_charges_do_not_make_them_enough(opened, frames):
    others = [labelled_frame(k, "lda") for k in range(100, 115)]
    charged = [labelled_frame(k, charge=1.0) for k in range(200, 215)]
    summary = review_part(opened([*frames[10:20], *others, *charged]), None, QUICK, opened(frames[:10]))
    assert (summary["n_reviewed"], summary["n_late"], summary["n_not_compared"]) == (40, 0, 40)


def test_known_labels_of_settings_that_were_not_asked_for_are_left_in_peace(opened, frames):
    known = opened([labelled_frame(k, "lda") for k in range(100, 120)])
    stray = opened([labelled_frame(k, "lda") for k in range(120, 140)])
    summary = review_part(stray, None, QUICK, known, fingerprint="pbe")
    assert (summary["n_late"], summary["by_check"]) == (0, {"fingerprint": 20})


def test_isolated_atoms_do_not_make_labels_enough(opened, frames):
    atom = Atoms("Cu", cell=[9, 9, 9])
    atom.calc = SinglePointCalculator(atom, energy=-0.5, forces=np.zeros((1, 3)))
    atom.info.update(status="labelled", fingerprint="pbe")
    summary = review_part(opened([*frames[:29], atom]), None, QUICK)
    assert (summary["n_quarantined"], summary["n_not_compared"]) == (0, 30)


def test_every_settings_are_compared_however_many_labels_of_others_there_are(opened, frames):
    """The sample of what is known is drawn for each settings by itself."""
    many = [labelled_frame(0, "lda") for _ in range(MAX_CONTEXT)]
    known = opened([*many, *frames[:35]])
    plan = plan_review(opened([labelled_frame(300), labelled_frame(301, "lda")]), None, known)
    judged = plan.choose(30)
    context = plan.context(judged, 30)
    assert len(judged) == 2
    assert [str(atoms.info["fingerprint"]) for atoms in plan.frames(context)].count("pbe") == 35
