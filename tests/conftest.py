"""Fixtures for tests that need AiiDA; those of the kernel use none of them and need no profile."""

from __future__ import annotations

import os
import sys
import sysconfig
import venv
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from aiida.plugins import ParserFactory
from aiida.tools.pytest_fixtures import (  # noqa: F401  fixtures are found by name
    aiida_computer,
    aiida_computer_local,
    aiida_config_factory,
    aiida_profile_factory,
    entry_points,
)
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from plumpy.process_states import ProcessState

from aiida_alpot.data.pes import PESData
from aiida_alpot.data.potential import PotentialData
from aiida_alpot.testing.models import make_tiny_mace

NOT_ON_A_COMPUTE_NODE = ("aiida", "plumpy", "kiwipy", "_editable_impl_aiida")
EMT_PARAMETERS = {"calculator": "ase.calculators.emt:EMT"}


def fail_in_ci(report: Any) -> Any:
    """Return a report of a test or module; one that was skipped as a package is missing has failed in CI."""
    if os.environ.get("CI") and report.skipped and "could not import" in str(report.longrepr):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: in CI a missing package fails: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    """Of whole modules."""
    return fail_in_ci((yield))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """Of single tests."""
    return fail_in_ci((yield))


@pytest.fixture(scope="session")
def aiida_config(tmp_path_factory: pytest.TempPathFactory, aiida_config_factory: Any) -> Iterator[Any]:  # noqa: F811
    """A configuration folder of this test session."""
    with aiida_config_factory(tmp_path_factory.mktemp("aiida")) as config:
        yield config


@pytest.fixture(scope="session")
def aiida_profile(aiida_config: Any, aiida_profile_factory: Any) -> Iterator[Any]:  # noqa: F811
    """A loaded profile without broker: processes run in this interpreter."""
    with aiida_profile_factory(aiida_config) as profile:
        yield profile


@pytest.fixture
def localhost(aiida_profile: Any, aiida_computer_local: Callable[..., orm.Computer]) -> orm.Computer:  # noqa: F811
    """This machine, without the login shell that costs half a second a command."""
    computer = aiida_computer_local(label="localhost")
    computer.configure(use_login_shell=False, safe_interval=0.0)
    return computer


@pytest.fixture
def python_code(localhost: orm.Computer) -> orm.InstalledCode:
    """This Python as a code."""
    query = orm.QueryBuilder().append(orm.InstalledCode, filters={"label": "python"})
    known = query.first(flat=True)
    if known is not None:
        return known
    code = orm.InstalledCode(label="python", computer=localhost, filepath_executable=sys.executable)
    code.prepend_text = "export OMP_NUM_THREADS=1"
    return code.store()


@pytest.fixture
def fast_options() -> dict[str, Any]:
    """Scheduler options of a short job with one process."""
    return {"resources": {"num_machines": 1, "num_mpiprocs_per_machine": 1}, "max_wallclock_seconds": 600}


