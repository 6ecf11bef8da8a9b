"""Which process is meant, for longer than its pid: the pid, and when that process started.

A pid is given out again; a pid with a start time (and the boot it counts from) is not. Used by
`titan up` and `titan down`, which must stop what they started and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

_PROC: Final = Path("/proc")
_DEAD: Final = frozenset("ZXx")


class ProcessIdentity(NamedTuple):
    """One process, for ever."""

    pid: int
    started: str


def identify(pid: int) -> ProcessIdentity | None:
    """The process that has this pid now; None if none has, or it has ended and waits to be read."""
    has_proc = (_PROC / "self" / "stat").exists()
    started = _linux_start(pid) if has_proc else _ps_start(pid)
    return None if started is None else ProcessIdentity(pid, started)


def is_alive(who: ProcessIdentity) -> bool:
    """Whether this very process still runs."""
    return identify(who.pid) == who


def send(who: ProcessIdentity, number: signal.Signals) -> bool:
    """Send a signal to this very process; False if it has gone."""
    if hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal"):
        # The descriptor holds on to one process: between the look and the signal the pid may be
        # given to another one, the descriptor may not.
        try:
            descriptor = os.pidfd_open(who.pid)
        except OSError:
            return False
        try:
            if not is_alive(who):
                return False
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)
        return True
    if not is_alive(who):
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(who.pid, number)
    return True


def children(who: ProcessIdentity) -> list[ProcessIdentity]:
    """The processes that this one has started and that run; Linux only, else nothing."""
    found: list[ProcessIdentity] = []
    for entry in _PROC.glob("[0-9]*"):
        fields = _stat(int(entry.name))
        if fields and fields[1] == str(who.pid):
            child = identify(int(entry.name))
            if child is not None:
                found.append(child)
    return found


def _linux_start(pid: int) -> str | None:
    fields = _stat(pid)
    if not fields or fields[0] in _DEAD:
        return None
    boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}/{fields[19]}"


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty if there is no such process."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    # The name before it stands in brackets and may hold anything, brackets too.
    return text.rpartition(")")[2].split()


def _ps_start(pid: int) -> str | None:
    done = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state, _, started = done.stdout.strip().partition(" ")
    return None if not state or state[0] in _DEAD else started.strip()
