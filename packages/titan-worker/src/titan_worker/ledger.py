"""The worker's memory: who it is, and the records of every attempt it may not forget yet.

It survives the process, not the machine: a commit is handed to the operating system, not forced to
the disk. Only the identity is forced, because a number that was shown to a master must never be
used by another process. A ledger that cannot be read, or has lost its end, is moved aside and a new worker begins: what
the old one held is LOST to its master, which is true. It decides nothing about attempts; ``app``
opens it, holding the folder's lock, and ``engine`` commits each turn's records before it releases
the turn's effects.

What is kept is always compact: the rows of a forgotten attempt are deleted by the commit that
forgets it, and each cluster that the worker went over to has one row.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from titan_proto.ids import AttemptRef
from titan_worker.core.apply import apply
from titan_worker.core.check import InvariantViolation, check
from titan_worker.core.records import (
    AnyRecord,
    AttemptClosed,
    AttemptForgotten,
    AttemptHeld,
    AttemptRestarting,
    AttemptSpared,
    AttemptSpawned,
    AttemptStopping,
    ClusterBound,
    SiblingEnded,
    SiblingForgotten,
    SiblingSettled,
    SiblingSpawned,
    SiblingTaken,
)
from titan_worker.core.state import WorkerState
from titan_worker.ledger_mark import Mark, Sum

FORMAT: Final = 1
"""In the file's header; grows when defaults cannot bridge a change of the records."""

_SCHEMA: Final = (
    """CREATE TABLE identity (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        worker_id TEXT NOT NULL,
        incarnation INTEGER NOT NULL,
        boot_id TEXT NOT NULL,
        crc INTEGER NOT NULL
    )""",
    """CREATE TABLE record (
        seq INTEGER PRIMARY KEY,
        body BLOB NOT NULL,
        crc INTEGER NOT NULL
    )""",
    f"PRAGMA user_version = {FORMAT}",
)
_WRITE: Final = "INSERT OR REPLACE INTO record (seq, body, crc) VALUES (?, ?, ?)"
_DELETE: Final = "DELETE FROM record WHERE seq = ?"
_MARK: Final = "ledger.mark"
_BUSY_S: Final = 1.0
"""For a person who looks into the file just now; nobody else has it open."""
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[AnyRecord]] = msgspec.msgpack.Decoder(AnyRecord)

# What SQLite says of a file that is not, or not any more, what we wrote. Everything else (disk full,
# no permission, locked) is trouble with the machine, and a new identity would not help.
_DAMAGE: Final = frozenset(
    {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_FORMAT}
)


