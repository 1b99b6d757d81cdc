"""Candidates are judged by what the committee says of them, and those worth a label are selected."""

from dataclasses import replace

import numpy as np
import pytest

from aiida_alpot.kernel.calibrating import CalibrateSettings, assess, fit_uncertainty
from aiida_alpot.kernel.criterion import find_limits
from aiida_alpot.kernel.cutting import CuttingSettings
from aiida_alpot.kernel.dataset import Dataset, merge
from aiida_alpot.kernel.evaluating import (
    EvaluateSettings,
    _whiten,
    attach_predictions,
    build_frame_features,
    build_table,
    canonical_order,
    choose_strategy,
    count_extrapolated,
    count_out_of_span,
    flagging_grade,
    select_candidates,
    selected_frames,
    selection_warnings,
)
from aiida_alpot.kernel.exploration.monitor import Monitor
from aiida_alpot.kernel.selection import STRATEGIES, CandidateTable, get_strategy
from aiida_alpot.kernel.settings import SettingsError, parse_settings
from aiida_alpot.kernel.uncertainty import ActiveSet, Calibration, LocalActiveSet, UncertaintyModel

SPREAD = 0.05


@pytest.fixture
def frames(make):
    return make.crystals(12)


@pytest.fixture
def committee(make, frames):
    return [make.OffTarget(frames, SPREAD, SPREAD, SPREAD), make.OffTarget(frames, -SPREAD, -SPREAD, -SPREAD)]


@pytest.fixture
def model():
    """Errors are twice the disagreement; a force disagreement above 0.01 eV/Å is too much."""
    twice = Calibration(scale=2.0, calibrated=True, n_points=10)
    return UncertaintyModel(calibrations={"force": twice}, tolerances={"force": 0.02}, model_hashes=("a", "b"))


def select(opened_frames, committee, model, dataset=None, seed=1, **values):
    settings = EvaluateSettings(**values)
    table, arrays = build_table(opened_frames, committee, model, settings)
    limits = find_limits(opened_frames, model, settings.criterion, arrays)
    return select_candidates(
        table, model, settings, seed, limits=limits, candidates=opened_frames, dataset=dataset, potentials=committee
    )


def test_table_holds_disagreement_and_calibrated_error_of_every_frame(opened, frames, committee, model):
    table, arrays = build_table(opened(frames), committee, model, EvaluateSettings())
    assert len(table) == 12
    np.testing.assert_allclose(table.energy, SPREAD, rtol=1e-12)
    np.testing.assert_allclose(table.force, SPREAD, rtol=1e-12)
    np.testing.assert_allclose(table.force_max, np.sqrt(3) * SPREAD, rtol=1e-12)
    np.testing.assert_allclose(table.stress, SPREAD, rtol=1e-12)
    np.testing.assert_allclose(arrays["error_force"], 2 * SPREAD, rtol=1e-12)
    assert np.isnan(arrays["error_energy"]).all()
    assert np.isnan(table.grade).all()
    assert table.healthy.all()


def test_arrays_for_people_can_be_stored_without_pickle(opened, frames, committee, model, tmp_path):
    _, arrays = build_table(opened(frames), committee, model, EvaluateSettings())
    np.savez(tmp_path / "table.npz", allow_pickle=False, **arrays)
    with np.load(tmp_path / "table.npz", allow_pickle=False) as stored:
        assert set(stored) == {
            *(f"disagreement_{name}" for name in ("energy", "force", "force_max", "stress")),
            *(f"error_{name}" for name in ("energy", "force", "force_max", "stress")),
            *("grade", "residual", "healthy", "rejected", "group", "structure_id"),
        }
        assert stored["group"].tolist() == [atoms.info["group"] for atoms in frames]


