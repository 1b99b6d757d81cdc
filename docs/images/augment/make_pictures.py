"""Draw what each manipulation does: ``python docs/images/augment/make_pictures.py`` writes a PNG for each beside it.

With names (``make_pictures.py strain rattle``) only those. Every frame is made by the augmentation itself.
"""

from __future__ import annotations

import json
import sys
from io import BytesIO
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

import matplotlib as mpl
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.data import covalent_radii
from ase.data.colors import jmol_colors
from ase.visualize.plot import plot_atoms
from PIL import Image

from aiida_alpot.kernel.augmentation import MANIPULATIONS, augment

mpl.use("Agg")
import matplotlib.pyplot as plt

FOLDER = Path(__file__).parent
SIDE, TILTED, ALONG = "-90x,0y,0z", "-80x,20y,0z", "90z,-90x"


class Recipe(NamedTuple):
    """What a picture shows: a frame, and what is made of it.

    :ivar others: manipulations that prepare the frame, or show better what happens.
    :ivar size: of an atom, in covalent radii.
    """

    atoms: Atoms
    settings: dict[str, Any]
    others: dict[str, Any] = {}  # noqa: RUF012 - never changed
    copies: int = 3
    rotation: str = TILTED
    size: float = 0.75


def ordered_alloy() -> Atoms:
    """Return copper and gold in two halves."""
    atoms = bulk("Cu", a=3.85, cubic=True) * (3, 2, 2)
    atoms.symbols[: len(atoms) // 2] = "Au"
    return atoms


COPPER = bulk("Cu", cubic=True) * (2, 2, 2)
OXIDE = bulk("MgO", "rocksalt", a=4.21, cubic=True)
OXIDES = OXIDE * (2, 2, 1)
PATH = {"planes": [[1, 1, 1]], "direction": [1, 1, -2], "n_points": 3, "min_width": 5.0}

RECIPES = {
    "isolated": Recipe(OXIDE, {}, copies=0),
    "cluster": Recipe(OXIDE, {"count": 3, "min_atoms": 6, "max_atoms": 12}, copies=0),
    "prototype": Recipe(
        OXIDE, {"names": ["rocksalt", "wurtzite", "rutile"], "count": 3}, {"supercell": {"min_length": 6.0}}, 0
    ),
    "random": Recipe(OXIDE, {"count": 3, "max_species": 2}, {"supercell": {"min_length": 6.0}}, 0),
    "decorate": Recipe(
        bulk("MgO", "rocksalt", a=4.21),
        {"elements": ["Na", "Cl", "Ca"], "count": 3},
        {"supercell": {"min_length": 6.0}},
        0,
    ),
    "slab": Recipe(OXIDE, {"max_index": 1, "min_thickness": 8.0, "vacuum": 8.0}, copies=0, rotation=SIDE),
    "stacking_fault": Recipe(bulk("Cu"), {**PATH, "vacuum": 6.0}, copies=0, rotation=ALONG),
    "twin": Recipe(bulk("Cu"), {"planes": [[1, 1, 1]]}, copies=0, rotation=SIDE),
    "scan": Recipe(molecule("CH3OH"), {}, copies=0),
    "vacuum": Recipe(fcc111("Al", (2, 2, 3), vacuum=2.0), {"thickness": 12.0}, copies=0, rotation=SIDE),
    "supercell": Recipe(OXIDE, {"min_length": 8.0}, copies=0),
    "alloy": Recipe(COPPER, {"alloy_species": ["Cu", "Au", "Ag"]}),
    "swap": Recipe(ordered_alloy(), {"temperature": 500.0, "attempts": 400}),
    "strain": Recipe(COPPER, {"range": [-0.2, 0.3]}),
    "rattle": Recipe(COPPER, {}),
    "vacancy": Recipe(COPPER, {"fraction": 1.0}, {"rattle": {"fraction": 0.01}}, size=0.4),
    "interstitial": Recipe(COPPER, {"fraction": 1.0}, {"rattle": {"fraction": 0.01}}, size=0.4),
    "substitution": Recipe(OXIDES, {"fraction": 1.0}, {"rattle": {"fraction": 0.01}}, size=0.4),
}


def frames_of(name: str) -> list[Atoms]:
    """Return the frames that one manipulation is shown by: at most three, evenly from all that it made."""
    recipe = RECIPES[name]
    is_kept = MANIPULATIONS[name].stage == "cell"
    settings = {"copies": recipe.copies, "keep_input": is_kept, name: recipe.settings, **recipe.others}
    frames = augment([recipe.atoms], settings, 3, EMT() if name == "swap" else None).frames
    made = [atoms for atoms in frames if name in json.loads(atoms.info.get("parameters", "{}"))]
    return made[:: max(1, len(made) // 3)][:3]


def describe(name: str, atoms: Atoms) -> str:
    """Return what the origin of a frame says of one manipulation, in lines."""
    if "origin" not in atoms.info:
        return "the input"
    number = list(json.loads(atoms.info["parameters"])).index(name)
    steps = [step for step in atoms.info["origin"].split(" > ") if not step.startswith("input ")]
    return fill(steps[number], 26)


def draw(name: str) -> None:
    """Write the picture of one manipulation: the frame on the left, what is made of it to the right."""
    recipe = RECIPES[name]
    frames = [recipe.atoms, *frames_of(name)]
    figure, axes = plt.subplots(1, len(frames), figsize=(2.1 * len(frames), 2.3), squeeze=False)
    for axis, atoms in zip(axes[0], frames, strict=True):
        colours = jmol_colors[atoms.numbers]
        plot_atoms(
            atoms, axis, radii=recipe.size * covalent_radii[atoms.numbers], rotation=recipe.rotation, colors=colours
        )
        axis.set_axis_off()
        widest = max(4.0, *(abs(high - low) for low, high in (axis.get_xlim(), axis.get_ylim())))
        for low_high, set_limits in ((axis.get_xlim(), axis.set_xlim), (axis.get_ylim(), axis.set_ylim)):
            middle = sum(low_high) / 2
            set_limits(middle - widest / 2, middle + widest / 2)
        axis.set_title(describe(name, atoms), fontsize=6.5)
    figure.tight_layout(pad=0.5)
    image = BytesIO()
    figure.savefig(image, dpi=90, bbox_inches="tight", pad_inches=0.05)
    plt.close(figure)
    Image.open(image).convert("RGB").quantize(48).save(FOLDER / f"{name}.png", optimize=True)


if __name__ == "__main__":
    for chosen in sys.argv[1:] or RECIPES:
        draw(chosen)
