"""`titan logs -f` beside a job that prints all the time, while links break and datagrams are lost."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.chaos.proxy import Proxy
from tests.e2e.conftest import Titan
from tests.harness.cluster import Cluster
from tests.harness.waiting import wait_until
from titan_sdk import TitanJob

LINES = 1000
PRINTS = f"""
import time
start = time.monotonic()
for n in range({LINES}):
    print("line", n, flush=True)
    time.sleep(max(0, start + (n + 1) / 100 - time.monotonic()))
"""


class Follower:
    """`titan logs -f` as a process, its lines as they come."""

    def __init__(self, cluster: Cluster, name: str, through: Proxy) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "titan_sdk", "logs", "-f", name],
            env={**cluster.client_env(), "TITAN_MASTER": f"127.0.0.1:{through.port}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.lines.append(line)

    def end(self) -> int:
        """Its exit code, once it has ended by itself."""
        code = self.process.wait(60)
        self._reader.join(10)
        return code


@pytest.fixture(params=["datagrams arrive", "every datagram is lost"])
def wires(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[tuple[Proxy, Proxy, bool]]:
    """The worker's and the follower's, and whether datagrams get through."""
    assert cluster.master is not None
    target = ("127.0.0.1", cluster.port)
    arrive = request.param == "datagrams arrive"
    with Proxy(target, takes_datagrams=arrive) as workers, Proxy(target) as followers:
        yield workers, followers, arrive


def test_every_line_comes_once_and_in_order_though_links_break(
    cluster: Cluster, titan: Titan, wires: tuple[Proxy, Proxy, bool]
) -> None:
    """A line every 10 ms for 10 s, the worker's link and the follower's cut twice in between."""
    workers, followers, arrive = wires
    cluster.start_worker(8080, through=workers.port)
    with cluster.client() as client:
        job = TitanJob(id="a", command=[sys.executable, "-c", PRINTS])
        run = client.submit("live", [job])
        follower = Follower(cluster, f"{run.alias}/a", followers)
        try:
            for cut_at in (LINES // 4, LINES // 2):
                wait_until(
                    lambda cut_at=cut_at: len(follower.lines) >= cut_at,
                    within_s=30,
                    what=f"line {cut_at}, of which {len(follower.lines)} came",
                )
                workers.cut()
                followers.cut()
            assert follower.end() == 0
        finally:
            follower.process.kill()
        assert run.wait(timeout=30) == "SUCCEEDED", cluster.logs()
        assert follower.lines == [f"line {n}\n" for n in range(LINES)]
        assert run.logs("a") == "".join(follower.lines)
    came = json.loads(titan("stats", "-o", "json").stdout)["logDatagrams"]
    # One for each look that saw something new, of which there is one in some 20 ms.
    assert came > LINES // 10 if arrive else came == 0
    assert workers.made == 3
