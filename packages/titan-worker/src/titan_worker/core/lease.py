"""How long this worker may count on its master's patience, and what it must do before that ends.

The lease runs until the moment in which the last acknowledged heartbeat was *sent*, plus what the
master said that it waits for silent workers: whatever the network did, the master counts from a
later moment. Decides nothing about attempts but when an exclusive one must be gone, so that the
master may give it away. Called by the core and by ``attempts``.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from titan_proto.limits import WORKER_LOST_AFTER_MS
from titan_proto.messages import HeartbeatAck, Joined
from titan_worker.core.effects import LeaseEnd

UNHEARD_BEATS_MAX: Final = 100
"""So many heartbeats without an answer are remembered: the link is given up long before."""
_MARGIN: Final = 20
"""A twentieth of the lease is kept for the kernel to do its part after SIGKILL."""
_GRACE: Final = 3
"""An exclusive attempt gets its own stop grace, but at most a third of the lease."""
_SILENT: Final = (2, 3)
"""A master that is silent for two thirds of the lease is not there any more."""


class Lease:
    """What this process knows of its lease; nothing of it outlives the process."""

    def __init__(self) -> None:
        self._length_ms = WORKER_LOST_AFTER_MS
        self._until_ms = 0
        self._joined_at_ms = 0
        self.heard_ms = 0
        """When the master last said something on this link."""
        self._beat = 0
        self._has_joined = False
        # Whether the master of this link answers heartbeats at all: older ones do not.
        self._is_answered = False
        self._unheard: deque[tuple[int, int]] = deque(maxlen=UNHEARD_BEATS_MAX)

    # -- what happens on the link ---------------------------------------------------------------
    def join(self, now_ms: int) -> None:
        """Join is sent on a new link: it counts as the link's first heartbeat."""
        self._joined_at_ms = self.heard_ms = now_ms
        self._beat = 0
        self._has_joined = self._is_answered = False
        self._unheard.clear()

    def joined(self, message: Joined) -> None:
        """The master has taken the worker in, and said how long it waits for silent ones."""
        self._length_ms = message.lost_after_ms
        self._has_joined = True
        # Not the later of the two: this master may wait less long than the one before.
        self._until_ms = self._joined_at_ms + self._length_ms

    def beat(self, now_ms: int) -> int:
        """A heartbeat is sent now; its number."""
        self._beat += 1
        self._unheard.append((self._beat, now_ms))
        return self._beat

    def acked(self, message: HeartbeatAck) -> bool:
        """A heartbeat was heard; whether that makes the lease longer."""
        self._is_answered = True
        sent_ms = None
        while self._unheard and self._unheard[0][0] <= message.beat:
            beat, at_ms = self._unheard.popleft()
            if beat == message.beat:
                sent_ms = at_ms
        if sent_ms is None:  # said twice, or never sent
            return False
        self._until_ms = sent_ms + self._length_ms
        return True

    def heard(self, now_ms: int) -> None:
        """The master said something, whatever it was."""
        self.heard_ms = now_ms

    # -- what follows from it -------------------------------------------------------------------
    def silent_at_ms(self) -> int | None:
        """When the link must be given up if nothing is heard until then; None: never.

        Nothing is to be expected of a master that never answered a heartbeat of this link.
        """
        if not self._has_joined:
            return self.heard_ms + self._length_ms
        if not self._is_answered:
            return None
        part, of = _SILENT
        return self.heard_ms + max(1, self._length_ms * part // of)

    def end_for(self, stop_grace_ms: int) -> LeaseEnd:
        """When an exclusive attempt must begin to stop, and be gone, if nothing is heard."""
        gone_ms = self._until_ms - self._length_ms // _MARGIN
        grace_ms = min(stop_grace_ms, self._length_ms // _GRACE)
        return LeaseEnd(term_at_ms=gone_ms - grace_ms, kill_at_ms=gone_ms)

    def may_start(self, now_ms: int) -> bool:
        """Whether an exclusive attempt would not have to stop again at once."""
        return now_ms < self.end_for(self._length_ms).term_at_ms
