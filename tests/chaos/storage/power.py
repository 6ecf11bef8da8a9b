"""Power cuts: whatever the disk had not synced is gone, and what was acknowledged must be there.

A history is four lives of a master, one after the other on what the cut before has left; each cut may
come in a commit, in a checkpoint, in the opening. Some syncs fail first: then the process ends, as the
engine does it, and its successor starts on the page cache, which shows what the disk may not have.
"""

from __future__ import annotations

import dataclasses
import random
import shutil
import tempfile
from pathlib import Path

from tests.chaos.storage.day import Day
from tests.chaos.storage.disk import Connection, Disk, Reader
from tests.chaos.storage.results import Result
from titan_master.core.check import check
from titan_master.core.state import State, digest
from titan_master.store.base import JournalDamaged, JournalKeep, Recovered, StoreError
from titan_master.store.sqlite import SqliteStore, connect

CUTS = 4
_SYNC_FAILS = 0.15
"""Of all lives, in so many."""
_OPERATIONS_MAX = 160
"""Of a life: some ten commits, and now and then a checkpoint."""


class _Lost(Exception):
    """Something acknowledged is not there, or was taken for damage."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Habits:
    """What a master does for its records; each of the weaker ones must be seen to lose some."""

    synchronous: str = "FULL"
    is_log_trusted: bool = False
    """After a sync that failed, take what can be read for durable."""


class _History:
    """One seed."""

    def __init__(self, seed: int, folder: Path, result: Result, habits: Habits) -> None:
        self._dice = random.Random(seed)
        self._result = result
        self._path = folder / "t.sqlite"
        self._mark = folder / "t.sqlite.mark"
        self._habits = habits
        # Half of them let go of each record as soon as a checkpoint stands for it.
        self._keep = JournalKeep(ms=0, bytes=0) if seed % 2 else JournalKeep()
        self._disk = Disk(folder, f"disk-{folder.name}")
        self._disk.dice = self._dice
        self._acknowledged = 0
        """The last record that was."""
        self._states: dict[int, set[str]] = {0: {digest(State())}}
        """What the state was, or was to be, at the end of each turn."""
        self._marks = [b""]

    def live(self) -> None:
        try:
            for _ in range(CUTS):
                self._one_life()
            self._look(SqliteStore(self._path, self._keep, connect))
        finally:
            self._disk.close()

    def _one_life(self) -> None:
        disk, dice = self._disk, self._dice
        disk.fuse = dice.randrange(1, _OPERATIONS_MAX)
        if dice.random() < _SYNC_FAILS:
            disk.failing_syncs = dice.randrange(1, 20)
        while not disk.is_off:
            store = SqliteStore(self._path, self._keep, self._connect)
            store._history = Reader(self._path, disk)
            try:
                try:
                    self._work(store)
                finally:
                    self._end(store)
            except JournalDamaged as error:
                if not disk.is_off:
                    raise _Lost(f"taken for damage: {error}") from error
            except StoreError:
                # The process ends (74). Unless the power went, its successor finds the page cache.
                self._result.count("process ends")
        disk.cut(dice.choice((0.0, 0.5, 0.5, 0.9)))
        self._tear_mark()
        self._result.count("cuts")

    def _connect(self, path: Path) -> Connection:
        return Connection(path, self._disk, **dataclasses.asdict(self._habits))

    def _work(self, store: SqliteStore) -> None:
        found = store.open()
        self._compare(found)
        try:
            day = Day(store, found, self._dice, self._attempt)
            while True:
                day.turn()
                self._note(store)
                self._result.count("commits")
                chance = self._dice.random()
                if chance < 0.1:
                    store.tidy()
                elif chance < 0.2:
                    store.checkpoint()
                elif chance < 0.3:
                    store.keep_up()
                elif chance < 0.33:
                    store.close()
                    return
        finally:
            # What was found counts, too: a client that asks is told of it.
            self._note(store)

    def _attempt(self, seq: int, state: str) -> None:
        self._states.setdefault(seq, set()).add(state)

    def _note(self, store: SqliteStore) -> None:
        """What the store says is durable is acknowledged from now on."""
        if store._seq > self._acknowledged:
            self._acknowledged = store._seq
            if self._mark.exists():
                self._marks.append(self._mark.read_bytes())

    def _end(self, store: SqliteStore) -> None:
        """As when the process is killed: nothing is closed in good order."""
        connection, store._connection = store._connection, None
        store._mark.close()
        if connection is not None:
            # SQLite wants to move the log into the database here; a dead process does not.
            was_off, self._disk.is_off = self._disk.is_off, True
            connection.close()
            self._disk.is_off = was_off

    def _tear_mark(self) -> None:
        """The mark is never synced: any one that was written may be there, or a part of it."""
        mark = self._dice.choice((self._marks[-1], self._dice.choice(self._marks)))
        if self._dice.random() < 0.2:
            mark = mark[: self._dice.randrange(len(mark) + 1)]
        self._mark.write_bytes(mark)

    def _look(self, store: SqliteStore) -> None:
        """At what is left, through the library that a master uses."""
        try:
            found = store.open()
        except StoreError as error:
            raise _Lost(f"after the last cut: {error}") from error
        self._compare(found)
        store.close()

    def _compare(self, found: Recovered) -> None:
        check(found.state)
        if found.last_seq < self._acknowledged:
            raise _Lost(
                f"record {self._acknowledged} was acknowledged, {found.last_seq} is the last one there"
            )
        if digest(found.state) not in self._states.get(found.last_seq, ()):
            raise _Lost(f"at record {found.last_seq} the state is none that ever was")
        if found.note:
            raise _Lost(f"taken for damage: {found.note}")
        self._result.count("recoveries")


def campaign(first: int, seeds: int, habits: Habits) -> Result:
    """Histories of so many seeds."""
    result = Result(
        name="power cuts",
        what=f"{CUTS} power cuts in each of {seeds} histories of a master's store, unsynced sectors "
        "lost or torn, some syncs failing: every acknowledged record is there afterwards",
        seed=first,
    )
    with tempfile.TemporaryDirectory(prefix="power-", dir=_memory()) as root:
        for seed in range(first, first + seeds):
            folder = Path(root) / str(seed)
            folder.mkdir()
            try:
                _History(seed, folder, result, habits).live()
            except _Lost as error:
                result.lost += 1
                result.fail(f"seed {seed}: {error}")
            result.count("seeds")
            shutil.rmtree(folder)
    return result.done()


def _memory() -> str | None:
    """A folder in memory where there is one: the model is the disk."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
