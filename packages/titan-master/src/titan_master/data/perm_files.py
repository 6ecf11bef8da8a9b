"""The folder ``perm_files/``: files by name, and what each name stood for before.

Names are reached without a single link and never lead outside. What is put here by a submission or
an upload takes its name in one rename, after what lies there has become a version of that name::

    <root>/<name>                              what the name stands for now; anybody may drop one
    <root>/.versions/<name, / as %2F>/<digest> a content, never changed
                                     /versions.json   which of them count, newest first

In that order: contents, then the list, then the name. So whatever moment a process ends at, the name
stands for the old or the new, both are kept, and putting it again ends the work. Contents that no
list names are removed by the next put of that name. The folder is all there is to it: nothing has to
be read when a master starts, and nothing of it is needed by runs, which are pinned to artifacts.

`put` is for one thread at a time; everything that opens a file belongs off the loop unless it says
otherwise. Called by ``artifacts.py``, ``names.py`` and submissions.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from titan_master.data.blobs import BlobStore
from titan_proto.errors import TitanError
from titan_proto.ids import is_digest
from titan_proto.limits import (
    ARTIFACT_BYTES,
    FILE_VERSIONS,
    FILE_VERSIONS_BYTES,
    NAMED_FILES,
    PAGE_ITEMS,
)
from titan_proto.messages import FileList, FileOrigin, FileVersion, FileView
from titan_proto.specs import ArtifactFormat, ArtifactRef
from titan_proto.validation import file_name_fault

_VERSIONS: Final = ".versions"
_LIST: Final = "versions.json"
_DRAFT: Final = ".new-"
_DRAFT_KEPT_NS: Final = 3_600 * 10**9
"""A draft that is older was left by a process that is gone."""
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not blocking: a FIFO that lies there must not hold us.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# What a name may lead to that is simply not a file of this folder.
_NO_FILE: Final = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ELOOP,
        errno.EISDIR,
        errno.EACCES,
        errno.ENAMETOOLONG,
        errno.ENXIO,
    }
)
_COPY_BYTES: Final = 1024 * 1024
_LIST_BYTES: Final = 1024 * 1024
_CONTENTS_KNOWN: Final = 4 * NAMED_FILES
"""Of so many files as they lay there their digests are remembered."""
_HASHED_PER_PAGE_BYTES: Final = 256 * 1024 * 1024
"""A page of the list ends early rather than reading more."""
_SEEN_MAX: Final = 10 * NAMED_FILES
_TRIES: Final = 3
_SHORT: Final = 12

_AsFound = tuple[int, int, int, int]
Chunks = Callable[[], Iterable[bytes]]
"""A content from its beginning, each time it is called."""


class BadFile(TitanError):
    """Nothing was put: the name cannot be, or what is there cannot be replaced."""


class Kept(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A version, as its list says it."""

    digest: str
    size_bytes: int
    at_ms: int
    origin: FileOrigin
    displaced: str = ""
    """The content that somebody had put there on purpose and that made way for this one ..."""
    key: str = ""
    """... and whose request did that: who asks again must hear of it again."""


class Put(Struct, frozen=True, kw_only=True):
    """What became of a name."""

    digest: str
    notices: tuple[str, ...] = ()
    displaced_by: str = ""
    """The key of the request by which this content displaced another; "" if none did."""


