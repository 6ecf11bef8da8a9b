"""The composition root: the only module that names concrete things and joins them.

It also owns what a process has just one of: the data folder's files, the signals, the order of
starting (address, lock, journal, first turn, and only then the door) and of ending. It decides nothing about
runs. Called by ``cli.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import hashlib
import logging
import os
import resource
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from msgspec import Struct

from titan_master.__about__ import __version__
from titan_master.clock import SystemClock
from titan_master.config import DATABASE, BadConfig, MasterConfig, check_listen
from titan_master.core.check import check
from titan_master.core.core import Core, CoreConfig
from titan_master.core.inputs import Origin, StorageChanged
from titan_master.core.pins import noted
from titan_master.core.state import InvariantViolation, State
from titan_master.data.artifacts import Artifacts
from titan_master.data.blobs import BlobStore
from titan_master.data.feed import LogFeed, LogPatience, Streams
from titan_master.data.logs import LogFiles
from titan_master.data.names import Names
from titan_master.data.perm_files import PermFiles
from titan_master.data.reserve import DiskWatch, Look, Reserve, Space
from titan_master.data.sweeping import ArtifactSweep, missing
from titan_master.data.tickets import TicketDesk
from titan_master.data.usage import UsageDesk, UsageLimits
from titan_master.engine import Engine, EngineConfig
from titan_master.history import Answers
from titan_master.leadership.base import NotLeading
from titan_master.leadership.solo import SoloLeadership
from titan_master.net.access import ANY_ROLE, Gatekeeper, Grant
from titan_master.net.link import Desks, LogRights
from titan_master.net.listener import Door, LinkTable, Listener, ListenerConfig, bind
from titan_master.net.staging import Stager
from titan_master.net.submission import Submissions
from titan_master.store.base import (
    FENCE_JUMP,
    JournalDamaged,
    JournalKeep,
    JournalTooNew,
    Recovered,
    StoreError,
)
from titan_master.store.salvage import LossRefused, accept_loss
from titan_master.store.sqlite import SqliteStore, connect
from titan_proto.cron import BadCron, find_zone
from titan_proto.errors import ErrorCode, LinkError, TitanError
from titan_proto.handshake import FEATURES, BadToken, Token, format_token, parse_token
from titan_proto.ids import AttemptRef
from titan_proto.io.address import Address, read_token_file, token_link
from titan_proto.io.entropy import new_id, new_key
from titan_proto.limits import (
    FRAME_PAYLOAD_BYTES,
    INLINE_SPEC_BYTES,
    USAGE_HISTORY_BYTES,
    USAGE_HISTORY_MS,
    USAGE_REPLY_BYTES,
)
from titan_proto.messages import ReadLog, Welcome

_log = logging.getLogger("titan.master")

SOFTWARE: Final = f"titan-master/{__version__}"
_LOOPBACK: Final = "127.0.0.1"
_EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})
_FILES_MAX: Final = 65_536


class Ended(TitanError):
    """The process cannot start, or go on; `code` is its exit code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def run(config: MasterConfig) -> int:
    """Run a master until it is told to stop; its exit code."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    _say(
        f"titan-master {__version__}: data {config.data}, perm_files {config.perm_files}, "
        f"listen {config.listen}"
    )
    try:
        return _run(config)
    except Ended as error:
        _say(f"titan-master: {error}")
        return error.code
    except InvariantViolation as error:
        _log.critical("the state breaks a promise error=%s", error)
        return os.EX_SOFTWARE


def _run(config: MasterConfig) -> int:
    try:
        check_listen(config)
    except BadConfig as error:
        raise Ended(os.EX_CONFIG, str(error)) from error
    _raise_file_limit()
    with contextlib.ExitStack() as taken:
        door = _door(config)
        for bound in door:
            taken.callback(bound.close)
        return _with_data(config, door)


def _door(config: MasterConfig) -> Door:
    """The addresses, taken before anything is written: a start that cannot be leaves no trace."""
    listen = config.listen
    try:
        return bind(listen.host, listen.port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and (config.data / "lock").exists():
            # Most likely it is this folder's own master: then say who that is.
            leadership = SoloLeadership(config.data / "lock")
            _acquire(config, leadership)
            leadership.resign()
        raise _cannot_listen(listen, error) from error


def _with_data(config: MasterConfig, door: Door) -> int:
    try:
        config.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Ended(os.EX_IOERR, f"{config.data} cannot be made: {error.strerror}") from error
    leadership = SoloLeadership(config.data / "lock")
    _acquire(config, leadership)
    try:
        reserve = Reserve(config.data, config.disk_reserve_bytes)
        # First of all: on a full disk even opening the journal may need what it holds.
        look = _first_look(config, reserve)
        token = _own_token(config.data / "token")
        return _with_store(config, token, reserve, look, door)
    finally:
        leadership.resign()


def _acquire(config: MasterConfig, leadership: SoloLeadership) -> None:
    try:
        leadership.acquire()
    except NotLeading as error:
        message = f"{config.data} belongs to a master that is running already ({error.holder})"
        raise Ended(os.EX_TEMPFAIL, message) from error
    except OSError as error:
        message = f"{config.data / 'lock'} cannot be written: {error.strerror}"
        raise Ended(os.EX_IOERR, message) from error


def _first_look(config: MasterConfig, reserve: Reserve) -> Look:
    try:
        look = reserve.begin()
    except OSError as error:
        raise Ended(os.EX_IOERR, f"{config.data / 'reserve'}: {error.strerror}") from error
    if not look.is_held:
        _say(
            f"titan-master: disk full: {look.free_bytes} bytes are free in {config.data}, "
            f"new work is refused until {look.wanted_bytes} are (see --disk-reserve)"
        )
    return look


def _with_store(
    config: MasterConfig, token: Token, reserve: Reserve, look: Look, door: Door
) -> int:
    keep = JournalKeep(ms=config.journal_keep_ms, bytes=config.journal_keep_bytes)
    database = config.data / DATABASE
    if config.accept_loss is not None:
        _accept_loss(database, config.accept_loss)
    store = SqliteStore(database, keep, connect)
    # Everything that writes, from opening to closing, happens on this one thread.
    with ThreadPoolExecutor(1, thread_name_prefix="writer") as writer:
        try:
            recovered = writer.submit(store.open).result()
        except JournalDamaged as error:
            message = (
                f"{error}\n  the last good record is {error.last_good_seq}; nothing was changed\n"
                "  a backup:             titan-master restore BACKUP --data NEW-FOLDER\n"
                "  without what is lost: titan-master start --accept-loss "
                f"{error.last_good_seq}"
            )
            raise Ended(os.EX_DATAERR, message) from error
        except JournalTooNew as error:
            raise Ended(os.EX_CONFIG, str(error)) from error
        except StoreError as error:
            raise Ended(os.EX_IOERR, str(error)) from error
        check(recovered.state)
        _read_zones(recovered.state)
        try:
            return asyncio.run(_serve(config, token, store, recovered, writer, reserve, look, door))
        finally:
            _close(store, writer)


def _read_zones(state: State) -> None:
    """The zones of all schedules, once, before the core asks for them: it never waits for a file."""
    for schedule in state.schedules.values():
        with contextlib.suppress(BadCron):  # the core pauses it, and says why
            find_zone(schedule.spec.zone)


def _accept_loss(database: Path, seq: int) -> None:
    """What a person has decided: the journal ends there, whatever it said behind that."""
    aside = database.with_name(f"damaged-{SystemClock().now_ms()}")
    try:
        loss = accept_loss(database, seq, aside)
    except LossRefused as error:
        raise Ended(os.EX_DATAERR, str(error)) from error
    except StoreError as error:
        raise Ended(os.EX_IOERR, str(error)) from error
    except OSError as error:
        message = f"{error.filename or database}: {error.strerror or error}"
        raise Ended(os.EX_IOERR, message) from error
    lost = "an unknown number of" if loss.lost_records is None else str(loss.lost_records)
    history = "" if loss.history_is_whole else "; a part of history could not be read"
    _log.warning(
        "loss accepted last_good=%d lost_records=%s reason=%r aside=%s",
        loss.last_good_seq, lost, loss.reason, loss.aside,
    )  # fmt: skip
    _say(
        f"titan-master: went back to record {loss.last_good_seq}: {lost} records are lost{history}; "
        f"the damaged files are in {loss.aside}"
    )


def _close(store: SqliteStore, writer: ThreadPoolExecutor) -> None:
    try:
        writer.submit(store.close).result()
    except StoreError as error:
        # Everything acknowledged is in the journal all the same; the next start tidies up.
        _log.error("closing failed error=%s", error)


async def _serve(
    config: MasterConfig,
    token: Token,
    store: SqliteStore,
    recovered: Recovered,
    writer: ThreadPoolExecutor,
    reserve: Reserve,
    look: Look,
    door: Door,
) -> int:
    with contextlib.ExitStack() as threads:
        pools = Pools(
            writer=writer,
            reader=threads.enter_context(ThreadPoolExecutor(1, thread_name_prefix="reader")),
            disk=threads.enter_context(ThreadPoolExecutor(2, thread_name_prefix="disk")),
            submissions=threads.enter_context(
                ThreadPoolExecutor(1, thread_name_prefix="submissions")
            ),
            holes=threads.enter_context(ThreadPoolExecutor(1, thread_name_prefix="holes")),
            files=threads.enter_context(ThreadPoolExecutor(1, thread_name_prefix="files")),
            watch=threads.enter_context(ThreadPoolExecutor(1, thread_name_prefix="watch")),
        )
        async with asyncio.TaskGroup() as tasks:
            streams = Streams(tasks.create_task)
            try:
                master = Master(config, token, store, recovered, pools, streams, reserve, look)
                return await _lead(config, master, door, tasks)
            except Ended as error:
                _say(f"titan-master: {error}")
                return error.code
            except OSError as error:
                _say(f"titan-master: {error.filename or config.data}: {error.strerror or error}")
                return os.EX_IOERR
            finally:
                streams.drop_all()


async def _lead(config: MasterConfig, master: Master, door: Door, tasks: asyncio.TaskGroup) -> int:
    """From the first turn to the last; the exit code."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(master.engine.broken)
    told = _when_told(loop)
    port = await master.open_door(door)
    sweeping = tasks.create_task(master.sweep.run())
    address = config.listen._replace(port=port)
    try:
        with _found_by_others(config, address):
            _tune_collector()
            _say(f"titan-master ready on {address}")
            code = await _first_of(told, master.engine.failure)
            if code == os.EX_OK:
                await master.close()
    finally:
        sweeping.cancel()
        master.logs.close()
    return code


