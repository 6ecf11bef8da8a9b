"""Logs reach the master whole, in order, within windows, whatever breaks."""

import asyncio

import pytest

from titan_proto.errors import LinkLost
from titan_proto.ids import AttemptRef
from titan_proto.messages import STDERR, STDOUT, LogAck
from titan_worker.output import POLL_MAX_S, POLL_MIN_S, Output, Pace
from titan_worker.shipping import WINDOW_BYTES, Shipping

CEILING = 10_000_000


def ref(name="a"):
    return AttemptRef("r" * 16, name, 1)


class FakeLink:
    """Takes pieces; the test decides when the master acknowledges them."""

    def __init__(self):
        self.sent = []
        self.room = asyncio.Event()
        self.room.set()
        self.is_lost = False
        self.news = asyncio.Event()

    def send(self, chunk):
        self.sent.append(chunk)
        self.news.set()

    async def bulk_room(self, size):
        await self.room.wait()
        if self.is_lost:
            raise LinkLost("cut")

    async def pieces(self, count):
        """Wait for so many pieces in all."""
        async with asyncio.timeout(10):
            while len(self.sent) < count:
                self.news.clear()
                await self.news.wait()


class Bench:
    def __init__(self, folder, ceiling=CEILING):
        self.folder = folder
        self.shipped = []
        self.shipping = Shipping(
            loop=asyncio.get_running_loop(),
            now_ms=lambda: 77,
            on_shipped=self.shipped.append,
            ceiling_bytes=ceiling,
        )
        self.task = asyncio.ensure_future(self.shipping.run())

    def write(self, data, name="a", stream="out"):
        with (self.folder / f"{name}.{stream}").open("ab") as file:
            file.write(data)

    def paths(self, name="a"):
        return str(self.folder / f"{name}.out"), str(self.folder / f"{name}.err")

    def run(self, *written, name="a"):
        """An attempt that wrote and ended."""
        self.shipping.watch(ref(name), *self.paths(name))
        for data in written:
            self.write(data, name)
        return self.shipping.end(ref(name))

    def ack(self, offset, name="a", stream=STDOUT):
        self.shipping.acked(LogAck(ref(name), stream, offset))


async def passes(count=20):
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
async def bench(tmp_path):
    found = Bench(tmp_path)
    yield found
    found.task.cancel()
    found.shipping.close()


@pytest.fixture
def link():
    return FakeLink()


async def test_an_attempt_that_wrote_nothing_sends_nothing(bench, link):
    bench.shipping.link_up(link)

    assert bench.run() == (0, 0)
    await passes()

    assert link.sent == []
    assert bench.shipped == [ref()]
    assert not bench.shipping.owes(ref())


async def test_pieces_are_at_most_a_chunk_and_stop_at_the_window(bench, link):
    bench.shipping.link_up(link)
    bench.run(b"x" * (3 * WINDOW_BYTES))
    await link.pieces(16)
    await passes()

    assert {len(chunk.data) for chunk in link.sent} == {65_536}
    assert sum(len(chunk.data) for chunk in link.sent) == WINDOW_BYTES
    bench.ack(65_536)
    await link.pieces(17)
    await passes()
    assert len(link.sent) == 17
    assert link.sent[-1].offset == WINDOW_BYTES


async def test_everything_is_over_when_the_last_byte_is_acknowledged(bench, link):
    bench.shipping.link_up(link)
    bench.run(b"hello")
    await link.pieces(1)
    assert link.sent[0] == type(link.sent[0])(ref(), STDOUT, 0, 77, b"hello")

    bench.ack(4)
    assert bench.shipping.owes(ref())
    bench.ack(5)

    assert bench.shipped == [ref()]
    async with asyncio.timeout(1):
        await bench.shipping.wait_shipped()


async def test_attempts_take_turns(bench, link):
    link.room.clear()
    bench.shipping.link_up(link)
    bench.run(b"l" * 500_000, name="loud")
    bench.run(b"q", name="quiet")
    link.room.set()

    await link.pieces(3)

    assert "quiet" in [chunk.ref.job_id for chunk in link.sent[:3]]


@pytest.mark.parametrize("known", [0, 1, 65_535, 65_536, 65_537, 199_999, 200_000])
async def test_after_a_new_link_one_piece_asks_and_the_rest_goes_on_from_the_answer(
    bench, link, known
):
    """The master may have got more than it could acknowledge: any offset."""
    text = bytes(n % 251 for n in range(200_000))
    bench.shipping.link_up(link)
    bench.run(text)
    await link.pieces(4)
    bench.shipping.link_down(is_rejected=False)
    fresh = FakeLink()

    bench.shipping.link_up(fresh)
    await fresh.pieces(1)
    await passes()
    assert len(fresh.sent) == 1
    stored = bytearray(text[:known])
    done = 0
    while done < len(fresh.sent):
        chunk = fresh.sent[done]
        done += 1
        assert chunk.offset <= len(stored)
        stored += chunk.data[len(stored) - chunk.offset :]
        bench.ack(len(stored))
        await passes()

    assert bytes(stored) == text
    assert bench.shipped == [ref()]


