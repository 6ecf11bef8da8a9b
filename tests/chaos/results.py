"""What a full run leaves for the report: one JSON file, with what is needed to run it again."""

from __future__ import annotations

import datetime
import os
import platform
import sqlite3
from pathlib import Path

import msgspec
from msgspec import Struct


class Result(Struct, kw_only=True):
    """One campaign's outcome."""

    name: str
    """Of its file, and its place in the report."""
    what: str
    """What was done, in a few words."""
    command: str
    """Does the same again."""
    seeds: str
    figures: dict[str, str]
    """What is told of it, in this order."""
    passed: bool
    found: list[str] = []
    """What was wrong; the first few."""
    date: str = ""
    machine: str = ""


def machine() -> str:
    """This machine, as far as it may matter."""
    return (
        f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )


def write(path: Path, result: Result) -> None:
    """Leave it there, stamped with the day and the machine."""
    result.date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    result.machine = machine()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")


def decode(content: object) -> Result:
    """What `write` left, from the JSON's object. Raises msgspec.ValidationError."""
    return msgspec.convert(content, Result)


def percentile(values: list[float], percent: float) -> float:
    """The value that so many percent do not exceed; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
