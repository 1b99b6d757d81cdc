"""Exchange formats lose nothing."""

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiida_alpot.kernel.dataset import SCHEMA, Dataset, read_frames, write, write_frames


def rich_frame(seed, **info):
    rng = np.random.default_rng(seed)
    atoms = Atoms("SiOH", rng.random((3, 3)) * 7, cell=rng.random((3, 3)) + 7 * np.eye(3), pbc=[True, True, False])
    atoms.info.update(
        split="train", group='md "1" é', origin="it's", iteration=4, config_type="5", weight=0.1, parent="T",
        cost=1 / 3, reason="line\nbreak \\ tab\t", fingerprint="[1, 2]", charge=-1.0, empty="", number=7, real=7.0,
        nothing=np.nan, flag=True, text="a b", vector=rng.random(3), whole=np.arange(4), matrix=rng.random((3, 3)),
        nine=rng.random(9), dipole=rng.random(3), words="T F", json="_JSON {}", low="-", minus=-0.0, big=2**62,
    )  # fmt: skip
    atoms.info.update({"sp ace": 1, "virial": 2.5, "größe": "µ", "uid": 3, "Lattice": "x"})
    atoms.set_array("flags", np.array([True, False, True]))
    atoms.set_array("site", np.arange(3))
    atoms.set_array("vel", rng.random((3, 2)))
    atoms.set_array("cube", rng.random((3, 2, 2)))
    atoms.set_array("names", np.array(["a b", "", "é"]))
    atoms.set_array("plain", np.array(["a", "bb", "c"]))
    atoms.set_array("charges", rng.random(3))
    atoms.set_array("holes", np.array([np.nan, np.inf, 1.0]))
    atoms.set_initial_magnetic_moments(rng.random(3))
    atoms.set_initial_charges(rng.random(3))
    atoms.set_tags([1, 2, 3])
    atoms.set_masses([1.5, 2.5, 3.5])
    atoms.set_momenta(rng.random((3, 3)))
    results = {"energy": rng.normal(), "forces": rng.normal(size=(3, 3)), "stress": rng.normal(size=6)}
    atoms.calc = SinglePointCalculator(atoms, **results, magmoms=rng.random(3))
    atoms.info.update(info)
    return atoms


def same_datasets(first, second):
    with Dataset.open(first) as a, Dataset.open(second) as b:
        assert a.columns == b.columns
        assert a.content_hash == b.content_hash
        assert a.usage_hash == b.usage_hash
        for name in a.columns:
            x, y = a.column(name), b.column(name)
            assert x.dtype == y.dtype
            if x.dtype == float:  # every NaN is as good as another, a text has no payload
                x, y = (np.where(np.isnan(v), np.nan, v) for v in (x, y))
            assert (x.tolist() == y.tolist()) if x.dtype == object else (x.tobytes() == y.tobytes()), name
            assert a.present(name).tolist() == b.present(name).tolist(), name


