"""The composition root: builds every concrete thing of a worker and joins them.

The only module that names concrete implementations. It also holds the order of starting (lock,
ledger, leftovers of earlier lives, then the first input) and of ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import gc
import logging
import os
import resource
import signal
import socket
import sqlite3
import sys
from pathlib import Path
from typing import IO, Any, Final

from titan_proto.errors import ErrorCode
from titan_proto.ids import AttemptRef
from titan_proto.io.address import find_token
from titan_proto.io.entropy import new_id
from titan_proto.limits import LOG_BYTES_PER_ATTEMPT
from titan_worker.__about__ import __version__
from titan_worker.artifacts import Artifacts, Cache
from titan_worker.carrying import Carrier
from titan_worker.clock import system_clock
from titan_worker.config import SPAWNER_DEFAULT, SPAWNER_OFF, Settings
from titan_worker.core.core import BornAs, WorkerConfig, WorkerCore
from titan_worker.core.inputs import StopRequested
from titan_worker.core.state import WorkerState
from titan_worker.endings import Endings
from titan_worker.engine import Engine, Parts
from titan_worker.host import cgroups, orphans
from titan_worker.host.identity import ProcessIdentity, boot_id, network_id
from titan_worker.host.posix import PosixHost
from titan_worker.host.resources import cores, detected
from titan_worker.host.usage import HostLooker, UsageSampler
from titan_worker.launching import Launcher, Ports
from titan_worker.ledger import Ledger
from titan_worker.link import LinkRefused, MasterLink
from titan_worker.nursery import Nursery, Spawner
from titan_worker.probes import Probes
from titan_worker.retention import Retention
from titan_worker.sampling import Sampling
from titan_worker.shipping import Shipping
from titan_worker.spawning import CommandSpawner, LocalSpawner
from titan_worker.tasks import Tasks
from titan_worker.workspace import Workspaces, may_have_folder, workspace_id

_LOG: Final = logging.getLogger(__name__)

OK: Final = 0
IO_FAILED: Final = 74
TAKEN: Final = 75
REFUSED: Final = 77
CONFIG: Final = 78

_TAKEN_BY_ANOTHER: Final = frozenset({ErrorCode.DUPLICATE_WORKER, ErrorCode.SUPERSEDED})

_SOFTWARE: Final = f"titan-worker/{__version__}"
_PART_S: Final = 5.0
_SIGNALS_MAX: Final = 3
_ANSWER_S: Final = 10.0
_PORTS_TRIED: Final = 100
_DESCRIPTORS_PER_SLOT: Final = 3
"""One to watch its process, one to talk to its guard, one for what the next one waits for."""
_DESCRIPTORS: Final = 128
"""For everything else."""
_DISK_TROUBLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})
"""What another folder on the same disk would meet too."""


class Taken(Exception):
    """Another live worker has this port here; the text names a free one."""


class TooManySlots(Exception):
    """More than this process may open files for."""


def run(settings: Settings) -> int:
    """Be a worker until told to stop; the process's exit code."""
    _say(
        f"titan-worker {settings.port}: data {settings.private}, "
        f"workspace {settings.workspace}, master {settings.master}"
    )
    try:
        _allow_descriptors(settings.slots)
        # Whoever comes first makes the data folder; orders, with what they carry, are nobody else's.
        for folder in (settings.data, settings.private):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings.workspace.mkdir(parents=True, exist_ok=True)
        lock = _take_lock(settings)
    except Taken as error:
        _say(f"titan-worker: {error}")
        return TAKEN
    except TooManySlots as error:
        _say(f"titan-worker: {error}")
        return CONFIG
    except OSError as error:
        _say(f"titan-worker: {error}; --data must name a folder that may be written")
        return IO_FAILED if error.errno in _DISK_TROUBLE else CONFIG
    code = IO_FAILED
    _tune_collector()
    with lock:
        try:
            with (
                contextlib.closing(
                    Ledger.open(settings.private / "ledger.sqlite", new_id, boot_id())
                ) as ledger,
                asyncio.Runner() as runner,
            ):
                code = runner.run(Worker(settings, ledger).live())
        # Tasks end in a group. (The linter reads this by the rules of Python 3.10.)
        except (OSError, sqlite3.Error, BaseExceptionGroup) as error:  # noqa: F821
            cause = _first(error)
            if not isinstance(cause, OSError | sqlite3.Error):
                raise
            _say(f"titan-worker: {cause} (data {settings.private})")
    return code


