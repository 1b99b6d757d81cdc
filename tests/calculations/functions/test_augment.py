"""Augmentation without a job, and structures as frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from aiida import orm
from ase import Atoms
from ase.build import bulk, fcc111

from aiida_alpot.calculations.functions import augment as module
from aiida_alpot.calculations.functions.augment import augment_frames, collect_structures
from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.dataset import write
from aiida_alpot.kernel.tasks import augment as task
from aiida_alpot.workflows.augment import validate_start

Make = Callable[..., list[Atoms]]
SETTINGS = {"copies": 3, "rattle": {}}
pytestmark = pytest.mark.usefixtures("aiida_profile")


def run(frames: PESData, settings: dict[str, Any], seed: int = 1) -> dict[str, Any]:
    return augment_frames(frames, orm.Dict(settings), orm.Int(seed))


def test_the_frames_are_those_that_a_job_makes(make_copper: Make, tmp_path: Any) -> None:
    frames = make_copper(2)
    outputs = run(PESData.from_frames(frames).store(), SETTINGS)
    write(tmp_path / "frames.h5", frames)
    report = task.run({"frames": "frames.h5", "settings": SETTINGS, "seed": 1}, tmp_path)
    assert outputs["frames"].content_hash == PESData.from_hdf5(tmp_path / task.OUTPUT).content_hash
    assert outputs["report"].get_dict() == {key: value for key, value in report.items() if key != "n_frames"}


def test_the_summary_counts_by_kind_and_reason(make_copper: Make) -> None:
    settings = {**SETTINGS, "vacancy": {"fraction": 1.0}, "filters": {"max_atoms": 3}}
    report = run(PESData.from_frames(make_copper(2)).store(), settings)["report"]
    assert report["n_input"] == 2
    assert report["made"] == {"rattle+vacancy": 6}
    assert report["removed"] == {"max_atoms": {"too_many_atoms": 8}}


def test_more_frames_than_fit_into_a_process_are_refused_with_the_remedy(
    make_copper: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FRAMES", 7)
    with pytest.raises(ValueError, match="more than 7 frames; run them as a job, with AugmentWorkChain and a code"):
        run(PESData.from_frames(make_copper(2)).store(), SETTINGS)
    monkeypatch.setattr(module, "MAX_FRAMES", 8)
    assert len(run(PESData.from_frames(make_copper(2)).store(), SETTINGS)["frames"]) == 8


def test_wrong_settings_and_an_empty_result_are_refused(make_copper: Make) -> None:
    frames = PESData.from_frames(make_copper(1)).store()
    with pytest.raises(ValueError, match=r"augment\.settings: unknown key 'ratle'; did you mean 'rattle'"):
        run(frames, {"ratle": {}})
    with pytest.raises(ValueError, match="no frame is left of 1"):
        run(frames, {"filters": {"max_atoms": 1}})


def test_swaps_are_refused_with_the_way_to_run_them(make_copper: Make) -> None:
    with pytest.raises(ValueError, match="got none; run it as a job with 'potentials', with AugmentWorkChain"):
        run(PESData.from_frames(make_copper(1)).store(), {"swap": {}})


def test_structures_become_frames_in_the_order_of_their_names() -> None:
    given = {"b_bulk": bulk("NaCl", "rocksalt", a=5.6), "a_slab": fcc111("Al", (1, 1, 3), vacuum=6.0)}
    frames = collect_structures(**{name: orm.StructureData(ase=atoms) for name, atoms in given.items()})
    for found, name in zip(frames, ("a_slab", "b_bulk"), strict=True):
        assert found.get_chemical_symbols() == given[name].get_chemical_symbols()
        assert found.positions == pytest.approx(given[name].positions)
        assert found.cell.array == pytest.approx(given[name].cell.array)
        assert (found.pbc == given[name].pbc).all()
    assert len(run(frames, SETTINGS)["frames"]) == 8


def test_structures_with_hubbard_parameters_are_refused_with_the_remedy() -> None:
    hubbard = pytest.importorskip("aiida_quantumespresso.data.hubbard_structure")
    plain = orm.StructureData(ase=bulk("NiO", "rocksalt", a=4.2))
    corrected = hubbard.HubbardStructureData.from_structure(plain)
    assert len(collect_structures(oxide=corrected)) == 1  # no parameters yet
    corrected = hubbard.HubbardStructureData.from_structure(plain)
    corrected.initialize_onsites_hubbard("Ni", "3d", 4.0)
    with pytest.raises(ValueError, match=r"structures\.oxide: it has Hubbard .* label\.parameters\.hubbard = "):
        collect_structures(oxide=corrected)
    problem = validate_start({"structures": {"a": plain, "oxide": corrected}}, None)
    assert problem is not None
    assert "structures.oxide" in problem
    assert validate_start({"structures": {"a": plain}}, None) is None
