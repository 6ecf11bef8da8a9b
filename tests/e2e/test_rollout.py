"""Instances of a service: several, replaced without a gap, kept by tonight's run of the same pipeline."""

from __future__ import annotations

import http.server
import json
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Titan
from tests.e2e.little_server import SERVER, said
from tests.harness.cluster import Cluster
from titan_sdk import TitanClient

PIPELINE = """name: Shop
jobs:
  - id: prepare
    run: echo {release}
  - id: api
    type: SERVICE
    script: server.py
    args: ["{release}"]
    port: {port}
    healthcheck: {{http: /, interval: 500ms}}
    replicas: {replicas}
    dependencies: [prepare]
  - id: ask
    run: echo asked
    dependencies: [api]
"""


def write(folder: Path, release: str, *, port: object = "auto", replicas: int = 1) -> str:
    """The pipeline's file, and its server beside it."""
    folder.mkdir(exist_ok=True)
    (folder / "server.py").write_text(SERVER, encoding="utf-8")
    text = PIPELINE.format(release=release, port=port, replicas=replicas)
    (folder / "shop.yaml").write_text(text, encoding="utf-8")
    return str(folder / "shop.yaml")


def services(titan: Titan) -> list[dict[str, object]]:
    """As `titan service ls` lists them."""
    found: list[dict[str, object]] = json.loads(titan("service", "ls", "-o", "json").stdout)[
        "items"
    ]
    return found


def well(titan: Titan) -> list[str]:
    """What the healthy instances say."""
    return sorted(said(one["port"]) for one in services(titan) if one["state"] == "HEALTHY")