def _when_told(loop: asyncio.AbstractEventLoop) -> asyncio.Future[int]:
    """Done, with 0, once a signal tells the process to stop."""
    told: asyncio.Future[int] = loop.create_future()

    def tell(number: int) -> None:
        if not told.done():
            _log.info("stopping signal=%s", signal.Signals(number).name)
            told.set_result(os.EX_OK)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, tell, number)
    return told


async def _first_of(told: asyncio.Future[int], failure: asyncio.Future[int]) -> int:
    # No deadline: this is how long a master runs.
    done, _ = await asyncio.wait({told, failure}, return_when=asyncio.FIRST_COMPLETED)
    return failure.result() if failure in done else told.result()


class Pools(Struct, frozen=True):
    """The threads beside the loop, by what they are for."""

    writer: ThreadPoolExecutor
    """One: the store's only writer."""
    reader: ThreadPoolExecutor
    """One: questions about history."""
    disk: ThreadPoolExecutor
    """Artifacts and logs in bulk."""
    submissions: ThreadPoolExecutor
    """One: large submissions, one after the other, so that their memory does not add up."""
    files: ThreadPoolExecutor
    """One: what is put into perm_files, so that nobody puts a name while another does."""
    holes: ThreadPoolExecutor
    """One: cuts what is too much out of logs, which waits for what the disk has not written yet."""
    watch: ThreadPoolExecutor
    """One: looks at the disk, which must not wait behind what is written to it."""


