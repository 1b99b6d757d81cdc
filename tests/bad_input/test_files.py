"""Files of frames that are truncated, flipped, mixed up or lie: every door to a dataset refuses them by name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from aiida import orm
from aiida.cmdline.commands.cmd_verdi import verdi
from aiida.common.exceptions import ValidationError
from click.testing import CliRunner

from aiida_alpot.calculations.functions.dataset import import_frames
from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.dataset import Dataset, merge, read_frames, write

pytestmark = [pytest.mark.usefixtures("aiida_profile"), pytest.mark.timeout(60)]

Damage = Callable[[SimpleNamespace], bytes | str]
CELL = 'Lattice="3 0 0 0 3 0 0 0 3"'
BASIC = "Properties=species:S:1:pos:R:3"


def edited(old: str, new: str) -> Damage:
    """Return the good file of extended xyz with the first *old* replaced."""

    def damage(good: SimpleNamespace) -> str:
        assert old in good.xyz
        return good.xyz.replace(old, new, 1)

    return damage


def first_atom(change: Callable[[list[str]], list[str]]) -> Damage:
    """Return the good file of extended xyz with other words in the line of the first atom."""

    def damage(good: SimpleNamespace) -> str:
        lines = good.xyz.splitlines()
        lines[2] = " ".join(change(lines[2].split()))
        return "\n".join(lines) + "\n"

    return damage


def single(comment: str, atom: str = "Cu 0 0 0") -> Damage:
    return lambda _: f"1\n{comment}\n{atom}\n"


def flipped(position: int) -> Damage:
    def damage(good: SimpleNamespace) -> bytes:
        content = bytearray(good.h5)
        content[position] ^= 0xFF
        return bytes(content)

    return damage


def flipped_column(name: str) -> Damage:
    """Flip a byte in the first chunk of a column."""

    def damage(good: SimpleNamespace) -> bytes:
        with h5py.File(io.BytesIO(good.h5), "r") as file:
            position = file[name].id.get_chunk_info(0).byte_offset
        return flipped(position + 1)(good)

    return damage


def extra(text: str) -> Damage:
    """Return the good file with a damaged entry of this package."""
    return edited("energy=-1.0", 'alpot="_JSON ' + text.replace('"', '\\"') + '" energy=-1.0')


FILES: dict[str, tuple[str, Damage, Sequence[str]]] = {
    "file-01 HDF5 cut in the middle": (
        "bad.h5", lambda good: good.h5[: len(good.h5) // 2], ["bad.h5", "truncated", "write it again"]),
    "file-02 HDF5 without its last byte": ("bad.h5", lambda good: good.h5[:-1], ["bad.h5", "truncated"]),
    "file-03 HDF5 of no byte": ("bad.h5", lambda _: b"", ["bad.h5", "no HDF5 file", "write it again"]),
    "file-04 HDF5 signature and nothing else": ("bad.h5", lambda good: good.h5[:8], ["bad.h5", "corrupt"]),
    "file-05 extended xyz named .h5": ("bad.h5", lambda good: good.xyz, ["bad.h5", "no HDF5 file"]),
    "file-06 HDF5 with a flipped byte in its tree": ("bad.h5", flipped(100), ["bad.h5", "corrupt", "restore"]),
    "file-07 HDF5 with a flipped byte in a column": (
        "bad.h5",
        flipped_column("atom/numbers"),
        ["bad.h5", "numbers", "restore"],
    ),
    "file-08 HDF5 with a flipped byte near its end": ("bad.h5", flipped(-200), ["bad.h5", "corrupt", "restore"]),
    "file-09 HDF5 named .xyz": ("bad.xyz", lambda good: good.h5, ["bad.xyz", "UTF-8", "convert"]),
    "file-10 a pickle named .xyz": ("bad.xyz", lambda _: pickle.dumps([1]), ["bad.xyz", "UTF-8", "convert"]),
    "file-11 random bytes": ("bad.xyz", lambda _: b"\xff" + os.urandom(400), ["bad.xyz", "UTF-8", "convert"]),
    "file-12 Latin-1 text": (
        "bad.xyz",
        lambda good: good.xyz.replace("energy", "author=Bézout energy", 1).encode("latin-1"),
        ["bad.xyz", "UTF-8", "iconv"],
    ),
    "file-13 UTF-16 text": ("bad.xyz", lambda good: good.xyz.encode("utf-16"), ["bad.xyz", "UTF-8", "iconv"]),
    "file-14 no content": ("bad.xyz", lambda _: "", ["bad.xyz", "holds no frame"]),
    "file-15 empty lines only": ("bad.xyz", lambda _: "\n\n\n", ["bad.xyz", "holds no frame"]),
    "file-16 xyz cut in a frame": (
        "bad.xyz", lambda good: good.xyz[: good.xyz[:-1].rindex("\n") + 1], ["bad.xyz, frame 2", "ends after 3 of 4"]),
    "file-17 xyz cut in a line": ("bad.xyz", lambda good: good.xyz[:-60], ["bad.xyz, frame 2", "line 18", "correct"]),
    "file-18 more atoms announced than there are": ("bad.xyz", edited("4\n", "5\n"), ["bad.xyz, frame 0", "line 7"]),
    "file-19 fewer atoms announced than there are": (
        "bad.xyz", edited("4\n", "3\n"), ["bad.xyz, frame 1", "expected the number of atoms", "correct the line"]),
    "file-20 a million million atoms announced": (
        "bad.xyz", edited("4\n", "999999999999\n"), ["bad.xyz, frame 0", "line 7"]),
    "file-21 a million million atoms announced at the end": (
        "bad.xyz", lambda _: f"999999999999\n{CELL} {BASIC}\nCu 0 0 0\n", ["ends after 1 of 999999999999 atoms"]),
    "file-22 a negative number of atoms": ("bad.xyz", edited("4\n", "-4\n"), ["frame 0", "number of atoms, got '-4'"]),
    "file-23 a number of atoms in words": ("bad.xyz", edited("4\n", "four\n"), ["frame 0", "got 'four'", "correct"]),
    "file-24 a frame of no atom": ("bad.xyz", lambda _: f"0\n{CELL}\n", ["frame 0", "got '0'", "leave it out"]),
    "file-25 an empty line before more frames": (
        "bad.xyz", edited("\n4\n", "\n\n4\n"), ["bad.xyz, line 7 is empty", "would be lost", "remove the empty line"]),
    "file-26 a line with a word missing": ("bad.xyz", first_atom(lambda w: w[:-1]), ["line 3 has 6 values", "7"]),
    "file-27 a line with a word too much": ("bad.xyz", first_atom(lambda w: [*w, "7.0"]), ["line 3 has 8 values"]),
    "file-28 a position in letters": (
        "bad.xyz", first_atom(lambda w: [w[0], "O.1", *w[2:]]), ["bad.xyz", "'O.1'", "damaged"]),
    "file-29 a position that is NaN": (
        "bad.xyz", first_atom(lambda w: [w[0], "nan", *w[2:]]), ["frame 0", "position", "not finite", "leave"]),
    "file-30 a position beyond floating point": (
        "bad.xyz", first_atom(lambda w: [w[0], "1e999", *w[2:]]), ["frame 0", "position", "not finite"]),
    "file-31 an unknown species": (
        "bad.xyz", first_atom(lambda w: ["Qq", *w[1:]]), ["line 3", "'Qq' is no chemical symbol", "correct it"]),
    "file-32 a dummy atom": ("bad.xyz", first_atom(lambda w: ["X", *w[1:]]), ["frame 0", "replace dummy atoms"]),
    "file-33 positions left out": ("bad.xyz", single(f"{CELL} Properties=species:S:1", "Cu"), ["lacks", "pos:R:3"]),
    "file-34 species left out": ("bad.xyz", single(f"{CELL} Properties=pos:R:3", "0 0 0"), ["lacks species:S:1"]),
    "file-35 positions of two columns": (
        "bad.xyz", single(f"{CELL} Properties=species:S:1:pos:R:2", "Cu 0 0"), ["Properties", "pos:R:3"]),
    "file-36 columns that do not come in threes": (
        "bad.xyz", single(f"{CELL} Properties=species:S:1:pos:R"), ["Properties", "not a list of name:type:columns"]),
    "file-37 a cell of eight numbers": (
        "bad.xyz", single(f'Lattice="3 0 0 0 3 0 0 0" {BASIC}'), ["frame 0", "Lattice", "9-long", "correct"]),
    "file-38 a cell that is NaN": (
        "bad.xyz", single(f'Lattice="nan 0 0 0 3 0 0 0 3" {BASIC}'), ["frame 0", "cell", "not finite"]),
    "file-39 Lattice in lower case": ("bad.xyz", edited("Lattice", "lattice"), ["'lattice'", "write Lattice"]),
    "file-40 periodicity in other words": (
        "bad.xyz", single(f'{CELL} pbc="yes no maybe" {BASIC}'), ["frame 0", "pbc is yes no maybe", "T or F"]),
    "file-41 periodicity of two axes": (
        "bad.xyz", single(f'{CELL} pbc="T F" {BASIC}'), ["frame 0", "pbc", "each of three axes"]),
    "file-42 periodicity in mixed words": (
        "bad.xyz", single(f"{CELL} pbc=[T,F,1] {BASIC}"), ["frame 0", "pbc", "T or F"]),
    "file-43 periodic without a cell": (
        "bad.xyz", single(f'pbc="T T T" {BASIC}'), ["frame 0", "cell vector is zero", "pbc to False"]),
    "file-44 periodic along a vector of length zero": (
        "bad.xyz", single(f'Lattice="3 0 0 0 3 0 0 0 0" pbc="T T T" {BASIC}'), ["frame 0", "set the cell"]),
    "file-45 an energy that is NaN": (
        "bad.xyz", edited("energy=-1.0", "energy=nan"), ["frame 0", "energy", "not finite", "give finite labels"]),
    "file-46 an energy in words": ("bad.xyz", edited("energy=-1.0", "energy=low"), ["frame 0: energy", "'low'"]),
    "file-47 two energies": ("bad.xyz", edited("energy=-1.0", 'energy="-1 -2"'), ["frame 0: energy has shape (2,)"]),
    "file-48 energies said to be in kcal/mol": (
        "bad.xyz", edited("energy=", "energy_unit=kcal/mol energy="), ["energy_unit=kcal/mol", "eV", "convert"]),
    "file-49 lengths said to be in bohr": (
        "bad.xyz", edited("energy=", "units=bohr energy="), ["units=bohr", "Å", "convert"]),
    "file-50 an entry of this package that is no JSON": ("bad.xyz", extra("{bad"), ["frame 0", "malformed", "correct"]),
    "file-51 an entry of this package of another form": (
        "bad.xyz", extra('{"info": [1, 2]}'), ["frame 0", "'alpot' is damaged", "remove it"]),
    "file-52 an entry of this package of an unknown type": (
        "bad.xyz",
        extra('{"info": {"a": {"dtype": "Z", "shape": [1], "data": [1]}}}'),
        ["frame 0", "'alpot' is damaged"],
    ),
    "file-53 an entry of this package that replaces the positions": (
        "bad.xyz",
        extra('{"arrays": {"positions": {"dtype": "f", "shape": [1], "data": [1]}}}'),
        ["frame 0", "belong to another geometry"],
    ),
    "file-54 an ASE database cut in the middle": (
        "bad.db", lambda good: good.db[: len(good.db) // 2], ["bad.db", "damaged", "malformed"]),
    "file-55 text named .db": ("bad.db", lambda _: "hello", ["bad.db", "damaged", "not a database"]),
    "file-56 a trajectory of nothing": ("bad.traj", lambda _: b"- of Ulm" + bytes(50), ["bad.traj", "damaged"]),
    "file-57 a POSCAR of three words": ("bad.vasp", lambda _: "a\nb\nc\n", ["bad.vasp", "damaged"]),
    "file-58 a CIF without a structure": ("bad.cif", lambda _: "data_x\n_cell 1", ["bad.cif", "holds no frame"]),
    "file-59 an ending nobody knows": ("bad.foo", lambda _: "abc", ["bad.foo", "no known format", "name one"]),
    "file-60 a program": ("bad.py", lambda _: "import os", ["bad.py", "another format"]),
    "file-82 an empty line before more frames, compressed": (
        "bad.xyz.gz",
        lambda good: gzip.compress(good.xyz.replace("\n4\n", "\n\n4\n", 1).encode()),
        ["bad.xyz.gz, line 7 is empty", "would be lost"],
    ),
    "file-83 a foreign unit, compressed": (
        "bad.extxyz.xz",
        lambda good: lzma.compress(good.xyz.replace("energy=", "units=bohr energy=", 1).encode()),
        ["bad.extxyz.xz, frame 0", "units=bohr"],
    ),
    "file-84 gzip cut in the middle": (
        "bad.xyz.gz", lambda good: gzip.compress(good.xyz.encode())[:-60], ["bad.xyz.gz", "damaged"]),
    "file-85 text named .gz": ("bad.xyz.gz", lambda good: good.xyz, ["bad.xyz.gz", "damaged"]),
    "file-86 a dataset, compressed": (
        "bad.h5.gz", lambda good: gzip.compress(good.h5), ["bad.h5.gz", "decompress it first"]),
    "file-87 an ASE database, compressed": (
        "bad.db.bz2", lambda good: bz2.compress(good.db), ["bad.db.bz2", "decompress it first"]),
    "file-88 extended xyz without an ending": (
        "bad", lambda good: good.xyz.replace("\n4\n", "\n\n4\n", 1), ["bad, line 7 is empty", "would be lost"]),
    "file-89 an energy that is true": (
        "bad.xyz", edited("energy=-1.0", "energy=T"), ["frame 0", "energy is T or F", "expected a number"]),
    "file-90 an energy without a value": (
        "bad.xyz", single(f"{CELL} {BASIC} the lowest energy of all"), ["frame 0", "energy is T or F"]),
    "file-91 forces that are true": (
        "bad.xyz", single(f"{CELL} {BASIC}:forces:L:3", "Cu 0 0 0 T F F"), ["frame 0", "forces is T or F"]),
    "file-92 species and atomic numbers that contradict": (
        "bad.xyz",
        single(f"{CELL} Properties=species:S:1:Z:I:1:pos:R:3", "Cu 47 0 0 0"),
        ["frame 0", "line 3", "species Cu and atomic number 47", "correct it"],
    ),
    "file-93 a stress that is not symmetric": (
        "bad.xyz",
        single(f'{CELL} {BASIC} stress="1 2 0 0 1 0 0 0 1"'),
        ["frame 0", "stress is not symmetric, by 2 eV/Å³", "correct or remove"],
    ),
    "file-94 a stress under REF_ that is not symmetric": (
        "bad.xyz", single(f'{CELL} {BASIC} REF_stress="1 2 0 0 1 0 0 0 1"'), ["frame 0", "stress is not symmetric"]),
    "file-95 two energies under one name": (
        "bad.xyz", edited("energy=-1.0", "energy=-1.0 energy=-2.0"), ["frame 0", "'energy' is given twice", "remove"]),
    "file-96 two cells": ("bad.xyz", single(f"{CELL} {CELL} {BASIC}"), ["frame 0", "'Lattice' is given twice"]),
    "file-97 a virial without a stress": (
        "bad.xyz",
        single(f'{CELL} {BASIC} energy=1 virial="1 0 0 0 1 0 0 0 1"'),
        ["frame 0", "'virial' is not read as stress", "−virial/volume"],
    ),
    "file-98 a column called force": (
        "bad.xyz",
        single(f"{CELL} {BASIC}:force:R:3 energy=1", "Cu 0 0 0 0 0 0"),
        ["frame 0", "'force' is not read as forces", "rename it to forces"],
    ),
    "file-99 an energy in capitals": (
        "bad.xyz", edited("energy=", "Energy="), ["frame 0", "'Energy' is not read as energy", "rename"]),
    "file-100 a cell under another name": (
        "bad.xyz", single(f'Cell="3 0 0 0 3 0 0 0 3" {BASIC}'), ["frame 0", "'Cell'", "write Lattice"]),
    "file-101 forces without the prefix of the energy": (
        "bad.xyz", edited("energy=", "REF_energy="), ["frame 0", "forces would be left out beside REF_energy"]),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
@pytest.mark.filterwarnings("ignore::UserWarning:ase")
def test_a_bad_file_is_refused_by_name(case: str, good: SimpleNamespace, plant: Any, refused: Any, says: Any) -> None:
    name, damage, words = FILES[case]
    path = plant(name, damage(good))
    refused(lambda: PESData.from_file(path), words)
    result = CliRunner().invoke(verdi, ["data", "alpot.pes", "import", str(path)])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    says(result.output, words)


@pytest.mark.parametrize("case", [case for case, (name, _, _) in FILES.items() if name == "bad.h5"])
def test_a_damaged_dataset_is_refused_by_every_reader(
    case: str, good: SimpleNamespace, plant: Any, refused: Any, tmp_path: Path
) -> None:
    name, damage, words = FILES[case]
    path = plant(name, damage(good))

    def verify() -> None:
        with Dataset.open(path) as dataset:
            dataset.verify()

    refused(verify, words)
    refused(lambda: read_frames(path), words)
    refused(lambda: merge([path], tmp_path / "out.h5"), words)
    assert not (tmp_path / "out.h5").exists()


def test_a_flipped_byte_is_refused_or_changes_nothing(good: SimpleNamespace, plant: Any) -> None:
    """file-61 every 97th byte of a dataset flipped, one at a time."""
    with Dataset.open(io.BytesIO(good.h5)) as dataset:
        expected = (dataset.content_hash, [atoms.positions.tobytes() for atoms in dataset])
    for position in range(0, len(good.h5), 97):
        path = plant("flipped.h5", flipped(position)(good))
        try:
            node = PESData.from_file(path)
        except ValueError as error:
            assert "flipped.h5" in str(error), f"byte {position}: {error}"  # noqa: PT017  most bytes are refused
            continue
        found = (node.content_hash, [atoms.positions.tobytes() for atoms in node])
        assert found == expected, f"byte {position}"


def test_a_dataset_whose_values_were_exchanged_is_refused(plant: Any, good: SimpleNamespace, refused: Any) -> None:
    """file-62 energies changed by another program, checksums renewed."""
    path = plant("bad.h5", good.h5)
    with h5py.File(path, "r+") as file:
        file["frame/energy"][:] *= 23.06
    refused(lambda: PESData.from_file(path), ["bad.h5", "frames 0–2", "changed after it was written"])


@pytest.mark.parametrize("kind", ["external link", "soft link", "external storage", "virtual dataset"])
def test_a_dataset_that_points_outside_itself_is_refused(
    kind: str, plant: Any, good: SimpleNamespace, refused: Any, tmp_path: Path
) -> None:
    """file-63 to 66 HDF5 columns whose values lie elsewhere."""
    other, path = plant("other.h5", good.h5), plant("bad.h5", good.h5)
    with h5py.File(path, "r+") as file:
        values = file["frame/energy"][...]
        del file["frame/energy"]
        if kind == "external link":
            file["frame/energy"] = h5py.ExternalLink(str(other), "frame/energy")
        elif kind == "soft link":
            file["frame/energy"] = h5py.SoftLink("/offsets")
        elif kind == "external storage":
            (tmp_path / "raw").write_bytes(values.tobytes())
            raw = [(str(tmp_path / "raw"), 0, values.nbytes)]
            file.create_dataset("frame/energy", shape=values.shape, dtype="<f8", external=raw)
        else:
            layout = h5py.VirtualLayout(shape=values.shape, dtype="<f8")
            layout[:] = h5py.VirtualSource(str(other), "frame/energy", shape=values.shape)
            file.create_virtual_dataset("frame/energy", layout)
    refused(lambda: PESData.from_file(path), ["bad.h5", "energy", "outside", "write it again"])


def test_a_small_file_that_claims_a_huge_dataset_is_refused(plant: Any, good: SimpleNamespace, refused: Any) -> None:
    """file-67 offsets of 10¹¹ frames that were never written."""
    path = plant("bad.h5", good.h5)
    with h5py.File(path, "r+") as file:
        del file["offsets"]
        file.create_dataset("offsets", shape=(10**11,), dtype="<i8", chunks=(1024,))
        file.attrs["n_frames"] = np.int64(10**11 - 1)
    refused(lambda: PESData.from_file(path), ["bad.h5", "offsets", "restore"])


def test_an_hdf5_file_of_something_else_is_refused(tmp_path: Path, refused: Any) -> None:
    """file-68 HDF5 of another program."""
    with h5py.File(tmp_path / "bad.h5", "w") as file:
        file["data"] = np.zeros(3)
    refused(lambda: PESData.from_file(tmp_path / "bad.h5"), ["bad.h5", "no aiida-alpot dataset", "import it"])


def test_a_dataset_of_a_later_version_is_refused(plant: Any, good: SimpleNamespace, refused: Any) -> None:
    """file-69 schema version 99."""
    path = plant("bad.h5", good.h5)
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 99
    refused(lambda: PESData.from_file(path), ["schema version 99", "upgrade aiida-alpot"])


@pytest.mark.parametrize("door", [PESData.from_file, read_frames])
def test_a_path_that_is_no_file_is_refused(door: Callable[[Path], Any], tmp_path: Path, refused: Any) -> None:
    """file-70 a folder, a missing file and a broken link in place of a file."""
    (tmp_path / "link.xyz").symlink_to(tmp_path / "nowhere.xyz")
    for name in ("missing.xyz", "link.xyz", ""):
        refused(lambda name=name: door(tmp_path / name), [name or tmp_path.name])


def test_a_named_pipe_does_not_hang_the_import(tmp_path: Path, refused: Any) -> None:
    """file-71 a pipe that nobody writes to."""
    os.mkfifo(tmp_path / "pipe.xyz")
    refused(lambda: PESData.from_file(tmp_path / "pipe.xyz"), ["pipe.xyz"])


@pytest.mark.parametrize("name", [b"caf\xe9.xyz", b"new\nline.xyz", b"..xyz", b"a b;rm -rf $HOME.xyz"])
def test_a_file_of_an_odd_name_is_imported_or_refused_by_name(
    name: bytes, good: SimpleNamespace, tmp_path: Path
) -> None:
    """file-72 to 75 names that are no UTF-8, hold a line break, look like a path or a command."""
    path = os.fsencode(tmp_path) + b"/" + name
    with open(path, "w") as file:  # noqa: PTH123  a name in bytes
        file.write(good.xyz)
    result = CliRunner().invoke(verdi, ["data", "alpot.pes", "import", "--no-review", os.fsdecode(path)])
    assert "Traceback" not in result.output
    if result.exit_code == 0:
        assert "stored 3 frames (3 labelled)" in result.output
    else:
        assert isinstance(result.exception, SystemExit), result.exception
        assert "rename" in result.output


def test_the_name_of_an_imported_file_never_becomes_a_path(good: SimpleNamespace, tmp_path: Path) -> None:
    """file-76 a node whose file is called /…/escaped.xyz."""
    target = tmp_path / "escaped.xyz"
    with pytest.raises((TypeError, ValueError, ValidationError), match="escaped"):
        import_frames(orm.SinglefileData(io.BytesIO(good.xyz.encode()), filename=str(target)))
    assert not target.exists()


def test_an_import_that_is_refused_leaves_no_process_behind(plant: Any) -> None:
    """file-77 a bad file is found before the process that would import it."""
    before = orm.QueryBuilder().append(orm.ProcessNode).count()
    CliRunner().invoke(verdi, ["data", "alpot.pes", "import", str(plant("bad.xyz", "1\n\n"))])
    assert orm.QueryBuilder().append(orm.ProcessNode).count() == before


@pytest.mark.parametrize("format_name", ["extxy", "../xyz", "hdf5"])
def test_a_wrong_format_is_refused(format_name: str, good: SimpleNamespace, plant: Any, says: Any) -> None:
    """file-78 to 80 formats that do not exist or are not that of the file."""
    path = plant("good.xyz", good.xyz)
    result = CliRunner().invoke(verdi, ["data", "alpot.pes", "import", str(path), "--format", format_name])
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    says(result.output, ["good.xyz"])


def test_a_dataset_is_not_half_written_when_a_frame_is_refused(
    good: SimpleNamespace, tmp_path: Path, refused: Any
) -> None:
    """file-81 the last frame of a stream is bad."""
    bad = good.frames()
    bad[-1].positions[0] = np.nan
    bad[-1].calc = None
    refused(lambda: write(tmp_path / "out.h5", bad), ["frame 2"])
    assert not list(tmp_path.iterdir())


def test_compressed_extended_xyz_is_read_as_it_is(good: SimpleNamespace, plant: Any) -> None:
    for name, compress in {"a.xyz.gz": gzip.compress, "a.extxyz.bz2": bz2.compress, "a.xyz.xz": lzma.compress}.items():
        assert [len(atoms) for atoms in read_frames(plant(name, compress(good.xyz.encode())))] == [4, 4, 4], name


def test_a_name_with_an_at_sign_is_no_other_file(good: SimpleNamespace, plant: Any, refused: Any) -> None:
    """file-102 x.xyz@0 beside x.xyz, and an ending that is one."""
    plant("x.xyz", good.xyz)
    refused(lambda: read_frames(plant("x.xyz@0", good.xyz)), ["x.xyz@0", "no known format", "name one"])
    result = CliRunner().invoke(verdi, ["data", "alpot.pes", "import", str(plant("x.xyz@0", good.xyz))])
    assert isinstance(result.exception, SystemExit), result.exception
    assert "no known format" in result.output
    assert len(read_frames(plant("x.xyz@0", good.xyz), "extxyz")) == 3
    assert len(read_frames(plant("y@1.xyz", good.xyz))) == 3


def test_a_file_called_minus_is_not_the_standard_input(
    good: SimpleNamespace, plant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """file-103 a file of one sign."""
    monkeypatch.chdir(plant("-", good.xyz).parent)
    assert len(read_frames("-")) == 3


def test_results_of_a_potential_beside_complete_labels_are_left_out(plant: Any) -> None:
    columns = "Properties=species:S:1:pos:R:3:REF_forces:R:3:forces:R:3"
    comment = f'{CELL} {columns} REF_energy=1 energy=2 stress="1 0 0 0 1 0 0 0 1"'
    (atoms,) = read_frames(plant("both.xyz", f"1\n{comment}\nCu 0 0 0 1 0 0 2 0 0\n"))
    assert (atoms.get_potential_energy(), atoms.get_forces().tolist()) == (1.0, [[1, 0, 0]])
    assert set(atoms.calc.results) == {"energy", "forces"}
