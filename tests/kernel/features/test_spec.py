"""Which features: kinds of the potential, and functions of the user with the checks that they get."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from aiida_alpot.kernel._extras import MissingPackageError
from aiida_alpot.kernel.features import FeatureSpec
from aiida_alpot.kernel.potentials.base import Features
from aiida_alpot.kernel.settings import SettingsError

MODULE = '''
import numpy as np


def distances(frames, scale=1.0):
    """The distance of each atom from the centre of its frame, and how many atoms this has."""
    assert all(atoms.calc is None for atoms in frames)
    rows = []
    for atoms in frames:
        atoms.positions -= atoms.positions.mean(axis=0)
        rows += [[scale * np.linalg.norm(position), len(atoms)] for position in atoms.positions]
    return rows


class Distances:
    def __init__(self, scale=1.0):
        self.scale = scale

    def __call__(self, frames):
        return distances(frames, self.scale)


class Silent:
    """Cannot be called."""


class Lacking:
    def __init__(self):
        import no_such_backend.core



def per_frame(frames):
    return np.zeros((len(frames), 3))


def flat(frames):
    return np.zeros(sum(map(len, frames)))


def nothing(frames):
    return np.zeros((sum(map(len, frames)), 0))


def by_composition(frames):
    width = len(set(frames[0].numbers))
    return np.zeros((sum(map(len, frames)), width))


def infinite(frames):
    rows = np.zeros((sum(map(len, frames)), 2))
    rows[-1, 1] = np.inf
    return rows


def half_known(frames):
    rows = np.zeros((sum(map(len, frames)), 2))
    rows[0, 0] = np.nan
    return rows


def words(frames):
    return [["a"] for atoms in frames for _ in atoms]


def fails(frames):
    raise RuntimeError("no luck")


def lacks(frames):
    import no_such_backend.core


number = 3
'''
SETTING = "calibrate.settings.feature_kind"


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module with functions of a user, on the path."""
    (tmp_path / "user_features.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "user_features"
    sys.modules.pop("user_features", None)


@pytest.fixture
def labelled(make):
    return [*make.crystals(2), *make.molecules(3)]


def compute(kind, frames, batch_size=32, **parameters):
    return FeatureSpec(kind, parameters).build((), batch_size)(frames)


# --- kinds of a potential ---


@pytest.mark.parametrize("kind", ["last_layer", "invariants"])
def test_kinds_of_the_potential_pass_through(make, labelled, kind):
    potential = make.OffTarget(labelled)
    found = FeatureSpec(kind).complete([29]).build([potential])(labelled)
    expected = potential.features(labelled, kind=kind)
    assert FeatureSpec(kind).complete([29]) == FeatureSpec(kind)
    for name in ("values", "species", "frame_index"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_a_kind_that_only_the_potential_knows_is_asked_of_it():
    asked = []
    potential = SimpleNamespace(feature_kinds=("wavelets",), features=lambda frames, **options: asked.append(options))
    FeatureSpec("wavelets").build([potential], batch_size=7)([])
    assert asked == [{"kind": "wavelets", "batch_size": 7}]


def test_a_kind_of_a_potential_needs_one():
    with pytest.raises(ValueError, match=rf"{SETTING} 'invariants' is a kind of a potential, and there is none"):
        FeatureSpec("invariants").build()


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("saop", {}, f"{SETTING}: unknown kind 'saop'; did you mean 'soap'"),
        ("SOAP", {}, "did you mean 'soap'"),
        ("lastlayer", {}, "did you mean 'last_layer'"),
        ("", {}, "expected last_layer, invariants, soap or 'module:function'"),
        ("sorted_distances", {}, "are of whole frames, expected features of atoms"),
        ("last_layer", {"r_cut": 4.0}, r"calibrate\.settings\.feature_parameters: features of a potential"),
        ("soap", {"rcut": 4.0}, r"calibrate\.settings\.feature_parameters: unknown key 'rcut'; did you mean 'r_cut'"),
        ("soap", {"n_max": 0}, r"calibrate\.settings\.feature_parameters: n_max must be from"),
        ("my module:f", {}, rf"{SETTING}: expected 'package\.module:Name'"),
        (":f", {}, r"expected 'package\.module:Name'"),
    ],
)
def test_what_is_wrong_is_named_before_any_job(kind, parameters, message):
    with pytest.raises(SettingsError, match=message):
        FeatureSpec(kind, parameters)


# --- SOAP as plain data ---


def test_all_that_soap_depends_on_is_recorded():
    found = FeatureSpec("soap", {"r_cut": 4.0}).complete([79, 29, 29]).parameters
    assert found == {
        "species": ["Cu", "Au"],
        "r_cut": 4.0,
        "n_max": 4,
        "l_max": 3,
        "sigma": 0.5,
        "compression": "mu1nu1",
    }
    assert FeatureSpec("soap", found).complete([1]).parameters == found


def test_species_that_make_too_many_columns_are_refused_with_the_setting():
    with pytest.raises(SettingsError, match=r"calibrate\.settings\.feature_parameters: 70 species.* lower n_max"):
        FeatureSpec("soap").complete(range(1, 71))


def test_soap_without_dscribe_names_the_package_and_how_to_get_it(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "dscribe"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "dscribe", None)
    spec = FeatureSpec("soap", {"species": ["Cu"]})
    for use in (spec.require, spec.build):
        with pytest.raises(MissingPackageError, match=r"pip install 'dscribe>=2\.1'") as caught:
            use()
        assert caught.value.package == "dscribe"


# --- functions of the user ---


