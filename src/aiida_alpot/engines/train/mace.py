"""MACE potentials, trained by ``mace_run_train``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiida import orm

from aiida_alpot.calculations.train_mace import TrainMaceCalculation
from aiida_alpot.engines.job import Job, JobResources
from aiida_alpot.engines.train.base import MemberInputs, TrainEngine
from aiida_alpot.kernel.settings import parse_settings
from aiida_alpot.kernel.training.mace import MaceSettings

INTERRUPTED = TrainMaceCalculation.exit_codes.ERROR_INTERRUPTED.status


class MaceTrainEngine(TrainEngine):
    """Trains from scratch or from a parent, and goes on from a checkpoint."""

    @classmethod
    def validate(cls, parameters: Mapping[str, Any]) -> str | None:
        """Check names and types of the hyperparameters."""
        try:
            parse_settings(MaceSettings, parameters, "train.parameters")
        except ValueError as error:
            return str(error)
        return None

    @classmethod
    def validate_symbols(cls, parameters: Mapping[str, Any], symbols: Sequence[str]) -> str | None:
        """Check that given atomic energies are complete."""
        e0s = parameters.get("e0s")
        missing = [symbol for symbol in symbols if symbol not in e0s] if isinstance(e0s, Mapping) else []
        return f"train.parameters.e0s: no energy of the isolated atom for {', '.join(missing)}" if missing else None

    @classmethod
    def prepare_job(cls, member: MemberInputs, resources: JobResources, previous: orm.ProcessNode | None) -> Job:
        """Train one member, from the checkpoint of an attempt that was stopped in good order.

        MACE does not write its checkpoints in one step: those of a job that was killed are not trusted.
        """
        inputs: dict[str, Any] = {
            "dataset": member.dataset,
            "parameters": member.parameters,
            "seed": member.seed,
            **resources.common_inputs(),
        }
        if member.parent is not None:
            inputs["parent"] = member.parent
        checkpoint = resources.checkpoint if previous is None else previous.outputs.remote_folder
        if checkpoint is not None and checkpoint.creator.exit_status == INTERRUPTED:
            inputs["checkpoint"] = checkpoint
        return Job(TrainMaceCalculation, inputs)
