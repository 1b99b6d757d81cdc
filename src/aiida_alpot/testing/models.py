"""Tiny potentials that load and predict like real ones, without any training."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aiida_alpot.kernel._extras import require
from aiida_alpot.kernel.potentials.mace import import_mace


def make_tiny_mace(
    path: str | Path,
    species: Sequence[int] = (1, 6, 8),
    seed: int = 0,
    cutoff: float = 4.0,
    *,
    hidden_irreps: str = "8x0e + 8x1o",
    num_interactions: int = 2,
    heads: Sequence[str] = ("Default",),
    dtype: str = "float64",
) -> Path:
    """Write a ScaleShiftMACE with random weights, as ``mace_run_train`` would write a trained one.

    Energies are smooth and of the order of an eV, but mean nothing. The same arguments give the same weights.

    :param path: the model file to write.
    :param species: atomic numbers.
    :param seed: seed of the weights; the global random state of torch is left as it was.
    :param cutoff: Å.
    :param hidden_irreps: irreps of the node features, all with the same number of channels.
    :param num_interactions: number of message-passing layers.
    :param heads: names of the readout heads.
    :param dtype: ``"float64"`` or ``"float32"``.
    :return: *path*.
    :raises MissingPackageError: if mace-torch is not installed.
    """
    import_mace()
    torch = require("torch", extra="mace")
    torch_tools = require("mace.tools.torch_tools", extra="mace")
    with torch.random.fork_rng(devices=[]), torch_tools.default_dtype(dtype), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The TorchScript type system doesn't support", UserWarning)
        torch.manual_seed(seed)
        model = _build(sorted(species), cutoff, hidden_irreps, num_interactions, list(heads))
    torch.save(model, path)
    return Path(path)


def _build(species: Sequence[int], cutoff: float, hidden_irreps: str, num_interactions: int, heads: list[str]) -> Any:
    modules = require("mace.modules", extra="mace")
    o3 = require("e3nn.o3", extra="mace")
    torch = require("torch", extra="mace")
    atomic_energies = np.array([[-1.0 - 0.1 * number for number in species]] * len(heads))
    return modules.ScaleShiftMACE(
        r_max=cutoff,
        num_bessel=4,
        num_polynomial_cutoff=5,
        max_ell=2,
        interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
        num_interactions=num_interactions,
        num_elements=len(species),
        hidden_irreps=o3.Irreps(hidden_irreps),
        MLP_irreps=o3.Irreps("4x0e"),
        atomic_energies=atomic_energies,
        avg_num_neighbors=6.0,
        atomic_numbers=list(species),
        correlation=2,
        gate=torch.nn.functional.silu,
        radial_MLP=[8, 8],
        heads=heads,
        atomic_inter_scale=[1.0] * len(heads),
        atomic_inter_shift=[0.0] * len(heads),
    )
