"""How far a ledger had come, beside it: a ledger that has lost its end looks like a shorter one.

SQLite takes a write-ahead file that is damaged in the middle for one that ends there, and says
nothing. What was lost so was taken and perhaps executed, and would seem never to have been. So what
the rows must come to is noted in a small file before each commit. It is synced no more than the
ledger is, and means nothing after the machine has gone down. Called by ``ledger`` alone.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Final, NamedTuple

_FIELDS: Final = struct.Struct(">36sQIIQIII")
"""The boot, two sums, and a checksum of it all."""


class Sum(NamedTuple):
    """What a ledger's content comes to; cheap to carry on from row to row."""

    rows: int
    seals: int
    """All rows' checksums, combined: the order does not matter."""
    identity: int


class Mark:
    """The mark of one ledger, open."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def expected(self, boot_id: str) -> tuple[Sum, ...]:
        """What the ledger may come to, if this was noted since the machine was started; or nothing.

        Two sums: the process may have died before the commit that it had announced, or after it.
        """
        noted = os.pread(self._fd, _FIELDS.size, 0)
        if len(noted) < _FIELDS.size or zlib.crc32(noted[:-4]) != int.from_bytes(noted[-4:]):
            return ()
        boot, *numbers, _crc = _FIELDS.unpack(noted)
        if boot.rstrip(b"\0") != boot_id.encode():
            return ()
        return Sum(*numbers[:3]), Sum(*numbers[3:])

    def note(self, boot_id: str, before: Sum, after: Sum) -> None:
        """The ledger comes to `before`; the commit that follows brings it to `after`."""
        noted = _FIELDS.pack(boot_id.encode(), *before, *after, 0)[:-4]
        os.pwrite(self._fd, noted + zlib.crc32(noted).to_bytes(4), 0)

    def close(self) -> None:
        """Let go of the file; again is no trouble."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
