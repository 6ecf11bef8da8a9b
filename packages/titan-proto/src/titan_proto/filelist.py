"""The list of files that an attempt left for others: how it is written.

It is an artifact like any other: workers write it and read each other's, the master reads which bytes it names.
Decides nothing about what may be in it. Called by a worker's ``leavings`` and the master's ``data``.
"""

from __future__ import annotations

from msgspec import Struct


class FileLeft(Struct, frozen=True, array_like=True):
    """One file of a list."""

    path: str
    """Inside the shared folder or the working folder, with forward slashes."""
    mode: int
    mtime_ns: int
    size: int
    digest: str
    data: bytes = b""
    """All of it, or nothing: then its bytes are stored under the digest."""

    @property
    def is_inline(self) -> bool:
        """Whether the list holds its bytes."""
        return len(self.data) == self.size


class FileList(Struct, frozen=True, array_like=True):
    """Everything that an attempt left."""

    shared: tuple[FileLeft, ...] = ()
    artifacts: tuple[FileLeft, ...] = ()