@pytest.mark.parametrize("stored", [True, False])
def test_candidates_are_flagged_by_the_threshold_of_their_category(opened, frames, committee, stored):
    for atoms in frames[:5]:
        if stored:
            atoms.info["cluster"] = 2
    calibration = Calibration("conformal", scale=1.0, categories={"2": 4.0}, calibrated=True)
    model = UncertaintyModel({"force": calibration}, {"force": 0.1}, category_column="cluster")
    dataset = opened(frames)
    _, arrays = build_table(dataset, committee, model, EvaluateSettings())
    np.testing.assert_allclose(arrays["error_force"], [(4 if stored else 1) * SPREAD] * 5 + [SPREAD] * 7)
    selection = select(dataset, committee, model)
    assert selection.report["n_flagged"] == (5 if stored else 0)
    assert selection.report["limits"] == {"force": 0.025 if stored else 0.1}
    chosen = [reason for reason in selection.reasons if reason != "control"]
    assert set(chosen) == ({"force 0.05 > 0.025 eV/Å"} if stored else set())


def test_candidates_beyond_the_calibration_are_counted(opened, frames, committee):
    within, beyond = (
        Calibration(largest_disagreement=SPREAD * factor, calibrated=True, n_points=10) for factor in (1.1, 0.9)
    )
    model = UncertaintyModel({"energy": within, "force": beyond, "stress": Calibration()})
    _, arrays = build_table(opened(frames), committee, model, EvaluateSettings())
    assert count_extrapolated(model, arrays) == {"energy": 0, "force": 12, "stress": 0}


@pytest.mark.parametrize(
    ("n_members", "settings", "warned"),
    [
        (4, {}, True),
        (9, {"strategy": "greedy_diverse"}, True),
        (10, {}, False),
        (4, {"gamma_select": 2.0}, False),
        (4, {"strategy": "random"}, False),
    ],
)
def test_a_small_committee_that_selects_alone_is_told(n_members, settings, warned):
    notes = selection_warnings(n_members, UncertaintyModel(), EvaluateSettings(**settings))
    assert bool(notes) == warned
    assert all(f"committee of {n_members} selects" in note and "from 10 members" in note for note in notes)


def test_a_grade_that_trajectories_keep_frames_by_is_one_to_select_by():
    kept = UncertaintyModel(gamma_save=5.0)
    assert flagging_grade(kept, EvaluateSettings()) == 5.0
    assert flagging_grade(kept, EvaluateSettings(gamma_select=2.0)) == 2.0
    assert flagging_grade(UncertaintyModel(), EvaluateSettings()) is None
    assert selection_warnings(4, kept, EvaluateSettings()) == []


def test_a_limit_of_grades_without_grades_is_refused_before_anything_is_computed(opened, committee, model, frames):
    ungraded = replace(model, active_set=None)
    with pytest.raises(ValueError, match=r"gamma_select = 2.0 needs grades, and the calibration has none"):
        build_table(opened(frames), committee, ungraded, EvaluateSettings(gamma_select=2.0))


def test_a_strategy_that_chooses_by_grade_has_its_limit_everywhere(committee, frames):
    model = UncertaintyModel(active_set=ActiveSet.build(committee[0].features(frames)))
    assert flagging_grade(model, EvaluateSettings(strategy="ladder")) == 2.0
    assert flagging_grade(model, EvaluateSettings(strategy="ladder", gamma_select=5.0)) == 5.0


@pytest.mark.parametrize(
    ("values", "has_features", "expected"),
    [
        ({}, True, "direct"),
        ({}, False, "threshold"),
        ({"features": "soap"}, False, "direct"),
        ({"features": "sorted_distances"}, False, "direct"),
        ({"strategy": "top"}, True, "top"),
        ({"strategy": "direct"}, False, "direct"),
    ],
)
def test_the_strategy_goes_by_features_where_there_are_any(make, frames, values, has_features, expected):
    kinds = ("last_layer",) if has_features else ()
    members = [make.OffTarget(frames, feature_kinds=()), make.OffTarget(frames, feature_kinds=kinds)]
    assert choose_strategy(EvaluateSettings(**values), members).strategy == expected


