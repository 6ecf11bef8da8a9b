"""What a person may do with a journal: copy it while it is written, and go on without its end.

A copy is SQLite's own, of one moment, and is a single file. Going on without the damaged end is never
done but by name: the caller says which record is the last one to be believed, and that must be the one
that reading itself gives. The damaged files are copied aside first; what is believed is put into a
new file, record by record verified; what history knows of later records is taken back.

Called by ``app.py`` and the commands, with the data folder's lock held where it writes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from titan_master.core.state import State
from titan_master.store import codec, sqlite_checkpoint
from titan_master.store.base import TERM_JUMP, JournalDamaged, StoreError
from titan_master.store.checkpoint import Acceptance
from titan_master.store.mark import Mark, mark_line, mark_path
from titan_master.store.sqlite_reading import (
    CHECKPOINTS_SINCE,
    Base,
    Found,
    accepted_in,
    open_to_read,
    read,
    read_records,
)
from titan_master.store.sqlite_rows import write_history
from titan_master.store.sqlite_schema import begin_format, migrate, put_format

_BESIDE: Final = ("", "-wal", "-shm", ".mark")
_HISTORY: Final = (
    "history_run",
    "history_ready",
    "history_job",
    "history_attempt",
    "history_spec",
)


class LossRefused(StoreError):
    """What was to be accepted is not what is lost."""


class Loss(Struct, frozen=True, kw_only=True):
    """What was cut, and where the damaged files are."""

    reason: str
    last_good_seq: int
    lost_records: int | None
    """As far as somebody knows how far the journal had gone."""
    aside: Path
    history_is_whole: bool


def fsync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_mark(database: Path, seq: int, chain: bytes) -> None:
    """Leave a database's mark beside it, durably."""
    path = mark_path(database)
    path.write_bytes(mark_line(seq, chain))
    path.chmod(0o600)
    _fsync_file(path)


# -- copies ---------------------------------------------------------------------------------------
def copy_database(source: Path, target: Path) -> Found:
    """Copy a database that a master may be writing; the copy, read and verified.

    The copy is of one moment, in one file, with a mark of its own: the source's may be of a later
    moment. Raises JournalDamaged where the source is, StoreError where a disk fails.
    """
    try:
        with (
            contextlib.closing(open_to_read(source)) as origin,
            contextlib.closing(sqlite3.connect(target, isolation_level=None)) as copy,
        ):
            # All pages in one go: in portions the copy would begin anew with every commit.
            origin.backup(copy, pages=-1)
            # A log would be a second file that the first is nothing without.
            copy.execute("PRAGMA journal_mode = DELETE").fetchall()
            found = read(copy, None)
    except sqlite3.Error as error:
        raise StoreError(f"{source} cannot be copied to {target}: {error}") from error
    target.chmod(0o600)
    _fsync_file(target)
    shadow = found.folded.shadow
    write_mark(target, shadow.seq, shadow.chain)
    fsync_folder(target.parent)
    return found


def go_on_from_afar(database: Path) -> None:
    """Have the next master of a copy give numbers that the original cannot have given since."""
    with _writing(database) as connection:
        connection.execute("UPDATE meta SET value = value + ? WHERE key = 'term'", (TERM_JUMP,))
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('behind', 1)")


@contextlib.contextmanager
def _writing(database: Path) -> Iterator[sqlite3.Connection]:
    """One durable transaction on a file that nobody else has open."""
    try:
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise StoreError(f"{database} cannot be written: {error}") from error


