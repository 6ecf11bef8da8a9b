"""The door: accepts connections, lets in who can prove a token, and keeps count.

Before the handshake is over a peer has 4 KiB a frame and a deadline, and when too many are about it
the one that has waited longest goes; beyond the number of links a master holds, peers are told so
and sent away. The links by number, for the engine, are here too.
Called by ``app.py``.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from titan_master.core.inputs import Origin
from titan_master.net.access import Gatekeeper
from titan_master.net.datagrams import LogCopies
from titan_master.net.link import Desks, MasterLink
from titan_proto.connection import Closed, Connection, Opened, Received
from titan_proto.errors import ErrorCode
from titan_proto.handshake import LOG_UDP
from titan_proto.io.aio import AioLink
from titan_proto.io.entropy import nonce
from titan_proto.messages import AnyMessage, Hello, Refused, Traffic, Welcome

_log = logging.getLogger("titan.listener")

GOODBYE_S: Final = 2.0
"""How long links may take to hear that the master goes."""


class ListenerConfig(Struct, frozen=True, kw_only=True):
    """Policy of the door."""

    links_max: int
    strangers_max: int
    """Connections whose handshake is not over."""
    handshake_timeout_s: float


class LinkTable:
    """The open links by number. What is sent to one that is gone is dropped: it will ask again."""

    def __init__(self) -> None:
        self._links: dict[int, MasterLink] = {}
        self._log_datagrams = 0

    def __len__(self) -> int:
        return len(self._links)

    def add(self, link: MasterLink) -> None:
        """A link is open."""
        self._links[link.link_id] = link

    def discard(self, link_id: int) -> MasterLink | None:
        """A link is gone; it, if it had been open."""
        return self._links.pop(link_id, None)

    def get(self, link_id: int) -> MasterLink | None:
        """The link of that number."""
        return self._links.get(link_id)

    def reply(self, origin: Origin, message: AnyMessage, *, end: bool) -> None:
        """Answer an exchange."""
        link = self._links.get(origin.link_id)
        if link is not None:
            link.send(message, origin.correlation, end=end)

    def datagram_taken(self) -> None:
        """A piece of a log came beside its link."""
        self._log_datagrams += 1

    def traffic(self) -> Traffic:
        """What the core knows nothing of: it must not be told of every datagram."""
        return Traffic(links=len(self._links), log_datagrams=self._log_datagrams)

    def tell(self, link_id: int, message: AnyMessage) -> None:
        """Send something outside any exchange."""
        link = self._links.get(link_id)
        if link is not None:
            link.send(message)

    def hang_up(self, link_id: int, code: ErrorCode, reason: str) -> None:
        """Close a link after what was sent."""
        link = self._links.get(link_id)
        if link is not None:
            # What a peer was not allowed to say is worth an operator's eye; the rest is routine.
            level = logging.WARNING if code is ErrorCode.PERMISSION_DENIED else logging.INFO
            _log.log(
                level,
                "hanging up link=%d peer=%s role=%s name=%s code=%s reason=%s",
                *(link_id, link.peer, link.identity.role, link.identity.name, code, reason),
            )
            link.close(code, reason)

    def all(self) -> tuple[MasterLink, ...]:
        """Every open link."""
        return tuple(self._links.values())


Door = list[socket.socket]
"""Addresses that have been taken, and on which nobody listens yet."""


def bind(host: str, port: int) -> Door:
    """Take every address that `host` means, without listening: nobody is let in yet.

    Before a master writes anything it must know that it will be reached. Raises OSError.
    """
    kind, passive = socket.SOCK_STREAM, socket.AI_PASSIVE
    found = dict.fromkeys(
        (family, address)
        for family, *_, address in socket.getaddrinfo(host, port, type=kind, flags=passive)
    )
    taken: Door = []
    try:
        for family, address in found:
            one = socket.socket(family, kind)
            taken.append(one)
            one.setblocking(False)
            # After a restart the old connections linger; who listens still is refused all the same.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # Where the system chose the port, all addresses have the same one.
            chosen = port or taken[0].getsockname()[1]
            one.bind((address[0], chosen, *address[2:]))
    except OSError:
        for one in taken:
            one.close()
        raise
    return taken


def _bind_datagrams(bound: socket.socket) -> socket.socket:
    """The same address and port number, for datagrams. Raises OSError."""
    ear = socket.socket(bound.family, socket.SOCK_DGRAM)
    try:
        ear.setblocking(False)
        if bound.family == socket.AF_INET6:
            ear.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        ear.bind(bound.getsockname())
    except OSError:
        ear.close()
        raise
    return ear


class Listener:
    """A listening socket and the connections that came by it."""

    def __init__(
        self,
        *,
        links: LinkTable,
        desks: Desks,
        gatekeeper: Gatekeeper,
        welcome: Callable[[int], Welcome],
        config: ListenerConfig,
    ) -> None:
        self._links = links
        self._desks = desks
        self._gatekeeper = gatekeeper
        self._welcome = welcome
        self._config = config
        self._servers: list[asyncio.Server] = []
        self._ears: list[asyncio.DatagramTransport] = []
        self._next_link_id = 1
        self._wires: set[AioLink] = set()
        self._strangers: dict[int, AioLink] = {}
        """Connections whose handshake is not over, the one that has waited longest first."""
        self._all_gone: asyncio.Future[None] | None = None

    async def start(self, door: Door) -> int:
        """Listen on what `bind` has taken, which is closed with this; the port. Raises OSError."""
        loop = asyncio.get_running_loop()
        await self._listen_for_datagrams(door)
        for bound in door:
            server = await loop.create_server(self._accept, sock=bound, backlog=1024)
            self._servers.append(server)
        return int(door[0].getsockname()[1])

    async def _listen_for_datagrams(self, door: Door) -> None:
        """On every address of the door; where one is taken, there are none on any."""
        loop = asyncio.get_running_loop()
        try:
            for bound in door:
                ear = _bind_datagrams(bound)
                made = await loop.create_datagram_endpoint(self._log_copies, sock=ear)
                self._ears.append(made[0])
        except OSError as error:
            _log.warning("no log datagrams error=%s", error.strerror)
            self._close_ears()

    def _log_copies(self) -> LogCopies:
        return LogCopies(self._links.get, self._desks.logs, self._links.datagram_taken)

    def _close_ears(self) -> None:
        while self._ears:
            self._ears.pop().close()

    async def close(self, code: ErrorCode, reason: str) -> None:
        """Accept nobody any more, say goodbye to everybody, and wait until they are gone."""
        self._close_ears()
        for server in self._servers:
            server.close()
        if not self._wires:
            return
        self._all_gone = asyncio.get_running_loop().create_future()
        for wire in tuple(self._wires):
            wire.close(code, reason)
        try:
            await asyncio.wait_for(asyncio.shield(self._all_gone), GOODBYE_S)
        except asyncio.TimeoutError:
            for wire in tuple(self._wires):
                wire.abort()
            # They are told in the next pass of the loop: nothing can hold that up.
            await self._all_gone

    # -- connections ------------------------------------------------------------------------------

    def _accept(self) -> asyncio.Protocol:
        if len(self._strangers) >= self._config.strangers_max:
            # Who means to come in needs milliseconds: those who only stand there make room.
            self._strangers.pop(next(iter(self._strangers))).abort()
        entry = _Entry(self, self._next_link_id)
        self._next_link_id += 1
        self._strangers[entry.link_id] = entry.wire
        return entry.wire

    def make_wire(self, entry: _Entry) -> AioLink:
        """The protocol machine of a new connection."""
        connection = Connection.listener(
            server_nonce=nonce(),
            authenticate=self._authenticate,
            welcome=lambda _hello: self._make_welcome(entry.link_id),
        )
        wire = AioLink(
            connection,
            on_open=entry.opened,
            on_message=entry.received,
            on_close=entry.closed,
            handshake_timeout_s=self._config.handshake_timeout_s,
        )
        self._wires.add(wire)
        return wire

    def _make_welcome(self, link_id: int) -> Welcome:
        welcome = self._welcome(link_id)
        if self._ears:
            return welcome
        features = tuple(name for name in welcome.features if name != LOG_UDP)
        return replace(welcome, features=features)

    def _authenticate(self, hello: Hello) -> bytes | Refused:
        if len(self._links) >= self._config.links_max:
            most = self._config.links_max
            reason = f"this master holds {most} links (links_max) and takes no more for now"
            return Refused(code=ErrorCode.LIMIT_EXCEEDED, reason=reason)
        return self._gatekeeper.authenticate(hello)

    def let_in(self, entry: _Entry, opened: Opened) -> MasterLink:
        """The handshake is over: a link is born."""
        self._strangers.pop(entry.link_id, None)
        identity = self._gatekeeper.identify(opened.hello)
        link = MasterLink(entry.wire, entry.link_id, identity, self._desks)
        self._links.add(link)
        _log.debug(
            "open link=%d peer=%s role=%s token=%s software=%s",
            entry.link_id, link.peer, identity.role, identity.name, opened.hello.software,
        )  # fmt: skip
        return link

    def gone(self, entry: _Entry, closed: Closed) -> None:
        """A connection has ended, open or not."""
        self._wires.discard(entry.wire)
        self._strangers.pop(entry.link_id, None)
        link = self._links.discard(entry.link_id)
        if link is not None:
            if link.worker:
                _log.info(
                    "worker link down link=%d worker=%s code=%s reason=%r",
                    entry.link_id, link.worker, closed.code, closed.reason,
                )  # fmt: skip
            else:
                _log.debug(
                    "closed link=%d code=%s reason=%s", entry.link_id, closed.code, closed.reason
                )
            link.closed()
        else:
            _log.info(
                "refused peer=%s code=%s reason=%s", entry.wire.peer, closed.code, closed.reason
            )
        if self._all_gone is not None and not self._wires and not self._all_gone.done():
            self._all_gone.set_result(None)


class _Entry:
    """One connection on its way to being a link."""

    def __init__(self, listener: Listener, link_id: int) -> None:
        self._listener = listener
        self._link: MasterLink | None = None
        self.link_id = link_id
        self.wire = listener.make_wire(self)

    def opened(self, _wire: AioLink, opened: Opened) -> None:
        self._link = self._listener.let_in(self, opened)

    def received(self, _wire: AioLink, received: Received) -> None:
        if self._link is not None:
            self._link.receive(received)

    def closed(self, _wire: AioLink, closed: Closed) -> None:
        self._listener.gone(self, closed)
