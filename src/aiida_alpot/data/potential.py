"""PotentialData: one trained potential."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any, ClassVar

from aiida import orm
from aiida.common.exceptions import ValidationError
from aiida.orm.nodes.caching import NodeCaching
from aiida.orm.pydantic import OrmMetadataField
from ase.data import atomic_numbers

from aiida_alpot.data.trust import is_trusted, trust_model
from aiida_alpot.plugins import known_engines


class PotentialCaching(NodeCaching):
    """Hash a potential by its file and how it is to be evaluated."""

    def get_objects_to_hash(self) -> dict[str, Any]:
        """Return engine, precision and the sha256 of the model file."""
        attributes = self._node.base.attributes
        return {"class": "alpot.potential", **{key: attributes.get(key) for key in ("engine", "dtype", "sha256")}}


class PotentialData(orm.Data):
    """The file of one trained potential with what must be known without loading it.

    The file is never loaded in the daemon, only by jobs, and only if its hash is trusted
    (:mod:`aiida_alpot.data.trust`).
    """

    FILENAME: ClassVar[str] = "potential.model"
    _CLS_NODE_CACHING = PotentialCaching

    class AttributesModel(orm.Data.AttributesModel):
        """What can be queried without opening the file."""

        engine: str = OrmMetadataField(description="Family of the potential, e.g. mace", read_only=True)
        symbols: list[str] = OrmMetadataField(description="Chemical symbols the potential knows", read_only=True)
        cutoff: float | None = OrmMetadataField(description="Cut-off radius in Å", read_only=True)
        seed: int | None = OrmMetadataField(description="Seed of the training", read_only=True)
        dtype: str = OrmMetadataField(description="Precision, float32 or float64", read_only=True)
        sha256: str = OrmMetadataField(description="sha256 of the model file", read_only=True)

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        engine: str,
        symbols: list[str],
        cutoff: float | None = None,
        seed: int | None = None,
        dtype: str = "float64",
    ) -> PotentialData:
        """Return an unstored node with the model file at *path*, which is thereby trusted.

        :param engine: name in the entry-point group ``aiida_alpot.potentials``.
        :param symbols: chemical symbols the potential knows.
        :param cutoff: cut-off radius, Å.
        :raises ValueError: if the file is missing or empty, or the engine, a symbol, the cut-off or the
            precision is not known.
        """
        path = Path(path)
        if not path.is_file() or path.stat().st_size == 0:
            raise ValueError(f"the model file {path} is missing or empty")
        if engine not in known_engines("potentials"):
            raise ValueError(f"unknown engine {engine!r}; known: {', '.join(known_engines('potentials'))}")
        unknown = [symbol for symbol in symbols if symbol not in atomic_numbers]
        if unknown or not symbols:
            raise ValueError(f"symbols: expected chemical symbols, got {symbols}")
        if cutoff is not None and not 0 < cutoff < math.inf:
            raise ValueError(f"cutoff: expected a positive number of Å, got {cutoff}")
        if dtype not in ("float32", "float64"):
            raise ValueError(f"dtype: expected 'float32' or 'float64', got {dtype!r}")
        node = cls()
        node.base.repository.put_object_from_file(str(path), cls.FILENAME)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        node.base.attributes.set_many(
            {
                "engine": engine,
                "symbols": sorted(symbols, key=atomic_numbers.__getitem__),
                "cutoff": cutoff,
                "seed": seed,
                "dtype": dtype,
                "sha256": sha256,
            }
        )
        trust_model(sha256)
        return node

    @property
    def engine(self) -> str:
        """Family of the potential, a name of the group ``aiida_alpot.potentials``."""
        return str(self.base.attributes.get("engine"))

    @property
    def symbols(self) -> list[str]:
        """Chemical symbols the potential knows, by atomic number."""
        return list(self.base.attributes.get("symbols"))

    @property
    def cutoff(self) -> float | None:
        """Cut-off radius, Å."""
        value = self.base.attributes.get("cutoff")
        return None if value is None else float(value)

    @property
    def seed(self) -> int | None:
        """Seed of the training."""
        value = self.base.attributes.get("seed")
        return None if value is None else int(value)

    @property
    def dtype(self) -> str:
        """Precision, ``float32`` or ``float64``."""
        return str(self.base.attributes.get("dtype"))

    @property
    def sha256(self) -> str:
        """Hash of the model file."""
        return str(self.base.attributes.get("sha256"))

    @property
    def is_trusted(self) -> bool:
        """Whether jobs may load the file: its content is looked at, not what the node says of it."""
        return is_trusted(self._compute_sha256())

    def trust(self) -> None:
        """Allow jobs to load the file: only for one whose origin you know, since loading runs code in it."""
        trust_model(self._compute_sha256())

    def export(self, path: str | Path) -> None:  # type: ignore[override]
        """Copy the model file to *path*."""
        Path(path).write_bytes(self.base.repository.get_object_content(self.FILENAME, mode="rb"))

    def _compute_sha256(self) -> str:
        return hashlib.sha256(self.base.repository.get_object_content(self.FILENAME, mode="rb")).hexdigest()

    def _validate(self) -> bool:
        super()._validate()
        if self.FILENAME not in self.base.repository.list_object_names():
            raise ValidationError(f"a PotentialData needs its file {self.FILENAME}; make it with from_file")
        return True


def validate_members(potentials: Any) -> str | None:
    """Return what is wrong with a committee, or None: fewer than two members, clones, or models of unknown origin."""
    problem = validate_potentials(potentials)
    if problem is not None:
        return problem
    if len(potentials) < 2:
        return "potentials: a committee needs at least 2 members to disagree, got 1"
    seen: dict[str, str] = {}
    for name, potential in sorted(potentials.items()):
        if potential.sha256 in seen:
            return f"potentials: {seen[potential.sha256]} and {name} are the same model; clones never disagree"
        seen[potential.sha256] = name
    return None


def validate_species(potentials: Any, symbols: Any, where: str) -> str | None:
    """Return which species of *symbols* a potential does not know, naming the input *where* they come from."""
    for name, potential in sorted((potentials or {}).items()):
        unknown = sorted(set(symbols) - set(potential.symbols))
        if unknown:
            return f"{where}: {', '.join(unknown)} unknown to the potential {name}"
    return None


def validate_potentials(potentials: Any) -> str | None:
    """Return what is wrong with a namespace of potentials, or None: none at all, or one that is not trusted."""
    if not potentials:
        return "potentials: at least one potential is needed"
    for name, potential in potentials.items():
        if not potential.is_trusted:
            return (
                f"potentials.{name}: the model file of {potential.uuid} did not come from this machine and loading it "
                f"runs code; if you know its origin: verdi data alpot.potential trust {potential.uuid}"
            )
    return None
