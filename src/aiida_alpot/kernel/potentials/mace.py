"""Adapter for MACE models (``mace-torch``), batched; the members of a committee share the neighbour graphs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path
from typing import Any, cast

import numpy as np
from ase import Atoms

from aiida_alpot.kernel._extras import require
from aiida_alpot.kernel.potentials.base import (
    BATCH_SIZE,
    Features,
    Potential,
    Predictions,
    check_species,
    concatenate,
    concatenate_features,
    has_stress,
    offsets_of,
)
from aiida_alpot.kernel.units import FloatArray


class MacePotential(Potential):
    """A MACE model written by ``mace_run_train`` (``NAME.model``) or a MACE foundation model.

    :param path: the model file. It is a pickle: loading one runs code of whoever wrote it.
    :param device: a torch device, e.g. ``"cpu"`` or ``"cuda"``.
    :param dtype: ``"float64"`` or ``"float32"``; the weights are converted.
    :param head: the readout to use; needed only for a model with several, none of them called "default".
    :raises FileNotFoundError: if there is no such file.
    :raises ValueError: if the file is not a MACE energy model, or the head does not exist.
    :raises MissingPackageError: if mace-torch is not installed.
    """

    engine = "mace"
    feature_kinds = ("last_layer", "invariants")

    def __init__(
        self, path: str | Path, device: str = "cpu", dtype: str = "float64", *, head: str | None = None
    ) -> None:
        if dtype not in ("float64", "float32"):
            raise ValueError(f"dtype must be 'float64' or 'float32', got {dtype!r}")
        self.device = device
        self.dtype = dtype
        self.model = _load_model(Path(path), device, dtype)
        self.species = tuple(sorted(int(number) for number in self.model.atomic_numbers))
        self.cutoff = float(self.model.r_max)
        self.heads = [str(name) for name in getattr(self.model, "heads", None) or ["Default"]]
        self.head = _choose_head(self.heads, head)

    def atomic_energies(self) -> dict[int, float]:
        """Return the energy of the isolated atom of each species that the model was trained with, eV."""
        energies = _numpy(self.model.atomic_energies_fn.atomic_energies).reshape(-1, len(self.species))
        row = energies[self.heads.index(self.head) if len(energies) > 1 else 0]
        numbers = [int(number) for number in self.model.atomic_numbers]
        return {number: float(energy) for number, energy in zip(numbers, row, strict=True)}

    def graph_key(self) -> tuple[Any, ...]:
        """Return what the input of the model depends on: cutoff, order of the species, heads, dtype and device."""
        numbers = tuple(int(number) for number in self.model.atomic_numbers)
        return (self.engine, self.cutoff, numbers, tuple(self.heads), self.head, self.dtype, self.device)

    def predict(self, frames: Sequence[Atoms], batch_size: int = BATCH_SIZE) -> Predictions:
        """Return energies, forces and stresses, see :meth:`Potential.predict`."""
        return self.predict_members([self], frames, batch_size)[0]

    @classmethod
    def predict_members(
        cls, members: Sequence[Potential], frames: Sequence[Atoms], batch_size: int = BATCH_SIZE
    ) -> list[Predictions]:
        """Build each batch of graphs once and run every member over it, 4 times faster than one by one."""
        models = [cast(MacePotential, member) for member in members]
        parts: list[list[Predictions]] = [[] for _ in models]
        for chunk, batch in models[0]._batches(frames, batch_size):
            for model, done in zip(models, parts, strict=True):
                done.append(model._evaluate(chunk, batch))
        return [concatenate(done) for done in parts]

    def features(self, frames: Sequence[Atoms], kind: str = "last_layer", batch_size: int = BATCH_SIZE) -> Features:
        """Return per-atom features; no forces are computed.

        ``"last_layer"``: what enters the linear part of every readout, for two layers
        ``[invariants of the first layer; input of readouts[-1].linear_2]``. The energy of an atom is exactly linear
        in them, apart from the constant of its species and a pair repulsion. ``"invariants"``: the scalars of all
        layers, as ``MACECalculator.get_descriptors(invariants_only=True)``.

        :raises ValueError: if *kind* is another word or a species is unknown.
        """
        if kind not in self.feature_kinds:
            raise ValueError(f"MACE has features of the kinds {', '.join(self.feature_kinds)}, got {kind!r}")
        parts, sizes = [], []
        for chunk, batch in self._batches(frames, batch_size):
            with self._torch.no_grad():
                values = self._last_layer(batch) if kind == "last_layer" else self._invariants(batch)
            parts.append(_as_features(values.detach().cpu().numpy(), chunk))
            sizes.append(len(chunk))
        if not parts:
            return self._no_features(kind)
        return concatenate_features(parts, sizes)

    @property
    def _torch(self) -> Any:
        return require("torch", extra="mace")

    def _batches(self, frames: Sequence[Atoms], batch_size: int) -> Iterator[tuple[Sequence[Atoms], Any]]:
        """Yield chunks of *frames* with their graphs, so that only one batch of graphs is in memory."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be positive, got {batch_size}")
        check_species(frames, self.species)
        geometric = require("mace.tools.torch_geometric", extra="mace")
        for start in range(0, len(frames), batch_size):
            chunk = frames[start : start + batch_size]
            graphs = [self._graph(atoms, start + k) for k, atoms in enumerate(chunk)]
            # not the DataLoader: it draws from torch's global random state
            yield chunk, geometric.Batch.from_data_list(graphs).to(self.device)

    def _graph(self, atoms: Atoms, index: int) -> Any:
        if len(atoms) == 0:
            raise ValueError(f"frame {index} has no atoms")
        if np.any(atoms.pbc & ~atoms.cell.any(axis=1)):
            # MACE would take a cube of 1 Å
            raise ValueError(f"frame {index} has a periodic axis without a cell vector")
        data = require("mace.data", extra="mace")
        tools = require("mace.tools", extra="mace")
        order = _order_of_axes(atoms)
        configuration = data.Configuration(
            atomic_numbers=atoms.numbers,
            positions=_centred(atoms),
            properties={"total_charge": atoms.info.get("charge"), "total_spin": atoms.info.get("spin")},
            property_weights={},
            cell=np.array(atoms.cell)[order],
            pbc=tuple(bool(atoms.pbc[axis]) for axis in order),
            head=self.head,
        )
        table = tools.AtomicNumberTable([int(number) for number in self.model.atomic_numbers])
        with _default_dtype(self.dtype):
            return data.AtomicData.from_config(configuration, z_table=table, cutoff=self.cutoff, heads=self.heads)

    def _evaluate(self, chunk: Sequence[Atoms], batch: Any) -> Predictions:
        periodic = np.array([has_stress(atoms) for atoms in chunk], dtype=bool)
        with _default_dtype(self.dtype):
            # a fresh dict for every model: MACE replaces its positions and shifts by the strained ones
            output = self.model(dict(batch.to_dict()), compute_force=True, compute_stress=bool(periodic.any()))
        stress = np.full((len(chunk), 6), np.nan)
        if periodic.any():
            stress[periodic] = _voigt(_numpy(output["stress"])[periodic]) * _volume_ratio(chunk, batch)[periodic, None]
        return Predictions(_numpy(output["energy"]), _numpy(output["forces"]), stress, offsets_of(chunk))

    def _last_layer(self, batch: Any) -> Any:
        """Return the inputs of the linear maps that end each readout, shape (n_atoms, n_features)."""
        captured: list[Any] = [None] * len(self.model.readouts)
        handles = [self._hook(readout, k, captured) for k, readout in enumerate(self.model.readouts)]
        try:
            self._forward(batch)
        finally:
            for handle in handles:
                handle.remove()
        columns = [self._linear_columns(readout, x) for readout, x in zip(self.model.readouts, captured, strict=True)]
        return self._torch.cat(columns, dim=-1)

    def _hook(self, readout: Any, index: int, captured: list[Any]) -> Any:
        def store(_module: Any, inputs: tuple[Any, ...]) -> None:
            captured[index] = inputs[0]

        return (readout.linear_2 if hasattr(readout, "linear_2") else readout).register_forward_pre_hook(store)

    def _linear_columns(self, readout: Any, inputs: Any) -> Any:
        """Return the columns of *inputs* that the energy of the active head depends on."""
        if hasattr(readout, "linear_2"):
            # mask_head of MACE: the heads lie one after the other, all but one multiplied by zero
            width = inputs.shape[1] // len(self.heads)
            first = self.heads.index(self.head) * width
            return inputs[:, first : first + width]
        o3 = require("e3nn.o3", extra="mace")
        irreps = o3.Irreps(str(readout.linear.irreps_in))
        scalars = [
            inputs[:, where] for where, (_, irrep) in zip(irreps.slices(), irreps, strict=True) if str(irrep) == "0e"
        ]
        return self._torch.cat(scalars, dim=-1)

    def _invariants(self, batch: Any) -> Any:
        o3 = require("e3nn.o3", extra="mace")
        utils = require("mace.modules.utils", extra="mace")
        irreps = o3.Irreps(str(self.model.products[0].linear.irreps_out))
        return utils.extract_invariant(
            self._forward(batch)["node_feats"],
            num_layers=int(self.model.num_interactions),
            num_features=irreps.dim // (irreps.lmax + 1) ** 2,
            l_max=irreps.lmax,
        )

    def _forward(self, batch: Any) -> Any:
        with _default_dtype(self.dtype):
            return self.model(dict(batch.to_dict()), compute_force=False)

    def _no_features(self, kind: str) -> Features:
        """Return no rows, but as many columns as *kind* has: found on a single atom."""
        atom = Atoms(numbers=[self.species[0]], positions=[[0.0, 0.0, 0.0]])
        n_features = self.features([atom], kind=kind).n_features
        return Features(np.zeros((0, n_features)), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


def import_mace() -> None:
    """Import MACE and the classes its pickles refer to.

    ``mace`` comes before ``e3nn``: it sets the switch without which e3nn's constants cannot be unpickled with
    torch ≥ 2.6; torch then warns that the switch is set, which is no news.

    :raises MissingPackageError: if mace-torch is not installed.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", UserWarning)
        require("mace", extra="mace")
        require("mace.modules", extra="mace")
        require("mace.data", extra="mace")


def _load_model(path: Path, device: str, dtype: str) -> Any:
    """Return the module in *path*, ready for inference."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no model file {path}")
    import_mace()
    torch = require("torch", extra="mace")
    try:
        model = torch.load(path, map_location=device, weights_only=False)
    except Exception as error:  # a pickle raises whatever it was cut off in, or its classes say
        raise ValueError(
            f"{path} cannot be loaded on {device!r} as a MACE model, it may be truncated or something else "
            f"({type(error).__name__}: {error}); copy or train it again"
        ) from error
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError(f"{path} is a compiled (TorchScript) model; give the NAME.model that was written beside it")
    missing = [
        name for name in ("r_max", "atomic_numbers", "atomic_energies_fn", "readouts") if not hasattr(model, name)
    ]
    if missing:
        raise ValueError(f"{path} is not a MACE energy model: a {type(model).__name__} without {', '.join(missing)}")
    model = model.to(device=device, dtype=getattr(torch, dtype)).eval()
    for parameter in model.parameters():
        parameter.requires_grad = False
    return model


