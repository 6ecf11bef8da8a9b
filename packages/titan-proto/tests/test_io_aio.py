"""The asyncio link, both sides, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from titan_proto.connection import Closed, Connection
from titan_proto.errors import (
    ConnectFailed,
    ErrorCode,
    LinkLost,
    NotFound,
    Refused,
    Timeout,
    Unavailable,
)
from titan_proto.io import aio
from titan_proto.io.address import Address
from titan_proto.io.aio import AioLink, dial
from titan_proto.limits import OUTBOX_BULK_BYTES, OUTBOX_CONTROL_BYTES
from titan_proto.messages import (
    Error,
    FetchArtifact,
    GetRun,
    GetStats,
    LogData,
    Ping,
    Pong,
    Role,
    RunView,
    Stats,
    WatchRun,
)

DEADLINE_S = 10.0


class Heard:
    """What a link's handlers were told, with a way to wait for it."""

    def __init__(self):
        self.messages = []
        self.closed = []
        self._changed = asyncio.Condition()
        self._tasks = set()

    def message(self, link, received):
        self.messages.append(received)
        self._tell()

    def close(self, link, closed):
        self.closed.append(closed)
        self._tell()

    def _tell(self):
        async def notify():
            async with self._changed:
                self._changed.notify_all()

        task = asyncio.get_running_loop().create_task(notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def until(self, condition):
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(condition), DEADLINE_S)


async def dial_master(master, heard, token=None, timeout_s=DEADLINE_S):
    return await dial(
        master.address,
        token or master.token,
        role=Role.WORKER,
        software="test 1.0",
        on_message=heard.message,
        on_close=heard.close,
        timeout_s=timeout_s,
        last_term=4,
    )


@pytest.fixture
async def heard():
    return Heard()


@pytest.fixture
async def link(master, heard):
    made = await dial_master(master, heard)
    yield made
    made.close(ErrorCode.SHUTTING_DOWN, "the test is over")
    await heard.until(lambda: heard.closed)


# -- opening --------------------------------------------------------------------------------------


async def test_a_link_opens(link, master):
    assert link.opened.welcome.cluster_id == "c1"
    assert link.opened.hello.last_term == 4
    assert link.peer == str(master.address)


async def test_nobody_there(heard):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address(*server.getsockname())
    with pytest.raises(ConnectFailed, match="no master answers"):
        await dial(
            address,
            f"titan_local_a_{'0' * 64}",
            role=Role.WORKER,
            software="t",
            on_message=heard.message,
            on_close=heard.close,
            timeout_s=5,
        )


async def test_somebody_there_who_does_not_answer(heard):
    """The dialler's own handshake deadline."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(ConnectFailed, match="handshake"),
    ):
        await dial(
            Address(*server.getsockname()),
            f"titan_local_a_{'0' * 64}",
            role=Role.WORKER,
            software="t",
            on_message=heard.message,
            on_close=heard.close,
            timeout_s=0.05,
        )
    assert heard.closed == []


async def test_refusals(master, heard, other_token):
    with pytest.raises(Refused, match="could not prove"):
        await dial_master(master, heard, other_token[0])
    with pytest.raises(Refused, match="unknown token"):
        await dial_master(master, heard, f"titan_local_nobody_{'0' * 64}")


async def test_who_connects_and_says_nothing_is_cut_off(start_master):
    """The listener's handshake deadline, here a short one, with a reason before the end."""
    master = start_master(handshake_timeout_s=0.05)
    reader, writer = await asyncio.open_connection(*master.address)

    said = await asyncio.wait_for(reader.read(), DEADLINE_S)

    assert b"no complete handshake within 0.05 s" in said
    writer.close()
    await writer.wait_closed()
    assert master.closed[0].code is ErrorCode.UNAVAILABLE


async def test_who_speaks_another_protocol_is_told_and_cut_off(master):
    reader, writer = await asyncio.open_connection(*master.address)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

    said = await asyncio.wait_for(reader.read(), DEADLINE_S)

    assert b"is this a Titan peer?" in said
    writer.close()
    await writer.wait_closed()


# -- calls and streams ----------------------------------------------------------------------------


async def test_calls_go_on_side_by_side(link):
    views = await asyncio.gather(
        *(link.call(GetRun(run=f"r{n}"), DEADLINE_S) for n in range(200)), link.call(GetStats())
    )

    assert isinstance(views.pop(), Stats)
    assert all(isinstance(view, RunView) for view in views)
    assert [view.run_id for view in views] == [f"r{n}" for n in range(200)]


