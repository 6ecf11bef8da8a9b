"""Our end of the channel to an exclusive attempt's guard, which is ``stub.py`` in a process of its own.

Says what the guard is to do, hears what became of its job. Never waits for it. Called by the process
host.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final

from titan_worker.host.base import Exit, GuardTimes, LaunchPlan
from titan_worker.host.forking import Hold

_STUB: Final = str(Path(__file__).with_name("stub.py"))
_ITS_FD: Final = 3
_MESSAGE_BYTES: Final = 256


class Guard:
    """One guard, from before it is started until its end is known. Raises OSError when made."""

    def __init__(self) -> None:
        self._ours, self._its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        self._has_begun = False
        self._last_words: list[str] = []

    # -- starting it ----------------------------------------------------------------------------
    @property
    def handed(self) -> tuple[int, int]:
        """The descriptor that it is to be given, and under which number."""
        return self._its.fileno(), _ITS_FD

    def argv(self, plan: LaunchPlan, times: GuardTimes, hold: Hold) -> tuple[str, ...]:
        """How it is started, to start what is planned."""
        return (
            sys.executable,
            "-I",
            "-S",
            _STUB,
            str(_ITS_FD),
            repr(times.term_at_s),
            repr(times.kill_at_s),
            "\n".join((f"{hold.born_in}/cgroup.procs",) * bool(hold.born_in) + hold.joins),
            " ".join(f"{which} {value}" for which, value in hold.rlimits),
            plan.program,
            *plan.argv,
        )

    def started(self) -> None:
        """It has its end of the channel; were it ours too, its own end would not be noticed."""
        self._its.close()

    def fileno(self) -> int:
        """What becomes readable when it has said something."""
        return self._ours.fileno()

    def close(self) -> None:
        """Let go of it: one that lives ends its job."""
        self._its.close()
        self._ours.close()

    # -- saying what it is to do ----------------------------------------------------------------
    def renew(self, times: GuardTimes) -> None:
        """It may wait longer."""
        self._say(f"R {times.term_at_s!r} {times.kill_at_s!r}")

    def terminate(self) -> None:
        """SIGTERM to all of its job."""
        self._say("T")

    def kill(self) -> None:
        """SIGKILL to all of its job; how that ended is still heard."""
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_WR)

    def _say(self, line: str) -> None:
        # One that stands still takes nothing more, one that is gone never will. A renewal is said
        # again, and after a SIGTERM that was lost comes `kill`.
        with contextlib.suppress(OSError):
            self._ours.send(line.encode())

    # -- hearing what became of its job ---------------------------------------------------------
    def hear(self) -> bool:
        """Take in what it has said; False once it will say nothing more."""
        while True:
            try:
                words = self._ours.recv(_MESSAGE_BYTES).decode().split()
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not words:
                return False
            if words[0] == "S":
                self._has_begun = True
            else:
                self._last_words = words

    @property
    def has_begun(self) -> bool:
        """Its job runs, or has run."""
        return self._has_begun

    @property
    def has_finished(self) -> bool:
        """It has ended everything that it had to, and said so."""
        return bool(self._last_words)

    def verdict(self, how: Exit) -> Exit:
        """How its job ended, now that the guard itself has ended like this."""
        kind, *words = self._last_words or ["-"]
        if kind == "E":
            code, number, is_lease_over = map(int, words)
            return Exit(code, number, lease_ended=bool(is_lease_over))
        if kind == "F":
            return Exit(1, 0, problem=os.strerror(int(words[0])))
        if self._has_begun:
            # It was killed, and the kernel has killed its job's first process with it.
            return Exit(0, signal.SIGKILL)
        return Exit(1, 0, problem=f"its guard ended first (code {how.exit_code}, {how.signal})")
