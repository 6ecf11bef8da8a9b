"""Copies of fresh pieces of logs that come by datagram, straight to who follows that log.

Nothing is stored, nothing is answered and nothing is remembered: what is odd about a datagram, or what
nobody follows, is dropped without a trace. Whether a copy is of use is for each follower to say. Made by
``listener.py``, beside every address on which the master listens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from titan_master.data.logs import LogFiles
from titan_proto.datagrams import link_of, unseal
from titan_proto.ids import AttemptRef
from titan_proto.messages import STDERR, STDOUT, LogChunk


class Source(Protocol):
    """A link, as far as its copies go."""

    copies_key: bytes
    """What they are sealed under; empty: it was not agreed that there are any."""

    def may_log(self, ref: AttemptRef) -> bool:
        """Whether its peer may write that attempt's log."""
        ...


class LogCopies(asyncio.DatagramProtocol):
    """The receiving end."""

    def __init__(
        self, source: Callable[[int], Source | None], files: LogFiles, on_taken: Callable[[], None]
    ) -> None:
        self._source = source
        self._files = files
        self._on_taken = on_taken

    def datagram_received(self, data: bytes, _addr: object) -> None:
        """Hand a copy on."""
        source = self._source(link_of(data))
        if source is None or not source.copies_key:
            return
        chunk = unseal(source.copies_key, data)
        if chunk is None or not _is_place(chunk) or not source.may_log(chunk.ref):
            return
        self._on_taken()
        log = self._files.open_log(chunk.ref)
        if log is not None:
            for follower in tuple(log.followers):
                follower.offer(chunk)

    def error_received(self, _exc: Exception) -> None:
        """What became of somebody's datagram is of no interest."""


def _is_place(chunk: LogChunk) -> bool:
    return chunk.stream in {STDOUT, STDERR} and chunk.offset >= 0 and chunk.seen_at_ms >= 0
