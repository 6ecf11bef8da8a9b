"""The processes of siblings: started, found again by the next process, watched to their end, killed.

How one is started is a spawner's business: `local` starts a worker beside this one, in the same data
folder; a command of the operator's does it elsewhere. A sibling has a session of its own and outlives this
process. When a local one has ended, whatever its jobs left running is cleared away, for nobody starts it
again. Decides nothing about who is wanted. Called by the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from titan_proto.messages import SpawnSibling
from titan_worker.host.census import open_exactly
from titan_worker.host.identity import ProcessIdentity
from titan_worker.tasks import Tasks

_LOG: Final = logging.getLogger(__name__)


ELSEWHERE: Final = ProcessIdentity(-1, 0)
"""Of one that is not on this machine."""


class CannotSpawn(Exception):
    """No process came of it; the text is for people."""


class Born(NamedTuple):
    """A sibling's process on this machine."""

    who: ProcessIdentity
    port: int
    """That it really has."""


class Spawner(Protocol):
    """A way to start workers."""

    async def start(self, order: SpawnSibling) -> Born | None:
        """Start it; None where it is not on this machine. Raises CannotSpawn."""
        ...

    def mark(self, order: SpawnSibling) -> bytes:
        """The variable, with its value, that is in the environment of that one and of no job."""
        ...

    async def find(self, order: SpawnSibling, who: ProcessIdentity | None) -> Born | None:
        """One that an earlier process started on this machine, if it lives.

        `who` is known unless that process died before it had written it down.
        """
        ...

    def clear(self, port: int) -> int:
        """Kill what the jobs of one that has ended left running; how much it was. Takes its time."""
        ...

    async def stop(self, order: SpawnSibling) -> None:
        """Of one that is not on this machine: it is wanted no more."""
        ...

    def last_words(self, born: Born) -> str:
        """What it said before it ended; empty if nothing."""
        ...


class Nursery:
    """The siblings that this process knows of."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        tasks: Tasks,
        spawner: Spawner,
        own_pids: set[int],
        marks: set[bytes],
        on_began: Callable[[int, ProcessIdentity, int], None],
        on_gone: Callable[[int, str], None],
    ) -> None:
        """`own_pids`: the children of this process that are siblings, which are no strays of a job;
        nor is what has one of the `marks` in its environment.
        """
        self._loop = loop
        self._tasks = tasks
        self._spawner = spawner
        self._own_pids = own_pids
        self._marks = marks
        self._on_began = on_began
        self._on_gone = on_gone
        self._watched: dict[int, tuple[Born, int]] = {}
        """By number: the process, and a descriptor that can be read once it has ended."""
        self._elsewhere: dict[int, SpawnSibling] = {}

    def bear(self, order: SpawnSibling) -> None:
        """Start one."""
        self._tasks.start(self._bear(order))

    def find(self, order: SpawnSibling, who: ProcessIdentity | None, port: int) -> None:
        """Watch one that an earlier process of this worker started, or say that it is gone."""
        self._tasks.start(self._find(order, who, port))

    def end(self, number: int) -> None:
        """Kill it."""
        watched = self._watched.get(number)
        if watched is not None:
            born, pidfd = watched
            _LOG.warning("sibling_killed number=%d pid=%d why=given up", number, born.who.pid)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        elif number in self._elsewhere:
            self._tasks.start(self._stop(self._elsewhere.pop(number)))

    def close(self) -> None:
        """Watch nobody any more: they live on."""
        for _, pidfd in self._watched.values():
            self._loop.remove_reader(pidfd)
            os.close(pidfd)
        self._watched.clear()

    # -- inside -----------------------------------------------------------------------------------
    async def _bear(self, order: SpawnSibling) -> None:
        number = order.number
        # What a command of the operator's leaves running may become our own child.
        self._marks.add(self._spawner.mark(order))
        try:
            born = await self._spawner.start(order)
        except CannotSpawn as error:
            _LOG.warning("sibling_not_spawned number=%d why=%s", number, error)
            self._on_gone(number, str(error))
            return
        if born is None:
            _LOG.info("sibling_spawned number=%d where=elsewhere", number)
            self._elsewhere[number] = order
            self._on_began(number, ELSEWHERE, 0)
            return
        _LOG.info("sibling_spawned number=%d pid=%d port=%d", number, born.who.pid, born.port)
        self._own_pids.add(born.who.pid)
        self._watch(number, born)

    async def _find(self, order: SpawnSibling, who: ProcessIdentity | None, port: int) -> None:
        if who == ELSEWHERE:
            self._elsewhere[order.number] = order
            return
        born = await self._spawner.find(order, who)
        if born is None:
            if port:
                await asyncio.to_thread(self._spawner.clear, port)
            self._on_gone(order.number, "it ended while nobody watched")
        else:
            self._watch(order.number, born)

    async def _stop(self, order: SpawnSibling) -> None:
        await self._spawner.stop(order)
        self._on_gone(order.number, "it was stopped")

    def _watch(self, number: int, born: Born) -> None:
        pidfd = open_exactly(born.who)
        if pidfd is None:
            self._tasks.start(self._see_off(number, born))
            return
        self._watched[number] = (born, pidfd)
        self._loop.add_reader(pidfd, self._ended, number)
        self._on_began(number, born.who, born.port)

    def _ended(self, number: int) -> None:
        born, pidfd = self._watched.pop(number)
        self._loop.remove_reader(pidfd)
        os.close(pidfd)
        self._tasks.start(self._see_off(number, born))

    async def _see_off(self, number: int, born: Born) -> None:
        """Nobody starts it again, and so nobody would clear away what its jobs left running."""
        how = _wait_for(born.who.pid)
        self._own_pids.discard(born.who.pid)
        left = await asyncio.to_thread(self._spawner.clear, born.port)
        words = self._spawner.last_words(born)
        _LOG.info("sibling_ended number=%d %s left=%d", number, how, left)
        self._on_gone(number, f"it ended {how}" + (f": {words}" if words else ""))


def _wait_for(pid: int) -> str:
    """How it ended, where it was our own child and not one of our predecessor's."""
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        return "while it was nobody's child"
    code = os.waitstatus_to_exitcode(status)
    return f"with exit code {code}" if code >= 0 else f"by signal {-code}"
