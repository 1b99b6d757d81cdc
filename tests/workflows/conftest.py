"""A rig that drives WorkChains step by step with planted children in place of jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import ExitCode
from aiida.engine.utils import instantiate_process
from aiida.manage.manager import get_manager
from aiida.orm.utils import serialize
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from plumpy.process_states import ProcessState

from aiida_alpot.data.pes import PESData
from aiida_alpot.data.potential import PotentialData
from aiida_alpot.data.uncertainty import UncertaintyData
from aiida_alpot.kernel.uncertainty import UncertaintyModel


@dataclass
class Submission:
    """What a step handed to ``submit``, and the child planted for it."""

    process: type[Any]
    inputs: dict[str, Any]
    node: orm.ProcessNode | None = None

    @property
    def label(self) -> str:
        return str(self.inputs["metadata"]["call_link_label"])


@dataclass
class Rig:
    """A process whose ``submit`` records its inputs, checks them and returns a planted child.

    :ivar child: returns the node planted for a submission; it may raise ValueError to refuse.
    """

    process: Any
    child: Callable[[Submission], orm.ProcessNode]
    submissions: list[Submission] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def submit(self, process: type[Any], **inputs: Any) -> orm.ProcessNode:
        submission = Submission(process, inputs)
        self.submissions.append(submission)
        error = process.spec().inputs.validate(_pre_processed(process, inputs))
        if error is not None:
            raise ValueError(str(error))
        submission.node = self.child(submission)
        link = LinkType.CALL_CALC if isinstance(submission.node, orm.CalculationNode) else LinkType.CALL_WORK
        submission.node.backend_entity.add_incoming(self.process.node.backend_entity, link, submission.label)
        return submission.node

    @property
    def labels(self) -> list[str]:
        return [submission.label for submission in self.submissions]

    def sent(self, label: str) -> dict[str, Any]:
        """Return the inputs of the last submission of this label."""
        return [submission.inputs for submission in self.submissions if submission.label == label][-1]

    def step(self, name: str) -> Any:
        """Call one outline step, and let its children end."""
        result = getattr(self.process, name)()
        self.resolve()
        return result

    def resolve(self) -> None:
        """Put the children in the context in place of those waited for."""
        for awaitable in self.process._awaitables:
            self.process.ctx[awaitable.key] = orm.load_node(awaitable.pk)
        self.process._awaitables = []

    def run(self, *, restarting: bool = False) -> ExitCode | None:
        """Run the whole outline; with *restarting*, as if the daemon were restarted after every step."""
        outline = self.process.spec().get_outline()
        stepper = outline.create_stepper(self.process)
        finished = False
        while not finished:
            finished, result = stepper.step()
            self.resolve()
            if isinstance(result, ExitCode) and result.status > 0:
                return result
            saved = serialize.serialize(self.process.ctx)
            if restarting and not finished:
                self.process._context = serialize.deserialize_unsafe(saved)
                stepper = outline.recreate_stepper(stepper.save(), self.process)
        return None

    def output(self, name: str) -> Any:
        return self.process.outputs[name]

    @property
    def reports(self) -> str:
        """What the process has reported; whether AiiDA stores it depends on the log level that other tests left."""
        return "\n".join(self.lines)


def _pre_processed(process: type[Any], inputs: Mapping[str, Any]) -> Any:
    return process.spec().inputs.pre_process(_copied(inputs))


def _copied(value: Any) -> Any:
    return {key: _copied(item) for key, item in value.items()} if isinstance(value, Mapping) else value


@pytest.fixture
def start(aiida_profile: Any) -> Callable[..., Rig]:
    """Return a function that makes a process under test: ``start(WorkChain, child, **inputs)``."""

    def make(work_chain: type[Any], child: Callable[[Submission], orm.ProcessNode], **inputs: Any) -> Rig:
        process = instantiate_process(get_manager().get_runner(), work_chain, **inputs)
        rig = Rig(process, child)
        process.submit = rig.submit
        process.report = lambda message, *arguments: rig.lines.append(message % arguments if arguments else message)
        return rig

    return make


@pytest.fixture
def plant(localhost: orm.Computer) -> Callable[..., Any]:
    """Return a function that stores a child that has ended: ``plant(orm.CalcJobNode, 0, potential=...)``."""

    def make(
        node_class: type[Any] = orm.CalcJobNode,
        exit_status: int = 0,
        message: str | None = None,
        *,
        state: ProcessState = ProcessState.FINISHED,
        exception: str | None = None,
        **outputs: Any,
    ) -> Any:
        is_job = node_class is orm.CalcJobNode
        node = node_class(computer=localhost) if is_job else node_class()
        node.set_process_state(state)
        if state is ProcessState.FINISHED:
            node.set_exit_status(exit_status)
        if message is not None:
            node.set_exit_message(message)
        if exception is not None:
            node.set_exception(exception)
        node.store()
        for label, output in outputs.items():
            target = output.clone() if is_job and output.is_stored else output
            if not is_job and not target.is_stored:
                target.store()
            target.base.links.add_incoming(node, LinkType.CREATE if is_job else LinkType.RETURN, label)
            target.store()
        return node

    return make


def copper_frames(n_frames: int, seed: int = 0, **info: Any) -> list[Atoms]:
    """Return rattled copper cells without labels, each its own group."""
    rng = np.random.default_rng([seed, n_frames])
    frames = []
    for k in range(n_frames):
        atoms = bulk("Cu")
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        atoms.cell[:] *= 1 + rng.uniform(-0.02, 0.02)
        atoms.info.update(group=f"g{seed}-{k}", **info)
        frames.append(atoms)
    return frames


def with_labels(frames: list[Atoms], *, failed: int = 0) -> list[Atoms]:
    """Label frames with made-up numbers; the last *failed* of them have a reason instead."""
    for k, atoms in enumerate(frames):
        if k >= len(frames) - failed:
            atoms.info.update(status="failed", reason="the reference did not converge")
            continue
        results = {"energy": -3.5 + 0.01 * k, "forces": np.zeros((len(atoms), 3)), "stress": np.zeros(6)}
        atoms.calc = SinglePointCalculator(atoms, **results)
        atoms.info["status"] = "labelled"
    return frames


@pytest.fixture
def pes(aiida_profile: Any) -> Callable[..., PESData]:
    """Return a function that stores a dataset: ``pes(12, seed=1, labelled=True, failed=0, split=[...])``."""

    def make(n_frames: int, *, seed: int = 0, labelled: bool = False, failed: int = 0, **columns: Any) -> PESData:
        frames = copper_frames(n_frames, seed)
        return PESData.from_frames(with_labels(frames, failed=failed) if labelled else frames, **columns).store()

    return make


@pytest.fixture
def potential(aiida_profile: Any, tmp_path: Path) -> Callable[..., PotentialData]:
    """Return a function that makes an unstored potential of its own content, never loaded."""

    def make(content: str) -> PotentialData:
        path = tmp_path / "potential.model"
        path.write_text(content)
        return PotentialData.from_file(path, engine="mace", symbols=["Cu"], cutoff=4.0, seed=1)

    return make


@pytest.fixture
def committee(potential: Callable[..., PotentialData]) -> Callable[..., dict[str, PotentialData]]:
    """Return a function that stores a committee: ``committee("first", 3)``."""

    def make(name: str = "given", size: int = 2) -> dict[str, PotentialData]:
        return {f"m{k:03d}": potential(f"{name}-{k}").store() for k in range(size)}

    return make


@pytest.fixture
def error_bars(aiida_profile: Any, tmp_path: Path) -> Callable[..., UncertaintyData]:
    """Return a function that makes the unstored uncertainty of a committee."""

    def make(potentials: Mapping[str, PotentialData]) -> UncertaintyData:
        path = tmp_path / "uncertainty.h5"
        hashes = tuple(potentials[name].sha256 for name in sorted(potentials))
        UncertaintyModel(tolerances={"force": 0.1}, model_hashes=hashes).save(path)
        return UncertaintyData.from_hdf5(path)

    return make
