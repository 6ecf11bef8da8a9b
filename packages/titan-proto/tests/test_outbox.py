"""The outbox: control before bulk, ceilings in bytes, whole frames."""

from __future__ import annotations

import pytest

from titan_proto.errors import LocalProtocolError
from titan_proto.limits import OUTBOX_BULK_BYTES, OUTBOX_CONTROL_BYTES
from titan_proto.outbox import ControlFull, Outbox


@pytest.fixture
def outbox():
    return Outbox()


def test_control_overtakes_bulk(outbox):
    outbox.put_bulk(b"B1")
    outbox.put_bulk(b"B2")
    outbox.put_control(b"C1")
    outbox.put_control(b"C2")

    assert outbox.take(100) == b"C1C2B1B2"
    assert outbox.pending_bytes == 0


def test_frames_are_never_cut(outbox):
    for frame in (b"aaa", b"bbb", b"cc"):
        outbox.put_control(frame)

    assert [outbox.take(7), outbox.take(7), outbox.take(7)] == [b"aaabbb", b"cc", b""]


def test_a_frame_above_the_budget_goes_alone(outbox):
    outbox.put_control(b"x" * 50)
    outbox.put_control(b"y")

    assert outbox.take(10) == b"x" * 50
    assert outbox.take(10) == b"y"


def test_bulk_does_not_pass_control_that_did_not_fit(outbox):
    outbox.put_bulk(b"b")
    outbox.put_control(b"c" * 6)
    outbox.put_control(b"d" * 6)

    assert outbox.take(8) == b"c" * 6


def test_inside_an_exchange_control_waits_behind_its_bulk(outbox):
    """Or the Done of a stream would arrive before the end of the stream."""
    outbox.put_bulk(b"B", 7)
    outbox.put_control(b"done7", 7)
    outbox.put_control(b"other", 9)

    assert outbox.take(100) == b"otherBdone7"


def test_once_its_bulk_has_left_control_is_control_again(outbox):
    outbox.put_bulk(b"B1", 7)
    outbox.take(100)
    outbox.put_bulk(b"B2", 9)
    outbox.put_control(b"C", 7)

    assert outbox.take(100) == b"CB2"


def test_the_bulk_lane_tells_its_room_and_refuses_when_it_has_none(outbox):
    piece = bytes(1024 * 1024)
    while outbox.bulk_room:
        outbox.put_bulk(piece)

    assert outbox.bulk_bytes == OUTBOX_BULK_BYTES
    with pytest.raises(LocalProtocolError, match="bulk_room"):
        outbox.put_bulk(b"one more")
    outbox.take(len(piece))
    assert outbox.bulk_room == len(piece)


def test_the_control_lane_has_a_ceiling_except_for_the_last_word(outbox):
    for _ in range(16):
        outbox.put_control(bytes(OUTBOX_CONTROL_BYTES // 16))

    with pytest.raises(ControlFull):
        outbox.put_control(b"x")
    outbox.put_last(b"goodbye")
    assert outbox.pending_bytes == OUTBOX_CONTROL_BYTES + 7


def test_dropping_bulk_leaves_control(outbox):
    outbox.put_bulk(b"B", 3)
    outbox.put_control(b"C")
    outbox.drop_bulk()
    outbox.put_control(b"D", 3)

    assert outbox.take(100) == b"CD"
    outbox.put_control(b"E")
    outbox.drop_all()
    assert outbox.take(100) == b""
    assert outbox.pending_bytes == 0
