"""The connection: any cut of the bytes, exchanges, its own answers, its end."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from titan_proto.connection import Closed, Connection, Opened, Received
from titan_proto.errors import ErrorCode, FrameTooLarge, LocalProtocolError
from titan_proto.frame import END, pack
from titan_proto.handshake import key_of
from titan_proto.limits import (
    EXCHANGES_PER_LINK,
    FRAME_PAYLOAD_BYTES,
    OUTBOX_BULK_BYTES,
    OUTBOX_CONTROL_BYTES,
)
from titan_proto.messages import (
    ArtifactChunk,
    Cancel,
    Done,
    Error,
    FetchArtifact,
    FindFiles,
    GetRun,
    GetStats,
    Goodbye,
    JobChange,
    LogData,
    Ping,
    Pong,
    Proof,
    ReadLog,
    Welcome,
)
from titan_proto.opcodes import OpCode

KEY = key_of("5e" * 32)


def make_session(make_pair):
    """A whole session: handshake, requests, replies, a stream, pings, goodbye."""
    pair = make_pair().pump()
    dialler, listener = pair.dialler, pair.listener
    asked = dialler.open_exchange()
    dialler.send(GetRun(run="nightly-7"), asked, end=True)
    dialler.send(Ping(12345))
    dialler.send(FindFiles(names=("a.py", "b" * 300)))
    streamed = dialler.open_exchange()
    dialler.send(WATCH, streamed, end=True)
    pair.pump()
    listener.send(Error(code=ErrorCode.NOT_FOUND, message="no such run"), asked)
    listener.send(LogData(1, 1, 5, b"\x00\xff" * 40), streamed)
    listener.send(JobChange(run_id="r", at_ms=1), streamed)
    listener.send(Done(), streamed)
    pair.pump()
    dialler.close(ErrorCode.SHUTTING_DOWN, "that was all")
    return pair.pump()


WATCH = ReadLog(run="nightly-7", job="A", follow=True)


def make_listener():
    return Connection.listener(
        server_nonce=bytes(range(32, 64)),
        authenticate=lambda _hello: KEY,
        welcome=lambda _hello: Welcome(
            version=1, cluster_id="c1", software="test-master 1.0", term=3, link_id=7
        ),
    )


def replay(connection, data, cuts):
    """The events of `data` fed in the pieces between these cuts."""
    events = []
    bounds = [0, *sorted(cuts), len(data)]
    for start, stop in itertools.pairwise(bounds):
        events += connection.receive_data(bytes(data[start:stop]))
    return events


def test_a_listener_hears_the_same_wherever_the_bytes_are_cut(make_pair):
    """Every position of a whole session, handshake included, and one byte at a time."""
    session = make_session(make_pair)
    said, heard = session.from_dialler, session.at_listener
    assert len(heard) == 5
    assert isinstance(heard[-1], Closed)

    for cut in range(len(said) + 1):
        assert replay(make_listener(), said, [cut]) == heard
    assert replay(make_listener(), said, range(len(said))) == heard


def test_a_dialler_hears_the_same_wherever_the_bytes_are_cut(make_pair, hello):
    """The other direction, with its two exchanges open."""
    session = make_session(make_pair)
    said, heard = session.from_listener, session.at_dialler
    opening = said.index(pack(1, OpCode.PONG, END, 0, b"\x91\xcd09"))
    assert [type(event) for event in heard] == [Opened, *[Received] * 5]

    def half_way(cuts):
        dialler = Connection.dialler(hello=hello(), key=KEY)
        events = replay(dialler, said[:opening], [cut for cut in cuts if cut < opening])
        for _ in range(2):
            dialler.open_exchange()
        later = [cut - opening for cut in cuts if cut >= opening]
        return events + replay(dialler, said[opening:], later)

    for cut in range(len(said) + 1):
        assert half_way([cut]) == heard
    assert half_way(list(range(len(said)))) == heard


@pytest.fixture(scope="module")
def session(make_pair):
    return make_session(make_pair)


@given(st.data())
def test_a_listener_hears_the_same_in_any_pieces(session, data):
    """Random pieces, many cuts at once."""
    said, heard = session.from_dialler, session.at_listener
    cuts = data.draw(st.lists(st.integers(0, len(said)), max_size=30))

    assert replay(make_listener(), said, cuts) == heard


def test_no_exchange_message_needs_none(pair):
    pair.listener.send(Done())

    assert pair.news() == ([Received(Done(), 0, False)], [])


def test_a_request_and_its_reply_share_an_id(pair):
    first, second = pair.dialler.open_exchange(), pair.dialler.open_exchange()
    assert (first, second) == (1, 3)
    assert pair.listener.open_exchange() == 2
    pair.dialler.send(GetStats(), second, end=True)
    assert pair.news() == ([], [Received(GetStats(), 3, end=True)])

    pair.listener.send(Done(), second)

    assert pair.news() == ([Received(Done(), 3, end=True)], [])
    assert not pair.dialler.is_exchange_open(second)
    assert not pair.listener.is_exchange_open(second)
    assert pair.dialler.is_exchange_open(first)


def test_an_answer_to_a_cancelled_question_is_dropped(pair):
    """On the way out if the cancel has come, on the way in if not: neither side minds."""
    asked = pair.dialler.open_exchange()
    pair.dialler.send(GetStats(), asked, end=True)
    pair.pump()
    pair.dialler.send(Cancel(), asked)
    pair.listener.send(Done(), asked)  # they cross

    at_dialler, at_listener = pair.news()

    assert at_dialler == []
    assert at_listener == []  # it had ended here before the cancel came
    pair.listener.send(Done(), asked)
    assert pair.listener.pending_bytes == 0


def test_a_cancel_reaches_who_still_answers(pair):
    asked = pair.dialler.open_exchange()
    pair.dialler.send(WATCH, asked, end=True)
    pair.pump()
    pair.dialler.send(Cancel(), asked)

    at_dialler, at_listener = pair.news()

    assert at_dialler == []
    assert at_listener == [Received(Cancel(), asked, end=False)]
    pair.listener.send(JobChange(run_id="r", at_ms=1), asked)
    assert pair.news() == ([], [])


def test_what_comes_after_an_answer_is_late_and_dropped(pair):
    """An uploader that has not heard the refusal yet goes on sending: nobody's fault."""
    asked = pair.dialler.open_exchange()
    pair.dialler.send(FetchArtifact(digest="d"), asked)
    pair.pump()
    pair.listener.send(Error(code=ErrorCode.UNAVAILABLE, message="full"), asked)
    pair.dialler.send(ArtifactChunk(0, b"x"), asked)

    at_dialler, at_listener = pair.news()

    assert at_listener == []
    assert len(at_dialler) == 1
    assert pair.dialler.is_open
    assert pair.listener.is_open


