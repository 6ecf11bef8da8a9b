"""Approvals: the gate that a job asks for, where it stands, and when it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from titan_proto.errors import InvalidSpec
from titan_proto.limits import GATE_MESSAGE_CHARS, GATE_TIMEOUT_MS_DEFAULT, JOB_ID_CHARS
from titan_proto.specs import GateExpiry, GateSection, JobKind, JobSpec, Launch
from titan_sdk import TitanClient, TitanGate, TitanJob
from titan_sdk.approvals import GATE_PREFIX, with_gates
from titan_sdk.findings import errors
from titan_sdk.pipeline import loads
from titan_sdk.staging import stage_jobs

ORIGINALS = """name: "Release"
project: false
jobs:
  - id: BUILD
    run: "make"
    hitl_message: "Ship it?"
    max_wait_seconds: 172800
  - id: SHIP
    run: "make ship"
    depends_on: [BUILD]
  - id: REPORT
    run: "make report"
    depends_on: [SHIP, BUILD]
"""


def read(body):
    return loads(body, path=Path("p.yaml"))


def shape(jobs):
    return {job.id: job.dependencies for job in jobs}


def test_a_pipeline_of_the_original_gets_its_gate_behind_the_job():
    """Who depended on the job depends on the gate instead; the gate alone depends on the job."""
    pipeline = read(ORIGINALS)
    assert errors(pipeline.findings) == []
    jobs = pipeline.spec(None, {}, {}).jobs
    assert shape(jobs) == {
        "BUILD": (),
        "hitl-gate-BUILD": ("BUILD",),
        "SHIP": ("hitl-gate-BUILD",),
        "REPORT": ("SHIP", "hitl-gate-BUILD"),
    }
    assert jobs[1].gate == GateSection(message="Ship it?")
    assert (jobs[1].kind, jobs[1].launch) == (JobKind.GATE, Launch())


def test_both_keys_of_the_original_are_reported_as_spellings_of_ours():
    said = [found.message for found in read(ORIGINALS).findings]
    assert '"hitl_message" is another spelling of "approval"' in said
    assert any(message.startswith('"max_wait_seconds" is another spelling of') for message in said)


@pytest.mark.parametrize(
    "keys",
    [
        "approval: {message: Go?, timeout: 90s}",
        "approval: Go?\n    max_wait_seconds: 90",
        "hitl_message: Go?\n    max_wait_seconds: 90",
        "max_wait_seconds: 1m30s\n    hitl_message: Go?",
    ],
)
def test_every_spelling_means_the_same_gate(keys):
    (job, gate) = read(f"name: p\njobs:\n  - id: A\n    run: a\n    {keys}\n").all_jobs()
    assert gate.gate == GateSection(message="Go?", timeout_ms=90_000)
    assert job.gate is None


def test_in_python_the_same_keys_make_the_same_gates():
    def expanded(**keys):
        job = TitanJob(id="A", run="a", **keys)
        return [spec for _, spec in with_gates([job.spec], {0: job.approval})]

    asked = GateSection(message="Go?", timeout_ms=90_000)
    for keys in (
        {"approval": {"message": "Go?", "timeout": "90s"}},
        {"approval": "Go?", "max_wait_seconds": 90},
        {"hitl_message": "Go?", "max_wait_seconds": 90},
    ):
        assert expanded(**keys)[1].gate == asked
    assert expanded(hitl_message="Go?")[1].gate.timeout_ms == GATE_TIMEOUT_MS_DEFAULT
    with pytest.raises(InvalidSpec, match="are the same key"):
        TitanJob(id="A", run="a", approval="Go?", hitl_message="Go?")
    with pytest.raises(InvalidSpec, match="no approval"):
        TitanJob(id="A", run="a", max_wait_seconds=90)


def test_a_gate_by_itself_in_python():
    gate = TitanGate("REVIEW", "Go?", dependencies=["A"], timeout="1h", on_timeout="fail")
    assert gate.spec == JobSpec(
        id="REVIEW",
        launch=Launch(),
        kind=JobKind.GATE,
        dependencies=("A",),
        gate=GateSection(message="Go?", timeout_ms=3_600_000, on_timeout=GateExpiry.FAIL),
    )
    assert (gate.script, repr(gate)) == (None, "TitanGate(id='REVIEW')")


def test_a_gate_is_staged_without_any_script(tmp_path):
    """Its empty launch is no script of an empty name."""
    jobs = [TitanJob(id="A", run="a").spec, TitanGate("OK", dependencies="A").spec]
    staged = stage_jobs(
        "n", jobs, folder=tmp_path, workspace=None, find=lambda names: {}, env_files={}
    )
    assert shape(staged.spec.jobs) == {"A": (), "OK": ("A",)}


def test_what_all_jobs_are_given_does_not_reach_a_gate():
    """Variables, skills and the tasks' timeout: a gate runs nothing; it keeps its own timeout."""
    pipeline = read(
        """name: p
env: {A: "1"}
defaults: {timeout: 5s, retries: 3, skills: [GPU], priority: 9}
jobs:
  - {id: A, run: a, approval: "Go?"}
  - {id: OK, type: APPROVAL, message: "Really?", dependencies: [A]}
"""
    )
    assert pipeline.findings == []
    pipeline.add_env({"B": "2"})
    _, behind, alone = pipeline.all_jobs()
    assert behind == JobSpec(
        id="hitl-gate-A",
        launch=Launch(),
        kind=JobKind.GATE,
        dependencies=("A",),
        gate=GateSection(message="Go?"),
    )
    assert alone == JobSpec(
        id="OK",
        launch=Launch(),
        kind=JobKind.GATE,
        dependencies=("hitl-gate-A",),
        gate=GateSection(message="Really?"),
    )


