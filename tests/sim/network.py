"""A virtual TCP: bytes in order, split anywhere, late, lost with their connection, or never.

A `Pipe` is one connection with two `End`s. It never loses a byte in the middle and never reorders:
that is TCP's promise. It may cut at any byte, stay silent for a while before it cuts (half-open),
or be slow. What happens to whom is decided by `faults`; this module only does it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

from tests.sim.world import Life, World

LATENCY_MS = 4
SETUP_MS = 3


class End:
    """One side of a connection, as its process sees it."""

    def __init__(self, pipe: Pipe, life: Life) -> None:
        self.pipe = pipe
        self.life = life
        self.peer: End
        self.on_data: Callable[[bytes], None]
        self.on_close: Callable[[], None]
        self.open = True
        self.arrives_ms = 0
        """Nothing this end sends may arrive before what it sent earlier."""
        self.sent = 0
        self.delivered = 0
        """Of what this end sent, how much the peer has."""
        self.cut_at: int | None = None
        """The first byte of what this end sends that never arrives."""

    def write(self, data: bytes) -> None:
        """Send; swallowed once the connection is gone, as a socket's buffer would."""
        if not self.open or not data:
            return
        world = self.pipe.world
        world.remember(data)
        for piece in _pieces(world, data):
            self.sent += len(piece)
            if self.pipe.muted:
                continue
            at_ms = max(self.arrives_ms, world.now_ms + self.pipe.latency_ms())
            self.arrives_ms = at_ms
            world.after(at_ms - world.now_ms, partial(self._arrive, piece, self.sent))

    def close(self) -> None:
        """Close: the peer gets what was sent, then the end."""
        if not self.open:
            return
        self.open = False
        world = self.pipe.world
        at_ms = max(self.arrives_ms, world.now_ms + self.pipe.latency_ms())
        if not self.pipe.muted:
            world.after(at_ms - world.now_ms, self.peer.lose)
        self.pipe.forget()

    def hold(self, for_ms: int) -> None:
        """What this end sends from now on is under way for at least so long."""
        self.arrives_ms = max(self.arrives_ms, self.pipe.world.now_ms + for_ms)

    def lose(self) -> None:
        """The connection is gone for this end; its process hears of it when it can."""
        self.life.do(self._lost)

    def _lost(self) -> None:
        if self.open:
            self.open = False
            self.pipe.forget()
            self.on_close()

    def _arrive(self, piece: bytes, end_offset: int) -> None:
        if self.cut_at is not None and end_offset > self.cut_at:
            piece = piece[: max(0, len(piece) - (end_offset - self.cut_at))]
        if self.pipe.muted or not piece or not self.peer.open:
            return
        self.delivered = end_offset
        peer = self.peer
        peer.life.do(lambda: peer.on_data(piece) if peer.open else None)


class Pipe:
    """One connection."""

    def __init__(self, network: Network, dialler: Life, listener: Life) -> None:
        self.world = network.world
        self._network = network
        self.muted = False
        self.slow_ms = 0
        self.near = End(self, dialler)
        self.far = End(self, listener)
        self.near.peer, self.far.peer = self.far, self.near

    @property
    def name(self) -> str:
        """Who talks to whom."""
        return f"{self.near.life.name}-{self.far.life.name}"

    def latency_ms(self) -> int:
        """How long the next piece takes."""
        return self.world.between(0, LATENCY_MS) + (
            self.world.between(0, self.slow_ms) if self.slow_ms else 0
        )

    def cut(self) -> None:
        """Break at any byte of what is under way; each end learns of it at its own time."""
        for end in (self.near, self.far):
            end.cut_at = self.world.between(end.delivered, end.sent)
        for end in (self.near, self.far):
            self.world.after(self.world.between(0, 200), end.lose)

    def mute(self, for_up_to_ms: int) -> None:
        """Half-open: nothing arrives any more, nobody is told; later each kernel gives up.

        One may do so long before the other: then a peer is back on a new link while its old one
        still looks alive.
        """
        self.muted = True
        for end in (self.near, self.far):
            self.world.after(self.world.between(500, for_up_to_ms), end.lose)

    def slow(self, up_to_ms: int, for_ms: int) -> None:
        """Be slow for a while."""
        self.slow_ms = up_to_ms
        self.world.after(for_ms, self._recover)

    def forget(self) -> None:
        """Leave the list of live pipes once neither end holds it."""
        if not self.near.open and not self.far.open:
            self._network.pipes.pop(self, None)

    def _recover(self) -> None:
        self.slow_ms = 0


class Network:
    """All connections, and the one port that somebody may listen on."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pipes: dict[Pipe, None] = {}
        """A dict for its order: a set's would depend on addresses in memory."""
        self.listening: Life | None = None
        self.accept: Callable[[End], None]

    def dial(
        self,
        life: Life,
        *,
        connected: Callable[[End], None],
        refused: Callable[[], None],
    ) -> None:
        """Connect to the master: `connected` gets the near end, or nobody was there."""
        life.after(self.world.between(1, SETUP_MS), lambda: self._dialled(life, connected, refused))

    def _dialled(
        self, life: Life, connected: Callable[[End], None], refused: Callable[[], None]
    ) -> None:
        if self.listening is None or not self.listening.alive:
            refused()
            return
        pipe = Pipe(self, life, self.listening)
        self.pipes[pipe] = None
        listener = self.listening
        connected(pipe.near)
        # The kernel accepts for a paused process; it learns of the link when it goes on.
        pipe.far.on_data = lambda _data: None
        pipe.far.on_close = lambda: None
        listener.do(lambda: self.accept(pipe.far))

    def drop_process(self, life: Life) -> None:
        """The kernel closes what a dead process had open."""
        for pipe in list(self.pipes):
            for end in (pipe.near, pipe.far):
                if end.life is life:
                    end.close()

    def drop_machine(self, life: Life) -> None:
        """The machine is gone: its peers hear nothing, for a while."""
        for pipe in list(self.pipes):
            for end in (pipe.near, pipe.far):
                if end.life is life:
                    end.open = False
                    pipe.mute(40_000)


def _pieces(world: World, data: bytes) -> list[bytes]:
    """Split at random points, most often nowhere."""
    if len(data) < 2 or not world.chance(30):
        return [data]
    points = sorted(world.between(1, len(data) - 1) for _ in range(world.between(1, 3)))
    edges = [0, *points, len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]
