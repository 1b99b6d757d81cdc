"""Every default that a paper gives, in one place, with its source.

[TrainsPot] Bidoggia et al., "AiiDA-TrainsPot", January 2026.
[UQ-ACE] Shuang, Wei, Liu, Gao and Dey, "Model accuracy and data heterogeneity shape uncertainty quantification in
machine learning interatomic potentials", Mach. Learn.: Sci. Technol. 7, 025002 (2026), doi:10.1088/2632-2153/ae3d80.
[MP-ALOE] Kuner, Kaplan, Persson, Asta and Chrzan, "MP-ALOE: an r²SCAN dataset for universal machine learning
interatomic potentials", doi:10.1038/s41524-025-01834-9.
[SPARC] Verma, Joshi and Pfaendtner, "SPARC: An Automated Workflow Toolkit for Accelerated Active Learning of Reactive
Machine Learning Interatomic Potentials".
"""

from __future__ import annotations

import math
from typing import Final

TOLERANCE_ENERGY: Final = 1e-3
"""eV/atom, [TrainsPot] Sec. II A 6."""
TOLERANCE_FORCE: Final = 0.1
"""eV/Å, [TrainsPot] Sec. II A 6."""
TOLERANCE_STRESS: Final = 1e-3
"""eV/Å³, [TrainsPot] Sec. II A 6."""

SPLIT_TRAIN: Final = 0.8
"""[TrainsPot] Sec. II A 4."""
SPLIT_VALIDATION: Final = 0.1
"""[TrainsPot] Sec. II A 4."""
SPLIT_TEST: Final = 0.1
"""[TrainsPot] Sec. II A 4."""

SELECTION_BUDGET: Final = 1000
"""Most frames labelled in one iteration, [TrainsPot] Sec. II A 6."""
CONTROL_SHARE: Final = 0.1
"""Share of a selection that is drawn at random and never trained on (the project's design)."""

STARTING_FRAMES: Final = 20
"""Frames that start trajectories, from the initial dataset, [TrainsPot] Sec. II A 5."""
TEMPERATURES: Final = (0.0, 1000.0)
"""K, range of exploration, [TrainsPot] Sec. II A 5."""
PRESSURES: Final = (-0.5, 0.5)
"""GPa (±5 kbar), range of exploration, [TrainsPot] Sec. II A 5."""
MD_TIME: Final = 1e7
"""fs (10 ns), length of a trajectory, [TrainsPot] Sec. II A 5."""
MD_TIMESTEP: Final = 1.0
"""fs, [TrainsPot] Sec. II A 5."""
MD_SAMPLE_TIME: Final = 1e6
"""fs (1 ns) between the frames kept of a trajectory, [TrainsPot] Sec. II A 5."""

SUPERCELL_LENGTH: Final = 18.0
"""Å, smallest perpendicular height of a supercell, [TrainsPot] Sec. II A 2."""
SUPERCELL_MAX_ATOMS: Final = 450
"""[TrainsPot] Sec. II A 2."""
RATTLE_FRACTION: Final = 0.3
"""Largest displacement over the nearest-neighbour distance, [TrainsPot] Sec. II A 2."""
STRAIN_RANGE: Final = (-0.1, 0.2)
"""Range of linear strain, ours: 0.73 to 1.73 times the volume. Compression by 10 % along three axes is some 100 GPa for
a metal; tension is largest at strains of 17 to 22 %, where the universal binding curve of metals turns (Rose et al.,
Phys. Rev. B 29, 2963 (1984)), and beyond a crystal falls apart, which slabs and clusters show better. [TrainsPot] Sec.
II A 2 has −20 % to +60 %: up to 4.1 times the volume, most of it such frames."""
VACANCY_FRACTION: Final = 0.3
"""Share of the rattled frames that get vacancies, [TrainsPot] Sec. II A 2."""
VACANCIES_PER_FRAME: Final = 2
"""[TrainsPot] Sec. II A 2."""
SUBSTITUTION_FRACTION: Final = 0.2
"""Share of the distorted frames that get substitutions, [TrainsPot] Sec. II A 2."""
SUBSTITUTED_ATOMS: Final = 0.2
"""Share of the atoms of a frame that change their element. [TrainsPot] Sec. II A 2 makes as many exchanges, of two
atoms each, after which little is left of the order."""
CLUSTER_MAX_RATIO: Final = math.sqrt(3.0)
"""Largest distance to a neighbour in a cluster over the smallest, [TrainsPot] Sec. II A 2."""
SCAN_POINTS: Final = 64
"""Points of the scan of a bond, [SPARC]."""
SLAB_THICKNESS: Final = 10.0
"""Å, smallest thickness of a slab, [TrainsPot] Sec. II A 2."""
SLAB_MAX_ATOMS: Final = 450
"""[TrainsPot] Sec. II A 2."""
VACUUM: Final = 15.0
"""Å, along directions that are not periodic, [TrainsPot] Sec. II A 2."""

COMMITTEE_SIZE: Final = 4
"""Members of a committee, lower end of the 4–6 in common use, [UQ-ACE]."""
COMMITTEE_SIZE_ALONE: Final = 10
"""Members from which a committee flags a stable share of frames without grades, [UQ-ACE] Sec. 3.2 and Fig. S2."""

QUERY_ENERGY: Final = 0.1
"""eV/atom, standard deviation of a committee above which a frame is selected, [MP-ALOE] Methods."""
QUERY_FORCE: Final = 0.1
"""eV/Å, [MP-ALOE] Methods."""
QUERY_STRESS: Final = 0.1
"""eV/Å³, [MP-ALOE] Methods."""
