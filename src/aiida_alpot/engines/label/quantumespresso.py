"""Labels from pw.x: one ``PwBaseWorkChain`` a frame."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Final, Literal

import numpy as np
from aiida import orm
from ase import Atoms
from ase.data import atomic_numbers
from ase.stress import full_3x3_to_voigt_6_stress
from ase.units import GPa, Ry

from aiida_alpot.engines.job import Job, JobResources
from aiida_alpot.engines.label import pw_calculation
from aiida_alpot.engines.label.base import LabelRequest
from aiida_alpot.engines.label.extras import require
from aiida_alpot.engines.label.finished import FinishedCalculation, expect_kpoints, refuse_to_compare, to_atoms
from aiida_alpot.engines.label.per_frame import FrameLabelEngine, last_calculation
from aiida_alpot.engines.label.pw_namelists import (
    LIMITS,
    NAMELISTS,
    NEUTRAL,
    check_cutoffs,
    check_namelists,
    lower_keys,
)
from aiida_alpot.kernel.labelling.boxes import (
    DEFAULT_VACUUM,
    is_isolated_atom,
    name_kinds,
    spin_moments,
    starting_moments,
)
from aiida_alpot.kernel.labelling.hubbard import parse_hubbard
from aiida_alpot.kernel.labelling.refusals import refuse
from aiida_alpot.kernel.labelling.results import Result
from aiida_alpot.kernel.labelling.settings import fingerprint_of
from aiida_alpot.kernel.settings import SettingsError, parse_settings, unknown_key_message

DISPERSION: Final = ("grimme-d2", "grimme-d3", "dft-d", "dft-d3", "ts", "ts-vdw", "tkatchenko-scheffler", "xdm")
"""Values of ``vdw_corr`` that every pw.x from version 6.7 on knows."""
UNREADABLE: Final = 305
"""Exit code of a calculation of which neither stdout nor XML can be read."""
CRASH: Final = "CRASH"
"""File to which pw.x writes an error that it ends with."""


@dataclass(frozen=True)
class QuantumEspressoSettings:
    """How pw.x labels frames.

    :param protocol: of aiida-quantumespresso: fast, balanced or stringent. It gives what is not given here.
    :param pseudo_family: label of an installed family of pseudopotentials; that of the protocol if None.
    :param cutoffs: ``{"wavefunction": …, "density": …}`` in Ry; if None the largest that the family recommends for a
        species of the dataset. They are the same for all frames.
    :param kpoints_distance: largest distance between k-points along periodic axes, 1/Å; one point along the others.
    :param conv_thr_per_atom: threshold of the electronic loop, Ry/atom; that of the protocol if None.
    :param electronic_type: ``"metal"`` smears the occupations; ``"insulator"`` fixes them.
    :param magnetic_moments: starting moments by element, μB; frames with moments of their own keep these. None for no
        spin polarisation, but that of isolated atoms, which follow Hund's rule.
    :param isolated: what to do about the images of a molecule: ``"martyna-tuckerman"``, ``"makov-payne"`` or
        ``"none"``. Slabs always take ``assume_isolated = '2D'``.
    :param vacuum: between images along axes that are not periodic, at least, Å.
    :param hubbard: U in eV by element and manifold, e.g. ``{"Fe-3d": 4.0}``, of all frames alike: pw.x 7.1 or newer.
        They become ``HubbardStructureData``.
    :param vdw: ``vdw_corr`` of pw.x, one of :data:`DISPERSION`, e.g. ``"grimme-d3"``; None for none.
    :param parameters: keys of the namelists CONTROL, SYSTEM and ELECTRONS to set.
    :param retries: namelist ELECTRONS of further attempts at a frame that did not converge; only keys that do not
        change the result.
    :param max_restarts: attempts that ``PwBaseWorkChain`` makes by its own rules, before one of ours.
    """

    protocol: Literal["fast", "balanced", "stringent"] = "balanced"
    pseudo_family: str | None = None
    cutoffs: Mapping[str, float] | None = None
    kpoints_distance: float | None = None
    conv_thr_per_atom: float | None = None
    electronic_type: Literal["metal", "insulator"] = "metal"
    magnetic_moments: Mapping[str, float] | None = None
    isolated: Literal["none", "martyna-tuckerman", "makov-payne"] = "martyna-tuckerman"
    vacuum: float = DEFAULT_VACUUM
    hubbard: Mapping[str, float] | None = None
    vdw: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    retries: tuple[Mapping[str, Any], ...] = (
        {"mixing_beta": 0.1, "mixing_mode": "local-TF", "mixing_ndim": 12, "electron_maxstep": 200},
    )
    max_restarts: int = 3

    def __post_init__(self) -> None:
        for name in ("kpoints_distance", "conv_thr_per_atom", "vacuum"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise SettingsError(f"{name} must be positive, got {value}")
        for symbol in self.magnetic_moments or {}:
            if symbol not in atomic_numbers:
                raise SettingsError(f"magnetic_moments: {symbol!r} is not a chemical symbol")
        for attempt in self.retries:
            unknown = set(attempt) - NEUTRAL["ELECTRONS"]
            if unknown:
                raise SettingsError(f"retries: {min(unknown)!r} would change the label; use only keys of convergence")
        if self.vdw is not None and self.vdw not in DISPERSION:  # pw.x passes over what it does not know
            raise SettingsError(unknown_key_message(self.vdw, DISPERSION, "vdw"))
        refuse(vars(self), LIMITS)
        if self.cutoffs is not None:
            check_cutoffs(self.cutoffs)
        check_namelists(self.parameters, is_insulator=self.electronic_type == "insulator")
        parse_hubbard(self.hubbard)


class QuantumEspressoLabelEngine(FrameLabelEngine):
    """pw.x through ``PwBaseWorkChain`` and its protocols.

    The energy is the one that pw.x marks with an exclamation mark. With smearing it is the free energy E - TS, of
    which the forces are the derivative. It is not extrapolated to zero temperature.
    """

    NAME: ClassVar[str] = "quantumespresso"
    SETTINGS: ClassVar[type[Any]] = QuantumEspressoSettings
    PLUGIN: ClassVar[str | None] = "quantumespresso.pw"
    OUTPUTS: ClassVar[tuple[str, ...]] = ("output_parameters", "output_trajectory")
    RETRIED: ClassVar[frozenset[int]] = frozenset({302, 401})
    CALCULATIONS: ClassVar[Mapping[str, frozenset[int]]] = {pw_calculation.PROCESS_TYPE: pw_calculation.EXITS}

    @classmethod
    def complete(cls, parameters: Mapping[str, Any], symbols: Sequence[str]) -> dict[str, Any]:
        """Settle the family of pseudopotentials, the cut-offs and what the protocol gives."""
        settings = parse_settings(QuantumEspressoSettings, parameters, "label.parameters")
        inputs = _workchain().get_protocol_inputs(settings.protocol)
        family = load_family(settings.pseudo_family or inputs["pseudo_family"])
        missing = sorted(set(symbols) - set(family.elements))
        if missing:
            raise ValueError(
                f"the pseudopotential family {family.label!r} has none for {', '.join(missing)}; "
                "name one that has: label.parameters.pseudo_family"
            )
        completed = asdict(settings)
        completed["pseudo_family"] = family.label
        completed["pseudos"] = _family_hash(family)
        completed["cutoffs"] = dict(settings.cutoffs or _recommended_cutoffs(family, symbols))
        completed["kpoints_distance"] = settings.kpoints_distance or inputs["kpoints_distance"]
        completed["conv_thr_per_atom"] = settings.conv_thr_per_atom or inputs["meta_parameters"]["conv_thr_per_atom"]
        given = {name: dict(inputs["pw"]["parameters"].get(name, {})) for name in NAMELISTS}
        changed = {name: lower_keys(settings.parameters.get(name, {})) for name in NAMELISTS}
        completed["parameters"] = {name: {**given[name], **changed[name]} for name in NAMELISTS}
        completed["retries"] = [dict(attempt) for attempt in settings.retries]
        return completed

    @classmethod
    def fingerprint(cls, settings: Mapping[str, Any]) -> str:
        """Pseudopotentials, cut-offs, k-points, functional and all else that changes the ground state."""
        names = ("pseudos", "cutoffs", "kpoints_distance", "electronic_type", "magnetic_moments", "isolated", "vacuum")
        content = {name: settings[name] for name in (*names, "vdw", "conv_thr_per_atom")}
        if settings["hubbard"]:
            content["hubbard"] = settings["hubbard"]
        content["parameters"] = {
            name: {key: value for key, value in entries.items() if key not in NEUTRAL[name]}
            for name, entries in settings["parameters"].items()
        }
        return fingerprint_of({"engine": cls.NAME, **content})

    @classmethod
    def structure_settings(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Boxes around what is not periodic, cubic where the images are corrected for."""
        return {
            "vacuum": settings["vacuum"],
            "cubic": settings["isolated"] != "none",
            "doubled": True,  # assume_isolated = '2D' cuts the interaction off at half the cell
            "moments": settings["magnetic_moments"],
            "hubbard": settings["hubbard"],
        }

    @classmethod
    def build(cls, atoms: Atoms, structure: orm.StructureData, request: LabelRequest, resources: JobResources) -> Job:
        """Return a ``PwBaseWorkChain`` for one frame."""
        from aiida_quantumespresso.common.types import ElectronicType, SpinType

        settings = request.settings
        moments = spin_moments(atoms, settings["magnetic_moments"])
        spin = {"spin_type": SpinType.NONE}
        if moments is not None:
            _, of_kind = name_kinds(list(atoms.symbols), moments)
            if len(atoms) == 1:
                of_kind = {structure.get_kind_names()[0]: float(moments[0])}
            spin = {"spin_type": SpinType.COLLINEAR, "initial_magnetic_moments": of_kind}
        overrides = {
            "pseudo_family": settings["pseudo_family"],
            "kpoints_distance": settings["kpoints_distance"],
            "max_iterations": settings["max_restarts"],
            "pw": {"parameters": frame_parameters(atoms, settings, resources.n_before)},
        }
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This protocol was developed for fully periodic")
            builder = _workchain().get_builder_from_protocol(
                resources.code,
                structure,
                protocol=settings["protocol"],
                overrides=overrides,
                electronic_type=ElectronicType[settings["electronic_type"].upper()],
                options=dict(resources.options),
                **spin,
            )
        builder.metadata = {"call_link_label": resources.label, "label": resources.label}
        return Job(_workchain(), builder)

    @classmethod
    def was_lost(cls, job: orm.ProcessNode) -> bool:
        """Return whether the machine stopped the last calculation.

        Neither stdout nor XML can be read (305) of one that died in the middle of its work, but also of one that pw.x
        ended with an error, and of an executable that does not run at all. Only the first is lost: it has begun to
        write and says nothing of an error.
        """
        last = last_calculation(job)
        if last is None or last.exit_status != UNREADABLE:
            return super().was_lost(job)
        return bool(_read_retrieved(last, last.get_option("output_filename")).strip()) and not cls.explain(job)

    @classmethod
    def explain(cls, job: orm.ProcessNode) -> str:
        """Return the message that pw.x frames with percent signs, in its output or in the file CRASH."""
        last = last_calculation(job)
        if last is None:
            return ""
        for name in (last.get_option("output_filename"), CRASH):
            text = _read_retrieved(last, name)
            found = re.search(r"%{20,}\s*\n(.*?)\n\s*%{20,}", text, re.DOTALL)
            if found is not None:
                return " ".join(found.group(1).split())
            if name == CRASH and text.strip():
                return " ".join(text.split())
        return ""

    @classmethod
    def read(cls, atoms: Atoms, outputs: Mapping[str, orm.Node], settings: Mapping[str, Any]) -> Sequence[Result]:
        """Return energy, forces and, for a frame periodic along all axes, stress in the units and signs of ASE."""
        has_correction = any(u.symbol in atoms.symbols for u in parse_hubbard(settings["hubbard"]))
        if has_correction and not outputs["output_parameters"].get_dict().get("lda_plus_u_calculation"):
            raise ValueError("pw.x computed it without the Hubbard U: it is older than 7.1 and passes over the card")
        return [read_single_point(atoms, outputs)]

    @classmethod
    def inspect_calculation(cls, calculation: orm.CalcJobNode) -> FinishedCalculation:
        """Take single points, relaxations and molecular dynamics of pw.x."""
        return pw_calculation.inspect_pw(calculation, NEUTRAL)

    @classmethod
    def read_calculation(
        cls, atoms: Atoms, nodes: Mapping[str, orm.Node], details: Mapping[str, Any]
    ) -> Sequence[Result | None]:
        """Read a single point as :meth:`read` does, anything else step by step."""
        if details["kind"] == "scf":
            return [read_single_point(atoms, nodes)]
        return pw_calculation.read_pw_steps(atoms, nodes, details)

    @classmethod
    def expect_calculation(cls, structure: orm.StructureData, settings: Mapping[str, Any]) -> FinishedCalculation:
        """Return the namelists, pseudopotentials and mesh that :meth:`build` would give a calculation."""
        atoms = to_atoms(structure)
        refuse_to_compare(atoms, settings)
        columns, points = expect_kpoints(structure, settings["kpoints_distance"])
        columns["scf_threshold"] = settings["conv_thr_per_atom"] * Ry
        family = load_family(settings["pseudo_family"])
        expected = {
            "namelists": pw_calculation.significant(frame_parameters(atoms, settings, 0), NEUTRAL),
            "pseudos": {symbol: family.get_pseudo(symbol).md5 for symbol in set(atoms.symbols)},
            "kpoints": points,
            "hubbard": None,  # refused above
        }
        return FinishedCalculation({}, {}, expected, columns)


