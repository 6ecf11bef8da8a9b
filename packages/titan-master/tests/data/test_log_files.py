"""Logs as files: by offset, in two outputs, in the order of their arrival."""

from __future__ import annotations

import errno
import itertools
import os

import pytest
from disks import endless, look
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
    made = LogFiles(tmp_path, CEILING, endless())
    yield made
    made.close()


def content(log: Log, stream: int = BOTH, position: int = 0) -> bytes:
    return b"".join(data for _, data in log.pieces(stream, position, 1 << 40))


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


def test_above_the_ceiling_bytes_are_dropped_and_count_as_settled(tmp_path):
    """The sender goes on; what is stored stops at the ceiling, over a restart too."""
    files = LogFiles(tmp_path, 10, endless())
    log = files.get(REF)
    assert log.append(STDOUT, 0, b"12345678") == 8
    assert log.append(STDERR, 0, b"abcd") == 4
    assert content(log) == b"12345678ab"
    assert log.append(STDOUT, 8, b"9") == 9
    log.finish(9, 4)
    assert log.is_complete
    files.close()
    again = LogFiles(tmp_path, 10, endless())
    assert again.get(REF).append(STDOUT, 9, b"more") == 13
    assert content(again.get(REF)) == b"12345678ab"
    again.close()


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
    files = LogFiles(root, CEILING, endless())
    sizes = {STDOUT: 0, STDERR: 0}
    for stream, data in pieces:
        files.get(REF).append(stream, sizes[stream], data)
        sizes[stream] += len(data)
    if reopened:
        files.close()
        files = LogFiles(root, CEILING, endless())
    log = files.get(REF)
    whole = b"".join(data for _, data in pieces)
    read = b""
    while got := b"".join(data for _, data in log.pieces(BOTH, len(read), step)):
        read += got
    assert read == whole
    for stream in (STDOUT, STDERR):
        assert content(log, stream) == b"".join(d for s, d in pieces if s == stream)
    files.close()


@pytest.mark.parametrize("cut", range(0, 16, 3))
def test_an_order_file_that_lags_behind_is_mended(tmp_path, cut):
    """A process that ended between a write and its note loses no byte, at worst an order."""
    files = LogFiles(tmp_path, CEILING, endless())
    log = files.get(REF)
    for number in range(3):
        log.append(STDOUT, 3 * number, b"out")
        log.append(STDERR, 3 * number, b"err")
    files.close()
    index = tmp_path / REF.run_id / "JOB.1" / "index"
    index.write_bytes(index.read_bytes()[:cut])
    again = LogFiles(tmp_path, CEILING, endless())
    log = again.get(REF)
    assert sorted(content(log)) == sorted(b"outerr" * 3)
    assert content(log, STDOUT) == b"outoutout"
    assert log.append(STDERR, 9, b"!") == 10
    assert content(log).endswith(b"!")
    again.close()


def test_an_order_file_that_knows_of_bytes_that_are_gone_is_mended(tmp_path):
    """A machine may forget the end of a file and remember the note about it."""
    files = LogFiles(tmp_path, CEILING, endless())
    log = files.get(REF)
    for stream, data in ((STDOUT, b"aaaa"), (STDERR, b"bbbb"), (STDOUT, b"cccc")):
        log.append(stream, log.length(stream), data)
    files.close()
    out = tmp_path / REF.run_id / "JOB.1" / "stdout.log"
    out.write_bytes(out.read_bytes()[:6])
    again = LogFiles(tmp_path, CEILING, endless())
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
    """The index of a second output does not fit: nothing of the piece counts as stored."""
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