async def test_a_master_that_forgot_gets_it_again(bench, link):
    bench.shipping.link_up(link)
    bench.run(b"0123456789" * 30_000)
    await link.pieces(5)
    bench.ack(200_000)
    await passes()

    bench.ack(100_000)
    await link.pieces(6)

    assert link.sent[5].offset == 100_000


async def test_what_an_earlier_process_left_is_shipped_from_where_the_master_stands(bench, link):
    bench.write(b"0123456789")
    assert bench.shipping.resume(ref(), *bench.paths())
    assert not bench.shipping.resume(ref("none"), *bench.paths("none"))
    bench.shipping.link_up(link)
    await link.pieces(1)

    bench.ack(10)

    assert bench.shipped == [ref("none"), ref()]


async def test_a_link_lost_while_waiting_for_room_loses_nothing(bench, link):
    link.room.clear()
    bench.shipping.link_up(link)
    bench.run(b"words")
    await passes()
    link.is_lost = True
    link.room.set()
    bench.shipping.link_down(is_rejected=False)
    await passes()
    fresh = FakeLink()

    bench.shipping.link_up(fresh)
    await fresh.pieces(1)

    assert fresh.sent[0].data == b"words"


async def test_a_log_that_the_master_rejects_does_not_end_every_later_link(bench, link):
    """A master restored from an older backup does not know what this worker did since."""
    bench.write(b"unknown there")
    bench.shipping.resume(ref(), *bench.paths())
    bench.write(b"known there", name="b")
    bench.shipping.resume(ref("b"), *bench.paths("b"))
    bench.shipping.link_up(link)
    await link.pieces(2)

    bench.shipping.link_down(is_rejected=True)
    fresh = FakeLink()
    bench.shipping.link_up(fresh)
    await fresh.pieces(1)
    await passes()

    assert [chunk.data for chunk in fresh.sent] == [b"known there"]
    assert bench.shipped == [ref()]


async def test_growth_is_seen_while_the_attempt_runs(bench, link):
    bench.shipping.link_up(link)
    bench.shipping.watch(ref(), *bench.paths())
    bench.write(b"first ")
    await link.pieces(1)
    bench.write(b"second", stream="err")
    await link.pieces(2)

    assert [(chunk.stream, chunk.data) for chunk in link.sent] == [
        (STDOUT, b"first "),
        (STDERR, b"second"),
    ]
    assert bench.shipping.end(ref()) == (6, 6)


async def test_a_file_that_is_cut_or_removed_stops_nothing(bench, link):
    link.room.clear()
    bench.shipping.link_up(link)
    bench.run(b"gone soon", name="removed")
    bench.run(b"stays", name="stays")
    (bench.folder / "removed.out").unlink()
    link.room.set()

    await link.pieces(1)
    await passes()

    assert [chunk.data for chunk in link.sent] == [b"stays"]


async def test_of_an_output_above_the_ceiling_the_end_says_that_it_is_cut(tmp_path):
    bench = Bench(tmp_path, ceiling=1_000)
    link = FakeLink()
    bench.shipping.link_up(link)

    assert bench.run(b"y" * 5_000) == (1_000, 0)
    await link.pieces(2)

    text = b"".join(chunk.data for chunk in link.sent)
    assert len(text) == 1_000
    assert text.startswith(b"yyyy")
    assert text.endswith(b"\n[titan] cut here: this output is above 1000 bytes\n")
    bench.task.cancel()
    bench.shipping.close()


def test_what_is_read_is_the_same_in_whatever_pieces_it_is_read(tmp_path):
    """At every offset, before and after the ceiling was met."""
    path = tmp_path / "log"
    output = Output(str(path), 200)
    path.write_bytes(bytes(range(140)))
    output.look()
    early = output.read(0, output.readable)
    path.write_bytes(bytes(range(250)))
    output.end()
    whole = b""
    while len(whole) < output.readable:
        whole += output.read(len(whole), 7)

    assert len(whole) == 200
    assert whole.startswith(early)
    for offset in range(201):
        piece = output.read(offset, 50)
        assert whole[offset : offset + len(piece)] == piece
        assert piece or offset == 200


def test_an_output_that_ends_exactly_at_the_ceiling_is_not_cut(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"z" * 200)
    output = Output(str(path), 200)

    assert output.end() == 200
    assert output.read(0, 500) == b"z" * 200


def test_looking_gets_slower_while_nothing_comes():
    pace = Pace()

    waits = [pace.seen(grown=False) for _ in range(10)]

    assert waits == sorted(waits)
    assert waits[-1] == POLL_MAX_S
    assert pace.seen(grown=True) == POLL_MIN_S
