"""Whatever a peer sends: an answer or a polite end, never an exception, never much memory."""

from __future__ import annotations

import contextlib
import pathlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from titan_proto.codec import decode, encode, is_known
from titan_proto.connection import Closed, Connection, Opened, Received
from titan_proto.errors import ErrorCode, MalformedBody
from titan_proto.frame import END, pack, unpack
from titan_proto.limits import FRAME_PAYLOAD_BYTES, PREAUTH_PAYLOAD_BYTES
from titan_proto.messages import (
    REGISTRY,
    Cancel,
    Error,
    GetRun,
    GetStats,
    JobChange,
    LogChunk,
    RunView,
    SubmitRun,
    WatchRun,
)
from titan_proto.opcodes import OpCode
from titan_proto.states import RunState

KNOWN = sorted(REGISTRY)
GOLDEN = sorted((pathlib.Path(__file__).parent / "golden" / "v1").iterdir())
DEEP = b"\x91" * 100_000 + b"\xc0"


def errors_in(data):
    """The Error messages in these bytes, by correlation id."""
    buffer, start, found = bytearray(data), 0, {}
    while start < len(buffer):
        frame, start = unpack(buffer, start, FRAME_PAYLOAD_BYTES)
        assert frame.opcode == OpCode.ERROR
        assert frame.end
        found[frame.correlation] = decode(frame.opcode, frame.body)
    return found


# -- any bytes ------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=400), max_size=5))
def test_random_bytes_before_the_handshake(make_pair, pieces):
    listener = make_pair().listener
    for piece in pieces:
        for event in listener.receive_data(piece):
            assert isinstance(event, Closed)


@given(st.lists(st.binary(max_size=400), max_size=5))
def test_random_bytes_on_an_open_link(make_pair, pieces):
    pair = make_pair().pump()
    for piece in pieces:
        for event in pair.listener.receive_data(piece):
            assert isinstance(event, (Received, Closed))


@given(st.sampled_from(KNOWN), st.binary(max_size=200))
def test_a_random_body_is_read_or_malformed(opcode, body):
    with contextlib.suppress(MalformedBody):
        assert isinstance(decode(opcode, body), REGISTRY[opcode])


@given(st.integers(0, 255), st.integers(0, 15), st.integers(0, 2**32 - 1), st.binary(max_size=100))
def test_a_random_frame_on_an_open_link(make_pair, opcode, flags, correlation, body):
    """Sound headers around anything: the link answers or ends, and what it says is sound."""
    pair = make_pair().pump()
    pair.listener.receive_data(pack(1, opcode, flags, correlation, body))
    for event in pair.dialler.receive_data(pair.listener.data_to_send()):
        assert isinstance(event, (Received, Closed))


@given(st.data())
def test_a_handshake_with_one_byte_changed_never_opens_as_another(make_pair, data):
    """Flip any byte of either side's: no link opens that was not agreed on by both."""
    pair = make_pair()
    sides = [(pair.dialler, pair.listener), (pair.listener, pair.dialler)]
    step = data.draw(st.integers(0, 2))
    opened = []
    for number in range(4):
        speaker, hearer = sides[number % 2]
        said = bytearray(speaker.data_to_send())
        if number == step and said:
            place = data.draw(st.integers(0, len(said) - 1))
            said[place] ^= data.draw(st.integers(1, 255))
        opened += [event for event in hearer.receive_data(said) if isinstance(event, Opened)]
    if opened:  # the spare byte and the free flags are not part of what is proved
        assert opened[0] == make_pair().pump().at_listener[0]


@given(st.data())
def test_sound_frames_with_bytes_changed(make_pair, data):
    """Every message there is, bent in a few places, on a link that stays usable or ends."""
    pair = make_pair().pump()
    path = data.draw(st.sampled_from(GOLDEN))
    said = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        said[data.draw(st.integers(0, len(said) - 1))] = data.draw(st.integers(0, 255))

    pair.listener.receive_data(bytes(said))

    for event in pair.dialler.receive_data(pair.listener.data_to_send()):
        assert isinstance(event, (Received, Closed))


