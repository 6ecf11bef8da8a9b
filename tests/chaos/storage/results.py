"""What a campaign came to, as one JSON object: for the reliability report, and for whoever reads it."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
import sqlite3
import time
from pathlib import Path


@dataclasses.dataclass(kw_only=True)
class Result:
    """One campaign. `lost` counts what was acknowledged and is not there: it must be 0."""

    name: str
    what: str
    """One sentence: what was done to what, and what was looked for."""
    seed: int
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    lost: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)
    """One line each, with what repeats it; the first few."""
    seconds: float = 0.0
    date: str = ""
    command: str = ""
    """Does the same again."""
    machine: str = ""

    def __post_init__(self) -> None:
        self._begun = time.monotonic()

    def count(self, name: str, more: int = 1) -> None:
        """So many more of these."""
        self.counts[name] = self.counts.get(name, 0) + more

    def fail(self, line: str) -> None:
        """Something was not as promised."""
        self.count("failures")
        if len(self.failures) < 20:
            self.failures.append(line)

    def done(self) -> Result:
        """Note the time, and give it back."""
        self.seconds = round(time.monotonic() - self._begun, 1)
        self.machine = (
            f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, "
            f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
        )
        self.date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        return self

    @property
    def is_good(self) -> bool:
        """Whether every promise was kept."""
        return not self.lost and not self.failures


def write(results: list[Result], target: Path) -> None:
    """All of them into one file, as a list."""
    lines = [dataclasses.asdict(result) for result in results]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")
