"""The links of one client to its master: dialled when needed, dialled again when lost.

Decides how often and how long something is tried again, and that a process speaks on links of its
own only. Knows nothing of runs and jobs, and nothing of the client, which may be dropped at any
time. Used by `TitanClient`.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar, final

from titan_proto.errors import (
    ConnectFailed,
    ErrorCode,
    LinkError,
    LinkLost,
    NoToken,
    Timeout,
    Unavailable,
)
from titan_proto.io.address import Address, find_master, find_token
from titan_proto.io.blocking import BlockingLink, LinkPool
from titan_proto.messages import Request, Role
from titan_sdk.__about__ import __version__
from titan_sdk.errors import NoMaster

ReplyT = TypeVar("ReplyT")
ResultT = TypeVar("ResultT")

_log = logging.getLogger("titan_sdk")

SOFTWARE: Final = f"titan-sdk/{__version__}"
_PAUSE_FIRST_S: Final = 0.05
_PAUSE_MAX_S: Final = 1.0
_STEADY_S: Final = 1.0
"""A call that lasted so long before its link broke had a master that worked."""


@final
class Links:
    """As many links to one master as are needed at once. May be used by many threads."""

    def __init__(
        self,
        master: str | None,
        token: str | None,
        *,
        patience_s: float,
        connect_timeout_s: float,
    ) -> None:
        self._master = master
        self._token = token
        self._patience_s = patience_s
        self._connect_timeout_s = connect_timeout_s
        self._was_connected = False
        self._process = os.getpid()
        self._pool = LinkPool(self._connect)
        # Who only reads and submits never asks to be more than a client.
        self._admins = LinkPool(self._connect_admin)

    @property
    def address(self) -> Address:
        """Where the master is looked for."""
        return find_master(self._master, os.environ, Path.cwd())

    def persist(
        self,
        act: Callable[[BlockingLink, float | None], ResultT],
        timeout_s: float | None,
        *,
        as_admin: bool = False,
    ) -> ResultT:
        """Do it on some link; on a lost link do it again, for as long as patience lasts.

        `as_admin`: what is for administrators alone, on a link that asks to be one's.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        losses = _Losses(self._patience_s)
        while True:
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise Timeout("no answer came in time")
            began = time.monotonic()
            try:
                with self._own_pool(as_admin=as_admin).link() as link:
                    return act(link, left_s)
            except (LinkLost, Unavailable, ConnectFailed) as error:
                if isinstance(error, LinkLost) and time.monotonic() - began > _STEADY_S:
                    losses.forget()
                self._after_loss(losses, error, deadline)

    def stream(self, request: Callable[[], Request[ReplyT]]) -> Iterator[ReplyT]:
        """What comes in answer; after a lost link what comes in answer to `request()` by then."""
        losses = _Losses(self._patience_s)
        while True:
            try:
                with self._own_pool().link() as link:
                    for reply in link.stream(request()):
                        losses.forget()
                        yield reply
                    return
            except (LinkLost, Unavailable, ConnectFailed) as error:
                self._after_loss(losses, error)

    def close(self) -> None:
        """Hang up."""
        if self._process == os.getpid():
            self._pool.close()
            self._admins.close()

    def _own_pool(self, *, as_admin: bool = False) -> LinkPool:
        """The pool of this process.

        What the child of a fork wrote on a link that its parent uses too would make no sense to the
        master, nor would the answers to either of them.
        """
        if self._process != os.getpid():
            self._process = os.getpid()
            self._pool = LinkPool(self._connect)
            self._admins = LinkPool(self._connect_admin)
        return self._admins if as_admin else self._pool

    def _after_loss(
        self, losses: _Losses, error: LinkError | Unavailable, deadline: float | None = None
    ) -> None:
        """Wait a little before the next try, or raise: the first dial is never repeated."""
        if isinstance(error, ConnectFailed) and not self._was_connected:
            raise error
        losses.tell(error)
        losses.pause(error, deadline)

    def _connect_admin(self) -> BlockingLink:
        return self._connect(Role.ADMIN)

    def _connect(self, role: Role | None = None) -> BlockingLink:
        address = self.address
        token = self._token
        if token is None:
            try:
                token = find_token(address, os.environ, Path.cwd())
            except NoToken as error:
                _require_listener(address, self._connect_timeout_s, error)
                raise
        try:
            link = BlockingLink.connect(
                address,
                token,
                role=role or _role_of(token),
                software=SOFTWARE,
                timeout_s=self._connect_timeout_s,
            )
        except ConnectFailed as error:
            if isinstance(error.__cause__, OSError):
                raise NoMaster(
                    str(address), local=address.is_loopback, cause=str(error.__cause__)
                ) from error
            raise
        self._was_connected = True
        return link


class _Losses:
    """How long a master has been away, and when to try again."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._since: float | None = None
        self._pause_s = _PAUSE_FIRST_S
        self._is_told = False

    def tell(self, error: Exception) -> None:
        """Whoever waits learns once that the master was stopped, and that it is looked for."""
        is_goodbye = isinstance(error, LinkLost) and error.goodbye is ErrorCode.SHUTTING_DOWN
        if is_goodbye and not self._is_told and self._patience_s > 0:
            self._is_told = True
            _log.warning(
                "the master said goodbye (%s); it is looked for again, for up to %g s",
                error, self._patience_s,
            )  # fmt: skip

    def forget(self) -> None:
        """It answered."""
        self._is_told = False
        self._since = None
        self._pause_s = _PAUSE_FIRST_S

    def pause(self, error: Exception, deadline: float | None) -> None:
        """Wait before the next try; raise `error` once patience is over."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        end = self._since + self._patience_s
        if now + self._pause_s > end:
            raise error
        if deadline is not None and now + self._pause_s > deadline:
            raise Timeout("no answer came in time") from error
        time.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, _PAUSE_MAX_S)


def _role_of(token: str) -> Role:
    """What to ask to be: what the token's own text says it is for, else a client."""
    kind = token.partition("_")[2].partition("_")[0]
    return {"viewer": Role.VIEWER, "admin": Role.ADMIN}.get(kind, Role.CLIENT)


def _require_listener(address: Address, timeout_s: float, cause: NoToken) -> None:
    """Say that there is no master rather than no token, where nothing listens at all."""
    try:
        socket.create_connection((address.host, address.port), timeout=timeout_s).close()
    except OSError as error:
        raise NoMaster(str(address), local=address.is_loopback, cause=str(error)) from cause
