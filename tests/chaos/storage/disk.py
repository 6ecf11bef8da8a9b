"""A disk that keeps only what was synced: SQLite's files, as a power cut would leave them.

It stands between SQLite and a real folder. The folder is what processes see (the page cache); beside
it the model keeps of every file what a sync has made durable, and what was written since. At a cut
each sector written since the last sync is there or not, or half of it is; and what a failed sync was
to write is never written again, because the kernel takes it for done.

Sectors next to a written range are never harmed: SQLite relies on that, and disks keep it.
"""

from __future__ import annotations

import contextlib
import errno
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import apsw

from titan_master.store.sqlite import write_log_anew
from titan_master.store.sqlite_history import SqliteHistory

SECTOR = 512


class PowerCut(Exception):
    """The machine is off: nothing reaches the disk any more."""


class _Image:
    """One file: what is durable, and what was written since."""

    def __init__(self, content: bytes) -> None:
        self.durable = bytearray(content)
        self.pending: list[tuple[int, bytes] | int] = []
        """Writes (offset, bytes) and truncations (size), in order."""
        self.has_name = bool(content)
        """Whether its entry in the folder is durable."""

    def sync(self) -> None:
        for change in self.pending:
            _apply(self.durable, change)
        self.pending.clear()

    def lose(self, dice: random.Random, share: float) -> None:
        """Let each sector under way reach the disk with this probability, and forget the rest."""
        for change in self.pending:
            if isinstance(change, int):
                if dice.random() < share:
                    _apply(self.durable, change)
                continue
            for offset, data in _sectors(*change):
                if dice.random() < share:
                    kept = data if dice.random() < 0.9 else data[: dice.randrange(len(data) + 1)]
                    _apply(self.durable, (offset, kept))
        self.pending.clear()


