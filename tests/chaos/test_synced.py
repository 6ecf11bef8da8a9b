"""What has been acknowledged has been forced to the disk, as the kernel saw it."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster
from tests.harness.waiting import wait_until
from titan_sdk import TitanJob

RUNS = 12


@pytest.mark.needs("root")
@pytest.mark.needs("strace")
def test_no_receipt_without_a_sync(make_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    """One client, one run after the other: at least one sync of the journal for each receipt."""
    cluster = make_cluster()
    assert cluster.master is not None
    seen, told = tmp_path / "calls", tmp_path / "strace"
    with told.open("wb") as stderr:
        tracer = subprocess.Popen(
            [
                *("strace", "-f", "-y", "-e", "trace=fdatasync,fsync"),
                *("-o", str(seen), "-p", str(cluster.master.pid)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    try:
        wait_until(lambda: "attached" in told.read_text(), within_s=20, what="strace is there")
        with cluster.client() as client:
            for number in range(RUNS):
                client.submit(f"run-{number}", [TitanJob(id="a", command=["true"])])
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(20)
    synced = re.findall(r"sync\(\d+<[^>]*titan\.sqlite-wal>\)\s+= 0", seen.read_text())
    assert len(synced) >= RUNS
