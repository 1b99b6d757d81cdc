"""The MACE adapter against MACE's own calculator, finite differences and the symmetries of space."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from scipy.spatial.transform import Rotation

from aiida_alpot.kernel.potentials import finite_difference_check, load, predict_committee

torch = pytest.importorskip("torch")
pytest.importorskip("mace")

from aiida_alpot.testing.models import make_tiny_mace  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD:UserWarning")


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return make_tiny_mace(tmp_path_factory.mktemp("mace") / "tiny.model", seed=1)


@pytest.fixture(scope="module")
def potential(model_path):
    return load(model_path, "mace")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return load(make_tiny_mace(tmp_path_factory.mktemp("mace") / "other.model", seed=2), "mace")


def crystal() -> Atoms:
    atoms = bulk("CO", "rocksalt", a=4.2) * (2, 1, 1)
    atoms.rattle(0.1, seed=3)
    return atoms


def frames() -> list[Atoms]:
    one_atom = Atoms("C", cell=[[2.2, 0.3, 0.0], [0.0, 2.3, 0.0], [0.1, 0.0, 2.4]], pbc=True)
    slab = fcc111("C", (2, 1, 2), a=3.6, vacuum=5.0)
    slab.rattle(0.1, seed=4)
    wire = Atoms("CO", positions=[[0, 0, 0], [1.1, 0.2, 0.1]], cell=[8.0, 9.0, 3.0], pbc=(False, False, True))
    return [molecule("CH3CH2OH"), crystal(), one_atom, Atoms("O"), slab, wire]


def assert_equal(first, second, tolerance):
    np.testing.assert_allclose(first.energy, second.energy, rtol=0, atol=tolerance)
    np.testing.assert_allclose(first.forces, second.forces, rtol=0, atol=tolerance)
    np.testing.assert_allclose(first.stress, second.stress, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(first.offsets, second.offsets)


def test_potential_describes_itself(potential):
    assert (potential.engine, potential.species, potential.cutoff, potential.dtype) == (
        "mace",
        (1, 6, 8),
        4.0,
        "float64",
    )


def test_predictions_do_not_depend_on_the_batch_size(potential):
    whole = potential.predict(frames(), batch_size=32)
    for batch_size in (1, 2, 5):
        assert_equal(potential.predict(frames(), batch_size=batch_size), whole, 1e-12)
    assert_equal(potential.predict(frames(), batch_size=32), whole, 0.0)


def test_stress_is_nan_exactly_where_it_is_not_defined(potential):
    assert np.isnan(potential.predict(frames()).stress).all(axis=1).tolist() == [True, False, False, True, False, False]


def test_predictions_agree_with_the_calculator_of_mace(potential, model_path):
    from mace.calculators import MACECalculator

    calculator = MACECalculator(model_paths=str(model_path), device="cpu", default_dtype="float64")
    predicted = potential.predict(frames())
    for k, atoms in enumerate(frames()):
        atoms.calc = calculator
        assert predicted.energy[k] == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
        np.testing.assert_allclose(predicted.frame(k).forces, atoms.get_forces(), rtol=0, atol=1e-10)
        if atoms.pbc.all():
            np.testing.assert_allclose(predicted.stress[k], atoms.get_stress(), rtol=0, atol=1e-10)


def test_forces_and_stress_are_derivatives_of_the_energy_in_slabs_and_wires_too(potential):
    for group in ([molecule("CH3CH2OH")], frames()[1:2], frames()[2:3], frames()[4:5], frames()[5:6]):
        report = finite_difference_check(potential, group, seed=1, n_components=20)
        assert report["force_deviation"] < 1e-7
        assert report["stress_deviation"] is None or report["stress_deviation"] < 1e-8


def test_stress_of_a_slab_is_normalised_by_the_cell_as_ase_does(potential):
    slab, roomy = frames()[4], frames()[4]
    roomy.cell[2] *= 2.0
    stress = potential.predict([slab, roomy]).stress
    np.testing.assert_allclose(stress[0], 2.0 * stress[1], rtol=0, atol=1e-14)


def test_the_order_of_the_cell_vectors_does_not_matter(potential):
    wire, slab = frames()[5], frames()[4]
    turned = wire.copy()
    turned.set_cell(wire.cell.array[:, [2, 0, 1]])
    turned.positions = wire.positions[:, [2, 0, 1]]
    relabelled = slab.copy()
    relabelled.set_cell(slab.cell.array[[2, 0, 1]])
    relabelled.pbc = slab.pbc[[2, 0, 1]]
    found = potential.predict([wire, slab, turned, relabelled])
    np.testing.assert_allclose(found.energy[2:], found.energy[:2], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.stress[2], found.stress[0][[2, 0, 1, 5, 3, 4]], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.stress[3], found.stress[1], rtol=0, atol=1e-12)


def test_a_periodic_axis_without_a_vector_is_refused(potential):
    with pytest.raises(ValueError, match="frame 0 has a periodic axis without a cell vector"):
        potential.predict([Atoms("C", pbc=True)])


def test_the_position_of_a_molecule_does_not_matter(potential):
    far = molecule("CH3CH2OH")
    far.positions += [1e5, -2e5, 3e5]
    assert_equal(potential.predict([far]), potential.predict([molecule("CH3CH2OH")]), 1e-8)


def test_members_of_a_committee_predict_as_they_do_alone(potential, other, tmp_path):
    short = load(make_tiny_mace(tmp_path / "short.model", seed=3, cutoff=3.0), "mace")
    members = [potential, short, other]
    together = predict_committee(members, frames(), batch_size=2)
    for member, found in zip(members, together, strict=True):
        assert_equal(found, member.predict(frames()), 1e-12)
    assert np.abs(together[0].forces - together[2].forces).max() > 1e-3


def test_committee_builds_every_graph_once(potential, other, monkeypatch):
    from mace.data import AtomicData

    built = []
    from_config = AtomicData.from_config
    monkeypatch.setattr(
        AtomicData, "from_config", lambda *args, **kwargs: built.append(1) or from_config(*args, **kwargs)
    )
    predict_committee([potential, other, potential], frames())
    assert len(built) == len(frames())


def test_unknown_species_are_named(potential):
    for action in (potential.predict, potential.features):
        with pytest.raises(ValueError, match="frame 1 contains N, but the potential knows only H, C, O"):
            action([molecule("H2O"), molecule("NH3")])
    with pytest.raises(ValueError, match="frame 0 has no atoms"):
        potential.predict([Atoms()])


def test_no_frames_give_no_predictions_and_no_features(potential):
    assert potential.predict([]).n_frames == 0
    assert potential.features([]).values.shape == (0, 12)


def node_energy(potential, structures):
    """Interaction energy of each atom, without the constant of its species."""
    energies = []
    for _, batch in potential._batches(structures, 32):
        shift = potential.model.atomic_energies_fn(batch["node_attrs"])[:, 0]
        energies.append((potential.model(batch.to_dict(), compute_force=False)["node_energy"] - shift).detach().numpy())
    return np.concatenate(energies)


def many_frames(n):
    found = []
    for seed in range(n):
        atoms = molecule("CH3CH2OH") if seed % 2 else crystal()
        atoms.rattle(0.2, seed=seed)
        found.append(atoms)
    return found


@pytest.mark.parametrize(
    ("arguments", "n_features"),
    [
        ({}, 12),
        ({"hidden_irreps": "16x0e"}, 20),
        ({"num_interactions": 1}, 8),
        ({"num_interactions": 3}, 20),
        ({"heads": ("Default", "dft")}, 12),
    ],
)
def test_energy_of_an_atom_is_linear_in_the_last_layer_features(tmp_path, arguments, n_features):
    potential = load(make_tiny_mace(tmp_path / "a.model", seed=5, **arguments), "mace")
    structures = many_frames(12)
    features = potential.features(structures).values
    energy = node_energy(potential, structures)
    assert features.shape == (sum(map(len, structures)), n_features)
    coefficients = np.linalg.lstsq(features, energy, rcond=None)[0]
    np.testing.assert_allclose(features @ coefficients, energy, rtol=0, atol=1e-10)


def test_energies_are_not_linear_in_the_invariants_so_the_test_above_means_something(potential):
    structures = many_frames(12)
    features = potential.features(structures, kind="invariants").values
    energy = node_energy(potential, structures)
    assert np.abs(features @ np.linalg.lstsq(features, energy, rcond=None)[0] - energy).max() > 1e-6


def test_invariants_are_the_descriptors_of_mace(potential, model_path):
    from mace.calculators import MACECalculator

    calculator = MACECalculator(model_paths=str(model_path), device="cpu", default_dtype="float64")
    found = potential.features(frames(), kind="invariants")
    expected = np.concatenate([calculator.get_descriptors(atoms, invariants_only=True) for atoms in frames()])
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["last_layer", "invariants"])
def test_features_are_invariant_to_rotation_translation_permutation_and_batch_size(potential, kind):
    structures = frames()
    whole = potential.features(structures, kind=kind)
    assert whole.species.tolist() == np.concatenate([atoms.numbers for atoms in structures]).tolist()
    assert whole.frame_index.tolist() == np.repeat(range(6), [len(atoms) for atoms in structures]).tolist()
    np.testing.assert_allclose(potential.features(structures, kind, batch_size=2).values, whole.values, atol=1e-12)

    moved = crystal()
    rotation = Rotation.from_rotvec([0.3, -0.8, 0.5]).as_matrix()
    order = np.array([2, 0, 3, 1])
    moved.set_cell(moved.cell.array @ rotation.T)
    moved.positions = moved.positions @ rotation.T + [0.1, 0.2, 0.3]
    features = potential.features([crystal(), moved[order]], kind=kind).values
    np.testing.assert_allclose(features[4:], features[:4][order], rtol=0, atol=1e-12)


def test_predictions_are_equivariant(potential):
    rotation = Rotation.from_rotvec([0.3, -0.8, 0.5]).as_matrix()
    order = np.array([2, 0, 3, 1])
    moved = crystal()
    moved.set_cell(moved.cell.array @ rotation.T)
    moved.positions = moved.positions @ rotation.T
    found, turned = potential.predict([crystal()]), potential.predict([moved[order]])
    np.testing.assert_allclose(turned.energy, found.energy, rtol=0, atol=1e-12)
    np.testing.assert_allclose(turned.forces, (found.forces @ rotation.T)[order], rtol=0, atol=1e-12)
    full = lambda v: np.array([[v[0], v[5], v[4]], [v[5], v[1], v[3]], [v[4], v[3], v[2]]])  # noqa: E731
    np.testing.assert_allclose(full(turned.stress[0]), rotation @ full(found.stress[0]) @ rotation.T, atol=1e-12)


def test_energy_per_atom_does_not_depend_on_the_supercell(potential):
    found = potential.predict([crystal(), crystal() * (1, 2, 2)])
    assert found.energy[1] == pytest.approx(4 * found.energy[0], abs=1e-10)
    np.testing.assert_allclose(found.stress[1], found.stress[0], atol=1e-12)


def test_unknown_kind_of_features_lists_the_known_ones(potential):
    with pytest.raises(ValueError, match="last_layer, invariants, got 'soap'"):
        potential.features(frames(), kind="soap")


def test_calculator_gives_the_predictions_step_by_step(potential):
    calculator = potential.calculator()
    predicted = potential.predict(frames())
    for k, atoms in enumerate(frames()):
        atoms.calc = calculator
        assert atoms.get_potential_energy() == pytest.approx(predicted.energy[k], abs=1e-12)
        np.testing.assert_allclose(atoms.get_forces(), predicted.frame(k).forces, atol=1e-12)
        assert ("stress" in calculator.results) == (not np.isnan(predicted.stress[k]).any())


def test_default_dtype_and_random_state_of_torch_are_left_alone(potential):
    torch.manual_seed(7)
    before, default = torch.random.get_rng_state(), torch.get_default_dtype()
    potential.predict(frames())
    potential.features(frames())
    assert torch.get_default_dtype() is default
    assert torch.equal(torch.random.get_rng_state(), before)


def test_float32_is_close_to_float64(potential, model_path):
    single = load(model_path, "mace", dtype="float32")
    assert_equal(single.predict(frames()), potential.predict(frames()), 1e-4)
    assert single.predict(frames()).energy.dtype == np.float64
    with pytest.raises(ValueError, match="dtype must be"):
        load(model_path, "mace", dtype="float16")


def test_one_head_of_several_must_be_chosen(tmp_path):
    path = make_tiny_mace(tmp_path / "heads.model", heads=("pbe", "scan"))
    with pytest.raises(ValueError, match="several heads, name one of them: pbe, scan"):
        load(path, "mace")
    with pytest.raises(ValueError, match="no head 'lda'"):
        load(path, "mace", head="lda")
    one, two = (load(path, "mace", head=head) for head in ("pbe", "scan"))
    assert one.features(frames()).n_features == 12
    assert np.abs(one.predict(frames()).energy - two.predict(frames()).energy).max() > 1e-3
    assert one.graph_key() != two.graph_key()


def test_what_is_not_a_mace_model_is_refused(tmp_path):
    torch.save(torch.nn.Linear(1, 1), tmp_path / "linear.model")
    with pytest.raises(ValueError, match="is not a MACE energy model: a Linear without r_max"):
        load(tmp_path / "linear.model", "mace")
    with pytest.raises(FileNotFoundError, match=r"there is no model file .*nothing\.model"):
        load(tmp_path / "nothing.model", "mace")


def test_equal_seeds_give_equal_tiny_models(tmp_path):
    paths = [make_tiny_mace(tmp_path / f"{k}.model", seed=seed) for k, seed in enumerate((4, 4, 5))]
    energies = [load(path, "mace").predict([molecule("H2O")]).energy[0] for path in paths]
    assert energies[0] == energies[1] != energies[2]