def test_no_candidates_give_an_empty_table_and_selection(opened, committee, model):
    dataset = opened([])
    for settings in (EvaluateSettings(), EvaluateSettings(strategy="fps"), EvaluateSettings(min_distance=0.1)):
        table, arrays = build_table(dataset, committee, model, settings)
        selection = select_candidates(table, model, settings, 1)
        assert len(table) == len(selection) == len(arrays["grade"]) == 0
        assert selected_frames(dataset, selection) == []
        attach_predictions([], committee)


def test_unhealthy_candidates_are_not_selected(opened, frames, committee, model):
    healthy = [k % 2 == 0 for k in range(12)]
    for atoms, flag in zip(frames, healthy, strict=True):
        atoms.info["healthy"] = flag
    dataset = opened(frames)
    table, _ = build_table(dataset, committee, model, EvaluateSettings())
    assert table.healthy.tolist() == healthy
    selection = select(dataset, committee, model)
    assert len(selection) == 6
    assert all(healthy[k] for k in selection.indices)


def test_candidates_from_a_pool_without_health_are_healthy(opened, frames, committee, model, tmp_path):
    for atoms in frames[:4]:
        atoms.info["healthy"] = atoms is not frames[0]
    merge([opened(frames[:4]), opened(frames[4:])], tmp_path / "merged.h5")
    with Dataset.open(tmp_path / "merged.h5") as dataset:
        table, _ = build_table(dataset, committee, model, EvaluateSettings())
    assert np.flatnonzero(~table.healthy).tolist() == [0]


def test_control_frames_are_not_taken_from_frames_saved_for_being_uncertain(opened, frames, committee, model):
    for k, atoms in enumerate(frames[:9]):
        atoms.info["sampled"] = k < 3
    dataset = opened(frames)
    drawn = set()
    for seed in range(20):
        selection = select(dataset, committee, model, seed=seed, budget=12, control_share=0.3)
        drawn.update(selection.indices[selection.control].tolist())
    # frames 9 to 11 do not come from a trajectory
    assert drawn == {0, 1, 2, 9, 10, 11}


def test_a_candidate_without_a_group_is_its_own_group(opened, frames, committee, model):
    for atoms in frames[4:]:
        del atoms.info["group"]
    dataset = opened(frames)
    table, arrays = build_table(dataset, committee, model, EvaluateSettings())
    ids = dataset.frame_ids(labels=False).tolist()
    expected = [atoms.info["group"] for atoms in frames[:4]] + ids[4:]
    assert table.group.tolist() == arrays["group"].tolist() == expected
    selection = select(dataset, committee, model)
    chosen = selected_frames(dataset, selection)
    assert [atoms.info["group"] for atoms in chosen] == [expected[k] for k in selection.indices]


def selection_hashes(dataset, committee, model, opened, **values):
    """Return content and usage of what is selected, and its order."""
    candidates = canonical_order(dataset)
    chosen = opened(selected_frames(candidates, select(candidates, committee, model, **values)))
    return chosen.content_hash, chosen.usage_hash, chosen.frame_ids().tolist()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_selection_does_not_depend_on_how_candidates_are_ordered_or_spread_over_files(
    opened, frames, committee, model, strategy, tmp_path
):
    for k, atoms in enumerate(frames):
        atoms.info.update(group=f"trajectory-{k // 3}", sampled=True)
    del frames[0].info["sampled"]
    active_set = ActiveSet.build(committee[0].features(frames[:1]), start="eps")
    model = replace(model, active_set=active_set)
    values = {"strategy": strategy, "budget": 8}
    straight = selection_hashes(opened(frames), committee, model, opened, **values)
    shuffled = [frames[int(k)] for k in np.random.default_rng(3).permutation(12)]
    merge([opened(shuffled[:5]), opened(shuffled[5:6]), opened(shuffled[6:])], tmp_path / "merged.h5")
    with Dataset.open(tmp_path / "merged.h5") as dataset:
        assert selection_hashes(dataset, committee, model, opened, **values) == straight


def test_copies_of_a_structure_are_ordered_by_how_they_were_made(opened, frames):
    copies = [frames[0].copy() for _ in range(3)]
    for atoms, time in zip(copies, (0.0, 10.0, 20.0), strict=True):
        atoms.info["time_fs"] = time
    orders = [canonical_order(opened([copies[k] for k in order])) for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0))]
    assert len({tuple(view.column("time_fs").tolist()) for view in orders}) == 1


