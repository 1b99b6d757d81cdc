"""Labels from VASP: one ``VaspWorkChain`` of aiida-vasp a frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Final, cast

import numpy as np
from aiida import orm
from ase import Atoms
from ase.data import atomic_numbers

from aiida_alpot.engines.job import Job, JobResources
from aiida_alpot.engines.label import vasp_calculation
from aiida_alpot.engines.label.base import LabelRequest
from aiida_alpot.engines.label.extras import require
from aiida_alpot.engines.label.finished import FinishedCalculation, expect_kpoints, refuse_to_compare, to_atoms
from aiida_alpot.engines.label.per_frame import FrameLabelEngine
from aiida_alpot.engines.label.vasp_incar import NEUTRAL, check_incar
from aiida_alpot.kernel.labelling.boxes import (
    DEFAULT_VACUUM,
    from_groups,
    group_species,
    is_isolated_atom,
    name_kinds,
    put_into_box,
    spin_moments,
)
from aiida_alpot.kernel.labelling.hubbard import parse_hubbard
from aiida_alpot.kernel.labelling.potcar import read_valence
from aiida_alpot.kernel.labelling.results import Result
from aiida_alpot.kernel.labelling.settings import fingerprint_of
from aiida_alpot.kernel.settings import SettingsError, parse_settings

R2SCAN: Final[Mapping[str, Any]] = {
    "incar": {"gga": None, "metagga": "R2SCAN", "algo": "all", "lasph": True},
    "ionic_steps": 3,
    "preconverge": {"metagga": None, "gga": "PE", "algo": "normal"},
}
"""Three ionic steps with r²SCAN from the wave functions of PBE (Kuner et al., MP-ALOE): parameters to begin with."""
RELAXED: Final[Mapping[str, Any]] = {
    "CHECK_IONIC_CONVERGENCE": False,
    "parser_settings": {"check_ionic_convergence": False},
}
"""Settings of aiida-vasp for a run that may use up its ionic steps: they are labels, no way to a minimum."""
STAYING: Final[Mapping[str, Any]] = {"handler_unfinished_calc_ionic": {"enabled": False}}
"""A run that was cut off is repeated from the frame: that handler would go on from the last step, as another frame."""
LARGEST_SHIFT: Final = 1e-4
"""In fractions of the cell, between an atom as it was written and as VASP gives it back."""
RETRIES: Final = ({"algo": "all"}, {"algo": "normal", "amix": 0.1, "bmix": 0.0001})


@dataclass(frozen=True)
class VaspSettings:
    """How VASP labels frames.

    :param potential_family: name of an uploaded family of POTCARs.
    :param protocol: of aiida-vasp (``aiida-vasp protocols``); it gives what is not given here.
    :param potential_mapping: POTCAR of each element, e.g. ``{"Fe": "Fe_pv"}``; elements that are not named take that of
        the protocol.
    :param incar: keys of the INCAR to set; null removes one of the protocol's.
    :param kpoints_distance: largest distance between k-points along periodic axes, 1/Å, one point along the others;
        that of the protocol if None.
    :param kpoints_mesh: a Γ-centred mesh for all frames instead.
    :param ionic_steps: of a relaxation from the frame (NSW), each of which is a label; 0 for a single point.
    :param preconverge: keys of the INCAR, on top of ``incar``, of a single point that is computed first: the labels
        start from its wave functions, and it gives none itself, see :data:`R2SCAN`. None for no such calculation.
    :param magnetic_moments: starting moments by element, μB; frames with moments of their own keep these.
    :param hubbard: effective U (Dudarev, LDAUTYPE = 2) in eV by element and manifold, e.g. ``{"Fe-3d": 4.0}``.
    :param vacuum: between images along axes that are not periodic, at least, Å.
    :param retries: keys of the INCAR for further attempts at a frame that did not converge; only those that do not
        change the result.
    :param max_restarts: attempts that ``VaspWorkChain`` makes by its own rules, before one of ours.
    """

    potential_family: str
    protocol: str = "balanced"
    potential_mapping: Mapping[str, str] = field(default_factory=dict)
    incar: Mapping[str, Any] = field(default_factory=dict)
    kpoints_distance: float | None = None
    kpoints_mesh: tuple[int, int, int] | None = None
    ionic_steps: int = 0
    preconverge: Mapping[str, Any] | None = None
    magnetic_moments: Mapping[str, float] | None = None
    hubbard: Mapping[str, float] | None = None
    vacuum: float = DEFAULT_VACUUM
    retries: tuple[Mapping[str, Any], ...] = RETRIES
    max_restarts: int = 3

    def __post_init__(self) -> None:
        check_incar(self.incar, self.preconverge, self.retries, self.ionic_steps)
        parse_hubbard(self.hubbard)
        for name in ("potential_mapping", "magnetic_moments"):
            for symbol in getattr(self, name) or {}:
                if symbol not in atomic_numbers:
                    raise SettingsError(f"{name}: {symbol!r} is not a chemical symbol")
        for name in ("kpoints_distance", "vacuum"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise SettingsError(f"{name} must be positive, got {value}")
        if self.ionic_steps < 0:
            raise SettingsError(f"ionic_steps must not be negative, got {self.ionic_steps}")
        if self.kpoints_mesh is not None and min(self.kpoints_mesh) < 1:
            raise SettingsError(f"kpoints_mesh must be positive, got {list(self.kpoints_mesh)}")


class VaspLabelEngine(FrameLabelEngine):
    """VASP through the ``VaspWorkChain`` and the protocols of aiida-vasp.

    The energy is the free energy that VASP calls TOTEN. The stress is that of VASP (kB, positive when compressed) in
    ASE's unit and sign.
    """

    NAME: ClassVar[str] = "vasp"
    SETTINGS: ClassVar[type[Any]] = VaspSettings
    PLUGIN: ClassVar[str | None] = "vasp.vasp"
    LEVELS: ClassVar[int] = 3
    OUTPUTS: ClassVar[tuple[str, ...]] = ("retrieved",)
    RETRIED: ClassVar[frozenset[int]] = frozenset({302, 401, 402, 503})
    CALCULATIONS: ClassVar[Mapping[str, frozenset[int]]] = {vasp_calculation.PROCESS_TYPE: vasp_calculation.EXITS}

    @classmethod
    def complete(cls, parameters: Mapping[str, Any], symbols: Sequence[str]) -> dict[str, Any]:
        """Settle INCAR, k-points and POTCARs; refuse a species or a POTCAR that there is not."""
        settings = parse_settings(VaspSettings, parameters, "label.parameters")
        inputs = _workchain().get_protocol_inputs(settings.protocol, {})
        incar = {**inputs["parameters"]["incar"], **{key.lower(): value for key, value in settings.incar.items()}}
        completed = asdict(settings)
        completed["potential_mapping"] = {**inputs["potential_mapping"], **settings.potential_mapping}
        find_potcars(completed, symbols)  # or it refuses the family
        completed["potcars"] = _potcars_hash(settings.potential_family, completed["potential_mapping"])
        completed["incar"] = {key: value for key, value in incar.items() if value is not None}
        has_ediff = "ediff" in {key.lower() for key in settings.incar}  # null leaves it to VASP
        completed["ediff_per_atom"] = None if has_ediff else inputs["meta_parameters"]["ediff_per_atom"]
        if settings.kpoints_mesh is None and settings.kpoints_distance is None:
            completed["kpoints_distance"] = 2 * np.pi * inputs["kpoints_spacing"]
        if settings.preconverge is not None:
            completed["preconverge"] = {key.lower(): value for key, value in settings.preconverge.items()}
        completed["retries"] = [dict(attempt) for attempt in settings.retries]
        completed["kpoints_mesh"] = None if settings.kpoints_mesh is None else list(settings.kpoints_mesh)
        return completed

    @classmethod
    def fingerprint(cls, settings: Mapping[str, Any]) -> str:
        """POTCARs, k-points and all keys of the INCAR that change the ground state."""
        names = ("potcars", "kpoints_distance", "kpoints_mesh", "magnetic_moments")
        content = {name: settings[name] for name in (*names, "vacuum", "preconverge")}
        incar = {key: value for key, value in settings["incar"].items() if key not in NEUTRAL}
        content["ediff_per_atom"] = settings["ediff_per_atom"]
        if settings["hubbard"]:
            content["hubbard"] = settings["hubbard"]
        return fingerprint_of({"engine": cls.NAME, "incar": incar, **content})

    @classmethod
    def structure_settings(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Boxes around what is not periodic; sites grouped by species, as a POSCAR has them."""
        return {"vacuum": settings["vacuum"], "moments": settings["magnetic_moments"], "grouped": True}

    @classmethod
    def build(cls, atoms: Atoms, structure: orm.StructureData, request: LabelRequest, resources: JobResources) -> Job:
        """Return a ``VaspWorkChain`` for one frame.

        :raises ValueError: if the frame is charged and not periodic along all axes, see :func:`count_electrons`.
        """
        settings = request.settings
        process = _workchain() if settings["preconverge"] is None else _two_step()
        builder = process.get_builder()
        builder.code = resources.code
        builder.structure = structure
        builder.parameters = orm.Dict({"incar": frame_incar(atoms, settings, resources.n_before)})
        builder.potential_family = settings["potential_family"]
        kinds = {kind.name: kind.symbol for kind in structure.kinds}
        mapping = settings["potential_mapping"]
        builder.potential_mapping = {name: mapping.get(symbol, symbol) for name, symbol in kinds.items()}
        moments = spin_moments(atoms, settings["magnetic_moments"])
        if moments is not None:
            _, of_kind = name_kinds(list(atoms.symbols), moments)
            builder.magmom_mapping = of_kind
        corrected = {u.symbol: [u.manifold[-1], u.value] for u in parse_hubbard(settings["hubbard"])}
        if corrected.keys() & kinds.values():
            of_kinds = {name: corrected[symbol] for name, symbol in kinds.items() if symbol in corrected}
            builder.ldau_mapping = orm.Dict({"mapping": of_kinds, "utype": 2})
        if settings["kpoints_mesh"] is not None:
            kpoints = orm.KpointsData()
            kpoints.set_cell_from_structure(structure)
            kpoints.set_kpoints_mesh(settings["kpoints_mesh"])
            builder.kpoints = kpoints
        else:
            builder.kpoints_spacing = settings["kpoints_distance"] / (2 * np.pi)
        builder.settings = orm.Dict(RELAXED if settings["ionic_steps"] else {})  # aiida-vasp 5.1 looks into it anyway
        if settings["ionic_steps"]:
            builder.handler_overrides = orm.Dict(STAYING)
        builder.max_iterations = orm.Int(settings["max_restarts"])
        builder.calc.metadata = {"options": dict(resources.options)}
        builder.metadata = {"call_link_label": resources.label, "label": resources.label}
        if settings["preconverge"] is not None:
            builder.preconverge = orm.Dict({"incar": first_incar(atoms, settings, resources.n_before)})
        return Job(process, builder)

    @classmethod
    def read(cls, atoms: Atoms, outputs: Mapping[str, orm.Node], settings: Mapping[str, Any]) -> Sequence[Result]:
        """Return the labels of every ionic step whose electronic loop converged, in the units and signs of ASE."""
        retrieved = cast(orm.FolderData, outputs["retrieved"])
        if "vasprun.xml" not in retrieved.list_object_names():
            raise ValueError("there is no vasprun.xml among the files of VASP")
        steps = vasp_calculation.read_steps(retrieved)
        _check_order(steps[0], atoms, settings)
        converged = [step for step in steps if step.calc is not None]
        if not converged:
            raise ValueError(f"the electronic loop of VASP did not converge in any of {len(steps)} ionic steps")
        return [_in_order_of(atoms, step, str(retrieved.creator.uuid), settings) for step in converged]

    @classmethod
    def find_outputs(cls, job: orm.ProcessNode, settings: Mapping[str, Any]) -> dict[str, orm.Node]:
        """Return the files of a relaxation even if its last electronic loop did not converge: earlier ones did."""
        found = super().find_outputs(job, settings)
        return found or (vasp_calculation.find_unconverged(job) if settings["ionic_steps"] else {})

    @classmethod
    def inspect_calculation(cls, calculation: orm.CalcJobNode) -> FinishedCalculation:
        """Take single points, relaxations and molecular dynamics of VASP."""
        return vasp_calculation.inspect_vasp(calculation, NEUTRAL)

    @classmethod
    def read_calculation(
        cls,
        atoms: Atoms,
        nodes: Mapping[str, orm.Node],
        details: Mapping[str, Any],  # noqa: ARG003
    ) -> Sequence[Result | None]:
        """Read vasprun.xml."""
        return vasp_calculation.read_vasp_steps(atoms, nodes)

    @classmethod
    def expect_calculation(cls, structure: orm.StructureData, settings: Mapping[str, Any]) -> FinishedCalculation:
        """Return the INCAR, POTCARs and mesh that :meth:`build` would give a calculation."""
        atoms = to_atoms(structure)
        refuse_to_compare(atoms, settings)
        columns, points = expect_kpoints(structure, settings["kpoints_distance"], settings["kpoints_mesh"])
        incar = frame_incar(atoms, settings, 0)
        columns["scf_threshold"] = float(incar.get("ediff", vasp_calculation.DEFAULT_EDIFF)) / len(atoms)
        potcars = find_potcars(settings, sorted(set(atoms.symbols)))
        expected = {
            "incar": vasp_calculation.significant(incar, NEUTRAL),
            "potentials": {symbol: vasp_calculation.describe_potential(node) for symbol, node in potcars.items()},
            "kpoints": points,
        }
        return FinishedCalculation({}, {}, expected, columns)


