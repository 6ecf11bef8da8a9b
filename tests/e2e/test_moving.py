"""A worker is asked to leave while services are up on it: they go on elsewhere, or it is said why not."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Self

import pytest

from tests.e2e.conftest import Titan
from tests.e2e.little_server import SERVER, said
from tests.harness.cluster import Cluster
from titan_proto.messages import ServiceView
from titan_sdk import TitanClient

LONG = "10m"

PIPELINE = """name: Shop
jobs:
  - id: api
    type: SERVICE
    script: server.py
    port: {port}
    healthcheck: {{http: /, interval: 200ms, start_period: 60s}}
    replicas: {replicas}
"""


def deploy(titan: Titan, folder: Path, *, port: object = "auto", replicas: int = 1) -> None:
    """All of it is up."""
    folder.mkdir()
    (folder / "server.py").write_text(SERVER, encoding="utf-8")
    text = PIPELINE.format(port=port, replicas=replicas)
    (folder / "shop.yaml").write_text(text, encoding="utf-8")
    titan("run", str(folder / "shop.yaml"), "--wait")


def healthy(client: TitanClient) -> list[ServiceView]:
    return [one for one in client.services() if str(one.state) == "HEALTHY"]


class Caller:
    """Somebody who looks up where the service is and asks there, all the time, until told to stop.

    An instance may go between the look and the question: then there must be another to ask at once.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.answers: list[str] = []
        self.unanswered: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)

    def _ask(self) -> None:
        with self._cluster.client() as client:
            while not self._over.is_set():
                answer = self._once(client) or self._once(client)
                if answer:
                    self.answers.append(answer)
                else:
                    self.unanswered.append(str(client.services()))

    @staticmethod
    def _once(client: TitanClient) -> str:
        return next(filter(None, (said(one.port) for one in healthy(client))), "")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["signal", "order"])
def test_a_service_is_moved_without_a_gap_when_its_worker_is_asked_to_leave(
    cluster: Cluster, titan: Titan, tmp_path: Path, how: str
) -> None:
    """The worker could wait ten minutes, and is gone as soon as both instances answer elsewhere."""
    leaving = cluster.start_worker(8080, drain=LONG)
    deploy(titan, tmp_path / "shop", replicas=2)
    cluster.start_worker(8081)
    with cluster.client() as client, Caller(cluster) as caller:
        cluster.wait(lambda: len(healthy(client)) == 2, "both are up")
        cluster.wait(lambda: bool(caller.answers), "somebody asks")
        if how == "signal":
            leaving.process.send_signal(signal.SIGTERM)
        else:
            assert "2 service" in titan("shutdown", "8080").stderr
        assert leaving.process.wait(120) == 0, cluster.logs()
        asked = len(caller.answers)
        cluster.wait(lambda: len(caller.answers) > asked, "it is asked afterwards too")
        moved = {one.job_id: one.worker.rpartition(":")[2] for one in client.services()}
    assert caller.unanswered == [], cluster.logs()
    assert moved == {"api~3": "8081", "api~4": "8081"}
    assert caller.answers[0].endswith(":8080")
    assert caller.answers[-1].endswith(":8081")
    assert "is leaving" in cluster.logs()
    attempts = json.loads(titan("ps", "shop-1", "-o", "json").stdout)["items"]
    assert attempts[0]["state"] == "SUCCEEDED"


@pytest.mark.timeout(300)
def test_what_no_other_worker_can_have_goes_with_its_worker_waits_and_says_why(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    leaving = cluster.start_worker(8080, drain=LONG)
    deploy(titan, tmp_path / "shop")
    leaving.process.send_signal(signal.SIGTERM)
    assert leaving.process.wait(60) == 0, cluster.logs()
    cluster.wait(lambda: "no other worker could have it" in cluster.logs(), "it is said why")
    with cluster.client() as client:
        (waits,) = client.services()
        assert (waits.job_id, waits.state) == ("api", "STARTING")
        cluster.start_worker(8081)
        cluster.wait(lambda: [said(one.port) for one in healthy(client)] != [], "it is up")
        (moved,) = healthy(client)
        assert said(moved.port).endswith(":8081")


@pytest.mark.timeout(300)
def test_a_service_that_cannot_come_up_elsewhere_in_time_is_stopped_anyway(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """The other worker is busy for longer than this one may wait."""
    leaving = cluster.start_worker(8080, drain="2s")
    deploy(titan, tmp_path / "shop")
    cluster.start_worker(8081, slots=1)
    flag = tmp_path / "go"
    file = tmp_path / "busy.yaml"
    line = f"while [ ! -e {flag} ]; do sleep 0.05; done"
    file.write_text(
        f"name: Busy\nproject: false\njobs:\n  - {{id: a, run: '{line}'}}\n", encoding="utf-8"
    )
    titan("run", str(file))
    with cluster.client() as client:
        cluster.wait(
            lambda: any(w.port == 8081 and w.used for w in client.stats().workers),
            "the other one is busy",
        )
        leaving.process.send_signal(signal.SIGTERM)
        assert leaving.process.wait(60) == 0, cluster.logs()
        said_why = "no worker had room for its replacement in time"
        cluster.wait(lambda: said_why in cluster.logs(), "it is said why")
        flag.touch()
        cluster.wait(lambda: len(healthy(client)) == 1, "it is up elsewhere")
        (moved,) = healthy(client)
        assert (moved.job_id, moved.attempt) == ("api", 2)
