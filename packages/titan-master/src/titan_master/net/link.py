"""One link: messages in, checked against the access table and sent where they belong.

Questions and reports go to the core by the inbox; bytes go to the data plane and never through the
core. Nothing is decided here but whether this peer may say this. When the inbox is full the link is
not read until there is room. Made by ``listener.py``, one per connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar, Final, Protocol, get_args

from msgspec import Struct
from msgspec.structs import astuple

from titan_master.core.inputs import (
    Ask,
    Asked,
    ExchangeDropped,
    Heard,
    Input,
    LinkClosed,
    Origin,
    ReportsArrived,
    SpawnsReported,
    WorkerArrived,
    WorkerHeard,
    WorkerLeft,
)
from titan_master.data.artifacts import Artifacts
from titan_master.data.feed import Streams
from titan_master.data.logs import LogFiles
from titan_master.data.names import Names
from titan_master.data.reserve import is_full
from titan_master.data.tickets import TicketDesk
from titan_master.data.usage import UsageDesk
from titan_master.net.access import Identity, is_allowed
from titan_master.net.submission import Submissions
from titan_proto import outputs
from titan_proto.connection import Received
from titan_proto.errors import ErrorCode, FrameTooLarge
from titan_proto.handshake import LOG_UDP
from titan_proto.ids import AttemptRef, is_digest, is_instance_id, is_run_id
from titan_proto.io.aio import AioLink
from titan_proto.limits import (
    BULK_CHUNK_BYTES,
    CPU_MILLI,
    FILE_LIST_BYTES,
    FILES_LEFT_PER_JOB,
    LOG_OFFSET,
    MEMORY_BYTES,
    OUTBOX_BULK_BYTES,
    REPORT_MESSAGE_CHARS,
    REPORTS_PER_FRAME,
    RESOURCE_AMOUNT,
    RESOURCES_PER_WORKER,
    SKILL_CHARS,
    SKILLS_PER_JOB,
    USAGE_ATTEMPTS,
    WORKER_SLOTS,
)
from titan_proto.messages import (
    STDERR,
    STDOUT,
    AnyMessage,
    ArtifactChunk,
    AttemptReport,
    AttemptReports,
    Cancel,
    Error,
    FetchArtifact,
    FindFiles,
    GetTraffic,
    GetUsage,
    HeartbeatAck,
    IssueTicket,
    Join,
    Kin,
    Leave,
    ListFiles,
    LogAck,
    LogChunk,
    LogGap,
    NameFile,
    OfferArtifact,
    Pong,
    PutSchedule,
    RedeemTicket,
    Request,
    SpawnReport,
    SpawnReports,
    SubmitRun,
    Traffic,
    WorkerStatus,
    WorkerUsage,
)
from titan_proto.messages.worker import Left
from titan_proto.opcodes import OpCode
from titan_proto.validation import resource_name_fault

_log = logging.getLogger("titan.link")

_HOST_CHARS: Final = 253
_ID_CHARS: Final = 128
_CORES_MAX: Final = 65_536
_PORT_MAX: Final = 65_535
_NUMBER_MAX: Final = 2**63 - 1
"""What a column of the database holds; a larger number in an event could never be committed."""
_TIME_MAX_MS: Final = 253_402_300_799_999
"""The end of the year 9999."""
_SKILLS_MAX: Final = 4 * SKILLS_PER_JOB
_AMOUNTS: Final = {"cpu": CPU_MILLI, "memory": MEMORY_BYTES}
"""The most that a worker can have of what is measured in units of its own."""
_ROOM_LEFT_BYTES: Final = OUTBOX_BULK_BYTES - 1024 * 1024
"""Of the bulk lane a master fills but a MiB: more does not leave sooner, and a thousand readers that
do not read would each hold all of it."""
_LOGS_REMEMBERED: Final = 4_096
"""Of so many attempts, ended or not, it is remembered who may write their logs."""
_CHUNKS_HELD: Final = 64


class Inbox(Protocol):
    """The engine, as a link sees it."""

    def put(self, item: Input) -> None:
        """Take an input in."""
        ...

    def hear(self, link_id: int, status: WorkerStatus) -> Heard:
        """A heartbeat was received just now."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether to hold back until `when_room`."""
        ...

    def when_room(self, call: Callable[[], None]) -> None:
        """Call this once when there is room."""
        ...