def _check_order(first: Atoms, atoms: Atoms, settings: Mapping[str, Any]) -> None:
    """Refuse output whose atoms are not those of the frame in the order in which they were written.

    :raises ValueError: rather than give an atom the force of another.
    """
    written = put_into_box(atoms, settings["vacuum"])[group_species(list(atoms.symbols))]
    if list(first.symbols) != list(written.symbols):
        raise ValueError(f"vasprun.xml is of {first.symbols}, the frame of {written.symbols}")
    moved = first.get_scaled_positions(wrap=False) - written.get_scaled_positions(wrap=False)
    if np.max(np.abs(moved - np.round(moved))) > LARGEST_SHIFT:
        raise ValueError("the atoms in vasprun.xml are not where those of the frame are, or in another order")


def _in_order_of(atoms: Atoms, step: Atoms, parent: str, settings: Mapping[str, Any]) -> Result:
    """Return the labels of a step with its atoms in the order of the frame, and its structure if it is another one."""
    found = step.calc.results
    labels = {**found, **{name: from_groups(atoms, found[name]) for name in vasp_calculation.BY_ATOM if name in found}}
    if not all(atoms.pbc):
        labels.pop("stress", None)
    if not settings["ionic_steps"]:
        return Result(labels, parent=parent)
    return Result(labels, positions=from_groups(atoms, step.positions), cell=step.cell.array, parent=parent)


