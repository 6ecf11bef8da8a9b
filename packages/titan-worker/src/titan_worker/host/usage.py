"""How busy this host is: for heartbeats, and for people who look. Decides nothing.

What goes with a heartbeat is sampled by the engine, on its loop; the longer look, with the processes
of the attempts, by ``sampling``, in a thread.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

import psutil

from titan_proto.ids import AttemptRef
from titan_proto.limits import USAGE_ATTEMPTS
from titan_proto.messages import AttemptUsage, Usage
from titan_worker.host.census import take_census
from titan_worker.host.identity import ProcessIdentity

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Load(NamedTuple):
    """Load since the last sample, and memory now."""

    cpu_permille: int
    """Of all cores together: 1000 means that every one is busy."""
    memory_used_bytes: int
    memory_total_bytes: int


class UsageSampler:
    """Remembers the last sample, because CPU is only known between two."""

    def __init__(self) -> None:
        psutil.cpu_percent(interval=None)  # the first answer means nothing; it sets the mark

    def sample(self) -> Load:
        """The host's load since the call before."""
        permille = round(psutil.cpu_percent(interval=None) * 10)
        memory = psutil.virtual_memory()
        # What could be had at once counts as free: caches are not use.
        return Load(permille, memory.total - memory.available, memory.total)


class _Counters(NamedTuple):
    """What only grows, and when it was read."""

    at_s: float
    busy_s: float
    total_s: float
    received: int
    sent: int


class HostLooker:
    """Looks at the host and at trees of processes. In one thread; remembers the look before."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._before = _read_counters()
        self._cpu_s: dict[AttemptRef, float] = {}

    def look(self, roots: Mapping[AttemptRef, ProcessIdentity]) -> Usage:
        """The host now, and the trees below these processes."""
        before, now = self._before, _read_counters()
        self._before = now
        span_s = max(now.at_s - before.at_s, 0.001)
        cpu_s = now.total_s - before.total_s
        memory = psutil.virtual_memory()
        disk_used = disk_total = 0
        with contextlib.suppress(OSError):  # it has been unmounted, or taken away
            disk = psutil.disk_usage(self._folder)
            disk_used, disk_total = disk.used, disk.total
        return Usage(
            cpu_permille=round(1000 * (now.busy_s - before.busy_s) / cpu_s) if cpu_s > 0 else 0,
            load_milli=round(1000 * psutil.getloadavg()[0]),
            memory_used_bytes=memory.total - memory.available,
            memory_total_bytes=memory.total,
            disk_used_bytes=disk_used,
            disk_total_bytes=disk_total,
            # An interface that went took its count along.
            received_bytes_per_s=round(max(0, now.received - before.received) / span_s),
            sent_bytes_per_s=round(max(0, now.sent - before.sent) / span_s),
            attempts=self._trees(roots, span_s),
        )

    def _trees(
        self, roots: Mapping[AttemptRef, ProcessIdentity], span_s: float
    ) -> tuple[AttemptUsage, ...]:
        if not roots:  # most of the time, and then there is no need to look at every process
            self._cpu_s = {}
            return ()
        census = take_census()
        found = []
        cpu_s: dict[AttemptRef, float] = {}
        for ref, identity in roots.items():
            tree = census.tree(identity)
            if not tree:
                continue
            cpu_s[ref] = sum(stat.cpu_ticks for stat in tree) / _TICKS_PER_S
            used_s = max(0.0, cpu_s[ref] - self._cpu_s.get(ref, 0.0))
            found.append(
                AttemptUsage(
                    ref=ref,
                    cpu_milli=round(1000 * used_s / span_s),
                    memory_bytes=sum(stat.resident_pages for stat in tree) * _PAGE_BYTES,
                    processes=len(tree),
                )
            )
        self._cpu_s = cpu_s
        found.sort(key=lambda one: one.memory_bytes, reverse=True)
        return tuple(found[:USAGE_ATTEMPTS])


def _read_counters() -> _Counters:
    times = psutil.cpu_times()
    # Time of guests is part of user time already.
    total_s = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    idle_s = times.idle + getattr(times, "iowait", 0.0)
    networks = psutil.net_io_counters(pernic=True) or {}
    beside = [count for name, count in networks.items() if name != "lo"]
    return _Counters(
        time.monotonic(),
        total_s - idle_s,
        total_s,
        sum(count.bytes_recv for count in beside),
        sum(count.bytes_sent for count in beside),
    )