class LogRights:
    """Which worker may write which log.

    The core knows of what is live. What has just ended is remembered here, for its last bytes come
    after its report; of what ended long ago, or before a restart, history is asked.
    """

    def __init__(
        self,
        may_log: Callable[[int, AttemptRef], bool],
        held_before: Callable[[str, AttemptRef], asyncio.Future[bool]],
    ) -> None:
        self._may_log = may_log
        self.held_before = held_before
        self._opened: OrderedDict[AttemptRef, str] = OrderedDict()

    def open(self, ref: AttemptRef, worker_id: str) -> None:
        """The attempt has been placed on this worker."""
        self._opened[ref] = worker_id
        if len(self._opened) > _LOGS_REMEMBERED:
            self._opened.popitem(last=False)

    def may_write(self, link_id: int, worker_id: str, ref: AttemptRef) -> bool:
        """Whether this is known without looking into history."""
        return self._opened.get(ref) == worker_id or self._may_log(link_id, ref)


class Desks(Struct, frozen=True, kw_only=True):
    """Where messages go."""

    inbox: Inbox
    submissions: Submissions
    artifacts: Artifacts
    names: Names
    logs: LogFiles
    rights: LogRights
    streams: Streams
    traffic: Callable[[], Traffic]
    usage: UsageDesk
    tickets: TicketDesk


