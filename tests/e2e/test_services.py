"""Services of real processes stay up: whatever is killed, and until a person stops them."""

from __future__ import annotations

import json
import os
import signal
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.conftest import Titan
from tests.harness.cluster import Cluster
from tests.harness.waiting import wait_until

SOON_S = 30.0

PIPELINE = """name: Web
project: false
jobs:
  - id: API
    type: SERVICE
    port: auto
    run: 'echo "$$"; exec "{python}" -m http.server "$PORT" --bind 127.0.0.1'
  - id: ASK
    run: echo asked
    depends_on: [API]
"""


@pytest.mark.timeout(180)
def test_a_service_answers_again_after_kill_9_also_without_a_master_until_it_is_stopped(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    cluster.start_worker()
    file = tmp_path / "web.yaml"
    file.write_text(PIPELINE.format(python=sys.executable), encoding="utf-8")
    titan("run", str(file), "--wait")

    def services() -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(titan("ps", "-o", "json").stdout)["services"]
        return found

    def pids() -> list[int]:
        return [int(line) for line in titan("logs", "API").stdout.splitlines() if line.isdigit()]

    (api,) = services()
    url = f"http://127.0.0.1:{api['port']}/"
    assert _answers(url)
    wait_until(lambda: len(pids()) == 1, within_s=SOON_S, what="its first process says who it is")

    os.kill(pids()[0], signal.SIGKILL)
    wait_until(lambda: len(pids()) == 2 and _answers(url), within_s=SOON_S, what="it answers again")
    wait_until(
        lambda: services()[0]["state"] == "HEALTHY", within_s=SOON_S, what="the master knows that"
    )
    assert services()[0]["restarts"] == 1
    assert "RESTARTS" in titan("ps").stdout

    second = pids()[1]
    assert cluster.master is not None
    cluster.master.kill()
    os.kill(second, signal.SIGKILL)
    wait_until(lambda: _answers(url), within_s=SOON_S, what="its worker needs no master for that")
    cluster.start_master()
    wait_until(
        lambda: services()[0]["restarts"] == 2,
        within_s=SOON_S,
        what="the master hears of it afterwards",
    )

    titan("stop", "API")
    wait_until(lambda: not _answers(url) and services() == [], within_s=SOON_S, what="it is gone")
    cluster.master.kill()
    cluster.start_master()
    assert services() == []
    assert not _answers(url)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
