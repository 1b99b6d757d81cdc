"""A clone, an imported archive and a packed repository read like the node they come from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.manage import get_manager
from aiida.tools import delete_nodes
from aiida.tools.archive import create_archive, import_archive

from aiida_alpot.data import trust
from aiida_alpot.data.pes import PESData
from aiida_alpot.data.potential import PotentialData, validate_potentials
from aiida_alpot.data.uncertainty import UncertaintyData
from aiida_alpot.kernel.uncertainty import Calibration, UncertaintyModel

pytestmark = pytest.mark.usefixtures("aiida_profile")

KINDS = ("dataset", "potential", "uncertainty")


@pytest.fixture
def make(tmp_path: Path, make_copper: Callable[..., Any], label_emt: Callable[..., Any]) -> Callable[[str], orm.Data]:
    """Return a function that stores a node of a kind that no other test has."""

    def make_node(kind: str) -> orm.Data:
        model_file = tmp_path / "m.model"
        model_file.write_bytes(f"weights {tmp_path}".encode())
        potential = PotentialData.from_file(model_file, engine="mace", symbols=["Cu"], cutoff=5.0, seed=3)
        d = np.linspace(0.01, 0.1, 20)
        uncertainty = UncertaintyModel(
            calibrations={"force": Calibration.fit(d, 2 * d, "median_ratio", tolerance=0.1)},
            tolerances={"force": 0.1},
            model_hashes=(potential.sha256,),
            points={"force": (d, 2 * d)},
        )
        uncertainty.save(tmp_path / "bars.h5")
        nodes = {
            "dataset": PESData.from_frames(label_emt(make_copper(3, seed=41)), split=["train", "test", "calibration"]),
            "potential": potential,
            "uncertainty": UncertaintyData.from_hdf5(tmp_path / "bars.h5"),
        }
        return nodes[kind].store()

    return make_node


def read(node: Any) -> dict[str, Any]:
    """Return everything a node says, its hash and what its file holds included."""
    attributes = {key: value for key, value in node.base.attributes.all.items() if not key.startswith("_")}
    return {**attributes, "hash": node.base.caching.compute_hash(), "content": _read_content(node)}


def _read_content(node: Any) -> Any:
    if isinstance(node, PESData):
        with node.dataset() as dataset:
            dataset.verify()
        return [[atoms.positions.tolist(), atoms.get_forces().tolist(), atoms.info["split"]] for atoms in node]
    if isinstance(node, UncertaintyData):
        points = node.model().points
        return node.model().thresholds, {name: [p.tolist() for p in pair] for name, pair in points.items()}
    return node.base.repository.get_object_content(node.FILENAME, "rb")


@pytest.mark.parametrize("kind", KINDS)
def test_a_clone_reads_the_same(make: Callable[[str], orm.Data], kind: str) -> None:
    node = make(kind)
    clone = node.clone().store()
    assert clone.uuid != node.uuid
    assert read(clone) == read(node)


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_repository_reads_the_same(make: Callable[[str], orm.Data], kind: str) -> None:
    node = make(kind)
    before = read(node)
    storage = get_manager().get_profile_storage()
    storage.maintain(full=True)
    assert storage.get_repository().get_info()["Objects"]["loose"] == 0
    assert read(orm.load_node(node.uuid)) == before


@pytest.fixture
def send(tmp_path: Path) -> Callable[[orm.Data], Any]:
    """Return a function that exports a node, deletes it and imports it again."""

    def export_and_import(node: orm.Data) -> Any:
        uuid = node.uuid
        path = create_archive([node], filename=tmp_path / "archive.aiida")
        delete_nodes([node.pk], dry_run=False)
        import_archive(path, create_group=False)
        return orm.load_node(uuid)

    return export_and_import


@pytest.mark.parametrize("kind", KINDS)
def test_an_imported_archive_reads_the_same(
    make: Callable[[str], orm.Data], send: Callable[[orm.Data], Any], kind: str
) -> None:
    node = make(kind)
    before = read(node)
    assert read(send(node)) == before


def test_an_imported_potential_is_refused_on_a_machine_that_does_not_trust_it(
    make: Callable[[str], orm.Data], send: Callable[[orm.Data], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    node = make("potential")
    monkeypatch.setattr(trust, "_folder", lambda: tmp_path / "another-machine")
    imported = send(node)
    assert not imported.is_trusted
    assert f"verdi data alpot.potential trust {imported.uuid}" in str(validate_potentials({"m000": imported}))
    imported.trust()
    assert validate_potentials({"m000": imported}) is None
