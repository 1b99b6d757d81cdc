"""What holds for every label engine, whatever code it drives; nothing is computed but for the stress."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import run_get_node
from ase import Atoms
from ase.build import bulk
from ase.io import read
from ase.units import Bohr, GPa, Hartree

from aiida_alpot.data.pes import PESData
from aiida_alpot.engines.job import JobResources
from aiida_alpot.engines.label.base import LabelRequest
from aiida_alpot.engines.label.per_frame import FrameLabelEngine
from aiida_alpot.kernel.labelling import LabelSettings, label_fingerprint
from aiida_alpot.kernel.settings import parse_settings
from aiida_alpot.plugins import known_engines, load_engine
from aiida_alpot.workflows.label import LabellingWorkChain

NAMES = known_engines("label")


@dataclass(frozen=True)
class Case:
    """What a test needs to know of an engine.

    :param parameters: that it accepts for silicon.
    :param other: a change of them that changes labels.
    :param neutral: one that does not.
    :param code: that its jobs take.
    """

    parameters: dict[str, Any]
    other: dict[str, Any]
    neutral: dict[str, Any]
    code: Any


@pytest.fixture
def case(request: pytest.FixtureRequest, python_code: Any, code_of: Any) -> Callable[[str], Case]:
    """Return a function that gives the case of an engine; a new engine is to be added here."""

    def make(name: str) -> Case:
        if name == "ase":
            emt = {"calculator": "ase.calculators.lj:LennardJones", "parameters": {"sigma": 2.0, "rc": 5.0}}
            other = {"parameters": {"sigma": 2.1, "rc": 5.0}}
            return Case(emt, other, {"frame_timeout_s": 100.0}, python_code)
        if name == "quantumespresso":
            family = request.getfixturevalue("pseudo_family")
            code = code_of("true-pw", "/bin/true", "quantumespresso.pw")
            return Case({"protocol": "fast", "pseudo_family": family}, {"kpoints_distance": 0.5}, {"retries": []}, code)
        if name == "vasp":
            family = request.getfixturevalue("vasp_family")
            code = code_of("true-vasp", "/bin/true", "vasp.vasp")
            return Case({"potential_family": family}, {"incar": {"encut": 333}}, {"retries": []}, code)
        if name == "cp2k":
            code = code_of("true-cp2k", "/bin/true", "cp2k")
            return Case({"protocol": "fast"}, {"cutoff": 333.0}, {"retries": []}, code)
        raise AssertionError(f"add the engine {name!r} to this table")

    return make


@pytest.mark.parametrize("name", NAMES)
def test_a_code_of_another_program_is_refused_before_any_job(
    case: Callable[[str], Case], code_of: Any, name: str
) -> None:
    engine, frames = load_engine("label", name), PESData.from_frames([silicon()])
    if engine.PLUGIN is None:
        pytest.skip(f"{name} runs any Python")
    parameters = case(name).parameters
    with pytest.raises(ValueError, match=r"label\.code: other@\S+ is a code for core\.arithmetic\.add"):
        LabellingWorkChain.get_builder_for(
            code_of("other", "/bin/true", "core.arithmetic.add"), frames, name, parameters
        )


@pytest.fixture
def resources() -> Callable[[Case], JobResources]:
    kernel = orm.SinglefileData.from_string("kernel", filename="kernel.pyz").store()
    options = {"resources": {"num_machines": 1, "num_mpiprocs_per_machine": 1}, "max_wallclock_seconds": 60}
    return lambda case: JobResources(case.code, kernel, options, "job")


def silicon(seed: int = 0) -> Atoms:
    atoms = bulk("Si")
    atoms.rattle(0.05, seed=seed)
    return atoms


def request_of(name: str, frames: list[Atoms], parameters: dict[str, Any]) -> LabelRequest:
    engine = load_engine("label", name)
    node = PESData.from_frames(frames).store()
    return LabelRequest(node, orm.Dict(parameters).store(), engine.complete(parameters, node.symbols))


def fingerprint(name: str, parameters: dict[str, Any]) -> str:
    """Return what the labels of these parameters are told apart by."""
    engine = load_engine("label", name)
    if issubclass(engine, FrameLabelEngine):
        return engine.fingerprint(engine.complete(parameters, ("Si",)))
    return label_fingerprint(parse_settings(LabelSettings, parameters, "label.parameters"))


@pytest.mark.parametrize("name", NAMES)
def test_jobs_are_accepted_by_their_process_and_named_as_links_can_be(name: str, case: Any, resources: Any) -> None:
    given = case(name)
    engine = load_engine("label", name)
    request = request_of(name, [silicon(0), silicon(1), silicon(1)], given.parameters)
    keys = engine.plan_jobs(request)
    assert len(keys) == len(set(keys)) <= 2  # copies of a structure are computed once
    for key in keys:
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", key)
        job = engine.prepare_job(key, request, resources(given), None)
        ports = job.process.spec().inputs
        assert ports.validate(ports.pre_process({k: v for k, v in dict(job.inputs).items() if v is not None})) is None


@pytest.mark.parametrize("name", NAMES)
def test_what_changes_a_label_changes_its_fingerprint_and_nothing_else_does(name: str, case: Any) -> None:
    given = case(name)
    first = fingerprint(name, given.parameters)
    assert first == fingerprint(name, dict(reversed(given.parameters.items())))
    assert first == fingerprint(name, {**given.parameters, **given.neutral})
    assert first != fingerprint(name, {**given.parameters, **given.other})
    assert 8 <= len(first) <= 64


@pytest.mark.parametrize("name", NAMES)
def test_a_frame_with_a_label_of_these_settings_is_not_computed_again_one_of_others_is(name: str, case: Any) -> None:
    given = case(name)
    engine = load_engine("label", name)
    if not issubclass(engine, FrameLabelEngine):
        pytest.skip("one job sorts its frames itself: tests/kernel/labelling")
    frames = []
    for k, found in enumerate((fingerprint(name, given.parameters), "another")):
        atoms = silicon(k)
        atoms.info.update(REF_energy=-1.0, status="labelled", fingerprint=found)
        atoms.arrays["REF_forces"] = atoms.positions * 0.0
        frames.append(atoms)
    assert len(engine.plan_jobs(request_of(name, frames, given.parameters))) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_magnetic_frame_is_never_labelled_as_one_of_another_start(name: str, case: Any, resources: Any) -> None:
    given = case(name)
    engine = load_engine("label", name)
    if not issubclass(engine, FrameLabelEngine):
        pytest.skip("one job labels each of its frames for itself")
    frames = [silicon(), silicon()]
    frames[0].set_initial_magnetic_moments([1.0, 1.0])
    frames[1].set_initial_magnetic_moments([1.0, -1.0])
    request = request_of(name, frames, given.parameters)
    keys = engine.plan_jobs(request)
    assert len(set(keys)) == 2
    structures = [engine.prepare_job(key, request, resources(given), None) for key in keys]
    assert len({str(job.inputs) for job in structures}) == 2


@pytest.mark.parametrize("name", NAMES)
def test_a_charged_frame_is_never_labelled_as_a_neutral_one(name: str, case: Any, resources: Any) -> None:
    """Its charge is in the inputs of the job; the engine ase leaves it to the kernel."""
    given = case(name)
    engine = load_engine("label", name)
    if not issubclass(engine, FrameLabelEngine):
        pytest.skip("the kernel refuses it: tests/kernel/labelling")
    atoms = silicon()
    atoms.info["charge"] = 2.0
    request = request_of(name, [atoms], given.parameters)
    (key,) = engine.plan_jobs(request)
    charged = engine.prepare_job(key, request, resources(given), None)
    plain = request_of(name, [silicon()], given.parameters)
    (key,) = engine.plan_jobs(plain)
    assert _values(charged.inputs) != _values(engine.prepare_job(key, plain, resources(given), None).inputs)


def _values(inputs: Any) -> list[Any]:
    """Return the content of the Dict nodes among nested inputs."""
    found = []
    for key in sorted(inputs):
        value = inputs[key]
        if isinstance(value, orm.Dict):
            found.append(value.get_dict())
        elif hasattr(value, "keys"):
            found += _values(value)
    return found


@pytest.mark.parametrize("name", ["ase", "quantumespresso"])
def test_the_stress_is_the_derivative_of_the_energy(name: str, case: Any, request: Any, serial_options: Any) -> None:
    """The check that users have for engines of their own; of CP2K in test_cp2k.py, of VASP ASE's reading is trusted."""
    given = case(name)
    code, parameters = given.code, given.parameters
    if name == "quantumespresso":
        code = request.getfixturevalue("pw_code")
        parameters = {**parameters, "kpoints_distance": 0.6, "cutoffs": {"wavefunction": 25, "density": 100}}
    _, node = run_get_node(
        LabellingWorkChain,
        code=code,
        engine=orm.Str(name),
        frames=PESData.from_frames([silicon()]),
        parameters=orm.Dict(parameters),
        options=orm.Dict(serial_options),
        check_stress=orm.Bool(True),
    )
    assert node.is_finished_ok, node.exit_message
    (verdict,) = [call.outputs.verdict for call in node.called if call.process_label == "take_stress_probes"]
    assert verdict["outcome"] == "right", verdict["reason"]
    assert len(node.outputs.labelled) == 1


