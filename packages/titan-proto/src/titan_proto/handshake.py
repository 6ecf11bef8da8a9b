"""Who may speak, and in which version: the pure part of the handshake.

Decides what the proofs are computed over, which version and features two peers agree on, and what
a token's text means. It holds no state, draws no nonces and never sees a socket: `connection` walks
through the steps, `io` brings nonces and token files.

The secret never crosses the wire. Both peers hold K, the SHA-256 of the secret's text; each proves
it with an HMAC over what both have said so far, so that neither proof can be used again.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final, NamedTuple

from titan_proto.errors import ErrorCode, TitanError
from titan_proto.frame import VERSION_1
from titan_proto.limits import NONCE_BYTES
from titan_proto.messages.link import Challenge, Hello, Refused, Role, Welcome

SUPPORTED_VERSIONS: Final = (VERSION_1,)
LOG_GAPS: Final = "log-gaps"
"""The master takes a LogGap from a worker."""
LOG_UDP: Final = "log-udp"
"""The worker sends copies of fresh pieces of logs by datagram; on links in plain text only, for a
datagram is sealed but not encrypted."""
FEATURES: Final[tuple[str, ...]] = (LOG_GAPS, LOG_UDP)
"""What this release offers beyond its version. A new behaviour adds its name here."""

_MASTER_LABEL: Final = b"titan master"
_DIALLER_LABEL: Final = b"titan dialler"
_DATAGRAM_LABEL: Final = b"titan udp"
_TOKEN = re.compile(r"titan_([a-z]+)_([A-Za-z0-9-]{1,64})_([0-9a-f]{64})\Z")


class BadToken(TitanError):
    """A text that is meant to be a token and is not."""


class Token(NamedTuple):
    """What a peer needs of its token: the public id, and K."""

    token_id: str
    key: bytes

    def __repr__(self) -> str:
        """Without the key: a repr ends up in logs."""
        return f"Token(token_id={self.token_id!r})"


def parse_token(text: str) -> Token:
    """The token that `text` spells: ``titan_<role or local>_<id>_<64 hex digits>``."""
    match = _TOKEN.match(text.strip())
    if match is None:
        raise BadToken("not a token: expected titan_<role>_<id>_<64 hex digits>")
    return Token(match.group(2), key_of(match.group(3)))


def format_token(kind: str, token_id: str, secret: str) -> str:
    """The text of a token. `kind` is a role's name or ``local``."""
    text = f"titan_{kind}_{token_id}_{secret}"
    if _TOKEN.match(text) is None:
        raise BadToken(f"kind {kind!r} and id {token_id!r} with this secret make no token")
    return text


def key_of(secret: str) -> bytes:
    """K: what a master stores instead of the secret, and what both sides prove to know."""
    return hashlib.sha256(secret.encode("ascii")).digest()


def master_proof(key: bytes, hello_body: bytes, server_nonce: bytes) -> bytes:
    """What only a master that knows the token can send."""
    return _mac(key, _MASTER_LABEL, hello_body, server_nonce)


def dialler_proof(key: bytes, hello_body: bytes, challenge_body: bytes) -> bytes:
    """What only a dialler that knows the token can answer to that challenge."""
    return _mac(key, _DIALLER_LABEL, hello_body, challenge_body)


def datagram_key(key: bytes, client_nonce: bytes, server_nonce: bytes) -> bytes:
    """What datagrams of one link are sealed under: both its ends can make it, and nobody else."""
    return _mac(key, _DATAGRAM_LABEL, client_nonce, server_nonce)


def is_proof(claimed: bytes, expected: bytes) -> bool:
    """Whether they are equal, in a time that tells nothing."""
    return hmac.compare_digest(claimed, expected)


def refuse_hello(hello: Hello) -> Refused | None:
    """What is wrong with a Hello before its token is looked at; None if nothing is."""
    if agree_version(hello.versions) is None:
        return Refused(
            code=ErrorCode.UNSUPPORTED,
            reason=f"no common version: you speak {_listed(hello.versions)}, "
            f"this master speaks {_listed(SUPPORTED_VERSIONS)}",
            supported=SUPPORTED_VERSIONS,
        )
    if len(hello.client_nonce) != NONCE_BYTES:
        return Refused(
            code=ErrorCode.PROTOCOL,
            reason=f"the nonce has {len(hello.client_nonce)} bytes, expected {NONCE_BYTES}",
        )
    if hello.role is Role.UNKNOWN:
        return Refused(code=ErrorCode.PERMISSION_DENIED, reason="this master has no such role")
    return None


def refuse_welcome(hello: Hello, welcome: Welcome) -> str:
    """Why a dialler cannot live with this Welcome; empty if it can."""
    if welcome.version not in hello.versions or welcome.version not in SUPPORTED_VERSIONS:
        return f"the master chose version {welcome.version}, which was not offered"
    foreign = [name for name in welcome.features if name not in hello.features]
    if foreign:
        return f"the master chose features that were not offered: {', '.join(foreign)}"
    return ""


def agree_version(theirs: tuple[int, ...]) -> int | None:
    """The highest version that both speak."""
    return max(set(SUPPORTED_VERSIONS).intersection(theirs), default=None)


def agree_features(ours: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[str, ...]:
    """What both offer, in our order."""
    offered = frozenset(theirs)
    return tuple(name for name in ours if name in offered)


def is_challenge_sound(key: bytes, hello_body: bytes, challenge: Challenge) -> bool:
    """Whether the master has proved that it knows the token."""
    if len(challenge.server_nonce) != NONCE_BYTES:
        return False
    return is_proof(challenge.proof, master_proof(key, hello_body, challenge.server_nonce))


def _mac(key: bytes, *parts: bytes) -> bytes:
    return hmac.new(key, b"".join(parts), hashlib.sha256).digest()


def _listed(versions: tuple[int, ...]) -> str:
    return ", ".join(str(version) for version in versions[:8]) or "none"
