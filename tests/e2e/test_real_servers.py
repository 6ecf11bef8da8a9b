"""The product's own pipeline on its own ports, and servers that people really use."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, Titan
from tests.harness.cluster import Cluster
from tests.harness.ports import documented_ports
from tests.harness.waiting import wait_until

SOON_S = 45.0
API = "http://127.0.0.1:8080"


def curl(url: str) -> str:
    """What curl prints; empty if nobody answers."""
    done = subprocess.run(
        ["curl", "-fsS", "--max-time", "5", url], capture_output=True, text=True, check=False
    )
    return done.stdout if done.returncode == 0 else ""


def listeners(port: int) -> set[int]:
    """The processes that listen on this port."""
    from titan_worker.host.listeners import who_listens

    words = who_listens(port).split()
    return {int(words[1])} if words[:1] == ["process"] else set()


@pytest.fixture
def port_8080() -> Iterator[None]:
    """Port 8080, once whoever else is testing here has had it."""
    with documented_ports():
        wait_until(
            lambda: not listeners(8080),
            within_s=SOON_S,
            what=f"port 8080 is needed by this test, and used: {listeners(8080)}",
        )
        yield


@pytest.mark.needs("curl")
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("port_8080")
def test_the_products_service_on_port_8080_beside_the_default_worker(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """curl answers; killed, it answers again; stopped, it is gone, and stays gone through restarts."""
    cluster.start_worker()  # 8080 is this worker's default name, too
    folder = shutil.copytree(ROOT / "examples" / "daily_etl", tmp_path / "etl")
    titan("run", str(folder / "daily_etl.yaml"), "--wait")
    assert len(json.loads(curl(f"{API}/"))["months"]) == 48
    (server,) = listeners(8080)
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: bool(curl(f"{API}/")), within_s=SOON_S, what="it answers again")
    assert listeners(8080) not in (set(), {server})
    stats = titan("stats").stdout
    assert "DEPLOY_API" in stats

    titan("stop", "DEPLOY_API")
    wait_until(lambda: not listeners(8080), within_s=SOON_S, what="it is gone")
    assert cluster.master is not None
    cluster.workers[8080].kill()
    cluster.master.kill()
    cluster.start_master()
    cluster.start_worker()
    file = tmp_path / "after.sh"
    file.write_text("echo after\n", encoding="utf-8")
    titan("run", str(file), "--wait")
    assert not listeners(8080)
    assert json.loads(titan("service", "ls", "-o", "json").stdout)["items"] == []


@pytest.mark.needs("curl")
@pytest.mark.timeout(300)
def test_a_web_framework_under_its_own_server_and_the_standard_librarys(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """waitress with an application of a folder, and `python -m http.server`; a job asks both."""
    cluster.start_worker()
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "shop.py").write_text(
        "import flask\n"
        "app = flask.Flask(__name__)\n"
        "@app.get('/health')\n"
        "def health(): return 'well'\n"
        "@app.get('/price/<int:pieces>')\n"
        "def price(pieces): return {'price': pieces * 3}\n",
        encoding="utf-8",
    )
    (folder / "hello.txt").write_text("hello\n", encoding="utf-8")
    (folder / "web.yaml").write_text(
        "name: Web\njobs:\n"
        "  - id: shop\n    type: SERVICE\n    port: auto\n"
        f"    run: 'exec {sys.executable} -m waitress --listen=127.0.0.1:$PORT shop:app'\n"
        "    healthcheck: /health\n"
        "  - id: files\n    type: SERVICE\n    port: auto\n"
        f"    run: 'exec {sys.executable} -m http.server $PORT --bind 127.0.0.1'\n",
        encoding="utf-8",
    )
    titan("run", str(folder / "web.yaml"), "--wait")
    listed = json.loads(titan("service", "ls", "-o", "json").stdout)["items"]
    ports = {one["job"]: one["port"] for one in listed}
    assert json.loads(curl(f"http://127.0.0.1:{ports['shop']}/price/14")) == {"price": 42}
    assert curl(f"http://127.0.0.1:{ports['files']}/hello.txt") == "hello\n"
    for one in ("shop", "files"):
        titan("stop", one)
    wait_until(
        lambda: json.loads(titan("service", "ls", "-o", "json").stdout)["items"] == [],
        within_s=SOON_S,
        what="both are stopped",
    )