class MasterLink:
    """The master's side of one open link."""

    def __init__(self, wire: AioLink, link_id: int, identity: Identity, desks: Desks) -> None:
        self._wire = wire
        self._link_id = link_id
        self.identity = identity
        self._desks = desks
        self._worker_id = ""
        self._kin: Kin | None = None
        self.worker = ""
        """Name of the worker that has asked to join on it."""
        self._acks: dict[tuple[AttemptRef, int], int] = {}
        self._is_short_of_room = False
        features = wire.connection.features
        self.copies_key = wire.connection.datagram_key if LOG_UDP in features else b""
        """What copies of its logs are sealed under that come by datagram; empty: none do."""
        self._held: list[LogChunk | LogGap] = []
        """Pieces of logs that wait for an answer from history."""

    # -- out: what the engine and the data plane call ---------------------------------------------

    @property
    def link_id(self) -> int:
        """Its number; never used twice."""
        return self._link_id

    @property
    def peer(self) -> str:
        """The peer's network address."""
        return self._wire.peer

    def send(self, message: AnyMessage, correlation: int = 0, *, end: bool = False) -> None:
        """Queue a message; one too large for a frame ends its exchange, or the link, alone."""
        try:
            self._wire.send(message, correlation, end=end)
        except FrameTooLarge as error:
            what = f"{type(message).__name__}: {error}"
            _log.error("not sent link=%d peer=%s %s", self._link_id, self.peer, what)
            if correlation:
                refusal = Error(code=ErrorCode.LIMIT_EXCEEDED, message=what)
                self._wire.send(refusal, correlation, end=True)
            else:
                self.close(ErrorCode.INTERNAL, what)

    def has_bulk_room(self, wanted_bytes: int) -> bool:
        """Whether so many bytes of bulk may be queued at once."""
        connection = self._wire.connection
        return connection.is_open and connection.bulk_room >= wanted_bytes + _ROOM_LEFT_BYTES

    async def bulk_room(self, wanted_bytes: int) -> None:
        """Wait until they may. Raises LinkLost."""
        await self._wire.bulk_room(wanted_bytes + _ROOM_LEFT_BYTES)

    def close(self, code: ErrorCode, reason: str) -> None:
        """Say goodbye and hang up."""
        self._wire.close(code, reason)

    def abort(self) -> None:
        """Hang up without a word."""
        self._wire.abort()

    # -- in ---------------------------------------------------------------------------------------

    def receive(self, received: Received) -> None:
        """Take one message; whatever goes wrong with it ends this link alone."""
        try:
            self._dispatch(received)
        except Exception:  # outermost  # noqa: BLE001
            _log.exception("link failed link=%d peer=%s", self._link_id, self.peer)
            self.close(ErrorCode.INTERNAL, "the master failed over a message of this link")

    def closed(self) -> None:
        """The link is gone."""
        self._held.clear()
        self._desks.streams.drop_link(self._link_id)
        self._desks.artifacts.drop_link(self._link_id)
        self._desks.usage.gone(self)
        self._desks.inbox.put(LinkClosed(link_id=self._link_id))

    @classmethod
    def handles(cls, kind: type) -> bool:
        """Whether messages of this kind go somewhere: a request that went nowhere would hang."""
        return kind in _ASKS or kind in cls._HANDLERS

    def _dispatch(self, received: Received) -> None:
        message = received.message
        if not is_allowed(self.identity.role, message.OPCODE):
            self._deny(message, received.correlation)
            return
        kind = type(message)
        if isinstance(message, Request) and not received.correlation:
            self._break_off(f"{kind.__name__} outside an exchange cannot be answered")
            return
        if kind in _ASKS:
            origin = Origin(self._link_id, received.correlation)
            by = self.identity.name
            self._put(Asked(origin=origin, request=message, by=by))  # type: ignore[arg-type]
            return
        handler = self._HANDLERS.get(kind)
        if handler is not None:
            handler(self, message, received)

    def _deny(self, message: AnyMessage, correlation: int) -> None:
        what = f"role {self.identity.role} may not send {type(message).__name__}"
        _log.warning("denied link=%d peer=%s %s", self._link_id, self.peer, what)
        if correlation:
            error = Error(code=ErrorCode.PERMISSION_DENIED, message=what)
            self.send(error, correlation, end=True)
        else:
            self.close(ErrorCode.PERMISSION_DENIED, what)

    def _break_off(self, what: str) -> None:
        _log.warning("protocol broken link=%d peer=%s %s", self._link_id, self.peer, what)
        self.close(ErrorCode.PROTOCOL, what)

    def _put(self, item: Input) -> None:
        inbox = self._desks.inbox
        inbox.put(item)
        if inbox.is_full:
            self._wire.pause_reading(inbox)
            inbox.when_room(lambda: self._wire.resume_reading(inbox))

    # -- exchanges of clients ---------------------------------------------------------------------

    def _submit(self, message: SubmitRun, received: Received) -> None:
        owner = self.identity.name
        self._desks.submissions.submit(self, received.correlation, owner, message)

    def _put_schedule(self, message: PutSchedule, received: Received) -> None:
        owner = self.identity.name
        self._desks.submissions.put_schedule(self, received.correlation, owner, message)

    def _cancelled(self, _message: Cancel, received: Received) -> None:
        self._desks.streams.drop(self._link_id, received.correlation)
        self._desks.artifacts.drop(self._link_id, received.correlation)
        self._put(ExchangeDropped(origin=Origin(self._link_id, received.correlation)))

    def _offer(self, message: OfferArtifact, received: Received) -> None:
        self._desks.artifacts.offer(self, received.correlation, message)

    def _artifact_chunk(self, message: ArtifactChunk, received: Received) -> None:
        artifacts = self._desks.artifacts
        artifacts.chunk(self, received.correlation, message, is_last=received.end)

    def _fetch(self, message: FetchArtifact, received: Received) -> None:
        self._desks.artifacts.fetch(self, received.correlation, message)

    def _find_files(self, message: FindFiles, received: Received) -> None:
        self._desks.artifacts.find_files(self, received.correlation, message)

    def _list_files(self, message: ListFiles, received: Received) -> None:
        self._desks.names.list_files(self, received.correlation, message)

    def _name_file(self, message: NameFile, received: Received) -> None:
        self._desks.names.name_file(self, received.correlation, message)

    def _get_traffic(self, _message: GetTraffic, received: Received) -> None:
        self.send(self._desks.traffic(), received.correlation, end=True)

    def _issue_ticket(self, _message: IssueTicket, received: Received) -> None:
        who = self.identity
        _log.info("ticket issued link=%d for=%s role=%s", self._link_id, who.name, who.role)
        self.send(self._desks.tickets.issue(who.role, who.name), received.correlation, end=True)

    def _redeem_ticket(self, message: RedeemTicket, received: Received) -> None:
        found = self._desks.tickets.redeem(message.ticket)
        if found is None:
            _log.warning("ticket refused link=%d peer=%s", self._link_id, self.peer)
            text = "that ticket was used, is too old, or is of another start of this master"
            refusal = Error(code=ErrorCode.NOT_FOUND, message=text)
            self.send(refusal, received.correlation, end=True)
            return
        _log.info("ticket redeemed link=%d for=%s role=%s", self._link_id, found.name, found.role)
        self.send(found, received.correlation, end=True)

    def _get_usage(self, message: GetUsage, received: Received) -> None:
        self._desks.usage.answer(self, received.correlation, message)

    # -- workers ----------------------------------------------------------------------------------

    def _join(self, message: Join, _received: Received) -> None:
        complaint = join_complaint(message)
        if complaint:
            self.close(ErrorCode.MALFORMED, complaint)
            return
        if self._worker_id not in {"", message.worker_id}:
            self._break_off(f"worker {self._worker_id} joins as {message.worker_id}")
            return
        self._worker_id = message.worker_id
        self.worker = f"{message.host}:{message.port}"
        _log.info(
            "worker link up link=%d worker=%s worker_id=%s incarnation=%d peer=%s",
            self._link_id, self.worker, message.worker_id, message.incarnation, self.peer,
        )  # fmt: skip
        self._put(WorkerArrived(link_id=self._link_id, join=message, kin=self._kin))

    def _hear_kin(self, message: Kin, _received: Received) -> None:
        """It belongs to the Join that follows."""
        complaint = kin_complaint(message)
        if complaint:
            self.close(ErrorCode.MALFORMED, complaint)
            return
        self._kin = message

    def _status(self, message: WorkerStatus, _received: Received) -> None:
        """Stamped and acknowledged at once: a worker's lease does not wait for our disk."""
        heard = self._desks.inbox.hear(self._link_id, message)
        if heard is Heard.STRANGER:
            return
        if heard is Heard.CHANGING:
            self._put(WorkerHeard(link_id=self._link_id, status=message))
        if message.beat:
            self.send(HeartbeatAck(beat=message.beat))

    def _reports(self, message: AttemptReports, _received: Received) -> None:
        complaint = reports_complaint(message.reports)
        if complaint:
            _log.warning("bad report link=%d peer=%s %s", self._link_id, self.peer, complaint)
            self.close(ErrorCode.MALFORMED, complaint)
            return
        self._put(ReportsArrived(link_id=self._link_id, reports=message.reports))

    def _usage(self, message: WorkerUsage, _received: Received) -> None:
        complaint = usage_complaint(message)
        if complaint or not self._worker_id:
            self._break_off(complaint or "who has not joined is not busy")
            return
        self._desks.usage.heard(self, self._worker_id, self.worker, message)

    def _spawn_reports(self, message: SpawnReports, _received: Received) -> None:
        complaint = spawns_complaint(message.reports)
        if complaint:
            self.close(ErrorCode.MALFORMED, complaint)
            return
        self._put(SpawnsReported(link_id=self._link_id, reports=message.reports))

    def _leave(self, _message: Leave, _received: Received) -> None:
        self._put(WorkerLeft(link_id=self._link_id))

    def may_log(self, ref: AttemptRef) -> bool:
        """Whether its worker may write that log, as far as is known without looking into history."""
        is_worker = is_allowed(self.identity.role, OpCode.LOG_CHUNK)
        return is_worker and self._desks.rights.may_write(self._link_id, self._worker_id, ref)

    # -- logs -------------------------------------------------------------------------------------

    def _log_chunk(self, chunk: LogChunk | LogGap, _received: Received) -> None:
        if chunk.stream not in {STDOUT, STDERR} or not 0 <= chunk.offset <= LOG_OFFSET:
            self._break_off(f"a log has no stream {chunk.stream} with offset {chunk.offset}")
            return
        if not 0 <= chunk.seen_at_ms <= _TIME_MAX_MS:
            self._break_off(f"a piece of log seen at {chunk.seen_at_ms}")
            return
        if not _is_ref(chunk.ref):
            self._break_off("a log of what cannot be an attempt")
            return
        if isinstance(chunk, LogChunk) and len(chunk.data) > BULK_CHUNK_BYTES:
            self._break_off(f"a piece of log has at most {BULK_CHUNK_BYTES} bytes")
            return
        rights = self._desks.rights
        if self._held:
            # Behind one that is being looked up: what belongs together stays in order.
            self._hold(chunk)
        elif rights.may_write(self._link_id, self._worker_id, chunk.ref):
            self._store(chunk)
        else:
            self._hold(chunk)
            self._look_up(chunk.ref)

    def _store(self, chunk: LogChunk | LogGap) -> None:
        try:
            log = self._desks.logs.get(chunk.ref)
            if isinstance(chunk, LogGap):
                settled = log.skip(chunk.stream, chunk.offset, chunk.seen_at_ms)
            else:
                settled = log.append(chunk.stream, chunk.offset, chunk.data, chunk.seen_at_ms)
        except OSError as error:
            if is_full(error):
                self._wait_for_room(chunk.ref)
                return
            # The worker keeps its copy, and comes back after a while from the last settled offset.
            _log.error("log not stored ref=%s error=%s", chunk.ref, error.strerror)
            self.close(ErrorCode.UNAVAILABLE, f"the master cannot store logs: {error.strerror}")
            return
        if not self._acks:
            # One acknowledgement for all the pieces that came in one read.
            asyncio.get_running_loop().call_soon(self._send_acks)
        self._acks[chunk.ref, chunk.stream] = settled

    def _wait_for_room(self, ref: AttemptRef) -> None:
        """No room for logs: they stay where they are, unacknowledged, and everything else goes on."""
        if self._is_short_of_room:
            return
        self._is_short_of_room = True
        _log.warning("disk full, logs wait link=%d peer=%s ref=%s", self._link_id, self.peer, ref)
        self._desks.logs.space.when_room(self._ship_again)

    def _ship_again(self) -> None:
        """There is room again: on a new link every log is asked for from where it stands here."""
        if self._wire.connection.is_open:
            self.close(
                ErrorCode.UNAVAILABLE, "the master's disk has room again: ship the logs anew"
            )

    def _send_acks(self) -> None:
        acks, self._acks = self._acks, {}
        for (ref, stream), offset in acks.items():
            self.send(LogAck(ref, stream, offset))

    def _hold(self, chunk: LogChunk | LogGap) -> None:
        self._held.append(chunk)
        if len(self._held) >= _CHUNKS_HELD:
            self._wire.pause_reading(self)

    def _look_up(self, ref: AttemptRef) -> None:
        answer = self._desks.rights.held_before(self._worker_id, ref)
        answer.add_done_callback(lambda done: self._looked_up(ref, done))

    def _looked_up(self, ref: AttemptRef, answer: asyncio.Future[bool]) -> None:
        if answer.cancelled() or answer.exception() is not None or not answer.result():
            self._held.clear()
            self._break_off(f"this worker does not hold attempt {ref}: its log is not taken")
            return
        rights = self._desks.rights
        rights.open(ref, self._worker_id)
        held, self._held = self._held, []
        self._wire.resume_reading(self)
        for chunk in held:
            self._log_chunk(chunk, Received(chunk, 0, end=False))

    def _ignore(self, _message: AnyMessage, _received: Received) -> None:
        """Allowed, and of no consequence: a Pong, or an Error about something we sent."""

    _HANDLERS: ClassVar[dict[type, Callable[[MasterLink, Any, Received], None]]] = {
        SubmitRun: _submit,
        PutSchedule: _put_schedule,
        Cancel: _cancelled,
        OfferArtifact: _offer,
        ArtifactChunk: _artifact_chunk,
        FetchArtifact: _fetch,
        FindFiles: _find_files,
        ListFiles: _list_files,
        NameFile: _name_file,
        GetTraffic: _get_traffic,
        GetUsage: _get_usage,
        IssueTicket: _issue_ticket,
        RedeemTicket: _redeem_ticket,
        Join: _join,
        WorkerStatus: _status,
        AttemptReports: _reports,
        Kin: _hear_kin,
        SpawnReports: _spawn_reports,
        Leave: _leave,
        WorkerUsage: _usage,
        LogChunk: _log_chunk,
        LogGap: _log_chunk,
        Pong: _ignore,
        Error: _ignore,
    }


