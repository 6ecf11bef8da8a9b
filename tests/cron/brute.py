"""Every minute, one after the other: what a wall clock shows, and whether a schedule names it.

Shares no code with `titan_proto.cron`, reads the fields by itself, and knows nothing of transitions: a
clock that jumps is one that shows another minute than the next one. Slow on purpose.
"""

from __future__ import annotations

import datetime
import importlib.resources
from collections.abc import Iterator
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

Wall = tuple[int, int, int, int, int, int]
"""Minute, hour, day, month, weekday (Sunday is 0), and all of it as one number that grows."""

MONTHS: Final = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
DAYS: Final = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]


class Minute(NamedTuple):
    """One minute of time, and what the clock says of it."""

    at: int
    """Minutes since the epoch."""
    wall: Wall
    again: bool
    """The clock has shown this before: it was set back."""
    skipped: tuple[Wall, ...]
    """What it would have shown, had it not been set forward just now."""


def wall_of(naive: int) -> Wall:
    """What a clock shows so many minutes after the epoch, if it is never set."""
    day, minute = divmod(naive, 1440)
    date = datetime.date.fromordinal(datetime.date(1970, 1, 1).toordinal() + day)
    return minute % 60, minute // 60, date.day, date.month, (date.weekday() + 1) % 7, naive


def packaged(zone: str) -> ZoneInfo:
    """The zone as the tzdata package has it: the machine's own files may be older."""
    folder = importlib.resources.files("tzdata").joinpath("zoneinfo")
    with folder.joinpath(*zone.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, zone)


def minutes(zone: str, first: int, last: int) -> Iterator[Minute]:
    """Each minute of a zone, the last one left out. Begins two days early, to know what was shown."""
    tz = packaged(zone)
    before: int | None = None
    highest = 0
    remembered_day = -1
    day_wall: Wall = wall_of(0)
    for at in range(first - 2880, last):
        moment = datetime.datetime.fromtimestamp(at * 60, tz)
        naive = (moment.toordinal() - 719_163) * 1440 + moment.hour * 60 + moment.minute
        skipped: tuple[Wall, ...] = ()
        if before is not None and naive > before + 1:
            skipped = tuple(wall_of(missed) for missed in range(before + 1, naive))
        again = naive <= highest
        highest = max(highest, naive)
        before = naive
        if at < first:
            continue
        if naive // 1440 != remembered_day:
            remembered_day = naive // 1440
            day_wall = wall_of(naive)
        wall = (moment.minute, moment.hour, day_wall[2], day_wall[3], day_wall[4], naive)
        yield Minute(at, wall, again, skipped)


class Schedule:
    """Five fields: `*`, numbers, names, ranges, steps and lists of these."""

    def __init__(self, text: str) -> None:
        self.text = text
        fields = text.split()
        self.minutes = _field(fields[0], 0, 59)
        self.hours = _field(fields[1], 0, 23)
        self.days = _field(fields[2], 1, 31)
        self.months = _field(fields[3], 1, 12, MONTHS, 1)
        self.weekdays = {day % 7 for day in _field(fields[4], 0, 7, DAYS, 0)}
        self.both = fields[2].startswith("*") or fields[4].startswith("*")
        self.fixed = not fields[0].startswith("*") and not fields[1].startswith("*")

    def names(self, wall: Wall) -> bool:
        """Whether a clock that shows this shows its time."""
        minute, hour, day, month, weekday, _ = wall
        if minute not in self.minutes or hour not in self.hours or month not in self.months:
            return False
        if self.both:
            return day in self.days and weekday in self.weekdays
        return day in self.days or weekday in self.weekdays

    def fires(self, minute: Minute) -> bool:
        """The rule of Debian's cron, minute by minute."""
        if not self.fixed:
            return self.names(minute.wall)
        if not minute.again and self.names(minute.wall):
            return True
        # Not so where the clock had shown it already, before it was set back to be set forward again.
        return any(self.names(missed) for missed in minute.skipped)


def _field(
    text: str, least: int, most: int, names: list[str] | None = None, first: int = 0
) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        low, _, high = span.partition("-")
        if span == "*":
            start, end = least, most
        else:
            start = _number(low, names, first)
            end = _number(high, names, first) if high else most if step else start
        found.update(range(start, end + 1, int(step or 1)))
    return found


def _number(text: str, names: list[str] | None, first: int) -> int:
    return int(text) if text.isdigit() else (names or []).index(text.upper()) + first