class Master:
    """A master put together."""

    def __init__(
        self,
        config: MasterConfig,
        token: Token,
        store: SqliteStore,
        recovered: Recovered,
        pools: Pools,
        streams: Streams,
        reserve: Reserve,
        look: Look,
    ) -> None:
        self._config = config
        self._links = LinkTable()
        self._clock = SystemClock()
        self._clock.not_before(recovered.last_at_ms)
        self._term = recovered.term
        # Whoever may have forgotten which fences were given goes on from where none can have been.
        self._fence = recovered.state.fence + FENCE_JUMP if recovered.is_behind else 0
        policy = CoreConfig(
            lost_after_ms=config.lost_after_ms,
            autoscale=config.autoscale,
            scale_every_ms=config.scale_every_ms,
            sibling_idle_ms=config.sibling_idle_ms,
            siblings_per_host=config.siblings_per_host,
            siblings_max=config.siblings_max,
            # Known to nobody else, and the same after a restart.
            spawn_key=hashlib.sha256(b"siblings" + token.key).digest(),
        )
        self.core = Core(recovered.state, policy)
        space = Space(look)
        blobs = BlobStore(config.data / "artifacts", space, self._clock.now_ms)
        perm_files = PermFiles(config.perm_files, blobs)
        self.logs = LogFiles(config.data / "logs", config.log_bytes, space, pools.holes)
        patience = LogPatience(
            slow_reader_s=config.slow_reader_ms / 1000,
            missing_bytes_s=config.log_patience_ms / 1000,
            followers_max=config.followers_max,
        )
        loop = asyncio.get_running_loop()

        def held_before(worker_id: str, ref: AttemptRef) -> asyncio.Future[bool]:
            def look() -> bool:
                rows = store.attempts(ref.run_id, ref.job_id)
                return any((r.number, r.worker_id) == (ref.number, worker_id) for r in rows)

            # On the writer's thread, so behind the commit that may just be ending this attempt.
            return loop.run_in_executor(pools.writer, look)

        rights = LogRights(self.core.may_log, held_before)
        feed = LogFeed(self.logs, streams, pools.disk, patience)
        self.engine = Engine(
            core=self.core,
            poison=recovered.state.poison,
            store=store,
            term=recovered.term,
            writer=pools.writer,
            answer=Answers(store, new_id, lambda pins: missing(blobs, pins)).answer,
            reader=pools.reader,
            clock=self._clock,
            links=self._links,
            logs=LogDesk(self._links, feed, self.logs, rights),
            config=EngineConfig(inbox_max=config.inbox_max, turn_inputs_max=config.turn_inputs_max),
        )
        self._first_look = look
        self._watch = DiskWatch(
            reserve=reserve, space=space, worker=pools.watch, tell=self._tell_of_disk
        )
        self.sweep = ArtifactSweep(
            blobs=blobs,
            noted=lambda: noted(self.core.state).pins,
            disk=pools.disk,
            now_ms=self._clock.now_ms,
            keep_ms=config.artifact_keep_ms,
            bytes_max=config.artifacts_bytes,
        )
        desks = Desks(
            inbox=self.engine,
            submissions=Submissions(
                blobs=blobs,
                perm_files=perm_files,
                stager=Stager(blobs, perm_files, pools.files, self._clock.now_ms),
                streams=streams,
                worker=pools.submissions,
                is_known_key=lambda key: self.core.knows_key(key, self._clock.now_ms()),
                put=self.engine.put,
            ),
            artifacts=Artifacts(blobs, perm_files, streams, pools.disk),
            names=Names(
                perm_files=perm_files,
                blobs=blobs,
                streams=streams,
                lookers=pools.disk,
                putter=pools.files,
                now_ms=self._clock.now_ms,
            ),
            logs=self.logs,
            rights=rights,
            streams=streams,
            traffic=self._links.traffic,
            tickets=TicketDesk(self._clock.now_ms),
            usage=UsageDesk(
                self._clock.now_ms,
                UsageLimits(
                    history_ms=USAGE_HISTORY_MS,
                    history_bytes=USAGE_HISTORY_BYTES,
                    reply_bytes=USAGE_REPLY_BYTES,
                ),
            ),
        )
        self._listener = Listener(
            links=self._links,
            desks=desks,
            gatekeeper=Gatekeeper([Grant(token=token, roles=ANY_ROLE)]),
            welcome=self._welcome,
            config=ListenerConfig(
                links_max=config.links_max,
                strangers_max=config.strangers_max,
                handshake_timeout_s=config.handshake_timeout_ms / 1000,
            ),
        )
        state = recovered.state
        _log.info(
            "recovered records=%d term=%d runs=%d workers=%d services=%d attempts=%d",
            recovered.last_seq, recovered.term, len(state.runs), len(state.workers),
            len(state.services), sum(len(worker.held) for worker in state.workers.values()),
        )  # fmt: skip
        if recovered.note:
            _log.warning("recovered, but %s", recovered.note)

    async def open_door(self, door: Door) -> int:
        """Take the lead durably, then listen on what `bind` has taken; the port."""
        self.core.start(
            self._clock.now_ms(),
            term=self._term,
            software=SOFTWARE,
            cluster_id=new_id(),
            cluster_name=self._config.name,
            fence=self._fence,
        )
        try:
            await self.engine.begin(self.core.drain())
        except StoreError as error:
            raise Ended(os.EX_IOERR, str(error)) from error
        self._watch.begin(self._first_look)
        try:
            return await self._listener.start(door)
        except OSError as error:
            raise _cannot_listen(self._config.listen, error) from error

    async def close(self) -> None:
        """End in good order: what is under way becomes durable, everybody hears goodbye."""
        self._watch.close()
        await self.engine.stop()
        await self._listener.close(ErrorCode.SHUTTING_DOWN, "the master is being stopped")

    def _tell_of_disk(self, look: Look) -> None:
        self.engine.put(
            StorageChanged(
                room_bytes=look.room_bytes,
                free_bytes=look.free_bytes,
                wanted_bytes=look.wanted_bytes,
            )
        )

    def _welcome(self, link_id: int) -> Welcome:
        state = self.core.state
        return Welcome(
            version=1,  # the connection puts in what was agreed on
            cluster_id=state.cluster_id,
            cluster_name=state.cluster_name,
            software=SOFTWARE,
            term=self._term,
            link_id=link_id,
            features=FEATURES,
            limits={
                "frame_payload_bytes": FRAME_PAYLOAD_BYTES,
                "inline_spec_bytes": INLINE_SPEC_BYTES,
                "log_bytes_per_attempt": self._config.log_bytes,
            },
        )


