"""Logs to readers: what is there, then what comes, to the end."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from disks import Inline, endless
from hypothesis import given, settings
from hypothesis import strategies as st
from outlets import FakeOutlet

from titan_master.data.feed import LogFeed, LogPatience, Streams
from titan_master.data.logs import LogFiles
from titan_proto.errors import ErrorCode
from titan_proto.ids import AttemptRef
from titan_proto.messages import (
    STDERR,
    STDOUT,
    Done,
    Error,
    LogChunk,
    LogData,
    LogPiece,
    LogStream,
    ReadLog,
)

REF = AttemptRef("0123456789abcdef", "JOB", 2)


class Desk:
    def __init__(self, root, disk, *, slow_s=30.0, missing_s=30.0, followers=50):
        self.files = LogFiles(root, 64 << 20, endless(), Inline())
        self.streams = Streams(asyncio.get_running_loop().create_task)
        patience = LogPatience(
            slow_reader_s=slow_s, missing_bytes_s=missing_s, followers_max=followers
        )
        self.feed = LogFeed(self.files, self.streams, disk, patience)

    def write(self, stream, data):
        log = self.files.get(REF)
        log.append(stream, log.length(stream), data)

    def read(self, *, final=None, room=1 << 40, **request):
        outlet = FakeOutlet(room)
        wanted = ReadLog(run=REF.run_id, job=REF.job_id, **request)
        self.feed.serve(outlet, 1, REF, wanted, final)
        return outlet


@pytest.fixture
async def desk(tmp_path):
    with ThreadPoolExecutor(1) as disk:
        made = Desk(tmp_path, disk)
        yield made
        made.streams.drop_all()
        made.files.close()


def pieces(messages):
    return [(message.stream, message.data) for message in messages if isinstance(message, LogData)]


async def test_what_is_there_is_sent_and_then_done(desk):
    """With both outputs in the order of their arrival."""
    desk.write(STDOUT, b"one")
    desk.write(STDERR, b"two")
    messages = await desk.read().ended()
    assert pieces(messages) == [(STDOUT, b"one"), (STDERR, b"two")]
    assert isinstance(messages[-1], Done)
    assert all(message.number == 2 for message in messages[:-1])


async def test_one_output_alone(desk):
    """And only that."""
    desk.write(STDOUT, b"one")
    desk.write(STDERR, b"two")
    assert pieces(await desk.read(stream=LogStream.STDERR).ended()) == [(STDERR, b"two")]


async def test_a_position_goes_on_where_a_reader_stood(desk):
    """Every piece carries the next one."""
    desk.write(STDOUT, b"abc")
    desk.write(STDERR, b"def")
    first = (await desk.read().ended())[0]
    assert pieces(await desk.read(position=first.position).ended()) == [(STDERR, b"def")]
    assert pieces(await desk.read(position=5).ended()) == [(STDERR, b"f")]
    assert pieces(await desk.read(position=99).ended()) == []


async def test_a_follower_gets_what_is_written_while_it_waits(desk):
    """At once, and Done when the attempt has ended and all its bytes are there."""
    desk.write(STDOUT, b"early ")
    outlet = desk.read(follow=True)
    await outlet.until(lambda: len(outlet.sent) == 1)
    desk.write(STDOUT, b"late ")
    await outlet.until(lambda: len(outlet.sent) == 2)
    desk.files.finish(REF, 14, 0)
    desk.write(STDOUT, b"end")
    messages = await outlet.ended()
    assert b"".join(data for _, data in pieces(messages)) == b"early late end"


async def test_after_the_end_even_a_plain_reader_waits_for_the_last_bytes(desk):
    """They come behind the report of the end."""
    outlet = desk.read(final=(4, 0))
    desk.write(STDOUT, b"last")
    assert pieces(await outlet.ended()) == [(STDOUT, b"last")]


async def test_bytes_that_do_not_come_are_not_waited_for_forever(tmp_path):
    """The worker that has them may be gone for good."""
    with ThreadPoolExecutor(1) as disk:
        desk = Desk(tmp_path, disk, missing_s=0.02)
        desk.write(STDOUT, b"some")
        messages = await desk.read(final=(100, 0), follow=True).ended()
        assert pieces(messages) == [(STDOUT, b"some")]
        assert isinstance(messages[-1], Done)
        desk.files.close()


async def test_a_log_of_nothing_is_done_at_once(desk):
    """Without a file being made."""
    assert [type(message) for message in await desk.read(final=(0, 0)).ended()] == [Done]


async def test_a_long_log_is_whole(desk):
    """Read in blocks beside the loop, sent in chunks."""
    block = bytes(range(256)) * 256
    for _ in range(48):
        desk.write(STDOUT, block)
    messages = await desk.read(final=(48 * len(block), 0)).ended()
    assert b"".join(data for _, data in pieces(messages)) == block * 48


async def test_the_tail_begins_at_the_last_lines(desk):
    """And goes on from there."""
    desk.write(STDOUT, b"1\n2\n3\n")
    assert pieces(await desk.read(tail_lines=2).ended()) == [(STDOUT, b"2\n3\n")]


async def test_a_slow_reader_holds_up_nobody(desk):
    """Another one of the same log gets everything meanwhile."""
    desk.write(STDOUT, b"x" * 1000)
    slow = desk.read(room=10)
    fast = desk.read()
    assert len(pieces(await fast.ended())) == 1
    assert slow.sent == []
    slow.change(room=5000)
    assert len(pieces(await slow.ended())) == 1


async def test_a_reader_that_makes_no_room_is_dropped_with_its_position(tmp_path):
    """So that it can come back and go on."""
    with ThreadPoolExecutor(1) as disk:
        desk = Desk(tmp_path, disk, slow_s=0.02)
        desk.write(STDOUT, b"abc")
        desk.write(STDERR, b"defgh")
        messages = await desk.read(room=3).ended()
        assert pieces(messages) == [(STDOUT, b"abc")]
        last = messages[-1]
        assert isinstance(last, Error)
        assert (last.code, last.details) == (ErrorCode.SLOW_READER, {"position": "3"})
        desk.files.close()


async def test_too_many_readers_of_one_log_are_refused(tmp_path):
    """With the limit in words."""
    with ThreadPoolExecutor(1) as disk:
        desk = Desk(tmp_path, disk, followers=2)
        kept = [desk.read(follow=True) for _ in range(2)]
        (refused,) = await desk.read(follow=True).ended()
        assert refused.code is ErrorCode.LIMIT_EXCEEDED
        desk.files.get(REF).finish(0, 0)
        for outlet in kept:
            await outlet.ended()
        desk.files.close()


@pytest.mark.parametrize("has_begun", [True, False])
async def test_a_reader_that_goes_away_is_forgotten(desk, has_begun):
    """Its exchange cancelled, or its link cut, however early: the log may be put away again."""
    desk.write(STDOUT, b"x")
    first, second = desk.read(follow=True), desk.read(follow=True)
    log = desk.files.get(REF)
    assert len(log.followers) == 2
    tasks = [task for tasks in desk.streams._tasks.values() for task in tasks.values()]
    if has_begun:
        for outlet in (first, second):
            await outlet.until(lambda outlet=outlet: outlet.sent)
    desk.streams.drop(first.link_id, 1)
    desk.streams.drop_link(second.link_id)
    await asyncio.wait(tasks, timeout=5)
    assert all(task.done() for task in tasks)
    assert log.followers == set()


# -- what comes ahead of the stored copy ----------------------------------------------------------


def copy(desk, stream, offset, data):
    for follower in desk.files.get(REF).followers:
        follower.offer(LogChunk(REF, stream, offset, 9, data))


def whole(messages, stream=STDOUT):
    """What a reader has put together, which fails where a byte is missing or comes twice."""
    found = b""
    for message in messages:
        if isinstance(message, LogPiece) and message.stream == stream:
            assert message.offset == len(found)
            found += message.data
    return found


async def test_a_copy_is_sent_on_at_once_and_its_stored_piece_not_again(desk):
    """Its position is that of what is stored: a reader that comes back with it misses nothing."""
    desk.write(STDOUT, b"one\n")
    outlet = desk.read(follow=True, places=True)
    await outlet.until(lambda: outlet.sent)
    copy(desk, STDOUT, 4, b"two\n")
    assert [message.data for message, _, _ in outlet.sent] == [b"one\n", b"two\n"]
    assert outlet.sent[-1][0] == LogPiece(2, STDOUT, 4, b"two\n", 4, 9, 0)
    desk.write(STDOUT, b"two\nthree\n")
    desk.files.finish(REF, 14, 0)
    messages = await outlet.ended()
    assert whole(messages) == b"one\ntwo\nthree\n"
    assert messages[-2].position == 14


@pytest.mark.parametrize(
    ("offset", "data"),
    [(5, b"wo\n"), (0, b"one\n"), (2, b"e\n")],
    ids=["behind a gap", "known", "known in part"],
)
async def test_a_copy_that_is_not_just_the_next_is_dropped(desk, offset, data):
    desk.write(STDOUT, b"one\n")
    outlet = desk.read(follow=True, places=True)
    await outlet.until(lambda: outlet.sent)
    copy(desk, STDOUT, offset, data)
    assert len(outlet.sent) == 1


async def test_a_copy_does_not_overtake_what_is_stored_and_not_sent_yet(desk):
    """The reader's task has not had its turn since that was stored."""
    outlet = desk.read(follow=True, places=True)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    desk.write(STDOUT, b"one\n")
    copy(desk, STDOUT, 4, b"two\n")
    assert outlet.sent == []
    desk.write(STDOUT, b"two\n")
    desk.files.finish(REF, 8, 0)
    assert whole(await outlet.ended()) == b"one\ntwo\n"


