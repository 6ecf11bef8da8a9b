"""Spawners: how a worker that was asked for is started.

`LocalSpawner` starts one of this same program beside this worker, with its settings, under another port in
the same data folder. It gets nothing of what jobs count out, for that is this worker's to give. Proofs go
through the environment, never through a command line. Built by ``app``; called by the nursery.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from titan_proto.messages import SpawnSibling
from titan_worker.config import SIBLING, Settings
from titan_worker.host.identity import ProcessIdentity, list_pids, read_stat
from titan_worker.host.orphans import sweep
from titan_worker.nursery import Born, CannotSpawn
from titan_worker.output import last_words

PORTS_TRIED: Final = 100
"""Ports above the one that was asked for, where that one and others are taken in this data folder."""
_LOG: Final = logging.getLogger(__name__)
LOG_NAME: Final = "worker.log"
COMMAND_S: Final = 60.0
"""A command that starts or stops a worker elsewhere may take so long."""
_WORDS_CHARS: Final = 400


class LocalSpawner:
    """Siblings on this machine, in this data folder."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._environ = dict(environ)

    async def start(self, order: SpawnSibling) -> Born | None:
        """Start it under its port, or the next that is free here. Raises CannotSpawn."""
        port = self._port(order)
        home = self._home(port)
        log = home / LOG_NAME
        try:
            home.mkdir(mode=0o700, exist_ok=True)
            fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                pid = self._spawn(order, port, fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise CannotSpawn(f"{error.strerror} ({error.filename or home})") from error
        stat = read_stat(pid)
        if stat is None:  # it is our child: until it is waited for, /proc shows it
            raise CannotSpawn("its process cannot be seen: /proc shows no other processes")
        return Born(ProcessIdentity(pid, stat.start_ticks), port)

    def _spawn(self, order: SpawnSibling, port: int, log: int) -> int:
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", "-m", "titan_worker", *self._arguments(order, port)],
                {**self._environ, SIBLING: self._value(order)},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, nothing, 0),
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
                # A signal for this worker's group, or its end, is none for its siblings.
                setsid=True,
            )
        finally:
            os.close(nothing)

    def mark(self, order: SpawnSibling) -> bytes:
        """What tells it from every other process."""
        return os.fsencode(f"{SIBLING}={self._value(order)}")

    def _value(self, order: SpawnSibling) -> str:
        patience_ms = order.join_within_ms
        return f"{order.number} {order.proof} {patience_ms} {self._settings.private}"

    def _arguments(self, order: SpawnSibling, port: int) -> list[str]:
        settings = self._settings
        words = [str(port), settings.master.host, str(settings.master.port)]
        words += ["--data", str(settings.data), "--slots", str(order.slots)]
        for skill in order.skills:
            words += ["--skill", skill]
        for name, path in settings.handlers.items():
            if name in order.skills:
                words += ["--handler", f"{name}={path}"]
        words += ["--drain-timeout", f"{settings.drain_ms}ms", "--cgroups", settings.cgroups]
        words += ["--keep", f"{settings.keep_ms}ms"]
        words += ["--keep-bytes", f"{settings.workspace_bytes // 1024}KiB"]
        words += ["--cache-bytes", f"{settings.cache_bytes // 1024}KiB"]
        # What can be counted out of this machine is counted out by the worker that was there first.
        words += ["--resource", "cpu=0", "--resource", "memory=0KiB"]
        return words

    def _port(self, order: SpawnSibling) -> int:
        for port in range(order.port, order.port + (1 if order.exact else PORTS_TRIED)):
            if not _is_taken(self._home(port) / "lock"):
                return port
        data = self._settings.data
        if order.exact:
            raise CannotSpawn(f"another worker has port {order.port} in {data}")
        raise CannotSpawn(
            f"workers have all of the {PORTS_TRIED} ports from {order.port} on in {data}"
        )

    async def find(self, order: SpawnSibling, who: ProcessIdentity | None) -> Born | None:
        """By what was written down of it, or by its mark."""
        return await asyncio.to_thread(self._find, order, who)

    def _find(self, order: SpawnSibling, who: ProcessIdentity | None) -> Born | None:
        mark = self.mark(order)
        for pid in list_pids() if who is None else [who.pid]:
            stat = read_stat(pid)
            if stat is None or not stat.is_alive:
                continue
            if who is not None and stat.start_ticks != who.start_ticks:
                continue
            port = _port_of(pid, mark)
            if port:
                return Born(ProcessIdentity(pid, stat.start_ticks), port)
        return None

    def clear(self, port: int) -> int:
        """Under the lock of its folder: who has that by now clears it away at its start."""
        home = self._home(port)
        try:
            with (home / "lock").open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return sweep(str(home), [])
        except (BlockingIOError, FileNotFoundError):
            return 0

    def _home(self, port: int) -> Path:
        return self._settings.data / f".worker-{port}"

    async def stop(self, order: SpawnSibling) -> None:
        """None of them is elsewhere."""

    def last_words(self, born: Born) -> str:
        """The end of its log, which begins with its start."""
        return last_words(str(self._home(born.port) / LOG_NAME))[-_WORDS_CHARS:]