def count_electrons(atoms: Atoms, settings: Mapping[str, Any]) -> float | None:
    """Return the number of electrons of a charged frame (NELECT), None for a neutral one, which needs none.

    :raises ValueError: if the frame is not periodic along all axes: its energy would depend on the size of the box,
        since VASP compensates the charge by one that fills it; if it has no electrons left, or a POTCAR does not tell
        how many it gives.
    """
    charge = float(atoms.info.get("charge", 0.0) or 0.0)
    if not charge:
        return None
    if not all(atoms.pbc):
        raise ValueError(
            f"the frame has the charge {charge:g} and is not periodic along all axes: its energy in VASP depends on "
            "the box; label it with quantumespresso or cp2k, which correct a molecule for its images"
        )
    potcars = find_potcars(settings, sorted(set(atoms.symbols)))
    valence = {symbol: read_valence(_content(potcar)) for symbol, potcar in potcars.items()}
    n_valence = sum(valence[symbol] for symbol in atoms.symbols)
    if charge >= n_valence:
        raise ValueError(f"the frame has the charge {charge:g}, but its POTCARs have {n_valence:g} electrons")
    return float(round(n_valence - charge, 9))


def _content(potcar: Any) -> str:
    from aiida.common.exceptions import NotExistent

    try:
        content = potcar.find_file_node().get_content()
    except NotExistent as error:
        raise ValueError(
            f"the file of the POTCAR {potcar.full_name} is not in this profile: upload it again"
        ) from error
    return str(content.decode("utf-8", errors="replace"))


