"""Syncs that fail and syncs that take long, under a real master."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.storage import traced
from tests.chaos.storage.asking import link_to, lost, submit, submit_for_ever
from tests.harness.cluster import Cluster
from titan_proto.messages import RunReceipt, WaitRun
from titan_proto.states import RunState

DELAY_S = 1.0
LOST_AFTER_S = 2.4
"""A third of it, after which a worker counts as silent, is less than each commit takes."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Without a master yet."""
    with Cluster(tmp_path / "cluster", lost_after=f"{LOST_AFTER_S}s") as made:
        yield made


@pytest.mark.needs("strace")
@pytest.mark.parametrize("sync", [1, 8])
def test_a_sync_that_fails_ends_the_master_and_loses_nothing(cluster: Cluster, sync: int) -> None:
    """One sync alone fails, the next would succeed: it must not be tried. 74, and a sound restart."""
    master = cluster.start_master()
    tracer = traced.attach(cluster, master.pid, f"inject=fdatasync:error=EIO:when={sync}")
    receipts: dict[str, RunReceipt] = {}
    submit_for_ever(cluster, receipts, prefix="key-", most=100)
    assert master.process.wait(20) == os.EX_IOERR, cluster.logs()
    tracer.stop()
    assert len(receipts) < sync
    cluster.start_master()
    with link_to(cluster) as link:
        assert lost(link, receipts) == []


@pytest.mark.needs("strace")
def test_a_sync_that_fails_at_the_start_opens_no_door(cluster: Cluster) -> None:
    """Exit 74 before anybody is let in; the next start is sound."""
    cluster.start_master().kill()
    master = traced.start(cluster, "trace=fdatasync", "inject=fdatasync:error=EIO:when=1")
    assert not traced.become_ready(cluster, master)
    assert master.process.wait(20) == os.EX_IOERR, cluster.logs()
    cluster.start_master()


@pytest.mark.needs("strace")
def test_a_slow_disk_makes_no_worker_silent(cluster: Cluster) -> None:
    """Each commit takes longer than a worker may be silent; its heartbeats are heard meanwhile."""
    master = cluster.start_master()
    cluster.start_worker(8080)
    delay = traced.attach(
        cluster, master.pid, f"inject=fdatasync:delay_enter={int(DELAY_S * 1_000_000)}"
    )
    began = time.monotonic()
    with link_to(cluster) as link:
        receipts = [submit(link, f"key-{serial}", "sleep 0.1") for serial in range(3)]
        for receipt in receipts:
            over = link.call(WaitRun(run=receipt.run_id), timeout_s=40)
            assert over.state is RunState.SUCCEEDED
    assert time.monotonic() - began > 3 * DELAY_S, "the disk was not slow"
    assert delay.process.poll() is None
    delay.stop()
    said = master.log.read_text(errors="replace")
    assert said.count("WorkerJoined") == 1, said
    for event in ("WorkerSilent", "WorkerLost", "WorkerReturned"):
        assert event not in said, said
