"""A wire that does what wires do: waits, breaks, goes dead in one direction or both.

A TCP proxy in a thread of its own. It forwards frame by frame, so that it can hold or break a
stream between two frames as well as in the middle of one, and each direction by itself, so that an
answer may overtake what was sent before it the other way. Within a direction TCP keeps the order,
and so does this. Its dice come from a seed; when things happen is up to the processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

from msgspec import Struct

from titan_proto.frame import HEADER_BYTES

T = TypeVar("T")


class Way(enum.Enum):
    """A direction."""

    UP = "up"
    """To the master."""
    DOWN = "down"


class Weather(Struct, frozen=True, kw_only=True):
    """What happens to each frame, by chance."""

    delay_s: float = 0.0
    """It waits up to so long; each direction by itself."""
    cut: float = 0.0
    """The connection is cut in front of it with this probability,"""
    tear: float = 0.0
    """or somewhere in its middle."""


CALM = Weather()


class _Pair:
    """One connection: two streams, two pumps."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.ends = {Way.UP: reader}
        self.writers = {Way.DOWN: writer}
        self.dead: set[Way] = set()
        """What these ways bring is read and thrown away: the sender notices nothing."""
        self.bytes = dict.fromkeys(Way, 0)

    def cut(self) -> None:
        """At once, with what was not delivered yet."""
        for writer in self.writers.values():
            writer.transport.abort()


class Proxy:
    """Listens on a port of its own and forwards to `target`, for better or worse."""

    def __init__(
        self, target: tuple[str, int], seed: int = 0, *, takes_datagrams: bool = False
    ) -> None:
        """`takes_datagrams`: on its port number it forwards those too, and nothing comes back."""
        self._target = target
        self._takes_datagrams = takes_datagrams
        self._relays: list[asyncio.DatagramTransport] = []
        self._dice = random.Random(seed)
        self._weather = CALM
        self._dead: set[Way] = set()
        self._cut_after: dict[Way, int] = {}
        self._pairs: set[_Pair] = set()
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.port = 0
        self.made = 0
        """Connections that came in, so far."""
        self.broken = 0
        """Connections that the weather has cut."""
        self.carried = dict.fromkeys(Way, 0)
        """Bytes delivered on the newest connection."""

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        if self._takes_datagrams:
            self._do(self._relay_datagrams())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # -- what a test may ask for --------------------------------------------------------------

    def weather(self, weather: Weather) -> None:
        """From now on, for every connection."""
        self._call(lambda: setattr(self, "_weather", weather))

    def cut(self) -> None:
        """Cut every connection."""
        self._call(lambda: [pair.cut() for pair in self._pairs])

    def die(self, *ways: Way) -> None:
        """These directions deliver nothing more, on present and new connections; nothing is closed.

        A connection that has lost bytes stays dead for ever: `heal` is for those that come after.
        """
        self._call(lambda: self._let_die(set(ways)))

    def heal(self) -> None:
        """What is dialled from now on works."""
        self._call(self._dead.clear)

    def cut_after(self, way: Way, count: int) -> None:
        """Each new connection is cut when so many bytes have been delivered that way."""
        self._call(lambda: self._set_cut(way, count))

    # -- inside -------------------------------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _call(self, act: Callable[[], object]) -> None:
        async def once() -> None:
            act()

        self._do(once())

    def _let_die(self, ways: set[Way]) -> None:
        self._dead = ways
        for pair in self._pairs:
            pair.dead |= ways

    async def _relay_datagrams(self) -> None:
        make = self._loop.create_datagram_endpoint
        far, _ = await make(asyncio.DatagramProtocol, remote_addr=self._target)
        near, _ = await make(lambda: _Relay(far), local_addr=("127.0.0.1", self.port))
        self._relays = [near, far]

    def _set_cut(self, way: Way, count: int) -> None:
        self._cut_after = {way: count}

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = _Pair(reader, writer)
        pair.dead = set(self._dead)
        self.made += 1
        self.carried = pair.bytes
        self._pairs.add(pair)
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            pair.cut()
            self._pairs.discard(pair)
            return
        pair.ends[Way.DOWN] = far_reader
        pair.writers[Way.UP] = far_writer
        for way in Way:
            task = self._loop.create_task(self._pump(pair, way, dict(self._cut_after)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, pair: _Pair, way: Way, limits: dict[Way, int]) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                header = await pair.ends[way].readexactly(HEADER_BYTES)
                body = await pair.ends[way].readexactly(int.from_bytes(header[4:8], "big"))
                await self._deliver(pair, way, header + body, limits.get(way))
        if not pair.dead:
            pair.cut()
            self._pairs.discard(pair)
        elif way not in pair.dead:
            pair.writers[way].close()  # on a dead way nobody hears of an end either

    async def _deliver(self, pair: _Pair, way: Way, frame: bytes, limit: int | None) -> None:
        weather = self._weather
        if weather.delay_s:
            await asyncio.sleep(self._dice.uniform(0, weather.delay_s))
        if way in pair.dead:
            return
        chance = self._dice.random()
        if chance < weather.cut + weather.tear:
            self.broken += 1
            limit = pair.bytes[way]
            if chance >= weather.cut:
                limit += self._dice.randrange(1, len(frame))
        room = len(frame) if limit is None else max(0, limit - pair.bytes[way])
        writer = pair.writers[way]
        writer.write(frame[:room])
        pair.bytes[way] += min(room, len(frame))
        await writer.drain()
        if room < len(frame):
            writer.close()  # after what was written: those bytes shall arrive
            raise ConnectionAbortedError

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        for relay in self._relays:
            relay.close()
        for pair in self._pairs:
            pair.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Relay(asyncio.DatagramProtocol):
    """Takes datagrams and sends them on."""

    def __init__(self, far: asyncio.DatagramTransport) -> None:
        self._far = far

    def datagram_received(self, data: bytes, _addr: object) -> None:
        self._far.sendto(data)
