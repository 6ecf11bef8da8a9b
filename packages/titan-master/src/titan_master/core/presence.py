"""Who is here: links, heartbeats, and which workers could take another attempt.

All of it is forgotten when the process ends and told again by the workers that join. It decides
nothing; ``workers`` and ``placement`` do, and ``turn`` keeps the index of free workers in step.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from msgspec import Struct, field

from titan_master.core.state import State, WorkerInfo
from titan_proto.limits import SLOTLESS_PER_WORKER
from titan_proto.messages import ShutDown, WorkerStatus
from titan_proto.states import WorkerState

Entry = tuple[int, str, str]
"""A worker that takes jobs: used share, name, id. The order is the order of preference."""

_Index = dict[tuple[str, ...], list[Entry]]


def share(worker: WorkerInfo) -> int:
    """How much of it is taken, as an integer that is exact enough to compare any two workers."""
    return (worker.used << 32) // worker.slots


class Presence(Struct, kw_only=True, eq=False):
    """One worker, as far as it is felt at the moment."""

    seen_ms: int
    """Last sign of life; after the master's start: that start (a fresh lease)."""
    link_id: int | None = None
    newest_link_id: int = 0
    """On which it has joined last, whether it is still there or not."""
    unlinked_ms: int = 0
    """When its last link was given up; 0 if this master never had one of it."""
    status: WorkerStatus | None = None
    takes_shutdown: bool = False
    """Whether the process that is there now can be told to leave."""
    farewell: ShutDown | None = None
    """It has been told to leave, and has not said yet that it does."""
    cores: int = 0
    """Of its host; 0: it cannot spawn."""
    layers: dict[str, int] = field(default_factory=dict)
    """By live run: which of its layers were named on the present link, as bits."""
    group: tuple[str, ...] = ()
    entry: Entry | None = None
    """Where it stands in the index of free or of full workers, if it does."""
    is_full: bool = False
    """Which of them that is."""


class Roster:
    """The presences of all workers of the state."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._present: dict[str, Presence] = {}
        self._links: dict[int, str] = {}
        self.free: _Index = {}
        """Workers that are online, linked and not full: by their skills, the best first."""
        self.full: _Index = {}
        """Likewise those without a free slot: for what takes none."""

    def of(self, worker_id: str) -> Presence:
        """A worker's presence; one that was never seen has an empty one."""
        presence = self._present.get(worker_id)
        if presence is None:
            presence = self._present[worker_id] = Presence(seen_ms=0)
        return presence

    def worker_on(self, link_id: int) -> str | None:
        """Which worker has joined on this link."""
        return self._links.get(link_id)

    def link_of(self, worker_id: str) -> int | None:
        """On which link a worker is."""
        presence = self._present.get(worker_id)
        return None if presence is None else presence.link_id

    def bind(self, worker_id: str, link_id: int, now_ms: int) -> None:
        """It has joined on this link; both have been unbound from whatever they had before."""
        presence = self.of(worker_id)
        presence.link_id = presence.newest_link_id = link_id
        presence.seen_ms = now_ms
        presence.layers = {}
        self._links[link_id] = worker_id
        self.refresh(worker_id)

    def hear(self, link_id: int, status: WorkerStatus, at_ms: int) -> str | None:
        """A sign of life on this link, stamped when it was received; whose it was, if anybody's."""
        worker_id = self._links.get(link_id)
        if worker_id is not None:
            presence = self.of(worker_id)
            presence.seen_ms = max(presence.seen_ms, at_ms)
            presence.status = status
        return worker_id

    def unbind(self, link_id: int, now_ms: int) -> str | None:
        """The link is gone, or not to be listened to; returns who was on it."""
        worker_id = self._links.pop(link_id, None)
        if worker_id is not None:
            presence = self.of(worker_id)
            presence.link_id = None
            presence.unlinked_ms = now_ms
            presence.status = None
            self.refresh(worker_id)
        return worker_id

    def forget(self, worker_id: str) -> None:
        """It has been retired."""
        presence = self._present.pop(worker_id, None)
        if presence is None:
            return
        if presence.link_id is not None:
            self._links.pop(presence.link_id, None)
        self._place(presence, None, (), is_full=False)

    def forget_run(self, run_id: str) -> None:
        """It has ended: nothing of it will be named to anybody again."""
        for presence in self._present.values():
            presence.layers.pop(run_id, None)

    def refresh(self, worker_id: str) -> None:
        """Put a worker where it belongs in the index after anything about it has changed."""
        worker = self._state.workers.get(worker_id)
        presence = self.of(worker_id)
        if (
            worker is None
            or presence.link_id is None
            or worker.state is not WorkerState.ONLINE
            or worker.cordoned
            or (worker.kinship is not None and worker.kinship.dismissed)
            or len(worker.held) >= worker.slots + SLOTLESS_PER_WORKER
        ):
            self._place(presence, None, (), is_full=False)
            return
        group = presence.group if presence.entry else tuple(sorted(dict.fromkeys(worker.skills)))
        is_full = worker.used >= worker.slots
        self._place(presence, (share(worker), worker.name, worker_id), group, is_full=is_full)

    def regroup(self, worker_id: str) -> None:
        """As `refresh`, for a worker that may have come back with other skills."""
        self._place(self.of(worker_id), None, (), is_full=False)
        self.refresh(worker_id)

    def _place(
        self, presence: Presence, entry: Entry | None, group: tuple[str, ...], *, is_full: bool
    ) -> None:
        old = presence.entry
        if old == entry and presence.is_full == is_full:
            return
        if old is not None:
            index = self.full if presence.is_full else self.free
            entries = index[presence.group]
            del entries[bisect_left(entries, old)]
            if not entries:
                del index[presence.group]
        if entry is not None:
            index = self.full if is_full else self.free
            insort(index.setdefault(group, []), entry)
        presence.entry = entry
        presence.group = group
        presence.is_full = is_full
