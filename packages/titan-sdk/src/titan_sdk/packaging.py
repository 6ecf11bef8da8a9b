"""A script or a folder → one zip that is the same bytes wherever and whenever it is made.

Decides what is packed, in which order and with which modes, and refuses what is too much before
anything is sent. Never talks to a master; the client offers what comes out of here by its digest.

The same content gives the same digest: names sorted, one fixed time, two modes, no owner. Large
content goes through a temporary file without a name, never through memory.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Final, NamedTuple, final

from titan_proto.errors import TitanError
from titan_proto.limits import ARCHIVE_ENTRIES, WORKSPACE_BYTES
from titan_proto.specs import ArtifactFormat, ArtifactRef
from titan_proto.validation import is_inside
from titan_sdk import ignores
from titan_sdk.scripts import INTERPRETED

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest time a zip can hold."""
_LEVEL: Final = 1
"""Fast: most of what is packed is small text that is sent once."""
_IN_MEMORY_BYTES: Final = 4 * 1024 * 1024
_PIECE_BYTES: Final = 256 * 1024
_LARGEST_SHOWN: Final = 10
_WALK_MAX: Final = 20 * ARCHIVE_ENTRIES
"""A folder with more than this in it is a home directory packed by mistake."""


class PackagingError(TitanError):
    """Files that cannot be packed: which, why, and what to do."""


class Entry(NamedTuple):
    """One file of an archive."""

    name: str
    """Inside the archive, with forward slashes."""
    path: Path
    size: int
    executable: bool


@final
class Package:
    """Packed bytes with their digest, to be read from any offset. Close it when sent."""

    def __init__(self, body: IO[bytes], digest: str, size: int) -> None:
        self._body = body
        self.digest = digest
        self.size = size

    @property
    def ref(self) -> ArtifactRef:
        """How a spec names these bytes."""
        return ArtifactRef(digest=self.digest, size_bytes=self.size, format=ArtifactFormat.ZIP)

    def chunks(self, offset: int) -> Iterator[bytes]:
        """The bytes from `offset` on, in pieces."""
        self._body.seek(offset)
        while piece := self._body.read(_PIECE_BYTES):
            yield piece

    def close(self) -> None:
        """Give the memory, or the temporary file, back."""
        self._body.close()

    def __enter__(self) -> Package:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def pack_script(path: Path, name: str) -> Package:
    """A script alone, as `name` in its archive.

    Raises:
        PackagingError: it cannot be read, or is larger than a workspace may be.
    """
    entry = _entry(path, name, executable=name.endswith(INTERPRETED))
    if entry is None:
        raise PackagingError(f"{path} is not a file that can be packed")
    refuse_excess([entry], str(path))
    return _zip([entry])


def pack_folder(
    root: Path,
    *,
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    scripts: tuple[str, ...] = (),
) -> Package:
    """A project folder, less what it ignores.

    Args:
        root: the folder; a job starts in its copy.
        include: patterns; given, they alone say what is packed and no ignore file is read.
        exclude: patterns of what is left out all the same.
        scripts: files that are packed in any case.

    Raises:
        PackagingError: something cannot be read, or it is too much.
    """
    entries = select(root, include=include, exclude=exclude, scripts=scripts)
    refuse_excess(entries, str(root))
    return _zip(entries)


def select(
    root: Path,
    *,
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    scripts: tuple[str, ...] = (),
) -> list[Entry]:
    """The files that `pack_folder` would pack, by name."""
    found: dict[str, Entry] = {}
    for name in scripts:
        entry = _entry(root / name, _slashed(name), executable=name.endswith(INTERPRETED))
        if entry is not None:
            found[entry.name] = entry
    wanted, left_out = ignores.globs(include), ignores.globs(exclude)
    for name, path in _walk(root, left_out, use_ignore_files=not include):
        if name in found or (wanted and not _is_included(name, wanted)):
            continue
        entry = _entry(path, name, executable=False)
        if entry is not None:
            found[name] = entry
    return [found[name] for name in sorted(found)]


def largest(entries: list[Entry]) -> str:
    """The heaviest entries, one a line; folders of the first level stand for what is in them."""
    weights: dict[str, int] = {}
    for entry in entries:
        weights[entry.name] = weights.get(entry.name, 0) + entry.size
        top, slash, _ = entry.name.partition("/")
        if slash:
            weights[top + "/"] = weights.get(top + "/", 0) + entry.size
    heaviest = sorted(weights.items(), key=lambda item: (-item[1], item[0]))[:_LARGEST_SHOWN]
    return "\n".join(f"  {_mebibytes(size):>12}  {name}" for name, size in heaviest)


