"""Input and output of ``mace_run_train``: what is written, which options are given, what is read back."""

import json
from ast import literal_eval

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read
from ase.stress import voigt_6_to_full_3x3_stress

from aiida_alpot.kernel.cutouts import CORE
from aiida_alpot.kernel.settings import SettingsError, parse_settings
from aiida_alpot.kernel.training.mace import (
    MaceRun,
    MaceSettings,
    build_arguments,
    compute_atomic_energies,
    compute_scaling,
    count_epochs,
    has_pieces,
    is_isolated_atom,
    parse_final_errors,
    parse_learning_curve,
    write_mace_input,
)
from aiida_alpot.kernel.training.mace_options import ALWAYS_ON, FLAGS, MANAGED, OPTIONS

RUN = MaceRun(seed=7, counts={"train": 8, "validation": 2, "test": 0}, e0s={8: -2.0, 1: -0.5}, has_stress=False)


def options(arguments):
    """The arguments as a mapping; an option without a value is True."""
    pairs = [argument.removeprefix("--").partition("=") for argument in arguments]
    assert len({name for name, _, _ in pairs}) == len(pairs)
    return {name: value if sign else True for name, sign, value in pairs}


def build(run=RUN, **settings):
    return options(build_arguments(parse_settings(MaceSettings, settings, "train"), run))


def with_energy(symbols, energy, **kwargs):
    atoms = Atoms(symbols, positions=[[1.5 * k, 0, 0] for k in range(len(Atoms(symbols)))], **kwargs)
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.zeros((len(atoms), 3)))
    return atoms


# --- options ---


@pytest.fixture(scope="module")
def parser():
    """The parser of the installed mace-torch; its import takes eight seconds."""
    from aiida_alpot.kernel.potentials.mace import import_mace

    import_mace()
    from mace.tools.arg_parser import build_default_arg_parser

    return build_default_arg_parser()


@pytest.mark.slow
def test_options_are_those_of_the_installed_mace(parser):
    assert {action.dest for action in parser._actions} - {"help"} == OPTIONS | MANAGED


@pytest.mark.slow
def test_flags_are_those_of_the_installed_mace(parser):
    flags = {action.dest: action.const for action in parser._actions if action.nargs == 0}
    free = {name: flags[name] for name in flags if name in OPTIONS or name == "restart_latest"}
    assert free == {name: value for name, (_, value) in FLAGS.items()}
    assert {name for name, (_, value) in FLAGS.items() if parser.get_default(name) is value} == ALWAYS_ON


@pytest.mark.slow
def test_every_command_line_is_understood_by_the_installed_mace(parser):
    hyperparameters = {"ema": True, "save_cpu": False, "num_channels": 16, "swa": True}
    settings = MaceSettings(hyperparameters, n_updates=100, lr_decay=0.1)
    run = MaceRun(7, {"train": 8, "validation": 2, "test": 2}, {1: -0.5}, True, "parent.model", True)
    found = parser.parse_args(build_arguments(settings, run))
    assert (found.ema, found.save_cpu, found.swa, found.num_channels) == (True, False, True, 16)
    assert (found.seed, found.restart_latest, found.multiheads_finetuning) == (7, True, False)
    assert found.error_table == "PerAtomRMSEstressvirials"


@pytest.mark.slow
@pytest.mark.parametrize("value", [True, False])
def test_a_flag_means_what_it_says_also_if_mace_turns_it_around(parser, value):
    for name in sorted(FLAGS.keys() - MANAGED - (set() if value else ALWAYS_ON)):
        found = parser.parse_args(build_arguments(MaceSettings({name: value}), RUN))
        assert getattr(found, name) is value, name


def test_no_option_is_both_free_and_managed():
    assert not OPTIONS & MANAGED
    assert FLAGS.keys() <= OPTIONS | MANAGED