def join_complaint(join: Join) -> str:
    """What is wrong with a worker's introduction; empty if nothing is."""
    if not 0 < len(join.worker_id) <= _ID_CHARS or not join.worker_id.isprintable():
        return f"a worker's id has 1 to {_ID_CHARS} printable characters"
    if not 0 < len(join.host) <= _HOST_CHARS or not join.host.isprintable():
        return f"a worker's host has 1 to {_HOST_CHARS} printable characters"
    if not 0 <= join.port <= _PORT_MAX:
        return f"port {join.port} does not exist"
    if not 0 <= join.incarnation <= _NUMBER_MAX:
        return f"{join.incarnation} counts no starts"
    for name, said in (("boot_id", join.boot_id), ("software", join.software)):
        if len(said) > _ID_CHARS or not said.isprintable():
            return f"a worker's {name} has at most {_ID_CHARS} printable characters"
    if not 0 < join.slots <= WORKER_SLOTS:
        return f"a worker has 1 to {WORKER_SLOTS} (WORKER_SLOTS) slots, not {join.slots}"
    if len(join.skills) > _SKILLS_MAX:
        return f"a worker has at most {_SKILLS_MAX} skills"
    for name, said in (("workspace", join.workspace), ("network", join.network)):
        if len(said) > _ID_CHARS or not said.isprintable():
            return f"a worker's {name} has at most {_ID_CHARS} printable characters"
    for skill in join.skills:
        if not 0 < len(skill) <= SKILL_CHARS or not skill.isprintable():
            return f"a skill has 1 to {SKILL_CHARS} (SKILL_CHARS) printable characters"
    return _resource_complaint(join.resources)


