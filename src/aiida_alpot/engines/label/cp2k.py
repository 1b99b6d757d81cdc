"""Labels from CP2K: one ``Cp2kBaseWorkChain`` of aiida-cp2k a frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Final, Literal, cast

import numpy as np
from aiida import orm
from ase import Atoms
from ase.data import atomic_numbers

from aiida_alpot.engines.job import Job, JobResources
from aiida_alpot.engines.label.base import LabelRequest
from aiida_alpot.engines.label.cp2k_input import (
    GAMMA,
    LARGEST_SHIFT,
    OPEN_SHELL,
    box_settings,
    corrections,
    frame_input,
    gives_stress,
    kind_of_element,
    orientation,
)
from aiida_alpot.engines.label.extras import require
from aiida_alpot.engines.label.per_frame import FrameLabelEngine
from aiida_alpot.kernel.labelling.boxes import DEFAULT_VACUUM, put_into_box, spin_moments
from aiida_alpot.kernel.labelling.cp2k_output import U_ENERGY, find_abort, parse_cp2k_output
from aiida_alpot.kernel.labelling.hubbard import parse_hubbard
from aiida_alpot.kernel.labelling.refusals import Rule, is_false, refuse, within
from aiida_alpot.kernel.labelling.results import Result
from aiida_alpot.kernel.labelling.settings import fingerprint_of
from aiida_alpot.kernel.settings import SettingsError, parse_settings, unknown_key_message

PROTOCOLS: Final[Mapping[str, Mapping[str, Any]]] = {
    "fast": {"cutoff": 300.0, "rel_cutoff": 40.0, "eps_scf": 1e-5, "kpoints_distance": 0.3, "basis": "DZVP"},
    "balanced": {"cutoff": 500.0, "rel_cutoff": 60.0, "eps_scf": 1e-6, "kpoints_distance": 0.15, "basis": "DZVP"},
    "stringent": {"cutoff": 800.0, "rel_cutoff": 80.0, "eps_scf": 1e-7, "kpoints_distance": 0.1, "basis": "TZVP"},
}
"""What is not given otherwise: cut-offs in Ry, convergence, distance of k-points in 1/Å, quality of the basis."""
FUNCTIONALS: Final[Mapping[str, tuple[Mapping[str, Any], str, str | None]]] = {
    "PBE": ({"PBE": {"PARAMETRIZATION": "ORIG"}}, "GTH-PBE", "PBE"),
    "PBEsol": ({"PBE": {"PARAMETRIZATION": "PBESOL"}}, "GTH-PBE", "PBEsol"),
    "revPBE": ({"PBE": {"PARAMETRIZATION": "REVPBE"}}, "GTH-PBE", "revPBE"),
    "BLYP": ({"BLYP": {}}, "GTH-BLYP", "BLYP"),
    "BP": ({"BP": {}}, "GTH-BP", "BP"),
    "PADE": ({"PADE": {}}, "GTH-PADE", None),
}
"""Content of XC_FUNCTIONAL, pseudopotentials, and the functional that the parameters of DFT-D3 are for."""
SECTIONS: Final = ("GLOBAL", "FORCE_EVAL")
SPIN_KEYS: Final = (
    *("UKS", "UNRESTRICTED_KOHN_SHAM", "LSD", "SPIN_POLARIZED", "ROKS", "RESTRICTED_OPEN_KOHN_SHAM"),
    *("MULTIPLICITY", "RELAX_MULTIPLICITY"),
)
MANAGED: Final[Mapping[str, str]] = {
    "GLOBAL.RUN_TYPE": "a label is a single point with forces",
    "GLOBAL.PROJECT": "aiida-cp2k names the files",
    "FORCE_EVAL.METHOD": "labels are of Quickstep",
    "FORCE_EVAL.RESCALE_FORCES": "labels have the forces that derive from the energy",
    "FORCE_EVAL.STRESS_TENSOR": "it follows from the periodicity of the frame",
    "FORCE_EVAL.PRINT.FORCES": "labels are read from what it prints",
    "FORCE_EVAL.PRINT.STRESS_TENSOR": "labels are read from what it prints",
    "FORCE_EVAL.SUBSYS": "it follows from the frame, basis_set and potential",
    **dict.fromkeys(
        [f"FORCE_EVAL.DFT.{key}" for key in ("CHARGE", "POISSON")], "it follows from the charge and periodicity"
    ),
    **dict.fromkeys(
        [f"FORCE_EVAL.DFT.{key}" for key in SPIN_KEYS],
        "moments belong to the frames, or to label.parameters.magnetic_moments",
    ),
    "FORCE_EVAL.DFT.KPOINTS": "give label.parameters.kpoints_distance",
    "FORCE_EVAL.DFT.BASIS_SET_FILE_NAME": "give label.parameters.basis_set_files",
    "FORCE_EVAL.DFT.POTENTIAL_FILE_NAME": "give label.parameters.potential_file",
    "FORCE_EVAL.DFT.MGRID.CUTOFF": "give label.parameters.cutoff",
    "FORCE_EVAL.DFT.MGRID.REL_CUTOFF": "give label.parameters.rel_cutoff",
    "FORCE_EVAL.DFT.SCF.EPS_SCF": "give label.parameters.eps_scf",
    "FORCE_EVAL.DFT.SCF.OUTER_SCF.EPS_SCF": "give label.parameters.eps_scf",
    "FORCE_EVAL.DFT.SCF.SMEAR": "give label.parameters.electronic_type and electronic_temperature",
    "FORCE_EVAL.DFT.XC.XC_FUNCTIONAL": "give label.parameters.functional",
    "FORCE_EVAL.DFT.XC.VDW_POTENTIAL": "give label.parameters.vdw",
}
"""What cannot be set by ``parameters``, and why."""
CONVERGENCE: Final = (
    *("MAX_SCF", "MAX_SCF_HISTORY", "MAX_DIIS", "EPS_DIIS", "LEVEL_SHIFT", "MIXING", "DIAGONALIZATION", "CHOLESKY"),
    *("OT", "OUTER_SCF.MAX_SCF", "OUTER_SCF.OPTIMIZER", "OUTER_SCF.STEP_SIZE", "OUTER_SCF.DIIS_BUFFER_LENGTH", "PRINT"),
)
"""Keys and sections of SCF that change how CP2K gets to the ground state, not which."""
NEUTRAL: Final = (
    "GLOBAL",
    "FORCE_EVAL.PRINT",
    "FORCE_EVAL.DFT.PRINT",
    *(f"FORCE_EVAL.DFT.SCF.{key}" for key in CONVERGENCE),
)
"""Keys and sections that do not enter the fingerprint."""
RETRIES: Final = (
    {
        "MAX_SCF": 200,
        "OT": OPEN_SHELL,
        "MIXING": {"METHOD": "BROYDEN_MIXING", "ALPHA": 0.05, "NBROYDEN": 12},
    },
)
LIMITS: Final[Mapping[str, Rule]] = {
    "cutoff": Rule(within(50.0, 3000.0), "it is in Ry, expected between 50 and 3000 (1 Ry = 13.606 eV)"),
    "rel_cutoff": Rule(within(10.0, 500.0), "it is in Ry, expected between 10 and 500 (1 Ry = 13.606 eV)"),
    "electronic_temperature": Rule(within(1.0, 1e5), "it is in K (0.1 eV is 1160 K); give e.g. 1000"),
}
"""Rules of settings whose unit is easily mistaken."""
NO_LABEL: Final[Mapping[str, Rule]] = {
    "force_eval.dft.qs.eps_default": Rule(
        within(1e-20, 1e-6), "forces are noise above 1e-6; give 1e-12, or leave it out"
    ),
    "force_eval.dft.scf.max_scf": Rule(within(1, 1e6), "without an electronic loop there is no label; leave it out"),
    "force_eval.dft.scf.ignore_convergence_failure": Rule(
        is_false, "a loop that did not converge is no label; leave it out"
    ),
}
"""Rules of the input, by path in lower case."""
LARGEST_EPS_SCF: Final = 1e-3
"""Convergence above which energies are off by more than any potential."""


@dataclass(frozen=True)
class Cp2kSettings:
    """How CP2K labels frames.

    :param protocol: fast, balanced or stringent, see :data:`PROTOCOLS`; it gives what is not given here.
    :param functional: a name of :data:`FUNCTIONALS`, or the content of the section XC_FUNCTIONAL; for the latter give
        the ``potential`` of every element.
    :param basis_set: by element; by default DZVP-MOLOPT-SR-GTH, or TZVP-MOLOPT for a stringent protocol.
    :param potential: by element; by default GTH pseudopotentials of the functional.
    :param basis_set_files: in which CP2K looks for the basis sets, in this order.
    :param potential_file: in which it looks for the pseudopotentials.
    :param cutoff: of the finest grid, Ry; equal for all frames.
    :param rel_cutoff: of the grid of a Gaussian of exponent one, Ry.
    :param eps_scf: convergence of the electronic loop, see EPS_SCF of CP2K.
    :param kpoints_distance: largest distance between k-points along periodic axes, 1/Å, one point along the others;
        that of the protocol if None. ``"gamma"`` for the point Γ alone.
    :param electronic_type: ``"metal"`` smears the occupations, and diagonalises; ``"insulator"`` fixes them, and takes
        the orbital transformation where Γ is the only point.
    :param electronic_temperature: of the Fermi-Dirac smearing of a metal, K.
    :param magnetic_moments: starting moments by element, μB; frames with moments of their own keep these. Without
        smearing their sum is the moment of the frame. None for no spin polarisation, but that of isolated atoms, which
        follow Hund's rule, and of frames with an odd number of electrons.
    :param hubbard: effective U (Dudarev) in eV by element and manifold, e.g. ``{"Fe-3d": 4.0}``, of all frames alike.
        CP2K corrects all functions of the basis with the angular momentum of the manifold. It has no U with k-points,
        and no right stress with U: such frames have none.
    :param vacuum: between images along axes that are not periodic, at least, Å.
    :param vdw: ``"DFTD3"`` or ``"DFTD3(BJ)"``, with the parameters of the functional; None for no dispersion.
    :param parameters: of the input of CP2K, nested, to set or add; null removes one.
    :param retries: keys of the section SCF for further attempts at a frame that did not converge; only those that do
        not change the result.
    :param max_restarts: attempts that ``Cp2kBaseWorkChain`` makes by its own rules, before one of ours.
    """

    protocol: Literal["fast", "balanced", "stringent"] = "balanced"
    functional: Literal["PBE", "PBEsol", "revPBE", "BLYP", "BP", "PADE"] | Mapping[str, Any] = "PBE"
    basis_set: Mapping[str, str] = field(default_factory=dict)
    potential: Mapping[str, str] = field(default_factory=dict)
    basis_set_files: tuple[str, ...] = ("BASIS_MOLOPT", "BASIS_MOLOPT_UCL")
    potential_file: str = "GTH_POTENTIALS"
    cutoff: float | None = None
    rel_cutoff: float | None = None
    eps_scf: float | None = None
    kpoints_distance: float | Literal["gamma"] | None = None
    electronic_type: Literal["metal", "insulator"] = "metal"
    electronic_temperature: float = 1000.0
    magnetic_moments: Mapping[str, float] | None = None
    hubbard: Mapping[str, float] | None = None
    vacuum: float = DEFAULT_VACUUM
    vdw: Literal["DFTD3", "DFTD3(BJ)"] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    retries: tuple[Mapping[str, Any], ...] = RETRIES
    max_restarts: int = 2

    def __post_init__(self) -> None:
        self._check_numbers()
        if not self.functional:
            raise SettingsError(
                "functional must name one, or hold the content of the section XC_FUNCTIONAL; it is empty"
            )
        for name in ("basis_set", "potential", "magnetic_moments"):
            for symbol in getattr(self, name) or {}:
                if symbol not in atomic_numbers:
                    raise SettingsError(f"{name}: {symbol!r} is not a chemical symbol")
        if self.vdw is not None and self.d3_functional is None:
            raise SettingsError(f"vdw: there are no parameters of {self.vdw} for this functional")
        _check_parameters(self.parameters)
        parse_hubbard(self.hubbard)
        for attempt in self.retries:
            for path, _ in _leaves(_capitalised(attempt)):
                if not _is_below(path, CONVERGENCE):
                    raise SettingsError(f"retries: {path!r} would change the label; use only keys of convergence")

    def _check_numbers(self) -> None:
        for name in ("cutoff", "rel_cutoff", "eps_scf", "kpoints_distance", "electronic_temperature", "vacuum"):
            value = getattr(self, name)
            if isinstance(value, float) and not value > 0:
                raise SettingsError(f"{name} must be positive, got {value}")
        refuse(vars(self), LIMITS)
        if self.max_restarts < 1:
            raise SettingsError(f"max_restarts must be at least 1, got {self.max_restarts}")
        if self.eps_scf is not None and self.eps_scf > LARGEST_EPS_SCF:
            raise SettingsError(
                f"eps_scf must be at most {LARGEST_EPS_SCF:g}, or labels are noise, got {self.eps_scf:g}"
            )

    @property
    def d3_functional(self) -> str | None:
        """Functional that the parameters of DFT-D3 are for."""
        return FUNCTIONALS[self.functional][2] if isinstance(self.functional, str) else None


def _check_parameters(parameters: Mapping[str, Any]) -> None:
    for name, content in _capitalised(parameters).items():
        if name not in SECTIONS:
            raise SettingsError(unknown_key_message(name, SECTIONS, "parameters"))
        if not isinstance(content, Mapping):
            raise SettingsError(f"parameters.{name}: expected a mapping, got {content!r}")
    for path, _ in _leaves(_capitalised(parameters)):
        for key, why in MANAGED.items():
            if _is_below(path, (key,)) or key.startswith(f"{path}."):
                raise SettingsError(f"parameters.{path} cannot be set: {why}")
    refuse(dict(_leaves(_capitalised(parameters))), NO_LABEL, "parameters.")


class Cp2kLabelEngine(FrameLabelEngine):
    """Quickstep of CP2K (Gaussians and plane waves) through the ``Cp2kBaseWorkChain`` of aiida-cp2k.

    The energy is the total one of FORCE_EVAL. With smearing it is the free energy E - TS, of which the forces are the
    derivative. It is not extrapolated to zero temperature.
    """

    NAME: ClassVar[str] = "cp2k"
    SETTINGS: ClassVar[type[Any]] = Cp2kSettings
    PLUGIN: ClassVar[str | None] = "cp2k"
    OUTPUTS: ClassVar[tuple[str, ...]] = ("retrieved",)
    RETRIED: ClassVar[frozenset[int]] = frozenset({302, 400, 401})

    @classmethod
    def complete(cls, parameters: Mapping[str, Any], symbols: Sequence[str]) -> dict[str, Any]:
        """Settle what the protocol and the functional give; refuse an element without basis set or pseudopotential."""
        settings = parse_settings(Cp2kSettings, parameters, "label.parameters")
        completed = {**asdict(settings), **_functional(settings)}
        for name, value in PROTOCOLS[settings.protocol].items():
            if completed.get(name) is None:
                completed[name] = value
        completed["basis_set_files"] = list(settings.basis_set_files)
        completed["parameters"] = _capitalised(settings.parameters)
        completed["retries"] = [_capitalised(attempt) for attempt in settings.retries]
        for symbol in symbols:
            kind_of_element(symbol, completed)
        return completed

    @classmethod
    def fingerprint(cls, settings: Mapping[str, Any]) -> str:
        """Functional, basis sets, pseudopotentials, cut-offs, k-points and all else that changes the ground state."""
        names = (
            *("functional", "pseudopotentials", "d3_functional", "vdw", "basis", "basis_set", "basis_set_files"),
            *("potential", "potential_file", "cutoff", "rel_cutoff", "eps_scf", "kpoints_distance"),
            *("electronic_type", "magnetic_moments", "vacuum"),
        )
        content = {name: settings[name] for name in names}
        if settings["electronic_type"] == "metal":
            content["electronic_temperature"] = settings["electronic_temperature"]
        if settings["hubbard"]:
            content["hubbard"] = settings["hubbard"]
        content["parameters"] = {
            path: value for path, value in _leaves(settings["parameters"]) if not _is_below(path, NEUTRAL)
        }
        return fingerprint_of({"engine": cls.NAME, **content})

    @classmethod
    def structure_settings(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Boxes twice as large as what is not periodic, as the Poisson solver of Martyna and Tuckerman demands."""
        return {**box_settings(settings), "moments": settings["magnetic_moments"]}

    @classmethod
    def build(cls, atoms: Atoms, structure: orm.StructureData, request: LabelRequest, resources: JobResources) -> Job:
        """Return a ``Cp2kBaseWorkChain`` for one frame.

        :raises ValueError: if CP2K would label another frame than this one, see :func:`frame_input`.
        """
        settings = request.settings
        kpoints = orm.KpointsData()
        kpoints.set_cell_from_structure(structure)
        mesh = GAMMA
        if settings["kpoints_distance"] != "gamma":
            kpoints.set_kpoints_mesh_from_density(settings["kpoints_distance"])
            mesh = tuple(kpoints.get_kpoints_mesh()[0])
        calculation = {
            "code": resources.code,
            "structure": structure,
            "parameters": orm.Dict(frame_input(atoms, mesh, settings, resources.n_before)),
            "metadata": {"options": {"parser_name": "alpot.cp2k", **resources.options}},
        }
        if mesh != GAMMA:
            calculation["kpoints"] = kpoints
        # not a builder, whose empty namespaces aiida-cp2k takes for basis sets that are given and lack an element
        inputs = {
            "cp2k": calculation,
            "max_iterations": orm.Int(settings["max_restarts"]),
            "handler_overrides": orm.Dict({"restart_incomplete_calculation": {"enabled": True}}),
            "metadata": {"call_link_label": resources.label, "label": resources.label},
        }
        return Job(_workchain(), inputs)

    @classmethod
    def explain(cls, job: orm.ProcessNode) -> str:
        """Return what CP2K writes into the box with its last words."""
        calculations = [call for call in job.called if isinstance(call, orm.CalcJobNode)]
        if not calculations or "retrieved" not in calculations[-1].outputs:
            return ""
        return find_abort(_output(calculations[-1].outputs.retrieved))

    @classmethod
    def read(cls, atoms: Atoms, outputs: Mapping[str, orm.Node], settings: Mapping[str, Any]) -> Sequence[Result]:
        """Return energy, forces and, see :func:`gives_stress`, stress in the units and signs of ASE."""
        retrieved = cast(orm.FolderData, outputs["retrieved"])
        text = _output(retrieved)
        found = parse_cp2k_output(text)
        if corrections(atoms, settings) and U_ENERGY not in text:
            raise ValueError("CP2K computed it without the Hubbard U")
        boxed = put_into_box(atoms, **box_settings(settings))
        if found.symbols != list(boxed.symbols):
            raise ValueError(f"the output of CP2K is of {found.symbols}, the frame of {boxed.symbols}")
        moved = np.linalg.solve(boxed.cell.array.T, (found.positions - boxed.positions).T).T
        if np.max(np.abs((moved - np.round(moved)) @ boxed.cell.array)) > LARGEST_SHIFT:
            raise ValueError(
                "the atoms in the output of CP2K are not where those of the frame are, or in another order"
            )
        labels: dict[str, Any] = {"energy": found.energy, "forces": found.forces}
        if gives_stress(atoms, settings):
            if found.stress is None:
                raise ValueError("there is no stress in the output of CP2K")
            labels["stress"] = found.stress
        if found.magmoms is not None:
            labels["magmoms"] = found.magmoms * orientation(spin_moments(atoms, settings["magnetic_moments"]))
        return [Result(labels, cost=found.cost, parent=str(retrieved.creator.uuid))]


