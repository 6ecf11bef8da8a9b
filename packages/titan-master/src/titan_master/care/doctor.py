"""Is a data folder well? Checks, each with what to do about it. It reads, and writes nothing.

A check that cannot be made because another one failed is left out. Works beside a running master:
what it reads of the database is of one moment. Called by ``cli.py``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Final

from msgspec import Struct

from titan_master.config import DATABASE
from titan_master.core.check import problems
from titan_master.core.pins import pinned
from titan_master.core.state import State, digest
from titan_master.store import codec
from titan_master.store.base import JournalDamaged, StoreError
from titan_master.store.mark import Mark, mark_path
from titan_master.store.sqlite_checking import history_problems
from titan_master.store.sqlite_reading import (
    Found,
    one_moment,
    open_to_read,
    read,
    read_records,
)
from titan_proto.handshake import BadToken, parse_token

DISK_FAIL_BYTES: Final = 64 * 1024 * 1024
DISK_WARN_BYTES: Final = 1024 * 1024 * 1024
CLOCK_AHEAD_WARN_MS: Final = 60_000
_PROBLEMS_SHOWN: Final = 5
_WAL_BUG_FIXED: Final = (3, 51, 3)
_WAL_BUG_FIXED_TOO: Final = ((3, 44, 6), (3, 50, 7))


class Level(Enum):
    """How a check went."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(Struct, frozen=True, kw_only=True):
    """What one check found."""

    check: str
    level: Level
    message: str
    fix: str = ""


def _ok(check: str, message: str) -> Finding:
    return Finding(check=check, level=Level.OK, message=message)


def _warn(check: str, message: str, fix: str) -> Finding:
    return Finding(check=check, level=Level.WARN, message=message, fix=fix)


def _fail(check: str, message: str, fix: str) -> Finding:
    return Finding(check=check, level=Level.FAIL, message=message, fix=fix)


def examine(data: Path, now_ms: int) -> Iterator[Finding]:
    """Every finding about a data folder."""
    if not data.is_dir():
        yield _fail("folder", f"{data} is not there", "name the data folder: --data FOLDER")
        return
    yield _folder(data)
    yield _lock(data)
    yield _token(data)
    yield _disk(data)
    yield _sqlite()
    database = data / DATABASE
    if not database.is_file():
        yield _fail(
            "journal", f"{data} has no {DATABASE}", "start a master here, or restore a backup"
        )
        return
    yield from _database(data, database, now_ms)


# -- the folder ---------------------------------------------------------------------------------------
def _folder(data: Path) -> Finding:
    mode = stat.S_IMODE(data.stat().st_mode)
    if mode & 0o077:
        message = f"others may look into {data} (mode {mode:04o})"
        return _warn("folder", message, f"chmod 700 {data}")
    return _ok("folder", f"{data} is its owner's alone")


def _lock(data: Path) -> Finding:
    try:
        descriptor = os.open(data / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return _ok("lock", "no master is running here")
    except OSError as error:
        return _warn(
            "lock", f"the lock cannot be read: {error.strerror}", "look as the master's user"
        )
    try:
        # Shared, and let go at once: a master that starts just now asks for it a moment later.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
        return _ok("lock", f"a master is running here: {holder or 'it says nothing of itself'}")
    finally:
        os.close(descriptor)
    return _ok("lock", "no master is running here; the last one did not end in good order")


def _token(data: Path) -> Finding:
    path = data / "token"
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="ascii").strip()
        parse_token(text)
    except FileNotFoundError:
        return _warn("token", "there is none yet", "the next start makes one, and workers need it")
    except (OSError, UnicodeDecodeError, BadToken) as error:
        fix = "put the token of a backup in its place, or remove the file for a new one"
        return _fail("token", f"{path} cannot be used: {error}", fix)
    if mode & 0o077:
        message = f"others may read {path} (mode {mode:04o})"
        return _fail("token", message, f"chmod 600 {path}, and consider a new token")
    return _ok("token", "only its owner may read it")


def _disk(data: Path) -> Finding:
    free = shutil.disk_usage(data).free
    message = f"{free / 1e9:.1f} GB are free on the disk of {data}"
    fix = "make room: the master ends when a commit finds no space"
    if free < DISK_FAIL_BYTES:
        return _fail("disk", message, fix)
    return _warn("disk", message, fix) if free < DISK_WARN_BYTES else _ok("disk", message)


def _sqlite() -> Finding:
    version = sqlite3.sqlite_version_info
    text = f"SQLite {sqlite3.sqlite_version}"
    if version >= _WAL_BUG_FIXED or any(
        version[:2] == fixed[:2] and version >= fixed for fixed in _WAL_BUG_FIXED_TOO
    ):
        return _ok("sqlite", text)
    return _warn(
        "sqlite",
        f"{text} can damage its log when two connections write at once (fixed in 3.51.3)",
        "nothing, as long as the master alone writes there, as it does: never write to the database "
        "with another program while it runs",
    )