def _read_retrieved(calculation: orm.CalcJobNode, name: str | None) -> str:
    """Return the text of a file that came back, ``""`` if it did not."""
    if "retrieved" not in calculation.outputs or name not in calculation.outputs.retrieved.list_object_names():
        return ""
    content: bytes = calculation.outputs.retrieved.get_object_content(name, mode="rb")
    return content.decode("utf-8", errors="replace")


def read_single_point(atoms: Atoms, outputs: Mapping[str, orm.Node]) -> Result:
    """Return energy, forces and, for a frame periodic along all axes, stress in the units and signs of ASE.

    :raises ValueError: if the electronic loop did not converge, or energy or forces are missing.
    """
    parameters = outputs["output_parameters"]
    if "output_trajectory" not in outputs:
        raise ValueError("pw.x printed no forces: set tprnfor")
    steps = outputs["output_trajectory"]
    content = parameters.get_dict()
    converged = content.get("convergence_info", {}).get("scf_conv", {}).get("convergence_achieved", True)
    if not converged:
        raise ValueError("the electronic loop of pw.x did not converge")
    names = set(steps.get_arraynames())
    if "energy" not in content or "forces" not in names:
        raise ValueError("there are no energy and forces in the output of pw.x")
    labels: dict[str, Any] = {"energy": content["energy"], "forces": steps.get_array("forces")[-1]}
    if all(atoms.pbc) and "stress" in names:
        # pw.x: GPa, positive when compressed
        labels["stress"] = full_3x3_to_voigt_6_stress(-steps.get_array("stress")[-1] * GPa)
    if "atomic_magnetic_moments" in names:
        labels["magmoms"] = steps.get_array("atomic_magnetic_moments")[-1]
    cost = float(content.get("wall_time_seconds", np.nan))
    return Result(labels, cost=cost, parent=str(parameters.creator.uuid))


