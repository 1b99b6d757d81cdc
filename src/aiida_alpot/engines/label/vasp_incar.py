"""The INCAR of labels: which keys tell them apart, which are not the user's, and which values make no label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiida_alpot.kernel.labelling.refusals import Rule, among, equal_to, is_false, refuse, within
from aiida_alpot.kernel.settings import SettingsError

NEUTRAL: Final = frozenset(
    {"algo", "ialgo", "nelm", "nelmin", "nelmdl", "amix", "bmix", "amin", "amix_mag", "bmix_mag", "imix", "maxmix"}
    | {"time", "istart", "icharg", "nbands", "lwave", "lcharg", "lvhar", "lvtot", "laechg", "lorbit", "nedos", "emin"}
    | {"emax", "nwrite", "ncore", "npar", "kpar", "nsim", "lplane", "lscalu", "lscalapack", "system"}
)
"""Keys that change how VASP gets to the ground state or what it prints, not which state it is."""
MANAGED: Final[Mapping[str, str]] = {
    "nsw": "give label.parameters.ionic_steps",
    "magmom": "starting moments belong to the frames, or to label.parameters.magnetic_moments",
    "kspacing": "give label.parameters.kpoints_distance",
    **dict.fromkeys(("ldau", "ldauu", "ldaul", "ldauj", "ldautype"), "give label.parameters.hubbard"),
    "ml_lmlff": "labels are computed, not predicted by a force field",
    "nelect": "it follows from the charge of the frame and the POTCARs",
}
NO_LABEL: Final[Mapping[str, Rule]] = {
    "icharg": Rule(equal_to(0, 1, 2), "the density is not self-consistent then; leave it out, or give 0, 1 or 2"),
    "algo": Rule(
        among("normal", "n", "fast", "f", "veryfast", "v", "all", "a", "conjugate", "c", "damped", "d"),
        "it does not end in the ground state; give normal, fast, veryfast, all, conjugate or damped",
    ),
    "ialgo": Rule(within(5, 68), "it does not end in the ground state; give algo: normal, fast, veryfast or all"),
    "ibrion": Rule(
        equal_to(-1, 0, 1, 2, 3),
        "it is a calculation of phonons, or a search for saddle points; leave it out, or give -1, 0, 1, 2 or 3",
    ),
    "isif": Rule(within(0, 8), "VASP knows 0 to 8; give 2 for labels with a stress"),
    "ismear": Rule(
        equal_to(*range(-1, 11)),
        "forces are not the derivative of the energy with tetrahedra (-4, -5), and occupations that are given are not "
        "those of the ground state; give 0, also for an insulator",
    ),
    "sigma": Rule(within(1e-4, 1.0), "it is in eV, above 0 and at most 1; give 0.05, or leave it out"),
    "i_constrained_m": Rule(equal_to(0), "the penalty of the constraint (LAMBDA) is part of the energy; leave it out"),
    "ediff": Rule(within(1e-12, 1e-3), "it is in eV, and labels are noise above 0.001; give 1e-6, or leave it out"),
    "encut": Rule(within(100.0, 5000.0), "it is in eV, between 100 and 5000; give at least ENMAX of the POTCARs"),
    "pstress": Rule(equal_to(0), "it is added to energy and stress; leave it out"),
    "images": Rule(equal_to(0), "a label is of one frame; leave it out"),
}
"""Rules that every calculation obeys which gives labels, also one of others that is imported."""
RULES: Final[Mapping[str, Rule]] = {
    **NO_LABEL,
    "nelm": Rule(within(2, 1e6), "a loop that uses all its steps is no label; give at least 2, or leave it out"),
    "lsorbit": Rule(is_false, "labels are of collinear spins; leave it out"),
    "lnoncollinear": Rule(is_false, "labels are of collinear spins; leave it out"),
}
"""Rules of the label engine, by key in lower case."""


def check_incar(
    incar: Mapping[str, Any],
    preconverge: Mapping[str, Any] | None,
    retries: Sequence[Mapping[str, Any]],
    ionic_steps: int,
) -> None:
    """Refuse keys that follow from other settings, and values that make a wrong label or none.

    :raises SettingsError: naming the key, its value and the remedy.
    """
    for where, keys in (("incar.", incar), ("preconverge.", preconverge or {})):
        for key in keys:
            if key.lower() in MANAGED:
                raise SettingsError(f"{where}{key} cannot be set: {MANAGED[key.lower()]}")
        refuse(keys, RULES, where)
    stays = any(key.lower() == "ibrion" and value == -1 for key, value in incar.items())
    if ionic_steps and stays:
        raise SettingsError(f"incar.ibrion cannot be -1: no atom moves in {ionic_steps} ionic steps; give 1 or 2")
    for attempt in retries:
        unknown = {key.lower() for key in attempt} - NEUTRAL
        if unknown:
            raise SettingsError(f"retries: {min(unknown)!r} would change the label; use only keys of convergence")
        refuse(attempt, RULES, "retries: ")
