"""Tells the master how busy this host is and what the attempts use: more often while somebody looks.

Decides when to look, nothing else. The looking is done by a thread of its own, and nobody waits for
it: a heartbeat never does. What is told is told once, to the master that is there. Built by ``app``;
the engine says when a master comes and goes, and what it asks for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from titan_proto.ids import AttemptRef
from titan_proto.messages import AnyMessage, SampleUsage, Usage, WorkerUsage
from titan_worker.host.identity import ProcessIdentity

USUALLY_EVERY_S: Final = 15.0
_EVERY_MIN_S: Final = 1.0
_FOR_MAX_S: Final = 60.0
"""However impatient a master is, and however long it says that somebody looks."""


class Sender(Protocol):
    """The link to the master."""

    def send(self, message: AnyMessage) -> None:
        """Send on the present link; without one nothing happens."""


class Looker(Protocol):
    """What looks at the host. Called in a thread, never twice at once."""

    def look(self, roots: Mapping[AttemptRef, ProcessIdentity]) -> Usage:
        """The host now, and the trees below these processes."""


class Sampling:
    """The samples of one worker."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        looker: Looker,
        roots: Callable[[], dict[AttemptRef, ProcessIdentity]],
        limits: str,
    ) -> None:
        self._loop = loop
        self._looker = looker
        self._roots = roots
        self._limits = limits
        self._sender: Sender | None = None
        self._every_s = USUALLY_EVERY_S
        self._until_s = 0.0
        self._next_s = 0.0
        self._news = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="usage")

    def link_up(self, sender: Sender) -> None:
        """A master is there: it is told at once, by which it learns that it may ask."""
        self._sender = sender
        self._next_s = 0.0
        self._news.set()

    def link_down(self) -> None:
        """It is gone."""
        self._sender = None
        self._until_s = 0.0

    def asked(self, message: SampleUsage) -> None:
        """Somebody looks."""
        now_s = self._loop.time()
        self._every_s = max(_EVERY_MIN_S, message.every_ms / 1000)
        self._until_s = now_s + min(max(0.0, message.for_ms / 1000), _FOR_MAX_S)
        self._next_s = min(self._next_s, now_s + self._every_s)
        self._news.set()

    async def run(self) -> None:
        """Look and tell, for ever."""
        while True:
            if self._sender is None:
                # No deadline: without a master there is nobody to tell.
                await self._news.wait()
            elif (wait_s := self._next_s - self._loop.time()) > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._news.wait()
            else:
                await self._tell()
            self._news.clear()

    def close(self) -> None:
        """Look no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _tell(self) -> None:
        now_s = self._loop.time()
        self._next_s = now_s + (self._every_s if now_s < self._until_s else USUALLY_EVERY_S)
        usage = await self._loop.run_in_executor(self._thread, self._looker.look, self._roots())
        if self._sender is not None:
            self._sender.send(WorkerUsage(usage=usage, limits=self._limits))