def test_a_reply_to_a_question_never_asked_ends_the_link(pair):
    (closed,) = pair.dialler.receive_data(pack(1, OpCode.DONE, END, 9, b"\x80"))

    assert closed.code is ErrorCode.PROTOCOL
    assert "never opened" in closed.reason


@pytest.mark.parametrize(
    ("message", "correlation"),
    [(GetStats(), 5), (GetStats(), 6), (GetStats(), -1), (Proof(proof=b""), 0)],
)
def test_misuse_is_told_to_the_one_who_did_it(pair, message, correlation):
    with pytest.raises(LocalProtocolError):
        pair.dialler.send(message, correlation)
    assert pair.dialler.pending_bytes == 0
    assert pair.dialler.is_open


def test_nothing_can_be_sent_before_the_handshake_is_over(make_pair):
    pair = make_pair()

    for connection in (pair.dialler, pair.listener):
        with pytest.raises(LocalProtocolError):
            connection.send(GetStats())
        with pytest.raises(LocalProtocolError):
            connection.open_exchange()


def test_as_many_exchanges_as_a_link_may_have(pair):
    """Here a bug of the opener's, there an answer that quotes the limit."""
    for _ in range(EXCHANGES_PER_LINK):
        pair.dialler.open_exchange()
    with pytest.raises(LocalProtocolError, match="EXCHANGES_PER_LINK"):
        pair.dialler.open_exchange()

    for number in range(EXCHANGES_PER_LINK):
        pair.listener.receive_data(pack(1, OpCode.GET_STATS, END, 2 * number + 1, b"\x80"))
    last = pack(1, OpCode.GET_STATS, END, 2 * EXCHANGES_PER_LINK + 1, b"\x80")
    assert pair.listener.receive_data(last) == []
    assert b"EXCHANGES_PER_LINK" in pair.listener.data_to_send()
    pair.listener.send(Done(), 1)
    more = pack(1, OpCode.GET_STATS, END, 2 * EXCHANGES_PER_LINK + 3, b"\x80")
    assert len(pair.listener.receive_data(more)) == 1


def test_a_ping_is_answered_without_anybody(pair):
    pair.listener.send(Ping(77))

    assert pair.news() == ([], [Received(Pong(77), 0, end=True)])


def test_a_goodbye_comes_after_replies_and_instead_of_bulk(pair):
    pair.listener.send(LogData(1, 1, 0, b"bulk"))
    pair.listener.send(Done())
    pair.listener.close(ErrorCode.SHUTTING_DOWN, "stopping")

    at_dialler, _ = pair.news()

    assert at_dialler[1:] == [Closed(ErrorCode.SHUTTING_DOWN, "stopping")]
    assert at_dialler[0].message == Done()
    assert pair.dialler.is_closed
    assert pair.listener.is_closed


