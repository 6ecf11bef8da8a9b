"""TitanClient against a scripted master on a real socket."""

from __future__ import annotations

import gc
import io
import logging
import os
import re
import socket
import stat
import weakref
import zipfile

import msgspec
import pytest

from titan_proto.errors import ErrorCode
from titan_proto.ids import AttemptRef, slug
from titan_proto.messages import (
    Error,
    FilesFound,
    FindFiles,
    GetJob,
    GetRun,
    GetStats,
    JobChange,
    JobList,
    JobMilestone,
    JobView,
    ListJobs,
    LogData,
    LogStream,
    ReadLog,
    RunView,
    Stats,
    SubmitRun,
    WaitJob,
    WaitRun,
    WatchRun,
    WorkerView,
)
from titan_proto.specs import ArtifactFormat, ArtifactRef, JobKind, Needs, RunSpec, Terms
from titan_proto.states import ExitReason, JobState, RunState, WorkerState
from titan_sdk import (
    InvalidSpec,
    NoMaster,
    NotFound,
    PipelineError,
    Run,
    RunFailed,
    TitanClient,
    TitanGate,
    TitanJob,
)
from titan_sdk import client as client_module
from titan_sdk.errors import LinkLost, NoToken, Refused, Timeout

SNIPPET = """from titan_sdk import TitanClient, TitanJob

client = TitanClient()
job = TitanJob(id="TASK", filename="risky_script.py")

# 1. Submit initial task
client.submit("agent_run", [job])

# 2. "Think" Loop
logs = client.fetch_logs(job.id)
if "ERROR" in logs:
    print("[ERR] Failure detected. Deploying Fix...")
    
    # Dynamic: The Agent creates a NEW job based on the error
    fix_job = TitanJob(id="FIX", filename="healer.py")
    client.submit("agent_fix", [fix_job])
"""  # noqa: W293 - word for word from the manual


def job_view(**changes):
    view = {
        "run_id": "run0000000000001",
        "run_alias": "run-1",
        "job_id": "TASK",
        "kind": JobKind.TASK,
        "state": JobState.SUCCEEDED,
        "attempt": 1,
        "reason": ExitReason.EXITED,
        **changes,
    }
    return JobView(**view)


def run_view(state=RunState.SUCCEEDED, **changes):
    return RunView(
        run_id="run0000000000001",
        alias="run-1",
        name="run",
        state=state,
        submitted_at_ms=1,
        jobs=1,
        **changes,
    )


def stats(*workers, **changes):
    counts = {
        "runs_active": 0,
        "queued": 0,
        "blocked": 0,
        "delayed": 0,
        "running": 0,
        "services": 0,
        **changes,
    }
    return Stats(
        cluster_id="c",
        cluster_name="titan",
        term=1,
        at_ms=1,
        started_at_ms=1,
        workers=workers,
        **counts,
    )


def unpacked(master, ref):
    return zipfile.ZipFile(io.BytesIO(master.artifacts[ref.digest]))


# -- submitting -----------------------------------------------------------------------------------


def test_the_manuals_snippet(master, alone, capsys):
    (alone / "risky_script.py").write_text("print('ERROR')")
    (alone / "healer.py").write_text("")
    master.answers[GetJob] = job_view(state=JobState.RUNNING)
    master.answers[WaitJob] = job_view(stdout_bytes=6)
    master.answers[ReadLog] = [LogData(1, 1, 6, b"ERROR\n")]
    exec(compile(SNIPPET, "snippet", "exec"), {})
    assert capsys.readouterr().out == "[ERR] Failure detected. Deploying Fix...\n"
    first, second = master.of(SubmitRun)
    assert (first.spec.name, second.spec.name) == ("agent_run", "agent_fix")
    assert first.key != second.key
    (task,) = first.spec.jobs
    with unpacked(master, task.launch.artifact) as archive:
        (info,) = archive.infolist()
        assert (info.filename, archive.read(info)) == ("risky_script.py", b"print('ERROR')")
    assert task.launch.script == "risky_script.py"


def test_a_client_that_is_dropped_hangs_up(master):
    client = TitanClient()
    master.answers[GetStats] = stats()
    client.stats()
    gone = weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None


