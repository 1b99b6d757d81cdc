"""From one structure of ethanol to a committee of MACE potentials with error bars.

Everything lives below AIIDA_PATH (``make quickstart`` sets it to .aiida in the clone): profile, daemon, jobs, results.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import yaml
from aiida.plugins import WorkflowFactory

from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.settings import merge_recursively

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import common  # noqa: E402  it lies beside this folder and is not installed

PROFILE = "quickstart"


def main() -> None:
    parser = common.build_parser(__doc__, HERE / "results")
    parser.add_argument("--strategy", default=None, help="selection strategy, e.g. random, to compare with")
    arguments = parser.parse_args()

    start = time.monotonic()
    common.prepare_profile(PROFILE, cached=arguments.cached)
    common.start_daemon(PROFILE)
    overrides = yaml.safe_load((HERE / "settings.yaml").read_text(encoding="utf-8"))
    overrides["seed"] = arguments.seed
    if arguments.strategy is not None:
        overrides = merge_recursively(overrides, {"evaluate": {"settings": {"strategy": arguments.strategy}}})
    builder = WorkflowFactory("alpot.active_learning").get_builder_from_protocol(
        common.load_python(),
        protocol="fast",
        overrides=overrides,
        options=common.OPTIONS,
        structures=PESData.from_file(HERE / "ethanol.xyz"),
        test_frames=PESData.from_file(HERE / "test.xyz"),
    )
    builder.metadata.label = f"ethanol, seed {arguments.seed}"
    node = common.follow(builder, PROFILE)
    common.stop_daemon(PROFILE)
    folder = common.export_results(node, arguments.results, "ethanol, GFN2-xTB labels, MACE committee of three")
    common.conclude(node, time.monotonic() - start, folder, PROFILE)


if __name__ == "__main__":
    main()