class PermFiles:
    """A folder of files that runs may name."""

    def __init__(self, root: Path, blobs: BlobStore) -> None:
        self._root = root
        self._blobs = blobs
        self._lock = threading.Lock()
        self._known: OrderedDict[_AsFound, tuple[str, int]] = OrderedDict()
        self._serial = 0

    # -- what runs ask for ------------------------------------------------------------------------

    def find(self, name: str) -> ArtifactRef | None:
        """The file of that name, pinned; None if there is none.

        Raises BadBlob for a file that is too large.
        """
        descriptor = self._open(name)
        if descriptor is None:
            return None
        with _closing(descriptor):
            found = os.fstat(descriptor)
            known = self._recall(found)
            if known is None or not self._blobs.touch(known[0]):
                known = self._blobs.store_stream(descriptor, ARTIFACT_BYTES)
                self._remember(descriptor, found, known)
        digest, size = known
        return ArtifactRef(digest=digest, size_bytes=size, format=ArtifactFormat.FILE, name=name)

    def is_current(self, name: str, digest: str) -> bool:
        """Whether the name is known to stand for this content. One look at the disk: on the loop."""
        try:
            found = (self._root / name).lstat()
        except OSError:
            return False
        known = self._recall(found)
        return known is not None and known[0] == digest

    # -- what is put here -------------------------------------------------------------------------

    def put(
        self,
        name: str,
        chunks: Chunks,
        *,
        origin: FileOrigin,
        key: str,
        now_ms: int,
        is_executable: bool = False,
    ) -> Put:
        """Let the name stand for this content; what it stood for stays as a version.

        Raises:
            BadFile: the name cannot be, or what lies there must not be replaced.
            OSError: the disk; the name stands for what it did before, or for the new content.
        """
        fault = file_name_fault(name)
        if fault:
            raise BadFile(fault)
        digest, size = _digest_of(chunks())
        for _ in range(_TRIES):
            before = self._before(name)
            if before is not None and before[1] == digest:
                return self._already(name, digest, key)
            with self._versions_of(name) as folder:
                done = self._put(
                    name, folder, before, chunks, is_executable=is_executable,
                    new=Kept(digest=digest, size_bytes=size, at_ms=now_ms, origin=origin, key=key),
                )  # fmt: skip
            if done is not None:
                return done
        raise BadFile("is being changed by somebody else at this moment")

    def told(self, name: str, key: str) -> tuple[str, ...]:
        """What was to be said when the request with this key put the name."""
        with contextlib.suppress(OSError, BadFile), self._versions_of(name, make=False) as folder:
            for one in _read_list(folder):
                if key and one.key == key and one.displaced:
                    return (_displaced(name, one.displaced),)
        return ()

    def _already(self, name: str, digest: str, key: str) -> Put:
        notices = self.told(name, key)
        return Put(digest=digest, notices=notices, displaced_by=key if notices else "")

    def _put(
        self,
        name: str,
        folder: int,
        before: tuple[_AsFound, str, int] | None,
        chunks: Chunks,
        *,
        new: Kept,
        is_executable: bool,
    ) -> Put | None:
        """One try; None if the name has come to stand for something else meanwhile."""
        kept = _read_list(folder)
        old: Kept | None = None
        if before is not None:
            old = next((one for one in kept if one.digest == before[1]), None)
            if old is None:
                old = self._keep_dropped(name, folder, before)
                if old is None:
                    return None
                kept.insert(0, old)
        self._keep(folder, new.digest, chunks)
        was_meant = old is not None and old.origin is not FileOrigin.STAGED
        # Only what replaces something that a person had put there has anything to be told again.
        displaced = old.digest if old is not None and was_meant else ""
        new = msgspec.structs.replace(new, displaced=displaced, key=new.key if was_meant else "")
        kept = [new, *(one for one in kept if one.digest != new.digest)]
        kept, gone = _within_limits(kept, needed=2 if old is not None else 1)
        _write(folder, _LIST, (msgspec.json.encode(kept),), 0o644, self._draft())
        if not self._take_name(name, folder, before, new, is_executable=is_executable):
            return None
        _remove_unlisted(folder, {one.digest for one in kept})
        notices = [_displaced(name, displaced)] if displaced else []
        notices += [
            f"{name}: version {one.digest[:_SHORT]}, which was {one.origin.value.lower()}, is no "
            f"longer kept: FILE_VERSIONS ({FILE_VERSIONS}) or FILE_VERSIONS_BYTES "
            f"({FILE_VERSIONS_BYTES}) is reached"
            for one in gone
            if one.origin is not FileOrigin.STAGED
        ]
        return Put(digest=new.digest, notices=tuple(notices), displaced_by=new.key)

    def _before(self, name: str) -> tuple[_AsFound, str, int] | None:
        """What the name stands for: as it was found, digest, size. Raises BadFile for what is no file."""
        with contextlib.suppress(FileNotFoundError), self._parent(name) as (parent, last):
            found = os.stat(last, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode):
                raise BadFile("is a folder, a link or a device there, and stays that")
            descriptor = os.open(last, _FILE, dir_fd=parent)
            with _closing(descriptor):
                found = os.fstat(descriptor)
                digest, size = self._content(descriptor, found)
            return _as_found(found), digest, size
        return None

    def _content(self, descriptor: int, found: os.stat_result) -> tuple[str, int]:
        known = self._recall(found)
        if known is None:
            known = _digest_of(_pieces(descriptor))
            self._remember(descriptor, found, known)
        return known

    def _keep_dropped(
        self, name: str, folder: int, before: tuple[_AsFound, str, int]
    ) -> Kept | None:
        """Make a version of what somebody dropped; None if it is not what it was any more."""
        found, digest, size = before
        descriptor = self._open(name)
        if descriptor is None:
            return None
        with _closing(descriptor):
            if _as_found(os.fstat(descriptor)) != found:
                return None

            def again() -> Iterator[bytes]:
                os.lseek(descriptor, 0, os.SEEK_SET)
                return _pieces(descriptor)

            try:
                self._keep(folder, digest, again)
            except BadFile:
                return None  # it was written to while it was read
        at_ms = found[3] // 1_000_000
        return Kept(digest=digest, size_bytes=size, at_ms=at_ms, origin=FileOrigin.DROPPED)

    def _keep(self, folder: int, digest: str, chunks: Chunks) -> None:
        """Make a content a file of the versions' folder, unless it is one."""
        with contextlib.suppress(FileNotFoundError):
            os.stat(digest, dir_fd=folder, follow_symlinks=False)
            return
        _write(folder, digest, self._paid(chunks()), 0o644, self._draft(), digest)

    def _take_name(
        self,
        name: str,
        folder: int,
        before: tuple[_AsFound, str, int] | None,
        new: Kept,
        *,
        is_executable: bool,
    ) -> bool:
        """Rename a copy of the version to the name, if that still stands for what it did."""
        mode = 0o755 if is_executable else 0o644
        draft = self._draft()
        source = os.open(new.digest, _FILE, dir_fd=folder)
        with _closing(source), self._parent(name, make=True) as (parent, last):
            # A copy: who edits the file where it lies must not change the version.
            target = os.open(
                draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=folder
            )
            try:
                with _closing(target):
                    for piece in self._paid(_pieces(source)):
                        _write_all(target, piece)
                    os.fchmod(target, mode)
                    os.fsync(target)
                    made = os.fstat(target)
                if _found_there(parent, last) != (None if before is None else before[0]):
                    return False
                os.rename(draft, last, src_dir_fd=folder, dst_dir_fd=parent)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(draft, dir_fd=folder)
            os.fsync(parent)
        self._note(_as_found(made), (new.digest, new.size_bytes))
        return True

    def _paid(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The pieces, as long as there is room for them."""
        for piece in pieces:
            self._blobs.space.take(len(piece))
            yield piece

    def _draft(self) -> str:
        self._serial += 1
        return f"{_DRAFT}{os.getpid()}-{self._serial}"

    # -- what there is ----------------------------------------------------------------------------

    def view(self, name: str) -> FileView | None:
        """All about a name; None if it stands for nothing and never did."""
        return self._view(name, [ARTIFACT_BYTES])

    def page(self, cursor: str, limit: int) -> FileList:
        """Names from behind `cursor` on. Those that begin with a dot are not listed."""
        names, is_cut = self._names()
        behind = [name for name in names if name > cursor]
        views: list[FileView] = []
        budget = [_HASHED_PER_PAGE_BYTES]
        for name in behind[: max(1, min(limit, PAGE_ITEMS))]:
            if budget[0] <= 0:
                break
            view = self._view(name, budget)
            views.append(view or FileView(name=name))
        last = views[-1].name if views and len(views) < len(behind) else ""
        return FileList(files=tuple(views), cursor=last, is_cut=is_cut)

    def version_size(self, name: str, digest: str) -> int | None:
        """How long a version is; None if it is not kept."""
        if not is_digest(digest):
            return None
        with contextlib.suppress(OSError, BadFile), self._versions_of(name, make=False) as folder:
            return os.stat(digest, dir_fd=folder, follow_symlinks=False).st_size
        return None

    def read_version(self, name: str, digest: str, wanted: int, offset: int) -> bytes:
        """A part of a version, from `offset` on."""
        with self._versions_of(name, make=False) as folder:
            descriptor = os.open(digest, _FILE, dir_fd=folder)
            with _closing(descriptor):
                return os.pread(descriptor, wanted, offset)

    def _view(self, name: str, budget: list[int]) -> FileView | None:
        kept: list[Kept] = []
        if not file_name_fault(name):
            with (
                contextlib.suppress(OSError, BadFile),
                self._versions_of(name, make=False) as folder,
            ):
                here = set(_listed(folder))
                kept = [one for one in _read_list(folder) if one.digest in here]
        current = self._current(name, kept, budget)
        if current is None and not kept:
            return None
        others = tuple(
            FileVersion(
                digest=one.digest, size_bytes=one.size_bytes, at_ms=one.at_ms, origin=one.origin
            )
            for one in kept
            if current is None or one.digest != current.digest
        )
        return FileView(name=name, current=current, versions=others)

    def _current(self, name: str, kept: list[Kept], budget: list[int]) -> FileVersion | None:
        descriptor = self._open(name)
        if descriptor is None:
            return None
        with _closing(descriptor):
            found = os.fstat(descriptor)
            digest, size = "", found.st_size
            # One that is too large to be an artifact has no digest: no run can be pinned to it.
            if size <= ARTIFACT_BYTES:
                if self._recall(found) is None:
                    budget[0] -= size
                digest, size = self._content(descriptor, found)
        for one in kept:
            if one.digest == digest:
                return FileVersion(
                    digest=digest, size_bytes=size, at_ms=one.at_ms, origin=one.origin
                )
        at_ms = found.st_mtime_ns // 1_000_000
        return FileVersion(digest=digest, size_bytes=size, at_ms=at_ms, origin=FileOrigin.DROPPED)

    def _names(self) -> tuple[list[str], bool]:
        """Every name in its order, and whether there are more than a list shows."""
        names: set[str] = set()
        pending = [""]
        seen = 0
        while pending:
            folder = pending.pop()
            try:
                with os.scandir(self._root / folder) as items:
                    for item in items:
                        seen += 1
                        if seen > _SEEN_MAX:
                            return sorted(names)[:NAMED_FILES], True
                        name = f"{folder}/{item.name}" if folder else item.name
                        if item.name.startswith(".") or not _is_text(name):
                            continue
                        if item.is_dir(follow_symlinks=False):
                            pending.append(name)
                        elif item.is_file(follow_symlinks=False):
                            names.add(name)
            except OSError:
                continue  # no such folder, or none that we may read: then it holds no files
        with contextlib.suppress(OSError):
            names.update(
                _decoded(name)
                for name in _listed(self._root / _VERSIONS)
                if not name.startswith(".") and _is_text(name)
            )
        return sorted(names)[:NAMED_FILES], len(names) > NAMED_FILES

    # -- folders ----------------------------------------------------------------------------------

    def _open(self, name: str) -> int | None:
        """A descriptor of the regular file `name`, reached without a single link."""
        parts = name.split("/")
        if parts[0] == _VERSIONS or any(
            part in {"", ".", ".."} or "\0" in part or not _is_text(part) for part in parts
        ):
            return None
        try:
            with self._parent(name) as (parent, last):
                descriptor = os.open(last, _FILE, dir_fd=parent)
        except BadFile:
            return None
        except OSError as error:
            if error.errno in _NO_FILE:
                return None
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return None
        return descriptor

    @contextlib.contextmanager
    def _parent(self, name: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """The folder in which `name` lies, and what it is called there; `make` it if need be."""
        *above, last = name.split("/")
        with contextlib.ExitStack() as opened:
            here = self._enter_root(opened, make=make)
            for part in above:
                if make:
                    _refuse_clash(here, part)
                    _make_folder(here, part)
                here = _enter(opened, here, part)
            if make:
                _refuse_clash(here, last)
            yield here, last

    @contextlib.contextmanager
    def _versions_of(self, name: str, *, make: bool = True) -> Iterator[int]:
        """The folder of a name's versions."""
        with contextlib.ExitStack() as opened:
            root = self._enter_root(opened, make=make)
            if make:
                _make_folder(root, _VERSIONS)
            above = _enter(opened, root, _VERSIONS)
            called = _encoded(name)
            if make and not _is_there(above, called):
                _refuse_clash(above, called)
                _sweep(above)
                if len(_listed(above)) >= NAMED_FILES:
                    raise BadFile(f"would be one more than NAMED_FILES ({NAMED_FILES})")
                # Before anything is kept of it: a name that cannot be is no name with versions.
                with self._parent(name, make=True):
                    pass
                _make_folder(above, called)
            yield _enter(opened, above, called)

    def _enter_root(self, opened: contextlib.ExitStack, *, make: bool) -> int:
        if make:
            self._root.mkdir(parents=True, exist_ok=True)
        # The root itself may be a link: that is its owner's to say.
        descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        opened.callback(os.close, descriptor)
        return descriptor

    # -- what is known of files as they lay there -------------------------------------------------

    def _recall(self, found: os.stat_result) -> tuple[str, int] | None:
        with self._lock:
            return self._known.get(_as_found(found))

    def _remember(self, descriptor: int, found: os.stat_result, known: tuple[str, int]) -> None:
        """Unless it was written to while it was read."""
        if _as_found(os.fstat(descriptor)) == _as_found(found):
            self._note(_as_found(found), known)

    def _note(self, found: _AsFound, known: tuple[str, int]) -> None:
        with self._lock:
            self._known[found] = known
            if len(self._known) > _CONTENTS_KNOWN:
                self._known.popitem(last=False)


def short(digest: str) -> str:
    """As much of a digest as a person reads; enough to name a version by."""
    return digest[:_SHORT]


def _displaced(name: str, digest: str) -> str:
    return (
        f"{name}: what somebody had put into perm_files was replaced and stays as version "
        f"{short(digest)}; titan download {name} --version {short(digest)}"
    )


def _within_limits(kept: list[Kept], *, needed: int) -> tuple[list[Kept], list[Kept]]:
    """What stays, and what goes: the oldest first, and what runs brought before all else.

    The first `needed` stay whatever they weigh: what the name stands for, and what it stood for.
    """
    kept, gone = list(kept), []
    while len(kept) > needed and (
        len(kept) > FILE_VERSIONS or sum(one.size_bytes for one in kept) > FILE_VERSIONS_BYTES
    ):
        rest = range(len(kept) - 1, needed - 1, -1)
        staged = (at for at in rest if kept[at].origin is FileOrigin.STAGED)
        gone.append(kept.pop(next(staged, rest[0])))
    return kept, gone


def _read_list(folder: int) -> list[Kept]:
    """A name's versions, newest first.

    Without a list that can be read, whatever lies there counts, as put there on purpose: it is then
    said when it is replaced.
    """
    try:
        descriptor = os.open(_LIST, _FILE, dir_fd=folder)
        with _closing(descriptor):
            text = os.read(descriptor, _LIST_BYTES)
        return msgspec.json.decode(text, type=list[Kept])
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        pass
    found: list[Kept] = []
    for name in _listed(folder):
        if is_digest(name):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            found.append(
                Kept(
                    digest=name,
                    size_bytes=status.st_size,
                    at_ms=status.st_mtime_ns // 1_000_000,
                    origin=FileOrigin.DROPPED,
                )
            )
    return sorted(found, key=lambda one: (-one.at_ms, one.digest))


def _remove_unlisted(folder: int, listed: set[str]) -> None:
    for name in _listed(folder):
        if name != _LIST and name not in listed and is_digest(name):
            os.unlink(name, dir_fd=folder)
    _sweep(folder)


def _sweep(folder: int) -> None:
    """Remove drafts of processes that are gone."""
    newest: int | None = None
    for name in _listed(folder):
        if not name.startswith(_DRAFT) or name.startswith(f"{_DRAFT}{os.getpid()}-"):
            continue
        with contextlib.suppress(FileNotFoundError):
            if newest is None:
                # By the folder's own time: it has just been written to, or soon will be.
                newest = os.fstat(folder).st_mtime_ns
            if newest - os.stat(name, dir_fd=folder).st_mtime_ns > _DRAFT_KEPT_NS:
                os.unlink(name, dir_fd=folder)


def _write(
    folder: int, name: str, pieces: Iterable[bytes], mode: int, draft: str, digest: str = ""
) -> None:
    """A file under its name, whole and synced, or not at all. BadFile if it is not its digest."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    target = os.open(draft, flags, mode, dir_fd=folder)
    found = hashlib.sha256()
    try:
        with _closing(target):
            for piece in pieces:
                found.update(piece)
                _write_all(target, piece)
            os.fsync(target)
        if digest and found.hexdigest() != digest:
            raise BadFile("was changed while it was read")
        os.rename(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=folder)
    os.fsync(folder)


def _refuse_clash(folder: int, name: str) -> None:
    """One name in two spellings is one file on other systems, and two that look alike here."""
    if _is_there(folder, name):
        return
    folded = _folded(name)
    with os.scandir(folder) as items:
        for item in items:
            if _folded(item.name) == folded:
                raise BadFile(
                    f"differs from {_decoded(item.name)!r}, which is there, in upper and lower case "
                    "or in how its letters are encoded only"
                )


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _listed(folder: int | Path) -> list[str]:
    with os.scandir(folder) as items:
        return [item.name for item in items]


def _is_there(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _make_folder(above: int, name: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=above)
        os.fsync(above)


def _enter(opened: contextlib.ExitStack, above: int, name: str) -> int:
    try:
        descriptor = os.open(name, _FOLDER, dir_fd=above)
    except OSError as error:
        if error.errno in {errno.ENOTDIR, errno.ELOOP}:
            raise BadFile(f"leads through {name!r}, which is a file or a link there") from error
        raise
    opened.callback(os.close, descriptor)
    return descriptor


def _found_there(parent: int, name: str) -> _AsFound | None:
    try:
        return _as_found(os.stat(name, dir_fd=parent, follow_symlinks=False))
    except FileNotFoundError:
        return None


def _as_found(found: os.stat_result) -> _AsFound:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _encoded(name: str) -> str:
    return name.replace("%", "%25").replace("/", "%2F")


def _decoded(name: str) -> str:
    return name.replace("%2F", "/").replace("%25", "%")


def _is_text(name: str) -> bool:
    """Whether the file system's bytes were text: nothing else can be said on the wire."""
    return not any("\ud800" <= char <= "\udfff" for char in name)


def _digest_of(pieces: Iterable[bytes]) -> tuple[str, int]:
    found, size = hashlib.sha256(), 0
    for piece in pieces:
        size += len(piece)
        if size > ARTIFACT_BYTES:
            raise BadFile(f"has more than ARTIFACT_BYTES ({ARTIFACT_BYTES}) bytes")
        found.update(piece)
    return found.hexdigest(), size


def _pieces(descriptor: int) -> Iterator[bytes]:
    while piece := os.read(descriptor, _COPY_BYTES):
        yield piece


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)