def _walk(
    root: Path, left_out: list[ignores.Rule], *, use_ignore_files: bool
) -> Iterator[tuple[str, Path]]:
    """Every file that is not ignored, name first.

    Ignored folders are not entered, nor those behind a link: such a walk may never end. A link to
    a file counts as the file.
    """
    never = ignores.rules("\n".join(ignores.NEVER))
    pending: list[tuple[str, list[ignores.Rule]]] = [("", never)]
    seen = 0
    while pending:
        base, rules = pending.pop()
        folder = root / base
        if use_ignore_files:
            rules = rules + _ignore_rules(folder, base)
        for item in _scan(folder):
            seen += 1
            if seen > _WALK_MAX:
                raise PackagingError(
                    f"{root} has more than {_WALK_MAX:,} files in it: that is hardly one pipeline's "
                    f"folder. Put the pipeline into a folder of its own, or say what it needs with "
                    f"workspace: {{include: [...]}}"
                )
            name = f"{base}/{item.name}" if base else item.name
            is_folder = item.is_dir(follow_symlinks=False)
            if ignores.is_ignored(name, rules, is_folder=is_folder) or ignores.is_ignored(
                name, left_out, is_folder=is_folder
            ):
                continue
            if not is_folder:
                yield name, Path(item.path)
            elif not Path(item.path, "pyvenv.cfg").exists():  # an environment under any name
                pending.append((name, rules))


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            return sorted(items, key=lambda item: item.name)
    except OSError as error:
        raise PackagingError(
            f"{folder} cannot be read ({error.strerror}); leave it out with .titanignore"
        ) from error


def _ignore_rules(folder: Path, base: str) -> list[ignores.Rule]:
    rules: list[ignores.Rule] = []
    for name in ignores.FILES:
        try:
            text = (folder / name).read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            continue
        except OSError as error:
            raise PackagingError(f"{folder / name} cannot be read: {error.strerror}") from error
        rules += ignores.rules(text, base)
    return rules


def _is_included(name: str, wanted: list[ignores.Rule]) -> bool:
    """Whether a pattern means the file, or a folder above it."""
    if ignores.is_ignored(name, wanted, is_folder=False):
        return True
    parts = name.split("/")[:-1]
    above = ("/".join(parts[: count + 1]) for count in range(len(parts)))
    return any(ignores.is_ignored(folder, wanted, is_folder=True) for folder in above)


def _entry(path: Path, name: str, *, executable: bool) -> Entry | None:
    """The file as an entry; None for what is no file (a socket, a link that leads nowhere).

    `executable`: it may be executed whatever its mode, as a script that something interprets.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise PackagingError(f"{path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        return None
    if not is_inside(name) or not _is_unicode(name):
        raise PackagingError(f"{name!r} cannot be the name of a file in an archive; rename it")
    if not os.access(path, os.R_OK):
        raise PackagingError(f"{path} cannot be read: permission denied")
    return Entry(name, path, found.st_size, executable or bool(found.st_mode & 0o111))


def refuse_excess(entries: list[Entry], what: str) -> None:
    """Refuse what is more than a run may carry, with the largest of it."""
    total = sum(entry.size for entry in entries)
    if total > WORKSPACE_BYTES:
        raise PackagingError(
            f"{what} is {_mebibytes(total)}, more than the {_mebibytes(WORKSPACE_BYTES)} that a run "
            f"may carry. The largest:\n{largest(entries)}\n"
            "Leave out what the jobs do not need with .titanignore, or name what they need with "
            "workspace: {include: [...]}"
        )
    if len(entries) > ARCHIVE_ENTRIES:
        raise PackagingError(
            f"{what} has {len(entries):,} files, more than the {ARCHIVE_ENTRIES:,} that a run may "
            "carry. Leave out what the jobs do not need with .titanignore, or name what they need "
            "with workspace: {include: [...]}"
        )


def _zip(entries: list[Entry]) -> Package:
    total = sum(entry.size for entry in entries)
    # The caller closes it with the package; a file without a name leaves nothing behind.
    body: IO[bytes] = io.BytesIO() if total <= _IN_MEMORY_BYTES else tempfile.TemporaryFile()  # noqa: SIM115
    with contextlib.ExitStack() as undo:
        undo.callback(body.close)
        with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
            for entry in entries:
                _add(archive, entry)
        size = body.seek(0, os.SEEK_END)
        body.seek(0)
        digest = hashlib.sha256()
        while piece := body.read(_PIECE_BYTES):
            digest.update(piece)
        undo.pop_all()
    return Package(body, digest.hexdigest(), size)


def _add(archive: zipfile.ZipFile, entry: Entry) -> None:
    info = zipfile.ZipInfo(entry.name, _EPOCH)
    info.create_system = 3  # unix: the modes below count
    mode = 0o755 if entry.executable else 0o644
    info.external_attr = (stat.S_IFREG | mode) << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    info.file_size = entry.size
    # The archive's level is not used for a ZipInfo of one's own, and there is no public way to say it.
    info._compresslevel = _LEVEL  # type: ignore[attr-defined]  # noqa: SLF001
    try:
        with entry.path.open("rb") as source, archive.open(info, "w") as target:
            while piece := source.read(_PIECE_BYTES):
                target.write(piece)
    except OSError as error:
        raise PackagingError(f"{entry.path} cannot be read: {error.strerror}") from error


def _is_unicode(name: str) -> bool:
    """Whether the file system's bytes were text, as an archive needs."""
    return not any("\ud800" <= char <= "\udfff" for char in name)


def _slashed(name: str) -> str:
    return name.replace(os.sep, "/")


def _mebibytes(size: int) -> str:
    return f"{size / 1024 / 1024:,.1f} MiB"
