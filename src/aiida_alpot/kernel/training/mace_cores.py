"""``mace_run_train`` with a loss and metrics that see the forces on core atoms alone.

MACE weights the forces of a frame, not those of an atom. It does hand any column of the atoms on to its loss, if a key
is given for it (``--heads``), and makes loss and metrics in one place each. These are replaced here, in a process of
its own that is otherwise ``mace_run_train``. What a version of MACE lacks for this ends the training with a message:
never are all forces fitted in silence.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from aiida_alpot.kernel._extras import require
from aiida_alpot.kernel.cutouts import CORE
from aiida_alpot.kernel.potentials.mace import import_mace

_BOOT: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from aiida_alpot.kernel.training.mace_cores import main; main()"
)
_TESTED: Final = "mace-torch 0.3.16 has it; train without frames that were cut out of larger ones, or install it"


def python_arguments() -> list[str]:
    """Return the arguments of a Python that make it this program, before those of ``mace_run_train``.

    The module search path is handed on, as this package may be in a zip.
    """
    return ["-c", _BOOT, json.dumps([str(Path(entry).absolute()) for entry in sys.path])]


def main() -> None:
    """Run ``mace_run_train`` with the arguments of this process."""
    import_mace()
    run_train, train = (require(name, extra="mace") for name in ("mace.cli.run_train", "mace.tools.train"))
    losses = install(run_train, train)
    run_train.main()
    if not any(loss.n_calls for loss in losses):
        raise SystemExit(f"this version of mace_run_train does not use the loss of get_loss_fn: {_TESTED}")


def install(run_train: Any, train: Any) -> list[Any]:
    """Put loss and metrics of core atoms in the place of MACE's.

    :param run_train: the module ``mace.cli.run_train``.
    :param train: the module ``mace.tools.train``.
    :return: the losses that MACE makes from now on.
    :raises SystemExit: if one of the modules has another shape.
    """
    for module, name in ((run_train, "get_loss_fn"), (run_train, "get_swa"), (train, "MACELoss")):
        if not hasattr(module, name):
            raise SystemExit(f"this version of MACE has no {module.__name__}.{name}: {_TESTED}")
    get_loss_fn, get_swa, losses = run_train.get_loss_fn, run_train.get_swa, []

    def get_core_loss(*args: Any, **kwargs: Any) -> Any:
        losses.append(core_loss(get_loss_fn(*args, **kwargs)))
        return losses[-1]

    def get_core_swa(*args: Any, **kwargs: Any) -> Any:
        swa, swas = get_swa(*args, **kwargs)
        swa.loss_fn = core_loss(swa.loss_fn)
        return swa, swas

    run_train.get_loss_fn, run_train.get_swa = get_core_loss, get_core_swa
    train.MACELoss = core_metrics(train.MACELoss)
    return losses


def read_core(batch: Any) -> Any:
    """Return which atoms of a batch of MACE are core atoms, a tensor of bools of shape (n_atoms, 1).

    :raises RuntimeError: if MACE did not hand the column on.
    """
    if CORE not in batch:
        raise RuntimeError(f"this version of MACE does not hand the column {CORE} of the atoms to its loss: {_TESTED}")
    return batch[CORE].bool()


def compute_core_loss(loss: Any, ref: Any, pred: Any, ddp: bool | None = None) -> Any:
    """Return the loss of MACE with the mean over the forces on core atoms in place of that over all.

    Any loss of MACE is the sum of a term for the forces, which is their mean, and others. So the shell gets forces
    without error in the first, and the factor that it is too small by; the others are computed on their own.

    :param loss: a loss of MACE, called as ``loss(ref, pred, ddp)``.
    :param ref: the batch, with labels.
    :param pred: what the model predicts.
    """
    core = read_core(ref)
    if bool(core.all()):
        return loss(ref, pred, ddp)
    torch = require("torch", extra="mace")
    exact = {name: ref[name] for name in pred if name in ref}
    others = loss(ref, {**pred, "forces": ref["forces"]}, ddp)
    of_forces = loss(ref, {**exact, "forces": torch.where(core, pred["forces"], ref["forces"])}, ddp)
    return others + of_forces * (core.numel() / int(core.sum()))


def core_loss(loss: Any) -> Any:
    """Return a loss of MACE as one of core atoms, which counts its calls."""
    module: Any = require("torch.nn", extra="mace").Module

    class CoreLoss(module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.loss = loss
            self.n_calls = 0

        def forward(self, ref: Any, pred: Any, ddp: bool | None = None) -> Any:
            self.n_calls += 1
            return compute_core_loss(self.loss, ref, pred, ddp)

    return CoreLoss()


def core_metrics(metrics: Any) -> Any:
    """Return the class of MACE's metrics as one whose errors are those of what is fitted.

    Of the forces those on core atoms; and energies per atom without those of weight 0, which MACE leaves in.
    """
    torch = require("torch", extra="mace")

    class CoreMetrics(metrics):  # type: ignore[misc]
        def update(self, batch: Any, output: Any) -> None:
            n_before = len(self.delta_fs)
            super().update(batch, output)
            self.delta_es_per_atom[-1] = self.delta_es_per_atom[-1][batch.weight * batch.energy_weight > 0]
            if len(self.delta_fs) == n_before:  # none has a weight
                return
            weight = torch.repeat_interleave(batch.weight * batch.forces_weight, batch.ptr[1:] - batch.ptr[:-1])
            counts = read_core(batch)[:, 0] & (weight > 0)
            self.fs[-1] = batch.forces[counts]
            self.delta_fs[-1] = (batch.forces - output["forces"])[counts].reshape(-1)

    return CoreMetrics
