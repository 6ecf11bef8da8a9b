"""How far a journal went, in a file beside it: one record, written over itself.

Not synced: it survives the process, and is a lower bound after a power cut. One that is not there, or
was torn by a power cut, says nothing: it is only a help. Written by ``sqlite.py`` after each commit,
read by whoever opens a journal.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path


def mark_path(database: Path) -> Path:
    """Where the mark of a database lies."""
    return database.with_name(database.name + ".mark")


class Mark:
    """The file, open from its first writing on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._written = 0

    def read(self) -> tuple[int, bytes] | None:
        """Place and chain of the last record that a master had seen written."""
        try:
            seq, chain, crc = self._path.read_bytes().split()
            if int(crc, 16) != zlib.crc32(seq + chain):
                return None
            return int(seq), bytes.fromhex(chain.decode("ascii"))
        except (FileNotFoundError, ValueError):
            return None

    def write(self, seq: int, chain: bytes) -> None:
        """Name the journal's last record."""
        if seq == self._written:
            return
        if self._descriptor < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o600)
        os.pwrite(self._descriptor, mark_line(seq, chain), 0)
        self._written = seq

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def mark_line(seq: int, chain: bytes) -> bytes:
    """What the file holds, always of one length."""
    place, link = b"%020d" % seq, chain.hex().encode("ascii")
    return b"%s %s %08x\n" % (place, link, zlib.crc32(place + link))
