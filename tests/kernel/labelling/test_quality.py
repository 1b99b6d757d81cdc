"""The review of labels: what is caught, and what must not be."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_alpot.kernel.cutouts import CORE, CutoutSettings, cut_out
from aiida_alpot.kernel.dataset import Dataset, write
from aiida_alpot.kernel.labelling.quality import (
    QualitySettings,
    Residuals,
    count_parts,
    quarantine_columns,
    review,
    review_part,
)
from aiida_alpot.kernel.labelling.residuals import keep_errors, read_residuals
from aiida_alpot.kernel.labelling.shards import without_labels
from aiida_alpot.kernel.settings import SettingsError, parse_settings, settings_to_dict

ATOM_ENERGIES = {"Cu": -3.7, "Au": -3.2}


def with_labels(atoms, energy, forces, stress=None, **info):
    frame = atoms.copy()
    labels = {"energy": energy, "forces": forces}
    if stress is not None:
        labels["stress"] = stress
    frame.calc = SinglePointCalculator(frame, **labels)
    frame.info.update(status="labelled", fingerprint="pbe", **info)
    return frame


def change(frame, **labels):
    """Return a copy of a labelled frame with other labels."""
    copy = frame.copy()
    copy.calc = SinglePointCalculator(copy, **{**frame.calc.results, **labels})
    return copy


def emt(atoms, **info):
    atoms.calc = EMT()
    energy = atoms.get_potential_energy() + sum(ATOM_ENERGIES[symbol] for symbol in atoms.symbols)
    return with_labels(atoms, energy, atoms.get_forces(), atoms.get_stress(), **info)


def make_frames(n_frames, seed=0, symbols=("Cu", "Au")):
    """Frames as active learning picks them: rattled up to a tenth of a bond, strained by up to 10 %, vacancies."""
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(n_frames):
        atoms = bulk("Cu", "fcc", a=3.8, cubic=True).repeat((2, 1, 1))
        atoms.symbols = rng.choice(symbols, len(atoms))
        if k % 4 == 3:
            del atoms[0]
        strain = rng.uniform(-0.03, 0.03, (3, 3)) + rng.uniform(-0.06, 0.08) * np.eye(3) * (k % 4 == 1)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        atoms.positions += rng.normal(0, (0.05, 0.03, 0.18, 0.1)[k % 4], atoms.positions.shape)
        frames.append(emt(atoms))
    return frames


@pytest.fixture(scope="module")
def clean():
    return make_frames(60)


def quarantined(verdicts):
    return {verdict.frame: verdict.check for verdict in verdicts if verdict.status == "quarantined"}


# what must not be caught


def test_rattled_strained_and_vacant_frames_are_accepted(clean):
    verdicts = review(clean)
    assert [verdict.frame for verdict in verdicts] == list(range(60))
    assert quarantined(verdicts) == {}


def test_frames_of_one_composition_are_accepted():
    assert quarantined(review(make_frames(40, seed=3, symbols=("Cu",)))) == {}


def test_isolated_atoms_are_accepted(clean):
    atom = with_labels(Atoms("Cu", cell=[15, 15, 15], pbc=False), -0.2, np.zeros((1, 3)))
    assert quarantined(review([*clean, atom])) == {}


@pytest.mark.parametrize("n_frames", [0, 1, 3, 5])
def test_a_few_frames_are_never_judged_by_statistics(clean, n_frames):
    odd = [change(frame, energy=frame.calc.results["energy"] + 3.0 * k) for k, frame in enumerate(clean[:n_frames])]
    assert quarantined(review(odd)) == {}


def test_perfect_crystals_with_zero_forces_are_accepted(clean):
    crystals = [emt(bulk("Cu", "fcc", a=a, cubic=True)) for a in np.linspace(3.5, 3.9, 5)]
    crystals = [change(frame, forces=np.zeros((4, 3))) for frame in crystals]
    assert quarantined(review([*clean, *crystals])) == {}


# what must be caught


@pytest.mark.parametrize(
    ("labels", "check", "words"),
    [
        ({"energy": lambda r: r["energy"] / 13.605693}, "unit", "in Ry"),
        ({"energy": lambda r: r["energy"] / 27.211386}, "unit", "in Ha"),
        ({"forces": lambda r: r["forces"] / 25.711043}, "unit", "Ry/bohr"),
        ({"forces": lambda r: r["forces"] / 51.422086}, "unit", "Ha/bohr"),
        ({"forces": lambda r: -r["forces"]}, "unit", "opposite sign"),
        ({"stress": lambda r: -r["stress"]}, "unit", "opposite sign"),
        ({"stress": lambda r: r["stress"] * 160.21766}, "unit", "GPa"),
        ({"energy": lambda r: r["energy"] + 100.0}, "composition", "off the sum of its atoms"),
        ({"energy": lambda _: 229945.0}, "limit", "eV/atom"),
        ({"energy": lambda r: r["energy"] - 4.0}, "energy", "off the other labels"),
        ({"forces": lambda r: 0.0 * r["forces"]}, "missing", "exactly zero"),
        ({"forces": lambda r: r["forces"][::-1]}, "force", "off the other labels"),
        ({"forces": lambda r: r["forces"] + 0.5}, "drift", "add up"),
        ({"forces": lambda r: r["forces"] + 0.005}, "drift", "net force"),
    ],
)
def test_a_wrong_label_is_caught_and_its_fault_named(clean, labels, check, words):
    k = 2  # rattled by 0.18 Å
    results = clean[k].calc.results
    bad = change(clean[k], **{name: spoil(results) for name, spoil in labels.items()})
    verdicts = review([*clean[:k], bad, *clean[k + 1 :]])
    assert quarantined(verdicts) == {k: check}
    assert words in verdicts[k].reason
    assert verdicts[k].value > verdicts[k].limit


def test_the_label_of_exchanged_species_is_named(clean):
    k = 2
    exchanged = clean[k].copy()
    exchanged.symbols = ["Au" if symbol == "Cu" else "Cu" for symbol in clean[k].symbols]
    verdicts = review([*clean[:k], change(clean[k], **emt(exchanged).calc.results), *clean[k + 1 :]])
    assert list(quarantined(verdicts)) == [k]
    assert "Cu and Au exchanged" in verdicts[k].reason


def test_one_bad_label_is_caught_beside_known_ones(clean):
    bad = change(clean[2], energy=clean[2].calc.results["energy"] / 13.605693)
    assert quarantined(review([clean[0], bad], known=clean[3:])) == {1: "unit"}


def test_a_twentieth_of_bad_labels_hides_none_of_them(clean):
    frames = list(clean)
    for k in range(2, 60, 20):
        frames[k] = change(frames[k], energy=frames[k].calc.results["energy"] / 27.211386)
    assert quarantined(review(frames)) == dict.fromkeys(range(2, 60, 20), "unit")


def test_overlap_and_net_force_need_no_other_label():
    atoms = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 0.1]])
    verdict = review([with_labels(atoms, 0.0, np.zeros((2, 3)))])[0]
    assert (verdict.check, verdict.status) == ("overlap", "quarantined")
    pushed = with_labels(molecule("H2O"), -14.0, np.full((3, 3), 0.2))
    assert review([pushed])[0].check == "drift"
    assert review([pushed], QualitySettings(max_drift=None))[0].status == "labelled"


# settings of labels


def test_only_labels_of_other_settings_than_asked_for_are_quarantined(clean):
    frames = [frame.copy() for frame in clean[:4]]
    for frame, source in zip(frames, clean, strict=False):
        frame.calc = source.calc
    frames[1].info["fingerprint"] = "lda"
    frames[3].info["fingerprint"] = ""
    assert quarantined(review(frames)) == {}
    verdicts = review(frames, QualitySettings(fingerprint="pbe"))
    assert quarantined(verdicts) == {1: "fingerprint", 3: "fingerprint"}
    assert "2 of pbe" in verdicts[1].reason
    assert "1 of lda" in verdicts[1].reason


def test_labels_of_several_settings_are_not_compared_with_each_other(clean):
    shifted = []
    for frame in clean:
        other = change(frame, energy=frame.calc.results["energy"] - 50.0 * len(frame))
        other.info["fingerprint"] = "scan"
        shifted.append(other)
    assert quarantined(review([*clean, *shifted])) == {}


# invariances


def spoilt(clean):
    frames = list(clean)
    frames[2] = change(frames[2], forces=frames[2].calc.results["forces"] / 25.711043)
    frames[7] = change(frames[7], energy=frames[7].calc.results["energy"] - 4.0)
    return frames


def test_the_order_of_frames_does_not_matter(clean):
    frames = spoilt(clean)
    order = np.random.default_rng(0).permutation(len(frames))
    found = quarantined(review([frames[k] for k in order]))
    assert {int(order[k]): check for k, check in found.items()} == {2: "unit", 7: "energy"}


def test_neither_order_of_atoms_nor_rotation_nor_atomic_energies_matter(clean):
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    frames = []
    for frame in spoilt(clean):
        order = rng.permutation(len(frame))
        results = frame.calc.results
        shift = sum({"Cu": -1000.0, "Au": -30.0}[symbol] for symbol in frame.symbols)
        xx, yy, zz, yz, xz, xy = results["stress"]
        stress = turn.T @ np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]) @ turn
        moved = frame[order]
        moved.set_cell(frame.cell.array @ turn)
        moved.positions = frame.positions[order] @ turn
        new = with_labels(moved, results["energy"] + shift, results["forces"][order] @ turn, stress)
        frames.append(new)
    before, after = review(spoilt(clean)), review(frames)
    assert quarantined(before) == quarantined(after)
    for one, other in zip(before, after, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-3, nan_ok=True)


# a committee


def make_residuals(n_frames, seed=0):
    rng = np.random.default_rng(seed)
    expected = np.exp(rng.normal(0, 0.7, (2, n_frames))) * np.array([[0.002], [0.05]])
    error = np.abs(rng.normal(size=(2, n_frames))) * expected * 1.7
    return Residuals(error[0], error[1], expected[0], expected[1])


def test_a_label_far_off_a_sure_committee_is_caught_and_one_off_an_unsure_committee_is_not(clean):
    residuals = make_residuals(60)
    residuals.energy[4], residuals.expected_energy[4], residuals.expected_force[4] = 0.06, 0.0015, 0.04
    residuals.energy[5], residuals.expected_energy[5], residuals.expected_force[5] = 0.06, 0.04, 1.0
    verdicts = review(clean, QualitySettings(use_surrogate=False), residuals=residuals)
    assert quarantined(verdicts) == {4: "committee"}
    assert "the committee is 0.06 eV/atom off" in verdicts[4].reason


@pytest.mark.parametrize(("name", "size", "sure"), [("energy", 0.06, 0.0015), ("force", 2.0, 0.01)])
def test_an_error_of_the_committee_that_would_have_shown_in_the_label_is_not_held_against_it(clean, name, size, sure):
    residuals = make_residuals(60)
    getattr(residuals, name)[4], getattr(residuals, f"expected_{name}")[4] = size, sure
    alone = review(clean, QualitySettings(use_surrogate=False), residuals=residuals)
    assert quarantined(alone) == {4: "committee"}
    assert quarantined(review(clean, residuals=residuals)) == {}


def test_a_label_whose_error_is_too_small_to_show_is_set_aside_on_the_word_of_the_committee(clean):
    residuals = make_residuals(60)
    residuals.energy[4], residuals.expected_energy[4], residuals.expected_force[4] = 0.008, 1e-4, 0.002
    labels = clean[4].calc.results
    bad = change(clean[4], energy=labels["energy"] + 0.008 * len(clean[4]))
    frames = [*clean[:4], bad, *clean[5:]]
    assert quarantined(review(frames)) == {}
    assert quarantined(review(frames, residuals=residuals)) == {4: "committee"}


def test_forces_that_are_all_zero_are_no_forces_however_small_they_should_be(clean):
    atoms = bulk("Cu", "fcc", a=3.8, cubic=True).repeat((2, 1, 1))
    atoms.positions[0] += [0.03, 0.0, 0.0]
    good = emt(atoms)
    assert 0.01 < np.sqrt(np.mean(good.calc.results["forces"] ** 2)) < 0.03
    bad = change(good, forces=np.zeros((8, 3)))
    assert quarantined(review([*clean, good])) == {}
    assert quarantined(review([*clean, bad])) == {60: "missing"}
    residuals = make_residuals(61)
    assert quarantined(review([*clean, bad], residuals=residuals)) == {60: "missing"}


def test_a_label_that_the_committee_foretold_is_not_set_aside_for_the_surrogate(clean):
    frames = list(clean)
    labels = frames[4].calc.results
    frames[4] = with_labels(frames[4], labels["energy"] + 0.5 * len(frames[4]), labels["forces"], labels["stress"])
    assert quarantined(review(frames)) == {4: "energy"}
    residuals = make_residuals(60)
    residuals.energy[4], residuals.force[4] = 1.5 * residuals.expected_energy[4], 1.5 * residuals.expected_force[4]
    assert quarantined(review(frames, residuals=residuals)) == {}
    residuals.force[4] = 40.0 * residuals.expected_force[4]  # right about the energy by chance
    assert set(quarantined(review(frames, residuals=residuals))) == {4}


def test_residuals_of_other_frames_are_refused(clean):
    with pytest.raises(ValueError, match="one entry for each of 60 frames, got 59"):
        review(clean, residuals=make_residuals(59))
    with pytest.raises(ValueError, match="four arrays of one length"):
        Residuals(np.zeros(3), np.zeros(2), np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match="expected_force must not be negative"):
        Residuals(np.zeros(1), np.zeros(1), np.zeros(1), -np.ones(1))


# pieces of larger frames


@pytest.fixture(scope="module")
def pieces():
    rng = np.random.default_rng(7)
    found = []
    for _ in range(3):
        atoms = bulk("Cu", "fcc", a=3.8, cubic=True).repeat(4)
        atoms.symbols = rng.choice(("Cu", "Au"), len(atoms))
        atoms.positions += rng.normal(0, 0.08, atoms.positions.shape)
        found.append(emt(cut_out(atoms, 0, CutoutSettings("cluster", core_radius=2.9, reach=3.5))))
    return found


def with_forces(piece, on_core, change):
    """Change the forces on two atoms, of the core or not, by opposite vectors."""
    forces = piece.calc.results["forces"].copy()
    chosen = np.flatnonzero(piece.arrays[CORE] == on_core)[[0, -1]]
    forces[chosen] += [[change, 0, 0], [-change, 0, 0]]
    return with_labels(piece, piece.calc.results["energy"], forces)


def test_pieces_are_judged_by_the_forces_on_their_core(clean, pieces):
    assert quarantined(review([*clean, *pieces])) == {}
    spoilt = [with_forces(pieces[0], False, 20.0), with_forces(pieces[1], True, 20.0), pieces[2]]
    assert quarantined(review([*clean, *spoilt])) == {61: "force"}


def test_a_piece_that_the_committee_foretold_is_told_by_its_core(clean, pieces):
    piece = with_forces(pieces[0], True, 20.0)
    piece.info.update(committee_energy=0.0, committee_energy_disagreement=0.01, committee_force_disagreement=0.05)
    piece.arrays["committee_forces"] = np.where(piece.arrays[CORE][:, None], piece.calc.results["forces"] + 0.05, 99.0)
    (energy,), (force,), _, (expected,) = vars(read_residuals([piece])).values()
    assert np.isnan(energy)
    assert (force, expected) == (pytest.approx(0.05), 0.05)
    residuals = make_residuals(61)
    residuals.energy[60], residuals.force[60] = np.nan, 1.5 * residuals.expected_force[60]
    assert quarantined(review([*clean, piece])) == {60: "force"}
    assert quarantined(review([*clean, piece], residuals=residuals)) == {}
    residuals.force[60] = 40.0 * residuals.expected_force[60]
    assert set(quarantined(review([*clean, piece], residuals=residuals))) == {60}


# magnetism

MOMENTS_ONLY = QualitySettings(use_surrogate=False)


def iron(volume_factor, moments, energy):
    atoms = bulk("Fe", "bcc", a=2.85, cubic=True)
    atoms.set_cell(atoms.cell.array * volume_factor ** (1 / 3), scale_atoms=True)
    frame = with_labels(atoms, energy, np.zeros((2, 3)))
    frame.calc = SinglePointCalculator(frame, **frame.calc.results, magmoms=np.array(moments))
    return frame


def test_a_frame_on_the_upper_magnetic_branch_is_caught():
    volumes = np.linspace(0.9, 1.1, 40)
    energies = -16.0 + 5.0 * (volumes - 1.0) ** 2
    frames = [iron(v, [1.5 + v] * 2, e) for v, e in zip(volumes, energies, strict=True)]
    assert quarantined(review(frames, MOMENTS_ONLY)) == {}
    flipped = iron(volumes[20], [2.5, -2.5], energies[20] + 0.5)
    verdicts = review([*frames[:20], flipped, *frames[21:]], MOMENTS_ONLY)
    assert quarantined(verdicts) == {20: "magnetism"}
    assert "another magnetic branch" in verdicts[20].reason


def test_the_lower_branch_and_a_flip_of_all_moments_are_accepted():
    volumes = np.linspace(0.9, 1.1, 40)
    energies = -16.0 + 5.0 * (volumes - 1.0) ** 2
    frames = [iron(v, [1.5 + v] * 2, e) for v, e in zip(volumes, energies, strict=True)]
    frames[10] = iron(volumes[10], [-1.5 - volumes[10]] * 2, energies[10])
    frames[20] = iron(volumes[20], [0.0, 0.0], energies[20] - 0.5)
    assert quarantined(review(frames, MOMENTS_ONLY)) == {}


def test_moments_that_collapse_under_pressure_are_accepted():
    volumes = np.linspace(0.6, 1.1, 60)
    moments = 2.5 / (1.0 + np.exp(-(volumes - 0.8) / 0.02))
    frames = [iron(v, [m, m], -16.0 + 5.0 * (v - 1.0) ** 2) for v, m in zip(volumes, moments, strict=True)]
    assert quarantined(review(frames, MOMENTS_ONLY)) == {}


# datasets and settings


@pytest.fixture
def labelled(tmp_path, clean):
    """A failed frame and sixty labels, two of them spoilt, as a labelling returns them; and what it was given."""
    failed = bulk("Cu")
    failed.info.update(status="failed", reason="SCF did not converge")
    frames = spoilt(clean)
    write(tmp_path / "labelled.h5", [failed, *frames])
    write(tmp_path / "given.h5", [without_label(frame) for frame in (failed, *frames)])
    with Dataset.open(tmp_path / "labelled.h5") as labelled, Dataset.open(tmp_path / "given.h5") as given:
        yield labelled, given


def without_label(frame):
    copy = frame.copy()
    copy.calc = None
    copy.info = {}
    return copy


def test_the_review_of_a_labelling_names_its_frames_and_gives_their_columns(labelled, tmp_path):
    found, given = labelled
    summary = review_part(found, given, QualitySettings())
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["by_check"] == {"unit": 1, "energy": 1}
    assert (summary["n_reviewed"], summary["n_quarantined"]) == (60, 2)
    ids = found.frame_ids()
    assert set(summary["quarantined"]) == {ids[3], ids[8]}
    reasons = {identity: verdict["reason"] for identity, verdict in summary["quarantined"].items()}
    found.write(tmp_path / "reviewed.h5", **quarantine_columns(found, reasons))
    with Dataset.open(tmp_path / "reviewed.h5") as reviewed:
        status, reason = reviewed.column("status"), reviewed.column("reason")
        assert status[[0, 1, 3, 8]].tolist() == ["failed", "labelled", "quarantined", "quarantined"]
        assert reason[0] == "SCF did not converge"
        assert "Ry/bohr" in reason[3]
        assert reason[1] == ""


def test_parts_cover_every_new_label_once_and_see_the_others(labelled):
    found, given = labelled
    parts = [review_part(found, given, QualitySettings(), part=k, n_parts=4) for k in range(4)]
    assert [part["n_reviewed"] for part in parts] == [15] * 4
    assert {identity for part in parts for identity in part["quarantined"]} == {found.frame_ids()[k] for k in (3, 8)}
    assert [count_parts(n) for n in (0, 1, 250, 251, 1000)] == [1, 1, 1, 2, 4]


def test_a_label_that_was_there_before_is_not_judged_again(labelled):
    found, _ = labelled
    assert review_part(found, found, QualitySettings())["n_reviewed"] == 0


def test_labels_known_before_are_the_context_of_a_few_new_ones(labelled, tmp_path, clean):
    _, given = labelled
    known = [change(frame, energy=frame.calc.results["energy"]) for frame in make_frames(60, seed=9)]
    write(tmp_path / "known.h5", known)
    write(tmp_path / "new.h5", spoilt(clean)[:5])
    with Dataset.open(tmp_path / "known.h5") as before, Dataset.open(tmp_path / "new.h5") as few:
        assert review_part(few, given, QualitySettings())["n_quarantined"] == 0
        summary = review_part(few, given, QualitySettings(), before)
        assert list(summary["quarantined"]) == [few.frame_ids()[2]]


def test_what_a_committee_predicted_is_read_from_the_frames(tmp_path):
    frames = []
    for k, frame in enumerate(make_frames(40)):
        energy, forces = frame.calc.results["energy"], frame.calc.results["forces"]
        off = 0.5 if k == 7 else 0.001
        frame.info.update(
            committee_energy=energy + off * len(frame),
            committee_energy_disagreement=0.001,
            committee_force_disagreement=0.05,
        )
        frame.arrays["committee_forces"] = forces + 0.05
        frames.append(frame)
    write(tmp_path / "new.h5", frames)
    write(tmp_path / "given.h5", [without_label(frame) for frame in frames])
    with Dataset.open(tmp_path / "new.h5") as new, Dataset.open(tmp_path / "given.h5") as given:
        summary = review_part(new, given, QualitySettings(use_surrogate=False))
        assert list(summary["quarantined"]) == [new.frame_ids()[7]]
        assert summary["by_check"] == {"committee": 1}


def test_a_few_labels_are_judged_by_the_errors_that_committees_had_before(tmp_path):
    frames = []
    for k, frame in enumerate(make_frames(60)):
        labels, off = frame.calc.results, 0.5 if k == 55 else 0.001 * (1 + k % 3)
        frame.info.update(
            committee_energy=labels["energy"] + off * len(frame),
            committee_energy_disagreement=0.001,
            committee_force_disagreement=0.05,
        )
        frame.arrays["committee_forces"] = labels["forces"] + 0.05
        frames.append(frame)
    for frame in frames[:50]:
        keep_errors(frame)
        assert "committee_forces" not in frame.arrays
    write(tmp_path / "known.h5", frames[:50])
    write(tmp_path / "new.h5", frames[50:])
    write(tmp_path / "given.h5", [without_label(frame) for frame in frames[50:]])
    opened = [Dataset.open(tmp_path / f"{name}.h5") for name in ("new", "given", "known")]
    with opened[0] as new, opened[1] as given, opened[2] as known:
        settings = QualitySettings(use_surrogate=False)
        assert review_part(new, given, settings)["by_check"] == {}
        summary = review_part(new, given, settings, known)
        assert list(summary["quarantined"]) == [new.frame_ids()[5]]
        assert summary["by_check"] == {"committee": 1}


def test_the_error_of_a_label_goes_with_it(clean):
    frame = clean[0].copy()
    frame.info.update(committee_energy_error=0.1, committee_force_error=0.1, committee_energy_disagreement=0.01)
    assert not {name for name in without_labels(frame).info if name.startswith("committee")}
    frame = clean[0].copy()
    frame.info.update(committee_energy=-1.0, committee_energy_disagreement=0.01)
    assert without_labels(frame).info["committee_energy_disagreement"] == 0.01


def test_labelled_frames_without_finite_labels_are_refused():
    frame = bulk("Cu")
    frame.info["status"] = "labelled"
    with pytest.raises(ValueError, match="new labels: frame 0 is labelled but has no finite energy"):
        review([frame])
    with pytest.raises(TypeError, match=r"known labels: frame 0: expected ase\.Atoms"):
        review([], known=["frame"])


def test_settings_survive_a_round_trip_and_refuse_what_makes_no_sense():
    settings = QualitySettings(fingerprint="pbe", max_drift=None)
    assert parse_settings(QualitySettings, settings_to_dict(settings), "quality") == settings
    for name, value in (
        ("n_min", 3),
        ("max_drift", -1.0),
        ("energy_factor", 0.5),
        ("force_floor", -1.0),
        ("max_force", 0),
    ):
        with pytest.raises(SettingsError, match=name):
            parse_settings(QualitySettings, {name: value}, "quality")
    with pytest.raises(SettingsError, match="did you mean 'max_force'"):
        parse_settings(QualitySettings, {"max_forces": 1.0}, "quality")
