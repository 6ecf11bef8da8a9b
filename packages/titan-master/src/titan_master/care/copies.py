"""A data folder → a backup, and back.

A backup is a folder that stands for itself: the database as it was at one moment, verified, with every
artifact that it names, and a note of what is in it, written last, so that one without the note is none.
Both ways everything is put into a folder beside the target first, which takes the target's name only
when it is whole. The source is never written to; the master may be running. Called by ``cli.py``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from titan_master.config import DATABASE
from titan_master.core.state import digest
from titan_master.store.base import StoreError, exit_code_of
from titan_master.store.mark import mark_path
from titan_master.store.salvage import copy_database, fsync_folder, go_on_from_afar
from titan_proto.errors import TitanError

NOTE: Final = "backup.json"
BACKUP_FORMAT: Final = 1
_COPY_BYTES: Final = 1024 * 1024
_PLAIN_FOLDERS: Final = ("perm_files", "logs")


class CopyFailed(TitanError):
    """No copy was made; `code` is the process's exit code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class BackupNote(Struct, frozen=True, kw_only=True):
    """What a backup says of itself."""

    format: int = BACKUP_FORMAT
    software: str
    made_at_ms: int
    cluster_id: str
    cluster_name: str
    term: int
    last_seq: int
    state_digest: str
    database_sha256: str
    artifacts: int
    files: int
    """All that were copied, the database among them."""
    bytes: int
    with_logs: bool
    with_token: bool


class _Copier:
    """Copies files durably and counts them."""

    def __init__(self) -> None:
        self.files = 0
        self.bytes = 0

    def file(self, source: Path, target: Path, mode: int = 0o600) -> str:
        """Copy one file; its SHA-256."""
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = hashlib.sha256()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with source.open("rb") as reading, os.fdopen(os.open(target, flags, mode), "wb") as writing:
            while chunk := reading.read(_COPY_BYTES):
                found.update(chunk)
                if chunk.count(0) == len(chunk):
                    # A hole, as long logs have them: the copy takes no more room than they do.
                    writing.seek(len(chunk), os.SEEK_CUR)
                else:
                    writing.write(chunk)
                self.bytes += len(chunk)
            writing.truncate()
            writing.flush()
            os.fsync(writing.fileno())
        self.files += 1
        return found.hexdigest()

    def artifacts(self, source: Path, target: Path) -> int:
        """Copy all whole artifacts, each compared with its name; how many."""
        count = 0
        for path in _files(source):
            if path.parent.name != path.name[:2]:
                continue  # on its way in: not under its own name yet
            try:
                found = self.file(path, target / path.relative_to(source))
            except FileNotFoundError:
                continue  # nobody has wanted it for long, and it was swept since it was listed
            if found != path.name:
                raise CopyFailed(
                    os.EX_DATAERR, f"the artifact {path} is damaged: it is not its name"
                )
            count += 1
        return count

    def folder(self, source: Path, target: Path) -> None:
        """Copy all files of a folder, as they are at that moment."""
        for path in _files(source):
            # One that has been renamed or removed since it was listed is no part of the backup.
            with contextlib.suppress(FileNotFoundError):
                self.file(path, target / path.relative_to(source), path.stat().st_mode & 0o777)


