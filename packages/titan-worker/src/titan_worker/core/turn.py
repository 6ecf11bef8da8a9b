"""One turn in the making: the records that became true and the effects asked for, in order.

The core's modules write into one ``Draft``; nobody else makes records or effects. Emitting a
record applies it at once, so that later decisions of the same turn see it.
"""

from __future__ import annotations

from msgspec import Struct

from titan_worker.core.apply import apply
from titan_worker.core.effects import Effect
from titan_worker.core.records import AnyRecord
from titan_worker.core.state import WorkerState


class Turn(Struct, frozen=True, kw_only=True):
    """What one pass of the core came to. Commit the records, then release the effects."""

    records: tuple[AnyRecord, ...] = ()
    effects: tuple[Effect, ...] = ()


class Draft:
    """The turn that is being made, and the state it changes."""

    def __init__(self, state: WorkerState) -> None:
        self.state = state
        self._records: list[AnyRecord] = []
        self._effects: list[Effect] = []

    def emit(self, record: AnyRecord) -> None:
        """Something became true."""
        apply(self.state, record)
        self._records.append(record)

    def ask(self, effect: Effect) -> None:
        """Something must be done once the records are in the ledger."""
        self._effects.append(effect)

    def finish(self) -> Turn:
        """The turn so far; a new one begins."""
        turn = Turn(records=tuple(self._records), effects=tuple(self._effects))
        self._records.clear()
        self._effects.clear()
        return turn