def test_a_gate_whose_name_is_taken_is_refused_at_its_place():
    body = (
        "name: p\njobs:\n  - {id: A, run: a, approval: Go?}\n  - {id: hitl-gate-A, run: b}\n"
        "  - {id: C, run: c, dependencies: [A]}\n"
    )
    (found,) = errors(read(body).findings)
    assert (found.code, found.place.line) == ("Y106", 3)
    assert "hitl-gate-A" in found.message
    jobs = [TitanJob(id="A", run="a", approval="Go?"), TitanJob(id="hitl-gate-A", run="b")]
    with pytest.raises(InvalidSpec, match="its gate would be called hitl-gate-A"):
        TitanClient("127.0.0.1:1").submit("n", jobs)


def test_an_id_that_leaves_no_room_for_its_gate_is_refused_and_says_how_long_it_may_be():
    most = JOB_ID_CHARS - len(GATE_PREFIX)
    fits = read(f"name: p\njobs: [{{id: {'A' * most}, run: a, approval: Go?}}]")
    assert fits.findings == []
    (found,) = errors(
        read(f"name: p\njobs: [{{id: {'A' * (most + 1)}, run: a, approval: Go?}}]").findings
    )
    assert str(most) in found.hint


def test_a_question_that_is_too_long_is_said_at_the_approval():
    body = (
        f"name: p\njobs:\n  - id: A\n    run: a\n    approval: {'x' * (GATE_MESSAGE_CHARS + 1)}\n"
    )
    (found,) = errors(read(body).findings)
    assert (found.place.line, "GATE_MESSAGE_CHARS" in found.message) == (5, True)


def test_problems_of_jobs_after_a_gate_are_said_of_the_right_ones():
    """The gate stands between them in the run, and not in the file."""
    body = (
        "name: p\njobs:\n  - {id: A, run: a, approval: Go?}\n"
        "  - {id: B, run: b, dependencies: [A]}\n"
        "  - {id: C, run: c, dependencies: [NONE]}\n  - {id: B, run: b}\n"
    )
    places = {(found.code, found.place.line) for found in errors(read(body).findings)}
    assert places == {("Y201", 5), ("Y203", 6)}


def test_two_jobs_of_one_name_that_ask_are_one_mistake():
    body = (
        "name: p\njobs:\n  - {id: A, run: a, approval: Go?}\n  - {id: A, run: b, approval: Go?}\n"
    )
    assert [found.code for found in errors(read(body).findings)] == ["Y203"]


def test_who_names_the_gate_itself_and_the_job_waits_for_the_gate_once():
    body = (
        "name: p\njobs:\n  - {id: A, run: a, approval: Go?}\n"
        "  - {id: B, run: b, dependencies: [A, hitl-gate-A]}\n"
    )
    pipeline = read(body)
    assert errors(pipeline.findings) == []
    assert pipeline.all_jobs()[2].dependencies == ("hitl-gate-A",)