class LogDesk:
    """The data plane's face to the engine."""

    def __init__(self, links: LinkTable, feed: LogFeed, files: LogFiles, rights: LogRights) -> None:
        self._links = links
        self._feed = feed
        self._files = files
        self._rights = rights

    def open(self, ref: AttemptRef, worker_id: str) -> None:
        """This worker may write that log from now on."""
        self._rights.open(ref, worker_id)

    def finish(self, ref: AttemptRef, stdout_bytes: int, stderr_bytes: int) -> None:
        """The attempt has ended, having written so much."""
        self._files.finish(ref, stdout_bytes, stderr_bytes)

    def serve(
        self,
        origin: Origin,
        ref: AttemptRef,
        request: ReadLog,
        final_bytes: tuple[int, int] | None,
    ) -> None:
        """Stream a log to whoever asked, if they are still there."""
        link = self._links.get(origin.link_id)
        if link is not None:
            self._feed.serve(link, origin.correlation, ref, request, final_bytes)


# -- the process and its files ------------------------------------------------------------------


def _own_token(path: Path) -> Token:
    """The local token: made at the first start, refused where others may read it."""
    try:
        if not path.exists():
            _write_private(path, format_token("local", new_id(), new_key()) + "\n")
        text = read_token_file(path)
        if text is None:
            raise Ended(os.EX_CONFIG, f"{path} cannot be read")
        return parse_token(text)
    except (LinkError, BadToken) as error:
        raise Ended(os.EX_CONFIG, str(error)) from error
    except OSError as error:
        raise Ended(os.EX_IOERR, f"{path}: {error.strerror}") from error


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