def frame_incar(atoms: Atoms, settings: Mapping[str, Any], n_before: int) -> dict[str, Any]:
    """Return the INCAR of one frame: a single point with forces and stress.

    :param n_before: attempts before this one, each with its own way to converge.
    """
    incar = dict(settings["incar"])
    n_electrons = count_electrons(atoms, settings)
    if n_electrons is not None:
        incar["nelect"] = n_electrons
    if settings["ediff_per_atom"] is not None:
        incar["ediff"] = settings["ediff_per_atom"] * len(atoms)
    if settings["ionic_steps"]:
        incar["nsw"] = settings["ionic_steps"]
        incar.setdefault("ibrion", 2)
    moments = spin_moments(atoms, settings["magnetic_moments"])
    if moments is not None:
        incar["ispin"] = 2
        if is_isolated_atom(atoms):
            incar["nupdown"] = float(moments[0])
    return incar | _attempt(settings, n_before)


def first_incar(atoms: Atoms, settings: Mapping[str, Any], n_before: int) -> dict[str, Any]:
    """Return the INCAR of the calculation that the label starts from: a single point that writes its wave functions."""
    incar = {**frame_incar(atoms, {**settings, "ionic_steps": 0}, 0), "lwave": True, **settings["preconverge"]}
    incar |= _attempt(settings, n_before)
    return {key: value for key, value in incar.items() if value is not None}