# --- settings ---


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hyperparameters": {"r_mx": 5.0}}, "hyperparameters: unknown key 'r_mx'; did you mean 'r_max'"),
        ({"hyperparameters": {"seed": 1}}, "hyperparameters: 'seed' follows from the dataset and the job; remove it"),
        ({"hyperparameters": {"E0s": "average"}}, "hyperparameters: 'E0s' follows"),
        ({"n_updates": 0}, "n_updates must be positive, got 0"),
        ({"n_updates": 5, "hyperparameters": {"max_num_epochs": 5}}, "n_updates and hyperparameters.max_num_epochs"),
        ({"lr_decay": 0.1}, "lr_decay needs n_updates or hyperparameters.max_num_epochs"),
        ({"lr_decay": 0.0, "n_updates": 5}, r"lr_decay must be in \(0, 1\], got 0\.0"),
        (
            {"lr_decay": 0.1, "n_updates": 5, "hyperparameters": {"scheduler": "x"}},
            r"hyperparameters\.scheduler contra",
        ),
        (
            {"lr_decay": 0.1, "n_updates": 5, "hyperparameters": {"lr_scheduler_gamma": 0.9}},
            r"hyperparameters\.lr_scheduler_gamma contradict",
        ),
        ({"hyperparameters": {"ema": "no"}}, r"hyperparameters\.ema: expected bool, got 'no'"),
        ({"hyperparameters": {"amsgrad": False}}, "'amsgrad' cannot be switched off"),
        ({"dtype": "float16"}, "dtype: expected 'float64' or 'float32', got 'float16'"),
        ({"warm_start_lr_factor": 0.0}, r"warm_start_lr_factor must be in \(0, 1\], got 0\.0"),
        ({"fd_tolerance": 0.0}, r"fd_tolerance must be positive, got 0\.0"),
        ({"e0s": "mean"}, "e0s: expected 'average', 'isolated' or a mapping of energies, got 'mean'"),
        ({"e0s": {"Xq": 1.0}}, "e0s: 'Xq' is not a chemical symbol"),
        ({"hyperparameter": {}}, "did you mean 'hyperparameters'"),
    ],
)
def test_settings_that_cannot_be_are_named(values, message):
    with pytest.raises(SettingsError, match=message):
        parse_settings(MaceSettings, values, "train")


# --- energies of isolated atoms ---


def test_average_energies_are_exact_for_energies_that_are_sums():
    e0 = {1: -0.5, 8: -2.0}
    frames = [with_energy(s, sum(e0[z] for z in Atoms(s).numbers)) for s in ("H2O", "H2", "O2", "H2O2")]
    assert compute_atomic_energies(frames, "average") == pytest.approx(e0, abs=1e-12)


def test_average_energies_of_one_composition_have_the_smallest_norm():
    frames = [with_energy("H2O", energy) for energy in (-3.0, -3.2)]
    expected = np.linalg.pinv([[2, 1], [2, 1]]) @ [-3.0, -3.2]
    found = compute_atomic_energies(frames, "average")
    assert list(found) == [1, 8]
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-12)
    np.testing.assert_allclose(list(found.values()), [-1.24, -0.62], rtol=1e-12)


def test_average_energies_do_not_depend_on_the_order_of_the_frames():
    frames = [with_energy(s, -len(s)) for s in ("H2O", "H2", "O2", "HO")]
    found = compute_atomic_energies(frames, "average"), compute_atomic_energies(frames[::-1], "average")
    assert found[0] == pytest.approx(found[1], abs=1e-12)


def test_isolated_energies_are_those_of_the_frames_of_one_atom():
    frames = [with_energy("H2O", -9.0), with_energy("H", -0.4), with_energy("O", -1.9)]
    frames.append(with_energy("H", -7.0, cell=[2, 2, 2], pbc=True))
    assert compute_atomic_energies(frames, "isolated") == {1: -0.4, 8: -1.9}


def test_given_energies_are_taken_for_the_species_that_occur():
    given = {"O": -1.5, "H": -0.3, "Cu": -7.0}
    assert compute_atomic_energies([with_energy("H2O", -9.0)], given) == {1: -0.3, 8: -1.5}


@pytest.mark.parametrize("e0s", ["isolated", {"H": -0.5}])
def test_a_species_without_energy_is_named(e0s):
    with pytest.raises(ValueError, match="no energy of the isolated atom for O:"):
        compute_atomic_energies([with_energy("H2O", -9.0), with_energy("H", -0.5)], e0s)


def test_a_frame_is_an_isolated_atom_without_neighbours_and_images_only():
    assert is_isolated_atom(Atoms("H"))
    assert not is_isolated_atom(Atoms("H2"))
    assert not is_isolated_atom(Atoms("H", cell=[9, 9, 9], pbc=[True, False, False]))


# --- files ---