def _files(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(root) / name
            if path.is_file() and not path.is_symlink():
                yield path


def back_up(
    data: Path, target: Path, *, with_logs: bool, with_token: bool, software: str, now_ms: int
) -> BackupNote:
    """Copy a data folder, whether its master runs or not. Raises CopyFailed."""
    if not (data / DATABASE).is_file():
        raise CopyFailed(os.EX_NOINPUT, f"{data} is no master's data folder: it has no {DATABASE}")
    draft = _draft_of(target)
    copier = _Copier()
    try:
        # First the database: whatever it names was there before it was named.
        found = copy_database(data / DATABASE, draft / DATABASE)
        with (draft / DATABASE).open("rb") as file:
            database_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        copier.files += 2
        copier.bytes += (draft / DATABASE).stat().st_size + mark_path(
            draft / DATABASE
        ).stat().st_size
        artifacts = copier.artifacts(data / "artifacts", draft / "artifacts")
        for name in _PLAIN_FOLDERS:
            if name != "logs" or with_logs:
                copier.folder(data / name, draft / name)
        if with_token:
            copier.file(data / "token", draft / "token")
        state = found.folded.state
        note = BackupNote(
            software=software,
            made_at_ms=now_ms,
            cluster_id=state.cluster_id,
            cluster_name=state.cluster_name,
            term=found.term,
            last_seq=found.folded.shadow.seq,
            state_digest=digest(state),
            database_sha256=database_sha256,
            artifacts=artifacts,
            files=copier.files,
            bytes=copier.bytes,
            with_logs=with_logs,
            with_token=with_token,
        )
        _write(draft / NOTE, msgspec.json.format(msgspec.json.encode(note), indent=2) + b"\n")
        _take_name(draft, target)
    except StoreError as error:
        raise CopyFailed(exit_code_of(error), str(error)) from error
    except OSError as error:
        raise _failed(error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return note


def restore(backup: Path, data: Path) -> BackupNote:
    """Make a new data folder from a backup. Raises CopyFailed."""
    note = read_note(backup)
    draft = _draft_of(data)
    copier = _Copier()
    try:
        if copier.file(backup / DATABASE, draft / DATABASE) != note.database_sha256:
            raise CopyFailed(
                os.EX_DATAERR, f"{backup / DATABASE} is not the file that was backed up"
            )
        # Numbers that were given after the backup was made must not be given again.
        go_on_from_afar(draft / DATABASE)
        copier.file(mark_path(backup / DATABASE), mark_path(draft / DATABASE))
        copier.artifacts(backup / "artifacts", draft / "artifacts")
        for name in _PLAIN_FOLDERS:
            copier.folder(backup / name, draft / name)
        if (backup / "token").is_file():
            copier.file(backup / "token", draft / "token")
        _take_name(draft, data)
    except StoreError as error:
        raise CopyFailed(exit_code_of(error), str(error)) from error
    except OSError as error:
        raise _failed(error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return note


def read_note(backup: Path) -> BackupNote:
    """What a backup says of itself. Raises CopyFailed where it is none, or not finished."""
    try:
        note = msgspec.json.decode((backup / NOTE).read_bytes(), type=BackupNote)
    except FileNotFoundError as error:
        message = f"{backup} is no finished backup: it has no {NOTE}"
        raise CopyFailed(os.EX_NOINPUT, message) from error
    except msgspec.DecodeError as error:
        raise CopyFailed(os.EX_DATAERR, f"{backup / NOTE} cannot be read: {error}") from error
    except OSError as error:
        raise _failed(error) from error
    if note.format > BACKUP_FORMAT:
        message = (
            f"{backup} was made by {note.software}: restore it with that version or a later one"
        )
        raise CopyFailed(os.EX_CONFIG, message)
    return note


def _draft_of(target: Path) -> Path:
    """A folder beside the target, for what is not whole yet; the target is free or empty."""
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            message = f"{target} is there and not empty: name a folder that is not there yet"
            raise CopyFailed(os.EX_CANTCREAT, message)
        draft = target.with_name(f"{target.name}.{os.getpid()}.partial")
        draft.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise _failed(error) from error
    return draft


def _take_name(draft: Path, target: Path) -> None:
    for root, _, _ in os.walk(draft):
        fsync_folder(Path(root))
    draft.rename(target)
    fsync_folder(target.parent)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _failed(error: OSError) -> CopyFailed:
    where = f"{error.filename}: " if error.filename else ""
    return CopyFailed(os.EX_IOERR, f"{where}{error.strerror or error}")
