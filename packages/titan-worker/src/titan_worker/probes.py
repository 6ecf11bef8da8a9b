"""Is a service well? Connects to its port, asks it by HTTP, or runs a command, again and again.

Says what each check came to and decides nothing: what checks add up to is the core's. Without a health
check of its own, a service with a port is well once that answers, and is not asked again. Called by the
engine, which starts a probe when the core asks for it and stops it when the process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from titan_proto.ids import AttemptRef
from titan_proto.specs import HealthCheck, HealthKind
from titan_worker.tasks import Tasks

_LOOPBACK: Final = "127.0.0.1"
_WAIT_MIN_S: Final = 0.02
_WAIT_MAX_S: Final = 0.25
_SLOWER: Final = 1.5
_CONNECT_S: Final = 2.0
_STATUS_BYTES: Final = 4096
"""Of an answer, only its first line is read; a longer one is none."""
_SAID_BYTES: Final = 300
"""Of what a command wrote before it failed, so much of the end is told."""
_WELL: Final = range(200, 400)


class Place(NamedTuple):
    """Where a service is, for whoever checks it."""

    port: int
    folder: str
    """A command's working folder: the service's own."""
    env: Mapping[str, str]
    """The service's environment, for a command."""


class Probes:
    """The services that are being asked."""

    def __init__(
        self,
        *,
        tasks: Tasks,
        on_answer: Callable[[AttemptRef], None],
        on_failure: Callable[[AttemptRef, str], None],
    ) -> None:
        self._tasks = tasks
        self._on_answer = on_answer
        self._on_failure = on_failure
        self._running: dict[AttemptRef, asyncio.Task[None]] = {}

    def start(self, ref: AttemptRef, place: Place, check: HealthCheck | None) -> None:
        """Ask until `stop` is called; without a check, until the port answers."""
        self.stop(ref)
        probe = (
            self._until_it_answers(ref, place) if check is None else self._keep(ref, place, check)
        )
        self._running[ref] = self._tasks.start(probe)

    def stop(self, ref: AttemptRef) -> None:
        """The process has ended."""
        task = self._running.pop(ref, None)
        if task is not None:
            task.cancel()

    async def _until_it_answers(self, ref: AttemptRef, place: Place) -> None:
        wait_s = _WAIT_MIN_S
        while await _connect(place.port, _CONNECT_S):
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * _SLOWER, _WAIT_MAX_S)
        self._running.pop(ref, None)
        self._on_answer(ref)

    async def _keep(self, ref: AttemptRef, place: Place, check: HealthCheck) -> None:
        """Every `interval`; before it is well for the first time more often, so that nobody waits.

        Then a failure is told once an interval all the same: `retries` of them are to mean as much.
        """
        interval_s = check.interval_ms / 1000
        wait_s, told_s, was_well = _WAIT_MIN_S, time.monotonic(), False
        while True:
            problem = await _check(place, check)
            now_s = time.monotonic()
            if not problem:
                was_well = True
                self._on_answer(ref)
            elif was_well or now_s - told_s >= interval_s:
                told_s = now_s
                self._on_failure(ref, problem)
            if was_well:
                wait_s = interval_s
            await asyncio.sleep(min(wait_s, interval_s))
            wait_s = min(wait_s * _SLOWER, _WAIT_MAX_S)


async def _check(place: Place, check: HealthCheck) -> str:
    """Why the service is not well, in words for people; empty if it is."""
    timeout_s = check.timeout_ms / 1000
    port = check.port or place.port
    if check.kind is HealthKind.HTTP:
        return await _get(port, check.path, timeout_s)
    if check.kind is HealthKind.COMMAND:
        return await _run(place, check, timeout_s)
    return await _connect(port, timeout_s)


async def _connect(port: int, timeout_s: float) -> str:
    """Whether somebody accepts connections there."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            connecting = asyncio.get_running_loop().sock_connect(sock, (_LOOPBACK, port))
            async with asyncio.timeout(timeout_s):
                await connecting
            # A port of the ephemeral range that nobody listens on may connect to itself.
            return "" if sock.getsockname() != sock.getpeername() else f"nobody is on port {port}"
    except TimeoutError:
        return f"port {port} did not answer within {timeout_s:g} s"
    except OSError as error:  # also: gone again at once, or no descriptor is left
        return f"port {port}: {error.strerror or error}"


async def _get(port: int, path: str, timeout_s: float) -> str:
    """Whether a GET comes to a status of 200 to 399."""
    where = f"GET {path} on port {port}"
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(_LOOPBACK, port, limit=_STATUS_BYTES)
            try:
                writer.write(
                    f"GET {path} HTTP/1.1\r\nHost: {_LOOPBACK}:{port}\r\n"
                    "User-Agent: titan-worker\r\nAccept: */*\r\nConnection: close\r\n\r\n".encode()
                )
                line = await reader.readline()
            finally:
                writer.transport.abort()  # whatever follows is of no interest
    except TimeoutError:
        return f"{where} was not answered within {timeout_s:g} s"
    except (OSError, ValueError) as error:
        return f"{where}: {getattr(error, 'strerror', None) or error}"
    words = line.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return f"{where} was answered, and not in HTTP"
    status = int(words[1][:4])
    return "" if status in _WELL else f"{where} came to status {status}"


async def _run(place: Place, check: HealthCheck, timeout_s: float) -> str:
    """Whether the command ends with exit code 0 in time; whatever it started goes with it."""
    env = dict(place.env)
    if place.port:
        env["PORT"] = str(place.port)
    said = _Said()
    # In the worker's session, so that it is not taken for something that a job has let go of; in a
    # group of its own, so that all of it can be ended.
    starting = asyncio.ensure_future(
        asyncio.get_running_loop().subprocess_exec(
            lambda: said,
            *check.command,
            cwd=place.folder,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            process_group=0,
        )
    )
    # Who is told to stop meanwhile knows of no process yet that had to be ended, and there is one.
    stopped = await _come_what_may(starting)
    try:
        transport, _ = starting.result()
    except (OSError, ValueError) as error:
        return f"the check {check.command[0]!r} cannot be started: {error}"
    try:
        if stopped is not None:
            raise stopped
        async with asyncio.timeout(timeout_s):
            await said.ended.wait()
    except TimeoutError:
        return f"the check {check.command[0]!r} did not end within {timeout_s:g} s"
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(transport.get_pid(), signal.SIGKILL)
        stopped = await _come_what_may(said.gone)
        transport.close()  # whatever else may hold its output is not waited for
        if stopped is not None:
            raise stopped
    code = transport.get_returncode()
    if not code:
        return ""
    words = said.text.decode("utf-8", "replace").strip()
    return f"the check {check.command[0]!r} ended with {code}" + (f": {words}" if words else "")


async def _come_what_may(done: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait for what is over soon, also when told to stop meanwhile, and again; that is given back."""
    stopped: asyncio.CancelledError | None = None
    while not done.done():
        try:
            # No deadline: the kernel starts what it was asked to, and ends what was killed.
            await asyncio.wait([done])
        except asyncio.CancelledError as error:
            stopped = error
    return stopped


class _Said(asyncio.SubprocessProtocol):
    """What a command writes, and its end: when it has gone, and so has all that holds its output."""

    def __init__(self) -> None:
        self.text = b""
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()

    def process_exited(self) -> None:
        """It has been waited for."""
        self.gone.set_result(None)

    def pipe_data_received(self, fd: int, data: bytes) -> None:  # noqa: ARG002 - asyncio's signature
        """The end of it is enough."""
        self.text = (self.text + data)[-_SAID_BYTES:]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - likewise
        """After its end and its last output."""
        self.ended.set()
