"""What the worker's ledger remembers: the counterpart of the master's events.

A turn's records are in the ledger before any of its effects is released. The ledger survives the
process, not the machine.
"""

from __future__ import annotations

from msgspec import Struct

from titan_proto.ids import AttemptRef
from titan_proto.messages import SpawnSibling
from titan_proto.messages.worker import AttemptOrder, AttemptReport
from titan_proto.states import ExitReason


class Record(Struct, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """Base of all records; the tag is the class's name."""


class ClusterBound(Record, frozen=True, kw_only=True):
    """The worker belongs to this cluster, and has heard of this term."""

    cluster_id: str
    term: int


class AttemptHeld(Record, frozen=True, kw_only=True):
    """An order was taken. Written before anything is done about it."""

    order: AttemptOrder
    at_ms: int


class AttemptSpawned(Record, frozen=True, kw_only=True):
    """Its process exists."""

    ref: AttemptRef
    pid: int
    start_ticks: int
    at_ms: int
    port: int = 0


class AttemptRestarting(Record, frozen=True, kw_only=True):
    """Its process is gone, and another one will be started: it is a service, in its budget."""

    ref: AttemptRef
    at_ms: int


class AttemptSpared(Record, frozen=True, kw_only=True):
    """The worker has been told to leave, and lets this one go on for a while."""

    ref: AttemptRef
    at_ms: int


class AttemptStopping(Record, frozen=True, kw_only=True):
    """It has been told to stop; `reason` will be its end's."""

    ref: AttemptRef
    reason: ExitReason
    at_ms: int


class AttemptClosed(Record, frozen=True, kw_only=True):
    """It ended; the report is kept until the master has acknowledged it."""

    report: AttemptReport


class AttemptForgotten(Record, frozen=True, kw_only=True):
    """Nothing of it is needed here any more: acknowledged, or of a cluster left behind and over."""

    ref: AttemptRef


class SiblingTaken(Record, frozen=True, kw_only=True):
    """The worker shall spawn this one. Written before anything is done about it."""

    order: SpawnSibling
    boot_id: str


class SiblingSpawned(Record, frozen=True, kw_only=True):
    """Its process exists."""

    number: int
    pid: int
    start_ticks: int
    port: int = 0


class SiblingSettled(Record, frozen=True, kw_only=True):
    """The master wants to hear no more of it: it has joined, or it is given up and is killed."""

    number: int
    given_up: bool = False


class SiblingEnded(Record, frozen=True, kw_only=True):
    """Its process is gone, or never came to be."""

    number: int
    message: str = ""


class SiblingForgotten(Record, frozen=True, kw_only=True):
    """It has ended, and the master knows what it needs to know."""

    number: int


AnyRecord = (
    ClusterBound
    | AttemptHeld
    | AttemptSpawned
    | AttemptRestarting
    | AttemptSpared
    | AttemptStopping
    | AttemptClosed
    | AttemptForgotten
    | SiblingTaken
    | SiblingSpawned
    | SiblingSettled
    | SiblingEnded
    | SiblingForgotten
)
