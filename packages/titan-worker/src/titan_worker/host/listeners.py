"""Who listens on a port of this machine, in words for people.

Reads /proc, as far as it may: another user's processes cannot be looked into. Decides nothing. Called by
``launching`` when a service's port is taken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTEN: Final = "0A"
_SHOWN_CHARS: Final = 80


def who_listens(port: int) -> str:
    """The process that listens there: its number and its command; empty where that cannot be seen."""
    inodes = {f"socket:[{inode}]" for inode in _inodes(port)}
    if not inodes:
        return ""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _holds(process, inodes):
            return f"process {process.name}{_command(process)}"
    return "a process of another user"


def _inodes(port: int) -> set[str]:
    found = set()
    for table in _TABLES:
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:  # no IPv6 here
            continue
        for line in lines:
            fields = line.split()
            # sl, local address, remote address, state, queues, timer, retransmits, uid, timeout, inode
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found


def _holds(process: Path, inodes: set[str]) -> bool:
    try:
        return any(str(entry.readlink()) in inodes for entry in (process / "fd").iterdir())
    except OSError:  # gone meanwhile, or not ours to look into
        return False


def _command(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    text = " ".join(word.decode("utf-8", "replace") for word in words if word)
    shown = text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
    return f" ({shown})" if shown else ""