def test_candidates_that_are_all_broken_give_an_empty_selection(opened, frames, make, model):
    labelled, dataset = opened(frames[:2], split=["train", "train"]), opened(frames[2:])
    committee = [make.OffTarget(frames, bad={atoms.info["group"] for atoms in frames[2:]}) for _ in range(2)]
    for values in ({"strategy": "fps"}, {"min_distance": 0.1}, {"strategy": "fps", "allow_unhealthy": True}):
        assert len(select(dataset, committee, model, dataset=labelled, **values)) == 0


@pytest.mark.parametrize("strategy", ["threshold", "fps"])
def test_a_prediction_that_is_not_finite_makes_its_frame_unhealthy(opened, frames, make, model, strategy):
    bad = {frames[3].info["group"]}
    committee = [make.OffTarget(frames, force=s * SPREAD, bad=bad) for s in (1, -1)]
    settings = EvaluateSettings(strategy=strategy)
    table, arrays = build_table(opened(frames), committee, model, settings)
    assert np.flatnonzero(~table.healthy).tolist() == [3]
    reason = "member 0 gives no finite forces; member 1 gives no finite forces"
    assert arrays["rejected"].tolist() == [reason if k == 3 else "" for k in range(12)]
    assert np.isnan(table.force[3])
    assert 3 not in select_candidates(table, model, settings, 1, potentials=committee).indices


def test_grades_come_from_the_active_set(opened, frames, committee):
    active = ActiveSet.build(committee[0].features(frames[:4]))
    model = UncertaintyModel(active_set=active, model_hashes=("a", "b"))
    table, _ = build_table(opened(frames), committee, model, EvaluateSettings())
    expected = model.frame_grade(committee[0].features(frames), 12)
    np.testing.assert_allclose(table.grade, expected, rtol=1e-12)


def test_grades_of_configurations_reach_the_candidates(opened, frames, committee):
    settings = CalibrateSettings(mode="configuration", tolerances={"force": 1.0}, gamma_save=1.5)
    found = assess(committee, frames[:4], settings)
    model = fit_uncertainty(committee, ["a", "b"], found, frames[:4], settings)
    assert model.active_set_report == {"mode": "configuration"}
    table, _ = build_table(opened(frames), committee, model, EvaluateSettings())
    sums = np.array([[*atoms.positions.sum(axis=0), len(atoms)] for atoms in frames])
    active = np.sort(model.active_set.owners[0])
    expected = np.abs(sums @ np.linalg.inv(sums[active])).max(axis=1)
    np.testing.assert_allclose(table.grade, expected, rtol=1e-8)
    np.testing.assert_allclose(Monitor(committee, model).assess(frames).grade, expected, rtol=1e-8)
    with pytest.raises(ValueError, match=r"cutout: .* calibrate with mode 'neighbourhood'"):
        build_table(opened(frames), committee, model, EvaluateSettings(cutout=CuttingSettings(max_atoms=2)))
    chosen = select(opened(frames), committee, model, strategy="best_first", gamma_select=1.5, control_share=0.0)
    grown = model.active_set.copy()
    for k in chosen.indices:
        grown.absorb(committee[0].features([frames[k]]))
    assert grown.grade(committee[0].features(frames)).max() <= 1.5


@pytest.mark.parametrize("start", ["eps", "strict"])
def test_candidates_outside_the_span_of_the_training_atoms_are_counted(opened, make, start):
    flat, new = make.crystals(4), make.crystals(6, seed=3)
    for atoms in [*flat, *new[:2]]:
        atoms.positions[:, 2] = 0.0
        make.label(atoms)
    committee = [make.OffTarget(flat + new, force=s) for s in (SPREAD, -SPREAD)]
    model = UncertaintyModel(active_set=ActiveSet.build(committee[0].features(flat), start=start))
    _, arrays = build_table(opened(new), committee, model, EvaluateSettings())
    assert count_out_of_span(arrays) == 4
    _, arrays = build_table(opened(new), committee, UncertaintyModel(), EvaluateSettings())
    assert count_out_of_span(arrays) is None


