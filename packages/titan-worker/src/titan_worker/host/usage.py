"""How busy this host is: for heartbeats and nothing else. Called by the worker's engine."""

from __future__ import annotations

from typing import NamedTuple

import psutil


class Usage(NamedTuple):
    """Load since the last sample, and memory now."""

    cpu_permille: int
    """Of all cores together: 1000 means that every one is busy."""
    memory_used_bytes: int
    memory_total_bytes: int


class UsageSampler:
    """Remembers the last sample, because CPU is only known between two."""

    def __init__(self) -> None:
        psutil.cpu_percent(interval=None)  # the first answer means nothing; it sets the mark

    def sample(self) -> Usage:
        """The host's load since the call before."""
        permille = round(psutil.cpu_percent(interval=None) * 10)
        memory = psutil.virtual_memory()
        # What could be had at once counts as free: caches are not use.
        return Usage(permille, memory.total - memory.available, memory.total)
