"""After an accident an operator reads the master's log, and it tells the whole story in order."""

from __future__ import annotations

import re
from pathlib import Path

from tests.harness.cluster import Cluster
from titan_sdk import TitanJob


def test_the_masters_log_tells_what_became_of_a_killed_worker_and_a_killed_master(
    tmp_path: Path,
) -> None:
    """Who was here, whose link broke, who was given up, which attempt was lost, where it ran again."""
    flag = tmp_path / "second"
    line = f'echo up; [ "$TITAN_ATTEMPT" = 1 ] && exec sleep 600; while [ ! -e {flag} ]; do sleep 0.05; done'
    with Cluster(tmp_path / "cluster", lost_after="2s") as cluster:
        cluster.start_master()
        victim = cluster.start_worker(8080)
        with cluster.client() as client:
            run = client.submit("story", [TitanJob(id="a", run=line)])
            next(iter(run.logs("a", follow=True)))
            victim.kill()
            cluster.start_worker(8081)
            while client.job("a", run=run.id).attempt != 2:
                assert cluster.master is not None
                assert cluster.master.process.poll() is None
            cluster.master.kill()
            cluster.start_master()
            flag.touch()
            assert run.wait(timeout=60) == "SUCCEEDED", cluster.logs()
    # Answers go out before lines are written: only now are all of them.
    log = (cluster.folder / "master.log").read_text()
    story = (
        r"MasterStarted term=1\n",
        r"worker link up link=\d+ worker=\S+:8080 worker_id=\S+ incarnation=1 peer=127\.0\.0\.1",
        r"WorkerJoined worker=\S+:8080 worker_id=\S+ incarnation=1 slots=4 skills=GENERAL\n",
        rf"RunAccepted run={run.alias} run_id={run.id} jobs=1 ",
        r"worker link down link=\d+ worker=\S+:8080 ",
        r"WorkerLost worker=\S+:8080 ",
        rf"AttemptEnded run={run.alias} worker=\S+:8080 job_id=a number=1 reason=LOST ",
        rf"JobQueuedAgain run={run.alias} job_id=a\n",
        rf"AttemptPlaced run={run.alias} worker=\S+:8081 job_id=a number=2 ",
        r"recovered records=\d+ term=2 runs=1 workers=2 services=0 attempts=1\n",
        r"MasterStarted term=2\n",
        r"worker link up link=\d+ worker=\S+:8081 ",
        rf"RunEnded run={run.alias} run_id={run.id} state=SUCCEEDED\n",
    )
    at = 0
    for line in story:
        found = re.compile(line).search(log, at)
        assert found is not None, f"nothing says {line!r} after:\n{log[:at]}\n-- but:\n{log[at:]}"
        at = found.end()
