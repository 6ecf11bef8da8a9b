"""Which jobs of a pipeline begin, with real processes: what comes after failures, and after all others."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.conftest import Titan
from tests.harness.cluster import Cluster

MENDED = """name: Mended
project: false
jobs:
  - {{id: LOAD, run: "echo $TITAN_JOB_ID >> {ran}; test -e {repaired}"}}
  - {{id: NEEDS, run: "echo $TITAN_JOB_ID >> {ran}", dependencies: [LOAD]}}
  - {{id: MEND, run: "echo $TITAN_JOB_ID >> {ran}", dependencies: [LOAD], trigger: any_failed}}
  - {{id: REPORT, run: "echo $TITAN_JOB_ID >> {ran}", dependencies: [LOAD, MEND], trigger: all_done}}
on_failure: [{{id: TELL, run: "echo $TITAN_JOB_ID >> {ran}"}}]
on_success: [{{id: PRAISE, run: "echo $TITAN_JOB_ID >> {ran}"}}]
always: [{{id: TIDY, run: "echo $TITAN_JOB_ID >> {ran}"}}]
"""


def test_a_failure_is_handled_told_and_tidied_up_and_its_run_has_failed(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """And the repetition that goes well begins what it did not, and skips what it began."""
    cluster.start_worker()
    ran, repaired = tmp_path / "ran", tmp_path / "repaired"
    pipeline = tmp_path / "mended.yaml"
    pipeline.write_text(MENDED.format(ran=ran, repaired=repaired), encoding="utf-8")

    titan("run", str(pipeline), "--wait", code=1)
    assert sorted(ran.read_text().split()) == ["LOAD", "MEND", "REPORT", "TELL", "TIDY"]
    shown = titan("ps", "mended-1").stdout
    assert "a job before it did not succeed" in shown

    repaired.touch()
    ran.unlink()
    titan("retry", "mended-1", "--failed", "--wait")
    assert sorted(ran.read_text().split()) == ["LOAD", "NEEDS", "PRAISE", "REPORT", "TIDY"]
    items = json.loads(titan("ps", "mended-2", "-o", "json").stdout)["items"]
    skipped = {job["id"]: job["reason"] for job in items if job["state"] == "SKIPPED"}
    assert skipped == {"MEND": "TRIGGER_UNMET", "TELL": "TRIGGER_UNMET"}
    assert "nothing before it failed" in titan("show", "mended-2/MEND").stdout