@pytest.mark.parametrize("suffix", ["xyz", "db", "h5"])
def test_every_column_survives_bit_by_bit(tmp_path, suffix):
    bare = bulk("Cu")
    failed = rich_frame(5, status="failed")
    failed.calc = SinglePointCalculator(failed, energy=np.inf)
    write(tmp_path / "a.h5", [rich_frame(0), rich_frame(1), bare, Atoms("H"), failed])
    with Dataset.open(tmp_path / "a.h5") as dataset:
        write_frames(dataset, tmp_path / f"x.{suffix}")
    write(tmp_path / "b.h5", read_frames(tmp_path / f"x.{suffix}"))
    same_datasets(tmp_path / "a.h5", tmp_path / "b.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({"a.h5", "b.h5", f"x.{suffix}"})


VALUES = st.one_of(st.text(max_size=10), st.floats(), st.booleans(), st.integers(-(2**63), 2**63 - 1))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(info=st.dictionaries(st.text(min_size=1, max_size=6), VALUES, max_size=4), reason=st.text(max_size=10))
def test_any_text_and_number_survives_extxyz(tmp_path, info, reason):
    info = {name: value for name, value in info.items() if name not in SCHEMA and not name.startswith("REF_")}
    atoms = Atoms("H", info={**info, "reason": reason})
    write(tmp_path / "a.h5", [atoms])
    with Dataset.open(tmp_path / "a.h5") as dataset:
        write_frames(dataset, tmp_path / "x.extxyz")
    write(tmp_path / "b.h5", read_frames(tmp_path / "x.extxyz"))
    same_datasets(tmp_path / "a.h5", tmp_path / "b.h5")


@pytest.mark.parametrize("kind", ["info", "arrays"])
@pytest.mark.parametrize("name", ["CELL", "lattice", "PBC", "Energy", "dft_forces", "virials", "Force", "length_unit"])
def test_a_column_that_looks_like_another_survives_extxyz(tmp_path, name, kind):
    atoms = Atoms("H")
    getattr(atoms, kind)[name] = "bohr" if kind == "info" else np.array([2.5])
    write(tmp_path / "a.h5", [atoms])
    with Dataset.open(tmp_path / "a.h5") as dataset:
        write_frames(dataset, tmp_path / "x.extxyz")
    write(tmp_path / "b.h5", read_frames(tmp_path / "x.extxyz"))
    same_datasets(tmp_path / "a.h5", tmp_path / "b.h5")


def test_other_readers_find_ref_labels_and_no_bare_ones(tmp_path):
    write_frames([rich_frame(0)], tmp_path / "x.xyz")
    atoms = ase.io.read(tmp_path / "x.xyz")
    original = rich_frame(0).calc.results
    assert atoms.calc is None
    assert atoms.info["REF_energy"] == original["energy"]
    assert np.array_equal(atoms.arrays["REF_forces"], original["forces"])
    assert atoms.info["REF_stress"].shape in ((9,), (3, 3))
    assert atoms.info["split"] == "train"
    assert np.array_equal(atoms.info["vector"], rich_frame(0).info["vector"])
    assert (tmp_path / "x.xyz").read_bytes().isascii()


def test_files_of_others_are_labelled(tmp_path):
    frames = [bulk("Cu", cubic=True) for _ in range(2)]
    for k, atoms in enumerate(frames):
        atoms.rattle(0.1, seed=k)
        atoms.calc = EMT()
        atoms.get_stress()
        atoms.info["temperature"] = 300 + k / 2
    ase.io.write(tmp_path / "bare.xyz", frames, format="extxyz")
    keyed = [atoms.copy() for atoms in frames]
    for ours, theirs in zip(keyed, frames, strict=True):
        ours.info["REF_energy"] = theirs.get_potential_energy()
        ours.arrays["REF_forces"] = theirs.get_forces()
        ours.calc = SinglePointCalculator(ours, energy=99.0, forces=np.zeros((4, 3)))
    ase.io.write(tmp_path / "keyed.xyz", keyed, format="extxyz")
    with connect(tmp_path / "ase.db") as database:
        for atoms in frames:
            database.write(atoms, temperature=atoms.info["temperature"])
    for name in ("bare.xyz", "keyed.xyz", "ase.db"):
        read = read_frames(tmp_path / name)
        write(tmp_path / "a.h5", read)
        with Dataset.open(tmp_path / "a.h5") as dataset:
            assert dataset.column("status").tolist() == ["labelled"] * 2, name
            assert dataset.column("energy") == pytest.approx([f.get_potential_energy() for f in frames], abs=1e-6)
            assert dataset.column("temperature").tolist() == [300.0, 300.5]
            if name == "bare.xyz":
                assert dataset.column("stress")[0] == pytest.approx(frames[0].get_stress(), abs=1e-6)


def test_whole_numbers_in_a_file_become_float_with_their_column(tmp_path):
    text = "".join(f'1\nProperties=species:S:1:pos:R:3 T={t} pbc="F F F"\nH 0 0 0\n' for t in ("300", "300.5"))
    (tmp_path / "a.xyz").write_text(text)
    assert [type(atoms.info["T"]) for atoms in read_frames(tmp_path / "a.xyz")] == [np.float64, np.float64]


def test_empty_files_and_unknown_formats(tmp_path):
    for suffix in ("xyz", "db", "h5"):
        write_frames([], tmp_path / f"a.{suffix}")
        assert read_frames(tmp_path / f"a.{suffix}") == []
    with pytest.raises(ValueError, match="cannot write 'cif'"):
        write_frames([], tmp_path / "a.cif", format="cif")
    with pytest.raises(FileNotFoundError, match="no file at"):
        read_frames(tmp_path / "none.xyz")
