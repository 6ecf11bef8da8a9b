"""Writes ``docs/internals/lifecycle.md`` from the tables of legal moves; ``--check`` only compares.

The figures are drawn from the tables themselves, the reasons are the comments beside their rows, so
that the page cannot say anything else than the code. Run by hand after a change of a table; a test
in ``tests/docs`` fails while the page is stale.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from titan_master.core import transitions as master
from titan_proto.states import OpenEnum
from titan_worker.core import transitions as worker

PAGE = Path(__file__).resolve().parent.parent / "docs" / "internals" / "lifecycle.md"

Moves = Iterable[tuple[OpenEnum, OpenEnum]]

_ROW = re.compile(r"^\s*\(\w+\.(\w+), \w+\.(\w+)\),(?:\s*# (.*))?$")
_COMMENT = re.compile(r"^\s+# (.*)$")

_INTRO = """\
# Lifecycles

Made by `tools/gen_lifecycle.py` from `titan_master.core.transitions` and
`titan_worker.core.transitions`; do not edit. `apply` looks a move up before it makes it, and a move
that is not listed ends the process: it would be a bug. The pure tests make every listed move and try
every other one; the simulator's campaign fails if one never happened.

In the figures `■` marks a state that nothing leaves. A thing's first state is no move.
"""

_SECTIONS = (
    (
        "JOB",
        "Job",
        (
            "A node of a run. It begins as BLOCKED if it has dependencies, else as SCHEDULED if it is "
            "delayed, else as QUEUED; a gate as WAITING: it is never queued, and somebody, or its time, "
            "decides about it. The job of a service is SUCCEEDED when the service is healthy for the "
            "first time."
        ),
    ),
    (
        "ATTEMPT",
        "Attempt, as the master sees it",
        (
            "One try at a job on one worker. It begins as PREPARING when it is placed. How it ended is "
            "its reason, not its state."
        ),
    ),
    (
        "RUN",
        "Run",
        (
            "FAILED if any job failed, else CANCELLED if any was cancelled, else SUCCEEDED. Skipped jobs "
            "count as neither."
        ),
    ),
    (
        "WORKER",
        "Worker",
        (
            "Begins as ONLINE when it joins for the first time. A link that breaks is no move; silence "
            "is: after a third of the lease SILENT, after all of it LOST. One that is "
            "being shut down says so and is DRAINING until it has gone: its running tasks may go on "
            "for a while. A lost worker is forgotten after a day."
        ),
    ),
    (
        "SERVICE",
        "Service",
        "Exists from the moment its job has settled. It is not started again when it ends.",
    ),
)


def reasons(module: ModuleType, table: str) -> dict[tuple[str, str], str]:
    """The comment at, or right above, each row of a table."""
    found: dict[tuple[str, str], str] = {}
    above: list[str] = []
    is_inside = False
    for line in inspect.getsource(module).splitlines():
        if line.startswith(f"{table}:"):
            is_inside = True
        elif is_inside and line.startswith(")"):
            break
        elif is_inside and (row := _ROW.match(line)):
            found[row[1], row[2]] = row[3] or " ".join(above)
            above = []
        elif is_inside and (comment := _COMMENT.match(line)):
            above.append(comment[1])
    return found


def in_order(moves: Moves) -> list[tuple[OpenEnum, OpenEnum]]:
    """The moves in the order in which their enum names the states."""
    rows = list(moves)
    place = {state: number for number, state in enumerate(type(rows[0][0]))}
    return sorted(rows, key=lambda row: (place[row[0]], place[row[1]]))


def figure(moves: Moves) -> list[str]:
    """Each state with what may follow it."""
    rows = in_order(moves)
    left = {before for before, _ in rows}
    width = max(len(state) for state in left)
    lines = ["```text"]
    for state in dict.fromkeys(before for before, _ in rows):
        nexts = [after for before, after in rows if before is state]
        for number, after in enumerate(nexts):
            name = str(state) if number == 0 else ""
            if len(nexts) == 1:
                branch = "───►"
            elif number == 0:
                branch = "─┬─►"
            else:
                branch = " └─►" if number == len(nexts) - 1 else " ├─►"
            gap = "─" if number == 0 else " "
            pad = gap * (width - len(name) + 1)
            end = "" if after in left else " ■"
            lines.append(f"{name} {pad}{branch} {after}{end}")
    return [*lines, "```", ""]


def table(moves: Moves, why: dict[tuple[str, str], str]) -> list[str]:
    """The moves of which the code says when they happen, in its order."""
    told = [(names, text) for names, text in why.items() if text]
    if not told:
        return []
    known = {(before.name, after.name): (before, after) for before, after in moves}
    lines = ["| From | To | When |", "|---|---|---|"]
    for names, text in told:
        before, after = known[names]
        lines.append(f"| {before} | {after} | {text} |")
    return [*lines, ""]


def section(title: str, words: str, module: ModuleType, name: str) -> list[str]:
    """One kind of thing."""
    moves: Moves = getattr(module, name)
    lines = [f"## {title}", "", *_wrapped(words), ""]
    return [*lines, *figure(moves), *table(moves, reasons(module, name))]


def make_page() -> str:
    """The whole page."""
    missing = master.TABLES.keys() - {name for name, _, _ in _SECTIONS}
    if missing:
        raise SystemExit(f"no section for {', '.join(sorted(missing))}")
    lines = [*_INTRO.splitlines(), ""]
    for name, title, words in _SECTIONS:
        lines += section(title, words, master, name)
    lines += section(
        "Attempt, as the worker's ledger tells it",
        "The ledger does not write down that a process is about to be started: the order's own "
        "record says so. What peers are shown has STARTING in between.",
        worker,
        "ATTEMPT",
    )
    return "\n".join(lines).rstrip() + "\n"


def _wrapped(words: str) -> list[str]:
    return textwrap.wrap(words, 100)


def main(arguments: list[str]) -> int:
    """Write or check; 1 if stale."""
    page = make_page()
    is_fresh = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page
    if "--check" in arguments:
        if not is_fresh:
            print(f"{PAGE} is stale: run python tools/gen_lifecycle.py")
        return 0 if is_fresh else 1
    if not is_fresh:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page, encoding="utf-8")
        print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
