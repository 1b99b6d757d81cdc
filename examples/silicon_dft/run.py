"""From one structure of silicon to a committee of MACE potentials, labelled by density-functional theory with pw.x.

At the end equation of state and elastic constants of the committee stand beside those of pw.x itself. Everything lives
below AIIDA_PATH (``make silicon`` sets it to .aiida in the clone): profile, daemon, jobs.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from aiida import orm
from aiida.plugins import WorkflowFactory
from aiida_pseudo.data.pseudo import UpfData
from aiida_pseudo.groups.family import PseudoPotentialFamily
from validate import PROFILE, common, validate

from aiida_alpot.data.pes import PESData

HERE = Path(__file__).parent
PSEUDO = "Si.pz-vbc.UPF"
FOLDER = Path("/usr/share/espresso/pseudo")
"""Where Debian's package quantum-espresso-data puts its pseudopotentials."""


def find_pw() -> str:
    """Return the path of pw.x, or end with the remedy."""
    path = shutil.which("pw.x")
    if path is None:
        sys.exit("pw.x is not on the PATH; install Quantum ESPRESSO (Debian, Ubuntu: apt-get install quantum-espresso)")
    return path


def find_pseudo(path: Path) -> Path:
    """Return the file of the pseudopotential, or end with the remedy."""
    if not path.is_file():
        sys.exit(
            f"there is no pseudopotential {path}; install it (Debian, Ubuntu: apt-get install quantum-espresso-data) "
            f"or name another copy of {PSEUDO}: run.py --pseudo FILE"
        )
    return path


def install_family(pseudo: Path) -> str:
    """Make a family of one pseudopotential if there is none of the same content, and return its name."""
    name = f"silicon-{hashlib.sha256(pseudo.read_bytes()).hexdigest()[:8]}"
    if not orm.QueryBuilder().append(PseudoPotentialFamily, filters={"label": name}).count():
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(pseudo, Path(folder) / "Si.UPF")
            PseudoPotentialFamily.create_from_folder(Path(folder), name, pseudo_type=UpfData)
    return name


def read_settings(family: str) -> dict[str, Any]:
    """Return settings.yaml with the family of the pseudopotential in its place."""
    settings: dict[str, Any] = yaml.safe_load((HERE / "settings.yaml").read_text(encoding="utf-8"))
    settings["label"]["parameters"]["pseudo_family"] = family
    return settings


def main() -> None:
    parser = common.build_parser(__doc__, HERE / "results")
    parser.add_argument("--pseudo", type=Path, default=FOLDER / PSEUDO, help=f"pseudopotential ({FOLDER / PSEUDO})")
    arguments = parser.parse_args()

    start = time.monotonic()
    pw, pseudo = find_pw(), find_pseudo(arguments.pseudo)
    common.prepare_profile(PROFILE, cached=arguments.cached, poll_interval=5.0)
    family = install_family(pseudo)
    common.start_daemon(PROFILE)
    workchain = WorkflowFactory("alpot.active_learning")
    codes = dict.fromkeys(workchain.STAGE_NAMES, common.load_python())
    codes["label"] = common.load_code("pw", pw, "quantumespresso.pw")
    overrides = {**read_settings(family), "seed": arguments.seed}
    builder = workchain.get_builder_from_protocol(
        codes,
        protocol="fast",
        overrides=overrides,
        options=common.OPTIONS,
        structures=PESData.from_file(HERE / "silicon.xyz"),
        test_frames=PESData.from_file(HERE / "test.xyz"),
    )
    builder.metadata.label = f"silicon, seed {arguments.seed}"
    node = common.follow(builder, PROFILE)
    folder = common.export_results(node, arguments.results, "silicon, LDA labels by pw.x, MACE committee of three")
    try:
        table = validate(node, folder)
    finally:
        common.stop_daemon(PROFILE)
    common.conclude(node, time.monotonic() - start, folder, PROFILE)
    common.say(table)


if __name__ == "__main__":
    main()
