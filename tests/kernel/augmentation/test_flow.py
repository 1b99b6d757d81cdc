"""The flow: what acts on what, in which order, and what a frame tells of it."""

import itertools
import json
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from aiida_alpot.kernel.augmentation import (
    DroppedFrameError,
    Manipulation,
    NotApplicableError,
    RattleSettings,
    Report,
    Step,
    SupercellSettings,
    augment,
    bases,
    chain,
    draft,
    registry,
    stream_augmented,
)
from aiida_alpot.kernel.augmentation.rattle import rattle, rattle_copies
from aiida_alpot.kernel.augmentation.strain import StrainSettings, strain, strain_copies
from aiida_alpot.kernel.augmentation.supercell import make_supercell


@dataclass(frozen=True)
class Some:
    fraction: float = 1.0


def make_crystals(elements, settings, rng):
    for symbol in elements:
        atoms = bulk(symbol, "sc", a=2.5 + rng.random())
        yield Step(atoms, f"crystal {symbol}", {"made_of": symbol})


def make_dimers(atoms, settings, rng):
    for distance in (1.0, 1.5, 2.0):
        yield Step(Atoms("H2", [[0, 0, 0], [0, 0, distance]]), "dimer H-H", {"distance": distance})


def make_slab(atoms, settings, rng):
    if not atoms.pbc.all():
        raise NotApplicableError("not_bulk")
    slab = atoms * (1, 1, 2)
    slab.pbc = (True, True, False)
    yield Step(slab, "slab 001")
    yield DroppedFrameError("too_many_atoms")


def replace_one(atoms, settings, rng):
    changed = atoms.copy()
    changed.numbers[rng.integers(len(atoms))] = 79
    return Step(changed, "alloy", {"n": 1})


def add_one(atoms, settings, rng):
    if not atoms.pbc.any():
        raise NotApplicableError("no_periodic_axis")
    return Step(atoms + Atoms("He", [rng.random(3)]), "interstitial")


ALL = {
    "crystal": Manipulation(Some, make_crystals, "source"),
    "slab": Manipulation(Some, make_slab, "shape"),
    "scan": Manipulation(Some, make_dimers, "shape", is_final=True),
    "supercell": Manipulation(SupercellSettings, make_supercell, "cell"),
    "alloy": Manipulation(Some, replace_one, "chain"),
    "strain": Manipulation(StrainSettings, strain, "chain", many=strain_copies),
    "rattle": Manipulation(RattleSettings, rattle, "chain", many=rattle_copies),
    "interstitial": Manipulation(Some, add_one, "defect"),
}


@pytest.fixture
def flow(monkeypatch):
    """Return a function that augments with manipulations made up for these tests."""
    for module in (registry, draft, bases, chain):
        monkeypatch.setattr(module, "MANIPULATIONS", ALL)

    def run(frames, **given):
        plain = {"keep_input": True, "copies": 2, "combined": True, "filters": None}
        report = Report()
        settings = SimpleNamespace(**{**dict.fromkeys(ALL), **plain, **given})
        return list(stream_augmented(frames, settings, 1, report)), report.to_dict()

    return run


def origins(frames):
    return [atoms.info["origin"] for atoms in frames]


def test_bases_are_inputs_then_their_shapes_and_sources_at_the_end(flow):
    frames, _ = flow([bulk("Cu"), bulk("Al")], copies=0, crystal=Some(), slab=Some(), scan=Some())
    expected = [
        *("input 0", "input 0 > slab 001", *["input 0 > dimer H-H"] * 3),
        *("input 1", "input 1 > slab 001"),
        *("crystal Al", "crystal Cu"),
    ]
    assert origins(frames) == expected  # the dimers of the second input are those of the first
    assert [atoms.info["parent_index"] for atoms in frames] == [0, 0, 0, 0, 0, 1, 1, -1, -1]
    assert [bool(atoms.info.get("parent_id")) for atoms in frames] == [True] * 7 + [False] * 2


def test_every_base_but_those_of_a_scan_has_copies_and_each_copy_its_defects(flow):
    frames, report = flow([bulk("Cu") * 2], slab=Some(), scan=Some(), rattle=RattleSettings(), interstitial=Some())
    copies = ["rattle", "rattle > interstitial"] * 2
    expected = [
        *("input 0", *[f"input 0 > {name}" for name in copies]),
        *("input 0 > slab 001", *[f"input 0 > slab 001 > {name}" for name in copies]),
        *["input 0 > dimer H-H"] * 3,
    ]
    assert origins(frames) == expected
    assert report["made"]["slab+rattle+interstitial"] == 2


def test_points_of_a_scan_are_one_group_and_everything_else_its_own(flow):
    frames, _ = flow([bulk("Cu")], copies=0, scan=Some(), slab=Some())
    groups = [atoms.info["group"] for atoms in frames]
    assert len(set(groups)) == 3
    assert len(set(groups[2:])) == 1


def test_reasons_of_shapes_are_counted_whether_raised_or_yielded(flow):
    _, report = flow([bulk("Cu"), molecule("H2O")], copies=0, slab=Some())
    assert report["skipped"] == {"slab": {"not_bulk": 1}}
    assert report["dropped"] == {"slab": {"too_many_atoms": 1}}