def _resource_complaint(resources: dict[str, int]) -> str:
    if len(resources) > RESOURCES_PER_WORKER:
        return f"a worker has at most {RESOURCES_PER_WORKER} (RESOURCES_PER_WORKER) resources"
    for name, amount in resources.items():
        rule = resource_name_fault(name)
        if rule:
            return f"a worker's resource has a name that cannot be one: expected {rule}"
        most = _AMOUNTS.get(name, RESOURCE_AMOUNT)
        if not 0 <= amount <= most:
            return f"a worker's {name} is 0 to {most}, not {amount}"
    return ""


def kin_complaint(kin: Kin) -> str:
    """What is wrong with what a worker says of its siblings; empty if nothing is."""
    if not 0 <= kin.cores <= _CORES_MAX:
        return f"a host has at most {_CORES_MAX} cores, not {kin.cores}"
    if not 0 <= kin.number <= _NUMBER_MAX or len(kin.proof) > _ID_CHARS:
        return "nobody was asked for under such a number, or with such a proof"
    return spawns_complaint(kin.spawned)


def spawns_complaint(reports: tuple[SpawnReport, ...]) -> str:
    """What is wrong with reports on spawned workers; empty if nothing is."""
    if len(reports) > REPORTS_PER_FRAME:
        return f"more than REPORTS_PER_FRAME ({REPORTS_PER_FRAME}) reports in one message"
    for report in reports:
        if not 0 < report.number <= _NUMBER_MAX:
            return f"a report on sibling {report.number}, for which nobody can have asked"
        if len(report.message) > REPORT_MESSAGE_CHARS:
            return f"a report longer than REPORT_MESSAGE_CHARS ({REPORT_MESSAGE_CHARS})"
    return ""