def test_labels_are_read_back_bit_by_bit(make, tmp_path):
    frames = {"train": make.crystals(3), "validation": make.crystals(1, seed=1), "test": make.molecules(2)}
    assert write_mace_input(frames, tmp_path) == {"train": 3, "validation": 1, "test": 2}
    for split, name in (("train", "train.xyz"), ("validation", "valid.xyz"), ("test", "test.xyz")):
        for atoms, again in zip(frames[split], read(tmp_path / name, ":"), strict=True):
            labels = atoms.calc.results
            assert again.info["REF_energy"] == labels["energy"]
            np.testing.assert_array_equal(again.arrays["REF_forces"], labels["forces"])
            np.testing.assert_array_equal(again.positions, atoms.positions)
            np.testing.assert_array_equal(again.cell, atoms.cell)
            np.testing.assert_array_equal(again.pbc, atoms.pbc)
            assert again.calc is None
            if "stress" in labels:
                full = voigt_6_to_full_3x3_stress(labels["stress"])
                np.testing.assert_array_equal(again.info["REF_stress"].reshape(3, 3), full)


@pytest.mark.slow
def test_mace_reads_the_labels_that_were_written(parser, make, tmp_path):
    from mace.data import AtomicData, KeySpecification, config_from_atoms
    from mace.tools import AtomicNumberTable
    from mace.tools.torch_tools import default_dtype

    frames = make.crystals(2)
    write_mace_input({"train": frames, "validation": frames}, tmp_path)
    keys = KeySpecification(
        info_keys={"energy": "REF_energy", "stress": "REF_stress"}, arrays_keys={"forces": "REF_forces"}
    )
    again = read(tmp_path / "train.xyz", 1)
    with default_dtype("float64"):
        data = AtomicData.from_config(config_from_atoms(again, keys), AtomicNumberTable([29]), cutoff=3.0)
    labels = frames[1].calc.results
    assert float(data.energy) == labels["energy"]
    np.testing.assert_array_equal(data.forces.numpy(), labels["forces"])
    np.testing.assert_array_equal(data.stress.numpy()[0], voigt_6_to_full_3x3_stress(labels["stress"]))


def test_stress_of_a_slab_is_not_trained_on(make, tmp_path):
    slab = make.slab()
    assert "stress" in slab.calc.results
    write_mace_input({"train": [slab], "validation": make.crystals(1)}, tmp_path)
    assert "REF_stress" not in read(tmp_path / "train.xyz").info
    assert "REF_stress" in read(tmp_path / "valid.xyz").info


def test_isolated_atoms_are_not_in_the_files(tmp_path, make):
    atom = with_energy("Cu", -1.0)
    counts = write_mace_input({"train": [atom, *make.crystals(2)], "validation": make.crystals(1)}, tmp_path)
    assert counts == {"train": 2, "validation": 1, "test": 0}
    assert [len(atoms) for atoms in read(tmp_path / "train.xyz", ":")] == [4, 4]
    assert not (tmp_path / "test.xyz").exists()


def test_weights_other_than_one_are_handed_on(make, tmp_path):
    frames = make.crystals(2)
    frames[1].info["weight"] = 0.25
    write_mace_input({"train": frames, "validation": make.crystals(1)}, tmp_path)
    found = read(tmp_path / "train.xyz", ":")
    assert "config_weight" not in found[0].info
    assert found[1].info["config_weight"] == 0.25


def test_the_frames_themselves_are_left_alone(make, tmp_path):
    frames = make.crystals(1)
    write_mace_input({"train": frames, "validation": frames}, tmp_path)
    assert set(frames[0].info) == {"group"}
    assert set(frames[0].arrays) == {"numbers", "positions"}


@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_empty_split_is_named(make, tmp_path, split):
    frames = {"train": make.crystals(1), "validation": make.crystals(1), split: [with_energy("Cu", -1.0)]}
    with pytest.raises(ValueError, match=f"no labelled frame in split '{split}'"):
        write_mace_input(frames, tmp_path)


def test_a_frame_without_label_is_named(make, tmp_path):
    frames = make.crystals(1)
    frames[0].calc = None
    with pytest.raises(ValueError, match=r"Cu4.*has no energy label"):
        write_mace_input({"train": frames, "validation": make.crystals(1)}, tmp_path)


def as_piece(atoms):
    """Make the first atom of a frame its core."""
    atoms.arrays[CORE] = np.arange(len(atoms)) == 0
    return atoms


