"""What an attempt leaves for others: found in its folders, judged, and written into a list.

Two kinds of files: those of the run's shared folder that are new or changed since the attempt began, and
those of its working folder that its job hands out. Jobs made these folders, so no link is ever followed and
nothing but an ordinary file is read. A list holds small files whole and names larger ones by their digest; it
is what travels, and what another worker reads. Runs in threads; called by ``carrying``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import msgspec

from titan_proto.filelist import FileLeft, FileList
from titan_proto.ids import is_digest
from titan_proto.limits import FILE_LIST_BYTES, FILES_LEFT_BYTES, FILES_LEFT_PER_JOB
from titan_worker import patterns
from titan_worker.archives import DEPTH_MAX, path_problem

# Works with descriptors of folders, which pathlib does not know.

INLINE_BYTES: Final = 64 * 1024
"""A file of at most so much lies in the list itself ..."""
INLINE_TOTAL_BYTES: Final = 16 * 1024 * 1024
"""... as long as all of them weigh no more than this."""
ENTRIES_LOOKED_AT: Final = 200_000
"""Files and folders of a run's shared folder, or below a pattern: more is not searched."""
MODE: Final = 0o777
"""No bit that would run a copy with other rights than its owner's."""
_PIECE_BYTES: Final = 1024 * 1024
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# What is there now may be a link, or block whoever opens it.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_SHOWN: Final = 5


class Unfit(Exception):
    """What was left cannot be taken; the text is for people."""


class Changing(Exception):
    """The file is being written: by somebody else, for the attempt is over."""


class Found(NamedTuple):
    """A file that is to go into a list."""

    path: str
    size: int
    mode: int
    mtime_ns: int


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(FileList)


def encode(files: FileList) -> bytes:
    """The list's bytes. Raises Unfit."""
    data = _ENCODER.encode(files)
    if len(data) > FILE_LIST_BYTES:
        raise Unfit(
            f"the list of its files has {len(data)} bytes, more than FILE_LIST_BYTES "
            f"({FILE_LIST_BYTES})"
        )
    return data


def decode(data: bytes) -> FileList:
    """The list that another worker wrote; it is not believed. Raises Unfit."""
    try:
        files = _DECODER.decode(data)
    except msgspec.DecodeError as error:
        raise Unfit(f"the list of files cannot be read: {error}") from error
    for file in (*files.shared, *files.artifacts):
        problem = path_problem(file.path)
        if not problem and not is_digest(file.digest):
            problem = "it has no digest"
        if not problem and not 0 <= file.size <= FILES_LEFT_BYTES:
            problem = f"it has {file.size} bytes"
        if not problem and file.is_inline and _digest(file.data) != file.digest:
            problem = "its bytes are not those of its digest"
        if problem:
            raise Unfit(f"{file.path[:200]!r} in the list of files is refused: {problem}")
    return files


# -- finding --------------------------------------------------------------------------------------
def changed(folder: str, since_ns: int, is_known: Callable[[Found], bool]) -> list[Found]:
    """The files of a shared folder that were touched since then and are in no list yet. Raises Unfit."""
    found = [
        file
        for file, changed_ns in _files(folder, "the run's shared folder")
        if changed_ns >= since_ns and not is_known(file)
    ]
    _check(found, "its files in $TITAN_SHARED", "`share: node` keeps them where they are")
    return found


def handed_out(work: str, wanted: tuple[str, ...]) -> list[Found]:
    """The files that these patterns name in a working folder, each once. Raises Unfit."""
    found: dict[str, Found] = {}
    for pattern in wanted:
        if path_problem(pattern.rstrip("/")):
            raise Unfit(f"artifacts: {pattern[:200]!r} is no path inside the working folder")
        matching = [file for file in _below(work, pattern) if patterns.is_match(file.path, pattern)]
        if not matching:
            raise Unfit(
                f"it was to hand out {pattern!r} (artifacts), and left no such file in its working "
                f"folder, which holds {_names(work)}"
            )
        found.update((file.path, file) for file in matching)
    kept = sorted(found.values())
    _check(kept, "its artifacts", "name fewer")
    return kept


