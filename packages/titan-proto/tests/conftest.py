"""What the tests of the wire share: two ends joined by memory, and a master of a few lines."""

from __future__ import annotations

import asyncio
import hashlib
import threading

import pytest

from titan_proto.connection import Closed, Connection, Opened, Received
from titan_proto.errors import ErrorCode
from titan_proto.handshake import Token, format_token, key_of
from titan_proto.io.address import Address
from titan_proto.io.aio import AioLink
from titan_proto.io.entropy import nonce
from titan_proto.limits import BULK_CHUNK_BYTES
from titan_proto.messages import (
    ArtifactChunk,
    ArtifactStored,
    ArtifactWanted,
    Cancel,
    Done,
    Error,
    FetchArtifact,
    GetRun,
    GetStats,
    Hello,
    JobChange,
    OfferArtifact,
    Refused,
    Role,
    RunView,
    Stats,
    WatchRun,
    Welcome,
)
from titan_proto.states import JobState, RunState

SECRET = "5e" * 32
DEADLINE_S = 10.0
STATS = Stats(
    cluster_id="c1",
    cluster_name="test",
    term=1,
    at_ms=2,
    started_at_ms=1,
    workers=(),
    runs_active=0,
    queued=0,
    blocked=0,
    delayed=0,
    running=0,
    services=0,
)


def make_hello(**changes) -> Hello:
    """A Hello as a client sends it, with a nonce that is always the same."""
    fields = {
        "versions": (1,),
        "role": Role.CLIENT,
        "software": "test 1.0",
        "token_id": "t1",
        "client_nonce": bytes(range(32)),
    }
    return Hello(**{**fields, **changes})


def make_welcome(_hello: Hello) -> Welcome:
    return Welcome(version=99, cluster_id="c1", software="test-master 1.0", term=3, link_id=7)


class Pair:
    """A dialler and a listener joined by memory; all that each has said and been told is kept."""

    def __init__(self, *, hello=None, key=None, authenticate=None, welcome=make_welcome):
        self.key = key_of(SECRET)
        self.dialler = Connection.dialler(hello=hello or make_hello(), key=key or self.key)
        self.listener = Connection.listener(
            server_nonce=bytes(range(32, 64)),
            authenticate=authenticate or (lambda _hello: self.key),
            welcome=welcome,
        )
        self.from_dialler = bytearray()
        self.from_listener = bytearray()
        self.at_dialler: list = []
        self.at_listener: list = []

    def pump(self) -> Pair:
        """Carry bytes both ways until both are silent."""
        while True:
            out, back = self.dialler.data_to_send(), self.listener.data_to_send()
            if not out and not back:
                return self
            self.from_dialler += out
            self.from_listener += back
            self.at_listener += self.listener.receive_data(out)
            self.at_dialler += self.dialler.receive_data(back)

    def news(self) -> tuple[list, list]:
        """Carry, and give what is new: at the dialler, at the listener."""
        self.at_dialler.clear()
        self.at_listener.clear()
        self.pump()
        return list(self.at_dialler), list(self.at_listener)


@pytest.fixture(scope="session")
def make_pair():
    """Makes a Pair that has not spoken yet."""
    return Pair


@pytest.fixture
def pair():
    """A Pair whose handshake is over."""
    made = Pair().pump()
    assert made.dialler.is_open
    assert made.listener.is_open
    return made


@pytest.fixture
def hello():
    return make_hello