def test_pieces_are_written_with_their_core_and_without_energy_and_stress_that_count(make, tmp_path):
    frames = make.crystals(2)
    as_piece(frames[0])
    write_mace_input({"train": frames, "validation": make.crystals(1, seed=1)}, tmp_path)
    piece, whole = read(tmp_path / "train.xyz", ":")
    assert piece.arrays[CORE].tolist() == [True, False, False, False]
    assert piece.info["config_energy_weight"] == 0.0
    assert "REF_stress" not in piece.info
    np.testing.assert_array_equal(piece.arrays["REF_forces"], frames[0].calc.results["forces"])
    assert "config_energy_weight" not in whole.info
    assert "REF_stress" in whole.info
    # of a batch, MACE takes the columns of the first frame: all have it
    assert all(atoms.arrays[CORE].all() for atoms in (whole, read(tmp_path / "valid.xyz")))


def test_energy_and_stress_of_pieces_are_fitted_if_wanted(make, tmp_path):
    frames = [as_piece(atoms) for atoms in make.crystals(2)]
    settings = MaceSettings(cutout_energies=True)
    write_mace_input({"train": frames, "validation": frames}, tmp_path, settings)
    found = read(tmp_path / "train.xyz", ":")
    assert all("config_energy_weight" not in atoms.info and "REF_stress" in atoms.info for atoms in found)
    assert [atoms.arrays[CORE].sum() for atoms in found] == [1, 1]


def test_without_pieces_nothing_is_said_of_a_core(make, tmp_path):
    frames = make.crystals(2)
    frames[0].arrays[CORE] = np.ones(4, dtype=bool)
    assert not has_pieces({"train": frames})
    write_mace_input({"train": frames, "validation": frames}, tmp_path)
    assert CORE not in read(tmp_path / "train.xyz").arrays
    assert not {"heads", "mean", "std"} & build().keys()


def test_the_units_of_the_outputs_come_from_what_is_fitted(make):
    frames = make.crystals(3)
    as_piece(frames[0]).calc.results["forces"][1:] = 99.0
    frames.append(with_energy("Cu", -7.0))
    e0s = {29: -0.5}
    mean, rms = compute_scaling(frames, e0s, MaceSettings())
    energies = [atoms.calc.results["energy"] / 4 + 0.5 for atoms in frames[:3]]
    assert mean == pytest.approx(np.mean(energies[1:]))
    forces = [frames[0].calc.results["forces"][:1], *(atoms.calc.results["forces"] for atoms in frames[1:3])]
    assert rms == pytest.approx(np.sqrt(np.mean(np.concatenate(forces) ** 2)))
    assert compute_scaling(frames, e0s, MaceSettings(cutout_energies=True))[0] == pytest.approx(np.mean(energies))


# --- command line ---


WITH_CORES = MaceRun(1, {"train": 8, "validation": 2, "test": 1}, {1: 0.0}, False, scaling=(-0.1, 0.7))


def test_the_core_is_handed_to_the_loss_as_a_key_of_the_only_head():
    found = build(WITH_CORES)
    assert literal_eval(found["heads"]) == {
        "Default": {"arrays_keys": {"cutout_core": "cutout_core"}, "test_file": "test.xyz"}
    }
    assert (float(found["mean"]), float(found["std"])) == (-0.1, 0.7)


@pytest.mark.parametrize("own", [{"std": 2.0}, {"mean": 1.0}, {"scaling": "no_scaling"}])
def test_units_of_the_user_are_left_alone(own):
    found = build(WITH_CORES, hyperparameters=own)
    assert {name: found[name] for name in ("mean", "std", "scaling") if name in found} == {
        name: str(value) for name, value in own.items()
    }


def test_a_loss_without_weights_is_refused_where_energies_must_not_count():
    with pytest.raises(SettingsError, match="'huber' has no weights and would fit the energies of pieces"):
        build(WITH_CORES, hyperparameters={"loss": "huber"})
    assert build(WITH_CORES, hyperparameters={"loss": "huber"}, cutout_energies=True)["loss"] == "huber"
    assert build(hyperparameters={"loss": "huber"})["loss"] == "huber"


def test_arguments_follow_from_the_dataset_and_the_job():
    found = build(hyperparameters={"r_max": 5.0, "ema": True, "save_cpu": False})
    assert found["E0s"] == "{8: -2.0, 1: -0.5}"
    assert found["atomic_numbers"] == "[1, 8]"
    assert (found["seed"], found["train_file"], found["valid_file"]) == ("7", "train.xyz", "valid.xyz")
    assert (found["energy_key"], found["forces_key"]) == ("REF_energy", "REF_forces")
    assert found["stress_key"] == "REF_stress"
    assert (found["r_max"], found["ema"]) == ("5.0", True)
    assert "save_cpu" not in found
    assert "test_file" not in found