def test_a_closed_connection_says_and_hears_nothing(pair):
    """A reply may be on its way when the link closes: that is no mistake of its sender."""
    pair.dialler.send(GetStats())
    pair.dialler.close(ErrorCode.SHUTTING_DOWN, "first")
    pair.dialler.close(ErrorCode.INTERNAL, "second")
    pair.pump()

    pair.dialler.send(GetStats())

    assert pair.dialler.closed == Closed(ErrorCode.SHUTTING_DOWN, "first")
    assert pair.dialler.data_to_send() == b""
    assert pair.dialler.receive_data(pack(1, OpCode.DONE, 0, 0, b"\x80")) == []
    with pytest.raises(LocalProtocolError):
        pair.dialler.open_exchange()


def test_what_follows_a_goodbye_in_the_same_bytes_is_not_read(pair):
    pair.dialler.send(Goodbye(code=ErrorCode.SHUTTING_DOWN, reason="bye"))
    pair.dialler.send(GetStats())

    assert pair.news()[1] == [Closed(ErrorCode.SHUTTING_DOWN, "bye")]


def test_a_peer_that_does_not_read_is_closed(pair):
    """The control lane has a ceiling; what waits is dropped for one last word."""
    message = Error(code=ErrorCode.INTERNAL, message="x" * 1_000_000)
    for _ in range(OUTBOX_CONTROL_BYTES // 1_000_000 + 1):
        pair.listener.send(message)

    assert pair.listener.is_closed
    at_dialler, _ = pair.news()
    assert [event.code for event in at_dialler] == [ErrorCode.SLOW_READER]


def test_bulk_is_sent_only_while_there_is_room(pair):
    chunk = LogData(1, 1, 0, bytes(65_000))
    count = 0
    while pair.listener.bulk_room:
        pair.listener.send(chunk)
        count += 1
    with pytest.raises(LocalProtocolError, match="bulk_room"):
        pair.listener.send(chunk)

    assert count * 65_000 > OUTBOX_BULK_BYTES - 65_100
    assert len(pair.news()[0]) == count
    assert pair.listener.bulk_room == OUTBOX_BULK_BYTES


def test_a_stream_is_not_overtaken_by_its_own_end(pair):
    asked = pair.dialler.open_exchange()
    pair.dialler.send(WATCH, asked, end=True)
    pair.pump()
    for number in range(3):
        pair.listener.send(LogData(1, 1, number, b"x"), asked)
    pair.listener.send(Done(), asked)
    pair.listener.send(Pong(1))

    kinds = [type(event.message) for event in pair.news()[0]]

    assert kinds == [Pong, LogData, LogData, LogData, Done]


def test_a_message_above_the_frame_limit_is_the_senders_mistake(pair):
    with pytest.raises(LocalProtocolError, match="FRAME_PAYLOAD_BYTES"):
        pair.dialler.send(FindFiles(names=("x" * FRAME_PAYLOAD_BYTES,)))
    assert pair.dialler.is_open


def test_a_dialler_that_gives_up_early_says_nothing(make_pair):
    pair = make_pair()
    pair.dialler.data_to_send()

    pair.dialler.close(ErrorCode.SHUTTING_DOWN, "enough")

    assert pair.dialler.data_to_send() == b""


def test_a_listener_that_stops_refuses_who_is_not_in_yet(make_pair):
    pair = make_pair()
    pair.listener.close(ErrorCode.SHUTTING_DOWN, "stopping")

    assert pair.news()[0] == [Closed(ErrorCode.SHUTTING_DOWN, "stopping")]


def test_an_exchange_has_one_request(pair):
    """A second one could neither be told apart nor cancelled: it breaks the protocol."""
    dialler, listener = pair.dialler, pair.listener
    asked = dialler.open_exchange()
    dialler.send(WATCH, asked)
    dialler.send(GetStats(), asked, end=True)
    pair.pump()
    assert listener.is_closed
    assert listener.closed.code is ErrorCode.PROTOCOL
    assert "GetStats" in dialler.closed.reason


def test_a_message_that_no_frame_holds_is_not_sent_and_nothing_is_lost(pair):
    """Its exchange is still open: something smaller may be said in it."""
    dialler, listener = pair.dialler, pair.listener
    asked = dialler.open_exchange()
    dialler.send(GetStats(), asked, end=True)
    pair.pump()
    huge = Error(code=ErrorCode.INTERNAL, message="x" * FRAME_PAYLOAD_BYTES)
    with pytest.raises(FrameTooLarge):
        listener.send(huge, asked, end=True)
    listener.send(Error(code=ErrorCode.LIMIT_EXCEEDED, message="less"), asked, end=True)
    pair.pump()
    assert not listener.is_exchange_open(asked)
    assert dialler.is_open


def test_last_words_are_cut_to_what_always_fits(pair):
    """They may quote what a peer has said."""
    pair.listener.close(ErrorCode.PROTOCOL, "x" * FRAME_PAYLOAD_BYTES)
    pair.pump()
    assert set(pair.dialler.closed.reason) == {"x"}