class Worker:
    """One life of a worker process, inside its event loop."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self._name = f"{socket.gethostname()}:{settings.port}"
        self._home = str(settings.private)
        self._boot_id = boot_id()
        self._cwd = Path.cwd()
        self._signals = 0
        self._is_ready = False
        self._engine: Engine | None = None
        self._refused: LinkRefused | None = None
        self._broken: BaseException | None = None
        self._ended = asyncio.Event()

    async def live(self) -> int:
        """Start, serve, end."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._failed)
        if self._ledger.moved_aside is not None:
            _LOG.error("ledger_damaged moved_to=%s worker=new", self._ledger.moved_aside)
        is_new_boot = self._ledger.boot_id not in {"", self._boot_id}
        state = self._ledger.load()
        groups = cgroups.find(self._settings.cgroups, self._settings.private)
        _LOG.info("limits by=%s", groups.describe())
        orphans.sweep(self._home, self._recorded(state))
        self._ledger.note_boot(self._boot_id)
        async with asyncio.TaskGroup() as group:
            tasks = Tasks(group)
            engine = self._make_engine(loop, state)
            host = PosixHost(
                loop=loop,
                home=self._home,
                cgroups=groups,
                on_started=engine.started,
                on_exit=engine.exited,
            )
            self._engine = engine
            parts = self._make_parts(loop, tasks, engine, host, state, groups)
            if is_new_boot or self._ledger.moved_aside is not None:
                parts.link.id_changed()
            engine.bind(parts)
            self._take_over_logs(state, parts)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                # What whoever started us wants ignored (nohup) stays so.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    loop.add_signal_handler(number, self.stop)
            loop.add_signal_handler(signal.SIGUSR1, self.stop_at_once)
            _tell_what_was_left(state)
            engine.begin(self._boot_id)
            for coroutine in (
                parts.shipping.run(),
                parts.sampling.run(),
                self._dial(parts.link),
                self._retention(parts, engine, host).run(),
                self._depart(engine),
                engine.hunt(),
            ):
                tasks.start(coroutine)
            try:
                # No deadline: this is the life of the process.
                await self._ended.wait()
            finally:
                tasks.cancel_all()
                engine.close()
                host.close()
                parts.shipping.close()
                parts.sampling.close()
                parts.nursery.close()
                parts.endings.close()
                orphans.sweep(self._home, [])  # what left its group and was not hunted yet
        return self._exit_code()

    # -- building ---------------------------------------------------------------------------------
    def _make_engine(self, loop: asyncio.AbstractEventLoop, state: WorkerState) -> Engine:
        settings, ledger = self._settings, self._ledger
        config = WorkerConfig(
            worker_id=ledger.worker_id,
            incarnation=ledger.incarnation,
            host=socket.gethostname(),
            port=settings.port,
            slots=settings.slots,
            skills=settings.skills,
            resources={**detected(), **settings.resources},
            software=_SOFTWARE,
            pid=os.getpid(),
            drain_ms=settings.drain_ms,
            workspace=workspace_id(settings.workspace, new_id),
            network=network_id(),
            cores=0 if settings.spawner == SPAWNER_OFF else cores(),
            born_as=_born_as(settings),
        )
        clock = system_clock()
        self._now_ms = clock.now_ms
        return Engine(
            core=WorkerCore(state, config),
            ledger=ledger,
            now_ms=clock.now_ms,
            steady_at_s=clock.steady_at_s,
            loop=loop,
            on_joined=self._joined,
        )

    def _make_parts(
        self,
        loop: asyncio.AbstractEventLoop,
        tasks: Tasks,
        engine: Engine,
        host: PosixHost,
        state: WorkerState,
        groups: cgroups.Cgroups,
    ) -> Parts:
        settings = self._settings

        link = MasterLink(
            address=settings.master,
            find_token=lambda: find_token(settings.master, os.environ, self._cwd),
            software=_SOFTWARE,
            user=engine,
        )
        endings = Endings(settings.private / "endings")
        endings.open()
        cache = Cache(
            settings.private / "cache", bytes_max=settings.cache_bytes, boot_id=self._boot_id
        )
        cache.open()
        artifacts = Artifacts(cache=cache, fetch=link.fetch, tasks=tasks)
        carrier = Carrier(
            shared=f"{settings.workspace}/shared",
            artifacts=artifacts,
            upload=link.upload,
            tasks=tasks,
        )
        return Parts(
            link=link,
            host=host,
            workspaces=Workspaces(
                settings.workspace,
                port=settings.port,
                artifacts=artifacts,
                carrier=carrier,
                tasks=tasks,
                on_ready=engine.workspace_ready,
                on_failed=engine.workspace_failed,
            ),
            carrier=carrier,
            artifacts=artifacts,
            launcher=Launcher(
                environ=os.environ,
                worker=self._name,
                home=self._home,
                handlers=settings.handlers,
            ),
            ports=Ports(),
            probes=Probes(
                tasks=tasks, on_answer=engine.probe_answered, on_failure=engine.probe_failed
            ),
            shipping=Shipping(
                loop=loop,
                now_ms=self._now_ms,
                on_shipped=lambda ref: endings.shipped(ref, self._now_ms()),
                ceiling_bytes=LOG_BYTES_PER_ATTEMPT,
            ),
            endings=endings,
            usage=UsageSampler(),
            nursery=Nursery(
                loop=loop,
                tasks=tasks,
                spawner=_spawner(settings),
                own_pids=host.siblings,
                marks=host.siblings_spared,
                on_began=engine.sibling_began,
                on_gone=engine.sibling_gone,
            ),
            sampling=Sampling(
                loop=loop,
                looker=HostLooker(str(settings.data)),
                roots=lambda: _processes(state),
                limits=groups.describe(),
            ),
            tasks=tasks,
            home=self._home,
        )

    def _retention(self, parts: Parts, engine: Engine, host: PosixHost) -> Retention:
        settings = self._settings

        async def is_over(run_id: str) -> bool | None:
            return await parts.link.is_run_over(run_id, _ANSWER_S)

        return Retention(
            root=str(settings.workspace),
            endings=parts.endings,
            workspaces=parts.workspaces,
            carrier=parts.carrier,
            artifacts=parts.artifacts,
            keep_ms=settings.keep_ms,
            bytes_max=settings.workspace_bytes,
            cache_keep_ms=settings.cache_keep_ms,
            now_ms=self._now_ms,
            is_busy=lambda: bool(host.running),
            holds=engine.holds,
            is_over=is_over,
        )

    def _recorded(self, state: WorkerState) -> list[ProcessIdentity]:
        """Processes that earlier incarnations noted, if they can still be meant by it."""
        if self._ledger.boot_id != self._boot_id:
            return []
        return list(_processes(state).values())

    def _take_over_logs(self, state: WorkerState, parts: Parts) -> None:
        """Ship on what earlier incarnations did not get through."""
        left = [
            ref
            for ref, held in state.held.items()
            # One under an impossible name never had a folder: its end is all that is owed.
            if not held.foreign and may_have_folder(ref)
        ]
        for ref in dict.fromkeys([*parts.endings.owing(), *left]):
            folders = parts.workspaces.folders(ref)
            parts.shipping.resume(ref, folders.stdout, folders.stderr)

    # -- serving ----------------------------------------------------------------------------------
    def _joined(self) -> None:
        if not self._is_ready:
            self._is_ready = True
            _say(f"titan-worker ready {self._name} joined {self._settings.master}")

    async def _dial(self, link: MasterLink) -> None:
        try:
            await link.run()
        except LinkRefused as error:
            self._refused = error
            self._ended.set()

    async def _depart(self, engine: Engine) -> None:
        """Once the core has nothing more to do, say goodbye."""
        await engine.departed.wait()
        await engine.part(_PART_S)
        self._ended.set()

    def stop(self) -> None:
        """A signal: drain and leave. A second one: drain no longer. A third: end, whatever is left."""
        engine = self._engine
        self._signals += 1
        if engine is None or self._signals >= _SIGNALS_MAX:
            _say("titan-worker: ending now")
            self._ended.set()
            return
        if self._signals > 1 or engine.is_leaving:
            _say("titan-worker: stopping at once; one more signal ends it without reports")
        else:
            _say(
                "titan-worker: stopping; running tasks may go on for "
                f"{self._settings.drain_ms / 1000:g} s, a second signal stops them at once"
            )
        engine.post(StopRequested())

    def stop_at_once(self) -> None:
        """SIGUSR1: leave in good order, and wait for no task; said again, that changes nothing.

        Two signals of one kind that come close together may arrive as one: whoever cannot see that
        the first has arrived, as `titan down`, says all of it with this one.
        """
        if self._engine is not None:
            _say("titan-worker: stopping at once")
            self._signals = max(self._signals, 1)
            self._engine.post(StopRequested(at_once=True))

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback of the loop has raised: that is a bug or a broken disk, and the end."""
        error = context.get("exception")
        if isinstance(error, BaseException):
            self._broken = self._broken or error
            self._ended.set()
        else:
            loop.default_exception_handler(context)

    def _exit_code(self) -> int:
        if self._broken is not None:
            raise self._broken
        if self._refused is None:
            return OK
        _say(f"titan-worker: {self._refused}")
        return TAKEN if self._refused.code in _TAKEN_BY_ANOTHER else REFUSED


def _spawner(settings: Settings) -> Spawner:
    if settings.spawner in {SPAWNER_DEFAULT, SPAWNER_OFF}:
        return LocalSpawner(settings, os.environ)
    return CommandSpawner(settings, os.environ)


def _born_as(settings: Settings) -> BornAs | None:
    birth = settings.birth
    if birth is None:
        return None
    return BornAs(number=birth.number, proof=birth.proof, join_within_ms=birth.join_within_ms)


def _processes(state: WorkerState) -> dict[AttemptRef, ProcessIdentity]:
    """The first processes of what has not ended."""
    return {
        ref: ProcessIdentity(held.pid, held.start_ticks)
        for ref, held in state.held.items()
        if held.pid and held.report is None
    }


def _tell_what_was_left(state: WorkerState) -> None:
    for ref, held in state.held.items():
        if held.report is None:
            _LOG.warning("attempt_lost attempt=%s why=an earlier process of this worker died", ref)


def _take_lock(settings: Settings) -> IO[bytes]:
    """The lock of this port in this folder, held while the file is open. Raises Taken."""
    path = settings.private / "lock"
    # Unbuffered: on a full disk the write fails here, and not once more when the file is let go.
    file = path.open("ab+", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read(16).decode("ascii", "replace").strip() or "unknown"
        file.close()
        raise Taken(
            f"another worker (pid {holder}) has port {settings.port} in {settings.data}; "
            f"ask for a free one: titan-worker {_free_port(settings)}"
        ) from None
    try:
        file.truncate(0)
        file.write(b"%d\n" % os.getpid())
    except OSError:
        file.close()
        raise
    return file


def _free_port(settings: Settings) -> int:
    """The next port whose name nobody holds in this data folder."""
    for port in range(settings.port + 1, settings.port + _PORTS_TRIED):
        try:
            with (settings.data / f".worker-{port}" / "lock").open(encoding="ascii") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return port
        except BlockingIOError:
            continue
        return port
    return settings.port + _PORTS_TRIED


def _allow_descriptors(slots: int) -> None:
    """See to it that every slot can be watched while its successor is prepared."""
    needed = slots * _DESCRIPTORS_PER_SLOT + _DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise TooManySlots(
                f"{slots} slots need {needed} open files, and `ulimit -Hn` is {hard}: "
                f"--slots {max(1, (hard - _DESCRIPTORS) // _DESCRIPTORS_PER_SLOT)} would do"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _tune_collector() -> None:
    """State holds no cycles: let the collector look rarely, and never at what is here already."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _first(error: BaseException) -> BaseException:
    """What a group of exceptions began with, however deep."""
    inner = getattr(error, "exceptions", None)
    return _first(inner[0]) if inner else error


def _say(line: str) -> None:
    """One line for whoever started this process, if he still listens."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
