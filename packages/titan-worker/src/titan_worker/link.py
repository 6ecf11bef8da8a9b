"""The worker's one link: dialled for ever, with pauses that grow; nobody ever dials the worker.

It hands the master's messages on and says when the link comes and goes. What they mean is the
core's business. It gives up only where trying again is of no use: the token is refused, another live
worker has this one's name (and it is not this one's own shadow: see ``id_changed``), or another
process is this very worker now. Called by the engine; built by ``app``.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

from titan_proto.connection import Closed, Opened, Received
from titan_proto.errors import (
    ConnectFailed,
    ErrorCode,
    LinkLost,
    NotFound,
    NoToken,
    Refused,
    TitanError,
)
from titan_proto.handshake import LOG_GAPS, LOG_UDP, BadToken
from titan_proto.io.address import Address
from titan_proto.io.aio import AioLink, dial
from titan_proto.limits import WORKER_LOST_AFTER_MS
from titan_proto.messages import (
    AnyMessage,
    ArtifactChunk,
    FetchArtifact,
    GetRun,
    LogChunk,
    Role,
)
from titan_proto.states import RUN_TERMINAL
from titan_worker.copies import Copies

_LOG: Final = logging.getLogger(__name__)

BACKOFF_MIN_S: Final = 0.05
BACKOFF_MAX_S: Final = 5.0
_TRIES_PER_LEASE: Final = 6
"""A pause is at most such a part of the lease: a master that is there again counts it from then."""
_DIAL_S: Final = 10.0
_DIAL_MIN_S: Final = 1.0
_DIALS_PER_LEASE: Final = 3
"""A dial into a dead wire may last such a part of the lease: a network may heal meanwhile."""
_LAST_WORDS_S: Final = 1.0
_PASSING: Final = frozenset(
    {
        ErrorCode.UNAVAILABLE,
        ErrorCode.LIMIT_EXCEEDED,
        ErrorCode.SHUTTING_DOWN,
        ErrorCode.NOT_LEADER,
        ErrorCode.INTERNAL,
    }
)
"""Refusals that a later try may not meet."""


class LinkRefused(Exception):
    """This worker will not be let in, however often it asks."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class LinkUser(Protocol):
    """Who is told what happens on the link."""

    def link_opened(self, opened: Opened) -> None:
        """A master is there."""

    def link_closed(self, code: ErrorCode) -> None:
        """It is gone, and why."""

    def received(self, message: AnyMessage) -> None:
        """It said something that is no answer to a request."""