def test_the_child_of_a_fork_has_links_of_its_own(master, client):
    master.answers[GetStats] = stats()
    client.stats()
    # Nothing of the test runner may run in the child: it asks, tells by its exit code, and is gone.
    child = os.fork()
    if child == 0:
        try:
            client.stats()
            client.close()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - it must not return into pytest
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert master.links == 2
    client.stats()
    assert master.links == 2  # the child's hanging up did not touch the parent's


@pytest.mark.parametrize(
    ("name", "jobs", "words"),
    [
        (5, [], "a run's name is text, not 5"),
        ("x", "a.py", "expected TitanJob, not str: 'a.py'"),
        ("x", ["a.py"], "expected TitanJob, not str: 'a.py'"),
        ("x", None, "expected TitanJob, not NoneType: None"),
        ("x", [], "the run has no jobs"),
    ],
)
def test_what_is_no_run_is_refused_in_words(client, name, jobs, words):
    with pytest.raises(InvalidSpec, match=re.escape(words)):
        client.submit(name, jobs)


def test_a_lost_link_is_dialled_again_and_the_key_stays_the_same(master, client):
    master.answers[GetStats] = stats()
    client.stats()
    master.cut_before_answer = 2
    run = client.submit("r", TitanJob("A", run="true"))
    assert run.alias == "run-1"
    assert len({request.key for request in master.of(SubmitRun)}) == 1
    assert len(master.of(SubmitRun)) == 3


def test_patience_ends(master):
    with TitanClient(timeout=0.2) as client:
        master.cut_before_answer = 1000
        with pytest.raises(LinkLost):
            client.stats()


def test_bytes_that_the_master_has_are_not_sent_again(master, client, alone):
    (alone / "a.py").write_text("x")
    client.submit("one", TitanJob("A", "a.py"))
    links = master.links
    stored = dict(master.artifacts)
    client.submit("two", [TitanJob("A", "a.py"), TitanJob("B", "a.py")])
    assert master.artifacts == stored
    assert master.links == links
    digests = {job.launch.artifact.digest for job in master.of(SubmitRun)[1].spec.jobs}
    assert digests == set(stored)


def test_a_script_that_only_the_master_has_is_named(master, client):
    ref = ArtifactRef(
        digest="0" * 64, size_bytes=3, format=ArtifactFormat.FILE, name="scripts/x.py"
    )
    master.answers[FindFiles] = FilesFound(files=(ref,))
    client.submit("r", TitanJob("A", "scripts/x.py"))
    (job,) = master.of(SubmitRun)[0].spec.jobs
    assert (job.launch.script, job.launch.artifact) == ("scripts/x.py", ref)


def test_nothing_is_sent_when_anything_is_wrong(master, client):
    with pytest.raises(InvalidSpec) as raised:
        client.submit(
            "r",
            [
                TitanJob("A", "no.py"),
                TitanJob("B", run="b", dependencies="C"),
                TitanJob("A", run="a"),
            ],
        )
    assert [problem.code for problem in raised.value.problems] == ["Y110", "Y203", "Y201"]
    assert master.of(SubmitRun) == []
    assert master.artifacts == {}


def test_a_workspace_is_packed_once_for_all_jobs(master, client, tmp_path):
    folder = tmp_path / "project"
    (folder / "scripts").mkdir(parents=True)
    (folder / "scripts" / "a.py").write_text("a")
    (folder / "data.csv").write_text("1")
    client.submit("r", [TitanJob("A", "scripts/a.py"), TitanJob("B", run="ls")], workspace=folder)
    spec = master.of(SubmitRun)[0].spec
    assert [job.launch.artifact for job in spec.jobs] == [None, None]
    with unpacked(master, spec.workspace) as archive:
        assert archive.namelist() == ["data.csv", "scripts/a.py"]
        assert stat.S_IMODE(archive.getinfo("scripts/a.py").external_attr >> 16) == 0o755


