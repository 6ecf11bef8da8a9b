"""`python -m tests.chaos report`: docs/reliability-report.md, made of what the full runs left.

Each campaign leaves one file in docs/reliability/; the page says what they say and nothing else, so a
figure that nobody has measured cannot stand there. A test compares the two.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.chaos.results import Result, decode

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "reliability"
PAGE = ROOT / "docs" / "reliability-report.md"

HEAD = """\
# Reliability report

Written by the full runs themselves (`nox -s chaos-full`, `sim-full` and `cron-full`), from the files in
[reliability/](reliability/) that each of them leaves. What a line says can be run again with the
command beside it; the same seed asks the same of Titan, while the moments at which real processes
meet it are never quite the same. What is promised, and what is not, is
[explanation/guarantees.md](explanation/guarantees.md). A full run takes long and belongs to the tree
it ran on: `git log` of its file says which that was.
"""

_LINE_CHARS = 300

ORDER = ("sim", "cron", "crashes", "scenarios", "storage", "planted")
"""Of the campaigns on the page; others follow by name."""


def load(folder: Path) -> list[Result]:
    """What the campaigns left, in the order of the page."""
    found: list[Result] = []
    for path in sorted(folder.glob("*.json"), key=_place):
        content = json.loads(path.read_text(encoding="utf-8"))
        found += [
            _result(path.stem, one) for one in (content if isinstance(content, list) else [content])
        ]
    return found


def render(results: list[Result]) -> str:
    """The page."""
    parts = [HEAD, _summary(results)]
    parts += [_section(result) for result in results]
    return "\n".join(parts)


def write(folder: Path = FOLDER, page: Path = PAGE) -> None:
    """Make the page anew."""
    page.write_text(render(load(folder)), encoding="utf-8")


def _place(path: Path) -> tuple[int, str]:
    return (ORDER.index(path.stem) if path.stem in ORDER else len(ORDER), path.stem)


def _result(stem: str, one: dict[str, Any]) -> Result:
    """A campaign's own words, in whichever of three forms it counts."""
    if "figures" in one:
        return decode(one)
    if "coverage" in one:
        return _of_the_simulator(one)
    return _of_the_store(stem, one)


def _of_the_simulator(one: dict[str, Any]) -> Result:
    first, seeds = one["first"], one["seeds"]
    faults = one["coverage"].get("fault", {})
    return Result(
        name="sim",
        what="a whole cluster in one process, from one seed: every promise is checked after each step",
        command=f"nox -s sim-full -- --first {first} --seeds {seeds}",
        seeds=f"{first} to {first + seeds - 1}",
        figures={
            "seeds": f"{seeds:,}",
            "seeds that broke a promise": str(len(one["failed"])),
            "steps": f"{one['steps']:,}",
            "took": f"{one['seconds']} s",
            "kinds of faults that were never made": str(len(one["missing"])),
            **{f"fault: {name}": f"{count:,}" for name, count in faults.items()},
        },
        passed=not one["failed"] and not one["missing"],
        found=[*one["failures"], *(f"never exercised: {name}" for name in one["missing"])],
        date=one["date"][:10],
        machine=one.get("machine", ""),
    )


def _of_the_store(stem: str, one: dict[str, Any]) -> Result:
    counts = {name: f"{count:,}" for name, count in one["counts"].items() if name != "failures"}
    return Result(
        name=one["name"],
        what=one["what"],
        command=one.get("command") or f"nox -s chaos-full -- {stem}",
        seeds=f"from {one['seed']}",
        figures={
            **counts,
            "acknowledged and lost": str(one["lost"]),
            "took": f"{one['seconds']} s",
        },
        passed=not one["lost"] and not one["failures"],
        found=one["failures"],
        date=one["date"],
        machine=one.get("machine", ""),
    )


def _summary(results: list[Result]) -> str:
    lines = ["| Campaign | Kept | Found | Seeds | Date |", "|---|---|---|---|---|"]
    lines += [
        f"| {r.name} | {'yes' if r.passed else '**no**'} | {len(r.found) or 'nothing'} | {r.seeds} "
        f"| {r.date} |"
        for r in results
    ]
    return "\n".join(lines) + "\n"


def _section(result: Result) -> str:
    lines = [f"## {result.name}", "", f"{_sentence(result.what)} Again: `{result.command}`.", ""]
    if result.machine:
        lines += [f"Machine: {result.machine}.", ""]
    lines += ["| | |", "|---|---|"]
    lines += [f"| {what} | {value} |" for what, value in result.figures.items()]
    if result.found:
        lines += ["", "Found:", "", *(f"* {_one_line(line)}" for line in result.found)]
    return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    """A failure may quote whole events: its beginning says which, the JSON has the rest."""
    line = " ".join(text.split()).replace("`", "'")
    return line if len(line) <= _LINE_CHARS else f"{line[:_LINE_CHARS]} …"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."
