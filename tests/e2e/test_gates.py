"""Gates in a real cluster: people decide, nothing is taken up meanwhile, and nothing passes alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import Titan
from tests.harness.cluster import Cluster
from tests.harness.waiting import wait_until
from titan_sdk import TitanClient, TitanGate, TitanJob

GATES = 5
SLOTS = 4
SOON_S = 30.0

ORIGINALS = """name: Release
project: false
jobs:
  - id: BUILD
    run: "true"
    hitl_message: "Ship it?"
    max_wait_seconds: 172800
  - id: SHIP
    run: "echo shipped"
    depends_on: [BUILD]
"""


@pytest.fixture
def client(cluster: Cluster):
    with cluster.client() as made:
        yield made


def states(client: TitanClient, run: str) -> dict[str, str]:
    return {job.job_id: str(job.state) for job in client.jobs(run)}


@pytest.mark.timeout(150)
def test_five_open_gates_leave_every_slot_of_the_only_worker_to_others(
    cluster: Cluster, client: TitanClient
) -> None:
    """A gate that held a slot would let one of the four wait for ever: each waits for all others."""
    cluster.start_worker(slots=SLOTS)
    here = cluster.folder / "met"
    here.mkdir()
    gates = [
        job
        for n in range(GATES)
        for job in (
            TitanGate(f"ask{n}", f"May {n} go?"),
            TitanJob(id=f"after{n}", run="true", dependencies=f"ask{n}"),
        )
    ]
    waiting = client.submit("waiting", gates)
    wait_until(lambda: len(client.gates()) == GATES, within_s=SOON_S, what="five gates are open")
    meet = f'touch {here}/$0; while [ "$(ls {here} | wc -l)" -lt {SLOTS} ]; do sleep 0.05; done'
    others = client.submit(
        "others", [TitanJob(id=f"o{n}", command=["sh", "-c", meet, str(n)]) for n in range(SLOTS)]
    )
    assert others.wait(60) == "SUCCEEDED"
    assert [gate.job_id for gate in client.gates()] == [f"ask{n}" for n in range(GATES)]
    assert client.stats().waiting == GATES
    assert set(states(client, waiting.id).values()) == {"WAITING", "BLOCKED"}
    for n in range(GATES - 1):
        client.approve(f"{waiting.alias}/ask{n}")
    client.reject(f"ask{GATES - 1}", "not this one")
    assert waiting.wait(60) == "FAILED"
    ended = states(client, waiting.id)
    assert ended[f"after{GATES - 1}"] == "SKIPPED"
    assert [ended[f"after{n}"] for n in range(GATES - 1)] == ["SUCCEEDED"] * (GATES - 1)


@pytest.mark.timeout(150)
def test_a_pipeline_with_the_originals_keys_waits_for_a_person(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """From the file to the decision by command line, with the exit codes of the reference."""
    cluster.start_worker()
    path = tmp_path / "release.yaml"
    path.write_text(ORIGINALS, encoding="utf-8")
    assert "another spelling" in titan("validate", str(path)).stdout
    alias = titan("run", str(path)).stdout.strip()
    wait_until(
        lambda: "WAITING" in titan("ps", alias).stdout, within_s=SOON_S, what="the gate is open"
    )
    gate = f"{alias}/hitl-gate-BUILD"
    line = next(row for row in titan("ps", alias).stdout.splitlines() if "WAITING" in row)
    assert f"titan approve {gate}" in line
    assert "Ship it?" in line
    assert f"titan approve {gate}" in titan("show", gate).stdout
    assert "Waiting (approval)" in titan("stats").stdout
    (listed,) = json.loads(titan("gates", "-o", "json").stdout)["items"]
    assert (listed["message"], listed["decision"]) == ("Ship it?", None)
    assert gate in titan("approve", f"{alias}/SHIP", code=3).stderr
    titan("reject", gate, code=2)
    done = json.loads(titan("approve", gate, "-m", "looks right", "-o", "json").stdout)
    assert (done["decision"], done["comment"], bool(done["decidedBy"])) == (
        "APPROVED", "looks right", True,
    )  # fmt: skip
    assert "approved by" in titan("approve", "hitl-gate-BUILD").stderr
    assert "looks right" in titan("reject", gate, "-m", "too late", code=7).stderr
    wait_until(
        lambda: "ACTIVE" not in titan("ps", "-a").stdout, within_s=SOON_S, what="the run has ended"
    )
    assert titan("logs", f"{alias}/SHIP").stdout == "shipped\n"
    shown = titan("show", gate).stdout
    assert f"approved by {done['decidedBy']}: looks right" in shown
    titan("approve", gate)
    titan("reject", gate, "-m", "still", code=7)
    assert "no gate is open" in titan("approve", "nobody/OK", code=3).stderr


@pytest.mark.timeout(150)
def test_time_decides_where_nobody_does(cluster: Cluster, client: TitanClient) -> None:
    """Each as its on_timeout says."""
    cluster.start_worker()
    ends = ("reject", "fail", "approve")
    jobs = [
        job
        for end in ends
        for job in (
            TitanGate(end, "Anybody?", timeout="300ms", on_timeout=end),
            TitanJob(id=f"after-{end}", run="true", dependencies=end),
        )
    ]
    run = client.submit("late", jobs)
    assert run.wait(60) == "FAILED"
    views = {job.job_id: job for job in run.jobs()}
    assert {str(views[end].reason) for end in ends} == {"EXPIRED"}
    assert [str(views[end].state) for end in ends] == ["FAILED", "FAILED", "SUCCEEDED"]
    assert [str(views[f"after-{end}"].state) for end in ends] == ["SKIPPED", "SKIPPED", "SUCCEEDED"]
    assert "nobody decided within 0.3 s" in views["reject"].message


@pytest.mark.timeout(150)
def test_an_open_gate_survives_the_master(cluster: Cluster, client: TitanClient) -> None:
    """Killed while somebody waits: the gate is open still, its time runs on, and nothing passed."""
    cluster.start_worker()
    jobs = [
        TitanJob(id="a", run="true", approval="Go on?"),
        TitanJob(id="b", run="true", dependencies="a"),
        TitanGate("late", "Anybody?", timeout="2s", on_timeout="reject"),
    ]
    run = client.submit("kept", jobs)
    wait_until(lambda: len(client.gates()) == 2, within_s=SOON_S, what="both gates are open")
    before = {gate.job_id: gate for gate in client.gates()}
    assert cluster.master is not None
    cluster.master.kill()
    cluster.start_master()
    wait_until(lambda: len(client.gates()) == 1, within_s=SOON_S, what="the time of one is over")
    (still,) = client.gates()
    assert still == before["hitl-gate-a"]
    assert states(client, run.id)["b"] == "BLOCKED"
    view = client.approve(jobs[0], "go")
    assert (view.job_id, view.comment) == ("hitl-gate-a", "go")
    assert run.wait(60) == "FAILED"
    ended = states(client, run.id)
    assert (ended["b"], ended["late"]) == ("SUCCEEDED", "FAILED")
