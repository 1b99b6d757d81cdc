"""PotentialData: what is checked, and which model files jobs may load."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from aiida.common.exceptions import ValidationError

from aiida_alpot.data import trust
from aiida_alpot.data.potential import PotentialData, validate_members, validate_potentials, validate_species

pytestmark = pytest.mark.usefixtures("aiida_profile")


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """A file that stands for a model; it is never loaded here."""
    path = tmp_path / "model.pt"
    path.write_bytes(b"weights " + str(tmp_path).encode())
    return path


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], None]:
    """Act as another machine, on which no model file is trusted yet."""

    def use_empty_folder() -> None:
        monkeypatch.setattr(trust, "_folder", lambda: tmp_path / "trusted")

    return use_empty_folder


def make(path: Path, **changes: Any) -> PotentialData:
    return PotentialData.from_file(path, **{"engine": "mace", "symbols": ["Cu"], **changes})


def hash_of(node: PotentialData) -> str:
    return str((node if node.is_stored else node.store()).base.caching.compute_hash())


def test_a_stored_potential_says_what_it_is(model_file: Path) -> None:
    node = make(model_file, symbols=["Au", "Cu"], cutoff=5, seed=7, dtype="float32").store()
    node = orm.load_node(node.uuid)
    assert (node.engine, node.symbols, node.cutoff, node.seed, node.dtype) == ("mace", ["Cu", "Au"], 5.0, 7, "float32")
    assert node.sha256 == hashlib.sha256(model_file.read_bytes()).hexdigest()


def test_cutoff_and_seed_may_be_unknown(model_file: Path) -> None:
    node = make(model_file).store()
    assert node.cutoff is None
    assert node.seed is None


def test_the_exported_file_is_the_one_that_came_in(model_file: Path, tmp_path: Path) -> None:
    make(model_file).store().export(tmp_path / "out.model")
    assert (tmp_path / "out.model").read_bytes() == model_file.read_bytes()


def test_a_missing_or_empty_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty.model").touch()
    for name in ("empty.model", "absent.model"):
        with pytest.raises(ValueError, match=f"{name} is missing or empty"):
            make(tmp_path / name)


def test_an_unknown_engine_is_refused_with_the_known_ones(model_file: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown engine 'mase'; known: .*mace"):
        make(model_file, engine="mase")


@pytest.mark.parametrize("symbols", [[], ["Cu", "Xy"]])
def test_symbols_that_are_none_are_refused(model_file: Path, symbols: list[str]) -> None:
    with pytest.raises(ValueError, match="symbols: expected chemical symbols, got"):
        make(model_file, symbols=symbols)


def test_an_unknown_precision_is_refused(model_file: Path) -> None:
    with pytest.raises(ValueError, match="dtype: expected 'float32' or 'float64', got 'half'"):
        make(model_file, dtype="half")


def test_a_node_without_file_cannot_be_stored() -> None:
    with pytest.raises(ValidationError, match=r"needs its file potential\.model; make it with from_file"):
        PotentialData().store()


def test_the_hash_is_that_of_file_engine_and_precision(model_file: Path) -> None:
    reference = hash_of(make(model_file, seed=1))
    assert hash_of(make(model_file, seed=2)) == reference
    assert hash_of(make(model_file, dtype="float32")) != reference
    assert hash_of(make(model_file, engine="ase")) != reference
    model_file.write_bytes(b"other weights")
    assert hash_of(make(model_file)) != reference


def test_a_potential_from_a_file_is_trusted(model_file: Path) -> None:
    node = make(model_file).store()
    assert node.is_trusted
    assert validate_potentials({"m0": node}) is None


def test_a_potential_from_elsewhere_is_refused_until_trusted(model_file: Path, forget: Callable[[], None]) -> None:
    node = make(model_file).store()
    forget()
    assert not node.is_trusted
    message = validate_potentials({"m0": node})
    assert message is not None
    assert message.startswith("potentials.m0: the model file of")
    assert f"verdi data alpot.potential trust {node.uuid}" in message
    node.trust()
    assert validate_potentials({"m0": node}) is None


def test_trust_is_in_the_file_and_not_in_the_node(model_file: Path, forget: Callable[[], None]) -> None:
    forget()
    node = make(model_file).store()
    model_file.write_bytes(b"something else")
    assert node.is_trusted
    assert not trust.is_trusted(hashlib.sha256(b"something else").hexdigest())


def test_no_potential_at_all_is_refused() -> None:
    assert validate_potentials({}) == "potentials: at least one potential is needed"


def test_engine_and_symbols_are_queryable(model_file: Path) -> None:
    node = make(model_file).store()
    query = orm.QueryBuilder().append(
        PotentialData,
        filters={PotentialData.fields.sha256: node.sha256},
        project=[PotentialData.fields.engine, PotentialData.fields.symbols],
    )
    assert query.all() == [["mace", ["Cu"]]]


def test_a_node_serialises_with_unknown_fields_as_none(model_file: Path) -> None:
    attributes = make(model_file).store().serialize()["attributes"]
    assert attributes["cutoff"] is None
    assert attributes["engine"] == "mace"


def test_a_node_that_claims_a_trusted_hash_is_not_trusted_with_another_content(
    model_file: Path, tmp_path: Path
) -> None:
    trusted = make(model_file)
    forged = PotentialData()
    (tmp_path / "evil.model").write_bytes(b"something else")
    forged.base.repository.put_object_from_file(str(tmp_path / "evil.model"), PotentialData.FILENAME)
    forged.base.attributes.set_many(trusted.base.attributes.all)
    assert trusted.is_trusted
    assert not forged.is_trusted
    assert "runs code" in str(validate_potentials({"m000": forged.store()}))


def test_clones_and_a_committee_of_one_are_refused(model_file: Path) -> None:
    member = make(model_file)
    assert "at least 2 members" in str(validate_members({"m000": member}))
    assert "m000 and m001 are the same model" in str(validate_members({"m000": member, "m001": member}))


def test_species_that_a_member_does_not_know_are_named(model_file: Path) -> None:
    member = make(model_file)
    assert validate_species({"m000": member}, ["Cu"], "dataset") is None
    assert validate_species({"m000": member}, ["Cu", "Al"], "dataset") == "dataset: Al unknown to the potential m000"