def reports_complaint(reports: tuple[AttemptReport, ...]) -> str:
    """What is wrong with a worker's reports; empty if nothing is."""
    if len(reports) > REPORTS_PER_FRAME:
        return f"more than REPORTS_PER_FRAME ({REPORTS_PER_FRAME}) reports in one message"
    for report in reports:
        if not _is_ref(report.ref):
            return "a report on what cannot be an attempt"
        counts = (
            report.started_at_ms,
            report.ended_at_ms,
            report.stdout_bytes,
            report.stderr_bytes,
            report.signal,
        )
        if min(counts) < 0 or max(*counts, abs(report.exit_code)) > _NUMBER_MAX:
            return f"a report on {report.ref} with a number that cannot be"
        if not 0 <= report.port <= _PORT_MAX:
            return f"a report on {report.ref} with port {report.port}, which does not exist"
        if report.outputs and (problem := outputs.complaint(report.outputs)):
            return f"a report on {report.ref} with outputs that cannot be: {problem}"
        if report.left is not None and (problem := _left_complaint(report.left)):
            return f"a report on {report.ref} with files that cannot be: {problem}"
    return ""


_KEPT_ONLY: Final = Left(digest="", size_bytes=0, kept=True)


def _left_complaint(left: Left) -> str:
    if left == _KEPT_ONLY:
        return ""
    if not is_digest(left.digest):
        return "their list has no digest"
    if not 0 < left.size_bytes <= FILE_LIST_BYTES:
        return f"their list has 1 to {FILE_LIST_BYTES} (FILE_LIST_BYTES) bytes"
    if min(left.shared, left.artifacts) < 0 or left.shared + left.artifacts > FILES_LEFT_PER_JOB:
        return f"they are at most {FILES_LEFT_PER_JOB} (FILES_LEFT_PER_JOB)"
    return ""


def usage_complaint(message: WorkerUsage) -> str:
    """What is wrong with what a worker says of itself; empty if nothing is."""
    usage = message.usage
    if len(message.limits) > _ID_CHARS or not message.limits.isprintable():
        return f"a worker's limits have at most {_ID_CHARS} printable characters"
    if len(usage.attempts) > USAGE_ATTEMPTS:
        return f"the use of more than USAGE_ATTEMPTS ({USAGE_ATTEMPTS}) attempts at once"
    numbers = [value for value in astuple(usage) if isinstance(value, int)]
    for attempt in usage.attempts:
        if not _is_ref(attempt.ref):
            return "the use of what cannot be an attempt"
        numbers += (attempt.cpu_milli, attempt.memory_bytes, attempt.processes)
    if min(numbers) < 0 or max(numbers) > _NUMBER_MAX:
        return "a use that cannot be"
    return ""


def _is_ref(ref: AttemptRef) -> bool:
    """Whether there can be an attempt of that name: it is looked up, quoted, and made a path."""
    return is_run_id(ref.run_id) and is_instance_id(ref.job_id) and 0 < ref.number <= _NUMBER_MAX


_ASKS: Final[frozenset[type]] = frozenset(get_args(Ask))
"""What goes to the core as it is."""