@contextlib.contextmanager
def _found_by_others(config: MasterConfig, address: Address) -> Iterator[None]:
    """While this lasts, clients of this account find the master by its files."""
    local = address._replace(host=_LOOPBACK) if address.host in _EVERYWHERE else address
    note = config.data / "address"
    _write_private(note, f"{local}\n")
    link = token_link(local, os.environ) if config.token_link else None
    target = config.data / "token"
    if link is not None:
        _leave_link(link, target)
    try:
        yield
    finally:
        note.unlink(missing_ok=True)
        # Another master may have put its own there since.
        if link is not None and link.is_symlink() and link.readlink() == target:
            link.unlink(missing_ok=True)


def _leave_link(link: Path, target: Path) -> None:
    draft = link.with_name(f"{link.name}.{os.getpid()}.new")
    try:
        link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        draft.symlink_to(target)
        draft.replace(link)
    except OSError as error:
        # A home that cannot be written to is no reason not to run: TITAN_TOKEN_FILE still works.
        _log.warning("no token link path=%s error=%s", link, error.strerror)


def _cannot_listen(listen: Address, error: OSError) -> Ended:
    if error.errno == errno.EADDRINUSE:
        return Ended(
            os.EX_TEMPFAIL,
            f"{listen} is in use: another master, or another program, listens there; "
            "choose another port with --listen",
        )
    return Ended(os.EX_CONFIG, f"cannot listen on {listen}: {error.strerror or error}")


def _raise_file_limit() -> None:
    """Room for every link and log: the usual soft limit is below what a master may hold."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, _FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _tune_collector() -> None:
    """State holds no cycles: let the collector look rarely, and never at what is here already."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - for whoever started the process