def _sectors(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    end = offset + len(data)
    at = offset
    while at < end:
        until = min(end, at - at % SECTOR + SECTOR)
        yield at, data[at - offset : until - offset]
        at = until


def _apply(content: bytearray, change: tuple[int, bytes] | int) -> None:
    if isinstance(change, int):
        del content[change:]
        content.extend(bytes(change - len(content)))
        return
    offset, data = change
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


class Disk:
    """A folder on it. `fuse` operations from now the power goes; None: it stays."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.fuse: int | None = None
        self.failing_syncs = 0
        """So many syncs from now one fails; 0: none."""
        self.dice = random.Random(0)
        self.is_off = False
        self.epoch = 0
        """Of the disk's lives; a file opened in an earlier one is written to no more."""
        self._images: dict[str, _Image] = {}
        self._gone: dict[str, _Image] = {}
        self._vfs = _Vfs(name, self)
        self.name = name

    def close(self) -> None:
        """Take the disk out of SQLite."""
        self._vfs.unregister()

    # -- what happens to it -----------------------------------------------------------------------

    def cut(self, share: float) -> None:
        """The power goes, if it has not gone: the folder becomes what the disk holds.

        Args:
            share: of the sectors under way, about so many have reached the disk.
        """
        self.is_off = True
        for name, image in self._gone.items():
            # A name taken away without syncing its folder may be there again.
            if name not in self._images and self.dice.random() < 0.5:
                self._images[name] = image
        self._gone.clear()
        for path in self.folder.iterdir():
            if path.name not in self._images and not path.name.endswith(".mark"):
                path.unlink()
        for name, image in list(self._images.items()):
            image.lose(self.dice, share)
            if not image.has_name and self.dice.random() < 0.5:
                del self._images[name]
                (self.folder / name).unlink(missing_ok=True)
                continue
            image.has_name = True
            (self.folder / name).write_bytes(image.durable)
        self.epoch += 1
        self.is_off = False
        self.fuse = None
        self.failing_syncs = 0

    # -- what SQLite does to it -------------------------------------------------------------------

    def step(self, epoch: int) -> None:
        """One operation that may be the last."""
        if self.is_off or epoch != self.epoch:
            raise apsw.IOError("the power is off")
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse <= 0:
                self.is_off = True

    def opened(self, path: str) -> None:
        name = Path(path).name
        if name not in self._images:
            there = self.folder / name
            self._images[name] = _Image(there.read_bytes() if there.exists() else b"")

    def wrote(self, path: str, offset: int, data: bytes) -> None:
        self._images[Path(path).name].pending.append((offset, bytes(data)))

    def truncated(self, path: str, size: int) -> None:
        self._images[Path(path).name].pending.append(size)

    def synced(self, path: str) -> None:
        image = self._images[Path(path).name]
        if self.is_off:
            return  # the power went during this very sync: what it was to do is still under way
        if self.failing_syncs:
            self.failing_syncs -= 1
            if not self.failing_syncs:
                image.lose(self.dice, self.dice.choice((0.0, 0.5)))
                raise apsw.IOError("fsync: input/output error")
        image.sync()

    def written_anew(self, path: Path) -> None:
        """All that this file shows has been written over itself and synced, without SQLite."""
        if path.exists() and path.stat().st_size:
            self.opened(str(path))
            self.step(self.epoch)
            self.wrote(str(path), 0, path.read_bytes())
            self.step(self.epoch)
            self.synced(str(path))
            if self.is_off:
                raise OSError(errno.EIO, "the power went off in a sync")

    def folder_synced(self) -> None:
        self._gone.clear()
        for image in self._images.values():
            image.has_name = True

    def deleted(self, path: str, *, is_synced: bool) -> None:
        image = self._images.pop(Path(path).name, None)
        if image is not None and not is_synced:
            self._gone[Path(path).name] = image


class _Vfs(apsw.VFS):
    def __init__(self, name: str, disk: Disk) -> None:
        super().__init__(name, "unix", makedefault=False)
        self._disk = disk

    def xOpen(self, name, flags):  # noqa: N802 - SQLite's name
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._disk.opened(path)
        return _File(name, flags, path, self._disk)

    def xDelete(self, name, syncdir):  # noqa: N802
        self._disk.step(self._disk.epoch)
        super().xDelete(name, syncdir)
        self._disk.deleted(name, is_synced=bool(syncdir))


class _File(apsw.VFSFile):
    def __init__(self, name, flags, path: str, disk: Disk) -> None:
        super().__init__("unix", name, flags)
        self._path = path
        self._disk = disk
        self._epoch = disk.epoch
        # SQLite syncs the folder with the first sync of a log that it has opened.
        self._owes_folder = path.endswith(("-journal", "-wal"))

    def xWrite(self, data, offset):  # noqa: N802
        self._disk.step(self._epoch)
        super().xWrite(data, offset)
        self._disk.wrote(self._path, offset, data)

    def xTruncate(self, newsize):  # noqa: N802
        self._disk.step(self._epoch)
        super().xTruncate(newsize)
        self._disk.truncated(self._path, newsize)

    def xSync(self, flags):  # noqa: N802
        # The folder is in memory: nothing is to be gained by syncing it, too.
        self._disk.step(self._epoch)
        self._disk.synced(self._path)
        if self._disk.is_off:
            raise apsw.IOError("the power went off in a sync")
        if self._owes_folder:
            self._owes_folder = False
            self._disk.folder_synced()


class Connection:
    """apsw's connection with the few methods that the store uses of sqlite3's, and its errors."""

    def __init__(self, path: Path, disk: Disk, *, synchronous: str, is_log_trusted: bool) -> None:
        self._synchronous = synchronous
        if not is_log_trusted:
            write_log_anew(path)
            _told(lambda: disk.written_anew(path.with_name(path.name + "-wal")))
        self._connection = _told(lambda: apsw.Connection(str(path), vfs=disk.name))

    def execute(self, statement: str, values=()):
        if statement.startswith("PRAGMA synchronous"):
            statement = f"PRAGMA synchronous = {self._synchronous}"
        return _Rows(_told(lambda: self._connection.execute(statement, values).fetchall()))

    def executescript(self, script: str) -> None:
        self.execute(script)

    def executemany(self, statement: str, lines) -> None:
        _told(lambda: self._connection.executemany(statement, lines).fetchall())

    def close(self) -> None:
        # As sqlite3: what fails while the log is moved into the database is not told.
        with contextlib.suppress(apsw.Error):
            self._connection.close(force=True)

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction


class Reader(SqliteHistory):
    """The store's reader, in the same library as its writer.

    Locks are a process's, and each library believes that all of them are its own: it would not see a
    reader of the other one. With the last connection that it knows of it moves the log into the
    database, which after a sync that failed must not happen (`SqliteStore`, when it lets go).
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        super().__init__(path)
        self._file = path
        self._disk = disk
        self._kept: apsw.Connection | None = None

    def attach(self) -> None:
        with contextlib.suppress(apsw.Error):
            flags = apsw.SQLITE_OPEN_READONLY
            self._kept = apsw.Connection(str(self._file), flags=flags, vfs=self._disk.name)
            self._kept.execute("SELECT count(*) FROM sqlite_master").fetchall()

    def close(self) -> None:
        super().close()
        if self._kept is not None:
            with contextlib.suppress(apsw.Error):  # as `Connection.close`
                self._kept.close(force=True)
            self._kept = None


class _Rows:
    """The rows of a statement that is over."""

    def __init__(self, rows: list) -> None:
        self._rows = iter(rows)

    def __iter__(self):
        return self._rows

    def fetchone(self):
        return next(self._rows, None)

    def fetchall(self):
        return list(self._rows)


def _told(call):
    """What a call gives; its failure in the words of sqlite3."""
    try:
        return call()
    except apsw.Error as error:
        is_damage = isinstance(error, apsw.CorruptError | apsw.NotADBError)
        told = (sqlite3.DatabaseError if is_damage else sqlite3.OperationalError)(str(error))
        told.sqlite_errorcode = getattr(error, "result", sqlite3.SQLITE_IOERR)
        raise told from error
