"""One look at the master: ask it how the cluster stands, or say in words why that failed.

Called by the views. It opens a link per look, because a page of a shell is viewed now and then;
protocol errors become sentences here and nowhere else.
"""

from __future__ import annotations

import enum
import socket

from msgspec import Struct

from titan_dashboard.__about__ import __version__
from titan_dashboard.config import LINK_TIMEOUT_S, DashboardConfig
from titan_proto.errors import NoToken, PermissionDenied, Refused, TitanError, Unauthenticated
from titan_proto.handshake import BadToken
from titan_proto.io.address import Address, BadAddress, find_master, find_token
from titan_proto.io.blocking import BlockingLink
from titan_proto.messages import GetStats, Role, Stats


class Trouble(enum.Enum):
    """What kind of thing is wrong: each kind has its own remedy."""

    UNNAMED = "UNNAMED"
    """What is meant to say where the master is does not."""
    REFUSED = "REFUSED"
    """The token is missing, or it is not the one."""
    AWAY = "AWAY"
    """Nobody answers, or not as a master does."""


_REFUSALS = (NoToken, BadToken, Refused, Unauthenticated, PermissionDenied)


class Sight(Struct, frozen=True, kw_only=True):
    """What could be seen: the stats, or why there are none."""

    address: str = ""
    stats: Stats | None = None
    trouble: Trouble = Trouble.AWAY
    problem: str = ""

    @property
    def reachable(self) -> bool:
        """Whether the master answered."""
        return self.stats is not None


def look(config: DashboardConfig) -> Sight:
    """Ask the master for its stats."""
    try:
        address = find_master(config.master, config.environ, config.folder)
    except BadAddress as error:
        return Sight(trouble=Trouble.UNNAMED, problem=str(error))
    try:
        token = find_token(address, config.environ, config.folder)
        link = BlockingLink.connect(
            address,
            token,
            role=Role.VIEWER,
            software=f"titan-dashboard {__version__}",
            timeout_s=LINK_TIMEOUT_S,
        )
        with link:
            stats = link.call(GetStats(), timeout_s=LINK_TIMEOUT_S)
    except TitanError as error:
        return _trouble(address, error)
    return Sight(address=str(address), stats=stats)


def _trouble(address: Address, error: TitanError) -> Sight:
    # A master that has never been started has left no token: then the token is not what is missing.
    if isinstance(error, NoToken) and not _listens(address):
        return Sight(address=str(address), problem="Nobody listens there.")
    trouble = Trouble.REFUSED if isinstance(error, _REFUSALS) else Trouble.AWAY
    return Sight(address=str(address), trouble=trouble, problem=str(error))


def _listens(address: Address) -> bool:
    try:
        socket.create_connection((address.host, address.port), timeout=LINK_TIMEOUT_S).close()
    except OSError:
        return False
    return True
