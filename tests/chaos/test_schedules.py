"""Slots on a real clock while the master is killed: each becomes one run, and no slot is left out.

`TITAN_CHAOS_SCHEDULE_S` says for how long; the full runs say three minutes.
"""

from __future__ import annotations

import datetime
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster
from tests.harness.waiting import wait_until
from titan_sdk import TitanJob

SECONDS = int(os.environ.get("TITAN_CHAOS_SCHEDULE_S", "12"))
SLOTS_BETWEEN_KILLS = 2


@pytest.mark.timeout(60 + 4 * SECONDS)
def test_each_slot_is_one_run_though_the_master_is_killed_between_them(
    make_cluster: Callable[..., Cluster], marks: Path
) -> None:
    """Every second, with `catchup: all`; killed with -9 and started again after every second slot."""
    cluster = make_cluster()
    cluster.start_worker(8080)
    end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=SECONDS)
    line = f'echo "$TITAN_SCHEDULED_FOR $TITAN_RUN_ID" >> {marks}; echo "$TITAN_SCHEDULED_FOR"'
    with cluster.client() as client:
        client.schedule(
            "tick",
            "@every 1s",
            [TitanJob(id="tick", run=line)],
            overlap="allow",
            catchup="all",
            end=end,
        )
        kills = 0
        while (view := client.find_schedule("tick")).next_at_ms:
            wanted = view.fired + SLOTS_BETWEEN_KILLS
            wait_until(
                lambda wanted=wanted: (
                    (now := client.find_schedule("tick")).fired >= wanted or not now.next_at_ms
                ),
                within_s=60,
                what=f"slot {wanted}",
            )
            assert cluster.master is not None
            cluster.master.kill()
            cluster.start_master()
            kills += 1
        wait_until(lambda: not client.runs(), within_s=60, what="the last runs to end")
        view = client.find_schedule("tick")
        runs = [run for run in client.runs(ended=True) if run.fired is not None]
        told = [client.fetch_logs(f"{run.run_id}/tick").strip() for run in runs]
    assert kills >= SECONDS // SLOTS_BETWEEN_KILLS // 2
    assert (view.missed, view.skipped) == (0, 0), cluster.logs()
    assert len(runs) == view.fired
    slots = sorted(datetime.datetime.fromisoformat(one.replace("Z", "+00:00")) for one in told)
    steps = {later - earlier for earlier, later in itertools.pairwise(slots)}
    assert steps == {datetime.timedelta(seconds=1)}, f"{slots}\n{cluster.logs()}"
    assert len(slots) >= SECONDS - 2
    # A run may be begun again with its worker's link; its slot stays one run.
    done = [mark.split() for mark in marks.read_text(encoding="utf-8").splitlines()]
    assert {run_id for _, run_id in done} == {run.run_id for run in runs}
    assert len({slot for slot, _ in done}) == len(runs)