class MasterLink:
    """Keeps one link to the master, as far as that is possible."""

    def __init__(
        self,
        *,
        address: Address,
        find_token: Callable[[], str],
        software: str,
        user: LinkUser,
    ) -> None:
        self._address = address
        self._find_token = find_token
        self._software = software
        self._user = user
        self._link: AioLink | None = None
        self._copies: Copies | None = None
        self._up: asyncio.Event = asyncio.Event()
        self._gone = asyncio.Event()
        self._last_term = 0
        self._is_parting = False
        self._is_hung_up = False
        self._told = ""
        self._id_changed = False
        self._lease_s = WORKER_LOST_AFTER_MS / 1000
        self._was_taken_in = False
        # Since when a namesake has kept this worker out; 0: none does.
        self._kept_out_s = 0.0

    async def run(self) -> None:
        """Dial, serve, dial again, for ever. Raises LinkRefused."""
        backoff_s = BACKOFF_MIN_S
        while True:
            began_s = time.monotonic()
            self._was_taken_in = False
            code = await self._serve_once()
            was_cut = self._was_taken_in and code is ErrorCode.UNAVAILABLE
            if was_cut or time.monotonic() - began_s > BACKOFF_MAX_S:
                # A link that held, or that broke after the master had taken this worker in: it
                # died, and may be back already. Only who is sent away shall come back ever later.
                backoff_s = BACKOFF_MIN_S
            # Jitter from dice: many workers lose a master in the same moment.
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
            longest_s = min(BACKOFF_MAX_S, self._lease_s / _TRIES_PER_LEASE)
            backoff_s = max(BACKOFF_MIN_S, min(backoff_s * 2, longest_s))

    def send(self, message: AnyMessage) -> None:
        """Send on the present link; without one nothing happens."""
        if self._link is not None:
            self._link.send(message)

    @property
    def takes_gaps(self) -> bool:
        """Whether the master knows what a LogGap is."""
        return self._link is not None and LOG_GAPS in self._link.connection.features

    @property
    def takes_copies(self) -> bool:
        """Whether `copy` is of any use."""
        return self._copies is not None

    def copy(self, chunk: LogChunk) -> None:
        """Send a piece of log ahead, by datagram; perhaps it arrives."""
        if self._copies is not None:
            self._copies.send(chunk)

    async def bulk_room(self, size: int) -> None:
        """Wait until so much bulk may be sent. Raises LinkLost."""
        if self._link is None:
            raise LinkLost("there is no link")
        await self._link.bulk_room(size)

    async def fetch(self, digest: str, offset: int) -> AsyncIterator[ArtifactChunk]:
        """The artifact's bytes from `offset` on, once there is a link. Raises LinkLost."""
        link = await self._present()
        async for chunk in link.stream(FetchArtifact(digest=digest, offset=offset)):
            yield chunk

    async def upload(self, digest: str, size: int, read: Callable[[int], bytes]) -> None:
        """Store these bytes with the master, once there is a link; see `AioLink.upload`."""
        await (await self._present()).upload(digest, size, read)

    async def is_run_over(self, run_id: str, timeout_s: float) -> bool | None:
        """Whether the master knows no such live run; None if it cannot be asked, or does not say."""
        if self._link is None:
            return None
        try:
            found = await self._link.call(GetRun(run=run_id), timeout_s)
        except NotFound:
            return True
        except TitanError as error:
            _LOG.info("run_not_told run=%s why=%s", run_id, error)
            return None
        return found.state in RUN_TERMINAL

    async def _present(self) -> AioLink:
        """The link, once there is one. Raises LinkLost."""
        # No deadline: without a master there is nobody to give the attempt to instead.
        await self._up.wait()
        link = self._link
        if link is None or link.connection.is_closed:
            # Its end is being told. Whoever asks again at once would never let that happen.
            await self._gone.wait()
            raise LinkLost("there is no link")
        return link

    def joined(self, lease_s: float) -> None:
        """The master has taken this worker in; it gives up silent ones after `lease_s`."""
        self._lease_s = lease_s
        self._kept_out_s = 0.0
        self._was_taken_in = True

    def id_changed(self) -> None:
        """The worker may be taken for another one than before: it joins under another id (another
        cluster, or its ledger is lost), or its machine has been started again.

        A master that knows the old one believes in it until its lease is over, and takes this one
        for a second worker of one name, or for a copy: that passes.
        """
        self._id_changed = True

    def _is_own_shadow(self) -> bool:
        if not self._id_changed:
            return False
        now_s = time.monotonic()
        self._kept_out_s = self._kept_out_s or now_s
        return now_s - self._kept_out_s < self._lease_s + 2 * BACKOFF_MAX_S

    def hang_up(self, reason: str) -> None:
        """Close the present link; a new one is dialled after a pause."""
        if self._link is not None:
            _LOG.warning("link_hung_up master=%s reason=%s", self._address, reason)
            self._is_hung_up = True
            self._link.close(ErrorCode.SUPERSEDED, reason)
            # A peer that reads no more would keep a link with unwritten bytes open for long.
            asyncio.get_running_loop().call_later(_LAST_WORDS_S, self._link.abort)

    async def part(self, timeout_s: float) -> None:
        """Write what is queued, say goodbye, and wait until that has left."""
        self._is_parting = True
        if self._link is not None:
            self._link.close(ErrorCode.SHUTTING_DOWN, "the worker ends")
            try:
                async with asyncio.timeout(timeout_s):
                    await self._gone.wait()
            except TimeoutError:
                _LOG.warning("link_still_writing master=%s", self._address)

    async def _serve_once(self) -> ErrorCode:
        """One link, from dialling to its end; why it ended. Raises LinkRefused."""
        try:
            link = await dial(
                self._address,
                self._find_token(),
                role=Role.WORKER,
                software=self._software,
                on_message=self._on_message,
                on_close=self._on_close,
                timeout_s=min(_DIAL_S, max(_DIAL_MIN_S, self._lease_s / _DIALS_PER_LEASE)),
                last_term=self._last_term,
            )
        except ConnectFailed as error:
            self._tell("no_master", str(error))
            return ErrorCode.UNAVAILABLE
        except NoToken as error:
            # A master that was never started has not written its token yet.
            if await self._is_listening():
                raise LinkRefused(ErrorCode.UNAUTHENTICATED, str(error)) from error
            self._tell("no_master", f"no master answers at {self._address}")
            return ErrorCode.UNAVAILABLE
        except BadToken as error:
            raise LinkRefused(ErrorCode.UNAUTHENTICATED, str(error)) from error
        except Refused as error:
            if error.code not in _PASSING:
                raise LinkRefused(error.code, error.reason) from error
            self._tell("refused", f"{error.code}: {error.reason}")
            return error.code
        return await self._serve(link)

    async def _serve(self, link: AioLink) -> ErrorCode:
        opened = link.opened
        assert opened is not None
        self._told = ""
        self._link = link
        self._last_term = opened.welcome.term
        self._gone.clear()
        self._is_hung_up = False
        self._copies = _copies_of(link, opened.welcome.link_id)
        _LOG.info("link_up master=%s cluster=%s", self._address, opened.welcome.cluster_id)
        try:
            if not link.connection.is_closed:
                self._user.link_opened(opened)
                self._up.set()
                # No deadline: a dead host is noticed by TCP_USER_TIMEOUT.
                await self._gone.wait()
        finally:
            self._link = None
            if self._copies is not None:
                self._copies.close()
                self._copies = None
            self._up.clear()
            closed = link.connection.closed
            code = closed.code if closed else ErrorCode.UNAVAILABLE
            self._user.link_closed(code)
            link.abort()
        if closed is not None and self._is_taken(closed.code):
            raise LinkRefused(closed.code, closed.reason)
        if closed is None or closed.code is not ErrorCode.SHUTTING_DOWN or not self._is_parting:
            self._tell("link_down", f"{closed.code}: {closed.reason}" if closed else "it was cut")
        return code

    def _is_taken(self, code: ErrorCode) -> bool:
        """Whether somebody else has this worker's name, or is this worker."""
        if code is ErrorCode.DUPLICATE_WORKER:
            return not self._is_own_shadow()
        # On the only link of this process: whoever joined on a newer one is another process, with
        # the same ledger or a copy. What runs here is lost to the master, and must not go on.
        return code is ErrorCode.SUPERSEDED and not self._is_hung_up

    def _on_message(self, link: AioLink, received: Received) -> None:
        if link is self._link:
            self._user.received(received.message)

    def _on_close(self, link: AioLink, closed: Closed) -> None:
        del closed
        if link is self._link:
            self._up.clear()
            self._gone.set()

    def _tell(self, fact: str, why: str) -> None:
        """One line per change, not per try."""
        if why != self._told:
            self._told = why
            _LOG.warning("%s master=%s why=%s", fact, self._address, why)

    async def _is_listening(self) -> bool:
        try:
            async with asyncio.timeout(_DIAL_S):
                _, writer = await asyncio.open_connection(*self._address)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True


def _copies_of(link: AioLink, link_id: int) -> Copies | None:
    """What sends copies beside this link, if both sides want them and this machine can."""
    peer = link.peer_address
    if peer is None or LOG_UDP not in link.connection.features:
        return None
    try:
        return Copies(peer, link.connection.datagram_key, link_id)
    except OSError as error:
        _LOG.info("no_log_copies why=%s", error.strerror)
        return None