def _attempt(settings: Mapping[str, Any], n_before: int) -> dict[str, Any]:
    """Return the keys by which this attempt differs from the first, which go before all others."""
    if not n_before or not settings["retries"]:
        return {}
    attempt = settings["retries"][min(n_before, len(settings["retries"])) - 1]
    return {key.lower(): value for key, value in attempt.items()}


def find_potcars(settings: Mapping[str, Any], symbols: Sequence[str]) -> dict[str, Any]:
    """Return the ``PotcarData`` of every element.

    :param settings: with the family and, complete, the mapping.
    :raises ValueError: if there is no such family, or it lacks a POTCAR.
    """
    from aiida.common.exceptions import NotExistent
    from aiida_vasp.data.potcar import PotcarData

    family = settings["potential_family"]
    if PotcarData.get_potcar_group(family) is None:
        raise ValueError(
            f"label.parameters.potential_family: there is no POTCAR family {family!r}; "
            "upload one (aiida-vasp potcar uploadfamily --help) or name another (aiida-vasp potcar listfamilies)"
        )
    names = {symbol: settings["potential_mapping"].get(symbol, symbol) for symbol in symbols}
    try:
        return dict(PotcarData.get_potcars_dict(list(names), family, names))
    except (ValueError, NotExistent) as error:
        raise ValueError(
            f"label.parameters.potential_mapping: the POTCAR family {family!r} lacks a potential: {error}"
        ) from error


def _potcars_hash(family: str, mapping: Mapping[str, str]) -> str:
    """Return what tells the POTCARs that a mapping picks from those of others, whatever their family is called.

    Those of all elements count, not of the frames alone: an element that comes later must not make other labels of
    those that are there (docs/developer/decisions/0008-fingerprints-of-all-elements.md).
    """
    from aiida_vasp.data.potcar import PotcarData, PotcarGroup

    names = ["attributes.element", "attributes.full_name", "attributes.sha512"]
    query = orm.QueryBuilder().append(PotcarGroup, filters={"label": family}, tag="family")
    query.append(PotcarData, with_group="family", project=names)
    picked = [(symbol, sha512) for symbol, name, sha512 in query.iterall() if name == mapping.get(symbol, symbol)]
    return fingerprint_of({"potcars": sorted(picked)})


def _two_step() -> Any:
    require("aiida_vasp", "vasp")
    from aiida_alpot.engines.label.vasp_two_step import VaspTwoStepWorkChain

    return VaspTwoStepWorkChain


def _workchain() -> Any:
    require("aiida_vasp", "vasp")
    from aiida_vasp.workchains.v2.vasp import VaspWorkChain

    return VaspWorkChain
