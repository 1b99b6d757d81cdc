"""The namelists of labels from pw.x: which keys tell them apart, which are not the user's, which values make none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ase.data import atomic_numbers

from aiida_alpot.kernel.labelling.refusals import Rule, among, is_false, refuse, within
from aiida_alpot.kernel.settings import SettingsError, unknown_key_message

NAMELISTS: Final = ("CONTROL", "SYSTEM", "ELECTRONS")
NEUTRAL: Final[Mapping[str, frozenset[str]]] = {
    "CONTROL": frozenset({"calculation", "tprnfor", "tstress", "etot_conv_thr", "forc_conv_thr", "max_seconds"})
    | {"disk_io", "verbosity", "restart_mode", "iprint", "wf_collect"},
    "SYSTEM": frozenset({"nbnd"}),
    "ELECTRONS": frozenset({"electron_maxstep", "mixing_beta", "mixing_mode", "mixing_ndim", "diagonalization"})
    | {"diago_david_ndim", "diago_cg_maxiter", "diago_ppcg_maxiter", "diago_full_acc", "diago_rmm_ndim"}
    | {"startingpot", "startingwfc", "adaptive_thr", "conv_thr_init", "conv_thr_multi"},
}
"""Keys that change how pw.x gets to the ground state, not which: they do not enter the fingerprint."""
MANAGED: Final[Mapping[str, frozenset[str]]] = {
    "CONTROL": frozenset({"calculation", "tprnfor", "nstep"}),  # a label is a single point with forces
    "SYSTEM": frozenset({"ecutwfc", "ecutrho", "starting_magnetization", "nspin", "tot_charge", "assume_isolated"}),
    "ELECTRONS": frozenset({"conv_thr"}),
}
MANAGED_INSULATOR: Final = frozenset({"occupations", "smearing", "degauss"})
"""Keys of SYSTEM that fixed occupations leave no choice for."""
NO_LABEL: Final[Mapping[str, Mapping[str, Rule]]] = {
    "SYSTEM": {
        "occupations": Rule(
            among("smearing", "fixed"),
            "forces are not the derivative of the energy with tetrahedra, nor with occupations that are given; give "
            "smearing, or set electronic_type",
        ),
        "degauss": Rule(within(0.0, 0.1), "it is in Ry, at most 0.1 (1 Ry = 13.606 eV); give 0.01, or leave it out"),
    },
    "ELECTRONS": {
        "electron_maxstep": Rule(within(1, 1e6), "without an electronic loop there is no label; leave it out"),
        "scf_must_converge": Rule(
            lambda value: not is_false(value), "a loop that did not converge is no label; leave it out"
        ),
    },
}
"""Rules by namelist and key in lower case."""
LIMITS: Final[Mapping[str, Rule]] = {
    "conv_thr_per_atom": Rule(
        within(0.0, 1e-5), "it is in Ry/atom, and forces are noise above 1e-5; give 1e-9, or leave it out"
    ),
}
"""Rules of the other settings."""
CUTOFFS: Final[Mapping[str, Rule]] = {
    "wavefunction": Rule(
        within(8.0, 300.0),
        "it is in Ry, expected between 8 and 300 (1 Ry = 13.606 eV); leave cutoffs out",
    ),
}
SMALLEST_DUAL: Final = 3.0
"""Of the cut-off of the density over that of the wave functions, whose square needs 4."""


def check_cutoffs(cutoffs: Mapping[str, float]) -> None:
    """Refuse cut-offs in another unit, or of a density that is cut off.

    :raises SettingsError: naming the value and the remedy.
    """
    if set(cutoffs) != {"wavefunction", "density"}:
        raise SettingsError(f"cutoffs: expected 'wavefunction' and 'density', got {sorted(cutoffs)}")
    if not 0 < cutoffs["wavefunction"] <= cutoffs["density"]:
        raise SettingsError(f"cutoffs: expected 0 < wavefunction <= density, got {dict(cutoffs)}")
    refuse(cutoffs, CUTOFFS, "cutoffs.")
    if cutoffs["density"] < SMALLEST_DUAL * cutoffs["wavefunction"]:
        raise SettingsError(
            f"cutoffs.density cannot be {cutoffs['density']}: the square of wave functions is cut off; give 4 times "
            "cutoffs.wavefunction for norm-conserving, 8 to 12 times for other pseudopotentials"
        )


def check_namelists(parameters: Mapping[str, Any], *, is_insulator: bool) -> None:
    """Refuse namelists that do not exist, keys that follow from other settings, and values that make no label.

    :raises SettingsError: naming the key and the remedy.
    """
    for name, content in parameters.items():
        if name not in NAMELISTS:
            raise SettingsError(unknown_key_message(name, NAMELISTS, "parameters"))
        if not isinstance(content, Mapping):
            raise SettingsError(f"parameters.{name}: expected a mapping, got {content!r}")
        managed = MANAGED[name] | (MANAGED_INSULATOR if is_insulator and name == "SYSTEM" else frozenset())
        taken = managed & lower_keys(content).keys()
        if taken:
            raise SettingsError(f"parameters.{name}.{min(taken)} follows from the other settings and the frame")
        refuse(content, NO_LABEL.get(name, {}), f"parameters.{name}.")
        _check_kinds(content, f"parameters.{name}.")
    if "vdw_corr" in lower_keys(parameters.get("SYSTEM", {})):
        raise SettingsError("parameters.SYSTEM.vdw_corr: name the correction in 'vdw'")


def _check_kinds(namelist: Mapping[str, Any], where: str) -> None:
    for key, value in namelist.items():
        for kind in value if isinstance(value, Mapping) else ():
            if str(kind).rstrip("0123456789") not in atomic_numbers:
                raise SettingsError(f"{where}{key}: {kind!r} is neither an element nor a kind of one (Fe1)")


def lower_keys(namelist: Mapping[str, Any]) -> dict[str, Any]:
    """Return a namelist with its keys in lower case: Fortran knows no other."""
    return {str(key).lower(): value for key, value in namelist.items()}
