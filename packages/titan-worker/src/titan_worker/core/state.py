"""What the worker knows for certain: the fold of its ledger's records.

``apply`` alone writes these structs; everyone else reads them. What dies with the process (the
link, timers, which workspace is ready) is not here but in ``attempts`` and ``core``.
"""

from __future__ import annotations

import hashlib

import msgspec
from msgspec import Struct, field

from titan_proto.ids import AttemptRef
from titan_proto.messages import SpawnSibling
from titan_proto.messages.worker import AttemptOrder, AttemptReport
from titan_proto.states import AttemptState, ExitReason


class Held(Struct):
    """An attempt that this worker took and may not forget yet."""

    order: AttemptOrder
    held_at_ms: int
    state: AttemptState = AttemptState.PREPARING
    pid: int = 0
    start_ticks: int = 0
    port: int = 0
    started_at_ms: int = 0
    """Of its first process."""
    restarts: int = 0
    """How often its process was started again. Running without a pid, it is about to be."""
    spared_at_ms: int = 0
    """When its worker was told to leave and let it go on for a while; 0: it was not."""
    stop_reason: ExitReason | None = None
    stopping_at_ms: int = 0
    foreign: bool = False
    """Taken for a cluster to which the worker no longer belongs: it is stopped, never reported."""
    report: AttemptReport | None = None
    """How it ended; kept until the master has acknowledged it."""


class Sibling(Struct):
    """A worker that this one was told to spawn, and may not forget yet."""

    order: SpawnSibling
    boot_id: str
    """Of the machine when it was."""
    pid: int = 0
    start_ticks: int = 0
    port: int = 0
    """That it really has."""
    settled: bool = False
    """The master wants to hear no more of it ..."""
    given_up: bool = False
    """... because it is not wanted."""
    ended: bool = False
    message: str = ""


class WorkerState(Struct):
    """Everything that the ledger says."""

    cluster_id: str = ""
    """Empty until the worker has met its first master."""
    term: int = 0
    clusters_left: int = 0
    """How often the worker has gone over to another cluster; part of the name it joins under."""
    held: dict[AttemptRef, Held] = field(default_factory=dict)
    """In the order in which they were taken."""
    siblings: dict[int, Sibling] = field(default_factory=dict)
    """By number, in the order in which they were asked for."""


def digest(state: WorkerState) -> str:
    """A canonical fingerprint: equal states have equal digests, on any machine and hash seed."""
    canonical = (
        state.cluster_id,
        state.term,
        state.clusters_left,
        [(ref, state.held[ref]) for ref in sorted(state.held)],
        sorted(state.siblings.items()),
    )
    # "deterministic" sorts the keys of the only dicts inside, the orders' environments.
    return hashlib.sha256(msgspec.msgpack.encode(canonical, order="deterministic")).hexdigest()