def frame_parameters(atoms: Atoms, settings: Mapping[str, Any], n_before: int) -> dict[str, dict[str, Any]]:
    """Return the namelists of one frame: those of all frames, its charge, and what follows from its periodicity.

    :param n_before: attempts before this one, each with its own way to converge.
    """
    namelists = {name: dict(entries) for name, entries in settings["parameters"].items()}
    kinds = name_kinds(list(atoms.symbols), starting_moments(atoms, settings["magnetic_moments"]))[0]
    system = namelists["SYSTEM"] = _values_of_kinds(namelists["SYSTEM"], sorted(set(kinds)))
    system["ecutwfc"], system["ecutrho"] = settings["cutoffs"]["wavefunction"], settings["cutoffs"]["density"]
    if settings["electronic_type"] == "insulator":
        for key in ("occupations", "smearing", "degauss"):
            system.pop(key, None)
        system["occupations"] = "fixed"
    if settings["vdw"] is not None:
        system["vdw_corr"] = settings["vdw"]
    charge = float(atoms.info.get("charge", 0.0) or 0.0)
    if charge:
        _check_charge(atoms, charge, settings["isolated"])
        system["tot_charge"] = charge
    if not any(atoms.pbc) and settings["isolated"] != "none":
        system["assume_isolated"] = settings["isolated"]
    moments = spin_moments(atoms) if is_isolated_atom(atoms) else None
    if moments is not None:
        system["tot_magnetization"] = float(moments[0])
    namelists["ELECTRONS"]["conv_thr"] = settings["conv_thr_per_atom"] * len(atoms)
    if n_before and settings["retries"]:
        namelists["ELECTRONS"].update(settings["retries"][min(n_before, len(settings["retries"])) - 1])
    return namelists


