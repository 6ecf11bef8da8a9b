"""The key `schedule`, for pipeline files, the command line and Python alike: what it takes, what it becomes.

What a line of times means is said by `titan_proto.cron`. Never sends anything. Loaded only where a schedule
is spoken of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from titan_proto.cron import BadCron, find_zone, parse
from titan_proto.limits import CATCHUP_WINDOW_MS, JITTER_MS, SCHEDULE_CRONS
from titan_proto.specs import Catchup, Overlap, ScheduleSpec
from titan_sdk.keys import (
    BadValue,
    duration_ms,
    flag,
    moment_ms,
    named,
    nearest,
    read_fields,
    text,
)

OVERLAPS: Final = tuple(one.value.lower() for one in Overlap if one is not Overlap.UNKNOWN)
CATCHUPS: Final = tuple(one.value.lower() for one in Catchup if one is not Catchup.UNKNOWN)
_DAY_MS: Final = 86_400_000
_FORM: Final = 'schedule: "30 2 * * *", or a mapping with cron'


def schedule(value: object) -> ScheduleSpec:
    """A line of times, several of them, or a mapping with `cron` and policies. Raises BadValue."""
    if not isinstance(value, Mapping):
        return ScheduleSpec(crons=crons(value))
    read = read_fields("schedule", value, SCHEDULE_KEYS)
    if "crons" not in read:
        raise BadValue("schedule has no cron", _FORM)
    if 0 < read.get("end_ms", 0) < read.get("start_ms", 0):
        raise BadValue("schedule ends before it starts", "end lies behind start", ("end",))
    return ScheduleSpec(**read)


def crons(value: object) -> tuple[str, ...]:
    """Lines of times: five fields, a macro, or `@every 5m` each."""
    if isinstance(value, str):
        return (_cron(value),)
    if not isinstance(value, (list, tuple)) or not value:
        raise BadValue("a schedule is a line of times, or a list of them", _FORM)
    if len(value) > SCHEDULE_CRONS:
        raise BadValue(
            f"{len(value)} lines of times are more than SCHEDULE_CRONS ({SCHEDULE_CRONS})"
        )
    found: list[str] = []
    for index, one in enumerate(value):
        try:
            found.append(_cron(one))
        except BadValue as error:
            error.at = (index,)
            raise
    return tuple(found)


def _cron(value: object) -> str:
    line = text(value).strip()
    try:
        parse(line)
    except BadCron as error:
        raise BadValue(error.message, error.hint) from None
    return line


def zone(value: object) -> str:
    """An IANA name."""
    name = text(value)
    try:
        find_zone(name)
    except BadCron as error:
        raise BadValue(error.message, error.hint) from None
    return name


def _choice(what: str, known: tuple[str, ...]) -> Callable[[object], str]:
    def read(value: object) -> str:
        word = value.lower() if isinstance(value, str) else ""
        if word not in known:
            meant = nearest(word, known) if word else ""
            hint = f'did you mean "{meant}"?' if meant else f"one of {', '.join(known)}"
            raise BadValue(f'"{named(value)}" is no {what}', hint)
        return word.upper()

    return read


def overlap(value: object) -> Overlap:
    """What becomes of a slot while the last run goes on."""
    return Overlap(_choice("overlap", OVERLAPS)(value))


def catchup(value: object) -> Catchup:
    """What becomes of slots that were missed."""
    return Catchup(_choice("catchup", CATCHUPS)(value))


def _at_most(most_ms: int, limit: str) -> Callable[[object], int]:
    def read(value: object) -> int:
        found_ms = duration_ms(value)
        if found_ms > most_ms:
            raise BadValue(
                f'"{named(value)}" is too long', f"at most {most_ms // _DAY_MS}d ({limit})"
            )
        return found_ms

    return read


SCHEDULE_KEYS: Final[Mapping[str, tuple[str, Callable[[object], Any]]]] = {
    "cron": ("crons", crons),
    "timezone": ("zone", zone),
    "overlap": ("overlap", overlap),
    "catchup": ("catchup", catchup),
    "catchup_window": ("catchup_window_ms", _at_most(CATCHUP_WINDOW_MS, "CATCHUP_WINDOW_MS")),
    "jitter": ("jitter_ms", _at_most(JITTER_MS, "JITTER_MS")),
    "start": ("start_ms", moment_ms),
    "end": ("end_ms", moment_ms),
    "pause_on_failure": ("pause_on_failure", flag),
}
"""For each key of the long form the field that it becomes, and its reader."""
