"""A whole master in a thread of the test's own process: real sockets, real disk, no signals."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from titan_master.app import Master, Pools
from titan_master.config import MasterConfig
from titan_master.data.feed import Streams
from titan_master.data.reserve import Reserve
from titan_master.net.listener import bind
from titan_master.store.sqlite import SqliteStore, connect
from titan_proto.handshake import format_token, parse_token
from titan_proto.io.address import Address
from titan_proto.io.blocking import BlockingLink
from titan_proto.messages import Role

TOKEN = format_token("local", "test", "ab" * 32)
SOFTWARE = "test"


class RunningMaster:
    """Use it in a ``with``; inside, it listens on `address`."""

    def __init__(self, root, **config) -> None:
        settings = {
            "data": root / "data",
            "perm_files": root / "perm_files",
            "listen": Address("127.0.0.1", 0),
            "name": "test",
            "disk_reserve_bytes": 1 << 20,
            **config,
        }
        self.config = MasterConfig(**settings)
        self.config.data.mkdir(parents=True, exist_ok=True)
        self.address = self.config.listen
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(20), "the master did not come up"
        return self

    def __exit__(self, *_) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive(), "the master did not end"

    def link(self, role: Role = Role.CLIENT, token: str = TOKEN) -> BlockingLink:
        """A link to it."""
        return BlockingLink.connect(self.address, token, role=role, software=SOFTWARE, timeout_s=10)

    def on_loop(self, call):
        """What `call` gives, called on the master's own loop."""

        async def run():
            return call()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        store = SqliteStore(self.config.data / "titan.sqlite", connect=connect)
        with ExitStack() as stack:
            pools = Pools(*(stack.enter_context(ThreadPoolExecutor(1)) for _ in range(7)))
            self.pools = pools
            reserve = Reserve(self.config.data, self.config.disk_reserve_bytes)
            look = reserve.begin()
            recovered = pools.writer.submit(store.open).result()
            async with asyncio.TaskGroup() as tasks:
                streams = Streams(tasks.create_task)
                self.master = Master(
                    self.config, parse_token(TOKEN), store, recovered, pools, streams, reserve, look
                )
                door = bind(self.address.host, self.address.port)
                self.address = self.address._replace(port=await self.master.open_door(door))
                self._ready.set()
                await self._stop.wait()
                await self.master.close()
                streams.drop_all()
            self.master.logs.close()
            pools.writer.submit(store.close).result()
