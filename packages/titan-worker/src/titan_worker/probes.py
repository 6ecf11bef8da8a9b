"""Is a service there yet? Tries its port until something answers. Decides nothing else.

Called by the engine, which starts a probe when the core asks for it and stops it when the attempt
ends.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from titan_proto.ids import AttemptRef
from titan_worker.tasks import Tasks

_LOOPBACK: Final = "127.0.0.1"
_WAIT_MIN_S: Final = 0.02
_WAIT_MAX_S: Final = 0.25
_SLOWER: Final = 1.5
_CONNECT_S: Final = 2.0


class Probes:
    """The services that have not answered yet."""

    def __init__(self, *, tasks: Tasks, on_answer: Callable[[AttemptRef], None]) -> None:
        self._tasks = tasks
        self._on_answer = on_answer
        self._running: dict[AttemptRef, asyncio.Task[None]] = {}

    def start(self, ref: AttemptRef, port: int) -> None:
        """Try the port until it answers or `stop` is called."""
        self.stop(ref)
        self._running[ref] = self._tasks.start(self._probe(ref, port))

    def stop(self, ref: AttemptRef) -> None:
        """The attempt has ended."""
        task = self._running.pop(ref, None)
        if task is not None:
            task.cancel()

    async def _probe(self, ref: AttemptRef, port: int) -> None:
        wait_s = _WAIT_MIN_S
        while not await _answers(port):
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * _SLOWER, _WAIT_MAX_S)
        self._running.pop(ref, None)
        self._on_answer(ref)


async def _answers(port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            connecting = asyncio.get_running_loop().sock_connect(sock, (_LOOPBACK, port))
            async with asyncio.timeout(_CONNECT_S):
                await connecting
            # A port of the ephemeral range that nobody listens on may connect to itself.
            return bool(sock.getsockname() != sock.getpeername())
    except (OSError, TimeoutError):  # also: gone again at once, or no descriptor is left
        return False
