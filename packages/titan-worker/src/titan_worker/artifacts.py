"""Artifacts on this machine: fetched by digest over the worker's link, unpacked once, kept.

An artifact is downloaded in pieces, checked against its digest and unpacked into the cache; every
attempt copies from there. Requests for one artifact at the same time share one download. A lost
link only pauses it. The cache holds a bounded number of bytes and gives up what was used longest
ago; what another boot left is not trusted, because nothing here is synced to disk.

Called by ``workspace``. It never writes into a workspace.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import shutil
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import msgspec

from titan_proto.errors import LinkLost, TitanError
from titan_proto.ids import is_digest
from titan_proto.limits import ARTIFACT_BYTES
from titan_proto.messages import ArtifactChunk
from titan_proto.specs import ArtifactFormat, ArtifactRef
from titan_worker.archives import MODE_MASK, ArchiveError, Tree, TreeFile, path_problem, unpack
from titan_worker.tasks import Tasks

_LOG: Final = logging.getLogger(__name__)
_CONTENT: Final = "content"
"""Where the one file of a FILE artifact lies in its entry."""
_MANIFEST: Final = "manifest"
_BOOT: Final = "boot"
_TEMPORARY: Final = "tmp-"


class ArtifactError(Exception):
    """An artifact cannot be had; the text is for people."""


class Fetch(Protocol):
    """How artifacts come over the link."""

    def __call__(self, digest: str, offset: int) -> AsyncIterator[ArtifactChunk]:
        """A stream of pieces from `offset` on, once there is a link. Raises LinkLost."""


class Entry(NamedTuple):
    """One unpacked artifact in the cache."""

    folder: str
    tree: Tree


class _Kept:
    """What the cache knows of an entry."""

    __slots__ = ("entry", "size_bytes", "users")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.size_bytes = entry.tree.size_bytes
        self.users = 0


class Cache:
    """Unpacked artifacts by name, a bounded number of bytes of them."""

    def __init__(self, folder: Path, *, bytes_max: int, boot_id: str) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._boot_id = boot_id
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._made = 0
        self.size_bytes = 0

    def open(self) -> None:
        """Take over what an earlier process of this boot has left."""
        boot = self._folder / _BOOT
        if not boot.exists() or boot.read_text(encoding="ascii") != self._boot_id:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        boot.write_text(self._boot_id, encoding="ascii")
        folders = [entry for entry in self._folder.iterdir() if entry.is_dir()]
        for folder in sorted(folders, key=lambda path: path.stat().st_mtime_ns):
            tree = None if folder.name.startswith(_TEMPORARY) else _read_manifest(folder)
            if tree is None:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                self._keep(folder.name, tree)

    def find(self, name: str) -> Entry | None:
        """The entry, which counts as used now."""
        kept = self._kept.get(name)
        if kept is None:
            return None
        self._kept.move_to_end(name)
        return kept.entry

    @contextlib.contextmanager
    def in_use(self, name: str) -> Iterator[None]:
        """While it lasts the entry is not given up."""
        kept = self._kept[name]
        kept.users += 1
        try:
            yield
        finally:
            kept.users -= 1

    def new_folder(self) -> Path:
        """A folder for something to become an entry; an unfinished one goes at the next start."""
        self._made += 1
        folder = self._folder / f"{_TEMPORARY}{self._made}"
        folder.mkdir()
        return folder

    def add(self, name: str, folder: Path, tree: Tree) -> Entry:
        """Make `folder`, whose manifest is written, the entry `name`."""
        folder.rename(self._folder / name)
        return self._keep(name, tree)

    def _keep(self, name: str, tree: Tree) -> Entry:
        entry = Entry(f"{self._folder}/{name}", tree)
        kept = self._kept[name] = _Kept(entry)
        self.size_bytes += kept.size_bytes
        return entry

    def give_up(self, *, keep: str) -> list[str]:
        """Forget what was used longest ago until the rest fits; the folders to be removed."""
        folders: list[str] = []
        for name, kept in list(self._kept.items()):
            if self.size_bytes <= self._bytes_max:
                break
            if kept.users or name == keep:
                continue
            del self._kept[name]
            self.size_bytes -= kept.size_bytes
            # Renamed first: the same artifact may be wanted again while the old one goes.
            self._made += 1
            old = self._folder / f"{_TEMPORARY}{self._made}"
            Path(kept.entry.folder).rename(old)
            folders.append(str(old))
            _LOG.info("cache_gave_up name=%s bytes=%d", name, kept.size_bytes)
        return folders


class Artifacts:
    """Every artifact that jobs of this worker need."""

    def __init__(
        self,
        *,
        cache: Cache,
        fetch: Fetch,
        tasks: Tasks,
    ) -> None:
        self._cache = cache
        self._fetch = fetch
        self._tasks = tasks
        self._coming: dict[str, asyncio.Task[Entry | ArtifactError]] = {}

    def find(self, ref: ArtifactRef) -> Entry | None:
        """The artifact, if it is here already."""
        return self._cache.find(_name(ref))

    def in_use(self, ref: ArtifactRef) -> contextlib.AbstractContextManager[None]:
        """While it lasts the artifact stays in the cache."""
        return self._cache.in_use(_name(ref))

    async def get(self, ref: ArtifactRef) -> Entry:
        """The artifact, fetched if need be. Raises ArtifactError."""
        entry = self.find(ref)
        if entry is not None:
            return entry
        name = _name(ref)
        coming = self._coming.get(name)
        if coming is None:
            coming = self._coming[name] = self._tasks.start(self._bring(name, ref))
            coming.add_done_callback(lambda _task: self._coming.pop(name))
        # Others may wait for the same one: whoever gives up does not stop it.
        await asyncio.wait([coming])
        brought = coming.result()
        if isinstance(brought, ArtifactError):
            raise brought
        return brought

    async def _bring(self, name: str, ref: ArtifactRef) -> Entry | ArtifactError:
        """The artifact, or why it cannot be had: a value, because several may wait for it."""
        folder = None
        try:
            _refuse_unfit(ref)
            folder = self._cache.new_folder()
            blob = folder / "blob"
            await self._download(ref, blob)
            tree = await asyncio.to_thread(_make_entry, ref, blob, folder)
            entry = self._cache.add(name, folder, tree)
            for old in self._cache.give_up(keep=name):
                await asyncio.to_thread(shutil.rmtree, old, ignore_errors=True)
            return entry
        except ArtifactError as error:
            return error
        except (ArchiveError, OSError) as error:
            return ArtifactError(f"artifact {ref.digest[:12]}: {error}")
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)  # gone already if all went well

    async def _download(self, ref: ArtifactRef, target: Path) -> None:
        """Write the bytes to `target` and check them."""
        digest = hashlib.sha256()
        have = 0
        with target.open("wb") as file:
            while True:
                try:
                    async with contextlib.aclosing(self._pieces(ref, have)) as pieces:
                        async for data in pieces:
                            have += len(data)
                            digest.update(data)
                            file.write(data)
                    break
                except LinkLost:
                    _LOG.info("fetch_paused digest=%s have=%d", ref.digest[:12], have)
        if have != ref.size_bytes or digest.hexdigest() != ref.digest:
            raise ArtifactError(f"artifact {ref.digest[:12]} arrived with other bytes than its own")

    async def _pieces(self, ref: ArtifactRef, offset: int) -> AsyncGenerator[bytes]:
        try:
            async for chunk in self._fetch(ref.digest, offset):
                if chunk.offset != offset:
                    raise ArtifactError(f"artifact {ref.digest[:12]} arrived out of order")
                offset += len(chunk.data)
                if offset > ref.size_bytes:
                    raise ArtifactError(f"artifact {ref.digest[:12]} is longer than announced")
                yield chunk.data
        except LinkLost:
            raise
        except TitanError as error:
            raise ArtifactError(
                f"the master did not give artifact {ref.digest[:12]}: {error}"
            ) from error


def _name(ref: ArtifactRef) -> str:
    return f"{ref.digest}.{ref.format}"


def _refuse_unfit(ref: ArtifactRef) -> None:
    if not is_digest(ref.digest):
        raise ArtifactError(f"{ref.digest!r} is no digest")
    if ref.format not in {ArtifactFormat.ZIP, ArtifactFormat.FILE}:
        raise ArtifactError("the artifact's format is not known to this worker: is it too old?")
    if not 0 <= ref.size_bytes <= ARTIFACT_BYTES:
        raise ArtifactError(
            f"the artifact has {ref.size_bytes} bytes, ARTIFACT_BYTES is {ARTIFACT_BYTES}"
        )
    problem = path_problem(ref.name) if ref.format is ArtifactFormat.FILE else ""
    if problem:
        raise ArtifactError(f"the file's name {ref.name[:200]!r} is refused: {problem}")


def _make_entry(ref: ArtifactRef, blob: Path, folder: Path) -> Tree:
    """Turn a downloaded blob into an entry. Runs in a thread."""
    if ref.format is ArtifactFormat.ZIP:
        content = folder / _CONTENT
        content.mkdir()
        tree = unpack(str(blob), str(content))
        blob.unlink()
    else:
        # Modes do not travel with single files; what is found by name may be meant to be executed.
        blob.rename(folder / _CONTENT)
        tree = Tree((), (TreeFile(_CONTENT, MODE_MASK, ref.size_bytes),))
    (folder / _MANIFEST).write_bytes(msgspec.msgpack.encode(tree))
    return tree


def _read_manifest(folder: Path) -> Tree | None:
    try:
        return msgspec.msgpack.decode((folder / _MANIFEST).read_bytes(), type=Tree)
    except (OSError, msgspec.DecodeError):
        return None


def copy_into(entry: Entry, ref: ArtifactRef, work: str) -> None:
    """Put a copy of the artifact into the folder `work`. May run in a thread. Raises OSError."""
    if ref.format is ArtifactFormat.FILE:
        parent, _, _ = ref.name.rpartition("/")
        if parent:
            os.makedirs(f"{work}/{parent}", exist_ok=True)  # noqa: PTH103 - as below
        _copy_file(f"{entry.folder}/{_CONTENT}", f"{work}/{ref.name}", entry.tree.files[0])
        return
    source = f"{entry.folder}/{_CONTENT}"
    for path in entry.tree.folders:
        with contextlib.suppress(FileExistsError):
            os.mkdir(f"{work}/{path}", 0o755)  # noqa: PTH102 - thousands of these: no pathlib
    for file in entry.tree.files:
        _copy_file(f"{source}/{file.path}", f"{work}/{file.path}", file)


def _copy_file(source: str, target: str, file: TreeFile) -> None:
    """A copy that shares nothing a job could write to: no link, at most a clone on write."""
    reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        writing = os.open(target, flags, file.mode)
        try:
            _copy_bytes(reading, writing, file.size)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _copy_bytes(reading: int, writing: int, size: int) -> None:
    left = size
    while left > 0:
        copied = os.sendfile(writing, reading, None, left)
        if copied == 0:
            raise OSError(f"a file of the artifact cache is {left} bytes short")
        left -= copied
