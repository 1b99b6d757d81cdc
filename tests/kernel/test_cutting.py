"""Selected frames that are too large to label give pieces around the atoms that are worth it, or say why not."""

import json
import re

import numpy as np
import pytest
from ase.build import bulk

from aiida_alpot.kernel.cutouts import CORE, cut_out
from aiida_alpot.kernel.cutting import CENTRE, FRAME, CuttingSettings, Judge, count_frames, cut_large_frames
from aiida_alpot.kernel.dataset import Dataset, merge, write
from aiida_alpot.kernel.evaluating import EvaluateSettings, attach_predictions
from aiida_alpot.kernel.potentials import Features, Potential, Predictions, offsets_of
from aiida_alpot.kernel.settings import SettingsError, parse_settings
from aiida_alpot.kernel.uncertainty import ActiveSet, Calibration, LocalActiveSet, UncertaintyModel

SPHERE = {"shape": "cluster", "core_radius": 2.0, "reach": 2.0}
CUT = CuttingSettings(**SPHERE, max_atoms=60)


class Planted(Potential):
    """Features are the column ``environment`` of the atoms; forces along x its first number times *sign*."""

    engine, species, cutoff, dtype = "planted", (29,), 4.0, "float64"
    feature_kinds = ("invariants",)

    def __init__(self, sign=1.0, bad=()):
        self.sign, self.bad = sign, bad

    def predict(self, frames, batch_size=32):
        forces = np.zeros((offsets_of(frames)[-1], 3))
        forces[:, 0] = self.sign * np.concatenate([atoms.arrays["environment"][:, 0] for atoms in frames])
        energy = np.array([np.nan if atoms.info.get("group") in self.bad else 1.0 for atoms in frames])
        return Predictions(energy, forces, np.full((len(frames), 6), np.nan), offsets_of(frames))

    def features(self, frames, kind="last_layer", batch_size=32):
        index = np.repeat(np.arange(len(frames)), [len(atoms) for atoms in frames])
        values = np.concatenate([atoms.arrays["environment"] for atoms in frames])
        return Features(values, np.full(len(index), 29), index)


COMMITTEE = (Planted(1.0), Planted(-1.0))
KNOWN = Features(np.eye(2), np.array([29, 29]), np.array([0, 0]))
GRADED = UncertaintyModel(active_set=ActiveSet.build(KNOWN, kind="invariants"), feature_kind="invariants")
LOCAL = UncertaintyModel(
    active_set=LocalActiveSet([GRADED.active_set, ActiveSet.build(Features(1e-3 * np.eye(2), [29, 29], [0, 0]))]),
    feature_kind="invariants",
)
FORCE_MAX = Calibration(scale=1.0, calibrated=True, n_points=10)
UNGRADED = UncertaintyModel(calibrations={"force_max": FORCE_MAX}, tolerances={"force_max": 2.0})


def selected(repeat=4, control=False, planted=None, seed=0, **info):
    """A selected frame of 4 repeat³ atoms in which some atoms have another environment than all others."""
    atoms = bulk("Cu", cubic=True).repeat(repeat)
    atoms.rattle(0.05, seed=seed)
    atoms.arrays["environment"] = np.tile([0.1, 0.1], (len(atoms), 1))
    for k, environment in (planted or {}).items():
        atoms.arrays["environment"][k] = environment
    split = "calibration" if control else "train"
    reason = "control" if control else "grade 5 > 2"
    atoms.info.update(group=f"md-{seed}", split=split, control=control, selection_reason=reason, grade=5.0)
    atoms.info.update(info)
    return atoms


def cut(frames, model=GRADED, settings=CUT, budget=10, seed=1, known=(), gamma=2.0, committee=COMMITTEE, random=False):
    found = cut_large_frames(frames, settings, Judge(committee, model, gamma, random), budget, seed, known)
    assert json.loads(json.dumps(found.report)) == found.report
    return found


def centres(frames):
    return [(atoms.info["group"], atoms.info[CENTRE]) for atoms in frames]


def ids(frames, tmp_path):
    write(tmp_path / "ids.h5", frames)
    with Dataset.open(tmp_path / "ids.h5") as dataset:
        return dataset.frame_ids(labels=False).tolist()


# --- which atoms ---


def test_frames_that_can_be_labelled_stay_as_they_are():
    frames = [selected(1, planted={0: [9, 0]}), selected(2)]
    found = cut(frames)
    assert [a is b for a, b in zip(found.frames, frames, strict=True)] == [True, True]
    assert (found.report["n_large"], found.report["left_out"]) == (0, {})


