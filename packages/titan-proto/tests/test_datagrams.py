"""Copies of pieces of logs by datagram: genuine, or nothing at all."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from titan_proto.codec import encode
from titan_proto.datagrams import link_of, seal, unseal
from titan_proto.handshake import datagram_key
from titan_proto.ids import AttemptRef
from titan_proto.limits import DATAGRAM_LOG_BYTES
from titan_proto.messages import STDOUT, LogChunk

KEY = bytes(range(32))
CHUNK = LogChunk(AttemptRef("r" * 16, "JOB", 1), STDOUT, 7, 1_000, b"a line\n")


def test_both_ends_of_a_link_make_the_same_key_of_their_handshake(make_pair):
    """HMAC-SHA256 under the token's key, over a label and both nonces; another link has another."""
    first = make_pair().pump()
    assert first.dialler.datagram_key == first.listener.datagram_key
    assert len(first.dialler.datagram_key) == 32
    label = b"titan udp" + b"c" * 32 + b"s" * 32
    assert datagram_key(KEY, b"c" * 32, b"s" * 32) == hmac.digest(KEY, label, "sha256")
    assert datagram_key(KEY, b"c" * 32, b"t" * 32) != datagram_key(KEY, b"c" * 32, b"s" * 32)


def test_before_a_link_is_open_there_is_no_key(make_pair):
    pair = make_pair()
    assert pair.dialler.datagram_key == pair.listener.datagram_key == b""


def test_a_datagram_is_what_the_document_says():
    head, body = b"TUL1" + (77).to_bytes(8, "big"), encode(CHUNK)
    mac = hmac.new(KEY, head + body, hashlib.sha256).digest()
    assert seal(KEY, 77, CHUNK) == head + mac + body
    assert link_of(seal(KEY, 77, CHUNK)) == 77
    assert unseal(KEY, seal(KEY, 77, CHUNK)) == CHUNK


def test_every_bit_of_it_counts():
    """The link's number, too: what was sealed for one is nothing on another."""
    sealed = seal(KEY, 77, CHUNK)
    for place in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[place // 8] ^= 1 << place % 8
        assert unseal(KEY, bytes(changed)) is None
    assert unseal(KEY[::-1], sealed) is None


@given(st.binary(max_size=1500))
def test_garbage_is_nobodys(data):
    assert link_of(data) == 0 or data.startswith(b"TUL1")
    assert unseal(KEY, data) is None


@pytest.mark.parametrize("length", [0, DATAGRAM_LOG_BYTES + 1])
def test_a_copy_has_some_bytes_and_not_too_many(length):
    chunk = LogChunk(CHUNK.ref, STDOUT, 0, 1, b"x" * length)
    assert unseal(KEY, seal(KEY, 1, chunk)) is None


def test_what_is_sealed_and_no_chunk_is_nothing():
    head, body = b"TUL1" + (1).to_bytes(8, "big"), b"\x90"
    mac = hmac.new(KEY, head + body, hashlib.sha256).digest()
    assert unseal(KEY, head + mac + body) is None
