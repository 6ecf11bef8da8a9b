"""One look at the master: ask it how the cluster stands, or say in words why that failed.

Called by the views. It opens a link per look, because a page of a shell is viewed now and then;
protocol errors become sentences here and nowhere else.
"""

from __future__ import annotations

from msgspec import Struct

from titan_dashboard.__about__ import __version__
from titan_dashboard.config import LINK_TIMEOUT_S, DashboardConfig
from titan_proto.errors import LinkError, RequestError
from titan_proto.io.address import find_master, find_token
from titan_proto.io.blocking import BlockingLink
from titan_proto.messages import GetStats, Role, Stats


class Sight(Struct, frozen=True, kw_only=True):
    """What could be seen: the stats, or why there are none."""

    address: str
    stats: Stats | None = None
    problem: str = ""

    @property
    def reachable(self) -> bool:
        """Whether the master answered."""
        return self.stats is not None


def look(config: DashboardConfig) -> Sight:
    """Ask the master for its stats."""
    address = find_master(config.master, config.environ, config.folder)
    try:
        token = find_token(address, config.environ, config.folder)
        link = BlockingLink.connect(
            address,
            token,
            role=Role.VIEWER,
            software=f"titan-dashboard {__version__}",
            timeout_s=LINK_TIMEOUT_S,
        )
        try:
            return Sight(
                address=str(address), stats=link.call(GetStats(), timeout_s=LINK_TIMEOUT_S)
            )
        finally:
            link.close()
    except (LinkError, RequestError) as error:
        return Sight(address=str(address), problem=str(error))