def test_only_frames_above_the_grade_are_flagged_when_there_is_no_threshold(opened, frames, committee):
    active = ActiveSet.build(committee[0].features(frames[:4]))
    model = UncertaintyModel(active_set=active, model_hashes=("a", "b"))
    dataset = opened(frames)
    table, _ = build_table(dataset, committee, model, EvaluateSettings())
    limit = float(np.median(table.grade))
    selection = select(dataset, committee, model, gamma_select=limit, control_share=0.0)
    assert set(selection.indices) == set(np.flatnonzero(table.grade > limit))


@pytest.mark.parametrize("strategy", ["ladder", "best_first"])
@pytest.mark.parametrize("kind", ["last_layer", "invariants"])
@pytest.mark.parametrize("is_local", [False, True])
def test_selected_frames_leave_no_candidate_outside_the_active_set(opened, frames, committee, strategy, kind, is_local):
    small, tiny = frames[0].copy(), frames[1].copy()
    small.positions *= 0.2
    tiny.positions *= 0.1
    parts = [
        ActiveSet.build(committee[0].features([atoms], kind=kind), start="eps", kind=kind) for atoms in (small, tiny)
    ]
    active = LocalActiveSet(parts) if is_local else parts[0]
    model = UncertaintyModel(active_set=active, model_hashes=("a", "b"), feature_kind=kind)
    dataset = opened(frames)
    values = {"strategy": strategy, "control_share": 0.0, "validation_share": 0.0}
    selection = select(dataset, committee, model, **values)
    assert 0 < len(selection) < 12
    assert all(f"{strategy}: grade " in reason for reason in selection.reasons)
    grown = active.copy()
    for row in selection.indices:
        grown.absorb(committee[0].features([frames[row]], kind=kind))
    assert active.grade(committee[0].features(frames, kind=kind)).max() > 4.0
    assert grown.grade(committee[0].features(frames, kind=kind)).max() <= 2.0


@pytest.mark.parametrize("strategy", ["ladder", "best_first"])
def test_a_strategy_by_grade_is_refused_before_anything_is_evaluated(opened, frames, model, strategy):
    with pytest.raises(ValueError, match="no active set: calibrate with 'feature_kind' set"):
        build_table(opened(frames), [], model, EvaluateSettings(strategy=strategy))


@pytest.mark.parametrize("strategy", ["threshold", "fps", "ladder"])
def test_members_without_features_change_nothing_of_what_is_chosen(opened, frames, committee, model, make, strategy):
    silent = make.OffTarget(frames, -SPREAD, -SPREAD, -SPREAD, feature_kinds=())
    active = ActiveSet.build(committee[0].features(frames[:1]), start="eps")
    model = replace(model, active_set=active)
    values = {"strategy": strategy, "budget": 6}
    alike, mixed = (select(opened(frames), members, model, **values) for members in (committee, [silent, committee[0]]))
    assert (mixed.indices.tolist(), mixed.reasons) == (alike.indices.tolist(), alike.reasons)


def test_a_committee_without_features_selects_by_disagreement(opened, frames, model, make):
    silent = [make.OffTarget(frames, force=d, feature_kinds=()) for d in (SPREAD, -SPREAD)]
    assert len(select(opened(frames), silent, model, budget=6)) == 6
    with pytest.raises(ValueError, match="no member of the committee has features of kind 'last_layer'"):
        select(opened(frames), silent, model, strategy="fps")


@pytest.mark.parametrize("kind", ["last_layer", "invariants"])
def test_features_of_a_frame_are_the_mean_over_its_atoms(make, committee, frames, kind):
    small = make.label(make.Atoms("Cu", positions=[[1.0, 2.0, 2.0]], cell=[9, 9, 9], pbc=True))
    found = build_frame_features(EvaluateSettings(features=kind), committee)([frames[0], small])
    of_atoms = committee[0].features([frames[0]], kind=kind).values
    np.testing.assert_allclose(found[0], of_atoms.mean(axis=0), rtol=1e-12)
    assert found[1].tolist() == ([1.0, 2.0, 2.0] if kind == "last_layer" else [3.0])


