"""How busy workers are, as people and programs see it."""

from __future__ import annotations

import itertools
import json
from datetime import datetime
from typing import Any

import pytest

from tests.e2e.conftest import Titan
from tests.harness.cluster import Cluster
from tests.harness.waiting import wait_until
from titan_sdk import TitanJob

SOON_S = 30.0


@pytest.mark.timeout(180)
def test_stats_and_show_say_how_busy_a_worker_and_its_attempts_are(
    cluster: Cluster, titan: Titan
) -> None:
    """More often while somebody looks; with history; and nothing of a job that has ended."""
    cluster.start_worker(8080)
    with cluster.client() as client:
        run = client.submit("busy", [TitanJob(id="SPIN", run="echo up; while :; do :; done")])
        next(iter(run.logs("SPIN", follow=True)))

        def worker() -> dict[str, Any]:
            found: dict[str, Any] = json.loads(titan("show", "8080", "-o", "json").stdout)
            return found

        def spins() -> bool:
            usage = worker()["usage"]
            # What a machine that is busy with others leaves to it; one that sleeps uses none.
            return bool(usage and [one for one in usage["attempts"] if one["cpuCores"] > 0.02])

        wait_until(spins, within_s=SOON_S, what="the job's use is told while somebody looks")
        (attempt,) = worker()["usage"]["attempts"]
        assert (attempt["job"], attempt["run"], attempt["processes"]) == ("SPIN", run.id, 1)
        wait_until(
            lambda: len(worker()["history"]) >= 3, within_s=SOON_S, what="there is a history"
        )
        gaps = _gaps_s(worker()["history"])
        assert min(gaps) < 5, "nobody looked more often while somebody asked"

        (listed,) = json.loads(titan("stats", "-o", "json").stdout)["workers"]
        assert listed["usage"]["diskTotalBytes"] > 0
        assert listed["limits"].startswith(("cgroups", "rlimits"))
        text = titan("show", "8080").stdout
        for word in ("Load", "Disk", "Network", "Limits", "SPIN.1:"):
            assert word in text

        run.cancel()
        run.wait(timeout=30)
        wait_until(
            lambda: worker()["usage"]["attempts"] == [],
            within_s=SOON_S,
            what="what has ended is no longer shown",
        )


def _gaps_s(history: list[dict[str, Any]]) -> list[float]:
    times = [datetime.fromisoformat(point["at"]) for point in history]
    return [(after - before).total_seconds() for before, after in itertools.pairwise(times)]
