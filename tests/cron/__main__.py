"""`python -m tests.cron`: ten years, every minute in five zones, every change of every zone.

Leaves docs/reliability/cron.json, which the reliability report is made of; the exit status says whether
anything differed.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

from tests.chaos.results import Result, write
from tests.cron.campaign import (
    FIRST_YEAR,
    SCHEDULES,
    YEAR_MS,
    ZONES,
    Found,
    every_minute,
    near_changes,
)
from titan_proto import cron

YEARS = 10
REPORT = Path(__file__).resolve().parents[2] / "docs" / "reliability" / "cron.json"


def main() -> int:
    """Compare, write down, say."""
    end_ms = FIRST_YEAR + YEARS * YEAR_MS
    near, whole = Found(), Found()
    near_changes(near, FIRST_YEAR, end_ms, SCHEDULES)
    print(f"{near.changes} changes of {near.rules} rules in {near.seconds} s: {near.wrong[:3]}")
    for zone in ZONES:
        every_minute(whole, (zone,), FIRST_YEAR, end_ms)
        print(f"{zone}: {whole.compared:,} firings so far, {whole.seconds} s: {whole.wrong[:3]}")
    wrong = near.wrong + whole.wrong
    result = Result(
        name="cron",
        what="when schedules fire, against a scan of every minute that shares no code with it",
        command="nox -s cron-full",
        seeds="none",
        figures={
            "years": f"{YEARS}, from 2026",
            "zones": f"{len(cron.zones())} of tzdata {version('tzdata')}, {near.rules} rules",
            "schedules": str(len(SCHEDULES)),
            "changes of clocks, 72 hours round each": f"{near.changes:,}",
            "zones in which every minute was looked at": ", ".join(ZONES),
            "minutes scanned": f"{near.minutes + whole.minutes:,}",
            "firings compared": f"{near.compared + whole.compared:,}",
            "stretches in which anything differed": str(len(wrong)),
            "took": f"{whole.seconds} s",
        },
        passed=not wrong,
        found=wrong[:20],
    )
    write(REPORT, result)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
