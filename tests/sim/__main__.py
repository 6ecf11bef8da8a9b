"""`python -m tests.sim`: a campaign of seeds, or one seed told step by step."""

from __future__ import annotations

import argparse
import pathlib
import sys

from tests.sim.campaign import campaign, replay


def main() -> int:
    """Parse the command line, run, and say what was covered."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many seeds")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--seed", type=int, help="this seed alone")
    parser.add_argument("--trace", action="store_true", help="with --seed: print every step")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--report", type=pathlib.Path, help="write the result there, as JSON")
    options = parser.parse_args()
    if options.seed is not None:
        return replay(options.seed, tracing=options.trace)
    return campaign(options.first, options.seeds, processes=options.jobs, report_to=options.report)


if __name__ == "__main__":
    sys.exit(main())
