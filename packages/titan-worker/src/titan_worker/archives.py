"""Unpacks archives that nobody trusts.

First every name and size in the archive's table is judged, before a byte is written; then the
members are written under a writer that counts, because a size in a header is only a claim. Only
plain files and folders come out, inside the given folder, with modes within 0755. Runs in a thread
of the artifact cache, once per digest.
"""

from __future__ import annotations

import os
import re
import stat
from typing import IO, TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct

from titan_proto.limits import ARCHIVE_ENTRIES, WORKSPACE_BYTES

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

# Thousands of small files: pathlib would cost more than the copying.
# ruff: noqa: PTH102, PTH123

TOTAL_BYTES: Final = 1024 * 1024 * 1024
FILE_BYTES: Final = 256 * 1024 * 1024
RATIO_MAX: Final = 200
"""Unpacked to packed, of an archive that is larger than the SDK makes any (WORKSPACE_BYTES). Below
that it may be packed as tightly as it likes: a file of zeros is data too, and what it can cost is
bounded by the sizes alone."""
PATH_BYTES: Final = 1024
DEPTH_MAX: Final = 32
MODE_MASK: Final = 0o755

_LOCAL_HEADER_BYTES: Final = 30
_ENCRYPTED: Final = 0x1
_METHODS: Final = (0, 8)
"""Stored and deflated."""
_DRIVE = re.compile(r"[A-Za-z]:")
_STEP_BYTES: Final = 1024 * 1024


class ArchiveError(Exception):
    """The archive is refused; the text says which member and why."""


class TreeFile(Struct, frozen=True, array_like=True):
    """One file of an unpacked artifact."""

    path: str
    mode: int
    size: int
    changed_ns: int = 0
    """When it was last touched in the cache: whatever was done to it since, this tells."""


class Tree(Struct, frozen=True, array_like=True):
    """What an artifact unpacks to. Folders come before what lies in them."""

    folders: tuple[str, ...]
    files: tuple[TreeFile, ...]

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(file.size for file in self.files)


class _Member(NamedTuple):
    info: ZipInfo
    path: str
    is_folder: bool
    mode: int


def path_problem(path: str) -> str:
    """Why `path` may not be used inside a workspace; empty if it may."""
    if not path:
        return "it is empty"
    if "\0" in path or "\\" in path:
        return "it contains a NUL or a backslash"
    if path.startswith("/") or _DRIVE.match(path):
        return "it is absolute"
    parts = path.split("/")
    if any(part in {"", ".", ".."} for part in parts):
        return "it has an empty, '.' or '..' part"
    if len(parts) > DEPTH_MAX:
        return f"it is nested deeper than {DEPTH_MAX} folders"
    if len(os.fsencode(path)) > PATH_BYTES:
        return f"it is longer than {PATH_BYTES} bytes"
    return ""


def unpack(archive: str, folder: str) -> Tree:
    """Unpack `archive` into the empty `folder`. Raises ArchiveError or OSError.

    After an error `folder` may hold a part: it is the caller's to remove.
    """
    import struct  # a worker that never sees an archive need not know how to read one
    import zipfile
    import zlib

    # zipfile has a word for damage of its own, and lets out what it stumbles over besides: names
    # that are no text, offsets before the file, sizes that no file can have.
    damage = (
        zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, LookupError,
        ArithmeticError, RuntimeError,
    )  # fmt: skip
    try:
        with zipfile.ZipFile(archive) as source:
            members = _judged(source)
            return _written(source, members, folder)
    except damage as error:
        raise ArchiveError(f"the archive is damaged: {error}") from error


def _judged(source: ZipFile) -> list[_Member]:
    """The members, if all of them are fit to be written."""
    infos = source.infolist()
    if len(infos) > ARCHIVE_ENTRIES:
        raise ArchiveError(
            f"the archive has {len(infos)} entries, ARCHIVE_ENTRIES is {ARCHIVE_ENTRIES}"
        )
    members = [_member(info) for info in infos]
    _refuse_same_names(members)
    _refuse_files_as_folders(members)
    _refuse_overlaps(members, source.start_dir)
    total = sum(info.file_size for info in infos)
    if total > TOTAL_BYTES:
        raise ArchiveError(f"the archive unpacks to {total} bytes, at most {TOTAL_BYTES} may be")
    packed = sum(info.compress_size for info in infos)
    if total > max(WORKSPACE_BYTES, packed * RATIO_MAX):
        raise ArchiveError(
            f"the archive unpacks to {total} bytes, more than {RATIO_MAX} times its packed size"
        )
    return members


