"""When a schedule fires: cron's five fields, macros and `@every`, in any zone, through changes of clocks.

cronsim reads the fields. Which moments they name is decided here, day by day, by the rule of Debian's
cron, because a change of clocks by half an hour, or one at midnight, is more than stepping through the
hours gets right:

* A schedule whose minute or hour begins with `*` goes by the wall clock as it is: what the clock skips
  does not happen, what it shows twice happens twice.
* One for fixed times happens once for each of them: a time that the clock skips happens at the moment
  right after the gap, one that it shows twice at the first.

Zones come from the tzdata package, never from the machine: equal versions give equal answers everywhere.
Each is read once. Nothing here asks what time it is. Used by the master's core through its own
``cron``, by the SDK to refuse what cannot be meant, and by `titan next`.
"""

from __future__ import annotations

import difflib
import functools
import io
import pkgutil
import re
from bisect import bisect_right
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone, tzinfo
from typing import Final, NamedTuple, Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from titan_proto.limits import CRON_CHARS, EVERY_MS, EVERY_MS_MIN

UTC: Final = "UTC"
MACROS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
FORM: Final = "minute hour day-of-month month day-of-week, or @hourly, @daily, @every 5m"
"""What a schedule's text looks like, for errors."""

_EVERY: Final = "@every"
_DURATION = re.compile(r"(?:(\d{1,4})d)?(?:(\d{1,5})h)?(?:(\d{1,7})m)?(?:(\d{1,9})s)?\Z")
_MINUTE_MS: Final = 60_000
_DAY_MS: Final = 86_400_000
_DAYS_REMEMBERED: Final = 8
_YEARS_AHEAD: Final = 50
"""Longer than any combination of day, month and weekday takes to come round."""
_LAST_YEAR: Final = 9_990
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_DAY_FIELD: Final = "day-of-month"
_FIELDS: Final = 5


