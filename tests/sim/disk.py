"""The worker's disk: a ledger that survives its process, and perhaps its machine.

Records are kept encoded, one transaction per turn, as the real ledger keeps them; opening it folds
them anew. The master's disk is `titan_master.store.memory` itself; `damage` spoils what lies there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final

import msgspec

from tests.sim.world import World
from titan_master.store.codec import Record
from titan_master.store.memory import MemoryStore
from titan_worker.core.apply import apply
from titan_worker.core.records import AnyRecord
from titan_worker.core.state import WorkerState

_DECODER: Final[msgspec.msgpack.Decoder[AnyRecord]] = msgspec.msgpack.Decoder(AnyRecord)
_ENCODER: Final = msgspec.msgpack.Encoder()


class Ledger:
    """What one worker remembers."""

    def __init__(self, worker_id: str) -> None:
        self.worker_id = worker_id
        self.incarnation = 0
        self._transactions: list[list[bytes]] = []

    def open(self) -> WorkerState:
        """A new process: the next incarnation, durably, and the fold of what is written."""
        self.incarnation += 1
        return self.fold()

    def fold(self) -> WorkerState:
        """The state that the records come to."""
        state = WorkerState()
        for transaction in self._transactions:
            for body in transaction:
                apply(state, _DECODER.decode(body))
        return state

    def commit(self, records: tuple[Any, ...]) -> list[bytes]:
        """One turn's records."""
        bodies = [_ENCODER.encode(record) for record in records]
        self._transactions.append(bodies)
        return bodies

    def lose_tail(self, transactions: int) -> None:
        """The machine went down before these were on the disk; the identity was."""
        if transactions:
            del self._transactions[-transactions:]

    def copied(self) -> Ledger:
        """The folder, copied to another machine while its worker runs or not."""
        return copy.deepcopy(self)

    def __len__(self) -> int:
        return len(self._transactions)


def damage(world: World, store: MemoryStore) -> Callable[[], None]:
    """Spoil the journal's last record, as a torn sector does; returns how a person repairs it.

    A half-written transaction is not among it: the database brings back all of one or nothing. What
    is spoiled here was whole before, so nobody may start without it, or with the rest alone.
    """
    records = store.records()
    assert isinstance(records, list)
    last: Record = records[-1]
    body = bytearray(last.body)
    if world.chance(50):
        del body[world.between(0, len(body) - 1) :]
    else:
        body[world.between(0, len(body) - 1)] ^= 1 << world.between(0, 7)
    records[-1] = last._replace(body=bytes(body))

    def repair() -> None:
        records[-1] = last

    return repair


def decode(body: bytes) -> AnyRecord:
    """The record in a body."""
    return _DECODER.decode(body)


def encode(record: AnyRecord) -> bytes:
    """The body of a record."""
    return _ENCODER.encode(record)
