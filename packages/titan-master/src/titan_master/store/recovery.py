"""A checkpoint and the journal behind it → what a master knows, or the reason why it cannot.

Every record is verified before it is believed: checksum, chain, place. Records are taken one by one
and let go, so that a long journal costs time, not memory: a run that has ended leaves the state as
its RunEnded is folded. Called by the stores when they open, and by whoever only reads a journal.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from titan_master.core.state import State
from titan_master.store import codec
from titan_master.store.base import JournalDamaged
from titan_master.store.checkpoint import Shadow
from titan_master.store.projection import Projection, Rows


class Folded(Struct, frozen=True, kw_only=True):
    """What a journal comes to."""

    shadow: Shadow
    projection: Projection
    rows: Rows
    """Rows that history lacks still."""

    @property
    def state(self) -> State:
        """The fold itself."""
        return self.shadow.state


def blank() -> Shadow:
    """What there is before the first record."""
    shadow = Shadow()
    shadow.chain = codec.GENESIS
    return shadow


def fold(
    shadow: Shadow, records: Iterable[codec.Record], formats: codec.Formats, history_seq: int
) -> Folded:
    """Verify and apply every record that follows on a checkpoint, or on nothing.

    Args:
        shadow: `blank`, or a checkpoint's; changed in place.
        records: the journal from the next record on, in order.
        formats: of the records.
        history_seq: history has the rows of everything up to this record.

    Raises JournalDamaged.
    """
    projection = Projection.of(shadow)
    rows = Rows()
    for record in records:
        event = codec.unseal(shadow.chain, shadow.seq + 1, record, formats)
        shadow.fold(record.seq, record.term, record.chain, record.crc, event)
        # Where history has the rows already, only what the projection remembers is wanted.
        projection.project(record.seq, event, rows if record.seq > history_seq else Rows())
    return Folded(shadow=shadow, projection=projection, rows=rows)


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