def _below(work: str, pattern: str) -> Iterator[Found]:
    top = patterns.top(pattern)
    for file, _ in _files(f"{work}/{top}" if top else work, f"its working folder, for {pattern!r}"):
        yield file._replace(path=f"{top}/{file.path}") if top else file


def _check(found: list[Found], what: str, hint: str) -> None:
    if len(found) > FILES_LEFT_PER_JOB:
        raise Unfit(
            f"{what} are {len(found)}, more than FILES_LEFT_PER_JOB ({FILES_LEFT_PER_JOB}); {hint}"
        )
    size = sum(file.size for file in found)
    if size > FILES_LEFT_BYTES:
        raise Unfit(
            f"{what} have {size} bytes, more than FILES_LEFT_BYTES ({FILES_LEFT_BYTES}); {hint}"
        )
    for file in found:
        # A name that is no text cannot be told to anybody.
        problem = path_problem(file.path) or _text_problem(file.path)
        if problem:
            raise Unfit(f"{what}: {file.path[:200]!r} cannot be carried: {problem}; {hint}")


def _text_problem(path: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    return ""


def _files(folder: str, what: str) -> Iterator[tuple[Found, int]]:
    """Every ordinary file below, in the order of names, and when it was last touched."""
    try:
        top = os.open(folder, _FOLDER)
    except OSError:
        return  # none was made, or it is a link: then there is nothing of the job's to be found
    looked = 0
    todo = [(top, "")]
    try:
        while todo:
            fd, inside = todo.pop()
            try:
                entries = sorted(os.scandir(fd), key=lambda entry: entry.name)
                looked += len(entries)
                if looked > ENTRIES_LOOKED_AT:
                    raise Unfit(
                        f"{what} has more than {ENTRIES_LOOKED_AT} entries, too many to look through"
                    )
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):  # somebody goes on removing things
                        status = entry.stat(follow_symlinks=False)
                        path = f"{inside}{entry.name}"
                        if stat.S_ISREG(status.st_mode):
                            mode = stat.S_IMODE(status.st_mode) & MODE
                            found = Found(path, status.st_size, mode, status.st_mtime_ns)
                            yield found, status.st_ctime_ns
                        elif stat.S_ISDIR(status.st_mode):
                            if path.count("/") >= DEPTH_MAX:
                                raise Unfit(f"{what} is deeper than {DEPTH_MAX} folders: {path}")
                            todo.append((os.open(entry.name, _FOLDER, dir_fd=fd), f"{path}/"))
            finally:
                os.close(fd)
    finally:
        for fd, _ in todo:
            os.close(fd)


def _names(work: str) -> str:
    try:
        with os.scandir(work) as entries:
            names = sorted(entry.name for entry in entries)
    except OSError:
        return "nothing any more"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) or "nothing") + more


# -- reading --------------------------------------------------------------------------------------
def opened(folder: str, path: str) -> int:
    """A descriptor of the file at `path` below `folder`, through no link. Raises OSError."""
    fd = os.open(folder, _FOLDER)
    try:
        *folders, name = path.split("/")
        for part in folders:
            inner = os.open(part, _FOLDER, dir_fd=fd)
            os.close(fd)
            fd = inner
        return os.open(name, _FILE, dir_fd=fd)
    finally:
        os.close(fd)


def listed(folder: str, found: Found, *, inline: bool) -> FileLeft:
    """The file with its digest, and with its bytes if they are few and `inline`.

    Raises Changing, OSError.
    """
    fd = opened(folder, found.path)
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise Changing(found.path)
        digest, size, kept = hashlib.sha256(), 0, b""
        while piece := os.read(fd, _PIECE_BYTES):
            size += len(piece)
            if size > before.st_size:
                raise Changing(found.path)
            digest.update(piece)
            if inline and before.st_size <= INLINE_BYTES:
                kept += piece
        after = os.fstat(fd)
    finally:
        os.close(fd)
    same = (after.st_size, after.st_mtime_ns) == (size, before.st_mtime_ns)
    if not same or size != before.st_size:
        raise Changing(found.path)
    mode = stat.S_IMODE(after.st_mode) & MODE
    return FileLeft(found.path, mode, after.st_mtime_ns, size, digest.hexdigest(), kept)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