class CommandSpawner:
    """Siblings that a command of the operator's starts, wherever it likes.

    It is told by its environment what is wanted (`TITAN_SPAWN`: start or stop, and the rest), and has to
    see to it that the new worker gets `TITAN_SIBLING`. It ends with 0 once it has done its part.
    """

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._environ = dict(environ)

    async def start(self, order: SpawnSibling) -> Born | None:
        """Have it started. Raises CannotSpawn."""
        problem = await self._run("start", order)
        if problem:
            raise CannotSpawn(problem)
        return None

    async def find(self, order: SpawnSibling, who: ProcessIdentity | None) -> Born | None:
        """Nobody knows whether the command had started it: it is to stop whatever is there."""
        del who
        await self.stop(order)
        return None

    def clear(self, port: int) -> int:
        """That is for the machine that it was on."""
        del port
        return 0

    async def stop(self, order: SpawnSibling) -> None:
        """Have it stopped; one that cannot be ends by itself when no master takes it in."""
        problem = await self._run("stop", order)
        if problem:
            _LOG.warning("sibling_not_stopped number=%d why=%s", order.number, problem)

    def last_words(self, born: Born) -> str:
        """It is not here."""
        del born
        return ""

    async def _run(self, what: str, order: SpawnSibling) -> str:
        """What went wrong; empty if nothing did."""
        process = await asyncio.create_subprocess_shell(
            self._settings.spawner,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**self._environ, **self._variables(what, order)},
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(COMMAND_S):
                _, said = await process.communicate()
        except TimeoutError:
            _kill_group(process.pid)
            await process.wait()
            return f"the spawner had not ended after {COMMAND_S:g} s (spawning.COMMAND_S)"
        except asyncio.CancelledError:
            _kill_group(process.pid)
            raise
        if not process.returncode:
            return ""
        words = said.decode("utf-8", "replace").strip()[-_WORDS_CHARS:] or "it said nothing"
        return f"the spawner ended with {process.returncode}: {words}"

    def _variables(self, what: str, order: SpawnSibling) -> dict[str, str]:
        return {
            "TITAN_SPAWN": what,
            "TITAN_SPAWN_NUMBER": str(order.number),
            "TITAN_SPAWN_PORT": str(order.port),
            "TITAN_SPAWN_SLOTS": str(order.slots),
            "TITAN_SPAWN_SKILLS": " ".join(order.skills),
            "TITAN_MASTER": str(self._settings.master),
            SIBLING: _short(order),
        }

    def mark(self, order: SpawnSibling) -> bytes:
        """What tells it from every other process, if it is on this machine after all."""
        return os.fsencode(f"{SIBLING}={_short(order)}")


def _short(order: SpawnSibling) -> str:
    return f"{order.number} {order.proof} {order.join_within_ms}"


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _is_taken(lock: Path) -> bool:
    """Whether a worker holds this lock."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _port_of(pid: int, mark: bytes) -> int:
    """The port of this process, if it is the sibling with this mark and none of its jobs; else 0."""
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    if mark not in environ or b"titan_worker" not in words[:-1]:
        return 0
    port = words[words.index(b"titan_worker") + 1]
    return int(port) if port.isdigit() else 0