async def test_who_asks_for_no_places_does_not_follow_or_wants_the_other_output_gets_no_copies(
    desk,
):
    """The first could not tell a piece that comes twice."""
    asked = ({"follow": True}, {"follow": True, "places": True, "stream": LogStream.STDERR})
    outlets = [desk.read(**wanted) for wanted in asked]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    copy(desk, STDOUT, 0, b"one\n")
    assert [outlet.sent for outlet in outlets] == [[], []]


async def test_a_reader_without_room_gets_no_copies(desk):
    outlet = desk.read(follow=True, places=True, room=2)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    copy(desk, STDOUT, 0, b"one\n")
    assert outlet.sent == []
    outlet.change(room=100)
    desk.write(STDOUT, b"one\n")
    desk.files.finish(REF, 4, 0)
    assert whole(await outlet.ended()) == b"one\n"


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["copy", "store", "turn"]), st.integers(0, 40), st.integers(1, 15)
        ),
        max_size=40,
    )
)
def test_however_copies_and_stored_pieces_mix_every_byte_comes_once_and_in_order(
    tmp_path_factory, steps
):
    """Copies lost, late, twice and out of turn."""

    async def run():
        with ThreadPoolExecutor(1) as disk:
            desk = Desk(tmp_path_factory.mktemp("log"), disk)
            text = bytes(range(33, 33 + 60))
            outlet = desk.read(follow=True, places=True)
            for act, offset, length in steps:
                if act == "copy":
                    copy(desk, STDOUT, offset, text[offset : offset + length])
                elif act == "store":
                    log = desk.files.get(REF)
                    stored = log.length(STDOUT)
                    log.append(STDOUT, stored, text[stored : stored + length])
                else:
                    for _ in range(length):
                        await asyncio.sleep(0)
            log = desk.files.get(REF)
            log.append(STDOUT, log.length(STDOUT), text[log.length(STDOUT) :])
            desk.files.finish(REF, len(text), 0)
            assert whole(await outlet.ended()) == text
            desk.files.close()

    asyncio.run(run())
