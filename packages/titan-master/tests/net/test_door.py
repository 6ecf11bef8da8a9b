"""Who is let in, over real sockets; and what happens to those who are not, or who misbehave."""

from __future__ import annotations

import socket
import time

import pytest
from raw_link import RawLink
from running_master import TOKEN, RunningMaster

from titan_master.net.link import join_complaint
from titan_proto.errors import ErrorCode, LinkError, PermissionDenied, Refused, RequestError
from titan_proto.frame import pack
from titan_proto.handshake import format_token, parse_token
from titan_proto.limits import FRAME_PAYLOAD_BYTES, PREAUTH_PAYLOAD_BYTES
from titan_proto.messages import (
    REGISTRY,
    CancelRun,
    FindFiles,
    GetStats,
    Join,
    Leave,
    ListRuns,
    OpCode,
    Role,
    ShutDownWorker,
    StartAttempts,
    StopService,
    SubmitRun,
    WorkerStatus,
)

LATE_S = 0.15


@pytest.fixture(scope="module")
def master(tmp_path_factory):
    with RunningMaster(
        tmp_path_factory.mktemp("m"), handshake_timeout_ms=int(LATE_S * 1000), strangers_max=8
    ) as running:
        yield running


def test_the_right_token_is_let_in(master):
    """And told where it is."""
    with master.link() as link:
        assert link.welcome.cluster_name == "test"
        assert link.welcome.term == 1
        assert link.call(GetStats()).cluster_id == link.welcome.cluster_id


@pytest.mark.parametrize(
    "token",
    [format_token("local", "test", "cd" * 32), format_token("local", "other", "ab" * 32)],
)
def test_a_wrong_token_is_refused(master, token):
    """A wrong secret and an unknown id alike: before anything else is looked at."""
    with pytest.raises(Refused) as caught:
        master.link(token=token)
    assert caught.value.code is ErrorCode.UNAUTHENTICATED


def everything(peer: socket.socket) -> bytes:
    said = b""
    while data := peer.recv(1 << 16):
        said += data
    return said


def test_before_the_handshake_nothing_else_is_even_parsed(master):
    """A request, valid in itself, as the first frame: refused as out of turn."""
    with socket.create_connection(tuple(master.address), timeout=10) as peer:
        peer.sendall(pack(1, OpCode.GET_STATS, 0, 1, b"\x80"))
        said = everything(peer)
    assert said[1] == OpCode.REFUSED
    assert b"out of turn" in said


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"\xff" * 64,
     b"\x00" * 64],
)  # fmt: skip
def test_garbage_is_refused_and_others_go_on(master, garbage):
    """HTTP, TLS, noise."""
    with master.link() as bystander:
        with socket.create_connection(tuple(master.address), timeout=10) as peer:
            peer.sendall(garbage)
            assert everything(peer)[1] == OpCode.REFUSED
        bystander.call(GetStats())


def test_a_frame_too_large_for_a_stranger_is_refused_by_its_header(master):
    """Nothing waits for the bytes that it announces."""
    with socket.create_connection(tuple(master.address), timeout=10) as peer:
        header = pack(1, OpCode.HELLO, 0, 0, b"")[:4]
        peer.sendall(header + (PREAUTH_PAYLOAD_BYTES + 1).to_bytes(4, "big"))
        assert everything(peer)[1] == OpCode.REFUSED


def test_a_frame_too_large_for_anybody_closes_the_link(master):
    """Politely, with the limit."""
    with RawLink(master.address, role=Role.CLIENT) as link:
        header = pack(1, OpCode.GET_STATS, 0, 1, b"")[:4]
        link.socket.sendall(header + (FRAME_PAYLOAD_BYTES + 1).to_bytes(4, "big"))
        assert link.until_closed().code is ErrorCode.LIMIT_EXCEEDED


def test_a_stranger_who_takes_too_long_is_sent_away(master):
    """One byte now and then does not extend the deadline."""
    hello = pack(1, OpCode.HELLO, 0, 0, b"x" * 100)
    began = time.monotonic()
    with socket.create_connection(tuple(master.address), timeout=0.01) as peer:
        said = b""
        for byte in hello:
            peer.send(bytes((byte,)))
            try:
                said = peer.recv(1 << 16)
                break
            except TimeoutError:
                continue
    assert LATE_S * 0.9 <= time.monotonic() - began < 20 * LATE_S
    assert said[1] == OpCode.REFUSED


def test_too_many_strangers_are_not_waited_for(master):
    """Those beyond the number are cut at once; those who are in go on."""
    with master.link() as bystander:
        strangers = [socket.create_connection(tuple(master.address), timeout=10) for _ in range(20)]
        try:
            ends = [_ended(peer) for peer in strangers]
        finally:
            for peer in strangers:
                peer.close()
        assert ends.count("cut") >= 10
        assert "told" in ends
        bystander.call(GetStats())


def _ended(peer: socket.socket) -> str:
    try:
        return "told" if everything(peer) else "cut"
    except ConnectionError:
        return "cut"


