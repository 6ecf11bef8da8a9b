"""How busy this host is, from /proc: for heartbeats and nothing else.

Read directly: two small files every few seconds are not worth a library's megabytes.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

_READ_BYTES: Final = 4096
_IDLE: Final = (3, 4)
"""Columns of /proc/stat in which a core does nothing: idle, and waiting for disks."""


class Usage(NamedTuple):
    """Load since the last sample, and memory now."""

    cpu_permille: int
    memory_used_bytes: int
    memory_total_bytes: int


class UsageSampler:
    """Remembers the last sample, because CPU is only known between two."""

    def __init__(self, *, stat: str, meminfo: str) -> None:
        self._stat = stat
        self._meminfo = meminfo
        self._busy, self._total = _cpu_ticks(_head(stat))

    def sample(self) -> Usage:
        """The host's load since the call before."""
        busy, total = _cpu_ticks(_head(self._stat))
        spent = total - self._total
        permille = (busy - self._busy) * 1000 // spent if spent > 0 else 0
        self._busy, self._total = busy, total
        used, memory = _memory_bytes(_head(self._meminfo))
        return Usage(max(0, min(permille, 1000)), used, memory)


def _head(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _READ_BYTES)
    finally:
        os.close(fd)


def _cpu_ticks(text: bytes) -> tuple[int, int]:
    """(busy, all) ticks of all cores since boot, from the first line of /proc/stat."""
    # The first eight columns; what follows (guests) is contained in them already.
    ticks = [int(field) for field in text[: text.index(b"\n")].split()[1:9]]
    total = sum(ticks)
    return total - sum(ticks[column] for column in _IDLE), total


def _memory_bytes(text: bytes) -> tuple[int, int]:
    """(used, total) from /proc/meminfo."""
    kib = {}
    for line in text.splitlines():
        name, _, rest = line.partition(b":")
        if name in {b"MemTotal", b"MemAvailable"}:
            kib[name] = int(rest.split()[0])
    total = kib.get(b"MemTotal", 0)
    return (total - kib.get(b"MemAvailable", total)) * 1024, total * 1024
