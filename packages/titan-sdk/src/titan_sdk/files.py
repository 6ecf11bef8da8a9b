"""Files that have names at the master, seen from this side: read to be sent, written when they came.

Decides what may be sent under which name before anything is, and that a file that was fetched takes
its name only when it is whole and is what was asked for. Never talks to a master. Used by
`TitanClient`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from titan_proto.errors import Conflict, InvalidSpec, NotFound
from titan_proto.limits import ARTIFACT_BYTES
from titan_proto.messages import FileVersion, FileView
from titan_proto.validation import file_name_fault
from titan_sdk.keys import named, nearest
from titan_sdk.packaging import PackagingError

_PIECE_BYTES = 256 * 1024
_PREFIX_CHARS = 4
"""A version may be named by the beginning of its digest, which is at least so long."""


class Upload:
    """A file as it is read to be sent: its name, digest and size."""

    def __init__(self, path: Path, name: str) -> None:
        fault = file_name_fault(name)
        if fault:
            raise InvalidSpec(f'"{named(name)}" cannot be a file\'s name in perm_files: it {fault}')
        self._path = path
        self.name = name
        try:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                raise PackagingError(f"{path} is not a file; name the files in it one by one")
            if found.st_size > ARTIFACT_BYTES:
                raise PackagingError(
                    f"{path} is {found.st_size:,} bytes, more than ARTIFACT_BYTES ({ARTIFACT_BYTES:,})"
                )
            digest, self.size = hashlib.sha256(), 0
            for piece in self.chunks(0):
                digest.update(piece)
                self.size += len(piece)
        except OSError as error:
            raise PackagingError(f"{path} cannot be read: {error.strerror}") from error
        self.digest = digest.hexdigest()

    def chunks(self, offset: int) -> Iterator[bytes]:
        """The bytes from `offset` on, in pieces."""
        with self._path.open("rb") as file:
            file.seek(offset)
            while piece := file.read(_PIECE_BYTES):
                yield piece


def wanted(view: FileView, version: str) -> FileVersion:
    """The content of a name that is meant: its current one, or the one whose digest begins so.

    Raises:
        NotFound: there is none.
        Conflict: several begin so.
    """
    everything = [*([view.current] if view.current is not None else []), *view.versions]
    if not version:
        if view.current is not None:
            return view.current
        raise NotFound(
            f"{named(view.name)} is no file any more; what it was before is kept: "
            f"{_listed(everything)}. Name one with --version"
        )
    found = [one for one in everything if one.digest.startswith(version.lower())]
    if len(found) == 1 and len(version) >= _PREFIX_CHARS:
        return found[0]
    if found:
        raise Conflict(f'version "{named(version)}" of {named(view.name)} fits {_listed(found)}')
    raise NotFound(
        f'{named(view.name)} has no version "{named(version)}"; it has {_listed(everything)}'
    )


def unknown(name: str, known: Iterable[str]) -> NotFound:
    """Nothing is called so; perhaps this is meant."""
    meant = nearest(name, known)
    hint = f" Did you mean {named(meant)}?" if meant else " See what there is:  titan files"
    return NotFound(f'there is no file "{named(name)}" in the master\'s perm_files.{hint}')


def save(pieces: Iterable[bytes], target: Path, content: FileVersion, *, overwrite: bool) -> None:
    """Write what comes under a name of its own, check it, and give it its name.

    Raises:
        Conflict: `target` is there already; or what came is not what was asked for.
    """
    if not overwrite and os.path.lexists(target):
        raise Conflict(f"{target} is there already; choose another name, or overwrite it (--force)")
    draft = target.with_name(f".{target.name[:200]}.{os.getpid()}.part")
    digest = hashlib.sha256()
    try:
        with draft.open("wb") as file:
            for piece in pieces:
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != content.digest:
            raise Conflict(
                f"what came for {target} has digest {digest.hexdigest()[:12]}, not "
                f"{content.digest[:12]}: nothing was written; try again"
            )
        if overwrite:
            draft.replace(target)
        else:
            # A link, not a rename: what has come to lie there meanwhile is not overwritten.
            os.link(draft, target)
    except FileExistsError as error:
        raise Conflict(f"{target} has come to be there meanwhile") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()


def _listed(versions: Sequence[FileVersion]) -> str:
    return ", ".join(one.digest[:12] for one in versions) or "none"
