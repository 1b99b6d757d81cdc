"""The kernel as an input: the same content is one node, and it is what runs."""

import io
from typing import Any

import pytest
from aiida import orm
from aiida.engine import run_get_node
from aiida.manage.caching import enable_caching

from aiida_alpot.calculations.augment import AugmentCalculation
from aiida_alpot.calculations.kernel import get_kernel
from aiida_alpot.kernel import archive
from aiida_alpot.kernel.archive import archive_sha256

pytestmark = pytest.mark.usefixtures("aiida_profile")


def test_the_same_kernel_is_stored_once() -> None:
    assert get_kernel().uuid == get_kernel().uuid


def test_an_edited_kernel_is_another_node(monkeypatch: pytest.MonkeyPatch) -> None:
    before = get_kernel()
    original = archive._read
    monkeypatch.setattr(archive, "_read", lambda path: original(path) + b"\n# edited\n")
    edited = get_kernel()
    assert edited.uuid != before.uuid
    assert edited.base.caching.compute_hash() != before.base.caching.compute_hash()
    monkeypatch.undo()
    assert get_kernel().uuid == before.uuid
    assert before.base.attributes.get("sha256") == archive_sha256(before.get_content("rb"))


def test_a_job_runs_and_attaches_its_outputs(python_code: Any, copper: Any, fast_options: dict[str, Any]) -> None:
    outputs, node = run_get_node(
        AugmentCalculation,
        code=python_code,
        frames=copper,
        settings=orm.Dict({"copies": 2, "rattle": {}}),
        seed=orm.Int(1),
        metadata={"options": fast_options},
    )
    assert node.is_finished_ok, node.exit_message
    assert outputs["frames"].n_frames == 12
    assert outputs["report"]["status"] == "ok"


def test_an_edited_kernel_runs_a_job_again_and_a_reverted_one_takes_it_from_the_cache(
    python_code: Any, copper: Any, fast_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> orm.CalcJobNode:
        settings, seed = orm.Dict({"copies": 1, "rattle": {}}), orm.Int(2)
        inputs = {"code": python_code, "frames": copper, "settings": settings, "seed": seed}
        return run_get_node(AugmentCalculation, **inputs, metadata={"options": fast_options})[1]

    original = archive._read
    with enable_caching():
        first = run()
        monkeypatch.setattr(archive, "_read", lambda path: original(path) + b"\n# edited\n")
        edited = run()
        monkeypatch.undo()
        reverted = run()
    assert first.is_finished_ok, first.exit_message
    assert edited.is_finished_ok, edited.exit_message
    assert edited.base.caching.compute_hash() != first.base.caching.compute_hash()
    assert not edited.base.caching.is_created_from_cache
    assert edited.inputs.kernel.uuid != first.inputs.kernel.uuid
    assert reverted.base.caching.get_cache_source() == first.uuid
    assert reverted.inputs.kernel.uuid == first.inputs.kernel.uuid


def test_a_node_that_claims_the_hash_of_the_kernel_is_not_taken_for_it() -> None:
    forged = orm.SinglefileData(io.BytesIO(b"print('evil')"), filename="alpot-kernel.pyz")
    forged.base.attributes.set("sha256", get_kernel().base.attributes.get("sha256"))
    forged.store()
    assert get_kernel().uuid != forged.uuid