@pytest.mark.parametrize("name", ["distances", "Distances"])
def test_a_function_and_a_class_give_the_same(module, labelled, name):
    found = compute(f"{module}:{name}", labelled, scale=2.0)
    water = labelled[2].positions
    expected = 2.0 * np.linalg.norm(water - water.mean(axis=0), axis=1)
    assert isinstance(found, Features)
    np.testing.assert_allclose(found.values[8:11, 0], expected)
    np.testing.assert_array_equal(found.values[:, 1], [4] * 8 + [3] * 9)
    np.testing.assert_array_equal(found.species, np.concatenate([atoms.numbers for atoms in labelled]))
    np.testing.assert_array_equal(found.frame_index, np.repeat([0, 1, 2, 3, 4], [4, 4, 3, 3, 3]))


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_the_size_of_a_batch_changes_nothing(module, labelled, batch_size):
    found, whole = (compute(f"{module}:distances", labelled, size) for size in (batch_size, 32))
    np.testing.assert_array_equal(found.values, whole.values)


def test_a_function_gets_copies_without_labels(module, labelled):
    before = [atoms.positions.copy() for atoms in labelled]
    compute(f"{module}:distances", labelled)
    assert all(atoms.calc is not None for atoms in labelled)
    assert all(np.array_equal(a, atoms.positions) for a, atoms in zip(before, labelled, strict=True))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("per_frame", r"an array of the shape \(2, 3\) for 2 frames with 8 atoms; it must give one row per atom"),
        ("flat", r"the shape \(8,\) for 2 frames"),
        ("nothing", r"the shape \(8, 0\) .* at least one column"),
        ("by_composition", "gives 1 columns for some frames and 2 for others; a column must mean the same"),
        ("infinite", r"not finite for atom 3 \(Cu\) of frame 1 \(Cu4\); a row is finite, or NaN altogether"),
        ("half_known", r"not finite for atom 0 \(Cu\) of frame 0 \(Cu4\)"),
        ("words", "failed: ValueError: could not convert string to float"),
        ("fails", "failed: RuntimeError: no luck"),
    ],
)
def test_what_a_function_gives_is_checked(module, labelled, function, message):
    with pytest.raises(ValueError, match=rf"{SETTING} 'user_features:{function}' .*{message}"):
        compute(f"{module}:{function}", labelled, batch_size=2)


def test_parameters_that_a_function_does_not_take_are_named(module, labelled):
    with pytest.raises(ValueError, match=r"failed: TypeError: .* unexpected keyword argument 'factor'"):
        compute(f"{module}:distances", labelled, factor=2.0)
    with pytest.raises(ValueError, match=r"refused its feature_parameters: TypeError: .*'factor'"):
        FeatureSpec(f"{module}:Distances", {"factor": 2.0}).build()


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        (
            "no_such_package:f",
            MissingPackageError,
            f"{SETTING} 'no_such_package:f' needs the package 'no_such_package'",
        ),
        ("user_features.core:f", ValueError, "has no module 'user_features.core'"),
        ("user_features:fails_not", ValueError, "the module 'user_features' has no 'fails_not'"),
        ("user_features:number", ValueError, "is a int, expected a function or a class"),
    ],
)
def test_a_function_that_is_not_there_is_found_out_before_anything_is_computed(module, path, error, message):
    for use in (FeatureSpec(path).require, lambda: FeatureSpec(path).build()):
        with pytest.raises(error, match=message):
            use()


def test_an_object_that_cannot_be_called_is_refused(module):
    with pytest.raises(ValueError, match="makes a Silent that cannot be called with frames"):
        FeatureSpec(f"{module}:Silent").build()


@pytest.mark.parametrize("name", ["lacks", "Lacking"])
def test_a_package_that_a_function_imports_late_is_named(module, labelled, name):
    message = rf"'user_features:{name}' .*, it needs the package 'no_such_backend'"
    with pytest.raises(MissingPackageError, match=message) as caught:
        compute(f"{module}:{name}", labelled)
    assert caught.value.package == "no_such_backend"


def test_the_function_in_the_documentation_keeps_the_contract(tmp_path, monkeypatch, frame, random_rotation):
    page = (Path(__file__).parents[3] / "docs" / "developer" / "add-features.md").read_text(encoding="utf-8")
    (tmp_path / "documented.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "documented", raising=False)
    turned = frame.copy()
    turned.positions = (frame.positions + 1.0) @ random_rotation
    turned.positions[0] += 2 * (frame.pbc @ frame.cell.array) @ random_rotation
    turned.set_cell(frame.cell.array @ random_rotation)
    first, second = (compute("documented:coordination", [atoms], radii=[3.0, 4.5]) for atoms in (frame, turned))
    assert first.values.min() > 0.0
    np.testing.assert_allclose(second.values, first.values, rtol=1e-9)


# --- what is not defined ---


def test_features_that_are_not_defined_are_refused_where_they_must_be(labelled):
    values = np.zeros((4, 1))
    values[2] = np.nan
    features = Features(values, labelled[0].numbers, np.zeros(4))
    with pytest.raises(ValueError, match=r"'m:f' is not defined for Cu .* in Cu4; leave the frame out"):
        FeatureSpec("m:f").require_known(features, labelled)
    with pytest.raises(ValueError, match=r"calibrate\.settings\.feature_parameters\.species: name all that occur"):
        FeatureSpec("soap").require_known(features, labelled)
    known = Features(np.zeros((4, 1)), labelled[0].numbers, np.zeros(4))
    assert FeatureSpec("soap").require_known(known, labelled) is known
