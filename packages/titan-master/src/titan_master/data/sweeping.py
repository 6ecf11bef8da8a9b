"""What goes from the master's artifacts, and when: what nobody has wanted for long, and never what is needed.

Each look says anew that what live runs and services need is wanted, with all that their lists of files name. So
an artifact's age counts from the end of the last run that had it, give or take a look; who submits a run, runs
one again, offers or reads an artifact wants it too. What is older than it may be goes; where all of it weighs
too much, what was wanted longest ago goes first, but nothing that may belong to a run that is just being
submitted. A process that ends in the middle has deleted less, no more. Runs as one task; built by ``app``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Final

import msgspec

from titan_master.data.blobs import BlobStore
from titan_proto.filelist import FileList
from titan_proto.limits import ARTIFACT_KEEP_MIN_MS

_log = logging.getLogger("titan.master")

_EVERY_S: Final = 3_600.0
_PAUSE_S: Final = 30.0
PORTION: Final = 1_000
"""So many go at a time: after thousands of deletions creating files becomes slow for a while."""
_LIST: Final = msgspec.msgpack.Decoder(FileList)


Pins = tuple[frozenset[str], frozenset[str]]
"""Artifacts that are needed, and lists of files that are needed with all that they name: by digest."""


class UnreadableList(Exception):
    """A list of files that is needed says nothing: what it names cannot be told from what nobody needs."""


class ArtifactSweep:
    """The sweeping of one master's artifacts."""

    def __init__(
        self,
        *,
        blobs: BlobStore,
        noted: Callable[[], Callable[[], Pins]],
        disk: Executor,
        now_ms: Callable[[], int],
        keep_ms: int,
        bytes_max: int,
    ) -> None:
        """`noted` is asked on the loop, where the state is; what it answers says what is needed, off it."""
        self._blobs = blobs
        self._noted = noted
        self._disk = disk
        self._now_ms = now_ms
        self._keep_ms = keep_ms
        self._bytes_max = bytes_max

    async def run(self) -> None:
        """Sweep at the start, and again and again, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            pins = self._noted()
            pause_s = _EVERY_S
            try:
                if await loop.run_in_executor(self._disk, self._look, pins):
                    pause_s = _PAUSE_S
            except UnreadableList as error:
                _log.error("artifacts not swept error=%s", error)
            except OSError as error:
                # No reason to end: what could not be looked at now can be next time.
                _log.error("artifacts not swept error=%s", error.strerror or error)
            await asyncio.sleep(pause_s)

    def _look(self, pins: Callable[[], Pins]) -> bool:
        return self.sweep(pins())

    def sweep(self, pins: Pins) -> bool:
        """One look; whether there may be more to remove. Off the loop. Raises OSError, UnreadableList."""
        if self._blobs.begin_ageing():
            return False
        now_ms = self._now_ms()
        wanted = set(with_files(self._blobs, pins))
        for digest in wanted:
            self._blobs.touch(digest)
        rest = sorted(
            (one for one in self._blobs.all() if one.digest not in wanted),
            key=lambda one: (one.wanted_ms, one.digest),
        )
        weight = sum(one.size_bytes for one in rest)
        weight += sum(self._blobs.size(digest) or 0 for digest in wanted)
        removed = freed = 0
        for one in rest:
            is_too_much = weight > self._bytes_max
            age_ms = ARTIFACT_KEEP_MIN_MS if is_too_much else self._keep_ms
            if one.wanted_ms > now_ms - age_ms or removed >= PORTION:
                break  # those that follow were wanted later still
            if self._blobs.remove(one.digest, now_ms - age_ms):
                removed, freed = removed + 1, freed + one.size_bytes
                weight -= one.size_bytes
        if removed:
            _log.info("artifacts swept removed=%d bytes=%d left=%d", removed, freed, weight)
        if weight > self._bytes_max:
            # What is left is needed, or too young.
            _log.warning("artifacts full bytes=%d most=%d", weight, self._bytes_max)
        return removed >= PORTION


def with_files(blobs: BlobStore, pins: Pins) -> Iterator[str]:
    """These artifacts, with those that their lists name. Off the loop. Raises OSError, UnreadableList."""
    artifacts, lists = pins
    yield from artifacts
    for digest in lists:
        yield digest
        try:
            data = blobs.read(digest)
        except FileNotFoundError:
            continue  # whoever needs it is told so; what it named nobody can name any more
        try:
            files = _LIST.decode(data)
        except msgspec.DecodeError as error:
            raise UnreadableList(f"the list of files {digest} cannot be read: {error}") from error
        yield from (file.digest for file in (*files.shared, *files.artifacts) if not file.is_inline)


def missing(blobs: BlobStore, pins: Pins) -> int:
    """How many of them are gone, or cannot be read; the others are wanted from now on. Off the loop."""
    gone = 0
    try:
        for digest in with_files(blobs, pins):
            gone += not blobs.touch(digest)
    except (OSError, UnreadableList) as error:
        _log.error("artifacts of a run cannot be read error=%s", error)
        gone += 1
    return gone
