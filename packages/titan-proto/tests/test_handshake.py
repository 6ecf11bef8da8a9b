"""The handshake: both sides prove the token, nobody sends it, nothing else is read before."""

from __future__ import annotations

import hashlib
import hmac

import msgspec
import pytest

from titan_proto.codec import decode, encode
from titan_proto.connection import Closed, Connection, Opened
from titan_proto.errors import ErrorCode
from titan_proto.frame import VERSION_1, pack, unpack
from titan_proto.handshake import (
    BadToken,
    agree_features,
    agree_version,
    format_token,
    key_of,
    parse_token,
)
from titan_proto.messages import Challenge, GetStats, Proof, Refused, Role, Welcome
from titan_proto.opcodes import OpCode

SECRET = "5e" * 32


def frames(data):
    """The frames in these bytes, as (opcode, body)."""
    buffer, start, found = bytearray(data), 0, []
    while start < len(buffer):
        frame, start = unpack(buffer, start, 1 << 20)
        found.append((frame.opcode, frame.body))
    return found


def test_both_sides_open_and_know_the_same(make_pair):
    pair = make_pair().pump()

    (at_dialler,), (at_listener,) = pair.at_dialler, pair.at_listener
    assert isinstance(at_dialler, Opened)
    assert at_dialler == at_listener
    assert at_dialler.welcome.version == VERSION_1
    assert pair.dialler.version == pair.listener.version == VERSION_1
    assert [opcode for opcode, _ in frames(pair.from_dialler)] == [OpCode.HELLO, OpCode.PROOF]
    assert [opcode for opcode, _ in frames(pair.from_listener)] == [
        OpCode.CHALLENGE,
        OpCode.WELCOME,
    ]


def test_the_proofs_are_those_of_the_document(make_pair):
    """HMAC-SHA256 under K = SHA-256(secret), over a label and the bytes that crossed the wire."""
    pair = make_pair().pump()
    key = hashlib.sha256(SECRET.encode()).digest()
    (_, hello), (_, proof) = frames(pair.from_dialler)
    (_, challenge), _ = frames(pair.from_listener)
    nonce = bytes(range(32, 64))

    expected_of_master = hmac.digest(key, b"titan master" + hello + nonce, "sha256")
    expected_of_dialler = hmac.digest(key, b"titan dialler" + hello + challenge, "sha256")

    assert decode(OpCode.CHALLENGE, challenge) == Challenge(
        server_nonce=nonce, proof=expected_of_master
    )
    assert decode(OpCode.PROOF, proof) == Proof(proof=expected_of_dialler)


def test_neither_the_secret_nor_its_key_crosses_the_wire(make_pair):
    pair = make_pair().pump()

    said = bytes(pair.from_dialler + pair.from_listener)
    for secret in (SECRET.encode(), bytes.fromhex(SECRET), key_of(SECRET)):
        assert secret not in said


def test_a_dialler_with_another_secret_does_not_trust_the_master(make_pair, other_token):
    """The master's proof comes first: a dialler with a wrong token tells it nothing more."""
    pair = make_pair(key=other_token[1].key).pump()

    (closed,) = pair.at_dialler
    assert closed.code is ErrorCode.UNAUTHENTICATED
    assert "could not prove" in closed.reason
    assert [opcode for opcode, _ in frames(pair.from_dialler)] == [OpCode.HELLO]
    assert not pair.listener.is_open


def test_an_impostor_of_the_master_gets_no_proof(make_pair, hello):
    """Who does not know the token cannot make a Challenge that a dialler answers."""
    dialler = Connection.dialler(hello=hello(), key=key_of(SECRET))
    dialler.data_to_send()
    fake = encode(Challenge(server_nonce=bytes(32), proof=bytes(32)))

    (closed,) = dialler.receive_data(pack(1, OpCode.CHALLENGE, 0, 0, fake))

    assert closed.code is ErrorCode.UNAUTHENTICATED
    assert dialler.data_to_send() == b""


def test_a_dialler_that_lies_about_its_proof_is_refused(make_pair):
    """A dialler that skips the check still needs the token to get in."""
    pair = make_pair()
    pair.listener.receive_data(pair.dialler.data_to_send())
    pair.listener.data_to_send()

    body = encode(Proof(proof=bytes(32)))
    (closed,) = pair.listener.receive_data(pack(1, OpCode.PROOF, 0, 0, body))

    assert closed.code is ErrorCode.UNAUTHENTICATED
    ((opcode, body),) = frames(pair.listener.data_to_send())
    assert opcode == OpCode.REFUSED
    assert decode(opcode, body).code is ErrorCode.UNAUTHENTICATED


def test_an_unknown_token_is_refused_with_a_reason(make_pair):
    reason = "this master has no token x9; look into its data folder"
    refused = Refused(code=ErrorCode.UNAUTHENTICATED, reason=reason)
    pair = make_pair(authenticate=lambda _hello: refused).pump()

    assert pair.at_dialler == pair.at_listener == [Closed(ErrorCode.UNAUTHENTICATED, reason)]
    assert pair.dialler.is_closed
    assert pair.listener.is_closed