class TestMaster:
    """A listener in a thread of its own, with answers that the tests know."""

    __test__ = False
    token = format_token("local", "t1", SECRET)

    def __init__(self, handshake_timeout_s: float) -> None:
        self.address = Address("127.0.0.1", 0)
        self.stored: dict[str, bytes] = {}
        self.wants_from = 0
        self.cancelled = threading.Event()
        self.closed: list[Closed] = []
        self.link_closed = threading.Event()
        self.messages: list[Received] = []
        self._handshake_timeout_s = handshake_timeout_s
        self._uploads: dict[tuple[int, int], tuple[str, bytearray]] = {}
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="master")

    def start(self) -> TestMaster:
        self._thread.start()
        assert self._ready.wait(DEADLINE_S)
        return self

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()

    def hang_up(self) -> None:
        """Cut every link, as a master that dies does."""
        self._loop.call_soon_threadsafe(lambda: [link.abort() for link in self._links])

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._links: set[AioLink] = set()
        self._senders: set[asyncio.Task] = set()
        server = await self._loop.create_server(self._make_link, "127.0.0.1", 0)
        self.address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._senders:
            task.cancel()
        for link in list(self._links):
            link.abort()
        await asyncio.gather(*self._senders, return_exceptions=True)

    def _make_link(self) -> AioLink:
        def authenticate(hello: Hello) -> bytes | Refused:
            if hello.token_id != "t1":
                return Refused(code=ErrorCode.UNAUTHENTICATED, reason="unknown token")
            return key_of(SECRET)

        link = AioLink(
            Connection.listener(
                server_nonce=nonce(), authenticate=authenticate, welcome=make_welcome
            ),
            on_open=self._opened,
            on_message=self._message,
            on_close=self._closed,
            handshake_timeout_s=self._handshake_timeout_s,
        )
        self._links.add(link)
        return link

    def _opened(self, link: AioLink, _opened: Opened) -> None:
        link.send(GetStats())  # of no exchange: nobody asked, nobody may trip over it

    def _closed(self, link: AioLink, closed: Closed) -> None:
        self._links.discard(link)
        self.closed.append(closed)
        self.link_closed.set()

    def _message(self, link: AioLink, received: Received) -> None:
        self.messages.append(received)
        message, correlation = received.message, received.correlation
        if isinstance(message, GetStats):
            link.send(STATS, correlation, end=True)
        elif isinstance(message, GetRun):
            self._get_run(link, message, correlation)
        elif isinstance(message, WatchRun):
            self._watch(link, message, correlation)
        elif isinstance(message, FetchArtifact):
            self._spawn(self._serve_artifact(link, message, correlation))
        elif isinstance(message, OfferArtifact):
            self._offer(link, message, correlation)
        elif isinstance(message, ArtifactChunk):
            self._chunk(link, message, received)
        elif isinstance(message, Cancel):
            self.cancelled.set()

    def _get_run(self, link: AioLink, message: GetRun, correlation: int) -> None:
        if message.run == "missing":
            link.send(Error(code=ErrorCode.NOT_FOUND, message="no run missing"), correlation)
        elif message.run == "wrong":
            link.send(STATS, correlation, end=True)
        elif message.run == "cut":
            link.abort()
        elif message.run == "bye":
            link.close(ErrorCode.SHUTTING_DOWN, "the master stops")
        elif message.run != "never":
            view = RunView(
                run_id=message.run, alias="a-1", name="a", state=RunState.ACTIVE, submitted_at_ms=1
            )
            link.send(view, correlation, end=True)

    def _watch(self, link: AioLink, message: WatchRun, correlation: int) -> None:
        if message.run == "endless":
            self._spawn(self._watch_for_ever(link, correlation))
            return
        for number in range(3):
            change = JobChange(run_id="r", at_ms=number, job_id="a", state=JobState.RUNNING)
            end = message.run == "end" and number == 2
            link.send(change, correlation, end=end)
        if message.run == "fails":
            link.send(Error(code=ErrorCode.UNAVAILABLE, message="not any more"), correlation)
        elif message.run not in {"end", "quiet"}:
            link.send(Done(), correlation)

    async def _watch_for_ever(self, link: AioLink, correlation: int) -> None:
        while link.connection.is_exchange_open(correlation):
            link.send(JobChange(run_id="r", at_ms=1), correlation)
            await asyncio.sleep(0)

    async def _serve_artifact(self, link: AioLink, message: FetchArtifact, at: int) -> None:
        data = self.stored[message.digest]
        for start in range(message.offset, len(data), BULK_CHUNK_BYTES):
            piece = data[start : start + BULK_CHUNK_BYTES]
            await link.bulk_room(len(piece))
            link.send(ArtifactChunk(start, piece), at, end=start + len(piece) == len(data))

    def _offer(self, link: AioLink, message: OfferArtifact, correlation: int) -> None:
        if message.digest in self.stored:
            link.send(ArtifactStored(digest=message.digest), correlation, end=True)
            return
        self._uploads[id(link), correlation] = (message.digest, bytearray())
        link.send(ArtifactWanted(offset=self.wants_from), correlation)

    def _chunk(self, link: AioLink, message: ArtifactChunk, received: Received) -> None:
        digest, data = self._uploads[id(link), received.correlation]
        if digest == "full":
            link.send(Error(code=ErrorCode.UNAVAILABLE, message="disk full"), received.correlation)
            return
        assert message.offset == self.wants_from + len(data)
        data += message.data
        if received.end:
            self.stored[digest] = bytes(data)
            found = hashlib.sha256(data).hexdigest() if self.wants_from == 0 else digest
            link.send(ArtifactStored(digest=found), received.correlation, end=True)

    def _spawn(self, coroutine) -> None:
        task = self._loop.create_task(coroutine)
        self._senders.add(task)
        task.add_done_callback(self._senders.discard)


@pytest.fixture
def start_master():
    """Starts masters that end with the test."""
    masters: list[TestMaster] = []

    def start(handshake_timeout_s: float = DEADLINE_S) -> TestMaster:
        masters.append(TestMaster(handshake_timeout_s).start())
        return masters[-1]

    yield start
    for master in masters:
        master.stop()


@pytest.fixture
def master(start_master):
    return start_master()


@pytest.fixture
def other_token():
    """A token that no master here knows, and its parsed form."""
    return format_token("local", "t1", "66" * 32), Token("t1", key_of("66" * 32))