def test_sorted_distances_need_no_potential(make):
    frames = make.molecules(2)
    found = build_frame_features(EvaluateSettings(features="sorted_distances"), ())(frames)
    assert found.shape == (2, 3)
    # H–H comes before H–O: pairs are ordered by species
    assert found[0][0] == pytest.approx(frames[0].get_distance(1, 2))


def test_sorted_distances_of_another_composition_are_refused_in_a_later_chunk(
    opened, make, committee, model, monkeypatch
):
    monkeypatch.setattr("aiida_alpot.kernel.evaluating._CHUNK", 2)
    # three distances as well
    other = make.label(make.Atoms("HO2", [[0, 0, 0], [1, 0, 0], [0, 1, 0]]), group="other")
    frames = [*make.molecules(2), other]
    settings = EvaluateSettings(strategy="fps", features="sorted_distances")
    members = [make.OffTarget(frames, force=d) for d in (SPREAD, -SPREAD)]
    with pytest.raises(ValueError, match="one composition, frame 0 is H2O and frame 2 is HO2"):
        build_table(opened(frames), members, model, settings)


def test_sorted_distances_of_training_frames_of_another_composition_are_refused(opened, make, model):
    other = make.label(make.Atoms("HO2", [[0, 0, 0], [1, 0, 0], [0, 1, 0]]), group="other")
    frames = make.molecules(2)
    members = [make.OffTarget([*frames, other], force=d) for d in (SPREAD, -SPREAD)]
    labelled = opened([other], split=["train"])
    with pytest.raises(ValueError, match="one composition, frame 0 is HO2 and frame 1 is H2O"):
        select(opened(frames), members, model, dataset=labelled, strategy="fps", features="sorted_distances")


def test_features_are_only_computed_when_distances_are_measured(opened, frames, committee, model):
    dataset = opened(frames)
    assert build_table(dataset, committee, model, EvaluateSettings())[0].features is None
    names = [name for name in STRATEGIES if get_strategy(name).needs_features]
    assert set(names) == {"greedy_diverse", "fps", "direct"}
    for values in ({"min_distance": 0.1}, *({"strategy": name} for name in names)):
        assert build_table(dataset, committee, model, EvaluateSettings(**values))[0].features.shape == (12, 3)


def test_whitened_features_have_unit_variance_over_candidates_and_training():
    rng = np.random.default_rng(0)
    features, training = rng.normal(size=(8, 3)) * [1, 100, 0], rng.normal(size=(5, 3)) * [2, 50, 0]
    blank = np.zeros(8)
    text = np.array([str(k) for k in range(8)])
    table = CandidateTable(blank, blank, blank, blank, blank, blank == 0, text, text, features)
    whitened, scaled = _whiten(table, training)
    rows = np.concatenate([whitened.features, scaled])
    np.testing.assert_allclose(rows.std(axis=0), [1, 1, 0], rtol=1e-12)
    alone, nothing = _whiten(table, None)
    np.testing.assert_allclose(alone.features.std(axis=0), [1, 1, 0], rtol=1e-12)
    assert nothing is None


@pytest.mark.parametrize("size", [1e-8, 1.0, 1e9])
def test_features_that_are_constant_up_to_round_off_do_not_count(size):
    rng = np.random.default_rng(0)
    features = np.stack([rng.normal(size=8), size * (1 + 1e-8 * rng.normal(size=8))], axis=1)
    blank = np.zeros(8)
    text = np.array([str(k) for k in range(8)])
    whitened, _ = _whiten(CandidateTable(blank, blank, blank, blank, blank, blank == 0, text, text, features), None)
    np.testing.assert_allclose(whitened.features.std(axis=0), [1, 0], atol=1e-12)


