"""`python -m tests.chaos [WHAT [ARGS]]`: the long campaigns, each leaving its file for the report.

`crashes`, `scenarios`, `storage`, `planted`, or `report` (which only writes the page anew); without a word, or
with `--cycles` and `--seed` alone, all of them and the page.
"""

from __future__ import annotations

import argparse
import sys

from tests.chaos import crashes, planting, report, scenarios
from tests.chaos.storage import __main__ as storage

CAMPAIGNS = {
    "crashes": crashes.main,
    "scenarios": scenarios.main,
    "storage": storage.main,
    "planted": planting.main,
}


def main(arguments: list[str]) -> int:
    """What is asked for, and the page."""
    if arguments[:1] == ["report"]:
        report.write()
        return 0
    if arguments and arguments[0] in CAMPAIGNS:
        return run(arguments[0], arguments[1:])
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--cycles", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    codes = [
        run("crashes", ["--cycles", str(options.cycles), "--seed", str(options.seed)]),
        run("scenarios", ["--rounds", str(options.rounds)]),
        run("storage", ["--seed", str(options.seed)]),
        run("planted", []),
    ]
    return max(codes)


def run(name: str, arguments: list[str]) -> int:
    """One campaign; what it found goes into the page, good or bad."""
    if "--report" not in arguments:
        arguments = [*arguments, "--report", str(report.FOLDER / f"{name}.json")]
    code = CAMPAIGNS[name](arguments)
    report.write()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
