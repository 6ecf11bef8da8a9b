"""A virtual TCP: bytes in order, split anywhere, late, lost with their connection, or never.

A `Pipe` is one connection with two `End`s. It never loses a byte in the middle and never reorders:
that is TCP's promise. It may cut at any byte, stay silent for a while before it cuts (half-open),
or be slow. Between the two there may be something that keeps what one side sent and hands it over
long after that side has given the link up, or that says frames twice. A `Partition` keeps hosts and
the master apart, both ways or one way. What happens to whom is decided by `faults`; this module
only does it.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

from tests.sim.world import Life, World
from titan_proto.frame import HEADER_BYTES

LATENCY_MS = 4
SETUP_MS = 3
DIAL_TIMEOUT_MS = 5_000
HANDSHAKE_WRITES = 2
"""Of the dialler: Hello and Proof. What it writes next is its first message."""
REPEATED_PERCENT = 35
RECENT_FRAMES = 24
"""How many frames back something in the middle may repeat one."""


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
        self._writes = 0
        self._kept: deque[Callable[[], None]] = deque()
        """What would have arrived, while nothing passes in this direction."""
        self._recent: deque[bytes] = deque(maxlen=RECENT_FRAMES)

    def write(self, data: bytes) -> None:
        """Send; swallowed once the connection is gone, as a socket's buffer would."""
        if not self.open or not data:
            return
        world = self.pipe.world
        self._writes += 1
        if self.pipe.repeating:
            data = b"".join(self._repeated(data))
        world.remember(data)
        for piece in _pieces(world, data):
            self.sent += len(piece)
            if self.pipe.muted:
                continue
            at_ms = max(self.arrives_ms, world.now_ms + self.pipe.latency_ms())
            self.arrives_ms = at_ms
            arrive = partial(self._arrive, piece, self.sent)
            world.after(at_ms - world.now_ms, partial(self._pass, arrive, self._writes))

    def close(self) -> None:
        """Close: the peer gets what was sent, then the end."""
        if not self.open:
            return
        self.open = False
        world = self.pipe.world
        at_ms = max(self.arrives_ms, world.now_ms + self.pipe.latency_ms())
        if not self.pipe.muted:
            lose = partial(self._pass, self.peer.lose, self._writes + 1)
            world.after(at_ms - world.now_ms, lose)
        self.pipe.forget()

    def release(self) -> None:
        """Let through what has been kept, in order, if anything passes here again."""
        while self._kept and not self.pipe.is_blocked(self, self._writes):
            self._kept.popleft()()

    def drop_kept(self) -> None:
        """What has been kept is gone for good."""
        self._kept.clear()

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

    def _pass(self, go_on: Callable[[], None], write: int) -> None:
        """Something of this write has come to where it may be kept."""
        if self._kept or self.pipe.is_blocked(self, write):
            self._kept.append(go_on)
        else:
            go_on()

    @property
    def has_spoken(self) -> bool:
        """Of the dialler: whether its first message is out, and the handshake over."""
        return self._writes > HANDSHAKE_WRITES

    def _repeated(self, data: bytes) -> Iterator[bytes]:
        """The frames of one write, some of them twice, some followed by an earlier one."""
        world = self.pipe.world
        for frame in _frames(data):
            yield frame
            if self.pipe.near.has_spoken:
                self._recent.append(frame)
                if world.chance(REPEATED_PERCENT):
                    # The oldest is the likeliest to do harm: an inventory, an order long done.
                    older = self._recent[0], world.random.choice(self._recent)
                    yield world.random.choice((frame, *older))

    def _arrive(self, piece: bytes, end_offset: int) -> None:
        if self.cut_at is not None and end_offset > self.cut_at:
            piece = piece[: max(0, len(piece) - (end_offset - self.cut_at))]
        if self.pipe.muted or not piece:
            return
        if not self.peer.open:
            # Nobody is there any more: the answer is a reset.
            self.pipe.world.after(self.pipe.latency_ms(), self.lose)
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
        self.repeating = False
        self._is_keeping = False
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

    def is_blocked(self, sender: End, write: int) -> bool:
        """Whether nothing of what this end sent with this write arrives just now.

        A keeper waits for the handshake's end: there is nothing to be late before.
        """
        is_later = write > HANDSHAKE_WRITES if sender is self.near else self.near.has_spoken
        if self._is_keeping and is_later:
            return True
        partitions = self._network.partitions
        if not partitions:
            return False
        name, inward = self.near.life.name, sender is self.near
        return any(partition.blocks(name, inward=inward) for partition in partitions)

    def keep(self, give_up_ms: int, for_ms: int) -> None:
        """Keep everything; the dialler gives up, and long after that its words arrive.

        As a proxy does that has taken them over and is slow to hand them on.
        """
        self._is_keeping = True
        self.world.after(give_up_ms, self.near.lose)
        self.world.after(give_up_ms + for_ms, self._hand_over)

    def _hand_over(self) -> None:
        self._is_keeping = False
        self.near.release()
        self.world.after(self.world.between(0, 100), self.far.lose)

    def repeat(self, for_ms: int) -> None:
        """Say frames twice for a while."""
        self.repeating = True
        self.world.after(for_ms, self._stop_repeating)

    def _stop_repeating(self) -> None:
        self.repeating = False

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