def test_a_large_frame_gives_the_piece_around_its_worst_atom_and_the_budget_goes_to_the_next_worst_of_all():
    first = selected(planted={7: [5.0, 0.0], 120: [0.0, 3.0], 250: [2.5, 2.5]})
    second = selected(planted={30: [0.0, 4.0], 200: [6.0, 0.0]}, seed=1)
    small = selected(1, seed=2)
    # without a limit there is one piece of each
    assert centres(cut([first, small, second], gamma=None).frames[::2]) == [("md-0", 7), ("md-1", 200)]
    found = cut([first, small, second], UNGRADED, gamma=None)
    # disagreements above the limit of 2 eV/Å, alone, by the first number: 5 and 2.5, 6
    assert centres(atoms for atoms in found.frames if atoms is not small) == [("md-0", 7), ("md-0", 250), ("md-1", 200)]
    found = cut([first, small, second], UNGRADED, gamma=None, budget=3)
    assert centres(atoms for atoms in found.frames if atoms is not small) == [("md-0", 7), ("md-1", 200)]
    assert [found.report[f"n_{name}"] for name in ("large", "cut", "pieces")] == [2, 2, 2]


def test_a_frame_that_the_budget_has_no_room_for_is_reported(tmp_path):
    frames = [selected(planted={7: [3.0, 0.0]}), selected(planted={30: [0.0, 4.0]}, seed=1)]
    found = cut(frames, budget=1)
    assert centres(found.frames) == [("md-1", 30)]
    assert found.report["left_out"] == {ids(frames[:1], tmp_path)[0]: "the budget of 1 was spent on others"}


def test_a_frame_with_no_atom_above_the_limit_was_selected_all_the_same():
    found = cut([selected(planted={3: [0.5, 0.0]})])
    assert centres(found.frames) == [("md-0", 3)]
    assert "grade 0.5" in found.frames[0].info["selection_reason"]


def test_what_the_core_of_a_piece_holds_needs_no_piece_of_its_own():
    frame = selected()
    near = int(np.argsort(frame.get_distances(7, range(len(frame)), mic=True))[1])
    frame.arrays["environment"][[7, near]] = [[5.0, 0.0], [0.0, 4.0]]
    wide = CuttingSettings(shape="cluster", core_radius=3.0, reach=1.0, max_atoms=60)
    assert centres(cut([frame], settings=wide).frames) == [("md-0", 7)]
    assert centres(cut([frame]).frames) == [("md-0", 7), ("md-0", near)]


@pytest.mark.parametrize("model", [GRADED, LOCAL])
def test_an_environment_that_another_piece_brought_is_redundant_and_a_new_one_is_not(model):
    frames = [selected(planted={7: [5.0, 0.0]}), selected(planted={90: [4.0, 0.0], 200: [0.0, 3.0]}, seed=1)]
    found = cut(frames, model)
    assert centres(found.frames) == [("md-0", 7), ("md-1", 200)]
    assert found.report["n_redundant"] == 1
    alone = cut(frames[1:], model)
    assert centres(alone.frames) == [("md-1", 90), ("md-1", 200)]
    # taken in turn, the active set of the model is left alone
    assert model.active_set.grade(KNOWN).max() == pytest.approx(1.0)


def test_pieces_that_are_labelled_already_give_way_to_the_next(tmp_path):
    frame = selected(planted={7: [5.0, 0.0], 200: [0.0, 3.0]})
    first = cut([frame], gamma=None).frames
    again = cut([frame], known=ids(first, tmp_path))
    assert centres(again.frames) == [("md-0", 200)]
    assert again.report["n_known"] == 1
    nothing = cut([frame], known=ids(first, tmp_path), gamma=None)
    assert nothing.frames == []
    assert nothing.report["left_out"] == {ids([frame], tmp_path)[0]: "the piece around Cu 7 is labelled already"}


@pytest.mark.parametrize("random", [False, True])
def test_a_control_frame_is_cut_around_an_atom_that_the_seed_draws(random):
    frame = selected(control=not random, planted={7: [5.0, 0.0]})
    drawn = [cut([frame], seed=seed, random=random).frames[0] for seed in range(12)]
    assert len(set(centres(drawn))) > 9
    assert centres(cut([frame], seed=3, random=random).frames) == centres(drawn[3:4])
    assert all(atoms.info["selection_reason"].endswith("drawn at random") for atoms in drawn)


def test_the_order_of_the_frames_does_not_change_what_is_cut():
    frames = [selected(planted={k: [3.0 + k, 0.0], 200 - k: [0.0, 6.0 - k]}, seed=k) for k in range(3)]
    frames.append(selected(control=True, seed=7))
    straight, turned = cut(frames, budget=5), cut(frames[::-1], budget=5)
    assert sorted(centres(straight.frames)) == sorted(centres(turned.frames))
    assert straight.report == turned.report


# --- what a piece carries ---


def test_a_piece_carries_core_parent_group_split_and_reason_and_no_assessment_of_its_frame(tmp_path):
    frame = selected(planted={7: [5.0, 0.0]}, config_type="md", iteration=3)
    piece = cut([frame]).frames[0]
    assert piece.arrays[CORE].tolist() == [True] + [False] * (len(piece) - 1)
    assert piece.info[FRAME] == ids([frame], tmp_path)[0]
    assert piece.info[CENTRE] == 7
    assert piece.info["selection_reason"] == "grade 5 > 2; cut around Cu 7, grade 5"
    assert "grade" not in piece.info
    kept = ("group", "split", "control", "config_type", "iteration")
    assert {name: piece.info[name] for name in kept} == {name: frame.info[name] for name in kept}
    assert np.array_equal(piece.arrays["environment"][0], [5.0, 0.0])


