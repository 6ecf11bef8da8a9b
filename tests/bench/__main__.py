"""`python -m tests.bench [w1 w2 …] [--repeats N] [--write FILE]`: measure and report.

Exits 0 with every figure within its bar, else 1; a missed figure is reported, never bent.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import tempfile
from pathlib import Path

from tests.bench.pages import d1
from tests.bench.workloads import ALL, Figure

WORKLOADS = {**ALL, "d1": d1}

HEAD = """\
# Benchmarks

Written by `nox -s bench -- --write docs/benchmarks.md`. Every figure is the median of several runs,
each in a fresh folder of one file system, with everything durable (`synchronous=FULL`), a workspace
and a log per job, in the default installation. Where there is a floor it is measured in the same
run, in turn with Titan: a plain Python loop that makes a folder and a log file for each process and
spawns it there with `subprocess`, under the same number of slots. Times depend on the machine and
its mood; the ratios are what counts.
"""


def table(figures: list[Figure]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| | What | Floor | Titan | Measured | Bar | |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {f.name} | {f.what} | {f.floor} | {f.titan} | {f.measured:.2f} {f.unit} "
        f"| ≤ {f.bar:g} {f.unit} | {'reached' if f.reached else '**missed**'} |"
        for f in figures
    ]
    return "\n".join(lines)


def main() -> int:
    """Run the chosen workloads."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("workloads", nargs="*", help=f"of {' '.join(WORKLOADS)}; none means all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", type=Path, help="write the report there")
    options = parser.parse_args()
    chosen = options.workloads or list(WORKLOADS)
    figures: list[Figure] = []
    # Nothing is deleted before the last has run: a file system that has just deleted thousands of
    # files makes new ones slowly for a while, and would be measured instead of Titan.
    with tempfile.TemporaryDirectory(prefix="titan-bench-") as root:
        for name in chosen:
            found = WORKLOADS[name](Path(root) / name, options.repeats)
            figures += found
            for figure in found:
                print(
                    f"{figure.name:20} floor {figure.floor:>10}  titan {figure.titan:>24}  "
                    f"{figure.measured:8.2f} {figure.unit:10} bar {figure.bar:g}  "
                    f"{'reached' if figure.reached else 'MISSED'}",
                    flush=True,
                )
    if options.write:
        machine = (
            f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, "
            f"Python {platform.python_version()}, {datetime.datetime.now(tz=datetime.UTC).date().isoformat()}"
        )
        notes = ""
        if options.write.is_file():
            _, mark, rest = options.write.read_text(encoding="utf-8").partition("\n## Notes\n")
            notes = mark + rest  # written by people, kept
        options.write.write_text(
            f"{HEAD}\nMachine: {machine}.\n\n{table(figures)}\n{notes}", encoding="utf-8"
        )
    return 0 if all(figure.reached for figure in figures) else 1


if __name__ == "__main__":
    raise SystemExit(main())
