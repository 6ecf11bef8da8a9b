"""`titan plan`: waves, places and times, without anything being sent."""

from __future__ import annotations

import json

import pytest

from titan_proto.messages import ListWorkers, SubmitRun, WorkerDetail, WorkerList, WorkerView
from titan_proto.messages.placing import Room
from titan_proto.states import WorkerState
from titan_sdk.cli import main
from titan_sdk.cli.plan import waves_of
from titan_sdk.pipeline import loads

PIPELINE = """\
name: Nightly
schedule: "30 2 * * *"
jobs:
  - {id: A, run: a}
  - {id: A2, run: a}
  - {id: TRAIN, run: t, dependencies: [A], resources: {gpu: 1}}
  - {id: REVIEW, type: APPROVAL, message: "Ok?", dependencies: [TRAIN]}
  - {id: EVAL, run: e, dependencies: [TRAIN], affinity: {mode: require}}
  - {id: TPU, run: e, requirement: TPU}
  - {id: THERE, run: e, worker: "box:8081", dependencies: [EVAL, REVIEW]}
"""


@pytest.fixture
def planned(alone, capfdbinary):
    """Plan that pipeline: (exit code, stdout, stderr)."""
    (alone / "p.yaml").write_text(PIPELINE)

    def call(*args):
        with pytest.raises(SystemExit) as left:
            main(["plan", "p.yaml", *args])
        out, err = capfdbinary.readouterr()
        return left.value.code, out.decode(), err.decode()

    return call


def detail(port, used=0, **fields):
    view = WorkerView(
        worker_id=f"w{port}",
        host="box",
        port=port,
        state=WorkerState.ONLINE,
        slots=2,
        used=used,
        skills=("GENERAL",),
    )
    return WorkerDetail(worker=view, **fields)


def test_each_job_has_its_wave_and_would_go_somewhere_for_a_reason(planned, master):
    master.answers[ListWorkers] = WorkerList(
        workers=(detail(8080, used=1), detail(8081, resources={"gpu": Room(total=1)}))
    )
    code, out, _ = planned("-o", "json")
    assert code == 0
    body = json.loads(out)
    assert body["kind"] == "Plan"
    told = [[(one["job"], one["worker"], one["why"]) for one in wave] for wave in body["waves"]]
    assert told == [
        [
            ("A", "box:8081", "the least loaded of 2 that could have it"),
            ("A2", "box:8080", "the least loaded of 2 that could have it"),
            ("TPU", None, "waits for a worker: box:8080 lacks TPU; box:8081 lacks TPU"),
        ],
        [("TRAIN", "box:8081", "the only one that could have it")],
        [
            ("REVIEW", None, "a person decides"),
            ("EVAL", None, "beside TRAIN, as its affinity requires"),
        ],
        [("THERE", "box:8081", "the worker that it is for")],
    ]
    assert len(body["nextTimes"]) == 5
    assert body["workersKnown"] is True
    assert master.of(SubmitRun) == []


def test_a_cordoned_worker_is_nobodys_place(planned, master):
    master.answers[ListWorkers] = WorkerList(workers=(detail(8080, cordoned=True),))
    _, out, _ = planned()
    assert "A    waits for a worker: box:8080 is cordoned" in out


def test_without_a_master_it_says_the_rest(planned, monkeypatch):
    monkeypatch.setenv("TITAN_MASTER", "127.0.0.1:1")
    monkeypatch.setenv("TITAN_TOKEN", "titan_local_t1_" + "0" * 64)
    code, out, _ = planned()
    assert code == 0
    assert "Wave 4" in out
    assert "No master answered: where jobs would go is not known." in out
    assert "packs 1 file" in out
    assert "Next times (UTC)" in out


def test_a_pipeline_with_an_error_is_not_planned(alone, capfdbinary):
    (alone / "p.yaml").write_text("name: p\njobs:\n  - {id: A, run: a, affinity: {with: Z}}\n")
    with pytest.raises(SystemExit) as left:
        main(["plan", "p.yaml"])
    assert left.value.code == 2
    assert b"Y241" in capfdbinary.readouterr().err


def test_waves_are_as_few_as_can_be(tmp_path):
    jobs = loads(PIPELINE, path=tmp_path / "p.yaml").all_jobs()
    assert [[job.id for job in wave] for wave in waves_of(jobs)] == [
        ["A", "A2", "TPU"],
        ["TRAIN"],
        ["REVIEW", "EVAL"],
        ["THERE"],
    ]
