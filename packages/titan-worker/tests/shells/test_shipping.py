"""Logs reach the master whole, in order, within windows, whatever breaks."""

import asyncio
import os
from pathlib import Path

import pytest

from titan_proto.errors import LinkLost
from titan_proto.ids import AttemptRef
from titan_proto.messages import STDERR, STDOUT, LogAck, LogChunk, LogGap
from titan_worker import shipping
from titan_worker.output import POLL_MAX_S, POLL_MIN_S, Output, Outputs, Pace, carry_out
from titan_worker.shipping import WINDOW_BYTES, Shipping

CEILING = 10_000_000


def ref(name="a"):
    return AttemptRef("r" * 16, name, 1)


class FakeLink:
    """Takes pieces; the test decides when the master acknowledges them."""

    takes_gaps = True
    takes_copies = True

    def __init__(self):
        self.sent = []
        self.copied = []
        self.room = asyncio.Event()
        self.room.set()
        self.is_lost = False
        self.news = asyncio.Event()

    def send(self, chunk):
        self.sent.append(chunk)
        self.news.set()

    def copy(self, chunk):
        self.copied.append(chunk)

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
        self.now_ms = 77
        self.shipping = Shipping(
            loop=asyncio.get_running_loop(),
            now_ms=lambda: self.now_ms,
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


MIB = 1 << 20


def pattern(begin, end):
    """What the test's processes write: every byte says where it stands."""
    first = begin - begin % 8
    text = b"".join(b"%07d\n" % (n % 10_000_000) for n in range(first // 8, end // 8 + 1))
    return text[begin - first : end - first]


async def until(is_true):
    """Wait for what files and threads tell nobody."""
    async with asyncio.timeout(10):
        while not is_true():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def on_disk(path):
    return path.stat().st_blocks * 512


class Taker:
    """A master behind a FakeLink: it takes what is sent, and acknowledges it."""

    def __init__(self, bench, link):
        self.bench, self.link = bench, link
        self.parts, self.stands, self.done = [], 0, 0

    async def take(self, end):
        while self.stands < end:
            await self.link.pieces(self.done + 1)
            self.one(self.link.sent[self.done])
            self.done += 1
            await passes(3)
        for offset, data in self.parts:
            assert data is None or data == pattern(offset, offset + len(data))

    def one(self, sent):
        if isinstance(sent, LogGap):
            self.parts.append((self.stands, None))
            self.stands = max(self.stands, sent.offset)
        else:
            assert sent.offset <= self.stands
            self.parts.append((sent.offset, sent.data))
            self.stands = max(self.stands, sent.offset + len(sent.data))
        self.bench.ack(self.stands)


@pytest.fixture
async def make_bench(tmp_path):
    made = []

    def make(folder=tmp_path, ceiling=MIB):
        folder.mkdir(exist_ok=True)
        made.append(Bench(folder, ceiling=ceiling))
        return made[-1]

    yield make
    for bench in made:
        bench.task.cancel()
        bench.shipping.close()


async def test_of_a_flood_the_beginning_and_the_end_are_kept_and_shipped(make_bench, link):
    """The file takes no more room than the ceiling while its process writes on; offsets stay true."""
    bench = make_bench()
    bench.shipping.watch(ref(), *bench.paths())
    path = bench.folder / "a.out"
    size = 10 * MIB
    for begin in range(0, size, MIB):
        bench.write(pattern(begin, begin + MIB))
        await until(lambda: on_disk(path) <= MIB)
    assert bench.shipping.end(ref()) == (size, 0)
    bench.shipping.link_up(link)
    taker = Taker(bench, link)
    await taker.take(size)

    assert path.stat().st_size == size
    assert [offset for offset, data in taker.parts if data is None] == [MIB // 4]
    assert sum(len(data or b"") for _, data in taker.parts) > MIB * 7 // 8
    assert bench.shipped == [ref()]


@pytest.mark.parametrize("ceiling", [MIB, 2 * MIB, MIB // 2])
async def test_what_was_cut_out_is_known_to_the_next_process_whatever_its_ceiling(
    make_bench, link, ceiling
):
    """From the file alone."""
    bench = make_bench()
    bench.shipping.watch(ref(), *bench.paths())
    bench.write(pattern(0, 4 * MIB))
    await until(lambda: on_disk(bench.folder / "a.out") <= MIB)
    bench.shipping.close()
    again = make_bench(ceiling=ceiling)
    assert again.shipping.resume(ref(), *again.paths())
    again.shipping.link_up(link)
    taker = Taker(again, link)
    await taker.take(4 * MIB)

    assert None in [data for _, data in taker.parts]


async def test_a_master_of_before_gets_what_is_whole_and_is_left_in_peace(make_bench, link):
    """It knows nothing of gaps, and would ask for what is gone for ever."""
    bench = make_bench()
    link.takes_gaps = False
    bench.shipping.watch(ref(), *bench.paths())
    bench.write(pattern(0, 4 * MIB))
    assert bench.shipping.end(ref()) == (4 * MIB, 0)
    bench.shipping.link_up(link)
    taker = Taker(bench, link)
    await taker.take(MIB // 4)
    await passes()

    assert all(isinstance(sent, LogChunk) for sent in link.sent)
    assert bench.shipped == [ref()]


async def test_where_a_file_can_have_no_hole_it_is_cut_short(make_bench, link, monkeypatch):
    """Its process appends behind its beginning; offsets stay what they were, over a new life too."""
    monkeypatch.setattr(shipping, "carry_out", lambda _cut: False)
    bench = make_bench()
    path = bench.folder / "a.out"
    bench.shipping.watch(ref(), *bench.paths())
    for begin in (0, 2 * MIB):
        bench.write(pattern(begin, begin + 2 * MIB))
        await until(lambda: path.stat().st_size == MIB // 4)
    bench.shipping.close()
    bench.write(pattern(4 * MIB, 4 * MIB + 100_000))
    again = make_bench()
    assert again.shipping.resume(ref(), *again.paths())
    again.shipping.link_up(link)
    taker = Taker(again, link)
    await taker.take(4 * MIB + 100_000)

    assert [offset for offset, data in taker.parts if data is None] == [MIB // 4]


@pytest.mark.parametrize("harm", ["replaced", "linked", "symlinked"])
def test_nothing_is_cut_out_of_what_is_not_the_log_or_not_only_that(tmp_path, harm):
    """Its job may have put something of its own there."""
    path, mine = tmp_path / "log", tmp_path / "mine"
    path.write_bytes(b"x" * MIB)
    outputs = Outputs(str(path), str(tmp_path / "none"), MIB // 2)
    outputs.stdout.look(1)
    (cut,) = outputs.too_much().values()
    mine.write_bytes(b"y" * MIB)
    if harm == "linked":
        mine.unlink()
        mine.hardlink_to(path)
    else:
        path.unlink()
        if harm == "replaced":
            mine.rename(path)
            mine = path
        else:
            path.symlink_to(mine)
    before = mine.read_bytes()

    assert carry_out(cut)

    assert mine.read_bytes() == before


@pytest.mark.parametrize("lengths", [(7 << 40, 0), (7 << 40, 6 << 40), (1 << 20, 7 << 40)])
def test_a_job_that_makes_its_log_longer_than_any_disk_costs_no_time(tmp_path, lengths):
    """Without writing it: what is too much is known at once, and both outputs keep an end."""
    outputs = Outputs(str(tmp_path / "out"), str(tmp_path / "err"), 256 * MIB)
    for output, length in zip((outputs.stdout, outputs.stderr), lengths, strict=True):
        open(output.path, "wb").close()  # noqa: PTH123
        os.truncate(output.path, length)
        output.look(1)
    tries = []
    plan = Output.plan_cut
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Output, "plan_cut", lambda *given: tries.append(1) or plan(*given))
        cuts = outputs.too_much()
    assert len(tries) <= 3
    assert 0 < len(cuts) <= 2
    kept = [outputs.stdout.kept, outputs.stderr.kept]
    assert 240 * MIB < sum(kept) <= 256 * MIB
    assert all(left >= min(length, 100 * MIB) for left, length in zip(kept, lengths, strict=True))


def test_what_a_job_puts_beside_its_log_holds_nobody_up(tmp_path):
    """Where a worker notes how it has cut a log: no plain file, or nonsense."""
    path = tmp_path / "log"
    path.write_bytes(b"x" * 100)
    for put in (os.mkfifo, os.mkdir, lambda name: Path(name).symlink_to("/dev/zero")):
        put(f"{path}.cut")
        output = Output(str(path), MIB, known=True)
        output.look(1)
        assert output.size == 100
        (tmp_path / "log.cut").rename(tmp_path / f"was {put}".replace("/", " "))


async def test_a_log_that_cannot_be_read_keeps_nobody_busy(bench, link, monkeypatch):
    """Its job may have forbidden it: it is not asked for again and again."""
    monkeypatch.setattr(Output, "read", lambda *_: b"")
    bench.shipping.link_up(link)
    bench.run(b"secret")
    await passes()

    assert link.sent == []
    assert not bench.shipping._queue


async def test_what_is_new_is_sent_ahead_too_if_all_before_it_has_left(bench, link):
    """While bulk waits on the link it would leave a gap; a flood is not copied at all."""
    bench.shipping.link_up(link)
    bench.shipping.watch(ref(), *bench.paths())
    output = bench.shipping._attempts[ref()].outputs.stdout
    bench.write(b"one\n")
    await link.pieces(1)
    bench.write(b"two\n")
    await link.pieces(2)
    assert link.copied == link.sent

    link.room.clear()
    bench.write(b"three\n")
    await until(lambda: len(link.copied) == 3)
    bench.write(b"four\n")
    await until(lambda: output.size == 19)
    assert [chunk.data for chunk in link.copied] == [b"one\n", b"two\n", b"three\n"]
    assert len(link.sent) == 2
    link.room.set()
    await link.pieces(3)
    bench.write(b"x" * 100_000)
    await link.pieces(5)
    bench.shipping.end(ref())
    assert len(link.copied) == 3


async def test_on_a_link_that_asks_first_nothing_is_sent_ahead(bench, link):
    """Where its master stands is not known yet; and not on one that takes none."""
    bench.shipping.link_up(link)
    bench.shipping.watch(ref(), *bench.paths())
    bench.write(b"one\n")
    await link.pieces(1)
    bench.shipping.link_down(is_rejected=False)
    fresh = FakeLink()
    bench.shipping.link_up(fresh)
    bench.write(b"two\n")
    output = bench.shipping._attempts[ref()].outputs.stdout
    await until(lambda: output.size == 8)
    assert fresh.copied == []
    bench.ack(4)
    fresh.takes_copies = False
    bench.write(b"three\n")
    await until(lambda: output.size == 14)
    assert fresh.copied == []


async def test_each_piece_says_when_it_was_seen_however_late_it_leaves(bench, link):
    """While there was no link, too."""
    bench.shipping.watch(ref(), *bench.paths())
    for n in range(3):
        bench.now_ms = 1_000 * (n + 1)
        bench.write(b"line %d\n" % n)
        output = bench.shipping._attempts[ref()].outputs.stdout
        await until(lambda n=n, output=output: output.size == 7 * (n + 1))
    bench.now_ms = 9_000
    bench.shipping.link_up(link)
    await link.pieces(3)

    assert [(chunk.seen_at_ms, chunk.data) for chunk in link.sent] == [
        (1_000, b"line 0\n"),
        (2_000, b"line 1\n"),
        (3_000, b"line 2\n"),
    ]


def test_looking_gets_slower_while_nothing_comes():
    pace = Pace()

    waits = [pace.seen(grown=False) for _ in range(10)]

    assert waits == sorted(waits)
    assert waits[-1] == POLL_MAX_S
    assert pace.seen(grown=True) == POLL_MIN_S
