"""A property gate: lattice constant and bulk modulus of a cubic crystal, as a committee predicts them."""

from __future__ import annotations

from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import ExitCode, WorkChain, calcfunction
from aiida.engine.processes.workchains.workchain import WorkChainSpec
from aiida.plugins import DataFactory, WorkflowFactory
from ase.eos import EquationOfState
from ase.units import GPa

PESData = DataFactory("alpot.pes")
PredictionWorkChain = WorkflowFactory("alpot.predict")
SCALES = np.linspace(0.97, 1.03, 7)


class LatticeWorkChain(WorkChain):
    """Predicts the energies of strained cells in one job and fits an equation of state."""

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        super().define(spec)
        # the campaign gives potentials, uncertainty and kernel; code, options and cell are in validate.inputs
        spec.expose_inputs(PredictionWorkChain, include=("potentials", "uncertainty", "kernel", "code", "options"))
        spec.input("cell", valid_type=PESData, help="One frame, a cubic cell.")
        spec.outline(cls.predict, cls.fit)
        spec.output("properties", valid_type=orm.Dict, help="lattice_constant in Å, bulk_modulus in GPa.")
        spec.exit_code(400, "ERROR_PREDICTION_FAILED", message="The prediction <{pk}> failed: {reason}")

    def predict(self) -> None:
        inputs = self.exposed_inputs(PredictionWorkChain)
        self.to_context(prediction=self.submit(PredictionWorkChain, frames=strain_cell(self.inputs.cell), **inputs))

    def fit(self) -> ExitCode | None:
        node = self.ctx.prediction
        if not node.is_finished_ok:
            return self.exit_codes.ERROR_PREDICTION_FAILED.format(pk=node.pk, reason=node.exit_message)
        self.out("properties", fit_equation_of_state(node.outputs.predicted))
        return None


@calcfunction
def strain_cell(cell: Any) -> Any:
    frames = []
    for scale in SCALES:
        atoms = cell[0].copy()
        atoms.set_cell(scale * atoms.cell, scale_atoms=True)
        frames.append(atoms)
    return PESData.from_frames(frames)


@calcfunction
def fit_equation_of_state(predicted: Any) -> orm.Dict:
    frames = list(predicted)
    volumes, energies = zip(*((atoms.get_volume(), atoms.info["committee_energy"]) for atoms in frames), strict=True)
    try:
        volume, _, modulus = EquationOfState(volumes, energies).fit()
    except ValueError:  # no minimum: neither is known, which no gate lets pass
        return orm.Dict({"lattice_constant": None, "bulk_modulus": None})
    return orm.Dict(
        {
            "lattice_constant": {"value": float(np.cbrt(volume)), "unit": "Å"},
            "bulk_modulus": {"value": float(modulus / GPa), "unit": "GPa"},
        }
    )
