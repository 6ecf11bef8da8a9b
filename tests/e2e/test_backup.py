"""A backup that is made under load, restored, and started: nothing acknowledged before it is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.e2e.test_recovery import ANSWER_S, Submitter, link_to
from tests.harness.cluster import Cluster
from titan_proto.messages import GetRun, GetStats, ListJobs, WaitRun
from titan_proto.states import JobState, RunState

BACKUPS = 3


def titan_master(*words: object, code: int = 0) -> str:
    """Run a command of the master's."""
    done = subprocess.run(
        [sys.executable, "-m", "titan_master", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done
    return done.stdout


def test_a_backup_under_load_has_everything_that_was_acknowledged(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Restored elsewhere it goes on: the old worker serves it, every run is there and comes to its end."""
    cluster.start_worker(8080)
    submitter = Submitter(cluster, "true")
    submitter.start()
    acknowledged: set[str] = set()
    for number in range(BACKUPS):
        submitter.wait_for(len(submitter.receipts) + 10)
        acknowledged = {receipt.run_id for receipt in submitter.receipts.values()}
        titan_master("backup", tmp_path / f"b{number}", "--data", cluster.data, "--with-token")
        titan_master("doctor", "--data", cluster.data)
    before = len(submitter.receipts)
    submitter.wait_for(before + 5)
    submitter.finish()
    assert cluster.master is not None
    cluster.master.kill()

    cluster.data = tmp_path / "restored"
    titan_master("restore", tmp_path / f"b{BACKUPS - 1}", "--data", cluster.data)
    cluster.start_master()
    with link_to(cluster) as link:
        for run_id in acknowledged:
            over = link.call(WaitRun(run=run_id), timeout_s=ANSWER_S)
            assert over.state is RunState.SUCCEEDED, cluster.logs()
            jobs = link.call(ListJobs(run=run_id)).jobs
            assert {job.state for job in jobs} == {JobState.SUCCEEDED}
        stats = link.call(GetStats(), timeout_s=20)
        assert stats.term > 1_000_000, "no worker may have heard this term from the old master"
        newest = link.call(GetRun(run="@last"), timeout_s=20)
        assert newest.run_id
    titan_master("doctor", "--data", cluster.data)


def test_a_backup_of_a_folder_without_a_master_is_refused(tmp_path: Path) -> None:
    """66, and nothing is made."""
    titan_master("backup", tmp_path / "b", "--data", tmp_path, code=os.EX_NOINPUT)
    assert list(tmp_path.iterdir()) == []
