"""The `titan` command: what it prints where, and its exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from titan_proto.errors import ErrorCode
from titan_proto.messages import (
    CancelRun,
    Cause,
    CauseKind,
    Error,
    ExplainJob,
    Explanation,
    GateView,
    GetJob,
    GetRun,
    GetStats,
    GetTraffic,
    JobChange,
    JobList,
    JobView,
    ListJobs,
    ListRuns,
    ListServices,
    LogData,
    ReadLog,
    RunList,
    RunView,
    Scaling,
    ScalingChange,
    ServiceList,
    ServiceView,
    SiblingView,
    SpawnView,
    Stats,
    StopService,
    SubmitRun,
    Traffic,
    WaitRun,
    WatchRun,
    WorkerReason,
    WorkerView,
)
from titan_proto.specs import JobKind, Resources
from titan_proto.states import (
    ExitReason,
    JobState,
    RunState,
    ScalingKind,
    ServiceState,
    WorkerState,
)
from titan_sdk.cli import COMMANDS, context, main, render, stalls, titan
from titan_sdk.cli.failures import exit_code, report
from titan_sdk.cli.progress import Progress, tree_of
from titan_sdk.cli.sanitize import Cleaner, clean
from titan_sdk.errors import NoMaster, Timeout

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def run(capfdbinary):
    """Run a command in this process: (exit code, stdout, stderr)."""

    def call(*args):
        with pytest.raises(SystemExit) as left:
            main(list(args))
        out, err = capfdbinary.readouterr()
        return left.value.code, out.decode(), err.decode()

    return call


def run_view(state=RunState.ACTIVE, **changes):
    given = {"jobs": 1, "counts": {"RUNNING": 1}, "submitted_at_ms": 1_700_000_000_000, **changes}
    return RunView(run_id="run0000000000001", alias="run-1", name="Run", state=state, **given)


def job_view(**changes):
    given = {"state": JobState.SUCCEEDED, "attempt": 1, "reason": ExitReason.EXITED, **changes}
    return JobView(
        run_id="run0000000000001",
        run_alias="run-1",
        **{"job_id": "A", "kind": JobKind.TASK, **given},
    )


def service_view(state=ServiceState.HEALTHY, **changes):
    return ServiceView(
        name="Run/API",
        run_id="run0000000000001",
        run_alias="run-1",
        job_id="API",
        attempt=1,
        state=state,
        port=8080,
        **changes,
    )


def worker(port, host="vm", **changes):
    given = {"slots": 4, "used": 0, "skills": ("GENERAL",), "state": WorkerState.ONLINE, **changes}
    return WorkerView(worker_id=f"w{port}{host}", host=host, port=port, **given)


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


# -- the screen of the manual ---------------------------------------------------------------------


def test_the_stats_screen_of_the_manual():
    view = stats(
        worker(8080, used=2, services=("DAG-JOB_SPAWN", "DAG-step-4-server")),
        worker(8081),
        worker(8082, state=WorkerState.RETIRED),
        blocked=1,
    )
    assert render.stats_screen(view, symbols=True) == (
        "--- TITAN SYSTEM MONITOR ---\n"
        "Active Workers:    2\n"
        "Execution Queue:   0 jobs\n"
        "Blocked (DAG):     1 jobs\n"
        "-------------------------------\n"
        "Worker Status:\n"
        " • [8080] Load: 2/4 (50%)    | Skills: [GENERAL]\n"
        "    └── ⚙️ Service ID: DAG-JOB_SPAWN\n"
        "    └── ⚙️ Service ID: DAG-step-4-server\n"
        " • [8081] Load: 0/4 (0%)     | Skills: [GENERAL]"
    )


def scaling(**fields):
    plain = {"on": True, "every_ms": 1, "idle_ms": 1, "per_host": 4, "total": 64}
    return Scaling(**(plain | {"slots_per_core": 4} | fields))


def sibling(port, parent, **fields):
    return SiblingView(
        worker_id=worker(port, "host").worker_id,
        worker=f"host:{port}",
        number=port,
        parent_id=worker(parent, "host").worker_id,
        parent=f"host:{parent}",
        **fields,
    )


def test_a_spawned_worker_stands_under_the_one_that_spawned_it():
    view = stats(
        worker(8080, "host", services=("api",)),
        *(worker(port, "host") for port in (8081, 8082, 8083)),
    )
    told = scaling(
        siblings=(
            sibling(8081, 8080, cause="9 jobs wait for GENERAL"),
            sibling(8082, 8080, cause="asked for by hand", by_hand=True),
            sibling(8083, 9999, cause="3 jobs wait for GENERAL", dismissed=True),
        ),
        asked=(
            SpawnView(number=9, parent="host:8080", port=8084, asked_at_ms=1, cause="2 jobs wait"),
        ),
    )
    lines = render.stats_screen(view, symbols=True, scaling=told).splitlines()[5:]
    assert lines == [
        "Worker Status:",
        " • [8080] Load: 0/4 (0%)     | Skills: [GENERAL]",
        "    └── ⚙️ Service ID: api",
        "    └── [8084] is being spawned: 2 jobs wait",
        "     • [8081] Load: 0/4 (0%)     | Skills: [GENERAL] | spawned: 9 jobs wait for GENERAL",
        "     • [8082] Load: 0/4 (0%)     | Skills: [GENERAL] | spawned: asked for by hand",
        (
            " • [8083] Load: 0/4 (0%)     | Skills: [GENERAL] | spawned by host:9999: 3 jobs wait for "
            "GENERAL, told to leave: it was idle"
        ),
    ]


def test_what_was_spawned_and_why_is_json_too():
    told = scaling(
        siblings=(sibling(8081, 8080, cause="9 jobs wait"),),
        recent=(ScalingChange(at_ms=1, number=7, kind=ScalingKind.DISMISSED, cause="it was idle"),),
    )
    found = render.scaling_json(told)
    assert found["spawned"][0]["parent"] == "host:8080"
    assert found["recent"][0] | {"at": ""} == {
        "at": "", "number": 7, "what": "DISMISSED", "parent": "", "worker": "", "cause": "it was idle",
    }  # fmt: skip


def test_further_lines_come_only_when_they_say_something_and_hosts_where_ports_meet():
    view = stats(
        worker(8080, host="b"),
        worker(8080, host="a", state=WorkerState.SILENT),
        running=2,
        delayed=3,
    )
    assert render.stats_screen(view, symbols=False).splitlines() == [
        "--- TITAN SYSTEM MONITOR ---",
        "Active Workers:    1",
        "Execution Queue:   0 jobs",
        "Running:           2 jobs",
        "Delayed:           3 jobs",
        "Blocked (DAG):     0 jobs",
        "-------------------------------",
        "Worker Status:",
        " * [a:8080] Load: 0/4 (0%)     | Skills: [GENERAL] | SILENT, last seen 0.0s ago",
        " * [b:8080] Load: 0/4 (0%)     | Skills: [GENERAL]",
    ]


def test_a_worker_whose_link_is_down_is_not_shown_as_if_nothing_were():
    view = stats(worker(8080, link_down_ms=3_000), worker(8081, state=WorkerState.DRAINING))
    assert render.stats_screen(view, symbols=False).splitlines()[-2:] == [
        " * [8080] Load: 0/4 (0%)     | Skills: [GENERAL] | ONLINE, link down 3.0s",
        " * [8081] Load: 0/4 (0%)     | Skills: [GENERAL] | DRAINING",
    ]


def test_a_narrow_terminal_drops_columns_and_says_which():
    table = render.Table(("A", "B", "C"), ("B", "C"))
    table.add("a" * 10, "b" * 10, "c" * 10)
    look = render.Look(symbols=False, color=False)
    assert table.text(look, None)[1] == []
    assert table.text(look, 25) == (f"A           C\n{'a' * 10}  {'c' * 10}", ["B"])


def test_a_state_is_a_word_and_a_symbol():
    assert render.Look(symbols=True, color=False).state(JobState.FAILED) == "✕ FAILED"
    assert render.Look(symbols=False, color=False).state(JobState.FAILED) == "x FAILED"
    assert (
        render.Look(symbols=False, color=True).state(JobState.FAILED) == "\x1b[31mx FAILED\x1b[0m"
    )
    for state in (*JobState, *RunState, *ServiceState, *WorkerState):
        assert state.value in render.SYMBOLS or state.value == "UNKNOWN"


@pytest.mark.parametrize(
    ("choice", "environ", "terminal", "expected"),
    [
        ("auto", {}, True, True),
        ("auto", {}, False, False),
        ("auto", {"NO_COLOR": "1"}, True, False),
        ("auto", {"NO_COLOR": ""}, True, True),
        ("auto", {"TERM": "dumb"}, True, False),
        ("auto", {"FORCE_COLOR": "1"}, False, True),
        ("always", {"NO_COLOR": "1"}, False, True),
        ("never", {"FORCE_COLOR": "1"}, True, False),
    ],
)
def test_colour(choice, environ, terminal, expected):
    assert context.has_color(choice, terminal=terminal, environ=environ) is expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.84, "0.8s"), (14, "14.0s"), (64, "1m 04s"), (7500, "2h 05m"), (273_600, "3d 04h")],
)
def test_durations_read_well(seconds, expected):
    assert render.duration(seconds) == expected


# -- hostile output -------------------------------------------------------------------------------

HOSTILE = "a\x1b[31mb\x1b]0;title\x07c\x1b]52;c;Zm9v\x1b\\d\x9b2Je\x1bcf\x07\x08g\r\nh\ri\x1b[?1049hj\tk ü\x1bP1$q\x1b\\l\n"
PLAIN = "abcdefg\nh\nij\tk ül\n"


def test_control_sequences_are_taken_out_wherever_the_bytes_are_cut():
    data = HOSTILE.encode()
    assert clean(HOSTILE) == PLAIN
    for cut in range(len(data) + 1):
        cleaner = Cleaner()
        assert cleaner.feed(data[:cut]) + cleaner.feed(data[cut:]) + cleaner.finish() == PLAIN, cut
    cleaner = Cleaner()
    assert (
        "".join(cleaner.feed(data[n : n + 1]) for n in range(len(data))) + cleaner.finish() == PLAIN
    )


# -- without a master -----------------------------------------------------------------------------


def test_every_command_has_help_with_an_example(run):
    for name, (_, line) in COMMANDS.items():
        code, out, _ = run(name, "--help")
        assert code == 0
        command = titan.get_command(None, name)
        assert command is not None
        verbs = list(getattr(command, "commands", {}))
        assert verbs or re.search(rf"Examples?:\n +titan {name}", out), name
        for verb in verbs:
            code, out, _ = run(name, verb, "--help")
            assert code == 0
            assert re.search(rf"Examples?:\n +titan {name} {verb}", out), verb
        assert line.endswith(".")
    code, out, _ = run("--help")
    assert code == 0
    assert all(f"  {name} " in out for name in COMMANDS)


def test_version(run):
    assert run("--version") == (0, "titan, version 0.2.0\n", "")


def environment():
    """So that another process finds the packages that this one has."""
    paths = os.pathsep.join(str(Path(path).resolve()) for path in sys.path if path)
    return {**os.environ, "PYTHONPATH": paths}


def test_version_loads_nothing_heavy():
    program = (
        "import sys, titan_sdk.cli as cli\n"
        "try: cli.main(['--version'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'yaml', 'msgspec', 'socket', 'json', 'titan_proto'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=environment(),
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["stat"], 2, "Did you mean 'stats'?"),
        (["stats", "--outptu", "json"], 2, "--output"),
        (["stats", "-o", "jsn"], 2, "Did you mean 'json'?"),
        (["run"], 2, "Missing argument 'FILE'"),
        (["run", "no.yaml"], 2, "no.yaml: there is no such file"),
        (["run", "."], 2, "is a folder"),
        (["run", ""], 2, "FILE is empty"),
        (["run", "x.py", "--env", "A"], 2, "KEY=VALUE"),
        (["run", "x.py", "--timeout", "1s"], 2, "--timeout goes with --wait"),
        (["run", "x.py", "--wait", "--timeout", "soon"], 2, "no duration"),
        (["validate", "no.yaml"], 2, "No such file"),
        (["--master", "a:b", "stats"], 2, "is no address"),
        (["--master", "127.0.0.1:1", "stats"], 5, "Start one here:  titan up"),
        (["--master", "127.0.0.1:1", "run", "x.py"], 5, "No Titan master at 127.0.0.1:1"),
        (["master", "nothing"], 2, "titan master"),
        (["down"], 0, "Nothing is up"),
    ],
)
def test_what_needs_no_master(run, args, code, words):
    got, out, err = run(*args)
    assert (got, out) == (code, "")
    assert words in err
    assert "Traceback" not in err


def test_a_file_that_cannot_be_read_is_an_item_of_the_list(run, alone):
    (alone / "folder.yaml").mkdir()
    (alone / "good.yaml").write_text("name: p\njobs: [{id: A, run: a}]\n")
    code, out, err = run("validate", "no.yaml", "folder.yaml", "good.yaml", "-o", "json")
    assert (code, err) == (2, "")
    items = json.loads(out)["items"]
    assert [(one["file"], one["valid"]) for one in items] == [
        ("no.yaml", False),
        ("folder.yaml", False),
        ("good.yaml", True),
    ]
    assert set(items[0]) == set(items[2])
    (finding,) = items[0]["findings"]
    assert (finding["code"], finding["line"]) == ("Y100", None)
    assert "No such file" in finding["message"]


def test_a_folder_that_cannot_be_packed_is_an_error_before_it_is_sent(run, alone, monkeypatch):
    (alone / "p.yaml").write_text("name: p\njobs: [{id: A, run: a}]\n")
    (alone / "large").write_bytes(b"x" * 2000)
    monkeypatch.setattr("titan_sdk.packaging.WORKSPACE_BYTES", 1000)
    code, out, _ = run("validate", "p.yaml")
    assert code == 2
    assert "p.yaml:1:1: error[Y111]" in out
    assert "large" in out
    code, out, _ = run("validate", "p.yaml", "-o", "json")
    assert (code, json.loads(out)["items"][0]["valid"]) == (2, False)


def test_a_pipeline_that_cannot_be_opened_is_a_wrong_argument(run, master, alone, monkeypatch):
    (alone / "p.yaml").write_text("")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", "p.yaml")

    monkeypatch.setattr("titan_sdk.pipeline.load", refuse)
    code, _, err = run("run", "p.yaml")
    assert (code, err) == (2, "error: p.yaml: Permission denied\n")


def test_no_name_in_an_error_can_drive_the_terminal(run, master, alone, monkeypatch):
    # As on a terminal; elsewhere click takes sequences out by itself.
    monkeypatch.setattr("click.utils.should_strip_ansi", lambda *given: False)
    code, _, err = run("run", "\x1b[2Jx.py")
    assert code == 2
    assert "\x1b" not in err
    (alone / "p.yaml").write_text('name: p\njobs: [{id: A, run: a, "k\\e[2J": 1}]\n')
    _, out, _ = run("validate", "p.yaml")
    assert "\x1b" not in out
    _, _, err = run("run", "p.yaml")
    assert "\x1b" not in err


def test_a_full_disk_is_told_in_words(capsys):
    assert report(OSError(28, "No space left on device"), []) == 1
    assert capsys.readouterr().err == "error: No space left on device\n"


def test_debug_shows_where(run):
    code, _, err = run("--debug", "--master", "127.0.0.1:1", "stats")
    assert code == 5
    assert "Traceback" in err


def test_an_error_can_be_json(run, monkeypatch):
    for args in (["stats", "-o", "json"], ["stats"]):
        code, out, err = run("--master", "127.0.0.1:1", *args)
        monkeypatch.setenv("TITAN_FORMAT", "json")
        assert (code, out) == (5, "")
        said = json.loads(err)
        assert (said["kind"], said["error"]["exitCode"]) == ("Error", 5)


def test_exit_codes_of_errors():
    assert exit_code(NoMaster("a:1", local=True)) == 5
    assert exit_code(Timeout("x")) == 6
    assert exit_code(ValueError("x")) == 1


def test_validate_says_everything_and_exits_2(run, alone):
    (alone / "good.yaml").write_text("name: p\njobs: [{id: A, run: a}]\n")
    (alone / "bad.yaml").write_text("name: p\njobs: [{id: A, run: a, secrets: 5}]\n")
    code, out, _ = run("validate", "good.yaml")
    assert (code, out) == (0, f"good.yaml: ok; 1 job, packs 2 files of {Path()} (0 KiB)\n")
    code, out, _ = run("validate", "good.yaml", "bad.yaml")
    assert code == 2
    assert "bad.yaml:2:24: error[Y104]" in out
    code, out, _ = run("validate", "bad.yaml", "-o", "json")
    (item,) = json.loads(out)["items"]
    assert (item["valid"], item["findings"][0]["line"], item["findings"][0]["column"]) == (
        False,
        2,
        24,
    )
    (alone / "warn.yaml").write_text("name: p\njobs: [{id: A, script: a.py}]\n")
    code, out, _ = run("--master", "127.0.0.1:1", "validate", "warn.yaml")
    assert code == 0
    assert "warning[Y110]" in out


# -- with one -------------------------------------------------------------------------------------


def test_run_prints_the_alias_alone_on_stdout(run, master, alone):
    (alone / "a.py").write_text("")
    master.answers[GetRun] = run_view()
    assert run("run", "a.py", "--name", "mine", "--env", "A=b=c", "x", "--", "-y") == (
        0,
        "run-1\n",
        "",
    )
    spec = master.of(SubmitRun)[0].spec
    assert spec.name == "mine"
    assert spec.jobs[0].launch.env == {"A": "b=c"}
    assert spec.jobs[0].launch.args == ("x", "-y")


def test_follow_prints_the_logs_on_stdout_and_the_alias_on_stderr(run, master, alone):
    (alone / "a.py").write_text("")
    master.answers |= {
        ListJobs: JobList(jobs=(job_view(),)),
        WatchRun: [
            JobChange(run_id="r", at_ms=1, job_id="A", state=JobState.RUNNING, attempt=1),
            JobChange(run_id="r", at_ms=2, run_state=RunState.SUCCEEDED),
        ],
        ReadLog: [LogData(1, 1, 5, b"one\ntwo")],
        GetRun: run_view(),
        WaitRun: run_view(RunState.SUCCEEDED, ended_at_ms=1_700_000_001_000),
    }
    assert run("run", "a.py", "--follow") == (0, "one\ntwo", "run-1\nRun run-1 SUCCEEDED in 1.0s\n")
    code, out, _ = run("run", "a.py", "--follow", "-o", "json")
    assert code == 0
    said = [json.loads(line) for line in out.splitlines()]
    assert [one["kind"] for one in said] == ["LogLine", "LogLine", "Run"]
    assert said[0] == {
        "apiVersion": "titan/v1",
        "kind": "LogLine",
        "run": "run0000000000001",
        "runAlias": "run-1",
        "job": "A",
        "attempt": 1,
        "stream": "stdout",
        "offset": 0,
        "at": None,
        "dropped": 0,
        "text": "one",
    }


def test_a_line_of_json_has_the_same_fields_wherever_it_is_followed(run, master):
    master.answers |= {
        GetJob: lambda request: (
            job_view(job_id=request.job)
            if request.run
            else Error(code=ErrorCode.NOT_FOUND, message="no")
        ),
        GetRun: run_view(jobs=2),
        ListJobs: JobList(jobs=(job_view(), job_view(job_id="B"))),
        WatchRun: [
            JobChange(run_id="r", at_ms=1, job_id="A", state=JobState.RUNNING, attempt=1),
            JobChange(run_id="r", at_ms=2, run_state=RunState.SUCCEEDED),
        ],
        ReadLog: [LogData(1, 1, 2, b"o"), LogData(1, 2, 4, b"e\n"), LogData(1, 1, 8, b"ut\n")],
    }
    _, of_the_run, _ = run("logs", "run-1", "-f", "-o", "json")
    _, of_the_job, _ = run("logs", "run-1/A", "-f", "-o", "json")
    assert of_the_run == of_the_job
    said = [json.loads(line) for line in of_the_job.splitlines()]
    assert [(one["stream"], one["text"]) for one in said] == [("stderr", "e"), ("stdout", "out")]


def test_the_logs_of_a_run_as_json_are_one_value_and_follow_nothing(run, master):
    jobs = (
        job_view(),
        job_view(job_id="WEB", kind=JobKind.SERVICE),
        job_view(job_id="C", state=JobState.BLOCKED, attempt=0),
    )
    master.answers |= {
        GetJob: Error(code=ErrorCode.NOT_FOUND, message="no"),
        GetRun: run_view(jobs=3),
        ListJobs: JobList(jobs=jobs),
        ReadLog: [LogData(1, 1, 5, b"text\n")],
    }
    code, out, _ = run("logs", "run-1", "-o", "json")
    assert code == 0
    assert not any(request.follow for request in master.of(ReadLog))
    said = json.loads(out)
    assert (said["kind"], said["run"], said["runAlias"]) == (
        "LogList",
        "run0000000000001",
        "run-1",
    )
    assert said["items"] == [
        {"job": "A", "attempt": 1, "text": "text\n"},
        {"job": "WEB", "attempt": 1, "text": "text\n"},
    ]


def test_what_has_not_run_is_an_empty_log_in_json(run, master):
    master.answers[GetJob] = job_view(state=JobState.BLOCKED, attempt=0)
    code, out, _ = run("logs", "run-1/A", "-o", "json")
    assert code == 0
    said = json.loads(out)
    assert (said["kind"], said["attempt"], said["text"]) == ("Log", None, "")


def test_follow_ends_with_the_run_though_a_service_stays_up(run, master, alone):
    (alone / "a.py").write_text("")
    service = job_view(job_id="WEB", kind=JobKind.SERVICE)
    told = threading.Event()

    def read(request):
        # A service's log does not end while it is up: the link stays silent after what there is.
        told.set()
        return [LogData(1, 1, 5, b"up\n"), "wait"]

    master.answers |= {
        ListJobs: JobList(jobs=(service,)),
        WatchRun: [
            JobChange(run_id="r", at_ms=1, job_id="WEB", state=JobState.SUCCEEDED, attempt=1),
            JobChange(run_id="r", at_ms=2, run_state=RunState.SUCCEEDED),
        ],
        ReadLog: read,
        GetRun: run_view(),
        WaitRun: run_view(RunState.SUCCEEDED, ended_at_ms=1_700_000_001_000),
    }
    code, out, err = run("run", "a.py", "--follow")
    assert told.is_set()
    assert (code, out) == (0, "up\n")
    assert "SUCCEEDED" in err


def test_what_was_followed_is_not_said_again(run, master, alone):
    (alone / "a.py").write_text("")
    master.answers |= {
        ListJobs: JobList(jobs=(job_view(state=JobState.FAILED, exit_code=3),)),
        WatchRun: [
            JobChange(run_id="r", at_ms=1, job_id="A", state=JobState.FAILED, attempt=1),
            JobChange(run_id="r", at_ms=2, run_state=RunState.FAILED),
        ],
        ReadLog: [LogData(1, 1, 5, b"boom\n")],
        GetRun: run_view(),
        WaitRun: run_view(RunState.FAILED, ended_at_ms=1_700_000_001_000),
    }
    code, out, err = run("run", "a.py", "--follow")
    assert (code, out) == (1, "boom\n")
    assert "A failed: exit 3\n" in err
    assert "boom" not in err


def test_a_service_is_shown_under_its_own_name(run, master):
    nothing = Error(code=ErrorCode.NOT_FOUND, message="no")
    master.answers |= dict.fromkeys((GetRun, GetJob, ListJobs), nothing)
    master.answers |= {
        ListRuns: RunList(runs=(run_view(),)),
        ListServices: ServiceList(services=(service_view(),)),
        GetStats: stats(),
    }
    code, out, _ = run("show", "Run/API", "-o", "json")
    assert code == 0
    assert (json.loads(out)["kind"], json.loads(out)["name"]) == ("Service", "Run/API")
    assert "titan stop Run/API" in run("show", "Run/API")[1]
    code, _, err = run("show", "Run/AIP")
    assert code == 3
    assert "did you mean Run/API?" in err


def test_a_service_that_is_up_says_so_beside_its_job(run, master):
    job = job_view(job_id="API", kind=JobKind.SERVICE, reason=ExitReason.UNKNOWN, port=8080)
    master.answers |= {GetJob: job, ListServices: ServiceList(services=(service_view(),))}
    _, out, _ = run("show", "run-1/API")
    assert re.search(r"^Service: +. HEALTHY, Run/API$", out, re.MULTILINE)
    # How much it has printed is known when it has ended.
    assert "Printed" not in out
    assert "Printed" in run_show_ended(run, master)


def test_a_service_that_has_ended_says_why(run, master):
    at_ms = 1_700_000_001_000
    how = {"ended_at_ms": at_ms, "reason": ExitReason.EXITED}
    failed = service_view(ServiceState.FAILED, **how, exit_code=3, message="out of memory")
    job = job_view(job_id="API", kind=JobKind.SERVICE, reason=ExitReason.UNKNOWN, port=8080)
    master.answers |= {
        GetJob: job,
        ListRuns: RunList(runs=()),
        ListServices: lambda request: ServiceList(services=(failed,) if request.ended else ()),
    }
    _, out, _ = run("show", "run-1/API")
    assert re.search(r"^Service: +. FAILED, Run/API, exit 3: out of memory$", out, re.MULTILINE), (
        out
    )
    _, out, _ = run("ps", "-a")
    assert re.search(r"Run/API +. FAILED .*exit 3: out of memory", out), out
    (one,) = json.loads(run("ps", "-a", "-o", "json")[1])["services"]
    assert (one["state"], one["exitCode"], one["message"]) == ("FAILED", 3, "out of memory")
    assert "Nothing runs" in run("ps")[2]


def test_the_last_words_of_a_service_break_no_table(run, master):
    """They are in what its end is told with, line by line."""
    how = {"ended_at_ms": 1_700_000_001_000, "reason": ExitReason.CRASH_LOOP}
    failed = service_view(ServiceState.FAILED, **how, message="it ended again\noh no\nno space")
    job = job_view(
        job_id="API", state=JobState.FAILED, reason=ExitReason.CRASH_LOOP, message="x\noh no"
    )
    master.answers |= {
        GetRun: run_view(RunState.FAILED),
        ListJobs: JobList(jobs=(job,)),
        ListServices: ServiceList(services=(failed,)),
    }
    for words in (("service", "ls", "-a"), ("ps", "run-1")):
        _, out, _ = run(*words)
        assert "ended again and again: " in out
        assert "oh no" not in out
    (one,) = json.loads(run("service", "ls", "-a", "-o", "json")[1])["items"]
    assert one["message"] == "it ended again\noh no\nno space"


def run_show_ended(run, master):
    master.answers[GetJob] = job_view(stdout_bytes=7)
    return run("show", "run-1/A")[1]


def test_a_worker_shows_what_its_machine_does(run, master):
    nothing = Error(code=ErrorCode.NOT_FOUND, message="no")
    master.answers |= dict.fromkeys((GetRun, GetJob), nothing)
    busy = worker(8080, cpu_permille=125, memory_used_bytes=3 << 30, memory_total_bytes=8 << 30)
    master.answers |= {ListServices: ServiceList(services=()), GetStats: stats(busy)}
    _, out, _ = run("show", "8080")
    assert re.search(r"^CPU: +12.5 %$", out, re.MULTILINE)
    assert re.search(r"^Memory: +3.0 of 8.0 GiB$", out, re.MULTILINE)


def test_waiting_too_long_names_the_run_as_it_was_printed(run, master, alone):
    (alone / "a.py").write_text("")
    master.answers |= {
        WaitRun: lambda request: None,
        WatchRun: [],
        ListJobs: JobList(jobs=(job_view(),)),
    }
    _, _, err = run("run", "a.py", "--wait", "--timeout", "0.1")
    assert "error: run run-1 had not ended after 0.1 s\n" in err
    assert "  try:  titan ps   (it goes on)\n" in err


def test_run_refuses_a_bad_pipeline_before_anything_is_sent(run, master, alone):
    (alone / "p.yaml").write_text("name: p\njobs: [{id: A, scrpit: a}]\n")
    code, out, err = run("run", "p.yaml")
    assert (code, out) == (2, "")
    assert err.startswith("p.yaml:2:16: error[Y103]")
    assert master.requests == []


@pytest.mark.parametrize(
    ("state", "code"), [(RunState.SUCCEEDED, 0), (RunState.FAILED, 1), (RunState.CANCELLED, 8)]
)
def test_wait_leaves_with_the_runs_code(run, master, alone, state, code):
    (alone / "a.py").write_text("")
    failed = job_view(state=JobState.FAILED, exit_code=3)
    master.answers |= {
        WaitRun: run_view(state, ended_at_ms=1_700_000_002_000),
        WatchRun: [],
        ListJobs: JobList(jobs=(failed,)),
        ReadLog: [LogData(1, 1, 5, b"\x1b[31mboom\n")],
    }
    got, out, err = run("run", "a.py", "--wait")
    assert (got, out) == (code, "run-1\n")
    assert f"Run run-1 {state.value} in 2.0s" in err
    assert ("A failed: exit 3\n  | boom\n  more:  titan logs run-1/A" in err) is (code == 1)


def test_a_service_that_ends_before_it_is_up_says_so_everywhere(run, master, alone):
    (alone / "a.py").write_text("")
    gone = {"state": JobState.FAILED, "attempt": 1, "reason": ExitReason.EXITED}
    master.answers |= {
        WaitRun: run_view(RunState.FAILED, ended_at_ms=1_700_000_002_000),
        WatchRun: [JobChange(run_id="r", at_ms=1, job_id="S", **gone)],
        ListJobs: JobList(jobs=(job_view(job_id="S", kind=JobKind.SERVICE, **gone),)),
        GetJob: job_view(job_id="S", kind=JobKind.SERVICE, **gone),
        ListServices: ServiceList(services=()),
        ReadLog: [],
    }
    words = "exit 0 before its port answered"
    code, _, err = run("run", "a.py", "--wait")
    assert code == 1
    assert re.search(rf"FAILED +{words}\n", err)
    assert f"S failed: {words}\n" in err
    assert f"Outcome:    {words}\n" in run("show", "run-1/S")[1]
    assert words in run("ps", "run-1")[1]


def test_what_kept_a_job_from_starting_is_said_once_and_no_log_is_shown(run, master, alone):
    (alone / "a.py").write_text("")
    cause = {"reason": ExitReason.START_FAILED, "message": "command 'x' was not found"}
    failed = {"state": JobState.FAILED, "attempt": 1, **cause}
    master.answers |= {
        WaitRun: run_view(RunState.FAILED, ended_at_ms=1_700_000_002_000),
        WatchRun: [JobChange(run_id="r", at_ms=1, job_id="A", **failed)],
        ListJobs: JobList(jobs=(job_view(**failed),)),
        GetJob: job_view(**failed),
    }
    code, _, err = run("run", "a.py", "--wait")
    assert code == 1
    assert err.count("command 'x' was not found") == 1
    assert "A failed: it could not be started: command 'x' was not found\n" in err
    assert "  more:  titan show run-1/A\n" in err
    assert "titan logs" not in err
    _, out, err = run("logs", "run-1/A")
    assert (out, err) == (
        "",
        "run-1/A never ran: it could not be started: command 'x' was not found\n",
    )
    assert "titan logs" not in run("show", "run-1/A")[1]
    assert master.of(ReadLog) == []


NO_GPU = "waits for a worker with GPU: none of the 1 known has that"
NO_SLOT = "waits for a slot: all 4 of the 1 worker(s) with GPU are taken"


@pytest.mark.parametrize("how", ["--wait", "--follow"])
def test_who_waits_hears_why_nothing_happens_once_and_again_when_it_is_another_why(
    run, master, alone, monkeypatch, how
):
    (alone / "a.py").write_text("")
    monkeypatch.setattr(stalls, "LOOK_S", 0.01)
    queued = job_view(state=JobState.QUEUED, attempt=0, reason=ExitReason.UNKNOWN)
    ended = threading.Event()
    reasons = [NO_GPU] * 5 + [NO_SLOT] * 5

    def why(request):
        if not reasons:
            ended.set()
            return msgspec.structs.replace(queued, message=NO_SLOT)
        return msgspec.structs.replace(queued, message=reasons.pop(0))

    def end(request):
        assert ended.wait(20)
        return run_view(RunState.SUCCEEDED, ended_at_ms=1_700_000_001_000)

    def watch(request):
        assert ended.wait(20)
        return [JobChange(run_id="r", at_ms=2, run_state=RunState.SUCCEEDED)]

    master.answers |= {
        GetRun: run_view(counts={"QUEUED": 1, "BLOCKED": 2}),
        GetJob: why,
        ListJobs: JobList(jobs=(job_view(job_id="B", state=JobState.BLOCKED), queued)),
        WaitRun: end,
        WatchRun: watch,
    }
    code, _, err = run("run", "a.py", how)
    assert code == 0
    assert (err.count(NO_GPU), err.count(NO_SLOT)) == (1, 1)
    assert err.index(NO_GPU) < err.index(NO_SLOT)
    assert re.search(rf"A .*QUEUED.* {re.escape(NO_GPU)}", err)


@pytest.mark.parametrize("counts", [{"RUNNING": 1, "QUEUED": 1}, {"BLOCKED": 1}, {"SUCCEEDED": 1}])
def test_a_run_that_goes_on_is_not_explained(counts):
    assert not stalls._stands(counts)


def test_ps_says_what_the_first_queued_jobs_wait_for(run, master):
    jobs = [
        job_view(job_id=f"J{n}", state=JobState.QUEUED, attempt=0, reason=ExitReason.UNKNOWN)
        for n in range(20)
    ]
    master.answers |= {
        ListJobs: JobList(jobs=tuple(jobs)),
        GetJob: lambda request: msgspec.structs.replace(
            jobs[0], job_id=request.job, message=NO_GPU
        ),
    }
    _, out, _ = run("ps", "run-1")
    assert re.search(rf"^J0 .*QUEUED .*{re.escape(NO_GPU)}$", out, re.MULTILINE)
    assert len(master.of(GetJob)) == 5


def test_waiting_too_long_is_6_and_the_run_goes_on(run, master, alone):
    (alone / "a.py").write_text("")
    master.answers |= {
        WaitRun: lambda request: None,
        WatchRun: [],
        ListJobs: JobList(jobs=(job_view(),)),
    }
    code, out, err = run("run", "a.py", "--wait", "--timeout", "0.1")
    assert (code, out) == (6, "run-1\n")
    assert "it goes on" in err


def test_ctrl_c_detaches_and_says_so(master, alone):
    (alone / "a.py").write_text("")
    waiting = threading.Event()
    master.answers |= {
        WaitRun: lambda request: waiting.set(),
        WatchRun: lambda request: None,
        ListJobs: JobList(jobs=(job_view(),)),
    }
    command = [sys.executable, "-m", "titan_sdk", "run", "a.py", "--wait"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert waiting.wait(20)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "run-1\n")
    assert "Detached. Run run-1 goes on.  titan logs -f run-1   titan cancel run-1" in err
    assert "Traceback" not in err
    assert master.of(CancelRun) == []


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("run-1/API", "Service run-1/API goes on if it is up.  titan stop run-1/API\n"),
        ("run-1", "What is up of run run-1 goes on.  titan ps\n"),
    ],
)
def test_who_stops_following_a_service_hears_how_to_stop_it(master, name, advice):
    """Its run has ended: there is nothing to cancel."""
    reading = threading.Event()

    def read(request):
        reading.set()
        return ["wait"]

    job = job_view(job_id="API", kind=JobKind.SERVICE, reason=ExitReason.UNKNOWN)
    master.answers |= {
        GetJob: lambda request: (
            job if request.run else Error(code=ErrorCode.NOT_FOUND, message="no")
        ),
        GetRun: run_view(RunState.SUCCEEDED, jobs=2),
        ListJobs: JobList(jobs=(job,)),
        WatchRun: [
            JobChange(run_id="r", at_ms=1, job_id="API", state=JobState.SUCCEEDED, attempt=1),
            JobChange(run_id="r", at_ms=2, run_state=RunState.SUCCEEDED),
        ],
        ReadLog: read,
    }
    command = [sys.executable, "-m", "titan_sdk", "logs", "-f", name]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert reading.wait(20)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert f"Detached. {advice}" in err
    assert "cancel" not in err


@pytest.mark.parametrize("words", ["stats", "run a.py", "up -d", "down"])
def test_a_working_folder_that_was_deleted_is_told(run, tmp_path, monkeypatch, words):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    code, out, err = run(*words.split())
    assert code == 1
    assert out == ""
    assert err == (
        "error: the working folder is not there any more, so nothing can be found from it\n"
        "  try:  cd to a folder that exists, then again\n"
    )


def test_a_reader_that_has_seen_enough_is_no_error(master):
    master.answers |= {
        GetJob: job_view(),
        ReadLog: [LogData(1, 1, n, b"x" * 60_000) for n in range(1, 40)],
    }
    command = [sys.executable, "-m", "titan_sdk", "logs", "run-1/A"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdout.read(10) == b"x" * 10
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 0


def test_logs_reach_a_pipe_byte_for_byte(run, master, capfdbinary):
    raw = bytes(range(256)) * 3
    master.answers |= {
        GetJob: job_view(),
        ReadLog: [LogData(1, 1, 256, raw[:256]), LogData(1, 1, 768, raw[256:])],
    }
    with pytest.raises(SystemExit):
        main(["logs", "run-1/A"])
    out, err = capfdbinary.readouterr()
    assert (out, err) == (raw, b"")


def test_logs_of_a_bare_job_say_whose_they_are(run, master):
    master.answers |= {GetJob: job_view(), ReadLog: [LogData(1, 1, 3, b"1\n2\n3")]}
    assert run("logs", "A", "-n", "2") == (0, "2\n3", "run-1/A\n")
    assert master.of(ReadLog)[0].tail_lines == 2
    _, out, _ = run("logs", "run-1/A", "-o", "json")
    assert json.loads(out)["text"] == "1\n2\n3"
    _, out, _ = run("logs", "run-1/A", "-f", "-o", "json")
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["1", "2", "3"]


def test_ps_and_show(run, master):
    master.answers |= {
        ListRuns: RunList(runs=(run_view(),)),
        ListServices: ServiceList(services=(service_view(),)),
        GetRun: run_view(),
        ListJobs: JobList(
            jobs=(
                job_view(
                    state=JobState.BLOCKED, attempt=0, reason=ExitReason.UNKNOWN, waits_for=("B",)
                ),
            )
        ),
        GetJob: job_view(),
    }
    code, out, _ = run("ps")
    assert code == 0
    assert re.search(r"^run-1 +. ACTIVE +0/1 ", out, re.MULTILINE)
    assert re.search(r"^Run/API +. HEALTHY +8080 ", out, re.MULTILINE)
    assert "waits for B" in run("ps", "run-1")[1]
    body = json.loads(run("ps", "-a", "-o", "json")[1])
    assert (body["kind"], body["apiVersion"], body["runs"][0]["submittedAt"]) == (
        "ProcessList",
        "titan/v1",
        "2023-11-14T22:13:20.000Z",
    )
    assert json.loads(run("show", "run-1", "-o", "json")[1])["kind"] == "Run"
    assert json.loads(run("show", "run-1/A", "-o", "json")[1])["kind"] == "Job"
    assert "Outcome" not in run("show", "run-1/A")[1]


def test_nothing_to_show_is_said_on_stderr(run, master):
    master.answers |= {ListRuns: RunList(runs=()), ListServices: ServiceList(services=())}
    code, out, err = run("ps")
    assert (code, out) == (0, "")
    assert "Nothing runs" in err


def test_names_that_nothing_has_are_3_with_the_nearest(run, master):
    nothing = Error(code=ErrorCode.NOT_FOUND, message="no")
    master.answers |= dict.fromkeys((GetRun, GetJob, ListJobs, CancelRun, StopService), nothing)
    master.answers |= {
        ListRuns: RunList(runs=(run_view(),)),
        ListServices: ServiceList(services=(service_view(),)),
        GetStats: stats(worker(8080)),
    }
    for args in (
        ["show", "runn-1"],
        ["ps", "runn-1"],
        ["logs", "runn-1"],
        ["logs", "runn-1/A"],
        ["cancel", "runn-1"],
    ):
        code, out, err = run(*args)
        assert (code, out) == (3, ""), args
        assert "did you mean run-1?" in err, args
    _, _, err = run("show", "one\nerror: two")
    assert err == "error[NOT_FOUND]: no run, job, service or worker is called one\\x0aerror: two\n"
    code, _, err = run("stop", "AIP")
    assert code == 3
    assert "did you mean API?" in err
    assert json.loads(run("show", "8080", "-o", "json")[1])["kind"] == "Worker"
    assert json.loads(run("show", "API", "-o", "json")[1])["kind"] == "Service"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (ErrorCode.ALREADY_DONE, 7),
        (ErrorCode.CONFLICT, 7),
        (ErrorCode.PERMISSION_DENIED, 4),
        (ErrorCode.LIMIT_EXCEEDED, 7),
        (ErrorCode.INTERNAL, 1),
    ],
)
def test_what_the_master_refuses_has_its_exit_code(run, master, code, expected):
    master.answers[CancelRun] = Error(code=code, message="because")
    got, out, err = run("cancel", "run-1")
    assert (got, out) == (expected, "")
    assert f"error[{code.value}]: because" in err


def test_a_wrong_token_is_4(run, master, monkeypatch):
    monkeypatch.setenv("TITAN_TOKEN", "titan_local_other_" + "0" * 64)
    assert run("stats")[0] == 4
    monkeypatch.delenv("TITAN_TOKEN")
    assert run("stats")[0] == 4


def test_stats_as_json(run, master):
    master.answers[GetStats] = stats(worker(8080))
    body = json.loads(run("stats", "-o", "json")[1])
    assert body["workers"][0]["port"] == 8080
    assert body["logDatagrams"] is None  # this master does not know what is asked
    master.answers[GetTraffic] = Traffic(links=2, log_datagrams=7)
    assert json.loads(run("stats", "-o", "json")[1])["logDatagrams"] == 7
    assert run("stats")[1].startswith("--- TITAN SYSTEM MONITOR ---\n")


# -- the sample that travels in the wheel ---------------------------------------------------------


@pytest.mark.skipif(not (ROOT / "examples").is_dir(), reason="not in a checkout")
def test_the_demos_pipeline_is_the_examples():
    from titan_sdk.cli.demo import SAMPLE

    example = ROOT / "examples" / "daily_etl"
    ours = sorted(
        path.relative_to(SAMPLE)
        for path in SAMPLE.rglob("*")
        if path.suffix in {".py", ".csv", ".yaml"}
    )
    theirs = sorted(
        path.relative_to(example)
        for path in example.rglob("*")
        if path.suffix in {".py", ".csv", ".yaml"}
    )
    assert ours == theirs
    assert len(ours) == 5
    for path in ours:
        assert (SAMPLE / path).read_bytes() == (example / path).read_bytes(), path


def test_the_demos_service_takes_any_port(tmp_path):
    from titan_sdk.cli.demo import SAMPLE, _copy

    text = _copy(SAMPLE, tmp_path / "copy").read_text()
    assert "port: auto" in text
    assert "8080" not in text


# -- gates ----------------------------------------------------------------------------------------


def gate_view(**changes):
    given = {"state": JobState.WAITING, "message": "Rows\nlook \x1b[31mright?", **changes}
    return GateView(run_id="run0000000000001", run_alias="run-1", job_id="REVIEW", **given)


def open_gate():
    gate = gate_view(opened_at_ms=1_700_000_000_000, expires_at_ms=1_700_000_060_000)
    return job_view(
        job_id="REVIEW",
        kind=JobKind.GATE,
        state=JobState.WAITING,
        attempt=0,
        reason=ExitReason.UNKNOWN,
        message=gate.message,
        gate=gate,
    )


def test_a_row_of_an_open_gate_says_how_to_approve_it_and_what_is_asked_on_one_line():
    look = render.Look(symbols=True, color=False)
    text, _ = render.jobs_table([open_gate()], look, 1_700_000_000_000).text(look, None)
    row = text.splitlines()[1]
    assert "⏸ WAITING" in row
    assert "approval: titan approve run-1/REVIEW  Rows look" in row
    assert "\x1b" not in text
    assert len(text.splitlines()) == 2


def test_progress_says_of_a_gate_that_it_waits_and_how_to_answer(capfd):
    progress = Progress([open_gate()])
    progress.take(
        JobChange(
            run_id="r", at_ms=1, job_id="REVIEW", state=JobState.WAITING, message="Rows look right?"
        )
    )
    progress.take(
        JobChange(
            run_id="r",
            at_ms=2,
            job_id="REVIEW",
            state=JobState.FAILED,
            reason=ExitReason.REJECTED,
            message="rejected by k7: no",
        )
    )
    asked, ended = capfd.readouterr().err.splitlines()
    assert "approval: titan approve run-1/REVIEW  Rows look right?" in asked
    assert ended.endswith("rejected by k7: no")


def test_the_stats_screen_counts_gates_only_while_some_are_open():
    assert "approval" not in render.stats_screen(stats(), symbols=True)
    assert "Waiting (approval): 2" in render.stats_screen(stats(waiting=2), symbols=True)


# -- what holds a job to its limits -----------------------------------------------------------------
ASKED = Resources(cpu_milli=500, memory_bytes=512 * 1024**2, pids=100)


def test_the_limits_that_were_asked_for_are_repeated():
    assert render.limits_asked(ASKED) == "cpu 0.5, memory 512 MiB, pids 100"
    assert render.limits_asked(Resources(pids=7)) == "pids 7"
    assert render.limits_asked(None) == ""


def test_where_there_are_control_groups_the_kernel_holds_all_of_it_together():
    text = render.limits_held(ASKED, "cgroups v2 (asked): cpu, memory, pids")
    assert text.endswith("the kernel holds all that it starts to them, together")


def test_a_controller_that_is_missing_is_named():
    text = render.limits_held(ASKED, "cgroups v1 (asked): memory, pids")
    assert text.endswith(", but for cpu")
    assert "but for" not in render.limits_held(Resources(pids=7), "cgroups v1 (asked): pids")


def test_without_control_groups_it_is_said_what_rlimits_do_not_do():
    text = render.limits_held(ASKED, "rlimits (--cgroups off)")
    assert "memory is of each process by itself" in text
    assert "cpu is not limited" in text
    assert render.limits_held(None, "rlimits") == ""


# -- the tree of a run ----------------------------------------------------------------------------


def job_of(name, *parents):
    return JobView(
        run_id="r",
        run_alias="r-1",
        job_id=name,
        kind=JobKind.TASK,
        state=JobState.BLOCKED,
        dependencies=parents,
    )


def test_a_job_stands_once_under_its_deepest_parent():
    jobs = [job_of("a"), job_of("b", "a"), job_of("c", "a"), job_of("d", "a", "c"), job_of("e")]

    assert list(tree_of(jobs, symbols=True).values()) == ["a", "├─ b", "└─ c", "   └─ d", "e"]
    assert list(tree_of(jobs, symbols=False).values()) == ["a", "|- b", "`- c", "   `- d", "e"]


def test_a_tree_of_jobs_in_any_order_has_all_of_them():
    jobs = [job_of("c", "b"), job_of("b", "a"), job_of("a")]

    assert list(tree_of(jobs, symbols=True).items()) == [
        ("a", "a"),
        ("b", "└─ b"),
        ("c", "   └─ c"),
    ]


def test_a_deep_chain_is_a_tree_too():
    jobs = [job_of("0"), *(job_of(str(n), str(n - 1)) for n in range(1, 3_000))]

    assert len(tree_of(jobs, symbols=True)) == 3_000


# -- titan explain ------------------------------------------------------------------------------------
def explanation(**fields):
    cause = Cause(
        kind=CauseKind.RESOURCES,
        message="waits for 1 gpu: at most 0 are left on any of 1 worker(s)",
        workers=(
            WorkerReason(
                worker="box:8080",
                kind=CauseKind.RESOURCES,
                message="0 of 2 gpu are free, 1 needed",
                resource="gpu",
                wanted=1,
                total=2,
            ),
        ),
        position=2,
        queued=5,
    )
    given = {"run_id": "r" * 16, "run_alias": "train-1", "job_id": "a", "causes": (cause,)}
    return Explanation(state=JobState.QUEUED, **{**given, **fields})


def test_explain_says_what_it_waits_for_worker_by_worker(run, master):
    master.answers[GetJob] = job_view(state=JobState.QUEUED)
    master.answers[ExplainJob] = explanation()
    code, out, _ = run("explain", "train-1/a")
    assert code == 0
    assert out.splitlines()[1:] == [
        "  waits for 1 gpu: at most 0 are left on any of 1 worker(s)",
        "     place 2 of 5 that need the same",
        "     box:8080  0 of 2 gpu are free, 1 needed",
    ]
    (request,) = master.of(ExplainJob)
    body = json.loads(run("explain", "train-1/a", "-o", "json")[1])
    assert body["kind"] == "Explanations"
    (cause,) = body["items"][0]["causes"]
    assert (cause["kind"], cause["position"], cause["workers"][0]["total"]) == ("RESOURCES", 2, 2)
    assert request.job


def test_explain_of_what_has_ended_says_how(run, master):
    master.answers[GetJob] = job_view(state=JobState.SUCCEEDED)
    assert "has ended: SUCCEEDED" in run("explain", "train-1/a")[1]
    assert master.of(ExplainJob) == []
