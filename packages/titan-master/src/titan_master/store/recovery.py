"""The journal, read from its first record, → State.

Every record is verified before it is believed: checksum, chain, place. Records are taken one by one
and let go, so that a long history costs time, not memory: a run that has ended leaves the state as
its RunEnded is folded. Called by ``sqlite.py`` when it opens.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from titan_master.core.apply import apply
from titan_master.core.state import State
from titan_master.store import codec
from titan_master.store.base import JournalDamaged
from titan_master.store.projection import Projection, Rows


class Folded(Struct, frozen=True, kw_only=True):
    """What a journal comes to."""

    state: State
    projection: Projection
    rows: Rows
    """Rows that history lacks still."""
    last_seq: int
    last_term: int
    chain: bytes
    """Of the last record: what the next one is sealed with."""
    last_at_ms: int


def fold(records: Iterable[codec.Record], history_seq: int) -> Folded:
    """Verify and apply every record. Raises JournalDamaged.

    Args:
        records: the journal, in order.
        history_seq: history has the rows of everything up to this record.
    """
    state = State()
    projection = Projection()
    rows = Rows()
    chain = codec.GENESIS
    seq = term = at_ms = 0
    for record in records:
        event = codec.unseal(chain, seq + 1, record)
        apply(state, event)
        # Where history has the rows already, only what the projection remembers is wanted.
        projection.project(record.seq, event, rows if record.seq > history_seq else Rows())
        chain = record.chain
        seq, term = record.seq, record.term
        at_ms = event.at_ms
    return Folded(
        state=state,
        projection=projection,
        rows=rows,
        last_seq=seq,
        last_term=term,
        chain=chain,
        last_at_ms=at_ms,
    )


def check_mark(last_seq: int, chain: bytes, mark: tuple[int, bytes] | None) -> None:
    """Compare with what a master wrote down beside the journal. Raises JournalDamaged.

    A journal that ends too early is sound in itself: its records verify. Only somebody who
    remembers how far it went can tell.
    """
    if mark is None:
        return
    marked_seq, marked_chain = mark
    if last_seq < marked_seq:
        raise JournalDamaged(
            f"it ends at record {last_seq}, but a master had seen record {marked_seq} written",
            last_seq,
        )
    if last_seq == marked_seq and chain != marked_chain:
        raise JournalDamaged(
            f"record {last_seq} is not the one that a master had seen written", last_seq - 1
        )