# -- bodies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", KNOWN)
def test_deep_nesting_is_malformed_for_every_message(opcode):
    """As the whole body, and inside a field that nobody knows."""
    unknown_field = b"\x81\xa3zzz" + DEEP
    for body in (DEEP, unknown_field):
        with pytest.raises(MalformedBody):
            decode(opcode, body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x80trailing",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa3run\xdb\xff\xff\xff\xff",
        b"\x81\xa3run\xc6\xff\xff\xff\xff",
        b"\x81\xa3run\xa2\xff\xfe",
        b"\x81\xa3run\x05",
        b"\x81\x05\x05",
        b"\x80",
    ],
    ids=lambda body: body.hex() or "empty",
)
def test_a_bad_body_is_answered_on_its_exchange(pair, body):
    """Lying lengths, wrong types, broken text, trailing bytes, missing fields: the link stays."""
    assert pair.listener.receive_data(pack(1, OpCode.GET_RUN, END, 1, body)) == []

    (answer,) = errors_in(pair.listener.data_to_send()).values()

    assert answer.code is ErrorCode.MALFORMED
    assert answer.message.startswith("GetRun: ")
    assert pair.listener.is_open
    assert not pair.listener.is_exchange_open(1)


def test_a_bad_body_of_no_exchange_is_answered_too(pair):
    assert pair.listener.receive_data(pack(1, OpCode.LOG_CHUNK, 0, 0, b"\x90")) == []
    assert errors_in(pair.listener.data_to_send())[0].code is ErrorCode.MALFORMED


def test_an_unreadable_error_is_not_answered_with_an_error(pair):
    """Or two peers could keep each other busy."""
    assert pair.listener.receive_data(pack(1, OpCode.ERROR, 0, 0, b"\xc1")) == []
    assert pair.listener.data_to_send() == b""


def test_an_unreadable_goodbye_is_a_goodbye(pair):
    (closed,) = pair.listener.receive_data(pack(1, OpCode.GOODBYE, 0, 0, b"\xc1"))
    assert closed.code is ErrorCode.PROTOCOL


def test_an_unreadable_reply_reaches_the_caller_and_ends_the_exchange(pair):
    """The caller gets an Error, the peer a Cancel; without the latter it would go on."""
    asked = pair.dialler.open_exchange()
    pair.dialler.send(WatchRun(run="r"), asked, end=True)
    pair.pump()

    (told,) = pair.dialler.receive_data(pack(1, OpCode.JOB_CHANGE, 0, asked, b"\xc1"))

    assert told.end
    assert told.message.code is ErrorCode.MALFORMED
    assert pair.news()[1] == [Received(Cancel(), asked, end=True)]
    late = pack(1, OpCode.JOB_CHANGE, 0, asked, encode(JobChange(run_id="r", at_ms=1)))
    assert pair.dialler.receive_data(late) == []


def test_an_unreadable_piece_of_an_upload_stops_who_receives_it(pair):
    pair.listener.receive_data(pack(1, OpCode.GET_RUN, 0, 1, encode(GetRun(run="r"))))

    events = pair.listener.receive_data(pack(1, OpCode.ARTIFACT_CHUNK, 0, 1, b"\xc1"))

    assert events == [Received(Cancel(), 1, end=True)]
    assert errors_in(pair.listener.data_to_send())[1].code is ErrorCode.MALFORMED


def test_a_newer_peers_fields_and_values_are_lived_with():
    """Unknown fields are ignored, absent ones take their default, new enum values are UNKNOWN."""
    view = {"run_id": "r", "alias": "a", "name": "n", "submitted_at_ms": 1, "brand_new": [1, {}]}
    body = msgspec.msgpack.encode({**view, "state": "PAUSED"})

    message = decode(OpCode.RUN_VIEW, body)

    assert isinstance(message, RunView)
    assert message.state is RunState.UNKNOWN
    assert message.counts == {}


def test_a_newer_peers_longer_array_is_read():
    body = msgspec.msgpack.encode([["r", "j", 1], 1, 0, 5, b"data", "appended"])

    assert decode(OpCode.LOG_CHUNK, body) == LogChunk(
        decode(OpCode.LOG_CHUNK, body).ref, 1, 0, 5, b"data"
    )


# -- opcodes --------------------------------------------------------------------------------------


def test_an_unknown_critical_opcode_is_unsupported_and_the_link_stays(pair):
    assert not is_known(0x7F)
    assert pair.listener.receive_data(pack(1, 0x7F, END, 1, b"anything")) == []

    answer = errors_in(pair.listener.data_to_send())[1]

    assert answer.code is ErrorCode.UNSUPPORTED
    assert "0x7f" in answer.message
    asked = pack(1, OpCode.GET_STATS, END, 3, encode(GetStats()))
    assert pair.listener.receive_data(asked) == [Received(GetStats(), 3, end=True)]