OfOne = (
    AttemptHeld
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
"""Records of one attempt, or of one sibling."""


class LedgerDamaged(Exception):
    """The file is there, and it is not a ledger that this version can trust."""


class Ledger:
    """One worker's ledger, open. Made by ``Ledger.open``; used by one thread."""

    def __init__(
        self, database: sqlite3.Connection, mark: Mark, boot: str, moved_aside: Path | None
    ) -> None:
        self._database = database
        self._mark = mark
        self._boot = boot
        """The machine's present boot, which is this ledger's once `note_boot` has said so."""
        self._seals: dict[int, int] = {}
        """The checksum of each row."""
        self._sum = Sum(0, 0, 0)
        self._next_seq = 1
        self._rows: dict[AttemptRef | int, list[int]] = {}
        self._cluster = ("", 0)
        """Which cluster the worker belongs to, and the row that says so."""
        self.worker_id = ""
        self.incarnation = 0
        self.boot_id = ""
        """The boot under which this ledger's processes were started; empty before the first."""
        self.moved_aside = moved_aside
        """Where the unreadable ledger lies that this one replaces, if it replaces one."""

    @classmethod
    def open(cls, path: Path, new_id: Callable[[], str], boot_id: str) -> Ledger:
        """Open or begin the ledger at `path`; this process is its worker's next incarnation.

        `boot_id`: the machine's present boot.

        Raises:
            sqlite3.Error, OSError: the machine does not let us, whatever the file's content.
        """
        try:
            return cls._open(path, new_id, boot_id, None)
        except LedgerDamaged:
            return cls._open(path, new_id, boot_id, _move_aside(path))

    @classmethod
    def _open(
        cls, path: Path, new_id: Callable[[], str], boot_id: str, moved_aside: Path | None
    ) -> Ledger:
        # Orders carry their jobs' environments: nobody else may read them. SQLite gives its other
        # files the same mode.
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        is_new = os.fstat(fd).st_size == 0
        os.close(fd)
        mark = Mark(path.with_name(_MARK))
        database = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_S)
        try:
            ledger = cls(database, mark, boot_id, moved_aside)
            ledger._begin(new_id, is_new=is_new)
        except BaseException as error:  # raised again
            database.close()
            mark.close()
            if isinstance(error, sqlite3.DatabaseError) and _is_damage(error):
                raise LedgerDamaged(str(error)) from error
            raise
        return ledger

    # -- this process ---------------------------------------------------------------------------
    def note_boot(self, boot_id: str) -> None:
        """From now on processes of this boot are recorded."""
        self.boot_id = boot_id
        self._announce(self._sum._replace(identity=self._identity_crc()))
        self._write_identity()

    def load(self) -> WorkerState:
        """The state that the records come to. Raises LedgerDamaged."""
        state = WorkerState()
        self._rows.clear()
        self._seals.clear()
        self._cluster = ("", 0)
        last = 0
        for seq, body, crc in self._database.execute(
            "SELECT seq, body, crc FROM record ORDER BY seq"
        ):
            record = _unseal(seq, body, crc)
            try:
                apply(state, record)
            except InvariantViolation as error:
                raise LedgerDamaged(f"record {seq} does not fit: {error}") from error
            self._note(record, seq)
            self._seals[seq] = crc
            last = seq
        try:
            check(state)
        except InvariantViolation as error:
            raise LedgerDamaged(str(error)) from error
        self._next_seq = last + 1
        return state

    def commit(self, records: Iterable[AnyRecord]) -> None:
        """One turn's records, all or none."""
        fresh: list[tuple[int, bytes, int]] = []
        stale: list[tuple[int]] = []
        for record in records:
            if isinstance(record, AttemptForgotten | SiblingForgotten):
                stale += [(seq,) for seq in self._rows.pop(_key(record), ())]
                continue
            seq = self._place(record)
            body = _ENCODER.encode(record)
            fresh.append((seq, body, _seal(seq, body)))
            self._note(record, seq)
        self._announce(self._carry_on(fresh, stale))
        execute = self._database.execute
        execute("BEGIN IMMEDIATE")
        for row in fresh:
            execute(_WRITE, row)
        for key in stale:
            execute(_DELETE, key)
        execute("COMMIT")

    def close(self) -> None:
        """Write everything back into one file and let go of it."""
        self._database.close()
        self._mark.close()

    # -- inside ---------------------------------------------------------------------------------
    def _begin(self, new_id: Callable[[], str], *, is_new: bool) -> None:
        execute = self._database.execute
        # One process has it (the folder's lock says so): no shared memory, fewer system calls.
        execute("PRAGMA locking_mode = EXCLUSIVE")
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        execute("PRAGMA cache_size = -512")
        execute("BEGIN IMMEDIATE")
        if is_new:
            for statement in _SCHEMA:
                execute(statement)
            self.worker_id = new_id()
        else:
            self._recognise()
        self.load()
        self._sum = self._add_up()
        expected = () if is_new else self._mark.expected(self._boot)
        if expected and self._sum not in expected:
            raise LedgerDamaged(f"it comes to {self._sum}, and was last to come to {expected[1]}")
        self.incarnation += 1
        self._announce(self._sum._replace(identity=self._identity_crc()))
        self._write_identity()
        execute("COMMIT")
        execute("PRAGMA synchronous = NORMAL")

    def _recognise(self) -> None:
        execute = self._database.execute
        (found,) = execute("PRAGMA user_version").fetchone()
        # To SQLite a file that was cut, or has lost its journal, may be an empty database.
        if found != FORMAT:
            raise LedgerDamaged(f"its format is {found}; this version reads {FORMAT}")
        (verdict,) = execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise LedgerDamaged(verdict)
        row = execute("SELECT worker_id, incarnation, boot_id, crc FROM identity").fetchone()
        if row is None:
            raise LedgerDamaged("it does not say whose it is")
        self.worker_id, self.incarnation, self.boot_id, crc = row
        if crc != self._identity_crc():
            raise LedgerDamaged("the worker's identity fails its checksum")

    def _add_up(self) -> Sum:
        seals = 0
        for seal in self._seals.values():
            seals ^= seal
        return Sum(len(self._seals), seals, self._identity_crc())

    def _carry_on(self, fresh: list[tuple[int, bytes, int]], stale: list[tuple[int]]) -> Sum:
        """What the ledger comes to with these rows written, and then those deleted."""
        seals = self._sum.seals
        for seq, _body, seal in fresh:
            seals ^= seal ^ self._seals.get(seq, 0)
            self._seals[seq] = seal
        for (seq,) in stale:
            seals ^= self._seals.pop(seq)
        return Sum(len(self._seals), seals, self._sum.identity)

    def _announce(self, after: Sum) -> None:
        self._mark.note(self._boot, self._sum, after)
        self._sum = after

    def _write_identity(self) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO identity (one, worker_id, incarnation, boot_id, crc)"
            " VALUES (1, ?, ?, ?, ?)",
            (self.worker_id, self.incarnation, self.boot_id, self._identity_crc()),
        )

    def _identity_crc(self) -> int:
        return zlib.crc32(f"{self.worker_id}\n{self.incarnation}\n{self.boot_id}".encode())

    def _place(self, record: AnyRecord) -> int:
        """The row that `record` is to be written to."""
        if isinstance(record, ClusterBound) and record.cluster_id == self._cluster[0]:
            # A new term takes the row of the old one: nothing else depends on which came when.
            return self._cluster[1]
        self._next_seq += 1
        return self._next_seq - 1

    def _note(self, record: AnyRecord, seq: int) -> None:
        """Remember which rows are whose."""
        if isinstance(record, ClusterBound):
            self._cluster = (record.cluster_id, seq)
        elif isinstance(record, AttemptHeld | SiblingTaken):
            self._rows[_key(record)] = [seq]
        else:
            self._rows[_key(record)].append(seq)


def _key(record: OfOne) -> AttemptRef | int:
    """Whose record it is: an attempt's, or a sibling's by its number."""
    if isinstance(record, AttemptHeld):
        return record.order.ref
    if isinstance(record, AttemptClosed):
        return record.report.ref
    if isinstance(record, SiblingTaken):
        return record.order.number
    if isinstance(record, SiblingSpawned | SiblingSettled | SiblingEnded | SiblingForgotten):
        return record.number
    return record.ref


def _seal(seq: int, body: bytes) -> int:
    """The checksum of a row: of what it says and of its place."""
    return zlib.crc32(body, seq & 0xFFFFFFFF)


def _unseal(seq: int, body: object, crc: int) -> AnyRecord:
    if not isinstance(body, bytes) or crc != _seal(seq, body):
        raise LedgerDamaged(f"record {seq} fails its checksum")
    try:
        return _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError, RecursionError) as error:
        raise LedgerDamaged(f"record {seq} is none: {error}") from error


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    # The lowest byte is the kind; the others say more about it.
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _DAMAGE


def _move_aside(path: Path) -> Path:
    """Give the file the first free name for damaged ones.

    What SQLite keeps beside it went when the connection that met the damage was closed.
    """
    number = 1
    while (target := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return path.rename(target)