CP2K_OUTPUT = """
 MODULE QUICKSTEP: ATOMIC COORDINATES IN ANGSTROM

   Atom Kind Element         X             Y             Z       Z(eff)     Mass
      1    1 Si   14      0.000000      0.000000      0.000000   4.0000  28.0850
      2    1 Si   14      1.400000      1.300000      1.300000   4.0000  28.0850

 ENERGY| Total FORCE_EVAL ( QS ) energy [hartree]              -7.500000000000000

 FORCES| Atomic forces [hartree/bohr]
 FORCES|   Atom     x               y               z               |f|
 FORCES|      1  1.00000000E-02  0.00000000E+00  0.00000000E+00   1.00000000E-02
 FORCES|      2 -1.00000000E-02  0.00000000E+00  0.00000000E+00   1.00000000E-02

 STRESS| Analytical stress tensor [GPa]
 STRESS|                        x                   y                   z
 STRESS|      x        1.00000000000E+00   6.00000000000E+00   5.00000000000E+00
 STRESS|      y        6.00000000000E+00   2.00000000000E+00   4.00000000000E+00
 STRESS|      z        5.00000000000E+00   4.00000000000E+00   3.00000000000E+00
"""
"""Under compression: CP2K prints the pressure tensor."""


def _cp2k_output() -> tuple[Atoms, dict[str, bytes], dict[str, Any]]:
    cell = 2.6 * (1 - np.eye(3))
    atoms = Atoms("Si2", positions=[[0, 0, 0], [1.4, 1.3, 1.3]], cell=cell, pbc=True)
    forces = np.array([[1.0, 0, 0], [-1.0, 0, 0]]) * 0.01 * Hartree / Bohr
    expected = {"energy": -7.5 * Hartree, "forces": forces, "stress": -np.arange(1, 7) * GPa}
    return atoms, {"aiida.out": CP2K_OUTPUT.encode()}, expected