class BadCron(Exception):
    """A schedule's text, or its zone, that means nothing; the hint says what would."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Change(NamedTuple):
    """A change of clocks."""

    at_ms: int
    before_s: int
    """Offset from UTC until then ..."""
    after_s: int
    """... and from then on."""


class Times(Protocol):
    """The moments at which a schedule fires."""

    def next_ms(self, after_ms: int) -> int | None:
        """The first moment after that one; None if there is none within fifty years."""
        ...

    def last_ms(self, until_ms: int, after_ms: int) -> int | None:
        """The last moment up to `until_ms`, itself included, but after `after_ms`."""
        ...

    def words(self) -> str:
        """The same in English."""
        ...


def parse(text: str, zone: str = UTC, *, anchor_ms: int = 0) -> Times:
    """The times of a schedule. Raises BadCron.

    Args:
        text: five fields, a macro, or `@every 5m`.
        zone: an IANA name; `@every` takes no notice of it.
        anchor_ms: from here `@every` counts its steps.
    """
    known = find_zone(zone)
    stripped = text.strip()
    if len(stripped) > CRON_CHARS:
        raise BadCron(f"{len(stripped)} characters are more than CRON_CHARS ({CRON_CHARS})", FORM)
    if not stripped:
        raise BadCron("the schedule is empty", FORM)
    if stripped.startswith("@"):
        word, _, rest = stripped.partition(" ")
        if word.lower() == _EVERY:
            return _Every(_every_ms(rest.strip()), anchor_ms)
        return _Calendar(_macro(stripped), known)
    return _Calendar(stripped, known)


def _macro(text: str) -> str:
    expression = MACROS.get(text.lower())
    if expression is not None:
        return expression
    known = [*MACROS, _EVERY]
    if text.lower() == "@reboot":
        raise BadCron("@reboot means nothing here: a cluster is not a machine that boots", FORM)
    near = difflib.get_close_matches(text.lower()[:40], known, n=1)
    hint = f'did you mean "{near[0]}"?' if near else f"known are {', '.join(known)}"
    raise BadCron(f'"{_shown(text)}" is no macro', hint)


def _every_ms(text: str) -> int:
    match = _DURATION.match(text.replace(" ", ""))
    if match is None or not match.group():
        raise BadCron(f'"@every {_shown(text)}" does not say how often', "@every 30s, @every 1h30m")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    every_ms = (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1_000
    if not EVERY_MS_MIN <= every_ms <= EVERY_MS:
        raise BadCron(
            f'"@every {_shown(text)}" is out of range',
            f"from 1s (EVERY_MS_MIN) to {EVERY_MS // _DAY_MS}d (EVERY_MS)",
        )
    return every_ms


# -- zones ----------------------------------------------------------------------------------------
@functools.cache
def zones() -> tuple[str, ...]:
    """Every name of a zone that is known."""
    listed = pkgutil.get_data("tzdata", "zones") or b""
    return tuple(listed.decode("ascii").split())


def find_zone(name: str) -> tzinfo:
    """A zone by its IANA name. Raises BadCron with the nearest name."""
    if name == UTC:
        return timezone.utc
    if name not in zones():
        folded = {known.lower(): known for known in zones()}
        near = difflib.get_close_matches(name.lower()[:60], folded, n=1)
        hint = f'did you mean "{folded[near[0]]}"?' if near else "a name such as Europe/Berlin"
        raise BadCron(f'"{_shown(name)}" is no time zone', hint)
    return _zone(name)


@functools.cache
def _zone(name: str) -> tzinfo:
    data = pkgutil.get_data("tzdata", f"zoneinfo/{name}")
    if data is None:
        raise BadCron(f'"{name}" is missing from the tzdata package', "install tzdata again")
    return ZoneInfo.from_file(io.BytesIO(data), key=name)


def offset_s(zone: tzinfo, at_ms: int) -> int:
    """A zone's offset from UTC at a moment, in seconds."""
    offset = datetime.fromtimestamp(at_ms // 1_000, zone).utcoffset()
    return 0 if offset is None else int(offset.total_seconds())


def changes(zone: tzinfo, from_ms: int, to_ms: int) -> list[Change]:
    """The changes of clocks after `from_ms` and up to `to_ms`, in their order."""
    found: list[Change] = []
    before_s = offset_s(zone, from_ms)
    low_ms = from_ms
    while low_ms < to_ms:
        # No zone changes its clocks twice within a day and back.
        high_ms = min(low_ms + _DAY_MS, to_ms)
        after_s = offset_s(zone, high_ms)
        if after_s != before_s:
            at_ms = _where_it_changes(zone, low_ms, high_ms, before_s)
            found.append(Change(at_ms, before_s, after_s))
            before_s = after_s
        low_ms = high_ms
    return found


def _where_it_changes(zone: tzinfo, low_ms: int, high_ms: int, before_s: int) -> int:
    """The first second with another offset than at `low_ms`; at `high_ms` it is another one."""
    low, high = low_ms // 1_000, high_ms // 1_000
    while high - low > 1:
        middle = (low + high) // 2
        if offset_s(zone, middle * 1_000) == before_s:
            low = middle
        else:
            high = middle
    return high * 1_000


# -- the two kinds --------------------------------------------------------------------------------
class _Every:
    """Equal steps, whatever clocks do."""

    def __init__(self, every_ms: int, anchor_ms: int) -> None:
        self._every_ms = every_ms
        self._anchor_ms = anchor_ms

    def next_ms(self, after_ms: int) -> int:
        steps = max(0, (after_ms - self._anchor_ms) // self._every_ms)
        return self._anchor_ms + (steps + 1) * self._every_ms

    def last_ms(self, until_ms: int, after_ms: int) -> int | None:
        steps = (until_ms - self._anchor_ms) // self._every_ms
        at_ms = self._anchor_ms + steps * self._every_ms
        return at_ms if steps > 0 and at_ms > after_ms else None

    def words(self) -> str:
        seconds = self._every_ms // 1_000
        parts: list[str] = []
        for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")):
            count, seconds = divmod(seconds, size)
            if count:
                parts.append(f"{count} {unit}s" if count > 1 else f"1 {unit}")
        whole = " ".join(parts)
        return f"Every {whole.removeprefix('1 ') if len(parts) == 1 else whole}"


class _Calendar:
    """Five fields in a zone."""

    def __init__(self, expression: str, zone: tzinfo) -> None:
        fields = expression.split()
        if len(fields) == _FIELDS + 1:
            raise BadCron(
                f'a schedule has five fields, this has six: "{_shown(expression)}"',
                "there is no field for seconds (some put it first, some last); @every 30s goes below a "
                "minute",
            )
        if len(fields) != _FIELDS:
            raise BadCron(f'"{_shown(expression)}" has not five fields but {len(fields)}', FORM)
        try:
            self._fields = CronSim(expression, datetime(2000, 1, 1, tzinfo=timezone.utc))
        except CronSimError as error:
            raise _refusal(expression, fields, str(error)) from None
        self._zone = zone
        self._near: dict[int, list[int] | _Shifted] = {}
        """Moments of days that were asked about last: who asks once asks for the next one soon."""
        self._is_utc = zone is timezone.utc
        self.is_fixed = not fields[0].startswith("*") and not fields[1].startswith("*")
        """Whether it names times, rather than a rhythm."""
        self._minutes = sorted(
            hour * 60 + minute for hour in self._fields.hours for minute in self._fields.minutes
        )
        if next(self._days(date(2000, 1, 1).toordinal()), None) is None:
            raise BadCron(f'"{_shown(expression)}" never fires: no such day comes', FORM)

    def next_ms(self, after_ms: int) -> int | None:
        # A local day begins at most a day before or after the same day of UTC.
        first = _EPOCH_DAY + after_ms // _DAY_MS - 1
        for day in self._days(first):
            moments = self._moments(day)
            place = bisect_right(moments, after_ms)
            if place < len(moments):
                return moments[place]
        return None

    def last_ms(self, until_ms: int, after_ms: int) -> int | None:
        first = _EPOCH_DAY + after_ms // _DAY_MS - 1
        for day in range(_EPOCH_DAY + until_ms // _DAY_MS + 1, first - 1, -1):
            if not self._fires_on(date.fromordinal(day)):
                continue
            moments = self._moments(day)
            place = bisect_right(moments, until_ms)
            if place:
                return moments[place - 1] if moments[place - 1] > after_ms else None
        return None

    def words(self) -> str:
        return self._fields.explain()

    def _fires_on(self, day: date) -> bool:
        return day.month in self._fields.months and self._fields.match_day(day)

    def _days(self, first: int) -> Iterator[int]:
        """The days on which it fires, from this one on, as ordinals."""
        day = date.fromordinal(first)
        last_year = min(day.year + _YEARS_AHEAD, _LAST_YEAR)
        while day.year <= last_year:
            if day.month not in self._fields.months:
                day = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
                continue
            if self._fields.match_day(day):
                yield day.toordinal()
            day += timedelta(days=1)

    def _moments(self, day: int) -> list[int] | _Shifted:
        """All of a local day's moments, in order, each once."""
        moments = self._near.get(day)
        if moments is None:
            if len(self._near) >= _DAYS_REMEMBERED:
                self._near.clear()
            moments = self._near[day] = self._moments_of(day)
        return moments

    def _moments_of(self, day: int) -> list[int] | _Shifted:
        start_ms = (day - _EPOCH_DAY) * _DAY_MS
        if self._is_utc:
            return _Shifted(self._minutes, start_ms)
        # Where the offset is the same on both sides of the day it was the same all day long.
        before_s = offset_s(self._zone, start_ms - _DAY_MS)
        after_s = offset_s(self._zone, start_ms + 2 * _DAY_MS)
        if before_s == after_s and not changes(
            self._zone, start_ms - _DAY_MS, start_ms + 2 * _DAY_MS
        ):
            return _Shifted(self._minutes, start_ms - before_s * 1_000)
        return self._odd_moments(date.fromordinal(day))

    def _odd_moments(self, day: date) -> list[int]:
        """Those of a day near a change of clocks, one by one."""
        found: set[int] = set()
        for minutes in self._minutes:
            wall = datetime(
                day.year, day.month, day.day, minutes // 60, minutes % 60, tzinfo=self._zone
            )
            first, second = _at_ms(wall), _at_ms(wall.replace(fold=1))
            if first == second:
                found.add(first)
            elif first < second:  # shown twice
                found.update((first,) if self.is_fixed else (first, second))
            elif self.is_fixed:  # skipped: the offset of after the gap names a moment before it
                found.add(_gap_end_ms(self._zone, second, first))
        return sorted(found)


class _Shifted:
    """A day's minutes as moments, without making a list of them."""

    def __init__(self, minutes: list[int], start_ms: int) -> None:
        self._minutes = minutes
        self._start_ms = start_ms

    def __len__(self) -> int:
        return len(self._minutes)

    def __getitem__(self, place: int) -> int:
        return self._start_ms + self._minutes[place] * _MINUTE_MS


def _gap_end_ms(zone: tzinfo, low_ms: int, high_ms: int) -> int:
    return _where_it_changes(zone, low_ms, high_ms, offset_s(zone, low_ms))


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND: Final = timedelta(milliseconds=1)


def _at_ms(wall: datetime) -> int:
    return (wall - _EPOCH) // _MILLISECOND


def _refusal(expression: str, fields: list[str], said: str) -> BadCron:
    """What cronsim refused, with the field and its range."""
    ranges = {
        "minute": (0, "0 to 59"),
        "hour": (1, "0 to 23"),
        _DAY_FIELD: (2, "1 to 31, L for the last"),
        "month": (3, "1 to 12, or JAN to DEC"),
        "day-of-week": (4, "0 to 7 (0 and 7 are Sunday), or SUN to SAT"),
    }
    name = said.removeprefix("Bad ")
    place, allowed = ranges.get(name, (0, FORM))
    if name == _DAY_FIELD and _is_well_formed(fields[place]):
        return BadCron(
            f'"{_shown(expression)}" never fires: none of its months has a day {fields[2]}', FORM
        )
    return BadCron(f'"{_shown(fields[place])}" is no {name.replace("-", " ")}', allowed)


def _is_well_formed(field: str) -> bool:
    """Whether a day of the month is a good one for some month."""
    try:
        CronSim(f"0 0 {field} * *", datetime(2000, 1, 1, tzinfo=timezone.utc))
    except CronSimError:
        return False
    return True


def _shown(text: str) -> str:
    short = text if len(text) <= 60 else text[:57] + "..."
    return "".join(char if char.isprintable() else "?" for char in short)