def test_a_captured_session_cannot_be_played_again(make_pair):
    """With another nonce of the master's, the old Proof proves nothing."""
    captured = make_pair().pump()
    listener = Connection.listener(
        server_nonce=bytes(range(100, 132)),
        authenticate=lambda _hello: captured.key,
        welcome=lambda _hello: pytest.fail("let in by a replay"),
    )

    (closed,) = listener.receive_data(bytes(captured.from_dialler))

    assert closed == Closed(ErrorCode.UNAUTHENTICATED, "the token's proof is wrong")


def test_a_changed_hello_breaks_the_proof(make_pair, hello):
    """Nobody on the way can raise the role or strip a feature."""
    pair = make_pair(hello=hello(role=Role.VIEWER))
    said = pair.dialler.data_to_send()
    raised = pack(1, OpCode.HELLO, 0, 0, encode(hello(role=Role.ADMIN)))
    assert said != raised
    pair.listener.receive_data(raised)

    (closed,) = pair.dialler.receive_data(pair.listener.data_to_send())

    assert closed.code is ErrorCode.UNAUTHENTICATED


def test_the_highest_common_version_is_agreed_on(make_pair, hello):
    pair = make_pair(hello=hello(versions=(1, 2, 77))).pump()

    assert pair.dialler.is_open
    assert pair.dialler.version == 1
    assert agree_version((7, 1, 3)) == 1
    assert agree_version(()) is None


def test_without_a_common_version_the_answer_says_what_there_is(make_pair, hello):
    pair = make_pair(hello=hello(versions=(8, 9))).pump()

    (closed,) = pair.at_dialler
    assert closed.code is ErrorCode.UNSUPPORTED
    assert "you speak 8, 9, this master speaks 1" in closed.reason
    ((opcode, body),) = frames(pair.from_listener)
    assert decode(opcode, body).supported == (1,)


def test_features_are_what_both_offer(make_pair, hello):
    def welcome(hello):
        return Welcome(
            version=1, cluster_id="c", software="m", term=1, link_id=1, features=("b", "a", "z")
        )

    pair = make_pair(hello=hello(features=("a", "b", "c")), welcome=welcome).pump()

    assert pair.dialler.features == pair.listener.features == ("b", "a")
    assert pair.at_dialler[0].welcome.features == ("b", "a")
    assert agree_features(("x",), ()) == ()


@pytest.mark.parametrize(
    "changes", [{"version": 2}, {"version": 0}, {"features": ("never-offered",)}]
)
def test_a_dialler_does_not_accept_what_it_did_not_offer(make_pair, changes):
    pair = make_pair()
    pair.listener.receive_data(pair.dialler.data_to_send())
    pair.dialler.receive_data(pair.listener.data_to_send())
    pair.listener.receive_data(pair.dialler.data_to_send())
    ((opcode, body),) = frames(pair.listener.data_to_send())
    bent = msgspec.structs.replace(decode(opcode, body), **changes)

    (closed,) = pair.dialler.receive_data(pack(1, opcode, 0, 0, encode(bent)))

    assert closed.code is ErrorCode.PROTOCOL
    assert "not offered" in closed.reason


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_nonce_of_another_length_is_refused(make_pair, hello, size):
    pair = make_pair(hello=hello(client_nonce=bytes(size))).pump()

    assert pair.at_dialler[0].code is ErrorCode.PROTOCOL


def test_a_role_that_this_master_does_not_know_is_refused(make_pair, hello):
    known = encode(hello())
    newer = known.replace(b"\xa6client", b"\xa6wizard")
    assert newer != known
    listener = make_pair().listener

    (closed,) = listener.receive_data(pack(1, OpCode.HELLO, 0, 0, newer))

    assert closed.code is ErrorCode.PERMISSION_DENIED


@pytest.mark.parametrize("opcode", [OpCode.GET_STATS, OpCode.PROOF, OpCode.WELCOME, 0x7F, 0x90])
def test_before_the_handshake_nothing_but_its_next_step_is_read(make_pair, opcode):
    """Neither known messages, nor later steps, nor ancillary ones."""
    listener = make_pair().listener

    (closed,) = listener.receive_data(pack(1, opcode, 0, 0, encode(GetStats())))

    assert closed.code is ErrorCode.PROTOCOL
    ((said, _),) = frames(listener.data_to_send())
    assert said == OpCode.REFUSED


def test_a_token_reads_as_it_is_written():
    text = format_token("worker", "a1-B2", SECRET)

    token = parse_token(f" {text}\n")

    assert token == ("a1-B2", hashlib.sha256(SECRET.encode()).digest())
    assert token.key.hex() not in repr(token)
    assert SECRET not in repr(token)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "titan_local_a1",
        f"titan_local_a1_{SECRET}0",
        f"titan_local_a1_{SECRET[:-1]}",
        f"titan_local_a1_{SECRET.upper()}",
        f"titan_local__{SECRET}",
        f"titan_LOCAL_a1_{SECRET}",
        f"other_local_a1_{SECRET}",
        f"titan_local_a 1_{SECRET}",
    ],
)
def test_what_is_no_token_is_told_without_repeating_it(text):
    with pytest.raises(BadToken) as caught:
        parse_token(text)
    assert not text or text not in str(caught.value)


def test_a_token_that_could_not_be_read_again_is_not_written():
    with pytest.raises(BadToken):
        format_token("local", "under_score", SECRET)