def _vasp_output() -> tuple[Atoms, dict[str, bytes], dict[str, Any]]:
    folder = Path(__file__).parent / "vasp" / "records" / "silicon_static"
    found = read(folder / "out" / "vasprun.xml", format="vasp-xml")
    expected = {
        "energy": found.get_potential_energy(force_consistent=True),
        "forces": found.get_forces(),
        "stress": found.get_stress(),
    }
    atoms = read(folder / "inp" / "POSCAR", format="vasp")
    return atoms, {"vasprun.xml": (folder / "out" / "vasprun.xml").read_bytes()}, expected


RECORDED = {"cp2k": _cp2k_output, "vasp": _vasp_output}
"""What a program has left of one frame, by engine, and its labels as ASE or a person reads them."""
COMPUTED = ("ase", "quantumespresso")
"""Engines whose labels are computed in the test of the stress above."""


def test_every_engine_has_an_output_here() -> None:
    assert sorted(NAMES) == sorted((*RECORDED, *COMPUTED)), "record the output of the new engine in this table"


@pytest.mark.parametrize("name", RECORDED)
def test_an_output_gives_labels_in_the_units_and_signs_of_ase(name: str, case: Any, localhost: Any) -> None:
    atoms, files, expected = RECORDED[name]()
    engine, parameters = load_engine("label", name), case(name).parameters
    job = orm.CalcJobNode(computer=localhost)
    job.set_options({"resources": {"num_machines": 1}, "output_filename": "aiida.out"})
    job.store()
    retrieved = orm.FolderData()
    for file, content in files.items():
        retrieved.base.repository.put_object_from_bytes(content, file)
    retrieved.base.links.add_incoming(job, LinkType.CREATE, "retrieved")
    settings = engine.complete(parameters, ("Si",))
    (result,) = engine.read(atoms, {"retrieved": retrieved.store()}, settings)
    for label, value in expected.items():
        np.testing.assert_allclose(result.labels[label], value, rtol=1e-9, atol=1e-9, err_msg=label)
    assert result.parent == job.uuid
    with pytest.raises(ValueError, match=r".+"):
        engine.read(Atoms("Si", cell=atoms.cell, pbc=True), {"retrieved": retrieved}, settings)