def _values_of_kinds(system: Mapping[str, Any], kinds: Sequence[str]) -> dict[str, Any]:
    """Return SYSTEM with the values by species that the frame has, which pw.x counts: it can be given no others.

    A value of an element holds for all its kinds. U is switched on only if a species has one: pw.x refuses it
    otherwise.
    """
    found = dict(system)
    for key, value in system.items():
        if isinstance(value, Mapping):
            element = {kind: kind.rstrip("0123456789") for kind in kinds}
            found[key] = {k: value.get(k, value.get(element[k])) for k in kinds if k in value or element[k] in value}
            if not found[key]:
                del found[key]
    has_lost = any(key.lower().startswith("hubbard_") for key in system.keys() - found.keys())
    if has_lost and not any(key.lower().startswith("hubbard_") for key in found):
        found = {key: value for key, value in found.items() if key.lower() != "lda_plus_u"}
    return found


def _check_charge(atoms: Atoms, charge: float, isolated: str) -> None:
    """Refuse a charge whose images nothing takes away: the energy would depend on the size of the box.

    :raises ValueError: for a wire, and for a molecule without a correction.
    """
    n_periodic = int(np.count_nonzero(atoms.pbc))
    if n_periodic == 1 or (n_periodic == 0 and isolated == "none"):
        remedy = "label wires neutral" if n_periodic else "set 'isolated' to martyna-tuckerman or makov-payne"
        raise ValueError(f"the frame has the charge {charge:g} and its energy would depend on the box; {remedy}")


