"""`titan next`: when a schedule would fire, on its own clock and on the reader's."""

from __future__ import annotations

import datetime
import os
from typing import TYPE_CHECKING, Any, Final

import click

from titan_proto.cron import BadCron, Change, changes, find_zone, parse, zones
from titan_sdk.cli import render
from titan_sdk.cli.context import Moment, emit, output_option, write
from titan_sdk.cli.failures import USAGE, Failure

if TYPE_CHECKING:
    from titan_proto.cron import Times

COUNT_MAX: Final = 1_000
_YEAR_MS: Final = 366 * 86_400_000
_DAY_MS: Final = 86_400_000
_TIMES_SHOWN: Final = 6
"""Of an odd day so many are written out."""
_FORM: Final = "%a %Y-%m-%d %H:%M:%S %Z"


@click.command()
@click.argument("cron")
@click.option("--tz", "zone", default="UTC", show_default=True, help="Time zone: an IANA name.")
@click.option(
    "-n",
    "--count",
    type=click.IntRange(1, COUNT_MAX),
    default=5,
    show_default=True,
    help="So many times.",
)
@click.option("--after", type=Moment(past=True), help="After this time instead of now.")
@output_option
def next(cron: str, zone: str, *, count: int, after: str | None, output: str) -> None:  # noqa: A001 - the command's name
    """When the schedule CRON fires next, in its zone and in this machine's.

    CRON is five fields (minute, hour, day of month, month, day of week), a macro such as @daily, or
    "@every 5m". Times on days on which the zone's clocks change are marked with a star, and the coming
    year's days of that kind are listed with what the schedule does on them. Needs no master.

    \b
    Examples:
      titan next "30 2 * * *" --tz America/New_York
      titan next @hourly -n 3
    """  # noqa: D301 - click reads the backspace
    after_ms = _ms(datetime.datetime.now().astimezone() if after is None else _read(after))
    try:
        times = parse(cron, zone, anchor_ms=after_ms)
        tz = find_zone(zone)
    except BadCron as error:
        hint = f"\n  {error.hint}" if error.hint else ""
        raise Failure(f"{error.message}{hint}", USAGE) from None
    odd = changes(tz, after_ms, after_ms + _YEAR_MS)
    found = _upcoming(times, after_ms, count)
    if output == "json":
        _emit(cron, zone, times, tz, found, odd)
        return
    write(f"{times.words()}, {zone}")
    table = render.Table((zone, f"here ({_own_zone()})", ""))
    days = {_day(change.at_ms, tz) for change in changes(tz, after_ms - _DAY_MS, _end(found))}
    for at_ms in found:
        mark = "*" if _day(at_ms, tz) in days else ""
        table.add(_shown(at_ms, tz), _shown(at_ms, None), mark)
    look = render.Look(symbols=False, color=False)
    write(table.text(look, None)[0])
    if not found:
        write("none within fifty years")
    if odd:
        write("\nDays of the coming year on which its clocks change:")
    for change in odd:
        write(f"  {_story(change)}: {_that_day(times, change, tz)}")


def _upcoming(times: Times, after_ms: int, count: int) -> list[int]:
    found: list[int] = []
    for _ in range(count):
        at_ms = times.next_ms(found[-1] if found else after_ms)
        if at_ms is None:
            break
        found.append(at_ms)
    return found


def _end(found: list[int]) -> int:
    return (found[-1] if found else 0) + _DAY_MS


def _fires(times: Times, change: Change, tz: datetime.tzinfo) -> list[int]:
    """All of the day on which the clocks change."""
    day = _day(change.at_ms, tz)
    found: list[int] = []
    at_ms = times.next_ms(change.at_ms - 2 * _DAY_MS)
    while at_ms is not None and at_ms < change.at_ms + 2 * _DAY_MS:
        if _day(at_ms, tz) == day:
            found.append(at_ms)
        at_ms = times.next_ms(at_ms)
    return found


def _story(change: Change) -> str:
    before = datetime.timezone(datetime.timedelta(seconds=change.before_s))
    after = datetime.timezone(datetime.timedelta(seconds=change.after_s))
    shown = _at(change.at_ms, before).strftime("%a %Y-%m-%d %H:%M")
    return f"{shown} becomes {_at(change.at_ms, after).strftime('%H:%M')}"


def _that_day(times: Times, change: Change, tz: datetime.tzinfo) -> str:
    found = _fires(times, change, tz)
    if not found:
        return "it does not fire that day"
    shown = ", ".join(_at(at_ms, tz).strftime("%H:%M %Z") for at_ms in found[:_TIMES_SHOWN])
    more = f" and {len(found) - _TIMES_SHOWN} more" if len(found) > _TIMES_SHOWN else ""
    return f"it fires {'once' if len(found) == 1 else f'{len(found)} times'}, {shown}{more}"


def _emit(
    cron: str,
    zone: str,
    times: Times,
    tz: datetime.tzinfo,
    found: list[int],
    odd: list[Change],
) -> None:
    days = (
        {_day(change.at_ms, tz) for change in changes(tz, found[0] - _DAY_MS, _end(found))}
        if (found)
        else set()
    )
    body: dict[str, Any] = {
        "cron": cron,
        "timezone": zone,
        "words": times.words(),
        "times": [
            {
                "at": render.rfc3339(at_ms),
                "inZone": _at(at_ms, tz).isoformat(),
                "here": _at(at_ms, None).isoformat(),
                "clocksChange": _day(at_ms, tz) in days,
            }
            for at_ms in found
        ],
        "changes": [
            {
                "at": render.rfc3339(change.at_ms),
                "offsetBeforeSeconds": change.before_s,
                "offsetAfterSeconds": change.after_s,
                "fires": [_at(at_ms, tz).isoformat() for at_ms in _fires(times, change, tz)],
            }
            for change in odd
        ],
    }
    emit("ScheduleTimes", body)


def _read(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


def _ms(at: datetime.datetime) -> int:
    return int(at.timestamp() * 1000)


def _at(at_ms: int, tz: datetime.tzinfo | None) -> datetime.datetime:
    at = datetime.datetime.fromtimestamp(at_ms / 1000, tz)
    return at.astimezone() if tz is None else at


def _day(at_ms: int, tz: datetime.tzinfo) -> datetime.date:
    return _at(at_ms, tz).date()


def _shown(at_ms: int, tz: datetime.tzinfo | None) -> str:
    return _at(at_ms, tz).strftime(_FORM)


def _own_zone() -> str:
    """This machine's zone, as well as it can be named."""
    named = os.environ.get("TZ", "").lstrip(":")
    if named in zones():
        return named
    return datetime.datetime.now().astimezone().tzname() or "local"
