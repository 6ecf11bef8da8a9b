"""A master played by the test: a real Connection on a real socket, orders by hand, all remembered.

And a whole worker in the same loop, its processes real.
"""

import asyncio
import contextlib
import hashlib
import os
import secrets
import select
import subprocess
import sys

import msgspec
import pytest

from titan_proto.connection import Connection
from titan_proto.errors import ErrorCode
from titan_proto.handshake import format_token, key_of, parse_token
from titan_proto.ids import AttemptRef
from titan_proto.io.address import Address
from titan_proto.io.aio import AioLink
from titan_proto.io.entropy import new_id
from titan_proto.messages import (
    ArtifactChunk,
    ArtifactStored,
    ArtifactWanted,
    AttemptOrder,
    AttemptReports,
    Cancel,
    Error,
    FetchArtifact,
    HeartbeatAck,
    Join,
    Joined,
    Kin,
    Leave,
    LogAck,
    LogChunk,
    OfferArtifact,
    Refused,
    ReportAcks,
    StartAttempts,
    StopAttempts,
    Welcome,
    WorkerStatus,
    WorkerUsage,
)
from titan_proto.specs import ArtifactFormat, ArtifactRef, JobKind, JobSpec, Launch, LaunchKind
from titan_proto.states import AttemptState, ExitReason
from titan_worker.app import Worker
from titan_worker.config import CACHE_BYTES, Settings
from titan_worker.host.identity import boot_id
from titan_worker.ledger import Ledger

RUN = "r" * 16
SECRET = "5" * 64
TOKEN = format_token("local", "t1", SECRET)


