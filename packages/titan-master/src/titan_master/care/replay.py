"""A journal → what its master knew at some record. It reads, verifies, and writes nothing.

Works on a running master's data folder, on a stopped one's, and on a backup. Called by ``cli.py``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from titan_master.config import DATABASE
from titan_master.core.state import State, digest
from titan_master.store import codec
from titan_master.store.base import StoreError
from titan_master.store.mark import Mark, mark_path
from titan_master.store.sqlite_reading import (
    Found,
    one_moment,
    open_to_read,
    read,
    read_beginning,
    read_records,
)


class NoSuchRecord(StoreError):
    """A journal cannot be read up to there; the message says what it has."""


def replayed(data: Path, until: int | None) -> Found:
    """Verify a journal and fold it, whole or up to a record.

    Raises NoSuchRecord, JournalDamaged, JournalTooNew, StoreError.
    """
    database = data / DATABASE
    if not database.is_file():
        raise NoSuchRecord(f"{data} has no {DATABASE}")
    mark = Mark(mark_path(database)).read()
    with contextlib.closing(open_to_read(database)) as connection, one_moment(connection):
        if until is None:
            return read(connection, mark)
        found = read(connection, mark, from_start=True, until=until)
        if found.folded.shadow.seq != until:
            raise NoSuchRecord(_what_it_has(found, until))
        return found


def _what_it_has(found: Found, until: int) -> str:
    if found.loaded is not None and found.loaded.head.seq > until:
        return (
            f"the state at record {until} cannot be made: the records before {found.base.seq + 1} "
            f"are gone, and the checkpoint stands on record {found.loaded.head.seq}"
        )
    return f"there is no record {until}: the journal ends at {found.folded.shadow.seq}"


def events(data: Path, until: int | None) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """The records that are there, verified: place, term, and the event as plain values."""
    with contextlib.closing(open_to_read(data / DATABASE)) as connection, one_moment(connection):
        base, formats = read_beginning(connection)
        seq, chain = base.seq, base.chain
        for record in read_records(connection, seq, until):
            event = codec.unseal(chain, seq + 1, record, formats)
            seq, chain = record.seq, record.chain
            yield seq, record.term, {"event": type(event).__name__, **_plain(event)}


def _plain(event: msgspec.Struct) -> dict[str, Any]:
    values = {name: getattr(event, name) for name in event.__struct_fields__}
    return {
        name: f"<{len(value)} bytes>" if isinstance(value, bytes) else msgspec.to_builtins(value)
        for name, value in values.items()
    }


def summary(found: Found) -> dict[str, Any]:
    """What a state comes to, in plain values."""
    shadow, state = found.folded.shadow, found.folded.state
    return {
        "lastSeq": shadow.seq,
        "firstSeq": found.base.seq + 1,
        "checkpointSeq": None if found.loaded is None else found.loaded.head.seq,
        "format": found.format,
        "term": state.term,
        "stateDigest": digest(state),
        "clusterId": state.cluster_id,
        "clusterName": state.cluster_name,
        "runsAccepted": state.runs_accepted,
        "runs": [
            {"run": run.alias, "id": run.run_id, "jobs": _counts(state, run.run_id)}
            for run in state.runs.values()
        ],
        "services": [
            f"{one.run_alias}/{one.job_id} {one.state}" for one in state.services.values()
        ],
        "workers": [f"{worker.name} {worker.state}" for worker in state.workers.values()],
    }


def _counts(state: State, run_id: str) -> dict[str, int]:
    counts = state.runs[run_id].counts
    return {str(job_state): number for job_state, number in sorted(counts.items()) if number}