def _choose_head(heads: Sequence[str], wanted: str | None) -> str:
    """Return the name of the head to use, by the rule of ``MACECalculator``."""
    if wanted is not None:
        if wanted not in heads:
            raise ValueError(f"the model has no head {wanted!r}, it has {', '.join(heads)}")
        return wanted
    if len(heads) == 1:
        return heads[0]
    default = [name for name in heads if name.lower() == "default"]
    if not default:
        raise ValueError(f"the model has several heads, name one of them: {', '.join(heads)}")
    return default[0]


@contextmanager
def _default_dtype(dtype: str) -> Iterator[None]:
    """Make *dtype* torch's default: graphs are built in it, whatever the model's weights are."""
    torch = require("torch", extra="mace")
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _centred(atoms: Atoms) -> FloatArray:
    """Return the positions with the centre at the origin along Cartesian directions.

    MACE surrounds non-periodic axes by a box proportional to the largest coordinate, and the neighbour list bins it:
    a molecule far from the origin would take all memory. Energies do not change under translation.
    """
    positions = np.asarray(atoms.get_positions(), dtype=np.float64)
    if np.all(atoms.pbc):
        return positions
    return cast(FloatArray, positions - 0.5 * (positions.min(axis=0) + positions.max(axis=0)))


def _order_of_axes(atoms: Atoms) -> list[int]:
    """Return an order of the cell vectors in which the non-periodic ones can be replaced.

    MACE puts a long vector along x, y or z in place of the first, second or third one if it is not periodic. That
    makes the cell singular for a wire along x whose periodic vector is the third. The order means nothing else.
    """
    if np.all(atoms.pbc) or not np.any(atoms.pbc):
        return [0, 1, 2]
    lengths = np.linalg.norm(atoms.cell.array, axis=1, keepdims=True)
    directions = atoms.cell.array / np.where(lengths == 0.0, 1.0, lengths)

    def volume(order: list[int]) -> float:
        return float(abs(np.linalg.det(np.where(atoms.pbc[order][:, None], directions[order], np.eye(3)))))

    return max((list(order) for order in permutations(range(3))), key=volume)


def _volume_ratio(chunk: Sequence[Atoms], batch: Any) -> FloatArray:
    """Return MACE's cell volume over ASE's, shape (n_frames,).

    For slabs and wires MACE divides the virial by the volume of its enlarged cell; ASE's volume is the convention.
    """
    enlarged = np.abs(np.linalg.det(_numpy(batch["cell"]).reshape(-1, 3, 3)))
    ratio = np.ones(len(chunk))
    for k, atoms in enumerate(chunk):
        if has_stress(atoms) and not np.all(atoms.pbc):
            ratio[k] = enlarged[k] / atoms.get_volume()
    return ratio


def _as_features(values: FloatArray, chunk: Sequence[Atoms]) -> Features:
    counts = [len(atoms) for atoms in chunk]
    return Features(
        values=values,
        species=np.concatenate([atoms.numbers for atoms in chunk]),
        frame_index=np.repeat(np.arange(len(chunk)), counts),
    )


def _numpy(tensor: Any) -> FloatArray:
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float64)


def _voigt(stress: FloatArray) -> FloatArray:
    """Return tensors of shape (n, 3, 3) in Voigt order, symmetrised."""
    symmetric = 0.5 * (stress + stress.transpose(0, 2, 1))
    return symmetric[:, [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