async def test_a_refusal_is_raised(link):
    with pytest.raises(NotFound):
        await link.call(GetRun(run="missing"), DEADLINE_S)


async def test_a_timeout_tells_the_master(link, master):
    with pytest.raises(Timeout):
        await link.call(GetRun(run="never"), 0.05)

    assert await asyncio.to_thread(master.cancelled.wait, DEADLINE_S)
    assert (await link.call(GetRun(run="r"), DEADLINE_S)).run_id == "r"


async def test_a_task_that_is_cancelled_tells_the_master(link, master):
    task = asyncio.create_task(link.call(GetRun(run="never")))
    await asyncio.wait([task], timeout=0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(master.cancelled.wait, DEADLINE_S)


@pytest.mark.parametrize("run", ["cut", "bye"])
async def test_a_link_that_ends_fails_what_waits_on_it(master, heard, run):
    link = await dial_master(master, heard)
    stream = link.stream(WatchRun(run="quiet"))
    assert await anext(stream)

    calls = [link.call(GetRun(run="never")), link.call(GetRun(run=run))]
    outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), DEADLINE_S)

    assert [type(outcome) for outcome in outcomes] == [LinkLost, LinkLost]
    with pytest.raises(LinkLost):
        async for _ in stream:
            pass
    await heard.until(lambda: heard.closed)
    with pytest.raises(LinkLost):
        await link.call(GetStats())
    with pytest.raises(LinkLost):
        await link.bulk_room(1)
    link.send(GetStats())  # no mistake: whoever sends learns of the end from on_close
    assert len(heard.closed) == 1


@pytest.mark.parametrize("run", ["done", "end"])
async def test_a_stream_ends(link, run):
    assert [change.at_ms async for change in link.stream(WatchRun(run=run))] == [0, 1, 2]


async def test_a_stream_that_fails(link):
    stream = link.stream(WatchRun(run="fails"))
    assert [(await anext(stream)).at_ms for _ in range(3)] == [0, 1, 2]
    with pytest.raises(Unavailable):
        await anext(stream)


async def test_a_stream_that_is_left_is_cancelled(link, master):
    async with contextlib.aclosing(link.stream(WatchRun(run="endless"))) as stream:
        async for _ in stream:
            break

    assert await asyncio.to_thread(master.cancelled.wait, DEADLINE_S)


async def test_a_slow_reader_of_a_stream_holds_the_master_back(link, master):
    """Nobody keeps a gigabyte in memory: what is not read stays where it is."""
    size = 64 * 1024 * 1024
    master.stored["big"] = bytes(size)
    paused = asyncio.Event()
    pause = link.pause_reading
    link.pause_reading = lambda who: (pause(who), paused.set())
    stream = link.stream(FetchArtifact(digest="big"))
    first = await anext(stream)
    await asyncio.wait_for(paused.wait(), DEADLINE_S)
    (backlog,) = link._readers_behind
    assert len(backlog._waiting) < 100

    total = len(first.data)
    async for piece in stream:
        total += len(piece.data)

    assert total == size
    assert not link._readers_behind


async def test_what_belongs_to_no_call_goes_to_the_handler(link, heard):
    await heard.until(lambda: heard.messages)
    assert heard.messages[0].message == GetStats()
    link.send(Ping(5))

    await heard.until(lambda: len(heard.messages) > 1)

    assert heard.messages[1].message == Pong(5)


async def test_a_goodbye_is_told_with_its_reason(master, heard):
    link = await dial_master(master, heard)
    with pytest.raises(LinkLost, match="the master stops"):
        await link.call(GetRun(run="bye"), DEADLINE_S)
    await heard.until(lambda: heard.closed)

    assert heard.closed == [Closed(ErrorCode.SHUTTING_DOWN, "the master stops")]


async def test_a_cut_is_told_as_one(master, heard):
    await dial_master(master, heard)
    master.hang_up()

    await heard.until(lambda: heard.closed)

    assert heard.closed[0].code is ErrorCode.UNAVAILABLE
    assert "cut" in heard.closed[0].reason


# -- writing --------------------------------------------------------------------------------------


class Transport(asyncio.Transport):
    """Keeps what is written; can be full."""

    def __init__(self):
        super().__init__()
        self.writes = []
        self.is_closed = False
        self.is_aborted = False

    def write(self, data):
        self.writes.append(bytes(data))

    def set_write_buffer_limits(self, high=None, low=None):
        self.high = high

    def is_closing(self):
        return self.is_closed or self.is_aborted

    def close(self):
        self.is_closed = True

    def abort(self):
        self.is_aborted = True