def test_energies_of_isolated_atoms_keep_all_their_digits():
    run = MaceRun(1, RUN.counts, {1: -1 / 3}, False)
    assert json.loads(build(run)["E0s"].replace("1:", '"1":')) == {"1": -1 / 3}


def test_a_test_split_is_handed_over():
    assert build(MaceRun(1, {"train": 8, "validation": 2, "test": 1}, {1: 0.0}, False))["test_file"] == "test.xyz"


def test_stress_labels_are_trained_on():
    found = build(MaceRun(1, RUN.counts, {1: 0.0}, True))
    assert (found["compute_stress"], found["loss"]) == ("True", "stress")
    assert found["error_table"] == "PerAtomRMSEstressvirials"
    assert build(MaceRun(1, RUN.counts, {1: 0.0}, True), hyperparameters={"loss": "universal"})["loss"] == "universal"


def test_without_stress_labels_stress_is_not_mentioned():
    found = build()
    assert found["error_table"] == "PerAtomRMSE"
    assert not {"compute_stress", "loss"} & set(found)


@pytest.mark.parametrize(("asked", "given"), [(None, "8"), (4, "4"), (100, "8")])
def test_a_batch_is_not_larger_than_the_training_set(asked, given):
    hyperparameters = {} if asked is None else {"batch_size": asked}
    assert build(hyperparameters=hyperparameters)["batch_size"] == given


@pytest.mark.parametrize(
    ("n_updates", "n_frames", "batch_size", "epochs"),
    [(100, 8, 8, 100), (100, 19, 5, 33), (1, 1000, 10, 1), (7, 3, 5, 7)],
)
def test_epochs_make_the_number_of_updates(n_updates, n_frames, batch_size, epochs):
    assert count_epochs(n_updates, n_frames, batch_size) == epochs