def test_inputs_and_sources_are_repeated_and_slabs_are_not(flow):
    size = SupercellSettings(min_length=5.0)
    frames, report = flow([bulk("Cu"), molecule("H2O")], copies=0, slab=Some(), crystal=Some(), supercell=size)
    repeated = [origin for origin in origins(frames) if "supercell" in origin]
    assert [origin.partition(" > supercell")[0] for origin in repeated] == [
        "input 0",
        *(f"crystal {symbol}" for symbol in ("H", "O", "Cu")),
    ]
    assert report["skipped"]["supercell"] == {"no_periodic_axis": 1, "not_repeated": 1}  # the molecule, the slab


def test_species_are_placed_before_strain_and_rattle_of_each_set_of_copies(flow):
    on = {"alloy": Some(), "strain": StrainSettings(), "rattle": RattleSettings()}
    frames, _ = flow([bulk("Cu") * 2], keep_input=False, copies=1, **on)
    assert origins(frames) == ["input 0 > alloy > strain > rattle"]
    frames, _ = flow([bulk("Cu") * 2], keep_input=False, copies=1, combined=False, **on)
    assert origins(frames) == ["input 0 > alloy > strain", "input 0 > alloy > rattle"]
    frames, _ = flow([bulk("Cu") * 2], keep_input=False, copies=1, alloy=Some())
    assert origins(frames) == ["input 0 > alloy"]


def test_copies_with_other_species_are_strained_as_if_alone(flow):
    frames, _ = flow([bulk("Cu") * 2], keep_input=False, copies=4, alloy=Some(), rattle=RattleSettings())
    plain, _ = flow([bulk("Cu") * 2], keep_input=False, copies=4, rattle=RattleSettings(min_ratio=0.0))
    assert all(79 in atoms.numbers for atoms in frames)
    for one, other in zip(frames, plain, strict=True):
        assert one.positions == pytest.approx(other.positions)  # nothing came close, so the draws are the same


def test_parameters_tell_what_each_manipulation_used(flow):
    on = {"strain": StrainSettings(), "rattle": RattleSettings(), "alloy": Some()}
    frames, _ = flow([bulk("Cu") * 2], copies=1, **on)
    assert "parameters" not in frames[0].info
    used = json.loads(frames[1].info["parameters"])
    assert list(used) == ["alloy", "strain", "rattle"]
    assert used["alloy"] == {"n": 1}
    assert np.shape(used["strain"]["strain"]) == (6,)
    assert used["rattle"]["scale"] > 0.0


def test_parameters_of_a_strain_are_those_that_lead_from_the_base_to_the_copy():
    atoms = bulk("Cu") * 2
    frame = augment([atoms], {"copies": 1, "keep_input": False, "strain": {}}, 3).frames[0]
    xx, yy, zz, yz, xz, xy = json.loads(frame.info["parameters"])["strain"]["strain"]
    stretch = np.eye(3) + np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    assert atoms.cell.array @ stretch == pytest.approx(frame.cell.array, abs=1e-6)


@pytest.mark.parametrize(("fraction", "expected"), [(0.3, 6), (0.5, 10), (1.0, 20), (0.0, 0), (0.04, 1)])
def test_the_share_with_defects_is_exact_and_molecules_take_no_part(flow, fraction, expected):
    frames = [bulk("Cu") * 2, molecule("H2O"), bulk("Al") * 2]
    on = {"rattle": RattleSettings(), "interstitial": Some(fraction)}
    _, report = flow(frames, copies=10, **on)
    made = sum(count for kind, count in report["made"].items() if kind.endswith("interstitial"))
    assert made == expected


def test_a_base_without_copies_has_the_defects_itself(flow):
    frames, _ = flow([bulk("Cu")], copies=0, interstitial=Some())
    assert origins(frames) == ["input 0", "input 0 > interstitial"]
    assert frames[0].info["group"] == frames[1].info["group"]


def test_frames_are_made_when_they_are_asked_for(flow, monkeypatch):
    def endless(elements, settings, rng):
        for n in itertools.count():
            yield Step(Atoms("H2", [[0, 0, 0], [0, 0, 1 + n]]), f"isolated {n}")

    monkeypatch.setitem(ALL, "endless", Manipulation(Some, endless, "source", is_final=True))
    settings = SimpleNamespace(**dict.fromkeys(ALL), keep_input=True, copies=0, combined=True, filters=None)
    settings.endless = Some()
    made = stream_augmented([bulk("Cu")], settings, 1, Report())
    assert origins(itertools.islice(made, 3)) == ["input 0", "isolated 0", "isolated 1"]


def test_frames_share_no_memory_with_each_other_or_the_inputs():
    atoms = bulk("Cu") * 2
    atoms.info["tags_of_mine"] = np.array([1.0, 2.0])
    frames = augment([atoms], {"copies": 3, "strain": {}, "vacancy": {"fraction": 1.0}}, 0).frames
    for one, other in itertools.combinations([atoms, *frames], 2):
        assert not np.shares_memory(one.positions, other.positions)
        assert not np.shares_memory(one.info["tags_of_mine"], other.info["tags_of_mine"])
