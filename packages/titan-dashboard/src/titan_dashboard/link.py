"""The master, as the dashboard reaches it: links that are kept, and errors that are pages.

Whoever asks names whose token to ask with. Links are pooled per token and dialled again when the
master was started anew; a request is never repeated otherwise. Protocol errors become `Trouble`
here and nowhere else: a title, a sentence, what to do next, and the status of the page.
Called by the views, the feed and the sign-in.
"""

from __future__ import annotations

import enum
import socket
import threading
import time
from collections.abc import Iterator
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from titan_dashboard.__about__ import __version__
from titan_dashboard.config import LINK_TIMEOUT_S, SESSIONS, STREAM_TIMEOUT_S, DashboardConfig
from titan_proto.errors import (
    AlreadyDone,
    Conflict,
    InvalidSpec,
    LimitExceeded,
    NotFound,
    NoToken,
    PermissionDenied,
    Refused,
    RequestError,
    TitanError,
    Unauthenticated,
)
from titan_proto.handshake import BadToken
from titan_proto.io.address import Address, BadAddress, find_master, find_token
from titan_proto.io.blocking import BlockingLink, LinkPool
from titan_proto.messages import Request, Role

ReplyT = TypeVar("ReplyT")
SOFTWARE: Final = f"titan-dashboard {__version__}"
_REMEMBERED: Final = 512
"""Answers that are kept for a moment, so that many pages cost the master one question."""


class Kind(enum.Enum):
    """What kind of thing is wrong: each kind has its own remedy."""

    UNNAMED = "UNNAMED"
    """What is meant to say where the master is does not."""
    REFUSED = "REFUSED"
    """The token is missing, or it is not the one."""
    AWAY = "AWAY"
    """Nobody answers, or not as a master does."""
    MISSING = "MISSING"
    """There is no such run, job or worker."""
    FORBIDDEN = "FORBIDDEN"
    """This identity may not do that."""
    CONFLICT = "CONFLICT"
    """It is not in a state in which that can be done."""
    FAILED = "FAILED"
    """The master says no for another reason."""


_STATUS: Final = {
    Kind.UNNAMED: 503,
    Kind.REFUSED: 503,
    Kind.AWAY: 503,
    Kind.MISSING: 404,
    Kind.FORBIDDEN: 403,
    Kind.CONFLICT: 409,
    Kind.FAILED: 502,
}


class Trouble(Exception):
    """Something that a page must say."""

    def __init__(self, kind: Kind, problem: str, address: str = "") -> None:
        super().__init__(problem)
        self.kind = kind
        self.problem = problem
        self.address = address

    @property
    def status(self) -> int:
        """Of the page that says it."""
        return _STATUS[self.kind]

    @property
    def is_passing(self) -> bool:
        """Whether to look again: the master may come back."""
        return self.kind in {Kind.AWAY, Kind.UNNAMED}


class Credentials(Struct, frozen=True):
    """With which token, and as what, the master is asked."""

    token: str
    role: str

    def __repr__(self) -> str:
        """Without the token."""
        return f"Credentials(role={self.role!r})"


class Master:
    """The master of this dashboard. Safe to call from any thread."""

    def __init__(self, config: DashboardConfig) -> None:
        self._config = config
        self._pools: dict[Credentials, LinkPool] = {}
        self._lock = threading.Lock()
        self._kept: dict[tuple[Credentials, bytes], tuple[float, object]] = {}

    def address(self) -> Address:
        """Where it is. Asked anew each time: a cluster may be started again on another port."""
        try:
            return find_master(self._config.master, self._config.environ, self._config.folder)
        except BadAddress as error:
            raise Trouble(Kind.UNNAMED, str(error)) from error

    def own_token(self) -> str | None:
        """The token that this dashboard was started with, if it was."""
        try:
            return find_token(self.address(), self._config.environ, self._config.folder)
        except NoToken:
            return None

    def call(self, who: Credentials, request: Request[ReplyT]) -> ReplyT:
        """Ask, and wait for the answer. Raises Trouble."""
        try:
            return self._pool(who).call(request, LINK_TIMEOUT_S)
        except TitanError as error:
            raise self._trouble(error) from error

    def kept(self, who: Credentials, request: Request[ReplyT], for_s: float) -> ReplyT:
        """As `call`, but an answer of the last moment will do: for what changes slowly."""
        key = (who, type(request).__name__.encode() + msgspec.msgpack.encode(request))
        now = time.monotonic()
        with self._lock:
            found = self._kept.get(key)
        if found is not None and now - found[0] < for_s:
            return found[1]  # type: ignore[return-value]
        reply = self.call(who, request)
        with self._lock:
            while len(self._kept) >= _REMEMBERED:
                self._kept.pop(next(iter(self._kept)))
            self._kept.pop(key, None)
            self._kept[key] = (now, reply)
        return reply

    def stream(self, who: Credentials, request: Request[ReplyT]) -> Iterator[ReplyT]:
        """Ask, and yield what comes. Raises Trouble."""
        try:
            yield from self._pool(who).stream(request, STREAM_TIMEOUT_S)
        except TitanError as error:
            raise self._trouble(error) from error

    def admit(self, token: str) -> Credentials:
        """What the token's owner may be at most. Raises Trouble if nothing."""
        for role in (Role.ADMIN, Role.CLIENT, Role.VIEWER):
            try:
                self._connect(Credentials(token, role.value)).close()
            except Refused as error:
                if "role" not in str(error):
                    raise self._trouble(error) from error
            except TitanError as error:
                raise self._trouble(error) from error
            else:
                return Credentials(token, role.value)
        raise Trouble(
            Kind.REFUSED, "That token is for workers: it may not look.", str(self.address())
        )

    def close(self) -> None:
        """Hang up every link that nobody uses."""
        with self._lock:
            pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            pool.close()

    def _pool(self, who: Credentials) -> LinkPool:
        with self._lock:
            pool = self._pools.get(who)
            if pool is None:
                while len(self._pools) >= SESSIONS:
                    self._pools.pop(next(iter(self._pools))).close()
                pool = self._pools[who] = LinkPool(lambda: self._connect(who))
            return pool

    def _connect(self, who: Credentials) -> BlockingLink:
        return BlockingLink.connect(
            self.address(),
            who.token,
            role=Role(who.role),
            software=SOFTWARE,
            timeout_s=LINK_TIMEOUT_S,
        )

    def _trouble(self, error: TitanError) -> Trouble:
        return Trouble(_kind(error), str(error), str(self.address()))

    def is_listening(self) -> bool:
        """Whether anybody takes connections there."""
        address = self.address()
        try:
            socket.create_connection((address.host, address.port), LINK_TIMEOUT_S).close()
        except OSError:
            return False
        return True


def _kind(error: TitanError) -> Kind:
    kinds: tuple[tuple[tuple[type[TitanError], ...], Kind], ...] = (
        ((PermissionDenied,), Kind.FORBIDDEN),
        ((NoToken, BadToken, Refused, Unauthenticated), Kind.REFUSED),
        ((NotFound,), Kind.MISSING),
        ((Conflict, AlreadyDone, LimitExceeded, InvalidSpec), Kind.CONFLICT),
        ((RequestError,), Kind.FAILED),
    )
    for types, kind in kinds:
        if isinstance(error, types):
            return kind
    return Kind.AWAY