def test_a_small_dataset_is_trained_as_many_updates_as_a_large_one():
    for n_frames in (8, 80, 800):
        run = MaceRun(1, {"train": n_frames, "validation": 2, "test": 0}, {1: 0.0}, False)
        found = build(run, n_updates=1000, hyperparameters={"batch_size": 4})
        assert int(found["max_num_epochs"]) * (n_frames // 4) == pytest.approx(1000, rel=0.5)


def test_the_validation_interval_fits_into_few_epochs():
    found = build(n_updates=2, hyperparameters={"eval_interval": 10})
    assert (found["max_num_epochs"], found["eval_interval"]) == ("2", "2")


@pytest.mark.parametrize("values", [{"n_updates": 50}, {"hyperparameters": {"max_num_epochs": 50}}])
def test_learning_rate_decays_by_the_factor_over_all_epochs(values):
    found = build(lr_decay=0.01, **values)
    assert found["scheduler"] == "ExponentialLR"
    assert float(found["lr_scheduler_gamma"]) ** int(found["max_num_epochs"]) == pytest.approx(0.01)


def test_a_warm_start_has_a_smaller_learning_rate():
    run = MaceRun(1, RUN.counts, {1: 0.0}, False, parent="parent.model")
    found = build(run, hyperparameters={"lr": 0.02})
    assert (found["foundation_model"], found["multiheads_finetuning"]) == ("parent.model", "False")
    assert float(found["lr"]) == pytest.approx(0.002)
    assert float(build(run, warm_start_lr_factor=0.5)["lr"]) == pytest.approx(0.005)
    assert "lr" not in build()


def test_a_restart_continues_from_the_checkpoint():
    assert build(MaceRun(1, RUN.counts, {1: 0.0}, False, restart=True))["restart_latest"] is True
    assert "restart_latest" not in build()


# --- results ---

LOG = """
2026-01-01 12:00:00.000 INFO: Error-table on TRAIN and VALID:
+---------------+---------------------+------------------+-------------------+
|  config_type  | RMSE E / meV / atom | RMSE F / meV / A | relative F RMSE % |
+---------------+---------------------+------------------+-------------------+
| train_Default |           28.8      |        465.0     |         18.55     |
| valid_Default |           32.9      |        489.8     |         21.55     |
+---------------+---------------------+------------------+-------------------+
2026-01-01 12:00:01.000 INFO: Error-table on TEST:
+-----------------+---------------------+------------------+-------------------+
|   config_type   | RMSE E / meV / atom | RMSE F / meV / A | relative F RMSE % |
+-----------------+---------------------+------------------+-------------------+
| Default_Default |           28.1      |        336.2     |         20.97     |
+-----------------+---------------------+------------------+-------------------+
2026-01-01 12:00:02.000 INFO: Done
"""


def test_final_errors_are_read_in_electronvolts():
    errors = parse_final_errors(LOG)
    assert list(errors) == ["train", "validation", "test"]
    assert errors["train"] == pytest.approx({"energy": 0.0288, "force": 0.465})
    assert errors["validation"] == pytest.approx({"energy": 0.0329, "force": 0.4898})
    assert errors["test"] == pytest.approx({"energy": 0.0281, "force": 0.3362})


def test_the_last_tables_of_a_log_count():
    again = LOG.replace("28.8", "11.1").replace("28.1", "22.2")
    errors = parse_final_errors(LOG + again)
    assert errors["train"]["energy"] == pytest.approx(0.0111)
    assert errors["test"]["energy"] == pytest.approx(0.0222)


def test_a_log_without_tables_has_no_errors():
    assert parse_final_errors("") == {}
    assert parse_final_errors("Epoch 1 | loss | 3\n| a | b |\n") == {}


def test_errors_that_are_not_numbers_are_kept_as_such():
    assert np.isnan(parse_final_errors(LOG.replace("465.0", "  nan"))["train"]["force"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["PerAtomRMSE", "PerAtomRMSEstressvirials"])
def test_the_tables_of_the_installed_mace_are_understood(parser, kind, monkeypatch):
    from mace.tools import tables_utils

    numbers = {"train_Default": 1.0, "valid_Default": 2.0, "Default_Default": 3.0}

    def evaluate(model, loss_fn, data_loader, output_args, device):
        keys = ("rmse_e_per_atom", "rmse_f", "rel_rmse_f", "rmse_stress", "rmse_virials")
        return 0.0, {key: data_loader * (k + 1) * 1e-3 for k, key in enumerate(keys)}

    monkeypatch.setattr(tables_utils, "evaluate", evaluate)
    table = tables_utils.create_error_table(kind, numbers, None, None, {}, False, "cpu")
    errors = parse_final_errors(f"INFO: Error-table\n{table}\n")
    has_stress = kind.endswith("virials")
    for split, number in (("train", 1.0), ("validation", 2.0), ("test", 3.0)):
        expected = {"energy": 1e-3, "force": 2e-3, **({"stress": 4e-3} if has_stress else {})}
        assert errors[split] == pytest.approx({name: number * value for name, value in expected.items()})


def curve_line(epoch, **values):
    return json.dumps({"mode": "eval", "epoch": epoch, "loss": 1.0, **values})


def test_learning_curve_holds_the_evaluations():
    lines = [
        curve_line(None, rmse_e_per_atom=0.5, rmse_f=2.0),
        json.dumps({"mode": "opt", "epoch": 0, "loss": 7.0}),
        curve_line(0, rmse_e_per_atom=0.25, rmse_f=1.0, rmse_stress=0.1),
    ]
    assert parse_learning_curve(lines) == {
        "epoch": [None, 0],
        "loss": [1.0, 1.0],
        "rmse_energy": [0.5, 0.25],
        "rmse_force": [2.0, 1.0],
        "rmse_stress": [None, 0.1],
    }


@pytest.mark.parametrize("length", [1, 10, 40])
def test_a_last_line_cut_off_by_a_kill_is_skipped(length):
    lines = [curve_line(0, rmse_f=1.0), curve_line(1, rmse_f=0.5)[:length]]
    assert parse_learning_curve(lines)["epoch"] == [0]


def test_a_diverged_loss_becomes_null():
    assert parse_learning_curve(['{"mode": "eval", "epoch": 0, "loss": NaN, "rmse_f": Infinity}']) == {
        "epoch": [0],
        "loss": [None],
        "rmse_energy": [None],
        "rmse_force": [None],
        "rmse_stress": [None],
    }


def test_a_split_without_stress_leaves_its_stress_out():
    log = """
+---------------+---------------------+------------------+---------------------------------+
|  config_type  | RMSE E / meV / atom | RMSE F / meV / A | RMSE Stress (Virials) / meV / A (A^3) |
+---------------+---------------------+------------------+---------------------------------+
| train_Default |           28.8      |        465.0     |              3.5                |
| valid_Default |           32.9      |        489.8     |              None               |
+---------------+---------------------+------------------+---------------------------------+
"""
    errors = parse_final_errors(log)
    assert errors["train"]["stress"] == pytest.approx(0.0035)
    assert set(errors["validation"]) == {"energy", "force"}
