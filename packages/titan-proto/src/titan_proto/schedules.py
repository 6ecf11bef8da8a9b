"""What a valid schedule is, said once: the SDK refuses offline exactly what the master would refuse.

What it runs is `validation`'s to judge. Called by the SDK before anything is sent and by the master before
anything is put down.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from titan_proto.cron import BadCron, Times, parse
from titan_proto.errors import Problem
from titan_proto.limits import (
    AT_MS,
    CATCHUP_WINDOW_MS,
    JITTER_MS,
    NAME_CHARS,
    SCHEDULE_CRONS,
)
from titan_proto.specs import Catchup, Overlap, ScheduleSpec

BAD_SCHEDULE: Final = "Y230"
BAD_SCHEDULE_NAME: Final = "Y231"


def problems(spec: ScheduleSpec) -> tuple[Problem, ...]:
    """Everything wrong with it; empty if the master would take it."""
    return tuple(_problems(spec))


def name_fault(name: str) -> str:
    """Why nothing can be called so, as the end of a sentence; empty if it can."""
    if not name.strip():
        return "is empty"
    if len(name) > NAME_CHARS or not name.isprintable():
        return f"is no printable text of at most {NAME_CHARS} characters (NAME_CHARS)"
    return ""


class Merged:
    """The times of several lines, each moment once."""

    def __init__(self, parts: tuple[Times, ...]) -> None:
        self._parts = parts

    def next_ms(self, after_ms: int) -> int | None:
        """See `Times`."""
        found = [at_ms for part in self._parts if (at_ms := part.next_ms(after_ms)) is not None]
        return min(found, default=None)

    def last_ms(self, until_ms: int, after_ms: int) -> int | None:
        """See `Times`."""
        found = [
            at_ms for part in self._parts if (at_ms := part.last_ms(until_ms, after_ms)) is not None
        ]
        return max(found, default=None)

    def words(self) -> str:
        """See `Times`."""
        return "; ".join(part.words() for part in self._parts)


def times_of(spec: ScheduleSpec, anchor_ms: int) -> Times:
    """When it fires, whatever its start and end say. Raises BadCron.

    Args:
        spec: the schedule.
        anchor_ms: from here `@every` counts, unless it has a start of its own.
    """
    anchor = spec.start_ms or anchor_ms
    parts = tuple(parse(text, spec.zone, anchor_ms=anchor) for text in spec.crons)
    return parts[0] if len(parts) == 1 else Merged(parts)


def _problems(spec: ScheduleSpec) -> Iterator[Problem]:
    if not 1 <= len(spec.crons) <= SCHEDULE_CRONS:
        yield _bad(
            "crons", f"{len(spec.crons)} lines of times", f"1 to {SCHEDULE_CRONS} (SCHEDULE_CRONS)"
        )
    for number, text in enumerate(spec.crons[:SCHEDULE_CRONS]):
        try:
            parse(text, "UTC")
        except BadCron as error:
            yield _bad(f"crons[{number}]", error.message, error.hint)
    try:
        parse("@daily", spec.zone)
    except BadCron as error:
        yield _bad("zone", error.message, error.hint)
    if spec.overlap is Overlap.UNKNOWN:
        yield _bad("overlap", "what it does about an overlap is not known here", _words(Overlap))
    if spec.catchup is Catchup.UNKNOWN:
        yield _bad("catchup", "how it catches up is not known here", _words(Catchup))
    for name, value, most, limit in (
        ("catchup_window_ms", spec.catchup_window_ms, CATCHUP_WINDOW_MS, "CATCHUP_WINDOW_MS"),
        ("jitter_ms", spec.jitter_ms, JITTER_MS, "JITTER_MS"),
        ("start_ms", spec.start_ms, AT_MS, "AT_MS"),
        ("end_ms", spec.end_ms, AT_MS, "AT_MS"),
    ):
        if not 0 <= value <= most:
            yield _bad(name, f"{name} is {value}", f"from 0 to {most} ({limit})")
    if spec.end_ms and spec.end_ms < spec.start_ms:
        yield _bad("end_ms", "it ends before it starts", "the end lies behind the start")


def _words(kind: type[Overlap | Catchup]) -> str:
    return ", ".join(member.value.lower() for member in kind if member.value != "UNKNOWN")


def _bad(where: str, message: str, hint: str) -> Problem:
    return Problem(where=where, message=message, hint=hint, code=BAD_SCHEDULE)
