"""Artifacts on this machine: fetched by digest over the worker's link, unpacked once, kept.

An artifact is downloaded in pieces, checked against its digest and unpacked into the cache; every
attempt copies from there. Requests for one artifact at the same time share one download. A lost
link only pauses it. The cache holds a bounded number of bytes and gives up what was used longest
ago; what another boot left is not trusted, because nothing here is synced to disk. Neither is a file
that was touched since it was unpacked: jobs run under the worker's own account. Such an artifact is
fetched again.

Called by ``workspace``. It never writes into a workspace.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import shutil
import time
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
_TRIES: Final = 3


class ArtifactError(Exception):
    """An artifact cannot be had; the text is for people."""


class EntryDamaged(Exception):
    """What the cache holds is not what was put there."""


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

    __slots__ = ("entry", "size_bytes", "used_s", "users")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.size_bytes = entry.tree.size_bytes
        self.used_s = time.monotonic()
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
        if not boot.exists() or boot.read_bytes() != self._boot_id.encode():
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
        kept.used_s = time.monotonic()
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
        folder.mkdir(parents=True)
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
            folders.append(self._release(name))
            _LOG.info("cache_gave_up name=%s bytes=%d", name, kept.size_bytes)
        return folders

    def unused(self, for_s: float) -> list[str]:
        """Forget what nobody has used for so long in this process's life; the folders to be removed."""
        limit_s = time.monotonic() - for_s
        old = [
            name for name, kept in self._kept.items() if kept.used_s <= limit_s and not kept.users
        ]
        return [self._release(name) for name in old]

    def discard(self, name: str, entry: Entry) -> str | None:
        """Forget an entry that is damaged; the folder to be removed, if nobody did this before."""
        kept = self._kept.get(name)
        if kept is None or kept.entry is not entry:
            return None
        _LOG.warning("cache_damaged name=%s", name)
        return self._release(name)

    def _release(self, name: str) -> str:
        kept = self._kept.pop(name)
        self.size_bytes -= kept.size_bytes
        # Renamed first: the same artifact may be wanted again while the old one goes.
        self._made += 1
        old = f"{self._folder}/{_TEMPORARY}{self._made}"
        with contextlib.suppress(FileNotFoundError):  # somebody has removed it
            Path(kept.entry.folder).rename(old)
        return old


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
        self._coming: dict[str, asyncio.Task[ArtifactError | None]] = {}

    def find(self, ref: ArtifactRef) -> Entry | None:
        """The artifact, if it is here already. Raises ArtifactError where it may not be had."""
        # Also of one that is here: under its digest it is the same for all, its name is not.
        _refuse_unfit(ref)
        return self._cache.find(_name(ref))

    async def get(self, ref: ArtifactRef) -> Entry:
        """The artifact, fetched if need be. Raises ArtifactError."""
        name = _name(ref)
        while (entry := self.find(ref)) is None:
            coming = self._coming.get(name)
            if coming is None:
                coming = self._coming[name] = self._tasks.start(self._bring(name, ref))
                coming.add_done_callback(lambda _task: self._coming.pop(name))
            # Others may wait for the same one: whoever gives up does not stop it.
            await asyncio.wait([coming])
            error = coming.result()
            if error is not None:
                raise error
        return entry

    async def copy(self, ref: ArtifactRef, work: str) -> None:
        """Put a copy into the folder `work`, fetched if need be. Raises ArtifactError, OSError."""
        for _ in range(_TRIES):
            entry = await self.get(ref)
            try:
                with self._cache.in_use(_name(ref)):
                    await asyncio.to_thread(copy_into, entry, ref, work)
                return
            except EntryDamaged:
                await self.discard(ref, entry)
        raise ArtifactError(f"artifact {ref.digest[:12]}: somebody keeps changing the cache")

    async def drop_unused(self, for_s: float) -> None:
        """Let go of what nobody has used for so long."""
        for old in self._cache.unused(for_s):
            await asyncio.to_thread(shutil.rmtree, old, ignore_errors=True)

    async def discard(self, ref: ArtifactRef, entry: Entry) -> None:
        """Let go of an entry that is not what was put there."""
        old = self._cache.discard(_name(ref), entry)
        if old is not None:
            await asyncio.to_thread(shutil.rmtree, old, ignore_errors=True)

    async def _bring(self, name: str, ref: ArtifactRef) -> ArtifactError | None:
        """Fetch it; why it cannot be had is a value, because several may wait for it."""
        folder = None
        try:
            folder = self._cache.new_folder()
            blob = folder / "blob"
            await self._download(ref, blob)
            tree = await asyncio.to_thread(_make_entry, ref, blob, folder)
            self._cache.add(name, folder, tree)
            for old in self._cache.give_up(keep=name):
                await asyncio.to_thread(shutil.rmtree, old, ignore_errors=True)
        except ArtifactError as error:
            return error
        except (ArchiveError, OSError) as error:
            return ArtifactError(f"artifact {ref.digest[:12]}: {error}")
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)  # gone already if all went well
        return None

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
    content = folder / _CONTENT
    if ref.format is ArtifactFormat.ZIP:
        content.mkdir()
        tree = unpack(str(blob), str(content))
        blob.unlink()
        tree = Tree(tree.folders, tuple(_stamped(file, content / file.path) for file in tree.files))
    else:
        # Modes do not travel with single files; what is found by name may be meant to be executed.
        blob.rename(content)
        tree = Tree((), (_stamped(TreeFile(_CONTENT, MODE_MASK, ref.size_bytes), content),))
    (folder / _MANIFEST).write_bytes(msgspec.msgpack.encode(tree))
    return tree


def _stamped(file: TreeFile, path: Path) -> TreeFile:
    return TreeFile(file.path, file.mode, file.size, path.stat().st_ctime_ns)


def _read_manifest(folder: Path) -> Tree | None:
    try:
        return msgspec.msgpack.decode((folder / _MANIFEST).read_bytes(), type=Tree)
    except (OSError, msgspec.DecodeError):
        return None


def copy_into(entry: Entry, ref: ArtifactRef, work: str) -> None:
    """Put a copy of the artifact into the folder `work`. May run in a thread.

    Raises EntryDamaged, OSError.
    """
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
    try:
        reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise EntryDamaged(str(error)) from error
    try:
        found = os.fstat(reading)
        if (found.st_size, found.st_ctime_ns) != (file.size, file.changed_ns):
            raise EntryDamaged(source)
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
            raise EntryDamaged(f"{left} bytes short")
        left -= copied
