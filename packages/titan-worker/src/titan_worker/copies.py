"""Copies of fresh pieces of logs, by datagram to the master's port number: at once, or not at all.

They overtake whatever waits on the link. Nothing is queued and nothing is sent again: the same bytes
follow on the link, and what a copy meets on its way is nobody's trouble. Made by ``link`` for each link
on which both sides want it.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from titan_proto.datagrams import seal
from titan_proto.limits import DATAGRAM_LOG_BYTES
from titan_proto.messages import LogChunk


class Copies:
    """A socket for the copies of one link."""

    def __init__(self, peer: tuple[Any, ...], key: bytes, link_id: int) -> None:
        """`peer`: where the link's other end is. Raises OSError."""
        self._key = key
        self._link_id = link_id
        family = socket.AF_INET6 if ":" in str(peer[0]) else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.connect(peer)
        except OSError:
            self._socket.close()
            raise

    def send(self, chunk: LogChunk) -> None:
        """Send it, in as many datagrams as it takes."""
        for start in range(0, len(chunk.data), DATAGRAM_LOG_BYTES):
            part = LogChunk(
                chunk.ref,
                chunk.stream,
                chunk.offset + start,
                chunk.seen_at_ms,
                chunk.data[start : start + DATAGRAM_LOG_BYTES],
            )
            # No room, nobody there, no way: then this copy is lost, as it may be anywhere.
            with contextlib.suppress(OSError):
                self._socket.send(seal(self._key, self._link_id, part))

    def close(self) -> None:
        """The link is gone."""
        self._socket.close()