def test_units_of_a_feature_do_not_change_what_is_chosen(opened, frames, committee, model, make):
    class Scaled(make.OffTarget):
        def features(self, frames, kind="last_layer", batch_size=32):
            found = super().features(frames, kind, batch_size)
            return type(found)(found.values * [1.0, 1e3, 1e-3], found.species, found.frame_index)

    dataset, values = opened(frames), {"strategy": "fps", "budget": 4, "control_share": 0.0}
    scaled = [Scaled(frames, force=SPREAD), committee[1]]
    first, second = (select(dataset, members, model, **values) for members in (committee, scaled))
    assert first.indices.tolist() == second.indices.tolist()


def test_selected_frames_carry_split_reason_and_what_the_committee_said(opened, frames, model, make):
    committee = [make.OffTarget(frames, 0.03 + d, 0.03 + d, 0.03 + d) for d in (SPREAD, -SPREAD)]
    dataset = opened(frames)
    selection = select(dataset, committee, model, budget=10)
    chosen = selected_frames(dataset, selection)
    attach_predictions(chosen, committee)
    assert [atoms.info["split"] for atoms in chosen] == list(selection.split)
    assert [atoms.info["selection_reason"] for atoms in chosen] == list(selection.reasons)
    assert [atoms.info["control"] for atoms in chosen] == selection.control.tolist()
    for index, atoms in zip(selection.indices, chosen, strict=True):
        labels = frames[index].calc.results
        assert atoms.calc is None
        assert atoms.info["status"] == "unlabelled"
        assert atoms.info["committee_energy"] == pytest.approx(labels["energy"] + 0.03 * len(atoms))
        np.testing.assert_allclose(atoms.info["committee_stress"], labels["stress"] + 0.03, rtol=1e-9)
        np.testing.assert_allclose(atoms.arrays["committee_forces"], labels["forces"] + 0.03, rtol=1e-9)


def test_predictions_survive_the_dataset_of_selected_frames(opened, make, model):
    frames = make.molecules(4) + make.crystals(4)
    committee = [make.OffTarget(frames, d, d, d) for d in (SPREAD, -SPREAD)]
    dataset = opened(frames)
    chosen = selected_frames(dataset, select(dataset, committee, model))
    attach_predictions(chosen, committee)
    again = opened(chosen)
    for k, atoms in enumerate(chosen):
        assert again[k].info["committee_energy"] == atoms.info["committee_energy"]
        np.testing.assert_array_equal(again[k].info["committee_stress"], atoms.info["committee_stress"])
        np.testing.assert_array_equal(again[k].arrays["committee_forces"], atoms.arrays["committee_forces"])


def test_known_structures_are_not_selected_again(opened, frames, committee, model):
    known = opened(frames[:7], split=["train"] * 7)
    selection = select(opened(frames), committee, model, dataset=known)
    assert set(selection.indices) <= set(range(7, 12))
    assert selection.report["n_known"] == 7


def test_a_group_keeps_the_split_it_has(opened, frames, committee, model, make):
    later = make.crystals(3, seed=5)
    for atoms, group in zip(later, ("a", "b", "c"), strict=True):
        atoms.info["group"] = group
    for atoms, group in zip(frames[:3], ("a", "b", "c"), strict=True):
        atoms.info["group"] = group
    splits = ["validation", "test", "train"]
    labelled = opened(frames[:3], split=splits)
    members = [make.OffTarget(frames + later, force=d) for d in (SPREAD, -SPREAD)]
    selection = select(opened(later), members, model, dataset=labelled, control_share=0.4)
    of_group = dict(zip((later[k].info["group"] for k in selection.indices), selection.split, strict=True))
    assert of_group.items() <= {"a": "validation", "b": "test", "c": "train"}.items()
    assert "train" in of_group.values()