# -- going on without the end ------------------------------------------------------------------------
def accept_loss(database: Path, seq: int, aside: Path) -> Loss:
    """Keep the journal up to `seq`, and nothing behind it.

    Args:
        database: the damaged file.
        seq: what the refusal to start named as the last good record.
        aside: a folder, not there yet, for a copy of the files as they are.

    Raises LossRefused where nothing is damaged, or another record is the last good one.
    """
    mark = Mark(mark_path(database)).read()
    damage = _damage(database, mark)
    if damage is None:
        raise LossRefused("the journal is sound: there is no loss to accept, start without it")
    if damage.last_good_seq != seq:
        raise LossRefused(
            f"{damage}\n  the last good record is {damage.last_good_seq}, not {seq}: nothing was "
            "changed"
        )
    _copy_aside(database, aside)
    draft = database.with_name(database.name + ".new")
    draft.unlink(missing_ok=True)
    is_whole = _rebuild(database, draft, seq)
    # First the log: beside a new database it would be taken for that one's.
    for beside in ("-wal", "-shm", ".mark"):
        database.with_name(database.name + beside).unlink(missing_ok=True)
    fsync_folder(database.parent)
    draft.replace(database)
    with contextlib.closing(open_to_read(database)) as connection:
        shadow = read(connection, None).folded.shadow
    write_mark(database, shadow.seq, shadow.chain)
    fsync_folder(database.parent)
    return Loss(
        reason=damage.reason,
        last_good_seq=seq,
        lost_records=None if mark is None else max(0, mark[0] - seq),
        aside=aside,
        history_is_whole=is_whole,
    )


def _damage(database: Path, mark: tuple[int, bytes] | None) -> JournalDamaged | None:
    try:
        with contextlib.closing(open_to_read(database)) as connection:
            read(connection, mark)
    except JournalDamaged as damage:
        return damage
    return None


def _copy_aside(database: Path, aside: Path) -> None:
    aside.mkdir(mode=0o700)
    for beside in _BESIDE:
        source = database.with_name(database.name + beside)
        if source.exists():
            shutil.copy2(source, aside / source.name)
            _fsync_file(aside / source.name)
    fsync_folder(aside)
    fsync_folder(aside.parent)


def _rebuild(database: Path, draft: Path, seq: int) -> bool:
    """Put what is believed into a new file; whether all of history could be read."""
    with (
        contextlib.closing(open_to_read(database)) as source,
        contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as target,
    ):
        target.execute("PRAGMA synchronous = FULL")
        migrate(target)
        is_whole = True
        target.execute("BEGIN IMMEDIATE")
        if seq:
            found = read(source, None, until=seq)
            is_whole = _copy_history(source, target, found.version)
            _copy_journal(source, target, found)
            _take_back(target, found.folded.state, found.folded.shadow.accepted, seq)
            write_history(target, found.folded.rows, seq)
            term = max(found.term, found.folded.shadow.term) + TERM_JUMP
            target.execute("UPDATE meta SET value = ? WHERE key = 'term'", (term,))
        target.execute("INSERT OR REPLACE INTO meta VALUES ('behind', 1)")
        target.execute("COMMIT")
        target.execute("PRAGMA journal_mode = DELETE").fetchall()
    draft.chmod(0o600)
    _fsync_file(draft)
    return is_whole


def _copy_journal(source: sqlite3.Connection, target: sqlite3.Connection, found: Found) -> None:
    """The records, their formats and the checkpoint, up to where reading went."""
    shadow = found.folded.shadow
    base = found.base
    kept_seq = 0 if found.loaded is None else found.loaded.head.seq
    if found.loaded is not None and not _is_sound(source, base, kept_seq):
        # What lies behind the checkpoint is for people to look into: no state hangs on it.
        base = Base(kept_seq, found.loaded.head.chain)
        _keep_acceptances(source, target, found.formats, kept_seq)
    for first, written in found.formats.items():
        if first <= shadow.seq:
            put_format(target, first, written)
    if found.formats.of(shadow.seq) != codec.JOURNAL_FORMAT:
        begin_format(target, shadow.seq + 1)
    target.executemany(
        "INSERT INTO journal (seq, term, body, crc, chain) VALUES (?, ?, ?, ?, ?)",
        read_records(source, base.seq, shadow.seq),
    )
    sqlite_checkpoint.write_whole(target, shadow, base)


