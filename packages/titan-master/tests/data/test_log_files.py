"""Logs as files: by offset, in two outputs, in the order of their arrival."""

from __future__ import annotations

import errno
import itertools
import os

import pytest
from disks import Inline, endless, look
from hypothesis import given, settings
from hypothesis import strategies as st

from titan_master.data.logs import BOTH, OPEN_LOGS_MAX, Log, LogFiles
from titan_proto.ids import AttemptRef
from titan_proto.limits import BULK_CHUNK_BYTES
from titan_proto.messages import STDERR, STDOUT

REF = AttemptRef("0123456789abcdef", "JOB", 1)
CEILING = 1 << 20


@pytest.fixture
def files(tmp_path):
    made = LogFiles(tmp_path, CEILING, endless(), Inline())
    yield made
    made.close()


def content(log: Log, stream: int = BOTH, position: int = 0) -> bytes:
    return b"".join(piece.data for piece in log.pieces(stream, position, 1 << 40))


def test_pieces_are_appended_where_they_belong(files, tmp_path):
    """Each output is a file of its own, byte for byte."""
    log = files.get(REF)
    assert log.append(STDOUT, 0, b"one\n") == 4
    assert log.append(STDERR, 0, b"bad\n") == 4
    assert log.append(STDOUT, 4, b"two\n") == 8
    folder = tmp_path / REF.run_id / "JOB.1"
    assert (folder / "stdout.log").read_bytes() == b"one\ntwo\n"
    assert (folder / "stderr.log").read_bytes() == b"bad\n"
    assert content(log) == b"one\nbad\ntwo\n"


def test_what_is_here_already_is_skipped(files):
    """A piece sent twice, or overlapping, changes nothing twice."""
    log = files.get(REF)
    log.append(STDOUT, 0, b"abcdef")
    assert log.append(STDOUT, 0, b"abcdef") == 6
    assert log.append(STDOUT, 2, b"cd") == 6
    assert log.append(STDOUT, 4, b"efgh") == 8
    assert content(log) == b"abcdefgh"


def test_a_gap_is_not_stored_and_the_answer_says_where_to_go_on(files):
    """Nothing is ever stored behind bytes that are missing."""
    log = files.get(REF)
    log.append(STDOUT, 0, b"abc")
    assert log.append(STDOUT, 10, b"xyz") == 3
    assert content(log) == b"abc"


