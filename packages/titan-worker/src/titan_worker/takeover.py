"""A run that repeats another begins with what that one left in its shared folder on this machine.

Copies the bytes: never a hard link (what the new run changes must not change the old one's files),
never through a symbolic link (jobs made them, and they may lead anywhere). Runs in a thread; called
by ``workspace``, which knows when.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final

# Works with descriptors of folders, which pathlib does not know.
# ruff: noqa: PTH101, PTH102, PTH104, PTH112, PTH119, PTH120, PTH123, PTH208, PTH211

BYTES_MAX: Final = 1024 * 1024 * 1024
ENTRIES_MAX: Final = 10_000
DEPTH_MAX: Final = 32
_PIECE_BYTES: Final = 1024 * 1024
_MODE: Final = 0o777
"""No bit that would run a copy with other rights than its owner's."""
_TAKING: Final = ".taking-"
_LOG: Final = logging.getLogger(__name__)
# What is there now may be a link, or block whoever opens it.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class TakeOverFailed(Exception):
    """The folder cannot be taken over; the text is for people."""


def take_over(source: str, target: str) -> bool:
    """Make `target` a copy of `source`, whole or not at all; whether it was made here and now.

    One that exists already, or that another worker of this data folder made meanwhile, stays as it
    is. Without a `source` nothing happens.

    Raises:
        TakeOverFailed: more than the limits allow.
        OSError: the disk does not let us.
    """
    if os.path.lexists(target):
        return False
    beside = f"{os.path.dirname(target)}/{_TAKING}{os.path.basename(target)}.{os.getpid()}"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        try:
            folder = os.open(source, _FOLDER)
        except FileNotFoundError:
            return False
        try:
            os.mkdir(beside)
            _Copy(source).fill(folder, beside)
        finally:
            os.close(folder)
        return _put_in_place(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def clear_unfinished(shared: str) -> None:
    """Remove what a process that died had begun to copy; others of this folder may be at it now."""
    for name in os.listdir(shared):
        maker = name.rpartition(".")[2]
        if name.startswith(_TAKING) and not (maker.isdecimal() and _is_alive(int(maker))):
            shutil.rmtree(f"{shared}/{name}", ignore_errors=True)


def _put_in_place(beside: str, target: str) -> bool:
    try:
        # Onto an empty folder too: nobody has begun to work in that.
        os.rename(beside, target)
    except OSError:
        if not os.path.isdir(target):
            raise
        return False
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class _Copy:
    """One copy, and how much of the limits it has used."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._entries = 0
        self._bytes = 0

    def fill(self, folder: int, target: str, inside: str = "", depth: int = 0) -> None:
        """Copy what is in the open `folder`, which lies at `inside` of the source."""
        if depth > DEPTH_MAX:
            raise TakeOverFailed(
                f"the shared folder of the run that this one repeats is deeper than {DEPTH_MAX} "
                f"folders: {self._source}{inside}"
            )
        for entry in _entries(folder):
            self._entries += 1
            if self._entries > ENTRIES_MAX:
                raise TakeOverFailed(
                    "the shared folder of the run that this one repeats has more than "
                    f"{ENTRIES_MAX} entries: {self._source}"
                )
            kind = entry.stat(follow_symlinks=False).st_mode
            name, path = entry.name, f"{target}/{entry.name}"
            if stat.S_ISDIR(kind):
                with _opened(name, folder, _FOLDER) as child:
                    os.mkdir(path)
                    self.fill(child, path, f"{inside}/{name}", depth + 1)
                    _dress(path, os.fstat(child))
            elif stat.S_ISREG(kind):
                self._copy_file(name, folder, path)
            elif stat.S_ISLNK(kind) and _stays_inside(os.readlink(name, dir_fd=folder), depth):
                os.symlink(os.readlink(name, dir_fd=folder), path)
            else:
                _LOG.warning("not_taken_over path=%s%s/%s", self._source, inside, name)

    def _copy_file(self, name: str, folder: int, path: str) -> None:
        with _opened(name, folder, _FILE) as source:
            found = os.fstat(source)
            if not stat.S_ISREG(found.st_mode):  # it was replaced while we looked
                return
            with open(path, "xb", buffering=0) as copy:
                while piece := os.read(source, _PIECE_BYTES):
                    self._bytes += len(piece)
                    if self._bytes > BYTES_MAX:
                        raise TakeOverFailed(
                            "the shared folder of the run that this one repeats holds more than "
                            f"{BYTES_MAX} bytes: {self._source}"
                        )
                    copy.write(piece)
            _dress(path, found)


def _dress(path: str, like: os.stat_result) -> None:
    os.chmod(path, stat.S_IMODE(like.st_mode) & _MODE)
    os.utime(path, ns=(like.st_atime_ns, like.st_mtime_ns))


def _stays_inside(link: str, depth: int) -> bool:
    """Whether a link `depth` folders below the top leads to a place that is copied too."""
    if PurePosixPath(link).is_absolute():
        return False
    for part in PurePosixPath(link).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return False
    return True


@contextlib.contextmanager
def _opened(name: str, folder: int, flags: int) -> Iterator[int]:
    fd = os.open(name, flags, dir_fd=folder)
    try:
        yield fd
    finally:
        os.close(fd)


def _entries(folder: int) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        # One more than may be: no more is held, however many there are.
        entries = [entry for entry, _ in zip(found, range(ENTRIES_MAX + 1), strict=False)]
    return sorted(entries, key=lambda entry: entry.name)
