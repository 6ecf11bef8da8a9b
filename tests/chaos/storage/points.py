"""A master killed at each system call by which it writes, while it accepts runs; then at its recovery.

What was acknowledged by then is there after the next start, once, and under its key. Killed again
while it recovers, it recovers to the same.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from tests.chaos.storage import traced
from tests.chaos.storage.asking import link_to, lost, submit_for_ever
from tests.chaos.storage.results import Result
from tests.harness.cluster import Cluster
from titan_proto.messages import RunReceipt

SUBMISSIONS = 60
_RECOVERY_POINTS_MAX = 12


def all_points(submissions: int) -> list[tuple[str, int]]:
    """Every call of the script, as (name, which one)."""
    with tempfile.TemporaryDirectory(prefix="points-") as folder, _cluster(folder) as cluster:
        log = Path(folder) / "calls"
        master = traced.start(cluster, f"trace={','.join(traced.WRITES)}", log=log)
        assert traced.become_ready(cluster, master), cluster.logs()
        submit_for_ever(cluster, {}, prefix="key-", most=submissions)
        assert master.stop() == 0
        found = traced.calls(log)
    return [(name, at) for name, count in sorted(found.items()) for at in range(1, count + 1)]


def sweep(points: list[tuple[str, int]], result: Result, *, submissions: int, seed: int) -> None:
    """Kill a master at each of these points."""
    for name, at in points:
        dice = random.Random(f"{seed} {name} {at}")
        try:
            _kill_at(name, at, result, dice, submissions)
        except AssertionError as error:
            result.fail(f"{name} number {at}: {str(error)[:2_000]}")
        result.count("points")


def _kill_at(name: str, at: int, result: Result, dice: random.Random, submissions: int) -> None:
    with tempfile.TemporaryDirectory(prefix="points-") as folder, _cluster(folder) as cluster:
        receipts: dict[str, RunReceipt] = {}
        master = traced.start(cluster, f"trace={name}", f"inject={name}:signal=KILL:when={at}")
        if traced.become_ready(cluster, master):
            submit_for_ever(cluster, receipts, prefix="key-", most=submissions)
        if len(receipts) == submissions and master.stop() == 0:
            result.count("not reached")  # this time it made fewer of these calls
        else:
            assert master.process.wait(20) == -9, f"ended with {master.process.returncode}"
            result.count("killed there")
        result.count("acknowledged", len(receipts))

        call = dice.choice(("pwrite64", "fdatasync", "fsync"))
        again = dice.randrange(1, _RECOVERY_POINTS_MAX)
        second = traced.start(cluster, f"trace={call}", f"inject={call}:signal=KILL:when={again}")
        if traced.become_ready(cluster, second):
            second.kill()
        else:
            result.count("recoveries killed")
        assert second.process.wait(20) == -9, cluster.logs()

        cluster.start_master()
        with link_to(cluster) as link:
            missing = lost(link, receipts)
        if missing:
            result.lost += len(missing)
            result.fail(f"{name} number {at}: acknowledged and lost: {missing}")
        assert cluster.master is not None
        assert cluster.master.stop() == 0


def campaign(seed: int, *, sample: int | None, submissions: int = SUBMISSIONS) -> Result:
    """All points, or a sample of them."""
    result = Result(
        name="write points",
        what=f"a master killed at every write and sync while it takes {submissions} runs, then again "
        "while it recovers: every acknowledged run is there",
        seed=seed,
    )
    points = all_points(submissions)
    result.count("points there are", len(points))
    if sample is not None:
        points = random.Random(seed).sample(points, min(sample, len(points)))
    sweep(points, result, submissions=submissions, seed=seed)
    if result.counts.get("killed there", 0) < len(points) * 0.8:
        result.fail(f"only so few were reached, so this proves little: {result.counts}")
    return result.done()


def _cluster(folder: str) -> Cluster:
    return Cluster(Path(folder) / "cluster")
