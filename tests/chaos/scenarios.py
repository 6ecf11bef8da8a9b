"""`python -m tests.chaos scenarios --rounds N`: the named scenarios, again and again.

What the default run does once (freezes, bad wires, partitions, what was to be shown), with the long
storm of kills, and counted for the report. Each round is one pytest run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

from tests.chaos.results import Result, write

ROOT = Path(__file__).resolve().parents[2]
FILES = (
    *("test_shown.py", "test_freeze.py", "test_proxy.py", "test_partition.py", "test_synced.py"),
    "test_schedules.py",
)
STORM_S = 30
SCHEDULE_S = 180


def once(folder: Path) -> list[tuple[str, str]]:
    """Every scenario's name and outcome."""
    log = folder / "results.xml"
    subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", f"--rootdir={ROOT}", f"--junitxml={log}"),
            *("--config-file", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider"),
            *(f"--basetemp={folder / 't'}",),
            *(str(Path(__file__).with_name(name)) for name in FILES),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "TITAN_CHAOS_STORM_S": str(STORM_S),
            "TITAN_CHAOS_SCHEDULE_S": str(SCHEDULE_S),
        },
        stdin=subprocess.DEVNULL,
        check=False,
    )
    found = []
    for case in ET.parse(log).getroot().iter("testcase"):
        kinds = {child.tag for child in case}
        outcome = (
            "failed"
            if kinds & {"failure", "error"}
            else "skipped"
            if "skipped" in kinds
            else "kept"
        )
        found.append((case.attrib["name"], outcome))
    return found


def main(arguments: list[str]) -> int:
    """So many rounds."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos scenarios")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args(arguments)
    outcomes: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory(prefix="titan-scenarios-") as folder:
        for _ in range(options.rounds):
            outcomes.update(once(Path(folder)))
    names = list(dict.fromkeys(name for name, _ in outcomes))
    failed = [name for name in names if outcomes[name, "failed"]]
    if options.report is not None:
        figures = {"rounds": str(options.rounds)}
        for name in names:
            counts = {kind: outcomes[name, kind] for kind in ("kept", "failed", "skipped")}
            figures[f"`{name}`"] = ", ".join(f"{kind} {n}" for kind, n in counts.items() if n)
        write(
            options.report,
            Result(
                name="scenarios",
                what=(
                    "freezes, bad wires, partitions, and what a person may try by hand; "
                    f"the storm of kills takes {STORM_S} s, the schedule {SCHEDULE_S} s"
                ),
                command=f"nox -s chaos-full -- scenarios --rounds {options.rounds}",
                seeds="fixed",
                figures=figures,
                passed=not failed,
                found=[f"`{name}` failed {outcomes[name, 'failed']} times" for name in failed],
            ),
        )
    return 1 if failed else 0
