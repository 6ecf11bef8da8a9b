"""Our end of the channel to ``forker.py``, which starts what has to be held before it does anything.

Started with the first such process, and again should it have died. Nobody waits for its answers:
they come in the order of the requests, some milliseconds later. Called by the process host.
"""

from __future__ import annotations

import asyncio
import marshal
import math
import os
import signal
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from titan_worker.host.base import LaunchPlan

_FORKER: Final = str(Path(__file__).with_name("forker.py"))
_ITS_FD: Final = 3
_ANSWER_S: Final = 10.0
"""One that takes longer stands still, and is ended; so is one that does not even take a request."""
_ANSWERS_BYTES: Final = 64 * 1024
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


OnAnswer = Callable[[int | OSError], None]
"""The pid of a new process, which is our child; or why there is none: HoldFailed, or as exec says."""


class _Request(NamedTuple):
    on_answer: OnAnswer
    patience: asyncio.TimerHandle


class Forker:
    """The forker of one process host."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._channel: socket.socket | None = None
        self._pid = 0
        self._waiting: deque[_Request] = deque()
        self._half = b""

    def start(
        self, plan: LaunchPlan, hold: Hold, outputs: tuple[int, int], on_answer: OnAnswer
    ) -> None:
        """Have a process started. Raises HoldFailed if that cannot even be asked for."""
        body = marshal.dumps((plan.program, plan.argv, dict(plan.env), plan.folder, *hold))
        self.hear()  # perhaps that it has ended
        try:
            if self._channel is None:
                self._begin()
            assert self._channel is not None
            head = len(body).to_bytes(_LENGTH_BYTES, "big")
            socket.send_fds(self._channel, [head], outputs)
            self._channel.sendall(body)
        except OSError as error:
            self._give_up()
            raise HoldFailed(error.errno, f"its starter does not listen ({error})") from error
        patience = self._loop.call_later(_ANSWER_S, self._give_up)
        self._waiting.append(_Request(on_answer, patience))

    def hear(self) -> None:
        """Take in what it has answered by now."""
        while self._channel is not None and self._read(socket.MSG_DONTWAIT):
            pass

    def close(self) -> None:
        """Hear what it was asked for already, then end it; what it has started goes on."""
        while self._waiting and self._channel is not None and self._read(0):
            pass
        self._give_up()

    def _read(self, flags: int) -> bool:
        """Take in some of its answers; False if there are none now, or will be no more."""
        assert self._channel is not None
        try:
            said = self._channel.recv(_ANSWERS_BYTES, flags)
        except BlockingIOError:
            return False
        except OSError:
            said = b""
        if not said:
            self._give_up()
            return False
        *lines, self._half = (self._half + said).split(b"\n")
        for line in lines:
            request = self._waiting.popleft()
            request.patience.cancel()
            request.on_answer(_understood(line))
        return True

    def _give_up(self) -> None:
        """End it. Who still waits for an answer gets none: there may be a process, which has its marks."""
        if self._channel is None:
            return
        self._loop.remove_reader(self._channel.fileno())
        self._channel.close()
        self._channel = None
        os.kill(self._pid, signal.SIGKILL)  # not waited for yet: the number is its own
        os.waitpid(self._pid, 0)
        self._half = b""
        waiting, self._waiting = self._waiting, deque()
        for request in waiting:
            request.patience.cancel()
            request.on_answer(HoldFailed(0, "its starter has ended"))

    def _begin(self) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with its:
            # Not Python's own timeout, which waits even where a call says that it must not.
            patience = struct.pack("ll", math.ceil(_ANSWER_S), 0)
            for which in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
                ours.setsockopt(socket.SOL_SOCKET, which, patience)
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
        self._loop.add_reader(ours.fileno(), self.hear)


def _understood(line: bytes) -> int | OSError:
    kind, *words = line.split()
    numbers = [int(word) for word in words]
    if kind == b"P":
        return numbers[0]
    pid, number, stage = numbers
    os.waitpid(pid, 0)
    return (OSError if stage else HoldFailed)(number, os.strerror(number))