def _is_sound(source: sqlite3.Connection, base: Base, until: int) -> bool:
    """Whether the records behind a checkpoint hold what was written."""
    seq, chain = base.seq, base.chain
    try:
        for record in read_records(source, base.seq, until):
            codec.verify(chain, seq + 1, record)
            seq, chain = record.seq, record.chain
    except StoreError:
        return False
    return seq == until


def _keep_acceptances(
    source: sqlite3.Connection, target: sqlite3.Connection, formats: codec.Formats, until: int
) -> None:
    """What was submitted, of records that are not taken along."""
    with contextlib.suppress(sqlite3.DatabaseError):
        found = source.execute(
            "SELECT journal.seq, journal.crc, journal.body FROM history_run "
            "JOIN journal ON journal.seq = history_run.seq WHERE history_run.seq <= ?",
            (until,),
        )
        for seq, crc, body in found:
            if accepted_in((crc, body), formats.of(seq)) is not None:
                target.execute(
                    "INSERT OR REPLACE INTO history_spec VALUES (?, ?, ?)", (seq, crc, body)
                )


def _copy_history(source: sqlite3.Connection, target: sqlite3.Connection, version: int) -> bool:
    """As much of history as can be read; whether that is all of it."""
    is_whole = True
    for table in _HISTORY:
        if table == "history_spec" and version < CHECKPOINTS_SINCE:
            continue
        names = [row[1] for row in source.execute(f"PRAGMA table_info({table})")]
        places = ", ".join("?" * len(names))
        statement = f"INSERT OR REPLACE INTO {table} ({', '.join(names)}) VALUES ({places})"  # noqa: S608 - names of our own tables
        try:
            for row in source.execute(f"SELECT {', '.join(names)} FROM {table}"):  # noqa: S608 - likewise
                target.execute(statement, row)
        except sqlite3.DatabaseError:
            is_whole = False
    return is_whole


def _take_back(
    target: sqlite3.Connection, state: State, accepted: dict[str, Acceptance], seq: int
) -> None:
    """Have history say nothing of what the records behind `seq` said."""
    for table, column in (
        ("history_run", "seq"),
        ("history_job", "run_seq"),
        ("history_attempt", "run_seq"),
        ("history_spec", "run_seq"),
        ("history_ready", "seq"),
    ):
        target.execute(f"DELETE FROM {table} WHERE {column} > ?", (seq,))  # noqa: S608 - likewise
    for run in state.runs.values():
        place = accepted[run.run_id].place
        target.execute(
            "UPDATE history_run SET state = 'ACTIVE', ended_at_ms = NULL, counts = NULL, crc = NULL "
            "WHERE seq = ?",
            (place,),
        )
        for job in run.order:
            if not job.is_terminal:
                target.execute(
                    "DELETE FROM history_job WHERE run_seq = ? AND job_id = ?", (place, job.spec.id)
                )
            is_live = job.attempt is not None and job.attempt.is_live
            if is_live and (run.run_id, job.spec.id) not in state.services:
                shown = job.number - 1
            else:
                shown = job.number
            target.execute(
                "DELETE FROM history_attempt WHERE run_seq = ? AND job_id = ? AND number > ?",
                (place, job.spec.id, shown),
            )
    for service in state.services.values():
        target.execute(
            "DELETE FROM history_attempt WHERE run_seq = ? AND job_id = ? AND number > ?",
            (accepted[service.run_id].place, service.job_id, service.attempt.number),
        )
        if not service.attempt.is_live:
            continue
        # Its row says, as it did when the service came up, that it has not ended.
        target.execute(
            "UPDATE history_attempt SET ended = 0, reason = 'UNKNOWN', exit_code = 0, signal = 0, "
            "message = '', ended_at_ms = 0, stdout_bytes = 0, stderr_bytes = 0, crc = NULL "
            "WHERE run_seq = ? AND job_id = ? AND number = ?",
            (accepted[service.run_id].place, service.job_id, service.attempt.number),
        )