@pytest.fixture
async def wired(pair, heard):
    """An open link on a transport of memory, and the other end's connection."""
    link = AioLink(
        pair.listener,
        on_open=lambda *_: None,
        on_message=heard.message,
        on_close=heard.close,
        handshake_timeout_s=DEADLINE_S,
    )
    transport = Transport()
    link.connection_made(transport)
    yield link, transport, pair.dialler
    link.connection_lost(None)


async def a_pass_of_the_loop():
    await asyncio.sleep(0)


async def test_what_is_sent_in_one_pass_leaves_in_one_write(wired):
    link, transport, other = wired
    for number in range(100):
        link.send(Pong(number))
    assert transport.writes == []

    await a_pass_of_the_loop()

    assert len(transport.writes) == 1
    assert len(other.receive_data(transport.writes[0])) == 100


async def test_a_full_transport_keeps_control_ahead_of_bulk(wired):
    """What waits, waits in the outbox: there control still overtakes."""
    link, transport, other = wired
    link.pause_writing()
    link.send(LogData(1, 1, 0, b"bulk"))
    await a_pass_of_the_loop()
    link.send(Pong(1))
    await a_pass_of_the_loop()
    assert transport.writes == []

    link.resume_writing()
    await a_pass_of_the_loop()

    events = other.receive_data(b"".join(transport.writes))
    assert [type(event.message) for event in events] == [Pong, LogData]


async def test_nothing_is_written_from_within_a_transports_own_write(wired):
    """`resume_writing` comes from the middle of the transport's write.

    A write from there that fails (the peer has reset the connection) ends the transport once as its
    own and once as the outer one's failure, and the second time breaks asyncio's callback.
    """
    link, transport, _ = wired
    link.pause_writing()
    link.send(Pong(1))
    await a_pass_of_the_loop()

    link.resume_writing()
    assert transport.writes == []

    await a_pass_of_the_loop()
    assert len(transport.writes) == 1


async def test_bulk_waits_for_room(wired):
    link, transport, _ = wired
    link.pause_writing()
    sent = 0

    async def produce():
        nonlocal sent
        for _ in range(200):
            await link.bulk_room(65_536)
            link.send(LogData(1, 1, 0, bytes(65_536)))
            sent += 1

    producer = asyncio.create_task(produce())
    await asyncio.wait([producer], timeout=0)
    assert sent == OUTBOX_BULK_BYTES // 65_536 - 1

    link.resume_writing()
    await asyncio.wait_for(producer, DEADLINE_S)

    assert sent == 200
    assert sum(map(len, transport.writes)) > 200 * 65_536 - OUTBOX_BULK_BYTES


async def test_a_peer_that_does_not_read_is_hung_up_on(wired, monkeypatch):
    """First politely; if even the goodbye stays, without a word."""
    monkeypatch.setattr(aio, "HANGUP_GRACE_S", 0.0)
    link, transport, _ = wired
    link.pause_writing()
    for _ in range(OUTBOX_CONTROL_BYTES // 1_000_000 + 1):
        link.send(Error(code=ErrorCode.INTERNAL, message="x" * 1_000_000))
    assert link.connection.closed.code is ErrorCode.SLOW_READER

    while not transport.is_aborted:
        await a_pass_of_the_loop()


async def test_closing_writes_what_was_queued_before(wired):
    link, transport, other = wired
    link.send(Pong(1))
    link.close(ErrorCode.SHUTTING_DOWN, "bye")
    await a_pass_of_the_loop()

    assert transport.is_closed
    events = other.receive_data(b"".join(transport.writes))
    assert [type(event).__name__ for event in events] == ["Received", "Closed"]


async def test_reading_is_resumed_when_the_last_who_is_behind_has_caught_up(wired):
    link, transport, _ = wired
    calls = []
    transport.pause_reading = lambda: calls.append("pause")
    transport.resume_reading = lambda: calls.append("resume")

    link.pause_reading("a")
    link.pause_reading("b")
    link.resume_reading("a")
    assert calls == ["pause"]
    link.resume_reading("never-paused")
    link.resume_reading("b")

    assert calls == ["pause", "resume"]


async def test_a_link_that_never_opened_is_told_closed_once(hello, heard):
    link = AioLink(
        Connection.dialler(hello=hello(), key=bytes(32)),
        on_open=lambda *_: pytest.fail("opened"),
        on_message=heard.message,
        on_close=heard.close,
        handshake_timeout_s=DEADLINE_S,
    )
    link.abort()
    link.connection_made(Transport())
    link.connection_lost(ConnectionResetError("reset"))

    assert heard.closed == [Closed(ErrorCode.UNAVAILABLE, "the link was cut: reset")]
