"""A worker tells how busy it is, more often while somebody looks, and nothing of it waits for that."""

import asyncio
import threading
import time

import pytest

from titan_proto.messages import SampleUsage, Usage, WorkerStatus, WorkerUsage
from titan_proto.specs import Launch, LaunchKind, Resources
from titan_worker import sampling
from titan_worker.sampling import Sampling


class Master:
    def __init__(self):
        self.told = asyncio.Queue()

    def send(self, message):
        self.told.put_nowait(message)


class Looker:
    """Looks when it is let to; says how often it has, and when."""

    def __init__(self):
        self.gate = threading.Event()
        self.gate.set()
        self.looks = 0
        self.times_s = []

    def look(self, roots):
        assert self.gate.wait(10)
        self.looks += 1
        self.times_s.append(time.monotonic())
        return Usage(cpu_permille=self.looks)


@pytest.fixture
async def made():
    looker = Looker()
    found = Sampling(loop=asyncio.get_running_loop(), looker=looker, roots=dict, limits="rlimits")
    task = asyncio.create_task(found.run())
    yield found, looker
    looker.gate.set()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    found.close()


async def told(master):
    async with asyncio.timeout(10):
        return await master.told.get()


async def test_a_master_is_told_at_once_and_then_every_quarter_of_a_minute(made, monkeypatch):
    monkeypatch.setattr(sampling, "USUALLY_EVERY_S", 0.05)
    found, looker = made
    master = Master()

    found.link_up(master)

    assert await told(master) == WorkerUsage(usage=Usage(cpu_permille=1), limits="rlimits")
    assert (await told(master)).usage.cpu_permille == 2
    assert looker.times_s[1] - looker.times_s[0] > 0.02
    assert sampling.USUALLY_EVERY_S == 0.05


async def test_who_looks_is_told_more_often_for_so_long(made, monkeypatch):
    monkeypatch.setattr(sampling, "_EVERY_MIN_S", 0.01)
    found, looker = made
    master = Master()
    found.link_up(master)
    await told(master)

    found.asked(SampleUsage(every_ms=1, for_ms=60_000))
    for _ in range(5):
        await told(master)  # long before a quarter of a minute is over

    assert found._next_s - asyncio.get_running_loop().time() < 1
    found.asked(SampleUsage(every_ms=1, for_ms=100))
    async with asyncio.timeout(10):
        while found._until_s > asyncio.get_running_loop().time():
            await told(master)
    looks = looker.looks
    while found._next_s - asyncio.get_running_loop().time() < 1:
        await told(master)
    assert looker.looks <= looks + 2


async def test_without_a_master_nobody_looks(made):
    found, looker = made
    master = Master()
    found.link_up(master)
    await told(master)
    found.link_down()
    found.asked(SampleUsage(every_ms=0, for_ms=10**9))

    await asyncio.sleep(0)

    assert looker.looks == 1
    assert master.told.empty()


async def test_a_look_that_takes_long_holds_nothing_up_and_is_told_to_who_is_there_then(made):
    found, looker = made
    looker.gate.clear()
    first, second = Master(), Master()
    found.link_up(first)
    await asyncio.sleep(0)
    found.link_down()
    found.link_up(second)

    looker.gate.set()

    assert isinstance(await told(second), WorkerUsage)
    assert first.told.empty()


async def test_a_whole_worker_tells_its_host_and_what_its_job_uses_with_all_it_started(nest, peer):
    await nest.start()
    line = "sleep 1000 & (while :; do :; done) & setsid sleep 1000 & echo ready; wait"
    launch = Launch(kind=LaunchKind.SHELL, shell=line, resources=Resources(pids=50))
    peer.order("busy", launch=launch)
    await peer.log_of("busy", b"ready")
    await peer.running("busy")

    peer.link.send(SampleUsage(every_ms=1_000, for_ms=20_000))
    await peer.until(lambda: any(one.usage.attempts for one in peer.got(WorkerUsage)))

    seen = next(one for one in peer.got(WorkerUsage) if one.usage.attempts)
    (attempt,) = seen.usage.attempts
    assert (attempt.ref.job_id, attempt.processes) == ("busy", 4)
    assert attempt.memory_bytes > 100_000
    usage = seen.usage
    assert 0 < usage.memory_used_bytes < usage.memory_total_bytes
    assert 0 < usage.disk_used_bytes <= usage.disk_total_bytes
    assert "limits" in seen.limits or "cpu" in seen.limits
    await peer.until(
        lambda: any(
            attempt.cpu_milli > 100
            for one in peer.got(WorkerUsage)
            for attempt in one.usage.attempts
        )
    )
    peer.stop("busy")
    await peer.end_of("busy")


async def test_heartbeats_go_on_while_a_look_stands_still(nest, peer, monkeypatch):
    """Its thread may wait for a dead disk for as long as it likes."""
    stuck = threading.Event()
    peer.heartbeat_ms = 100
    monkeypatch.setattr("titan_worker.app.HostLooker.look", lambda *_: (stuck.wait(20), Usage())[1])
    await nest.start()
    try:
        beats = len(peer.got(WorkerStatus))
        await peer.until(lambda: len(peer.got(WorkerStatus)) >= beats + 3)
        peer.order("a", shell="exit 0")
        assert (await peer.end_of("a")).exit_code == 0
    finally:
        stuck.set()