def _member(info: ZipInfo) -> _Member:
    name = info.orig_filename  # zipfile cuts `filename` at a NUL
    is_folder = name.endswith("/")
    path = name[:-1] if is_folder else name
    problem = path_problem(path)
    if problem:
        raise ArchiveError(f"the name {name[:200]!r} is refused: {problem}")
    attributes = info.external_attr >> 16
    kind = stat.S_IFMT(attributes)
    if kind not in {0, stat.S_IFDIR if is_folder else stat.S_IFREG}:
        raise ArchiveError(f"{name!r} is neither a plain file nor a folder")
    if info.flag_bits & _ENCRYPTED:
        raise ArchiveError(f"{name!r} is encrypted")
    if info.compress_type not in _METHODS:
        raise ArchiveError(f"{name!r} is packed by a method that is not deflate")
    if info.file_size > FILE_BYTES:
        raise ArchiveError(
            f"{name!r} unpacks to {info.file_size} bytes, at most {FILE_BYTES} may be"
        )
    # An archive from a system without modes says 0.
    mode = (stat.S_IMODE(attributes) & MODE_MASK | 0o600) if attributes else 0o644
    return _Member(info, path, is_folder, mode)


def _refuse_same_names(members: list[_Member]) -> None:
    seen: dict[str, str] = {}
    for member in members:
        folded = member.path.casefold()
        if folded in seen:
            raise ArchiveError(f"{seen[folded]!r} and {member.path!r} are the same name")
        seen[folded] = member.path


def _refuse_files_as_folders(members: list[_Member]) -> None:
    files = {member.path for member in members if not member.is_folder}
    for member in members:
        for parent in _parents(member.path):
            if parent in files:
                raise ArchiveError(f"{parent!r} is a file and the folder of {member.path!r}")


def _refuse_overlaps(members: list[_Member], table_start: int) -> None:
    """Two members that share packed bytes are how small archives become endless ones."""
    spans = sorted(
        (
            member.info.header_offset,
            member.info.header_offset
            + _LOCAL_HEADER_BYTES
            + len(member.info.orig_filename.encode(errors="surrogateescape"))
            + member.info.compress_size,
        )
        for member in members
    )
    starts = [start for start, _ in spans[1:]] + [table_start]
    for (_, end), following in zip(spans, starts, strict=True):
        if end > following:
            raise ArchiveError("members of the archive overlap")


def _parents(path: str) -> list[str]:
    """The folders above `path`, outermost first."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _written(source: ZipFile, members: list[_Member], folder: str) -> Tree:
    folders: dict[str, None] = {}
    for member in members:
        folders.update(dict.fromkeys(_parents(member.path)))
        if member.is_folder:
            folders[member.path] = None
    # Shorter paths first: a folder's name is longer than that of the one around it.
    ordered = tuple(sorted(folders, key=lambda path: (path.count("/"), path)))
    for path in ordered:
        os.mkdir(f"{folder}/{path}", 0o755)
    files = []
    for member in members:
        if member.is_folder:
            continue
        with source.open(member.info) as packed:
            size = _write_file(packed, f"{folder}/{member.path}", member)
        files.append(TreeFile(member.path, member.mode, size))
    return Tree(ordered, tuple(files))


def _write_file(packed: IO[bytes], target: str, member: _Member) -> int:
    """Write one member; never a byte more than its header claims."""
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, member.mode)
    written = 0
    with open(fd, "wb") as file:
        while piece := packed.read(_STEP_BYTES):
            written += len(piece)
            if written > member.info.file_size:
                raise ArchiveError(f"{member.path!r} is larger than its header claims")
            file.write(piece)
    if written != member.info.file_size:
        raise ArchiveError(f"{member.path!r} is smaller than its header claims")
    return written