def block(number: int, size: int = BULK_CHUNK_BYTES) -> bytes:
    """Bytes that are like no others'."""
    return (b"%015d\n" % number) * (size // 16)


def flood(log: Log, stream: int, blocks: range) -> None:
    for number in blocks:
        log.append(stream, number * BULK_CHUNK_BYTES, block(number), 1_000 + number)


def on_disk(path) -> int:
    return path.stat().st_blocks * 512


def test_above_the_ceiling_the_beginning_and_the_end_are_kept(files, tmp_path):
    """What lies between takes no room, is told by its size, and moves no offset; over a restart too."""
    flood(files.get(REF), STDOUT, range(100))
    out = tmp_path / REF.run_id / "JOB.1" / "stdout.log"
    assert out.stat().st_size == 100 * BULK_CHUNK_BYTES
    assert on_disk(out) <= CEILING
    files.close()
    for _ in range(2):
        found = files.get(REF).pieces(STDOUT, 0, 1 << 40)
        dropped = [piece for piece in found if piece.dropped]
        assert len(dropped) == 1
        assert dropped[0].offset == CEILING // 4
        assert dropped[0].dropped == 100 * BULK_CHUNK_BYTES - CEILING
        for piece in found:
            if piece.data:
                assert piece.data == block(piece.offset // BULK_CHUNK_BYTES, len(piece.data))
        files.close()
    log = files.get(REF)
    log.finish(100 * BULK_CHUNK_BYTES, 0)
    assert log.is_complete


@pytest.mark.parametrize("place", [CEILING // 4, CEILING // 4 + 5, CEILING])
def test_a_reader_whose_place_was_dropped_goes_on_behind_it(files, place):
    """It is told how much it has missed."""
    log = files.get(REF)
    flood(log, STDOUT, range(100))
    first, second = log.pieces(STDOUT, place, 1)
    assert first.dropped == 100 * BULK_CHUNK_BYTES - CEILING * 3 // 4 - place
    assert second.offset == place + first.dropped
    assert second.data == b"0"


def test_two_outputs_share_the_ceiling(files, tmp_path):
    """One that is short is not cut for the sake of the other."""
    log = files.get(REF)
    log.append(STDERR, 0, b"short\n" * 1000)
    flood(log, STDOUT, range(60))
    assert content(log, STDERR) == b"short\n" * 1000
    folder = tmp_path / REF.run_id / "JOB.1"
    assert on_disk(folder / "stdout.log") + on_disk(folder / "stderr.log") <= CEILING + 8192
    assert log.pieces(BOTH, 0, 1 << 40)[0].stream == STDERR


def test_a_log_that_grows_for_ever_keeps_little_about_what_is_gone(files, tmp_path, monkeypatch):
    """Neither in memory nor in its files, though both outputs take turns."""
    monkeypatch.setattr("titan_master.data.logs._COMPACT_FROM", 64)
    log = files.get(REF)
    log._compact_at = 64
    for number in range(400):
        for stream in (STDOUT, STDERR):
            log.append(stream, number * 16_384, block(number, 16_384), 1_000 * number)
    kept = CEILING // 16_384
    assert len(log._order) < 4 * kept
    assert (tmp_path / REF.run_id / "JOB.1" / "timeline").stat().st_size < 4 * kept * 17
    position = total = 0
    while found := log.pieces(BOTH, position, 10_000):
        for piece in found:
            position += len(piece.data) + piece.dropped
            total += len(piece.data)
            if piece.data:
                begin = piece.offset % 16_384
                assert (
                    piece.data == block(piece.offset // 16_384, 16_384)[begin:][: len(piece.data)]
                )
    assert position == 400 * 2 * 16_384
    assert CEILING // 2 < total <= CEILING


def test_where_nothing_can_be_cut_out_what_comes_above_the_ceiling_is_dropped(
    files, tmp_path, monkeypatch
):
    """And told: the sender goes on, the log is complete at its end."""
    monkeypatch.setattr("titan_master.data.logs.punch", lambda *_: False)
    log = files.get(REF)
    flood(log, STDOUT, range(40))
    out = tmp_path / REF.run_id / "JOB.1" / "stdout.log"
    assert out.stat().st_size <= CEILING + BULK_CHUNK_BYTES
    last = log.pieces(STDOUT, 0, 1 << 40)[-1]
    assert last.offset + last.dropped == 40 * BULK_CHUNK_BYTES
    log.finish(40 * BULK_CHUNK_BYTES, 0)
    assert log.is_complete


def test_what_the_worker_dropped_is_not_waited_for(files):
    """It is told where it was, over a restart too; what is only late is waited for."""
    log = files.get(REF)
    log.append(STDOUT, 0, b"begin\n")
    assert log.append(STDOUT, 100, b"end\n") == 6
    assert log.skip(STDOUT, 1_000_000, 1) == 1_000_000
    assert log.skip(STDOUT, 5, 1) == 1_000_000
    assert log.append(STDOUT, 1_000_000, b"end\n") == 1_000_004
    for _ in range(2):
        found = [(p.offset, p.data, p.dropped) for p in log.pieces(BOTH, 0, 100)]
        assert found == [(0, b"begin\n", 0), (6, b"", 999_994), (1_000_000, b"end\n", 0)]
        files.close()
        log = files.get(REF)
    assert log.append(STDOUT, 1_000_004, b"more") == 1_000_008


def test_a_gap_that_begins_a_log_is_known_after_a_restart(files):
    log = files.get(REF)
    log.skip(STDERR, 70_000, 1)
    log.append(STDERR, 70_000, b"end\n")
    files.close()
    found = files.get(REF).pieces(STDERR, 0, 100)
    assert [(p.offset, p.data, p.dropped) for p in found] == [
        (0, b"", 70_000),
        (70_000, b"end\n", 0),
    ]


def test_the_tail_does_not_look_behind_what_was_dropped(files):
    log = files.get(REF)
    log.append(STDOUT, 0, b"1\n2\n")
    log.skip(STDOUT, 9, 1)
    log.append(STDOUT, 9, b"3\n4\n")
    assert content(log, STDOUT, log.tail(STDOUT, 1)) == b"4\n"
    assert log.tail(STDOUT, 3) == log.tail(BOTH, 3) == 9


def test_since_begins_with_what_came_then(files):
    """Exactly in a young log, over a restart too; by one output or by both."""
    log = files.get(REF)
    log.append(STDOUT, 0, b"a\n", 10_000)
    log.append(STDERR, 0, b"b\n", 20_000)
    log.append(STDOUT, 2, b"c\n", 30_000)
    log.append(STDOUT, 4, b"d\n", 30_050)
    for _ in range(2):
        log = files.get(REF)
        found = {at: content(log, BOTH, log.since(BOTH, at)) for at in (1, 10_000, 10_101, 30_050)}
        assert found == {
            1: b"a\nb\nc\nd\n",
            10_000: b"a\nb\nc\nd\n",
            10_101: b"b\nc\nd\n",
            30_050: b"c\nd\n",
        }
        assert content(log, STDERR, log.since(STDERR, 20_500)) == b""
        assert content(log, STDOUT, log.since(STDOUT, 15_000)) == b"c\nd\n"
        assert log.since(BOTH, 99_000) == log.length(BOTH)
        files.close()


def test_the_times_of_an_old_log_are_few(files):
    """A year of a line each second keeps no more than a hundred thousand of them."""
    order = files.get(REF)._order
    at_ms = 1
    order.add(STDOUT, 1, at_ms)
    year_ms = 365 * 24 * 3600 * 1000
    while at_ms < year_ms:
        at_ms += max(1000, order.together_ms(len(order) - 1))
        order.add(STDOUT, 1, at_ms)
    assert len(order) < 100_000


def test_a_log_is_complete_when_it_has_ended_and_all_bytes_are_there(files):
    """Not before either."""
    log = files.get(REF)
    log.append(STDOUT, 0, b"abc")
    assert not log.is_complete
    log.finish(6, 2)
    assert not log.is_complete
    log.append(STDOUT, 3, b"def")
    assert not log.is_complete
    log.append(STDERR, 0, b"no")
    assert log.is_complete


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(
        st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(min_size=1)), max_size=12
    ),
    reopened=st.booleans(),
    step=st.integers(1, 300),
)
def test_the_order_of_arrival_is_kept(tmp_path_factory, pieces, reopened, step):
    """Read in any steps, before and after a restart, both outputs come as they arrived."""
    root = tmp_path_factory.mktemp("log")
    files = LogFiles(root, CEILING, endless(), Inline())
    sizes = {STDOUT: 0, STDERR: 0}
    for stream, data in pieces:
        files.get(REF).append(stream, sizes[stream], data)
        sizes[stream] += len(data)
    if reopened:
        files.close()
        files = LogFiles(root, CEILING, endless(), Inline())
    log = files.get(REF)
    whole = b"".join(data for _, data in pieces)
    read = b""
    while got := b"".join(piece.data for piece in log.pieces(BOTH, len(read), step)):
        read += got
    assert read == whole
    for stream in (STDOUT, STDERR):
        assert content(log, stream) == b"".join(d for s, d in pieces if s == stream)
    files.close()


@pytest.mark.parametrize("cut", range(0, 140, 11))
def test_an_order_file_that_lags_behind_is_mended(tmp_path, cut):
    """A process that ended between a write and its note loses no byte, at worst an order."""
    files = LogFiles(tmp_path, CEILING, endless(), Inline())
    log = files.get(REF)
    for number in range(3):
        log.append(STDOUT, 3 * number, b"out")
        log.append(STDERR, 3 * number, b"err")
    files.close()
    index = tmp_path / REF.run_id / "JOB.1" / "timeline"
    index.write_bytes(index.read_bytes()[:cut])
    again = LogFiles(tmp_path, CEILING, endless(), Inline())
    log = again.get(REF)
    assert sorted(content(log)) == sorted(b"outerr" * 3)
    assert content(log, STDOUT) == b"outoutout"
    assert log.append(STDERR, 9, b"!") == 10
    assert content(log).endswith(b"!")
    again.close()


def test_an_order_file_that_knows_of_bytes_that_are_gone_is_mended(tmp_path):
    """A machine may forget the end of a file and remember the note about it."""
    files = LogFiles(tmp_path, CEILING, endless(), Inline())
    log = files.get(REF)
    for stream, data in ((STDOUT, b"aaaa"), (STDERR, b"bbbb"), (STDOUT, b"cccc")):
        log.append(stream, log.length(stream), data)
    files.close()
    out = tmp_path / REF.run_id / "JOB.1" / "stdout.log"
    out.write_bytes(out.read_bytes()[:6])
    again = LogFiles(tmp_path, CEILING, endless(), Inline())
    log = again.get(REF)
    assert content(log) == b"aaaabbbbcc"
    assert log.append(STDOUT, 6, b"cc") == 8
    assert content(log) == b"aaaabbbbcccc"
    again.close()


@pytest.mark.parametrize("ending", [b"\n", b""])
@pytest.mark.parametrize("lines", [1, 3, 9])
def test_the_tail_begins_at_a_line(files, lines, ending):
    """Exactly so many lines, whether or not the last one is finished."""
    text = b"\n".join(b"line %d" % number for number in range(9)) + ending
    log = files.get(REF)
    log.append(STDOUT, 0, text)
    position = log.tail(STDOUT, lines)
    assert content(log, STDOUT, position) == b"\n".join(text.split(b"\n")[9 - lines :])


def test_the_tail_of_long_lines_reaches_back_over_blocks(files):
    """And more lines than there are is everything."""
    log = files.get(REF)
    line = b"x" * (BULK_CHUNK_BYTES - 10) + b"\n"
    for number in range(4):
        log.append(STDOUT, number * len(line), line)
    assert content(log, BOTH, log.tail(BOTH, 2)) == line * 2
    assert log.tail(BOTH, 50) == 0


def test_only_so_many_logs_are_held_open(files, tmp_path):
    """Those put away are read again when they are wanted."""
    for number in itertools.count(1):
        files.get(AttemptRef(REF.run_id, "JOB", number)).append(STDOUT, 0, b"%d" % number)
        if number == OPEN_LOGS_MAX + 5:
            break
    assert len(files._logs) == OPEN_LOGS_MAX
    assert content(files.get(REF)) == b"1"


def test_a_log_that_is_read_is_not_put_away(files):
    """Its readers would wait for news for ever."""
    watched = files.get(REF)
    watched.followers.add(object())
    for number in range(2, OPEN_LOGS_MAX + 5):
        files.get(AttemptRef(REF.run_id, "JOB", number))
    assert files.get(REF) is watched


@pytest.mark.parametrize(
    "ref",
    [
        AttemptRef("../../../../x1234", "JOB", 1),
        AttemptRef(REF.run_id, "../JOB", 1),
        AttemptRef(REF.run_id, "JOB", 0),
    ],
)
def test_no_name_leads_out_of_the_folder(files, tmp_path, ref):
    """Whoever asks."""
    with pytest.raises(ValueError, match="not an attempt"):
        files.get(ref)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("outputs", [(STDOUT,), (STDERR, STDOUT)])
def test_a_piece_that_the_disk_took_half_of_is_not_there_twice(files, monkeypatch, outputs):
    """A full disk breaks a write off; the sender comes again with all of it."""
    log = files.get(REF)
    for stream in outputs:
        log.append(stream, 0, b"first\n")
    real = os.write

    def takes_half(descriptor, data):
        monkeypatch.setattr(os, "write", lambda *_: _no_room())
        return real(descriptor, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", takes_half)
    with pytest.raises(OSError, match="No space"):
        log.append(STDOUT, 6, b"second\n")
    monkeypatch.setattr(os, "write", real)
    assert log.append(STDOUT, 6, b"second\n") == 13
    assert content(log, STDOUT) == b"first\nsecond\n"
    files.close()
    assert content(files.get(REF), STDOUT) == b"first\nsecond\n"


def test_an_order_that_cannot_be_noted_leaves_the_bytes_out_too(files, monkeypatch):
    """The order of a second output does not fit: nothing of the piece counts as stored."""
    log = files.get(REF)
    log.append(STDOUT, 0, b"out\n")
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda *_: _no_room())
    with pytest.raises(OSError, match="No space"):
        log.append(STDERR, 0, b"err\n")
    monkeypatch.setattr(os, "pwrite", real)
    assert log.append(STDERR, 0, b"err\n") == 4
    assert content(log) == b"out\nerr\n"


def test_without_room_nothing_is_stored_and_room_is_all_it_takes(files):
    files.space.looked(look(0))
    log = files.get(REF)
    with pytest.raises(OSError, match="No space"):
        log.append(STDOUT, 0, b"x")
    files.space.looked(look(100))
    assert log.append(STDOUT, 0, b"x") == 1


def _no_room():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