def test_a_script_outside_the_workspace_is_refused(master, client, tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    (tmp_path / "up.py").write_text("")
    with pytest.raises(InvalidSpec, match="outside the workspace"):
        client.submit("r", TitanJob("A", "../up.py"), workspace=folder)
    assert master.of(SubmitRun) == []


def test_a_pipeline_file_packs_its_folder(master, client, tmp_path):
    folder = tmp_path / "etl"
    folder.mkdir()
    (folder / "p.yaml").write_text("name: Etl\njobs: [{id: A, script: ./a.py}]\n")
    (folder / "a.py").write_text("a")
    client.run_file(folder / "p.yaml", env={"STAGE": "test"})
    spec = master.of(SubmitRun)[0].spec
    assert (spec.name, spec.jobs[0].launch.script) == ("Etl", "a.py")
    assert spec.jobs[0].launch.env == {"STAGE": "test"}
    with unpacked(master, spec.workspace) as archive:
        assert archive.namelist() == ["a.py", "p.yaml"]


def test_project_false_packs_each_script_alone(master, client, tmp_path):
    (tmp_path / "p.yaml").write_text("name: p\nproject: false\njobs: [{id: A, file: a.py}]\n")
    (tmp_path / "a.py").write_text("a")
    client.run_file(tmp_path / "p.yaml")
    spec = master.of(SubmitRun)[0].spec
    assert spec.workspace is None
    with unpacked(master, spec.jobs[0].launch.artifact) as archive:
        assert archive.namelist() == ["a.py"]


def test_a_bad_pipeline_is_told_even_without_a_master(alone):
    (alone / "p.yaml").write_text(
        "name: p\njobs: [{id: A, scrpit: a.py}, {id: B, script: no.py}]\n"
    )
    with TitanClient("127.0.0.1:1") as client, pytest.raises(PipelineError):
        client.run_file("p.yaml")


def test_a_script_anywhere_runs_under_its_own_name(master, client, tmp_path):
    script = tmp_path / "my script (2).py"
    script.write_text("x")
    client.run_file(script, args=["--x", "1"])
    (job,) = master.of(SubmitRun)[0].spec.jobs
    assert (job.id, job.launch.script, job.launch.args) == (
        "my-script--2-",
        script.name,
        ("--x", "1"),
    )


def test_a_large_run_travels_as_an_artifact(master, client):
    run = client.submit("big", [TitanJob(f"j{n}", run="x" * 500) for n in range(3000)])
    (request,) = master.of(SubmitRun)
    assert request.spec is None
    spec = msgspec.msgpack.decode(master.artifacts[request.spec_digest], type=RunSpec)
    assert len(spec.jobs) == 3000
    assert run.alias == slug("run 1")


# -- waiting and logs -----------------------------------------------------------------------------


def test_wait_returns_the_state_and_raises_only_when_asked(master, client):
    run = client.submit("r", TitanJob("A", run="false"))
    master.answers[WaitRun] = run_view(RunState.FAILED)
    master.answers[ListJobs] = JobList(jobs=(job_view(state=JobState.FAILED, exit_code=3),))
    assert run.wait() == "FAILED"
    with pytest.raises(RunFailed, match=r"run-1 is FAILED: TASK failed \(exit 3\)"):
        run.wait(check=True)
    master.answers[WaitRun] = run_view(RunState.CANCELLED)
    assert run.wait() == "CANCELLED"
    with pytest.raises(RunFailed) as refused:
        run.wait(check=True)
    assert refused.value.state == "CANCELLED"
    master.answers[GetRun] = run_view(RunState.ACTIVE)
    assert run.status() == "ACTIVE"
    assert type(run.status()) is str
    assert client.run("@last").alias == "run-1"


def test_wait_times_out_and_the_client_goes_on(master, client):
    run = client.submit("r", TitanJob("A", run="sleep 9"))
    master.answers[WaitRun] = lambda request: None
    with pytest.raises(Timeout, match=r"had not ended after 0\.1 s"):
        run.wait(0.1)
    master.answers[GetRun] = run_view(RunState.ACTIVE)
    assert run.status() == "ACTIVE"


def test_a_wait_survives_a_lost_link(master, client):
    run = client.submit("r", TitanJob("A", run="a"))
    master.answers[WaitRun] = run_view()
    master.cut_before_answer = 1
    assert run.wait() == "SUCCEEDED"


def test_fetch_logs_waits_for_a_tasks_end_and_a_services_start(master, client):
    run = client.submit("r", TitanJob("TASK", run="a"))
    master.answers[ReadLog] = [LogData(1, 1, 2, b"a\n"), LogData(1, 2, 4, b"\xff\n")]
    master.answers[GetJob] = master.answers[WaitJob] = job_view()
    assert client.fetch_logs("TASK") == "a\n\ufffd\n"
    service = job_view(kind=JobKind.SERVICE, state=JobState.RUNNING)
    master.answers[GetJob] = master.answers[WaitJob] = service
    assert client.fetch_logs("TASK", run=run, stream="stderr")
    assert client.fetch_logs("run-1/TASK", wait=False)
    assert [request.until for request in master.of(WaitJob)] == [
        JobMilestone.ENDED,
        JobMilestone.STARTED,
    ]
    assert [request.stream for request in master.of(ReadLog)] == [
        LogStream.BOTH,
        LogStream.STDERR,
        LogStream.BOTH,
    ]
    assert [request.run for request in master.of(GetJob)] == [run.id, run.id, "run-1"]
    with pytest.raises(ValueError, match="stdout"):
        client.fetch_logs("TASK", stream="out")


def test_fetch_logs_reads_on_until_the_master_has_the_last_byte(master, client):
    """The end of a job is known before the last of its log has arrived."""
    client.submit("r", TitanJob("TASK", run="a"))
    master.answers[GetJob] = master.answers[WaitJob] = job_view(stdout_bytes=6)
    parts = iter([[LogData(1, 1, 3, b"abc")], [], [LogData(1, 1, 6, b"def")]])
    master.answers[ReadLog] = lambda request: next(parts)
    assert client.fetch_logs("TASK") == "abcdef"
    assert [request.position for request in master.of(ReadLog)] == [0, 3, 3]


def test_a_broken_read_resumes_where_it_stood(master, client):
    parts = iter([[LogData(2, 1, 3, b"abc"), "cut"], [LogData(2, 1, 6, b"def")]])
    master.answers[ReadLog] = lambda request: next(parts)
    assert (
        b"".join(piece.data for piece in client.read_log("run-1", "TASK", follow=True)) == b"abcdef"
    )
    assert [(r.attempt, r.position) for r in master.of(ReadLog)] == [(0, 0), (2, 3)]


@pytest.mark.parametrize(
    ("view", "cluster", "expected"),
    [
        ({"state": JobState.QUEUED}, stats(queued=1), "no worker is connected"),
        ({"state": JobState.BLOCKED, "waits_for": ("A", "B")}, stats(), "waits for A, B"),
        (
            {"state": JobState.QUEUED},
            stats(
                WorkerView(
                    worker_id="w",
                    host="h",
                    port=8080,
                    state=WorkerState.ONLINE,
                    slots=4,
                    used=0,
                    skills=("GENERAL",),
                )
            ),
            "no worker with skill GPU; up are h:8080 [GENERAL]",
        ),
        (
            {"state": JobState.QUEUED},
            stats(
                WorkerView(
                    worker_id="w",
                    host="h",
                    port=8080,
                    state=WorkerState.ONLINE,
                    slots=4,
                    used=4,
                    skills=("GPU",),
                ),
                queued=7,
            ),
            "all 4 slots are taken, 7 jobs wait",
        ),
        ({"state": JobState.PLACED, "worker": "h:8080"}, stats(), "PLACED on h:8080"),
        (
            {"state": JobState.SCHEDULED, "ready_at_ms": 1_782_900_000_000},
            stats(),
            "SCHEDULED, it begins at 2026-07-01 ",
        ),
    ],
    ids=["no worker", "blocked", "skill", "slots", "placed", "delay"],
)
def test_a_job_that_does_not_start_is_warned_of_once_with_the_reason(
    master, client, monkeypatch, caplog, view, cluster, expected
):
    monkeypatch.setattr(client_module, "WARN_AFTER_S", 0.1)
    client.submit("r", TitanJob("TASK", run="a", skills="GPU"))
    master.answers[GetJob] = job_view(**view, attempt=0)
    master.answers[GetStats] = cluster
    answers = iter(
        [None, job_view(state=JobState.CANCELLED, attempt=0, reason=ExitReason.CANCELLED)]
    )
    master.answers[WaitJob] = lambda request: next(answers)
    with caplog.at_level(logging.WARNING, "titan_sdk"):
        assert client.fetch_logs("TASK") == ""
    first, second = caplog.messages
    assert "has not started after 0.1 s" in first
    assert expected in first
    assert "never ran: CANCELLED" in second


def test_fetch_logs_times_out(master, client):
    client.submit("r", TitanJob("TASK", run="a"))
    master.answers[GetJob] = job_view(state=JobState.RUNNING)
    master.answers[WaitJob] = lambda request: None
    with pytest.raises(Timeout, match="had not ended"):
        client.fetch_logs("TASK", timeout=0.1)


def test_a_bare_job_id_needs_a_run_of_this_client(master, client):
    with pytest.raises(NotFound, match="run="):
        client.fetch_logs("TASK")


def test_the_lines_of_several_jobs_are_told_apart(master, client):
    run = client.submit("r", [TitanJob("A", run="a"), TitanJob("B", run="b")])
    master.answers[GetRun] = msgspec.structs.replace(run_view(), jobs=2)
    master.answers[ListJobs] = JobList(jobs=(job_view(job_id="A"), job_view(job_id="B")))
    master.answers[WatchRun] = [
        JobChange(run_id=run.id, at_ms=1, job_id="A", state=JobState.RUNNING, attempt=1),
        JobChange(run_id=run.id, at_ms=1, job_id="B", state=JobState.SUCCEEDED, attempt=1),
        JobChange(run_id=run.id, at_ms=1, job_id="A", state=JobState.SUCCEEDED, attempt=1),
        JobChange(run_id=run.id, at_ms=1, run_state=RunState.SUCCEEDED),
    ]
    master.answers[ReadLog] = lambda request: [
        LogData(1, 1, 4, f"{request.job}1\n{request.job}2".encode())
    ]
    assert sorted(run.logs(follow=True)) == ["A | A1", "A | A2", "B | B1", "B | B2"]
    assert run.logs() == "A | A1\nA | A2\nB | B1\nB | B2\n"
    assert list(run.logs("A", follow=True)) == ["A1", "A2"]
    assert len(master.of(WatchRun)) == 1


# -- finding the master ---------------------------------------------------------------------------


def test_nobody_there_is_told_with_the_next_step(alone):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(
        NoMaster, match=rf"No Titan master at {address}\. Start one here:  titan up"
    ):
        TitanClient(address).stats()


def test_a_master_without_a_token_is_another_error_than_none(master, monkeypatch):
    monkeypatch.delenv("TITAN_TOKEN")
    with pytest.raises(NoToken, match="TITAN_TOKEN"):
        TitanClient().stats()


def test_a_wrong_token_is_refused_with_the_masters_reason(master):
    with pytest.raises(Refused, match="no such token"):
        TitanClient(token="titan_local_other_" + "0" * 64).stats()


def test_what_the_master_refuses_comes_as_its_kind(master, client):
    master.answers[GetRun] = Error(code=ErrorCode.NOT_FOUND, message="no run is called x")
    with pytest.raises(NotFound, match="no run is called x"):
        client.run("x")
    assert isinstance(Run(client, "a", "b"), Run)


# -- who asks, and in which group ---------------------------------------------------------------------
def test_a_submission_out_of_a_job_says_whose_it_is(master, monkeypatch):
    monkeypatch.setenv("TITAN_RUN_ID", "r" * 16)
    monkeypatch.setenv("TITAN_JOB_ID", "parent")
    monkeypatch.setenv("TITAN_ATTEMPT", "3")
    with TitanClient() as client:
        client.submit("child", [TitanJob("a", run="true")])
        monkeypatch.delenv("TITAN_ATTEMPT")
        client.submit("orphan", [TitanJob("a", run="true")])
    first, second = master.of(SubmitRun)
    assert first.parent == AttemptRef("r" * 16, "parent", 3)
    assert second.parent is None


@pytest.mark.parametrize("given", ["nightly", {"group": "nightly", "limit": 1}])
def test_a_run_in_a_group_says_so_in_every_job_but_gates(master, given):
    jobs = [TitanJob("a", run="true", requirement="GPU"), TitanGate("g", dependencies=["a"])]
    with TitanClient() as client:
        client.submit("grouped", jobs, concurrency=given)
        with pytest.raises(InvalidSpec, match="names no group"):
            client.submit("grouped", jobs, concurrency={"limit": 2})
    (request,) = master.of(SubmitRun)
    first, second = request.spec.jobs
    assert first.needs == Needs(skills=("GPU",), terms=Terms(run_group="nightly", run_limit=1))
    assert second.needs == Needs()