class Partition:
    """Some hosts and the master, kept apart: both ways, or in one direction only."""

    def __init__(self, names: frozenset[str], *, inward: bool, outward: bool) -> None:
        self.names = names
        self.left_alone: list[End] = []
        """Ends whose other end has given up meanwhile."""
        self._inward = inward
        self._outward = outward

    def blocks(self, name: str, *, inward: bool) -> bool:
        """Whether nothing passes between this host and the master, in that direction."""
        return name in self.names and (self._inward if inward else self._outward)

    def blocks_dialling(self, name: str) -> bool:
        """A connection needs both ways to come about."""
        return name in self.names


class Network:
    """All connections, and the one port that somebody may listen on."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pipes: dict[Pipe, None] = {}
        """A dict for its order: a set's would depend on addresses in memory."""
        self.listening: Life | None = None
        self.accept: Callable[[End], None]
        self.partitions: list[Partition] = []
        self.on_pipe: Callable[[Pipe], bool] | None = None
        """Waits for a new connection of its liking; forgotten once it says so."""

    def part(self, partition: Partition, for_ms: int) -> None:
        """Keep hosts and the master apart for so long.

        Of what is connected some ends give up meanwhile, as kernels and impatient programs do;
        what they had sent is gone with them. The others go on afterwards as if nothing had been.
        """
        world = self.world
        self.partitions.append(partition)
        for pipe in list(self.pipes):
            if pipe.near.life.name not in partition.names:
                continue
            for end in (pipe.near, pipe.far):
                if world.chance(50):
                    within_ms = world.between(1_000, 40_000)
                    world.after(within_ms, partial(self._give_up, partition, end))
        world.after(for_ms, partial(self._join, partition))

    def _give_up(self, partition: Partition, end: End) -> None:
        if partition in self.partitions:
            end.drop_kept()
            end.lose()
            # Its keepalive, or the next word, is answered with a reset once something passes again.
            partition.left_alone.append(end.peer)

    def _join(self, partition: Partition) -> None:
        self.partitions.remove(partition)
        for pipe in list(self.pipes):
            if pipe.near.life.name not in partition.names:
                continue
            for end in (pipe.near, pipe.far):
                end.release()
        for end in partition.left_alone:
            self.world.after(self.world.between(0, 500), end.lose)

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
        if any(partition.blocks_dialling(life.name) for partition in self.partitions):
            life.after(self.world.between(1_000, DIAL_TIMEOUT_MS), refused)
            return
        if self.listening is None or not self.listening.alive:
            refused()
            return
        pipe = Pipe(self, life, self.listening)
        self.pipes[pipe] = None
        if self.on_pipe is not None and self.on_pipe(pipe):
            self.on_pipe = None
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


def _frames(data: bytes) -> Iterator[bytes]:
    """One write, frame by frame: a write is never part of a frame."""
    start = 0
    while start < len(data):
        length = int.from_bytes(data[start + 4 : start + 8], "big")
        end = start + HEADER_BYTES + length
        yield data[start:end]
        start = end


def _pieces(world: World, data: bytes) -> list[bytes]:
    """Split at random points, most often nowhere."""
    if len(data) < 2 or not world.chance(30):
        return [data]
    points = sorted(world.between(1, len(data) - 1) for _ in range(world.between(1, 3)))
    edges = [0, *points, len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]
