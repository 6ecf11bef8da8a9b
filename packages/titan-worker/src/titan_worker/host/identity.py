"""Which process is meant: (pid, start time, boot id), never a pid alone.

A pid is used again as soon as its owner has been waited for; the start time (in clock ticks since
boot) tells two owners apart, the boot id two boots. Reads /proc, signals nobody.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_NETWORK: Final = "/proc/self/ns/net"
_STAT_BYTES: Final = 4096


class ProcessIdentity(NamedTuple):
    """One process of this boot, for as long as the boot lasts."""

    pid: int
    start_ticks: int


class ProcessStat(NamedTuple):
    """What /proc says of a living or dead, not yet awaited process."""

    pid: int
    state: str
    """One letter; Z and X are dead."""
    parent: int
    group: int
    session: int
    start_ticks: int
    cpu_ticks: int
    """Its own, and that of its children that have been waited for."""
    resident_pages: int

    @property
    def is_alive(self) -> bool:
        """Whether it still executes anything."""
        return self.state not in "ZX"


def boot_id() -> str:
    """This boot's id."""
    return Path(_BOOT_ID).read_text(encoding="ascii").strip()


def network_id() -> str:
    """Of the network that this process and its children listen in; empty where the kernel tells none.

    Whoever has the same shares its ports. Containers of one machine have networks of their own, unless
    they were given the machine's; machines number theirs alike, so the boot belongs to it.
    """
    try:
        return f"{boot_id()} {Path(_NETWORK).readlink()}"
    except OSError:
        return ""


def read_stat(pid: int) -> ProcessStat | None:
    """What is known of `pid`; None when there is no such process."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        text = os.read(fd, _STAT_BYTES)
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)
    # The second field is the program's name in brackets and may hold anything, brackets too.
    fields = text[text.rindex(b")") + 2 :].split()
    return ProcessStat(
        pid=pid,
        state=fields[0].decode(),
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        start_ticks=int(fields[19]),
        cpu_ticks=int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14]),
        resident_pages=int(fields[21]),
    )


def is_running(identity: ProcessIdentity) -> bool:
    """Whether exactly this process still executes."""
    stat = read_stat(identity.pid)
    return stat is not None and stat.is_alive and stat.start_ticks == identity.start_ticks


def list_pids() -> list[int]:
    """Every process that /proc shows."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
