"""What of a run's shared folder came from where: lists that were written here, and lists brought here.

    titan_workspace/shared/.layers/<run>/new.<digest>       a list of what an attempt left here
    titan_workspace/shared/.layers/<run>/<index>.<digest>   one whose files are in the shared folder

A mark is the list itself. Its files are put in place one by one, each whole or not at all, and the mark
after them: what was interrupted is done again. Workers on other ports may use the same folder: marks are
made under a lock, and what one of them has brought none brings again. Of two layers that hold one path the
later counts, in whichever order they come here. Runs in threads; called by ``carrying``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from typing import Final, NamedTuple, Self

from msgspec.structs import replace

from titan_proto.filelist import FileLeft, FileList
from titan_proto.ids import is_digest
from titan_proto.messages.worker import Layer
from titan_worker.leavings import MODE, Found, decode, encode

# Works with descriptors of folders, which pathlib does not know.
# ruff: noqa: PTH101, PTH103, PTH104, PTH108, PTH110, PTH123

FOLDER: Final = ".layers"
_NEW: Final = "new"
_LOCK: Final = "lock"
_TEMPORARY: Final = "tmp-"
_RUNS_REMEMBERED: Final = 64
_RACY_NS: Final = 20_000_000
"""A file system's clock may stand still for so long: what was touched within it may look untouched."""
_SHARED_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class CannotPlace(Exception):
    """A file cannot be put where it belongs; the text is for people."""


class Mark(NamedTuple):
    """A list whose files are here."""

    place: int
    """0: it was written here, and its place is not known yet."""
    files: FileList
    noted_ns: int