class Peer:
    """The scripted master."""

    def __init__(self):
        self.cluster_id = "cluster-1"
        self.term = 1
        self.heartbeat_ms = 60_000
        self.links = []
        self.joins = []
        self.seen = []
        """Every message, in order, as (link's number, message)."""
        self.starts = {}
        self.ends = {}
        self.logs = {}
        self.blobs = {}
        self.fetches = []
        self.offers = []
        self.uploads = {}
        self.cut_upload_at = None
        self.answers_reports = True
        self.answers_beats = False
        """As masters do that are not too old for it."""
        self.is_silent = False
        """It takes in what it hears, and says nothing: as on a link that is open at one end only."""
        self.takes_logs = True
        self.refuses = None
        self.artifact_cuts = []
        """Bytes of an artifact: a piece that would go past the first of them is not sent, the link
        ends instead, and the next one counts."""
        self.join_stops = ()
        self.join_forgets = ()
        self.refuses_join = None
        self._ended = set()
        self._news = asyncio.Event()
        self._server = None
        self._tasks = set()

    async def open(self, port=0):
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, "127.0.0.1", port)
        self.address = Address("127.0.0.1", self._server.sockets[0].getsockname()[1])

    async def close(self):
        for task in self._tasks:
            task.cancel()
        if self._server is not None:
            self._server.close()
        for link in self.links:
            link.abort()
        # A transport's end is told on the loop's next pass.
        await asyncio.sleep(0)

    async def until(self, condition):
        async with asyncio.timeout(15):
            while not condition():
                self._news.clear()
                await self._news.wait()

    # -- what it says -----------------------------------------------------------------------------
    @property
    def link(self):
        return self.links[-1]

    def order(self, name, *orders, **fields):
        self.link.send(StartAttempts(term=self.term, orders=(order(name, **fields), *orders)))

    def stop(self, *names, reason=ExitReason.CANCELLED):
        refs = tuple(ref(name) for name in names)
        self.link.send(StopAttempts(term=self.term, refs=refs, reason=reason))

    def offer(self, data, name="", packed=False):
        """An artifact that this master has."""
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        kind = ArtifactFormat.ZIP if packed else ArtifactFormat.FILE
        return ArtifactRef(digest=digest, size_bytes=len(data), format=kind, name=name)

    def cut(self):
        """Break the present link without a word; what was said last may be lost with it."""
        self.link.abort()

    async def end_link(self):
        """End the present link behind all that was said on it: the worker hears it, and no more.

        Not by an abort: with anything unread in this socket, or sent to it later, the kernel would
        send a reset, and throw away what the worker had not read yet. The end of a stream comes
        after all of it, and what the worker does then is what it does about any lost link.
        """
        link = self.link
        self._ended.add(link)
        while link.connection.pending_bytes:  # noqa: ASYNC110 - a buffer tells nobody
            await asyncio.sleep(0)
        link._transport.write_eof()

    # -- what it waits for ------------------------------------------------------------------------
    async def joined(self, count=1):
        await self.until(lambda: len(self.joins) >= count)

    async def end_of(self, name, number=1):
        key = ref(name, number)
        await self.until(lambda: key in self.ends)
        return self.ends[key]

    async def running(self, name):
        await self.until(lambda: ref(name) in self.starts)
        return self.starts[ref(name)]

    async def log_of(self, name, text, stream=1):
        """Until the log holds `text`; the log."""
        await self.until(lambda: text in self.log(name, stream))
        return self.log(name, stream)

    def log(self, name, stream=1, number=1):
        return bytes(self.logs.get((ref(name, number), stream), b""))

    def got(self, kind):
        return [message for _, message in self.seen if isinstance(message, kind)]

    def got_offer(self):
        return self.got(OfferArtifact)

    def seen_kinds(self):
        return {(link, type(message)) for link, message in self.seen}

    # -- inside -----------------------------------------------------------------------------------
    def _accept(self):
        connection = Connection.listener(
            server_nonce=secrets.token_bytes(32),
            authenticate=self._authenticate,
            welcome=lambda hello: Welcome(
                version=1,
                cluster_id=self.cluster_id,
                software="peer",
                term=self.term,
                link_id=len(self.links) + 1,
            ),
        )
        return AioLink(
            connection,
            on_open=lambda link, opened: self.links.append(link),
            on_message=self._message,
            on_close=lambda link, closed: self._news.set(),
        )

    def _authenticate(self, hello):
        if self.refuses is not None:
            return self.refuses
        if hello.token_id != parse_token(TOKEN).token_id:
            return Refused(code=ErrorCode.UNAUTHENTICATED, reason="no such token here")
        return key_of(SECRET)

    def _message(self, link, received):
        if link in self._ended:
            return  # said before it was seen that the link has ended
        message = received.message
        self.seen.append((len(self.links), message))
        if self.is_silent:
            self._news.set()
            return
        if isinstance(message, WorkerStatus) and self.answers_beats:
            link.send(HeartbeatAck(beat=message.beat))
        if isinstance(message, Join):
            self.joins.append(message)
            if self.refuses_join is not None:
                link.close(*self.refuses_join)
                self._news.set()
                return
            link.send(
                Joined(
                    term=self.term,
                    heartbeat_ms=self.heartbeat_ms,
                    lost_after_ms=6 * self.heartbeat_ms,
                    stop=self.join_stops,
                    forget=self.join_forgets,
                )
            )
        elif isinstance(message, AttemptReports):
            self._reports(link, message)
        elif isinstance(message, LogChunk):
            self._log(link, message)
        elif isinstance(message, FetchArtifact):
            self.fetches.append(message)
            task = asyncio.ensure_future(self._serve(link, received.correlation, message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif isinstance(message, OfferArtifact):
            self._offered(link, received.correlation, message)
        elif isinstance(message, ArtifactChunk):
            self._piece(link, received, message)
        else:
            assert isinstance(message, WorkerStatus | WorkerUsage | Kin | Leave | Cancel), message
        self._news.set()

    def _reports(self, link, message):
        for report in message.reports:
            (self.ends if report.state is AttemptState.ENDED else self.starts)[report.ref] = report
        ended = tuple(r.ref for r in message.reports if r.state is AttemptState.ENDED)
        if ended and self.answers_reports:
            link.send(ReportAcks(refs=ended))

    def _offered(self, link, correlation, offer):
        self.offers.append(offer)
        if offer.digest in self.blobs:
            link.send(ArtifactStored(digest=offer.digest), correlation, end=True)
            return
        self.uploads[len(self.links), correlation] = (offer, bytearray())
        link.send(ArtifactWanted(), correlation)

    def _piece(self, link, received, chunk):
        offer, data = self.uploads[len(self.links), received.correlation]
        data += chunk.data
        if self.cut_upload_at is not None and len(data) > self.cut_upload_at:
            self.cut_upload_at = None
            link.abort()
            return
        if received.end:
            if hashlib.sha256(data).hexdigest() != offer.digest:
                error = Error(code=ErrorCode.MALFORMED, message="other bytes")
                link.send(error, received.correlation, end=True)
                return
            self.blobs[offer.digest] = bytes(data)
            link.send(ArtifactStored(digest=offer.digest), received.correlation, end=True)

    def _log(self, link, chunk):
        if not self.takes_logs:
            return
        have = self.logs.setdefault((chunk.ref, chunk.stream), bytearray())
        assert chunk.offset <= len(have), "a gap"
        have += chunk.data[len(have) - chunk.offset :]
        link.send(LogAck(chunk.ref, chunk.stream, len(have)))

    async def _serve(self, link, correlation, request):
        data = self.blobs.get(request.digest)
        if data is None:
            link.send(Error(code=ErrorCode.NOT_FOUND, message="no such artifact"), correlation)
            return
        offset = request.offset
        while True:
            piece = data[offset : offset + 65_536]
            end = offset + len(piece) >= len(data)
            await link.bulk_room(len(piece))
            if self.artifact_cuts and offset + len(piece) > self.artifact_cuts[0]:
                del self.artifact_cuts[0]
                await self.end_link()
                return
            link.send(ArtifactChunk(offset, piece), correlation, end=end)
            offset += len(piece)
            if end:
                return


def ref(name, number=1):
    return AttemptRef(RUN, name, number)


def order(
    name,
    *,
    shell=None,
    launch=None,
    number=1,
    workspace=None,
    takes_over="",
    ancestors=(),
    publishes=False,
    layers=(),
    intake=None,
    **spec,
):
    made = launch or Launch(kind=LaunchKind.SHELL, shell=shell)
    return AttemptOrder(
        ref=ref(name, number),
        fence=7,
        spec=JobSpec(id=name, launch=made, **spec),
        run_name="nightly",
        workspace=workspace,
        takes_over=takes_over,
        ancestors=ancestors,
        publishes=publishes,
        layers=layers,
        intake=intake or {},
    )


class Nest:
    """Workers in one data folder, one life after another."""

    def __init__(self, folder, peer):
        self.peer = peer
        self.settings = Settings(
            port=8080,
            master=peer.address,
            slots=2,
            skills=("GENERAL",),
            data=folder,
            cache_bytes=CACHE_BYTES,
            drain_ms=0,
            cgroups="asked",
            resources={},
        )
        self.worker = None
        self.life = None

    @property
    def jobs(self):
        return self.settings.workspace / "jobs" / RUN

    async def start(self):
        """Another life; returns once its master has seen it join."""
        joins = len(self.peer.joins)
        self.begin()
        await self.peer.joined(joins + 1)

    def begin(self):
        self.settings.private.mkdir(parents=True, exist_ok=True)
        self.ledger = Ledger.open(self.settings.private / "ledger.sqlite", new_id, boot_id())
        self.worker = Worker(self.settings, self.ledger)
        self.life = asyncio.ensure_future(self.worker.live())

    async def leave(self):
        """Ask it to stop; its exit code."""
        self.worker.stop()
        return await self.end()

    async def end(self):
        try:
            return await asyncio.wait_for(self.life, 20)
        finally:
            self.ledger.close()

    async def crash(self):
        """End it without a word: nothing is reported, what ran is killed."""
        self.life.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.life
        self.ledger.close()


class Command:
    """One ``titan-worker`` process."""

    def __init__(self, folder, *arguments, token="", before=None):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "titan_worker", *arguments],
            cwd=folder,
            env=os.environ | {"TITAN_TOKEN": token, "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            preexec_fn=before,  # noqa: PLW1509 - no threads here
        )

    def line_with(self, words):
        """The next line that has them; the test's timeout is the deadline."""
        for line in self.process.stderr:
            if words in line:
                return line
        raise AssertionError(f"ended without saying {words!r}")

    def end(self):
        rest = self.process.stderr.read()
        return self.process.wait(20), rest


@pytest.fixture
async def peer():
    found = Peer()
    await found.open()
    yield found
    await found.close()


@pytest.fixture
async def nest(tmp_path, peer, monkeypatch):
    monkeypatch.setenv("TITAN_TOKEN", TOKEN)
    found = Nest(tmp_path, peer)
    yield found
    if found.life is not None and not found.life.done():
        await found.crash()


@pytest.fixture
async def make_nest(peer):
    """Further workers: in a folder of their own, or on another port in a known one."""
    made = []

    def make(folder, **settings):
        found = Nest(folder, peer)
        found.settings = msgspec.structs.replace(found.settings, **settings)
        made.append(found)
        return found

    yield make
    for one in made:
        if one.life is not None and not one.life.done():
            await one.crash()


@pytest.fixture
def token():
    return TOKEN


@pytest.fixture
def wait_gone():
    def gone(pidfd, timeout_s=10):
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        return bool(poller.poll(timeout_s * 1000))

    return gone


@pytest.fixture
def make_order():
    return order


@pytest.fixture
def make_ref():
    return ref


@pytest.fixture
def service():
    return JobKind.SERVICE


@pytest.fixture
def command(tmp_path):
    started = []

    def start(*arguments, **options):
        started.append(Command(tmp_path, *arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()
        one.process.stderr.close()