def test_links_beyond_the_limit_are_refused_politely(tmp_path):
    """With the limit's name; and let in when there is room again."""
    with RunningMaster(tmp_path, links_max=2) as small:
        kept = [small.link() for _ in range(2)]
        with pytest.raises(Refused, match="links_max") as caught:
            small.link()
        assert caught.value.code is ErrorCode.LIMIT_EXCEEDED
        for link in kept:
            link.close()
        deadline = time.monotonic() + 10
        while small.on_loop(lambda: len(small.master._links)):
            assert time.monotonic() < deadline
        small.link().close()


@pytest.mark.parametrize(
    ("role", "request_", "is_allowed"),
    [
        (Role.VIEWER, GetStats(), True),
        (Role.VIEWER, ListRuns(), True),
        (Role.VIEWER, SubmitRun(key="k"), False),
        (Role.VIEWER, CancelRun(run="x"), False),
        (Role.VIEWER, FindFiles(names=("x",)), False),
        (Role.CLIENT, FindFiles(names=("x",)), True),
        (Role.CLIENT, CancelRun(run="nobody"), True),
        (Role.ADMIN, StopService(service="nobody"), True),
        (Role.ADMIN, ShutDownWorker(worker="nobody"), True),
        (Role.CLIENT, ShutDownWorker(worker="nobody"), False),
        (Role.WORKER, GetStats(), False),
        (Role.WORKER, SubmitRun(key="k"), False),
    ],
)
def test_a_role_may_what_the_table_says_and_no_more(master, role, request_, is_allowed):
    """A refusal is an answer: the link goes on."""
    with master.link(role) as link:
        try:
            link.call(request_, timeout_s=10)
        except PermissionDenied:
            assert not is_allowed
        except RequestError:
            assert is_allowed
        else:
            assert is_allowed
        assert link.is_usable


@pytest.mark.parametrize("message", [
    WorkerStatus(running=0), Leave(), StartAttempts(term=99, orders=()),
    Join(worker_id="w", host="h", port=1, incarnation=1, boot_id="b", software="", slots=1, skills=()),
])  # fmt: skip
def test_a_client_that_plays_worker_or_master_is_cut_off(master, message):
    """Outside an exchange there is nobody to answer: the link ends."""
    with RawLink(master.address, role=Role.CLIENT) as link:
        link.send(message)
        assert link.until_closed().code is ErrorCode.PERMISSION_DENIED


def test_a_request_outside_an_exchange_breaks_the_protocol(master):
    """There is no way to answer it."""
    with RawLink(master.address, role=Role.CLIENT) as link:
        link.send(GetStats())
        assert link.until_closed().code is ErrorCode.PROTOCOL


def test_every_body_that_cannot_be_read_is_answered_and_the_link_stays(master):
    """For each message there is; a worker's link too."""
    for role in (Role.ADMIN, Role.WORKER):
        with RawLink(master.address, role=role) as link:
            for number, opcode in enumerate(sorted(REGISTRY)):
                if opcode > OpCode.DONE:
                    link.send_raw(opcode, b"\xc1 no msgpack", 101 + 2 * number)
            answered = 0
            while answered < sum(opcode > OpCode.DONE for opcode in REGISTRY):
                assert link.closed is None
                data = link.socket.recv(1 << 16)
                answered += data.count(b"MALFORMED")


@pytest.mark.parametrize(
    "fields",
    [
        {"slots": 0}, {"slots": 5000}, {"host": ""}, {"host": "a\nb"}, {"port": 70_000},
        {"skills": ("x" * 65,)}, {"skills": tuple(map(str, range(65)))}, {"worker_id": "x" * 129},
    ],
)  # fmt: skip
def test_a_worker_that_makes_no_sense_does_not_join(master, fields):
    """And hears why."""
    with RawLink(master.address, role=Role.WORKER) as link:
        link.join(**fields)
        assert link.until_closed().code is ErrorCode.MALFORMED


def test_a_master_that_stops_says_goodbye(tmp_path):
    """To every link, before it is gone."""
    with RunningMaster(tmp_path) as running:
        link = RawLink(running.address, role=Role.CLIENT)
    with link:
        assert link.until_closed().code is ErrorCode.SHUTTING_DOWN
    with pytest.raises(LinkError):
        running.link()


def test_the_token_never_crosses_the_wire(master):
    """Nor does what the master keeps of it, in either direction."""
    with RawLink(master.address, role=Role.CLIENT) as link:
        assert link.connection.is_open
        secret = TOKEN.rsplit("_", 1)[1]
        for bytes_ in (secret.encode(), bytes.fromhex(secret), parse_token(TOKEN).key):
            assert bytes_ not in link.said + link.heard


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ({"x" * 65: 1}, "name that cannot be one"),
        ({"a\x1b[2J": 1}, "name that cannot be one"),
        ({"gpu": -1}, "gpu is 0 to 1000000000, not -1"),
        ({"memory": 1 << 60}, "memory is 0 to"),
        ({f"r{number}": 1 for number in range(1_000)}, "RESOURCES_PER_WORKER"),
        ({"gpu": 2, "memory": 1 << 40, "cpu": 64_000}, ""),
    ],
)
def test_what_a_worker_says_that_it_has_is_looked_at_before_it_is_kept(resources, said):
    join = Join(
        worker_id="w",
        host="h",
        port=1,
        incarnation=1,
        boot_id="b",
        software="",
        slots=1,
        skills=(),
        resources=resources,
    )

    complaint = join_complaint(join)

    assert said in complaint
    assert bool(complaint) == bool(said)