class Layers:
    """The marks of every run of one workspace."""

    def __init__(self, shared: str) -> None:
        self._shared = shared
        self._read: dict[str, dict[str, FileList]] = {}
        """By run and digest: lists that were read before."""
        self._made = 0

    def marks(self, run_id: str) -> dict[str, Mark]:
        """By digest: what is here of a run."""
        folder = self._folder(run_id)
        known = self._read.setdefault(run_id, {})
        if len(self._read) > _RUNS_REMEMBERED:
            del self._read[next(iter(self._read))]
        found: dict[str, Mark] = {}
        try:
            entries = list(os.scandir(folder))
        except FileNotFoundError:
            return found
        for entry in entries:
            place, _, digest = entry.name.partition(".")
            if not is_digest(digest) or not (place == _NEW or place.isdecimal()):
                continue
            with contextlib.suppress(FileNotFoundError):  # renamed meanwhile, by another worker
                if digest not in known:
                    with open(entry.path, "rb") as file:
                        known[digest] = decode(file.read())
                number = 0 if place == _NEW else int(place)
                found[digest] = Mark(number, known[digest], entry.stat().st_mtime_ns)
        return found

    def forget(self, run_id: str) -> None:
        """Nothing of it is wanted here any more."""
        self._read.pop(run_id, None)
        shutil.rmtree(self._folder(run_id), ignore_errors=True)

    def note(self, run_id: str, digest: str, files: FileList) -> None:
        """An attempt has left these files here, by a list that is stored under the digest."""
        with self._locked(run_id) as folder:
            if digest not in self.marks(run_id):
                self._write(folder, f"{_NEW}.{digest}", files)

    # -- bringing -------------------------------------------------------------------------------
    def wanted(self, run_id: str, layers: list[Layer]) -> list[Layer]:
        """Those of the layers whose files must be brought here; the others are given their place."""
        with self._locked(run_id) as folder:
            marks = self.marks(run_id)
            wanted = []
            for layer in layers:
                mark = marks.get(layer.left.digest)
                if mark is None:
                    wanted.append(layer)
                elif not mark.place:
                    if self._is_covered(run_id, layer.index, mark, marks):
                        wanted.append(layer)
                        continue
                    name = f"{layer.index}.{layer.left.digest}"
                    os.rename(f"{folder}/{_NEW}.{layer.left.digest}", f"{folder}/{name}")
            return wanted

    def _is_covered(self, run_id: str, index: int, mark: Mark, marks: dict[str, Mark]) -> bool:
        """Whether a layer that counts less was put over files of this one since it was written."""
        own = {file.path: file for file in mark.files.shared}
        for other in marks.values():
            if not 0 < other.place < index:
                continue
            for file in other.files.shared:
                mine = own.get(file.path)
                if mine is not None and not _same(mine, file) and self._has(run_id, file):
                    return True
        return False

    def lacking(self, run_id: str, layer: Layer, files: FileList) -> list[FileLeft]:
        """What of a layer's files is not in the shared folder, and is of no later layer either."""
        later = {
            file.path
            for mark in self.marks(run_id).values()
            if mark.place > layer.index
            for file in mark.files.shared
        }
        return [
            file for file in files.shared if file.path not in later and not self._has(run_id, file)
        ]

    def place(self, run_id: str, layer: Layer, files: FileList, blobs: str) -> None:
        """Put a layer's files in place, and its mark. Raises CannotPlace, OSError.

        Args:
            run_id: whose.
            layer: which.
            files: what its list says.
            blobs: a folder with the bytes of those that the list does not hold, by digest.
        """
        with self._locked(run_id) as folder:
            name = f"{layer.index}.{layer.left.digest}"
            if os.path.exists(f"{folder}/{name}"):
                return  # another worker of this folder was faster, and its jobs may work with them
            with Placing(f"{self._shared}/{run_id}", folder, self._next()) as placing:
                for file in self.lacking(run_id, layer, files):
                    placing.put(file, blobs)
            self._write(folder, name, files)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{folder}/{_NEW}.{layer.left.digest}")

    def temporary(self, run_id: str) -> str:
        """A new folder beside the marks; whoever asked removes it."""
        folder = f"{self._folder(run_id)}/{self._next()}"
        os.makedirs(folder)
        return folder

    def _has(self, run_id: str, file: FileLeft) -> bool:
        try:
            found = os.lstat(f"{self._shared}/{run_id}/{file.path}")
        except OSError:
            return False
        return (found.st_size, found.st_mtime_ns) == (file.size, file.mtime_ns)

    def _folder(self, run_id: str) -> str:
        return f"{self._shared}/{FOLDER}/{run_id}"

    def _next(self) -> str:
        self._made += 1
        return f"{_TEMPORARY}{os.getpid()}-{self._made}"

    def _write(self, folder: str, name: str, files: FileList) -> None:
        temporary = f"{folder}/{self._next()}"
        with open(temporary, "wb") as file:
            # The bytes of small files are in the shared folder by now.
            file.write(
                encode(FileList(shared=tuple(replace(one, data=b"") for one in files.shared)))
            )
        os.rename(temporary, f"{folder}/{name}")

    @contextlib.contextmanager
    def _locked(self, run_id: str) -> Iterator[str]:
        """The run's folder of marks, to which no other worker of this workspace writes meanwhile."""
        folder = self._folder(run_id)
        os.makedirs(folder, exist_ok=True)
        fd = os.open(f"{folder}/{_LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # No deadline: whoever has it copies a bounded number of bytes, and lets go when it dies.
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield folder
        finally:
            os.close(fd)


class Known:
    """The files that lists know, as they were when they were listed."""

    def __init__(self, marks: dict[str, Mark]) -> None:
        self._noted: dict[tuple[str, int, int], tuple[int, str]] = {}
        for mark in marks.values():
            for file in mark.files.shared:
                key = (file.path, file.size, file.mtime_ns)
                noted = (mark.noted_ns, file.digest)
                self._noted[key] = max(noted, self._noted.get(key, noted))

    def is_untouched(self, found: Found) -> bool:
        """Whether this file is as a list has it, for certain, without a look at its bytes."""
        noted = self._noted.get((found.path, found.size, found.mtime_ns))
        return noted is not None and noted[0] - found.mtime_ns > _RACY_NS

    def is_same(self, file: FileLeft) -> bool:
        """Whether it is as a list has it, by its bytes."""
        noted = self._noted.get((file.path, file.size, file.mtime_ns))
        return noted is not None and noted[1] == file.digest


def _same(one: FileLeft, other: FileLeft) -> bool:
    return (one.size, one.mtime_ns, one.digest) == (other.size, other.mtime_ns, other.digest)


class Placing:
    """Puts files under a folder that jobs write to: never through a link, never half a file."""

    def __init__(self, target: str, beside: str, name: str) -> None:
        """`beside`: a folder of the same file system, for a file `name` while it is written."""
        self._target = target
        self._temporary = f"{beside}/{name}"
        self._folders: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._folders.values():
            os.close(fd)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._temporary)

    def put(self, file: FileLeft, blobs: str) -> None:
        """Put one file in place of whatever stands there. Raises CannotPlace, OSError."""
        source = f"{blobs}/{file.digest}"
        if file.is_inline:
            source = self._temporary
            with open(source, "wb") as made:
                made.write(file.data)
        # Two files of one content have one blob: it is moved away for the last of them only.
        elif not os.path.exists(source):
            raise CannotPlace(f"the bytes of {file.path!r} are not here")
        else:
            shutil.copyfile(source, self._temporary)
            source = self._temporary
        os.chmod(source, file.mode & MODE)
        os.utime(source, ns=(file.mtime_ns, file.mtime_ns))
        inside, _, name = file.path.rpartition("/")
        try:
            os.rename(source, name, dst_dir_fd=self._folder(inside))
        except OSError as error:
            raise CannotPlace(
                f"{file.path!r} cannot be put there: {error.strerror}; what stands in its place was "
                "made by another job"
            ) from error

    def _folder(self, inside: str) -> int:
        """A descriptor of the folder at `inside`, made if it is not there."""
        fd = self._folders.get(inside)
        if fd is not None:
            return fd
        if not inside:
            os.makedirs(self._target, exist_ok=True)
            fd = os.open(self._target, _SHARED_FOLDER)
        else:
            above, _, name = inside.rpartition("/")
            parent = self._folder(above)
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=parent)
            fd = os.open(name, _SHARED_FOLDER, dir_fd=parent)
        if len(self._folders) >= 256:
            # The folders above this one are opened again where they are needed.
            for old in self._folders.values():
                os.close(old)
            self._folders.clear()
        self._folders[inside] = fd
        return fd