def test_an_unknown_critical_reply_reaches_the_caller(pair):
    asked = pair.dialler.open_exchange()
    pair.dialler.send(GetStats(), asked, end=True)

    (told,) = pair.dialler.receive_data(pack(1, 0x7F, END, asked, b""))

    assert isinstance(told.message, Error)
    assert told.message.code is ErrorCode.UNSUPPORTED


@pytest.mark.parametrize("correlation", [0, 1, 2])
def test_an_unknown_ancillary_opcode_is_ignored(pair, correlation):
    """Silently, whatever exchange it claims, and without opening one."""
    assert pair.listener.receive_data(pack(1, 0x9F, 0, correlation, b"\xc1")) == []
    assert pair.listener.data_to_send() == b""
    assert not pair.listener.is_exchange_open(1)


@pytest.mark.parametrize(
    "opcode", [OpCode.HELLO, OpCode.CHALLENGE, OpCode.PROOF, OpCode.WELCOME, OpCode.REFUSED]
)
def test_the_handshake_cannot_be_had_twice(pair, opcode):
    (closed,) = pair.listener.receive_data(pack(1, opcode, 0, 0, b"\x80"))

    assert closed.code is ErrorCode.PROTOCOL


# -- headers --------------------------------------------------------------------------------------


def test_before_the_handshake_a_frame_has_at_most_4_kib(make_pair):
    """Told from the header alone: eight bytes are enough to be refused."""
    claim = (PREAUTH_PAYLOAD_BYTES + 1).to_bytes(4, "big")
    listener = make_pair().listener

    (closed,) = listener.receive_data(b"\x01\x01\x00\x00" + claim)

    assert closed.code is ErrorCode.LIMIT_EXCEEDED
    assert "4096" in closed.reason


def test_exactly_4_kib_are_looked_at(make_pair, hello):
    """Padding a Hello up to the limit is allowed."""
    pad = PREAUTH_PAYLOAD_BYTES - 4 - len(encode(hello(software="")))
    body = encode(hello(software="x" * (pad - 2)))
    assert len(body) == PREAUTH_PAYLOAD_BYTES - 4
    listener = make_pair().listener

    assert listener.receive_data(pack(1, OpCode.HELLO, 0, 0, body)) == []
    assert listener.data_to_send()


def test_the_limit_is_the_large_one_as_soon_as_the_link_is_open(make_pair):
    """Also for a frame that comes in the same bytes as the Proof."""
    pair = make_pair()
    pair.listener.receive_data(pair.dialler.data_to_send())
    pair.dialler.receive_data(pair.listener.data_to_send())
    large = SubmitRun(key="k" * 100, spec_digest="d" * 50_000)

    events = pair.listener.receive_data(
        pair.dialler.data_to_send() + pack(1, OpCode.SUBMIT_RUN, END, 1, encode(large))
    )

    assert [type(event) for event in events] == [Opened, Received]


def test_an_oversize_frame_on_an_open_link_is_a_goodbye(pair):
    claim = (FRAME_PAYLOAD_BYTES + 1).to_bytes(4, "big")

    (closed,) = pair.listener.receive_data(b"\x01\x30\x00\x00" + claim)

    assert closed.code is ErrorCode.LIMIT_EXCEEDED
    assert pair.news()[0] == [closed]


def test_a_claimed_length_costs_nothing(pair):
    """8 MiB promised, 20 bytes sent: 20 bytes kept."""
    header = b"\x01\x30\x00\x00" + FRAME_PAYLOAD_BYTES.to_bytes(4, "big")

    assert pair.listener.receive_data(header + bytes(12)) == []
    assert len(pair.listener._buffer) == 20


@pytest.mark.parametrize("flag", [0x10, 0x80])
def test_an_unknown_must_understand_flag_is_a_goodbye(pair, flag):
    (closed,) = pair.listener.receive_data(pack(1, OpCode.GET_STATS, flag, 1, b"\x80"))

    assert closed.code is ErrorCode.PROTOCOL


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", b"\x02\x01"])
def test_another_protocol_is_recognised_by_its_first_byte(make_pair, hello, data):
    """At either end: somebody dials 9090 with a browser, or a dialler meets a web server."""
    dialler = Connection.dialler(hello=hello(), key=bytes(32))
    for connection in (make_pair().listener, dialler):
        (closed,) = connection.receive_data(data)
        assert "is this a Titan peer?" in closed.reason
