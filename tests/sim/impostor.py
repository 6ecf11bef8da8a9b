"""Something that answers at the master's address and is not the master that the cluster follows.

A copy started from an old backup (an older term), or another cluster's master. Workers must not
obey the one, and must leave the other what it has and come back clean. It refuses clients, and
goes away after a while.
"""

from __future__ import annotations

from tests.sim import wire
from tests.sim.coverage import Coverage
from tests.sim.network import End, Network
from tests.sim.wire import Wire
from tests.sim.world import Life, World
from titan_proto.connection import Opened, Received
from titan_proto.errors import ErrorCode
from titan_proto.messages import Hello, Join, Joined, Role, StopAttempts, Welcome
from titan_proto.states import ExitReason

LINK_ID = 1


class Impostor:
    """One such master."""

    def __init__(
        self, world: World, network: Network, *, cluster_id: str, term: int, for_ms: int
    ) -> None:
        self._world = world
        self._network = network
        self._cluster_id = cluster_id
        self._term = term
        self._life = Life(world, "impostor")
        # What it says must not count as exercised.
        self._coverage = Coverage()
        # The true master has just gone: its port is free in a moment.
        world.after(0, self._listen)
        world.after(for_ms, self._stop)

    def _listen(self) -> None:
        if self._network.listening is None:
            self._network.listening = self._life
            self._network.accept = self._accept

    def _stop(self) -> None:
        self._life.end()
        if self._network.listening is self._life:
            self._network.listening = None
        self._network.drop_process(self._life)

    def _accept(self, end: End) -> None:
        connection = wire.listener(self._world, self._welcome)
        link = Wire(self._world, end, connection, self._coverage)

        def opened(event: Opened) -> None:
            if event.hello.role is not Role.WORKER:
                link.hang_up(ErrorCode.UNAVAILABLE, "not at this time")

        def received(event: Received) -> None:
            if isinstance(event.message, Join):
                self._command(link, event.message)

        link.on_open = opened
        link.on_message = received
        link.on_close = lambda _code: None

    def _command(self, link: Wire, join: Join) -> None:
        """Say what would do harm if it were obeyed by a worker that still knows its master."""
        link.send(Joined(term=self._term, heartbeat_ms=5_000, lost_after_ms=30_000))
        refs = tuple(line.ref for line in join.held)
        link.send(StopAttempts(term=self._term, refs=refs, reason=ExitReason.CANCELLED))
        link.flush()

    def _welcome(self, hello: Hello) -> Welcome:
        del hello
        return Welcome(
            version=1,
            cluster_id=self._cluster_id,
            software=wire.SOFTWARE,
            term=self._term,
            link_id=LINK_ID,
        )
