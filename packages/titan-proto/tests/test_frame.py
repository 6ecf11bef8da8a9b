"""The frame: eight bytes of header, a correlation id, a body."""

from __future__ import annotations

import pytest

from titan_proto.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from titan_proto.frame import END, Frame, pack, unpack
from titan_proto.limits import FRAME_PAYLOAD_BYTES


def test_the_layout_is_the_one_of_the_document():
    """Version, opcode, flags, spare, payload length, correlation id: big-endian."""
    frame = pack(1, 0x30, END, 0x01020304, b"\xaa\xbb")

    assert frame == bytes.fromhex("01 30 01 00 00000006 01020304 aabb")


@pytest.mark.parametrize("body", [b"", b"x", b"y" * 70_000])
def test_what_is_packed_is_unpacked(body):
    buffer = bytearray(b"...") + pack(1, 9, 0, 5, body) + b"rest"

    assert unpack(buffer, 3, FRAME_PAYLOAD_BYTES) == (Frame(1, 9, 0, 5, body), 3 + 12 + len(body))


@pytest.mark.parametrize("size", range(14))
def test_a_part_of_a_frame_is_no_frame(size):
    buffer = bytearray(pack(1, 9, 0, 5, b"ab"))

    assert unpack(buffer[:size], 0, 100) is None


@pytest.mark.parametrize("length", [0, 1, 3])
def test_a_payload_without_room_for_a_correlation_id_is_refused(length):
    with pytest.raises(RemoteProtocolError, match="no room"):
        unpack(bytearray(b"\x01\x09\x00\x00" + length.to_bytes(4, "big")), 0, 100)


def test_a_length_above_the_limit_is_refused_before_its_bytes_come():
    """The header alone is enough: nothing is kept, or waited for, because a peer claims it."""
    with pytest.raises(RemoteProtocolError, match="exceeds the limit of 4096") as caught:
        unpack(bytearray(b"\x01\x09\x00\x00\x00\x00\x10\x01"), 0, 4096)
    assert caught.value.code is ErrorCode.LIMIT_EXCEEDED


def test_a_length_at_the_limit_is_taken():
    buffer = bytearray(pack(1, 9, 0, 0, b"z" * 4092))

    assert unpack(buffer, 0, 4096) is not None


@pytest.mark.parametrize("flag", [0x10, 0x20, 0x40, 0x80, 0xF1])
def test_an_unknown_flag_that_must_be_understood_is_refused(flag):
    with pytest.raises(RemoteProtocolError, match="must-understand"):
        unpack(bytearray(pack(1, 9, flag, 0, b"")), 0, 100)


@pytest.mark.parametrize("flag", [0x02, 0x04, 0x08])
def test_other_unknown_flags_and_the_spare_byte_are_ignored(flag):
    buffer = bytearray(pack(1, 9, flag, 0, b""))
    buffer[3] = 0xFF

    found = unpack(buffer, 0, 100)

    assert found is not None
    assert not found[0].end


def test_a_message_that_is_too_large_is_our_own_mistake():
    with pytest.raises(LocalProtocolError, match="FRAME_PAYLOAD_BYTES"):
        pack(1, 9, 0, 0, bytes(FRAME_PAYLOAD_BYTES - 3))
