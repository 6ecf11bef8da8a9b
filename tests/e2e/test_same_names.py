"""Jobs whose scripts have one name never run each other's code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.cluster import Cluster
from titan_sdk import TitanJob

JOBS = 8
ROUNDS = 50


@pytest.mark.timeout(240)
def test_eight_scripts_of_one_name_each_run_their_own_code_fifty_times(
    cluster: Cluster, tmp_path: Path
) -> None:
    """At once on two workers of one folder, with another content in every round."""
    cluster.start_worker(8080)
    cluster.start_worker(8081)
    scripts = [tmp_path / str(number) / "task.sh" for number in range(JOBS)]
    for script in scripts:
        script.parent.mkdir()
    with cluster.client() as client:
        for turn in range(ROUNDS):
            for number, script in enumerate(scripts):
                script.write_text(f"echo job {number} of turn {turn}\n", encoding="utf-8")
            jobs = [TitanJob(f"j{number}", script) for number, script in enumerate(scripts)]
            run = client.submit(f"turn {turn}", jobs)
            assert run.wait(timeout=60) == "SUCCEEDED", cluster.logs()
            said = [run.logs(f"j{number}") for number in range(JOBS)]
            assert said == [f"job {number} of turn {turn}\n" for number in range(JOBS)]