def load_family(label: str) -> Any:
    """Return the installed family of pseudopotentials with this label.

    :raises ValueError: if there is none; the message says how to install one.
    """
    require("aiida_pseudo", "quantumespresso")
    query = orm.QueryBuilder().append(orm.Group, filters={"label": label, "type_string": {"like": "pseudo.family%"}})
    families = query.all(flat=True)
    if not families:
        raise ValueError(
            f"label.parameters.pseudo_family: there is no pseudopotential family {label!r}; "
            "install one (aiida-pseudo install --help) or name another (aiida-pseudo list)"
        )
    return families[0]


def _recommended_cutoffs(family: Any, symbols: Sequence[str]) -> dict[str, float]:
    try:
        wavefunction, density = family.get_recommended_cutoffs(elements=tuple(symbols), unit="Ry")
    except (AttributeError, ValueError) as error:
        raise ValueError(
            f"the pseudopotential family {family.label!r} recommends no cut-offs for {', '.join(symbols)} ({error}); "
            "give label.parameters.cutoffs = {wavefunction: …, density: …} in Ry"
        ) from error
    return {"wavefunction": wavefunction, "density": density}


def _family_hash(family: Any) -> str:
    digest = hashlib.sha256()
    for element in sorted(family.elements):
        digest.update(f"{element}:{family.get_pseudo(element).md5};".encode())
    return digest.hexdigest()[:16]


def _workchain() -> Any:
    require("aiida_quantumespresso", "quantumespresso")
    from aiida_quantumespresso.workflows.pw.base import PwBaseWorkChain

    return PwBaseWorkChain
