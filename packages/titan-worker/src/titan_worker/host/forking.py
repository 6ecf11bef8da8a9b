"""Our end of the channel to ``forker.py``, which starts what has to be held before it does anything.

Started with the first such process, and again should it have died. Whoever asks waits for the
answer, some 2 ms: between two forks and an exec there is nothing that could take long. Called by
the process host.
"""

from __future__ import annotations

import marshal
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final, NamedTuple

from titan_worker.host.base import LaunchPlan

_FORKER: Final = str(Path(__file__).with_name("forker.py"))
_ITS_FD: Final = 3
_ANSWER_S: Final = 5.0
_ANSWER_BYTES: Final = 256
_LENGTH_BYTES: Final = 8


class Hold(NamedTuple):
    """What a process is put under before it becomes its program."""

    born_in: str = ""
    """The folder of a control group of version 2 ..."""
    joins: tuple[str, ...] = ()
    """... and files of others, into which it writes itself."""
    rlimits: tuple[tuple[int, int], ...] = ()
    """(which, value), for itself and each process that it starts."""


class HoldFailed(OSError):
    """The process could not be put under its hold; it was not started."""


class Forker:
    """The forker of one process host."""

    def __init__(self) -> None:
        self._channel: socket.socket | None = None
        self._pid = 0

    def start(self, plan: LaunchPlan, hold: Hold, outputs: tuple[int, int]) -> int:
        """The pid of a new process, which is our child. Raises HoldFailed, or OSError as exec does."""
        request = marshal.dumps((plan.program, plan.argv, dict(plan.env), plan.folder, *hold))
        try:
            kind, *numbers = self._ask(request, outputs).split()
        except OSError as error:
            self.close()
            raise HoldFailed(error.errno, f"its starter gave no answer ({error})") from error
        pid = int(numbers[0])
        if kind == b"P":
            return pid
        os.waitpid(pid, 0)
        number, stage = int(numbers[1]), int(numbers[2])
        raise (OSError if stage else HoldFailed)(number, os.strerror(number))

    def close(self) -> None:
        """End it; what it has started goes on."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
            if not self._is_gone():
                # It ends by itself now, unless it stands still.
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
            self._pid = 0

    def _ask(self, request: bytes, outputs: tuple[int, int]) -> bytes:
        if self._channel is not None and self._is_gone():
            self.close()
        if self._channel is None:
            self._begin()
        assert self._channel is not None
        socket.send_fds(self._channel, [len(request).to_bytes(_LENGTH_BYTES, "big")], outputs)
        self._channel.sendall(request)
        answer = self._channel.recv(_ANSWER_BYTES)
        if not answer:
            raise ConnectionResetError("it has ended")
        return answer

    def _begin(self) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with its:
            ours.settimeout(_ANSWER_S)
            try:
                # In our own session: it is no job's.
                self._pid = os.posix_spawn(
                    sys.executable,
                    (sys.executable, "-I", "-S", _FORKER, str(_ITS_FD)),
                    {},
                    file_actions=((os.POSIX_SPAWN_DUP2, its.fileno(), _ITS_FD),),
                    setsigmask=(),
                )
            except OSError:
                ours.close()
                raise
        self._channel = ours

    def _is_gone(self) -> bool:
        """Whether it has ended; once it has been waited for, its number may be anybody's."""
        if self._pid and os.waitpid(self._pid, os.WNOHANG)[0]:
            self._pid = 0
        return self._pid == 0
