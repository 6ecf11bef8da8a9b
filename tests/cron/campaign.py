"""What is compared: which zones, which schedules, which minutes.

A zone's rule is what its clocks do in the years that are looked at; zones of one rule are one zone here,
and each rule is scanned once.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from typing import Final

from tests.cron.brute import Minute, Schedule, minutes
from titan_proto import cron

FIRST_YEAR: Final = 1_767_225_600_000
"""The first of January 2026, in milliseconds."""
YEAR_MS: Final = 31_557_600_000
ZONES: Final = (
    "America/New_York",
    "Europe/Berlin",
    "Australia/Lord_Howe",  # half an hour
    "America/Santiago",  # at midnight
    "Asia/Kolkata",  # never
)
"""Those whose every minute is looked at."""
SCHEDULES: Final = (
    "* * * * *",
    "*/5 * * * *",
    "*/7 */5 * * *",
    "0 * * * *",
    "17 * * * *",
    "15,45 */2 * * *",
    "*/20 2 * * *",
    "*/10 0-3 * * SUN",
    "0 0 * * *",
    "30 0 * * *",
    "15 1 * * *",
    "30 1 * * *",
    "0 2 * * *",
    "5,25,45 2 * * *",
    "30 2 * * *",
    "59 2 * * 0",
    "0 3 * * *",
    "0,30 1-4 * * *",
    "0 0,1,2,3,23 * * *",
    "30 23 * * *",
    "0 12 13 * 5",
    "0 0 */2 * MON",
    "45 1 1-7 * sun",
    "0 0 1 1,3,4,10,11 *",
    "30 2 29 2 *",
    "1 0 31 */2 *",
)
AROUND: Final = 36 * 60
"""Minutes before and after a change of clocks: 72 hours in all."""


def rules(from_ms: int, to_ms: int) -> dict[str, tuple[str, list[cron.Change]]]:
    """Every rule, by a digest of it: the first zone that has it, and its changes."""
    found: dict[str, tuple[str, list[cron.Change]]] = {}
    for name in cron.zones():
        zone = cron.find_zone(name)
        changes = cron.changes(zone, from_ms, to_ms)
        text = f"{cron.offset_s(zone, from_ms)} {changes}"
        found.setdefault(hashlib.sha256(text.encode()).hexdigest(), (name, changes))
    return found


def compare(
    zone: str, first: int, last: int, schedules: Iterable[str] = SCHEDULES
) -> tuple[int, list[str]]:
    """Scan these minutes of a zone: how many answers were compared, and what differs."""
    scanned = list(minutes(zone, first, last))
    compared = 0
    wrong: list[str] = []
    for text in schedules:
        expected = fired(Schedule(text), scanned)
        times = cron.parse(text, zone)
        at_ms: int | None = first * 60_000 - 1
        found: list[int] = []
        while at_ms is not None:
            at_ms = times.next_ms(at_ms)
            if at_ms is None or at_ms >= last * 60_000:
                break
            found.append(at_ms // 60_000)
        compared += len(expected)
        if found != expected:
            odd = sorted(set(found) ^ set(expected))
            wrong.append(f"{zone}, {text}: {len(odd)} moments differ, the first at minute {odd[0]}")
    return compared, wrong


def fired(schedule: Schedule, scanned: Iterable[Minute]) -> list[int]:
    """The minutes at which it fires."""
    return [minute.at for minute in scanned if schedule.fires(minute)]


class Found:
    """What a campaign came to."""

    def __init__(self) -> None:
        self.minutes = 0
        self.compared = 0
        self.changes = 0
        self.rules = 0
        self.wrong: list[str] = []
        self.began = time.monotonic()

    def add(self, zone: str, first: int, last: int, schedules: Iterable[str] = SCHEDULES) -> None:
        """Take in another stretch of minutes."""
        compared, wrong = compare(zone, first, last, schedules)
        self.minutes += last - first
        self.compared += compared
        self.wrong += wrong

    @property
    def seconds(self) -> float:
        """How long it took."""
        return round(time.monotonic() - self.began, 1)


def near_changes(found: Found, from_ms: int, to_ms: int, schedules: Iterable[str]) -> None:
    """72 hours round each change of each rule."""
    for zone, changes in rules(from_ms, to_ms).values():
        found.rules += 1
        for change in changes:
            found.changes += 1
            middle = change.at_ms // 60_000
            found.add(zone, middle - AROUND, middle + AROUND, schedules)


def every_minute(found: Found, zones: Iterable[str], from_ms: int, to_ms: int) -> None:
    """All minutes of a few zones, a month at a time."""
    for zone in zones:
        for first in range(from_ms // 60_000, to_ms // 60_000, 43_200):
            found.add(zone, first, min(first + 43_200, to_ms // 60_000))
