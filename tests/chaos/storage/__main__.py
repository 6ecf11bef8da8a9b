"""`python -m tests.chaos.storage`: the long campaigns against the master's disk, one result each.

    python -m tests.chaos.storage --power 10000 --points all --flips 2000 --report FILE.json

What is not asked for is not run; without anything, all are, at full length.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.chaos.storage import damage, points, power
from tests.chaos.storage.results import Result, write

POWER, FLIPS, CUTS = 10_000, 2_000, 500
CONTROL = 100
"""Histories of each weaker habit: enough to see that they lose records."""


def main(arguments: list[str]) -> int:
    """Run what is asked for; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.storage", description=__doc__)
    parser.add_argument("--power", type=int, metavar="SEEDS", help=f"power cuts ({POWER:,})")
    parser.add_argument("--points", metavar="N", help="write points: how many, or `all`")
    parser.add_argument("--flips", type=int, metavar="BITS", help=f"flipped bits ({FLIPS:,})")
    parser.add_argument("--cuts", type=int, default=CUTS, help="cut files, beside flipped bits")
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument("--report", type=Path, metavar="FILE", help="leave the results here")
    options = parser.parse_args(arguments)
    if options.power is None and options.points is None and options.flips is None:
        options.power, options.points, options.flips = POWER, "all", FLIPS
    results = []
    for words, result in _campaigns(options):
        result.command = f"nox -s chaos-full -- storage {words} --seed {options.seed}"
        results.append(result)
        print(f"{result.name}: lost {result.lost}, {result.counts}, {result.seconds} s", flush=True)
        for line in result.failures:
            print(line, flush=True)
        if options.report is not None:
            write(results, options.report)  # after each: a long run that is stopped has told much
    return 0 if all(result.is_good for result in results) else 1


def _campaigns(options: argparse.Namespace):
    if options.power:
        words = f"--power {options.power}"
        yield words, power.campaign(options.seed, options.power, power.Habits())
        yield words, _control(options.seed)
    if options.points:
        sample = None if options.points == "all" else int(options.points)
        yield f"--points {options.points}", points.campaign(options.seed, sample=sample)
    if options.flips:
        words = f"--flips {options.flips} --cuts {options.cuts}"
        yield words, damage.campaign(options.seed, flips=options.flips, cuts=options.cuts)


def _control(seed: int) -> Result:
    """The same cuts to masters that take it easier: it is a failure if they lose nothing."""
    result = Result(
        name="power cuts, the control",
        what=f"the same to {CONTROL} histories with synchronous=NORMAL, and to {CONTROL} that forget "
        "a failed sync: both must be seen to lose records",
        seed=seed,
    )
    for name, habits in (
        ("NORMAL", power.Habits(synchronous="NORMAL")),
        ("a failed sync forgotten", power.Habits(is_log_trusted=True)),
    ):
        lost = power.campaign(seed, CONTROL, habits).lost
        result.count(f"histories with loss, {name}", lost)
        if not lost:
            result.fail(f"{name}: nothing was lost, so the test proves nothing")
    return result.done()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