@pytest.mark.timeout(300)
def test_a_service_is_scaled_and_restarted_instance_by_instance(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    cluster.start_worker(slots=9)
    titan("run", write(tmp_path / "shop", "one", replicas=2), "--wait")
    cluster.wait(lambda: len(well(titan)) == 2, "both are up")
    assert [line.split()[0] for line in well(titan)] == ["api", "api~2"]
    shown = titan("service", "scale", "api", "3").stdout
    assert "Shop/api~3" in shown
    assert "STARTING" in shown
    cluster.wait(lambda: len(well(titan)) == 3, "there are three")
    assert "api~3" in titan("show", "shop-1/api~3").stdout
    titan("service", "scale", "Shop/api", "1")
    cluster.wait(lambda: len(services(titan)) == 1, "there is one")

    (before,) = well(titan)
    titan("service", "restart", "api")
    cluster.wait(
        lambda: len(services(titan)) == 1 and well(titan) not in ([], [before]),
        "its replacement is all there is",
    )
    (after,) = well(titan)
    assert after.split()[0] == "api~4", "a number is never given again"
    assert "api~3" in titan("show", "shop-1/api~3").stdout, "it has ended, and is known"
    refused = titan("service", "scale", "Shop/apo", "1", code=3)
    assert "Shop/api" in refused.stderr
    titan("stop", "api")
    cluster.wait(lambda: services(titan) == [], "all of it is stopped")


@pytest.mark.timeout(300)
def test_a_nightly_pipeline_keeps_its_service_and_a_changed_one_replaces_it_without_a_gap(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """Somebody asks all the time, wherever a healthy instance is listed, and is always answered."""
    cluster.start_worker(slots=9)
    titan("run", write(tmp_path / "shop", "one"), "--wait")
    (first,) = well(titan)
    titan("run", write(tmp_path / "shop", "one"), "--wait")
    assert well(titan) == [first], "the very same process"
    assert "kept from shop-1" in titan("show", "shop-2/api").stdout

    unanswered: list[str] = []
    over = threading.Event()

    def healthy(client: TitanClient) -> list[tuple[str, int | None]]:
        return [(one.job_id, one.port) for one in client.services() if one.state == "HEALTHY"]

    def ask() -> None:
        with cluster.client() as client:
            while not over.is_set():
                up = healthy(client)
                # Who is on the list may be replaced between a look at it and the question: that is a
                # gap only where the list has not changed.
                while not any(said(port) for _, port in up):
                    before, up = up, healthy(client)
                    if up == before:
                        unanswered.append(f"{time.time()}: {up}")
                        break

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        titan("run", write(tmp_path / "shop", "two"), "--wait")
        cluster.wait(lambda: len(services(titan)) == 1, "the old one is gone")
    finally:
        over.set()
        asking.join(60)
    assert unanswered == []
    (now,) = well(titan)
    assert now.split()[1] == "two"


@pytest.mark.timeout(300)
def test_a_fixed_port_on_the_only_worker_is_given_up_first_and_the_log_says_so(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    cluster.start_worker(slots=9)
    titan("run", write(tmp_path / "shop", "one"), "--wait")
    port = services(titan)[0]["port"]
    titan("stop", "api")
    cluster.wait(lambda: services(titan) == [], "its port is free")
    titan("run", write(tmp_path / "shop", "one", port=port), "--wait")
    titan("run", write(tmp_path / "shop", "two", port=port), "--wait")
    assert [line.split()[1] for line in well(titan)] == ["two"]
    assert f"no other worker can have port {port} for its replacement" in cluster.logs()


@pytest.mark.timeout(300)
def test_two_workers_of_one_host_share_its_ports(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """A restart and the shutdown of the one that has it: the other one is tried once the port is free."""
    cluster.start_worker(8080, drain="10m")
    cluster.start_worker(8081, home=tmp_path / "other", drain="10m")
    titan("run", write(tmp_path / "shop", "one"), "--wait")
    port = services(titan)[0]["port"]
    titan("stop", "api")
    cluster.wait(lambda: services(titan) == [], "its port is free")
    titan("run", write(tmp_path / "shop", "one", port=port), "--wait")
    (before,) = well(titan)

    titan("service", "restart", "api")
    cluster.wait(lambda: well(titan) not in ([], [before]), "its replacement answers")
    (after,) = well(titan)
    assert after.startswith("api~2 ")
    holder = after.rpartition(":")[2]
    titan("shutdown", holder)
    assert cluster.workers[int(holder)].process.wait(60) == 0, cluster.logs()
    cluster.wait(lambda: well(titan) not in ([], [after]), "it answers on the other worker")
    (moved,) = well(titan)
    assert moved.startswith("api~2 "), "the very instance"
    assert not moved.endswith(holder)
    assert "START_FAILED" not in cluster.logs(), "no worker was told to try"
    assert cluster.logs().count(f"no other worker can have port {port} for its replacement") == 2


@pytest.mark.timeout(300)
def test_a_running_job_is_stopped_and_the_rest_of_its_run_goes_on(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    cluster.start_worker()
    file = tmp_path / "work.yaml"
    file.write_text(
        "name: Work\nproject: false\njobs:\n"
        "  - {id: long, run: 'echo begun; sleep 600 & wait'}\n"
        "  - {id: after, run: 'echo after', dependencies: [long]}\n"
        "  - {id: beside, run: 'echo beside'}\n",
        encoding="utf-8",
    )
    titan("run", str(file))
    cluster.wait(lambda: "begun" in titan("logs", "work-1/long").stdout, "it has begun")
    assert "Job work-1/long is CANCELL" in titan("stop", "long").stderr
    cluster.wait(lambda: "CANCELLED" in titan("ps", "-a").stdout, "its run has ended")
    jobs = json.loads(titan("ps", "work-1", "-o", "json").stdout)["items"]
    assert {job["id"]: job["state"] for job in jobs} == {
        "long": "CANCELLED",
        "after": "CANCELLED",
        "beside": "SUCCEEDED",
    }
    assert "has ended already" in titan("stop", "work-1/long", code=7).stderr


@pytest.mark.timeout(300)
@pytest.mark.needs("redis-server")
def test_a_redis_is_a_service_whose_check_is_a_command(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """A program from the system, told its port by the shell; what depends on it talks to it."""
    cluster.start_worker()
    ask = (
        "import os, socket\n"
        "s = socket.create_connection(('127.0.0.1', int(os.environ['PORT'])))\n"
        "s.sendall(b'PING\\r\\n')\n"
        "raise SystemExit(s.recv(7) != b'+PONG\\r\\n')\n"
    )
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis" / "ping.py").write_text(ask, encoding="utf-8")
    file = tmp_path / "redis" / "store.yaml"
    file.write_text(
        "name: Store\njobs:\n"
        "  - id: redis\n    type: SERVICE\n    port: auto\n"
        "    run: 'exec redis-server --port $PORT --bind 127.0.0.1 --save \"\" --daemonize no'\n"
        f"    healthcheck: {{command: ['{sys.executable}', ping.py], interval: 500ms}}\n",
        encoding="utf-8",
    )
    titan("run", str(file), "--wait")
    (redis,) = services(titan)
    assert redis["state"] == "HEALTHY"
    titan("stop", "redis")
    cluster.wait(lambda: services(titan) == [], "it is gone")


@pytest.mark.timeout(300)
def test_a_file_is_deployed_as_a_service_and_again_when_it_has_changed(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    cluster.start_worker()
    here = tmp_path / "here"
    mine = SERVER.replace("sys.argv[1:]", '["one"]') + "\nprint('never')\n"
    mine = mine.replace("server.serve", "print('serving', flush=True)\nserver.serve")
    (here / "server.py").write_text(mine, encoding="utf-8")
    shown = titan("deploy", "server.py", "auto", "GENERAL", "--health", "/").stdout
    assert "server/server" in shown
    assert "HEALTHY" in shown
    (first,) = well(titan)
    titan("deploy", "server.py", "auto", "GENERAL", "--health", "/")
    assert well(titan) == [first], "it has not changed"
    titan("service", "scale", "server", "2")
    cluster.wait(lambda: len(well(titan)) == 2, "there are two")
    assert "server/server~2" in titan("stats").stdout
    titan("stop", "server-1/server~2")
    cluster.wait(lambda: len(services(titan)) == 1, "there is one")
    assert titan("logs", "server-1/server~2").stdout == "serving\n", "its log is there still"
    titan("deploy", "server.py", "auto", "GENERAL", "--health", "/")
    assert well(titan) == [first]
    (here / "server.py").write_text(SERVER.replace("sys.argv[1:]", '["two"]'), encoding="utf-8")
    titan("deploy", "server.py", "auto", "GENERAL", "--health", "/")
    cluster.wait(lambda: len(services(titan)) == 1, "the old one is gone")
    assert [line.split()[1] for line in well(titan)] == ["two"]

    taken = services(titan)[0]["port"]
    refused = titan("deploy", "server.py", str(taken), "--name", "other", code=1)
    assert "has it" in refused.stderr, "who has the port is said"
    (here / "broken.py").write_text("raise SystemExit('no database')", encoding="utf-8")
    broken = titan("deploy", "broken.py", "auto", code=1)
    assert "broken did not come up" in broken.stderr
    titan("stop", "server")
    cluster.wait(lambda: services(titan) == [], "it is stopped")


@pytest.mark.timeout(300)
def test_a_port_that_another_program_has_is_refused_with_its_name(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    cluster.start_worker()
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), http.server.BaseHTTPRequestHandler
    ) as web:
        port = web.server_address[1]
        (tmp_path / "here" / "server.py").write_text(SERVER, encoding="utf-8")
        refused = titan("deploy", "server.py", str(port), code=1)
    assert f"port {port} cannot be used on this worker (process {os.getpid()} (" in refused.stderr
