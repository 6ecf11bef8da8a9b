"""Bytes by the SHA-256 of their content, as files.

A blob appears under its name only when it is whole, verified and synced: written to a part file,
hashed on the way, then renamed. Part files are named by digest, so a broken upload goes on where
it stopped. Its time of change says when it was last wanted: whoever will need it says so with
`touch`, and may count on it for as long as ``sweeping.py`` lets lie what nobody wants. Called by
``artifacts.py`` and by submissions; every method that reads or syncs a whole file says so and belongs
off the loop.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from titan_master.data.reserve import Space
from titan_proto.errors import TitanError
from titan_proto.ids import is_digest

_COPY_BYTES: Final = 1024 * 1024
_MS_NS: Final = 1_000_000
_AGEING: Final = "ageing"
_FOLDER_CHARS: Final = 2
_PARTS_KEPT: Final = 16
"""Broken uploads that a new process keeps for their clients to come back."""


class BadBlob(TitanError):
    """Bytes that are not what was announced; nothing was stored."""


class Kept(NamedTuple):
    """A blob as it lies there."""

    digest: str
    size_bytes: int
    wanted_ms: int
    """When it was last wanted."""


class BlobStore:
    """A folder of blobs: ``<aa>/<digest>``, and ``parts/`` for what is on its way."""

    def __init__(self, root: Path, space: Space, now_ms: Callable[[], int]) -> None:
        """`now_ms`: one clock says when each of them was wanted, whatever becomes of the kernel's."""
        self._root = root
        self.space = space
        self._now_ms = now_ms
        self._lock = threading.Lock()
        """Between the look at a blob's time and its removal nobody may come to want it."""
        self._parts = root / "parts"
        self._parts.mkdir(parents=True, exist_ok=True)
        self._sweep()
        self._active: set[Path] = set()
        self._serial = 0

    def path(self, digest: str) -> Path:
        """Where the blob lies, if it does."""
        if not is_digest(digest):
            raise BadBlob(f"not a SHA-256 in lower-case hexadecimal: {digest[:80]!r}")
        return self._root / digest[:2] / digest

    def size(self, digest: str) -> int | None:
        """How long the blob is; None when it is not here."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def has(self, digest: str) -> bool:
        """Whether the blob is here, whole; it may be about to go."""
        return is_digest(digest) and self.path(digest).exists()

    def touch(self, digest: str) -> bool:
        """Whether the blob is here; and if so, it is wanted from now on for a while."""
        if not is_digest(digest):
            return False
        now_ns = self._now_ms() * _MS_NS
        with self._lock:
            try:
                os.utime(self.path(digest), ns=(now_ns, now_ns))
            except FileNotFoundError:
                return False
        return True

    def begin_ageing(self) -> bool:
        """Whether this is the first look at ages here: then all are wanted now, for nobody said so before.

        So it is in a folder that an older master has left, or a backup. Off the loop.
        """
        mark = self._root / _AGEING
        if mark.exists():
            return False
        for one in list(self.all()):
            self.touch(one.digest)
        mark.touch()
        return True

    def all(self) -> Iterator[Kept]:
        """Every blob. Off the loop."""
        for folder in sorted(self._root.iterdir()):
            if len(folder.name) != _FOLDER_CHARS:
                continue
            for path in folder.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    found = path.stat()
                    yield Kept(path.name, found.st_size, found.st_mtime_ns // _MS_NS)

    def remove(self, digest: str, unwanted_since_ms: int) -> bool:
        """Delete it, unless somebody has wanted it since that moment."""
        path = self.path(digest)
        with self._lock, contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime_ns // _MS_NS <= unwanted_since_ms:
                path.unlink()
                return True
        return False

    def read(self, digest: str) -> bytes:
        """The whole blob. Off the loop."""
        return self.path(digest).read_bytes()

    def read_at(self, digest: str, wanted: int, offset: int) -> bytes:
        """A part of a blob, from `offset` on."""
        descriptor = os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, wanted, offset)
        finally:
            os.close(descriptor)

    def receive(self, digest: str, size_bytes: int) -> Incoming:
        """Begin, or take up again, the receipt of a blob."""
        self.path(digest)
        part = self._parts / digest
        if part in self._active:
            # Two uploads of one thing at once: the second goes its own way, from the start.
            part = self._fresh_part()
        self._active.add(part)
        return Incoming(self, part, digest, size_bytes)

    def store_stream(self, source: int, limit_bytes: int) -> tuple[str, int]:
        """Copy an open file in; its digest and size. Off the loop. Raises BadBlob."""
        part = self._fresh_part()
        digest = hashlib.sha256()
        size = 0
        target = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with contextlib.closing(_Descriptor(target)):
                while piece := os.read(source, _COPY_BYTES):
                    size += len(piece)
                    if size > limit_bytes:
                        raise BadBlob(f"more than {limit_bytes} bytes")
                    digest.update(piece)
                    self.space.take(len(piece))
                    _write_all(target, piece)
                self.keep(part, target, digest.hexdigest())
        finally:
            part.unlink(missing_ok=True)
        return digest.hexdigest(), size

    def keep(self, part: Path, descriptor: int, digest: str) -> None:
        """Sync a verified part file and give it its name. Off the loop."""
        place = self.path(digest)
        if self.touch(digest):
            part.unlink(missing_ok=True)
            return
        is_kept = False
        try:
            now_ns = self._now_ms() * _MS_NS
            os.utime(descriptor, ns=(now_ns, now_ns))
            os.fsync(descriptor)
            if not place.parent.exists():
                place.parent.mkdir(exist_ok=True)
                _sync_folder(self._root)
            part.replace(place)
            _sync_folder(place.parent)
            is_kept = True
        finally:
            if not is_kept:
                # A sync that failed would succeed the next time, having written nothing: who tries
                # again has to send all of it again.
                part.unlink(missing_ok=True)
                place.unlink(missing_ok=True)

    def released(self, part: Path) -> None:
        """Nobody writes this part file any more."""
        self._active.discard(part)

    def _sweep(self) -> None:
        """Remove what earlier processes left half done, but the newest uploads, to go on with."""
        named = [part for part in self._parts.iterdir() if is_digest(part.name)]
        newest = sorted(named, key=lambda part: part.stat().st_mtime_ns)[-_PARTS_KEPT:]
        for part in self._parts.iterdir():
            if part not in newest:
                part.unlink()

    def _fresh_part(self) -> Path:
        self._serial += 1
        return self._parts / f"{os.getpid()}-{self._serial}"


class Incoming:
    """One blob on its way in. `begin`, `write`…, `finish`; or `abandon` at any point."""

    def __init__(self, store: BlobStore, part: Path, digest: str, size_bytes: int) -> None:
        self._store = store
        self._part = part
        self.digest = digest
        self._size = size_bytes
        self._hash = hashlib.sha256()
        self._descriptor = -1
        self.offset = 0
        """Where the next byte belongs."""

    def begin(self) -> int:
        """Open the part file and hash what it holds already; the offset to send from. Off the loop."""
        self._descriptor = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.fstat(self._descriptor).st_size > self._size:
            os.ftruncate(self._descriptor, 0)
        while piece := os.read(self._descriptor, _COPY_BYTES):
            self._hash.update(piece)
            self.offset += len(piece)
        return self.offset

    def write(self, offset: int, data: bytes) -> None:
        """Add a piece (at most a chunk: this may run on the loop). Raises BadBlob."""
        if offset != self.offset:
            raise BadBlob(f"a piece for offset {offset} came where {self.offset} was expected")
        if offset + len(data) > self._size:
            raise BadBlob(f"more than the {self._size} bytes that were announced")
        self._store.space.take(len(data))
        _write_all(self._descriptor, data)
        self._hash.update(data)
        self.offset += len(data)

    def finish(self) -> None:
        """Verify and keep. Off the loop. Raises BadBlob."""
        try:
            if self.offset != self._size:
                raise BadBlob(f"{self.offset} bytes came, {self._size} were announced")
            found = self._hash.hexdigest()
            if found != self.digest:
                self._part.unlink(missing_ok=True)
                raise BadBlob(f"the bytes have digest {found}, {self.digest} was announced")
            self._store.keep(self._part, self._descriptor, self.digest)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Stop here. What came so far stays, for a later try; where none can find it, it goes."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            if not self.offset or self._part.name != self.digest:
                self._part.unlink(missing_ok=True)
        self._store.released(self._part)


class _Descriptor:
    """So that a bare descriptor can be closed by a ``with``."""

    def __init__(self, number: int) -> None:
        self._number = number

    def close(self) -> None:
        os.close(self._number)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