def _functional(settings: Cp2kSettings) -> dict[str, Any]:
    """Return content of XC_FUNCTIONAL, default pseudopotentials and parameters of DFT-D3."""
    if not isinstance(settings.functional, str):
        return {"functional": _capitalised(settings.functional), "pseudopotentials": None, "d3_functional": None}
    content, pseudopotentials, d3_functional = FUNCTIONALS[settings.functional]
    return {"functional": dict(content), "pseudopotentials": pseudopotentials, "d3_functional": d3_functional}


def _output(retrieved: orm.FolderData) -> str:
    """Return what CP2K printed, ``""`` for nothing."""
    name = retrieved.creator.get_option("output_filename")
    if name not in retrieved.list_object_names():
        return ""
    return retrieved.get_object_content(name, mode="rb").decode("utf-8", errors="replace")


def _capitalised(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tree of sections with its keys in capitals, as aiida-cp2k wants them."""
    return {
        key.upper(): _capitalised(value) if isinstance(value, Mapping) else deepcopy(value)
        for key, value in tree.items()
    }


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path of every key that holds a value or nothing, ``SECTION.SECTION.KEY``, and what it holds."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _is_below(path: str, places: Sequence[str]) -> bool:
    """Return whether a path is one of these keys, or in one of these sections."""
    return any(path == place or path.startswith(f"{place}.") for place in places)


def _workchain() -> Any:
    require("aiida_cp2k", "cp2k")
    from aiida_cp2k.workchains.base import Cp2kBaseWorkChain

    return Cp2kBaseWorkChain
