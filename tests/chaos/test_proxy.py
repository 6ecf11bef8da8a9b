"""Bad wires: late, cut anywhere, dead without a word. What was asked for happens, once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos import journal
from tests.chaos.audit import faults_of
from tests.chaos.load import Promise, job_line
from tests.chaos.proxy import CALM, Proxy, Way, Weather
from tests.harness.cluster import Cluster
from tests.harness.waiting import wait_until
from titan_proto.errors import LinkError
from titan_proto.io.address import parse_address
from titan_proto.io.blocking import BlockingLink
from titan_proto.messages import GetStats, Role
from titan_sdk import TitanClient, TitanJob

LEASE_S = 1.5
MARGIN_S = 2.0
"""For a busy machine to get round to it."""


@pytest.fixture
def cluster(make_cluster: Callable[..., Cluster]) -> Cluster:
    """With a short lease."""
    return make_cluster(f"{LEASE_S:g}s")


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[Proxy]:
    """In front of its master."""
    with Proxy(("127.0.0.1", cluster.port), seed=4711) as made:
        yield made


def graph(marks: Path, count: int) -> tuple[list[TitanJob], dict[str, tuple[str, ...]]]:
    """Short jobs, each hanging on up to two of the ten before it."""
    dice = random.Random(count)
    parents: dict[str, tuple[str, ...]] = {}
    for number in range(count):
        earlier = [f"j{n}" for n in range(max(0, number - 10), number)]
        chosen = dice.sample(earlier, min(len(earlier), dice.choice((0, 0, 1, 2))))
        parents[f"j{number}"] = tuple(sorted(chosen))
    jobs = [
        TitanJob(id=job, run=job_line(marks, 0.03), dependencies=list(above))
        for job, above in parents.items()
    ]
    return jobs, parents


@pytest.mark.parametrize(
    "weather",
    [
        pytest.param(Weather(delay_s=0.05), id="late"),
        pytest.param(Weather(delay_s=0.005, cut=0.02), id="cut between frames"),
        pytest.param(Weather(delay_s=0.005, tear=0.02), id="cut within frames"),
    ],
)
@pytest.mark.timeout(120)
def test_a_hundred_jobs_come_out_right(
    make_cluster: Callable[..., Cluster], marks: Path, weather: Weather
) -> None:
    """Both workers and the client behind a bad wire: each job succeeds once, in order."""
    cluster = make_cluster()
    with Proxy(("127.0.0.1", cluster.port), seed=7) as proxy:
        cluster.start_worker(8080, through=proxy.port)
        cluster.start_worker(8081, through=proxy.port)
        proxy.weather(weather)
        jobs, parents = graph(marks, 120)
        with TitanClient(f"127.0.0.1:{proxy.port}", cluster.token, timeout=60) as client:
            client.stats()  # the first dial is never repeated, and may have been cut
            run = client.submit("weather", jobs)
            assert run.wait(timeout=100) == "SUCCEEDED", cluster.logs()
        proxy.weather(CALM)
        for worker in cluster.workers.values():
            assert worker.stop() == 0  # while there is a wire: its last words are waited for
        if weather.cut or weather.tear:
            assert proxy.broken > 3
        promise = Promise("weather", run.id, parents, None)
        with cluster.client() as client:
            assert faults_of(cluster, client, promise, marks) == []
        assert cluster.attempt_folders(run.id) == sorted(f"{job.id}.1" for job in jobs)


def told(cluster: Cluster, port: int, word: str) -> Callable[[], bool]:
    """Whether this worker has said this since now."""
    log = cluster.workers[port].log
    start = log.stat().st_size
    return lambda: word in log.read_bytes()[start:].decode("utf-8", "replace")


@pytest.mark.parametrize(
    "ways", [(Way.UP, Way.DOWN), (Way.UP,), (Way.DOWN,)], ids=["both ways", "up", "down"]
)
def test_a_dead_wire_is_noticed_by_both_ends(
    cluster: Cluster, proxy: Proxy, marks: Path, ways: tuple[Way, ...]
) -> None:
    """Nothing is closed and nothing arrives: within the lease the worker dials anew and the master
    gives its jobs away or takes it back; each job is done, and nothing is left of the lost ones."""
    cluster.start_worker(8080, through=proxy.port)
    with cluster.client() as client:
        run = client.submit(
            "half-open", [TitanJob(id=f"j{n}", run=job_line(marks, 4.0)) for n in range(2)]
        )
        wait_until(lambda: marks.read_text().count("begin") == 2, within_s=20, what="both jobs run")
        # The worker knows by now that this master answers heartbeats: nothing else is said here.
        heard = proxy.carried[Way.DOWN]
        wait_until(
            lambda: proxy.carried[Way.DOWN] > heard + 20,
            within_s=LEASE_S,
            what="a heartbeat's answer",
        )
        noticed = told(cluster, 8080, "link_down")
        proxy.die(*ways)
        cluster.start_worker(8081)
        wait_until(noticed, within_s=LEASE_S + MARGIN_S, what="the worker notices")
        if Way.UP in ways:
            wait_until(
                lambda: journal.of_type(cluster.data, "WorkerLost"),
                within_s=2 * MARGIN_S,
                what="the master notices",
            )
        proxy.heal()
        wait_until(
            lambda: {worker.state for worker in client.stats().workers} == {"ONLINE"},
            within_s=2 * LEASE_S + MARGIN_S,
            what="it is back",
        )
        assert run.wait(timeout=40) == "SUCCEEDED", cluster.logs()
        promise = Promise("half-open", run.id, {"j0": (), "j1": ()}, None)
        assert faults_of(cluster, client, promise, marks) == []


@pytest.mark.timeout(120)
def test_an_order_into_a_dead_wire_is_given_again(
    cluster: Cluster, proxy: Proxy, marks: Path
) -> None:
    """The master speaks and is not heard: what it ordered meanwhile is done once all the same."""
    cluster.start_worker(8080, through=proxy.port)
    proxy.die(Way.DOWN)
    with cluster.client() as client:
        run = client.submit("unheard", [TitanJob(id="a", run=job_line(marks, 0.0))])
        wait_until(
            lambda: client.job("a", run=run).state == "PLACED", within_s=10, what="it is placed"
        )
        proxy.heal()
        proxy.cut()
        assert run.wait(timeout=30) == "SUCCEEDED", cluster.logs()
        assert client.job("a", run=run).attempt == 1
        promise = Promise("unheard", run.id, {"a": ()}, None)
        assert faults_of(cluster, client, promise, marks) == []


@pytest.mark.parametrize("way", list(Way), ids=["up", "down"])
@pytest.mark.timeout(120)
def test_a_handshake_may_break_at_every_byte(cluster: Cluster, proxy: Proxy, way: Way) -> None:
    """The dialler is told, at once; the master lets the next one in."""
    address = parse_address(f"127.0.0.1:{proxy.port}")

    def connect() -> BlockingLink:
        return BlockingLink.connect(
            address, cluster.token, role=Role.CLIENT, software="chaos", timeout_s=5
        )

    with connect() as link:
        link.call(GetStats(), timeout_s=5)
        whole = proxy.carried[way]
        answers = proxy.carried[Way.DOWN]
    assert whole > 50
    assert answers > 50
    for count in range(whole):
        proxy.cut_after(way, count)
        with pytest.raises(LinkError), connect() as link:
            link.call(GetStats(), timeout_s=5)
    proxy.cut_after(way, 1 << 30)
    with connect() as link:
        assert link.call(GetStats(), timeout_s=5).runs_active == 0
    assert cluster.master is not None
    assert cluster.master.process.poll() is None
    assert "Traceback" not in cluster.logs()