# -- the database --------------------------------------------------------------------------------------
def _database(data: Path, database: Path, now_ms: int) -> Iterator[Finding]:
    mark = Mark(mark_path(database)).read()
    restore = "restore a backup, or start once with --accept-loss"
    try:
        with contextlib.closing(open_to_read(database)) as connection, one_moment(connection):
            found = read(connection, None)
            yield _format(found)
            yield from _behind(connection, found)
            yield _mark(database, found, mark)
            yield _state(found)
            yield from _history(connection)
            yield _artifacts(data, found.folded.state)
            yield _clock(found, now_ms)
    except JournalDamaged as error:
        fix = f"{restore} {error.last_good_seq}"
        yield _fail("journal", str(error), fix)
    except (StoreError, sqlite3.Error) as error:
        yield _fail("journal", str(error), "see docs/reference/exit-codes.md")


def _format(found: Found) -> Finding:
    if found.format < codec.JOURNAL_FORMAT:
        message = f"format {found.format}; this version writes {codec.JOURNAL_FORMAT}"
        return _ok("format", f"{message} and raises it at its next start")
    return _ok("format", f"format {found.format}")


def _behind(connection: sqlite3.Connection, found: Found) -> Iterator[Finding]:
    """The records that a start reads, and those that it does not look at any more."""
    shadow = found.folded.shadow
    if found.note:
        yield _warn("checkpoint", found.note, "start the master: it writes a new one")
    elif found.loaded is None:
        yield _ok("checkpoint", "none yet: the journal is short")
    else:
        yield _ok(
            "checkpoint", f"stands on record {found.loaded.head.seq}, {found.loaded.head.rows} rows"
        )
    yield _ok("journal", f"records {found.base.seq + 1} to {shadow.seq}, ends sound")
    until = 0 if found.loaded is None else found.loaded.head.seq
    seq, chain = found.base.seq, found.base.chain
    try:
        for record in read_records(connection, seq, until):
            codec.unseal(chain, seq + 1, record, found.formats)
            seq, chain = record.seq, record.chain
    except JournalDamaged as error:
        yield _warn(
            "old records",
            f"{error.reason}; no start needs it, the checkpoint has what it said",
            "nothing; it goes with the other old records",
        )
        return
    if found.loaded is not None:
        yield _ok(
            "old records", f"{until - found.base.seq} are kept behind the checkpoint, all sound"
        )
    if found.loaded is not None and not found.base.seq:
        whole = read(connection, None, from_start=True)
        if digest(whole.folded.state) == digest(found.folded.state):
            yield _ok("replay", "the whole journal comes to the same as the checkpoint")
        else:
            yield _fail(
                "replay",
                "the whole journal comes to something else than the checkpoint",
                "this is a bug: keep the data folder and report it",
            )


def _mark(database: Path, found: Found, mark: tuple[int, bytes] | None) -> Finding:
    shadow = found.folded.shadow
    if mark is None:
        message = f"{mark_path(database).name} is not there, or torn"
        return _warn("mark", message, "nothing; the next start writes it")
    if shadow.seq < mark[0]:
        return _fail(
            "mark",
            f"the journal ends at record {shadow.seq}, a master had seen record {mark[0]} written",
            f"restore a backup, or start once with --accept-loss {shadow.seq}",
        )
    if shadow.seq == mark[0] and shadow.chain != mark[1]:
        return _fail(
            "mark",
            f"record {shadow.seq} is not the one that a master had seen written",
            f"restore a backup, or start once with --accept-loss {shadow.seq - 1}",
        )
    return _ok("mark", f"the journal goes as far as a master had seen, to record {mark[0]}")


def _state(found: Found) -> Finding:
    broken = next(problems(found.folded.state), None)
    if broken is not None:
        fix = "this is a bug: keep the data folder and report it"
        return _fail("state", f"it breaks a promise: {broken}", fix)
    state = found.folded.state
    jobs = sum(len(run.order) for run in state.runs.values())
    return _ok("state", f"{len(state.runs)} live runs with {jobs} jobs keep every promise")


def _history(connection: sqlite3.Connection) -> Iterator[Finding]:
    runs, broken = history_problems(connection, _PROBLEMS_SHOWN)
    if not broken:
        yield _ok("history", f"{runs} ended runs, all rows sound")
    for problem in broken:
        yield _fail("history", problem, "the answer is refused; restore a backup if you need it")


def _artifacts(data: Path, state: State) -> Finding:
    """What live runs still need is there."""
    pins = pinned(state)
    wanted = {*pins.artifacts, *pins.lists}
    missing = [name for name in wanted if not (data / "artifacts" / name[:2] / name).is_file()]
    if missing:
        message = f"{len(missing)} artifacts of live runs are missing, such as {missing[0]}"
        return _fail("artifacts", message, "cancel the runs, or copy them from a backup")
    return _ok("artifacts", f"all {len(wanted)} that live runs need are there")


def _clock(found: Found, now_ms: int) -> Finding:
    ahead_ms = found.folded.shadow.at_ms - now_ms
    if ahead_ms > CLOCK_AHEAD_WARN_MS:
        return _warn(
            "clock",
            f"the journal is {ahead_ms // 1000} s ahead of this machine's clock",
            "set the clock; until it has caught up, times go on from the journal's",
        )
    return _ok("clock", "not behind the journal")