@pytest.mark.parametrize(("n_before", "expected"), [(0, "calibration"), (1, "test"), (2, "calibration")])
def test_control_groups_of_earlier_iterations_make_calibration_and_test_alternate(
    opened, frames, make, model, n_before, expected
):
    earlier = make.crystals(4, seed=9)
    splits = (["calibration", "test"] * 2)[:n_before] + ["train"] * (4 - n_before)
    known = opened(earlier, split=splits, control=[split != "train" for split in splits])
    members = [make.OffTarget(frames + earlier, force=d) for d in (SPREAD, -SPREAD)]
    selection = select(opened(frames), members, model, dataset=known, control_share=0.05, budget=7)
    assert selection.control.sum() == 1
    assert selection.split[int(np.flatnonzero(selection.control)[0])] == expected


def test_held_out_groups_of_the_initial_dataset_do_not_count_as_control_groups(opened, frames, make, model):
    initial = make.crystals(3, seed=9)
    known = opened(initial, split=["test", "test", "test"])
    members = [make.OffTarget(frames + initial, force=d) for d in (SPREAD, -SPREAD)]
    selection = select(opened(frames), members, model, dataset=known, control_share=0.05, budget=7)
    assert selection.split[int(np.flatnonzero(selection.control)[0])] == "calibration"


def test_training_frames_keep_new_ones_at_a_distance(opened, frames, committee, model, make):
    """With room for one frame, farthest-point sampling takes the one farthest from the training frames."""
    labelled = opened(frames[:1], split=["train"])
    dataset = opened(frames[1:])
    selection = select(
        dataset, committee, model, dataset=labelled, strategy="fps", budget=1, control_share=0.0, validation_share=0.0
    )
    features = build_frame_features(EvaluateSettings(), committee)(frames)
    features = features / features.std(axis=0)
    distances = np.linalg.norm(features[1:] - features[0], axis=1)
    assert selection.indices.tolist() == [int(np.argmax(distances))]


def test_training_frames_without_features_keep_nothing_at_a_distance(opened, frames, model, make):
    committee = [make.OffTarget(frames, d, d, d, bad={frames[0].info["group"]}) for d in (SPREAD, -SPREAD)]
    candidates = opened(frames[4:])
    with_it = select(candidates, committee, model, opened(frames[:4], split=["train"] * 4), strategy="fps", budget=4)
    without = select(candidates, committee, model, opened(frames[1:4], split=["train"] * 3), strategy="fps", budget=4)
    assert with_it.indices.tolist() == without.indices.tolist()
    alone = select(candidates, committee, model, opened(frames[:1], split=["train"]), strategy="fps", budget=4)
    assert len(alone) == 4


def test_the_same_seed_selects_the_same_frames(opened, frames, committee, model):
    dataset = opened(frames)
    first, second, other = (select(dataset, committee, model, budget=4, seed=seed) for seed in (1, 1, 2))
    assert first.indices.tolist() == second.indices.tolist()
    assert first.indices.tolist() != other.indices.tolist()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strategy": "treshold"}, "did you mean 'threshold'"),
        ({"budget": 0}, "budget must be positive, got 0"),
        ({"control_share": 1.0}, r"control_share must be in \[0, 1\), got 1\.0"),
        ({"validation_share": -0.1}, r"validation_share must be in \[0, 1\), got -0\.1"),
        ({"min_distance": 0.0}, "min_distance must be positive"),
        ({"upper": {"force": 0.5}}, r"upper\.force is a multiple of the threshold and must be above 1, got 0\.5"),
        ({"upper": {"forces": 3.0}}, "upper: expected one of energy, force, .* got 'forces'"),
        (
            {"features": "invariant"},
            r"evaluate\.settings\.features: unknown kind 'invariant'; did you mean 'invariants'",
        ),
        ({"features": "sorted_distance"}, "did you mean 'sorted_distances'"),
        ({"features": "sorted_distances", "feature_parameters": {"r_cut": 4.0}}, "'sorted_distances' takes none"),
        ({"features": "soap", "feature_parameters": {"rcut": 4.0}}, r"settings\.feature_parameters: .*'r_cut'"),
    ],
)
def test_settings_out_of_range_are_named(values, message):
    with pytest.raises(SettingsError, match=message):
        parse_settings(EvaluateSettings, values, "evaluate")