def test_pieces_and_whole_frames_lie_in_one_dataset_with_the_columns_of_either(tmp_path):
    frames = cut([selected(planted={7: [5.0, 0.0]}), selected(1, seed=1)]).frames
    attach_predictions(frames, COMMITTEE)
    for k, atoms in enumerate(frames):
        write(tmp_path / f"{k}.h5", [atoms])
    merge([tmp_path / "1.h5", tmp_path / "0.h5"], tmp_path / "both.h5")
    with Dataset.open(tmp_path / "both.h5") as dataset:
        whole, piece = list(dataset)
    assert not {CORE, FRAME, CENTRE} & {*whole.info, *whole.arrays}
    np.testing.assert_array_equal(piece.arrays[CORE], frames[0].arrays[CORE])
    assert piece.info[FRAME] == frames[0].info[FRAME]


def test_predictions_are_of_the_piece_and_the_force_disagreement_of_its_core():
    frame = selected(planted={7: [5.0, 0.0]})
    frame.arrays["environment"][8:] = [3.0, 0.0]
    piece = cut([frame]).frames[0]
    attach_predictions([piece], COMMITTEE)
    assert piece.arrays["committee_forces"].shape == (len(piece), 3)
    assert piece.info["committee_force_disagreement"] == pytest.approx(5.0 / np.sqrt(3))


def test_counts_are_those_of_what_is_left():
    frames = cut([selected(planted={7: [5.0, 0.0]}), selected(1, control=True, seed=4)]).frames
    found = count_frames(frames)
    assert (found["n_selected"], found["n_control"], found["n_train"], found["n_calibration"]) == (2, 1, 1, 1)
    assert found["control_groups"] == ["md-4"]


def test_the_shell_of_a_piece_that_is_cut_again_stays_shell():
    frame = selected(6, planted={7: [5.0, 0.0]})
    once = cut_out(frame, 7, CuttingSettings(shape="cluster", core_radius=2.0, reach=6.0, max_atoms=900))
    once.arrays["environment"][1:] = [9.0, 0.0]
    assert len(once) > CUT.max_atoms
    again = cut([once]).frames
    assert centres(again) == [("md-0", 0)]
    wide = cut_out(once, 0, CuttingSettings(shape="cluster", core_radius=4.0, reach=1.0, max_atoms=900))
    assert wide.arrays[CORE].sum() == 1


# --- what cannot be cut ---


@pytest.mark.parametrize(
    ("frame", "settings", "reason"),
    [
        ({}, {"reach": 5.0}, r"the piece around Cu 7 has \d+ atoms, more than 60; lower core_radius or reach"),
        ({}, {"shape": "block", "reach": 6.0}, r"a block of .* is not smaller than the frame"),
        ({"charge": -1.0}, {}, r"the frame has the charge -1; how much of it belongs to a piece is not known"),
        ({"spin": 3}, {}, "the frame has the spin 3; how much"),
        ({"group": "bad"}, {}, "has a prediction that is not finite"),
    ],
)
def test_a_frame_that_cannot_be_cut_is_left_out_with_its_reason(frame, settings, reason, tmp_path):
    good, bad = selected(1, seed=1), selected(planted={7: [5.0, 0.0]}, **frame)
    committee = (Planted(1.0), Planted(-1.0, bad={"bad"}))
    found = cut([bad, good], settings=CuttingSettings(**{**SPHERE, **settings}, max_atoms=60), committee=committee)
    assert [atoms is good for atoms in found.frames] == [True]
    ((identity, why),) = found.report["left_out"].items()
    assert identity == ids([bad], tmp_path)[0]
    assert re.search(reason, why)
    assert (found.report["n_large"], found.report["n_cut"], found.report["n_refused"]) == (1, 0, 1)


def test_a_neutral_frame_without_spin_can_be_cut():
    frame = selected(planted={7: [5.0, 0.0]}, charge=0.0, spin=1)
    assert len(cut([frame]).frames) == 1


def test_settings_are_checked_and_named():
    settings = parse_settings(EvaluateSettings, {"cutout": {"max_atoms": 200, "shape": "cluster"}}, "evaluate.settings")
    assert settings.cutout == CuttingSettings(shape="cluster", max_atoms=200)
    for values, message in (
        ({}, r"evaluate\.settings\.cutout: 'max_atoms' is required"),
        ({"max_atoms": 0}, "max_atoms must be positive, got 0"),
        ({"max_atoms": 9, "reach": 0}, "reach must be positive"),
        ({"max_atom": 9}, "did you mean 'max_atoms'"),
    ):
        with pytest.raises(SettingsError, match=message):
            parse_settings(EvaluateSettings, {"cutout": values}, "evaluate.settings")