@pytest.fixture(scope="session")
def make_environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make the Python of a compute node: all packages of this one but AiiDA, this package and those named."""

    def make(name: str, *, without: tuple[str, ...] = ()) -> Path:
        folder = tmp_path_factory.mktemp(name)
        venv.EnvBuilder(symlinks=True).create(folder)
        paths = {key: Path(value) for key, value in sysconfig.get_paths(vars={"base": str(folder)}).items()}
        excluded = (*NOT_ON_A_COMPUTE_NODE, *without)
        for key in ("purelib", "platlib"):
            for entry in Path(sysconfig.get_path(key)).iterdir():
                link = paths[key] / entry.name
                if entry.suffix != ".pth" and not entry.name.startswith(excluded) and not link.exists():
                    link.symlink_to(entry)
        return folder / "bin" / "python"

    return make


@pytest.fixture(scope="session")
def compute_node(make_environment: Callable[..., Path]) -> Path:
    """The Python of a compute node with every engine."""
    return make_environment("compute-node")


def rattled_copper(n_frames: int, seed: int = 0, *, stdev: float = 0.1) -> list[Atoms]:
    """Return small cubic copper cells with random displacements, each its own group."""
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(n_frames):
        atoms = bulk("Cu", cubic=True)
        atoms.positions += rng.normal(0, stdev, atoms.positions.shape)
        atoms.info["group"] = f"copper-{seed}-{k}"
        frames.append(atoms)
    return frames


def labelled_by_emt(frames: list[Atoms]) -> list[Atoms]:
    """Return copies with EMT labels."""
    labelled = []
    for atoms in frames:
        copy = atoms.copy()
        copy.calc = EMT()
        results = {
            "energy": copy.get_potential_energy(),
            "forces": copy.get_forces(),
            "stress": copy.get_stress(),
        }
        copy.calc = SinglePointCalculator(copy, **results)
        copy.info["status"] = "labelled"
        labelled.append(copy)
    return labelled


def copper_splits(n_frames: int) -> list[str]:
    """Return splits with at least one frame in each of train, validation, test and calibration."""
    held_out = ("validation", "test", "calibration", "calibration")
    return ["train"] * (n_frames - len(held_out)) + list(held_out)


@pytest.fixture(scope="session")
def make_copper() -> Callable[..., list[Atoms]]:
    """The function that makes unlabelled frames of copper."""
    return rattled_copper


@pytest.fixture(scope="session")
def label_emt() -> Callable[[list[Atoms]], list[Atoms]]:
    """The function that labels frames."""
    return labelled_by_emt


@pytest.fixture
def copper(aiida_profile: Any) -> PESData:
    """Four unlabelled frames of copper."""
    return PESData.from_frames(rattled_copper(4)).store()


@pytest.fixture
def copper_dataset(aiida_profile: Any) -> PESData:
    """Twelve labelled frames of copper with splits."""
    return PESData.from_frames(labelled_by_emt(rattled_copper(12)), split=copper_splits(12)).store()


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Model files of three untrained MACE potentials for copper that differ in their seed."""
    folder = tmp_path_factory.mktemp("models")
    paths = [folder / f"m{seed:03d}.model" for seed in range(3)]
    for seed, path in enumerate(paths):
        make_tiny_mace(path, species=(29,), seed=seed)
    return paths


@pytest.fixture
def tiny_committee(aiida_profile: Any, tiny_models: list[Path]) -> dict[str, PotentialData]:
    """The three potentials as stored nodes."""
    return {
        path.stem: PotentialData.from_file(path, engine="mace", symbols=["Cu"], cutoff=4.0, seed=seed).store()
        for seed, path in enumerate(tiny_models)
    }


@pytest.fixture
def parse_files(localhost: orm.Computer) -> Callable[..., tuple[dict[str, Any], int, str]]:
    """Return a function that parses the files that a job left: outputs, exit status and message.

    ``parse_files("alpot.augment", {"report.json": b"{}"})``, with the inputs of the job and a folder of files that are
    not kept if wanted.
    """

    def parse(
        name: str,
        files: Mapping[str, bytes],
        inputs: Mapping[str, orm.Node] | None = None,
        temporary: Path | None = None,
    ) -> tuple[dict[str, Any], int, str]:
        node = orm.CalcJobNode(computer=localhost, process_type=f"aiida.calculations:{name}")
        node.set_options({"resources": {"num_machines": 1, "num_mpiprocs_per_machine": 1}, "parser_name": name})
        for key, value in (inputs or {}).items():
            node.base.links.add_incoming(value, LinkType.INPUT_CALC, key)
        node.store()
        retrieved = orm.FolderData()
        for key, content in files.items():
            retrieved.base.repository.put_object_from_bytes(content, key)
        retrieved.base.links.add_incoming(node, LinkType.CREATE, "retrieved")
        retrieved.store()
        outputs, process = ParserFactory(name).parse_from_node(
            node, store_provenance=False, retrieved_temporary_folder=None if temporary is None else str(temporary)
        )
        return outputs or {}, process.exit_status, process.exit_message

    return parse


@pytest.fixture
def killed_campaign(python_code: orm.InstalledCode, copper: PESData) -> orm.WorkChainNode:
    """A campaign with the inputs of the protocol ``fast`` that was killed before it had done anything."""
    from aiida_alpot.workflows.active_learning import ActiveLearningWorkChain

    builder = ActiveLearningWorkChain.get_builder_from_protocol(
        python_code,
        protocol="fast",
        overrides={"label": {"parameters": EMT_PARAMETERS}},
        tolerances={"energy": 0.004, "force": 0.1},
        structures=copper,
    )
    node: orm.WorkChainNode = instantiate_process(get_manager().get_runner(), builder).node
    node.set_process_state(ProcessState.KILLED)
    return node
