"""Messages about schedules: what is run when, again and again.

A schedule is named by its name, which is unique among those that there are.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct

from titan_proto.messages.base import Message, Request
from titan_proto.messages.runs import RunReceipt
from titan_proto.opcodes import OpCode
from titan_proto.specs import RunSpec, ScheduleSpec
from titan_proto.states import RunState


class LastFired(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The run that a schedule began last."""

    run_id: str
    alias: str
    slot_at_ms: int
    at_ms: int
    """When it was begun."""
    state: RunState = RunState.ACTIVE
    triggered: bool = False
    """A person asked for it."""


class ScheduleView(Message, frozen=True, kw_only=True):
    """A schedule as it stands."""

    OPCODE: ClassVar[OpCode] = OpCode.SCHEDULE_VIEW
    name: str
    schedule_id: str
    version: int
    """Grows each time it is replaced."""
    spec: ScheduleSpec
    words: str = ""
    """Its times in English."""
    jobs: int = 0
    owner: str = ""
    """The public id of the token that put its present version there."""
    created_at_ms: int = 0
    put_at_ms: int = 0
    """When its present version came."""
    paused_at_ms: int = 0
    """0: it is not paused."""
    paused_by: str = ""
    """The public id of a token; empty where it paused itself."""
    paused_why: str = ""
    next_at_ms: tuple[int, ...] = ()
    """The next few slots; empty where there is none any more, or while it is paused."""
    live: tuple[str, ...] = ()
    """Aliases of its runs that go on; the first few."""
    waiting: tuple[int, ...] = ()
    """Slots that wait for them to end; the first few."""
    last: LastFired | None = None
    fired: int = 0
    """Slots that became runs ..."""
    skipped: int = 0
    """... and that did not, because a run went on ..."""
    missed: int = 0
    """... or because nobody was there in time."""
    known: bool = False
    """Of a put: nothing had changed."""


class ScheduleList(Message, frozen=True, kw_only=True):
    """One page of schedules, by name."""

    OPCODE: ClassVar[OpCode] = OpCode.SCHEDULE_LIST
    schedules: tuple[ScheduleView, ...]
    cursor: str = ""


class PutSchedule(Request[ScheduleView], frozen=True, kw_only=True):
    """Have this run at these times from now on, instead of what had the name before.

    The same twice is once. What is replaced keeps its pause and its counts; runs that go on are those of
    the version with which they began.
    """

    OPCODE: ClassVar[OpCode] = OpCode.PUT_SCHEDULE
    name: str
    spec: ScheduleSpec
    run: RunSpec


class ListSchedules(Request[ScheduleList], frozen=True, kw_only=True):
    """The schedules that there are."""

    OPCODE: ClassVar[OpCode] = OpCode.LIST_SCHEDULES
    cursor: str = ""
    limit: int = 100


class GetSchedule(Request[ScheduleView], frozen=True, kw_only=True):
    """One schedule."""

    OPCODE: ClassVar[OpCode] = OpCode.GET_SCHEDULE
    schedule: str


class PauseSchedule(Request[ScheduleView], frozen=True, kw_only=True):
    """Have it fire no more, or go on: what came meanwhile is not caught up with. Twice is once."""

    OPCODE: ClassVar[OpCode] = OpCode.PAUSE_SCHEDULE
    schedule: str
    resume: bool = False
    why: str = ""


class TriggerSchedule(Request[RunReceipt], frozen=True, kw_only=True):
    """Run it now, paused or not, beside whatever goes on; a REPLACE cancels that."""

    OPCODE: ClassVar[OpCode] = OpCode.TRIGGER_SCHEDULE
    key: str
    """As a submission's."""
    schedule: str


class RemoveSchedule(Request[ScheduleView], frozen=True, kw_only=True):
    """Take it away; runs that go on do so."""

    OPCODE: ClassVar[OpCode] = OpCode.REMOVE_SCHEDULE
    schedule: str
