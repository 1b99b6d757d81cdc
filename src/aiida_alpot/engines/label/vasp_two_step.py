"""A single point with one functional, then the label with another from its wave functions (Kuner et al., MP-ALOE)."""

from __future__ import annotations

import contextlib
from typing import Any, cast

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ToContext, WorkChain
from aiida.engine.processes.ports import PortNamespace
from aiida.engine.processes.workchains.workchain import WorkChainSpec
from aiida_vasp.workchains.v2.vasp import VaspWorkChain

from aiida_alpot.engines.label.vasp_calculation import SECOND


class VaspTwoStepWorkChain(WorkChain):
    """Converges a frame cheaply, and computes its labels from there.

    Only the second calculation gives labels; the first is its parent, by its folder.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Take the inputs of the second calculation, and the INCAR of the first."""
        super().define(spec)
        spec.expose_inputs(VaspWorkChain, exclude=("restart_folder", "clean_workdir"))
        for exposed in (spec.inputs, spec.inputs["calc"]):
            exposed.dynamic = False  # AiiDA lets an exposed namespace take any input, misspelt ones too
        spec.expose_outputs(VaspWorkChain)
        spec.input(
            "preconverge", valid_type=orm.Dict, help="INCAR of the first calculation, a single point: {'incar': {…}}."
        )
        for ports in (spec.inputs, spec.outputs):
            _explain_ports(ports)
        spec.outline(cls.run_first, cls.run_second, cls.attach_results)
        ended = "calculation <{pk}> ended with exit status {status}: {message}"
        spec.exit_code(401, "ERROR_FIRST_FAILED", message=f"The first {ended}")
        spec.exit_code(402, "ERROR_SECOND_FAILED", message=f"The second {ended}")

    def run_first(self) -> Any:
        """Submit the single point; its wave functions stay until the second has read them."""
        inputs = self._inputs("first")
        inputs.parameters = self.inputs.preconverge
        inputs.clean_workdir = orm.Bool(False)
        return ToContext(first=self.submit(VaspWorkChain, **inputs))

    def run_second(self) -> Any:
        """Submit the calculation that gives the labels."""
        if not self.ctx.first.is_finished_ok:
            return self._failed(self.exit_codes.ERROR_FIRST_FAILED, self.ctx.first)
        inputs = self._inputs(SECOND)
        inputs.restart_folder = self.ctx.first.outputs.remote_folder
        return ToContext(second=self.submit(VaspWorkChain, **inputs))

    def attach_results(self) -> ExitCode | None:
        """Pass on the outputs of the second."""
        if not self.ctx.second.is_finished_ok:
            return self._failed(self.exit_codes.ERROR_SECOND_FAILED, self.ctx.second)
        self.out_many(self.exposed_outputs(self.ctx.second, VaspWorkChain))
        return None

    def on_terminated(self) -> None:
        """Empty the folder of the first calculation: wave functions are large."""
        super().on_terminated()
        first = self.ctx.get("first", None)
        if isinstance(first, orm.ProcessNode) and "remote_folder" in first.outputs:
            with contextlib.suppress(OSError, KeyError):  # as aiida-core's own clean-up does
                first.outputs.remote_folder._clean()

    def _inputs(self, label: str) -> AttributeDict:
        inputs = AttributeDict(self.exposed_inputs(VaspWorkChain))
        inputs.metadata = {"call_link_label": label, "label": label}
        return inputs

    @staticmethod
    def _failed(exit_code: Any, node: orm.ProcessNode) -> ExitCode:
        message = node.exit_message or "no message"
        return cast(ExitCode, exit_code.format(pk=node.pk, status=node.exit_status, message=message))


def _explain_ports(ports: PortNamespace) -> None:
    """Say of the inputs and outputs that aiida-vasp gives no help text for where they are described."""
    for name, port in ports.items():
        if not port.help:
            port.help = f"{name} of VaspWorkChain, see the documentation of aiida-vasp."
        if isinstance(port, PortNamespace):
            _explain_ports(port)
