"""How a socket of a link is set: small frames leave at once, a dead host is noticed.

Called by both links of this package.
"""

from __future__ import annotations

import socket
from typing import Final

_IDLE_S: Final = 10
_PROBE_S: Final = 5
_PROBES: Final = 2
_UNACKNOWLEDGED_MS: Final = 20_000
"""Below the time after which a worker counts as lost, so that its link breaks first."""


def tune(sock: socket.socket) -> None:
    """Set what the platform has of these options."""
    if sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _IDLE_S),
        ("TCP_KEEPINTVL", _PROBE_S),
        ("TCP_KEEPCNT", _PROBES),
        ("TCP_USER_TIMEOUT", _UNACKNOWLEDGED_MS),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
