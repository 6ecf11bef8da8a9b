"""The dashboard's pages tell the truth about the master, and let nothing else in."""

from __future__ import annotations

import importlib.util
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient
from msgspec.structs import replace

from titan_dashboard import create_app, link
from titan_dashboard.auth import HEADERS
from titan_dashboard.cli import main
from titan_dashboard.config import SIGN_INS_PER_MINUTE, DashboardConfig
from titan_dashboard.link import Credentials, Kind, Master, Trouble
from titan_proto.messages import (
    STDERR,
    STDOUT,
    AttemptList,
    AttemptView,
    GetJob,
    GetRun,
    GetStats,
    GetUsage,
    JobList,
    JobView,
    ListAttempts,
    ListDead,
    ListJobs,
    ListRuns,
    ListServices,
    LogData,
    LogPiece,
    LogStream,
    ReadLog,
    RedeemTicket,
    RunList,
    RunView,
    ServiceList,
    Stats,
    TicketRedeemed,
    Usage,
    UsagePoint,
    UsageView,
    WorkerUsageView,
    WorkerView,
)
from titan_proto.specs import JobKind, JobSpec, Launch
from titan_proto.states import AttemptState, ExitReason, JobState, RunState, WorkerState

TOKEN = "titan_local_x_" + "0" * 64


def config(folder: Path, **environ: str) -> DashboardConfig:
    """Of a dashboard whose master does not exist (port 1 is nobody's)."""
    return DashboardConfig(master="127.0.0.1:1", environ=environ, folder=folder)


@pytest.fixture
def client(tmp_path: Path) -> FlaskClient:
    """A browser at a dashboard without a master."""
    return create_app(config(tmp_path)).test_client()


@pytest.fixture
def answers() -> dict[type, object]:
    """What the master of `signed_in` says; a Trouble is raised."""
    worker = WorkerView(
        worker_id="w1",
        host="<host>",
        port=8080,
        state=WorkerState.ONLINE,
        slots=4,
        used=1,
        skills=("GENERAL", "GPU"),
    )
    stats = Stats(
        cluster_id="c",
        cluster_name="<harbour>",
        term=1,
        at_ms=1_000_000,
        started_at_ms=0,
        workers=(worker,),
        runs_active=1,
        queued=3,
        blocked=2,
        delayed=0,
        running=1,
        services=0,
    )
    run = RunView(
        run_id="r" * 16,
        alias="<img src=x onerror=alert(1)>-1",
        name="x",
        state=RunState.ACTIVE,
        submitted_at_ms=900_000,
        jobs=2,
        counts={"RUNNING": 1, "BLOCKED": 1},
    )
    usage = Usage(cpu_permille=371, memory_used_bytes=2**30, memory_total_bytes=2**32)
    points = tuple(UsagePoint(at_ms=1_000_000 - 10_000 * n, usage=usage) for n in (3, 2, 1, 0))
    known = WorkerUsageView(worker_id="w1", name="<host>:8080", at_ms=1_000_000, usage=usage)
    return {
        GetStats: stats,
        ListRuns: RunList(runs=(run,)),
        GetUsage: UsageView(at_ms=1_000_000, workers=(known,), history=points),
        ListDead: JobList(jobs=()),
        ListJobs: JobList(jobs=()),
        ListServices: ServiceList(services=()),
    }


@pytest.fixture
def signed_in(
    tmp_path: Path, answers: dict[type, object], monkeypatch: pytest.MonkeyPatch
) -> FlaskClient:
    """A browser that has signed in, before a master that says what `answers` holds."""

    def call(_: Master, who: Credentials, request: object) -> object:
        assert who.token == TOKEN
        reply = answers[type(request)]
        if isinstance(reply, Trouble):
            raise reply
        return reply

    monkeypatch.setattr(Master, "admit", lambda _, token: Credentials(token, "admin"))
    monkeypatch.setattr(Master, "is_listening", lambda _: True)
    monkeypatch.setattr(Master, "call", call)
    browser = create_app(config(tmp_path)).test_client()
    assert browser.post("/sign-in", data={"token": TOKEN}).status_code == 303
    return browser


def csrf(browser: FlaskClient) -> str:
    """The session's second number, from a form."""
    found = re.search(r'name="csrf" value="([^"]+)"', browser.get("/workers").text)
    assert found is not None
    return found.group(1)


# -- who is let in --------------------------------------------------------------------------------


def test_only_signing_in_and_what_it_needs_is_open_to_everybody(client: FlaskClient) -> None:
    """Every other route leads to the sign-in, or is refused."""
    open_to_all = set()
    for rule in client.application.url_map.iter_rules():
        path = re.sub(r"<[^>]+>", "titan.css" if rule.endpoint == "static" else "x", rule.rule)
        with client.open(path, method="GET" if "GET" in rule.methods else "POST") as answer:
            leads_to_it = (answer.location or "").startswith("/sign-in")
            if answer.status_code != 401 and not (answer.status_code == 303 and leads_to_it):
                open_to_all.add(rule.endpoint)
    assert open_to_all <= {"static", "sign_in", "redeem", "healthz", "set_theme"}


def test_a_token_signs_in_and_signing_out_ends_it(signed_in: FlaskClient) -> None:
    """The cookie is a number that no script can read and no other site can have sent."""
    cookie = signed_in.get_cookie("titan_80")
    assert cookie is not None
    assert TOKEN not in cookie.value
    assert cookie.http_only
    assert cookie.same_site == "Strict"
    assert signed_in.get("/").status_code == 200
    assert signed_in.post("/sign-out", data={"csrf": csrf(signed_in)}).status_code == 303
    signed_in.set_cookie("titan_80", cookie.value)
    assert signed_in.get("/").status_code == 303


@pytest.mark.parametrize("text", ["", "nonsense", "titan_local_x_12"])
def test_what_is_no_token_is_said(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """With 403, on the form, and without asking the master."""
    monkeypatch.setattr(Master, "is_listening", lambda _: True)
    answer = client.post("/sign-in", data={"token": text})
    assert answer.status_code == 403
    assert "not a token" in answer.text


def test_a_token_that_the_master_refuses_is_said(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one try too many in a minute is not even looked at."""

    def admit(_: Master, __: str) -> Credentials:
        raise Trouble(Kind.REFUSED, "unknown token")

    monkeypatch.setattr(Master, "is_listening", lambda _: True)
    monkeypatch.setattr(Master, "admit", admit)
    codes = [
        client.post("/sign-in", data={"token": TOKEN}).status_code
        for _ in range(SIGN_INS_PER_MINUTE + 1)
    ]
    assert set(codes[:-1]) == {403}
    assert codes[-1] == 429


@pytest.fixture
def ticketed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    """A browser at a dashboard with a token of its own, whose master takes the ticket `good` once."""
    good = {"good"}

    def call(_: Master, who: Credentials, ask: object) -> object:
        if isinstance(ask, RedeemTicket):
            assert who == Credentials(TOKEN, "viewer")
            if ask.ticket in good:
                good.discard(ask.ticket)
                return TicketRedeemed(role="client", name="ann")
            raise Trouble(Kind.MISSING, "used")
        assert who == Credentials(TOKEN, "client")
        return ServiceList(services=())

    monkeypatch.setattr(Master, "call", call)
    monkeypatch.setattr(Master, "is_listening", lambda _: True)
    return create_app(config(tmp_path, TITAN_TOKEN=TOKEN)).test_client()


def test_a_link_signs_in_once_as_who_asked_for_it(ticketed: FlaskClient) -> None:
    """A preview that only asks for the head uses nothing up; the page that was meant is shown."""
    assert ticketed.head("/open?t=good").status_code == 204
    answer = ticketed.get("/open?t=good&to=/services")
    assert (answer.status_code, answer.location) == (303, "/services")
    text = ticketed.get("/services").text
    assert "<strong>ann</strong> (client)" in text
    again = ticketed.get("/open?t=good")
    assert again.status_code == 403
    assert "titan open prints a new one" in again.text


def test_a_link_leads_nowhere_else_and_a_guess_to_nothing(ticketed: FlaskClient) -> None:
    assert ticketed.get("/open?t=nonsense").status_code == 403
    assert ticketed.get("/open").status_code == 403
    assert ticketed.get("/open?t=good&to=//evil.example").location == "/"


def test_a_dashboard_without_a_token_says_that_it_cannot_take_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Master, "is_listening", lambda _: True)
    browser = create_app(config(tmp_path, HOME=str(tmp_path))).test_client()
    answer = browser.get("/open?t=good")
    assert answer.status_code == 403
    assert "started without a token" in answer.text


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil", "/a\nb"])
def test_signing_in_leads_nowhere_else(signed_in: FlaskClient, target: str) -> None:
    """Only to a path of ours."""
    answer = signed_in.post("/sign-in", data={"token": TOKEN, "next": target})
    assert answer.location == "/"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_form_of_another_site_does_nothing(
    signed_in: FlaskClient, headers: dict[str, str]
) -> None:
    """Even with the right cookie and the right number."""
    number = csrf(signed_in)
    answer = signed_in.post("/sign-out", data={"csrf": number}, headers=headers)
    assert answer.status_code == 403
    assert signed_in.get("/").status_code == 200


@pytest.mark.parametrize("number", ["", "x", "ö"])
def test_a_form_without_the_sessions_number_does_nothing(
    signed_in: FlaskClient, number: str
) -> None:
    """A cookie alone changes nothing."""
    assert signed_in.post("/sign-out", data={"csrf": number}).status_code == 403
    assert signed_in.get("/").status_code == 200


def test_a_foreign_host_header_is_refused(client: FlaskClient) -> None:
    """A name that merely resolves to loopback is somebody else's page."""
    for path in ("/", "/sign-in", "/static/titan.css", "/healthz", "/nowhere"):
        assert client.get(path, headers={"Host": "evil.example"}).status_code == 400


def test_nothing_may_be_loaded_from_elsewhere(signed_in: FlaskClient) -> None:
    """No script but our own files, no frame, no request to another origin."""
    answer = signed_in.get("/")
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"""(src|href|action)="(https?:)?//""", answer.text)
    assert not re.search(r"""\s(style|on\w+)=["']""", answer.text)
    assert "<script>" not in answer.text


# -- what is shown --------------------------------------------------------------------------------


def test_the_cluster_its_workers_and_its_queue_are_shown(signed_in: FlaskClient) -> None:
    """As the master has said, and nothing of it as markup."""
    text = signed_in.get("/").text
    assert "&lt;harbour&gt;" in text
    assert "1 of 4 slots" in text
    assert "&lt;img src=x onerror=alert(1)&gt;-1" in text
    assert "<img" not in text
    assert 'class="spark' in text


def test_a_worker_has_boxes_skills_numbers_and_lines(signed_in: FlaskClient) -> None:
    """One box a slot; CPU and memory as numbers and over time."""
    for path in ("/workers", "/workers/8080", "/workers/w1"):
        text = signed_in.get(path).text
        assert text.count('class="slot taken"') == 1
        assert text.count('class="slot"') == 3
        assert "GPU" in text
        assert "37 %" in text
        assert "1.0 GiB" in text
        assert text.count('class="line"') == 2
    missing = signed_in.get("/workers/9999")
    assert missing.status_code == 404
    assert "There is no worker &#39;9999&#39;; known are: 8080." in missing.text


def test_an_empty_cluster_teaches(signed_in: FlaskClient, answers: dict[type, object]) -> None:
    """What to do stands where nothing is."""
    stats = answers[GetStats]
    assert isinstance(stats, Stats)
    empty = {name: getattr(stats, name) for name in stats.__struct_fields__}
    answers[GetStats] = Stats(**{**empty, "workers": (), "runs_active": 0})
    answers[ListRuns] = RunList(runs=())
    answers[GetUsage] = UsageView(at_ms=1)
    assert "titan run" in signed_in.get("/").text
    assert "titan-worker 8080 127.0.0.1 1" in signed_in.get("/workers").text


HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def a_run(answers: dict[type, object]) -> None:
    """A run of three jobs, one of which failed and was tried again, as the master tells it."""
    tried = JobView(
        run_id="r" * 16,
        run_alias="nightly-7",
        job_id="LOAD",
        kind=JobKind.TASK,
        state=JobState.FAILED,
        attempt=2,
        attempt_state=AttemptState.ENDED,
        worker="h:8080",
        reason=ExitReason.SIGNALLED,
        signal=9,
        message=HOSTILE,
        placed_at_ms=3_000,
        started_at_ms=3_100,
        ended_at_ms=4_000,
        dependencies=("EXTRACT",),
        retries=1,
    )
    first = replace(
        tried, job_id="EXTRACT", state=JobState.SUCCEEDED, reason=ExitReason.EXITED, signal=0,
        attempt=1, message="", dependencies=(), placed_at_ms=1_000, started_at_ms=1_100,
        ended_at_ms=1_900,
    )  # fmt: skip
    skipped = replace(
        tried, job_id="REPORT", state=JobState.SKIPPED, reason=ExitReason.PARENT_FAILED, signal=0,
        attempt=0, message="", dependencies=("LOAD",), placed_at_ms=0, started_at_ms=0,
    )  # fmt: skip
    run = RunView(
        run_id="r" * 16,
        alias="nightly-7",
        name=HOSTILE,
        state=RunState.FAILED,
        submitted_at_ms=1_000,
        ended_at_ms=4_000,
        jobs=3,
        counts={"SUCCEEDED": 1, "FAILED": 1, "SKIPPED": 1},
    )
    ended = AttemptView(
        number=1, state=AttemptState.ENDED, worker="h:8081", reason=ExitReason.EXITED, exit_code=3,
        placed_at_ms=1_950, started_at_ms=2_000, ended_at_ms=2_500,
    )  # fmt: skip
    last = AttemptView(
        number=2, state=AttemptState.ENDED, worker="h:8080", reason=ExitReason.SIGNALLED, signal=9,
        placed_at_ms=3_000, started_at_ms=3_100, ended_at_ms=4_000,
    )  # fmt: skip
    launch = Launch(script="load.py", args=("--day", HOSTILE), env={"DB_PASSWORD": ""})
    spec = JobSpec(id="LOAD", launch=launch)
    answers[GetRun] = run
    answers[ListRuns] = RunList(runs=(run,))
    answers[ListJobs] = JobList(jobs=(first, tried, skipped))
    answers[ListAttempts] = AttemptList(job=tried, attempts=(ended, last), spec=spec)


@pytest.mark.usefixtures("a_run")
def test_the_list_of_runs_is_a_timeline(signed_in: FlaskClient) -> None:
    """Waiting, running and the try that failed are different bars, each with its words."""
    text = signed_in.get("/runs").text
    assert "nightly-7" in text
    for kind in ("b-wait", "b-run", "b-past"):
        assert f'class="{kind} ' in text
    assert "attempt 1 on h:8081, 500 ms: exit 3" in text


@pytest.mark.usefixtures("a_run")
@pytest.mark.parametrize(
    ("query", "is_shown"),
    [
        ("state=FAILED", True),
        ("state=SUCCEEDED", False),
        ("q=NIGHT", True),
        ("q=hourly", False),
        ("since=30d", True),
        ("state=nonsense", False),
        ("since=nonsense&cursor=", True),
    ],
)
def test_runs_are_filtered(signed_in: FlaskClient, query: str, is_shown: bool) -> None:
    """By state, name and time; where nothing fits, the way back is shown."""
    answer = signed_in.get(f"/runs?{query}")
    assert answer.status_code == 200
    assert ("nightly-7" in answer.text) is is_shown
    assert ("Clear the filters" in answer.text) is not is_shown


def test_a_run_that_began_too_long_ago_does_not_fit(
    signed_in: FlaskClient, answers: dict[type, object], a_run: None
) -> None:
    """The time is the master's."""
    stats = answers[GetStats]
    answers[GetStats] = replace(stats, at_ms=10 * 3_600_000)
    assert "nightly-7" in signed_in.get("/runs?since=24h").text
    browser = signed_in.get("/runs?since=1h")
    assert "nightly-7" not in browser.text


@pytest.mark.usefixtures("a_run")
def test_a_run_is_a_graph_a_gantt_chart_and_a_table(signed_in: FlaskClient) -> None:
    """The same jobs in each, and the one that failed above all of them, with its log."""
    path = f"/runs/{'r' * 16}"
    for tab, sign in (("", 'class="node'), ("?tab=gantt", 'class="b-past'), ("?tab=jobs", "<td")):
        text = signed_in.get(path + tab).text
        for job in ("EXTRACT", "LOAD", "REPORT"):
            assert f"{path}/jobs/{job}" in text
        assert sign in text
        assert "killed by SIGKILL" in text
        assert f"{path}/jobs/LOAD#log" in text
        assert HOSTILE not in text
    assert signed_in.get(path).text.count("<path class=") == 2


@pytest.mark.usefixtures("a_run")
def test_a_job_has_its_command_its_attempts_and_its_reason(
    signed_in: FlaskClient, a_log: list[object]
) -> None:
    """One attempt at a time; of variables the names alone."""
    path = f"/runs/{'r' * 16}/jobs/LOAD"
    text = signed_in.get(path).text
    assert "load.py --day &lt;img" in text
    assert "killed by SIGKILL" in text
    assert "DB_PASSWORD" in text
    assert 'aria-current="page">Attempt 2' in text
    assert "h:8080" in text
    first = signed_in.get(f"{path}?attempt=1").text
    assert 'aria-current="page">Attempt 1' in first
    assert "exit 3" in first
    for wrong in ("3", "x", "0"):
        missing = signed_in.get(f"{path}?attempt={wrong}")
        assert missing.status_code == 404
        assert "its newest is 2" in missing.text


@pytest.fixture
def a_log(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What the job of `a_run` has printed; gives the questions that were asked for it."""
    asked: list[object] = []
    hostile = f"\x1b[31m{HOSTILE}\x1b[0m\n".encode()

    def stream(_: Master, __: Credentials, ask: ReadLog) -> Iterator[LogData]:
        asked.append(ask)
        if ask.places:
            yield LogPiece(2, STDOUT, 6, b"first\n", 0, 5, 0)
            yield LogPiece(2, STDERR, 6 + len(hostile), hostile, 0, 6, 0)
            yield LogPiece(2, STDOUT, 10 + len(hostile), b"open", 6, 7, 0)
        else:
            yield LogData(2, STDOUT, 6, b"first\n")
            yield LogData(2, STDERR, 6 + len(hostile), hostile)

    monkeypatch.setattr(Master, "stream", stream)
    return asked


@pytest.mark.usefixtures("a_run")
def test_a_log_is_told_by_position(signed_in: FlaskClient, a_log: list[object]) -> None:
    """As lines with their output and their time; what is not ended yet comes again."""
    path = f"/runs/{'r' * 16}/jobs/LOAD/log.json"
    told = signed_in.get(f"{path}?attempt=2&stream=both&at=0&tail=100").get_json()
    assert told["lines"][0] == [1, 5, "first", 0]
    assert told["lines"][1][:2] == [2, 6]
    assert told["open"] == [[1, 7, "open", 0]]
    assert told["more"] is False
    ask = a_log[-1]
    assert isinstance(ask, ReadLog)
    assert (ask.attempt, ask.stream, ask.tail_lines, ask.position) == (2, LogStream.BOTH, 100, 0)
    signed_in.get(f"{path}?at=77&tail=100&stream=stderr")
    ask = a_log[-1]
    assert isinstance(ask, ReadLog)
    assert (ask.stream, ask.tail_lines, ask.position) == (LogStream.STDERR, 0, 77)
    for wrong in ("at=x", "at=-1", f"at={2**63}", "stream=stdin", "attempt=1.5"):
        assert signed_in.get(f"{path}?{wrong}").status_code == 404


@pytest.mark.usefixtures("a_run", "a_log")
def test_a_log_without_a_script_is_its_last_lines_as_text(signed_in: FlaskClient) -> None:
    """Nothing of it is markup, or moves anything."""
    text = signed_in.get(f"/runs/{'r' * 16}/jobs/LOAD").text
    assert '<span class="line">first</span>' in text
    assert '<span class="line is-err">&lt;img src=x onerror=alert(1)&gt;</span>' in text
    assert "\x1b" not in text


@pytest.mark.usefixtures("a_run")
def test_a_download_is_byte_for_byte_what_was_printed(
    signed_in: FlaskClient, answers: dict[type, object], a_log: list[object]
) -> None:
    """As a file, never as a page, under a name that is one."""
    answers[GetJob] = replace(answers[ListAttempts].job, run_alias="../x-1")
    answer = signed_in.get(f"/runs/{'r' * 16}/jobs/LOAD/log?stream=stdout&attempt=2")
    assert answer.data == f"first\n\x1b[31m{HOSTILE}\x1b[0m\n".encode()
    assert answer.mimetype == "application/octet-stream"
    named = answer.headers["Content-Disposition"]
    assert named == 'attachment; filename="..-x-1-LOAD.stdout.log"'
    ask = a_log[-1]
    assert isinstance(ask, ReadLog)
    assert (ask.places, ask.tail_lines, ask.stream) == (False, 0, LogStream.STDOUT)


@pytest.mark.usefixtures("a_run", "a_log")
def test_the_log_of_a_run_names_job_and_worker(signed_in: FlaskClient) -> None:
    """In the download before each line; on the page for the viewer to put there."""
    answer = signed_in.get(f"/runs/{'r' * 16}/log.txt")
    assert b"EXTRACT h:8080 | first\n" in answer.data
    assert b"LOAD h:8080 | first\n" in answer.data
    assert b"REPORT" not in answer.data
    page = signed_in.get(f"/runs/{'r' * 16}/log")
    assert page.status_code == 200
    assert "data-whole" in page.text
    assert "[[&#34;EXTRACT&#34;,1,&#34;h:8080&#34;,-1],[&#34;LOAD&#34;,2" in page.text


@pytest.mark.usefixtures("a_run")
def test_a_log_that_cannot_be_read_is_no_half_file(
    signed_in: FlaskClient, answers: dict[type, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page with the right status instead."""

    def stream(_: Master, __: Credentials, ___: ReadLog) -> Iterator[LogData]:
        raise Trouble(Kind.MISSING, "there is no log")
        yield

    monkeypatch.setattr(Master, "stream", stream)
    answers[GetJob] = answers[ListAttempts].job
    path = f"/runs/{'r' * 16}/jobs/LOAD"
    assert signed_in.get(f"{path}/log").status_code == 404
    assert signed_in.get(f"{path}/log.json").status_code == 404
    assert "Nothing has been printed." in signed_in.get(path).text


@pytest.mark.usefixtures("a_run")
def test_what_is_typed_is_found(signed_in: FlaskClient, answers: dict[type, object]) -> None:
    """A run, a job, a worker, or a sentence."""
    assert signed_in.get("/find?q=nightly-7").location == f"/runs/{'r' * 16}"
    answers[GetJob] = answers[ListAttempts].job
    assert signed_in.get("/find?q=nightly-7/LOAD").location == f"/runs/{'r' * 16}/jobs/LOAD"
    answers[GetRun] = Trouble(Kind.CONFLICT, "fits several")
    assert signed_in.get("/find?q=night").location == "/runs?q=night"
    answers[GetRun] = Trouble(Kind.MISSING, "no run")
    assert signed_in.get("/find?q=LOAD").location == f"/runs/{'r' * 16}/jobs/LOAD"
    answers[GetJob] = Trouble(Kind.MISSING, "no job")
    assert signed_in.get("/find?q=8080").location == "/workers/8080"
    answer = signed_in.get("/find?q=<b>")
    assert answer.status_code == 404
    assert "is called &#39;&lt;b&gt;&#39;" in answer.text


@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [
        (Kind.AWAY, 503, "titan up -d"),
        (Kind.REFUSED, 503, "Sign in again"),
        (Kind.UNNAMED, 503, "--master HOST:PORT"),
        (Kind.MISSING, 404, "Not found"),
        (Kind.FORBIDDEN, 403, "Not permitted"),
        (Kind.CONFLICT, 409, "Not done"),
    ],
)
def test_each_trouble_is_a_short_page_of_its_own(
    signed_in: FlaskClient, answers: dict[type, object], kind: Kind, status: int, words: str
) -> None:
    """What it is, and what to do, with the right status."""
    answers[GetStats] = Trouble(kind, "<because>", "127.0.0.1:1")
    answer = signed_in.get("/")
    assert answer.status_code == status
    assert words in answer.text
    assert "&lt;because&gt;" in answer.text


def test_what_fails_in_the_dashboard_is_no_traceback(
    signed_in: FlaskClient, answers: dict[type, object]
) -> None:
    """Status 500, a sentence, and the trace in the log alone."""
    del answers[GetStats]
    answer = signed_in.get("/")
    assert answer.status_code == 500
    assert "KeyError" in answer.text
    assert "Traceback" not in answer.text


def test_a_theme_is_kept_without_a_script(client: FlaskClient) -> None:
    """In a cookie, and only one that there is."""
    answer = client.post("/theme", data={"theme": "dark", "next": "/sign-in"})
    assert answer.status_code == 303
    assert client.get_cookie("titan_theme").value == "dark"
    assert client.post("/theme", data={"theme": "pink"}).status_code == 400


# -- without a master -----------------------------------------------------------------------------


def test_an_unreachable_master_is_said_with_what_to_do(client: FlaskClient) -> None:
    """No master: status 503, its address, and the command that starts one."""
    answer = client.get("/", follow_redirects=True)
    assert answer.status_code == 503
    assert "127.0.0.1:1" in answer.text
    assert "titan up -d" in answer.text


def test_one_that_listens_and_is_no_master_is_said(tmp_path: Path) -> None:
    """Nothing that goes wrong is a page of status 500."""
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        place = f"127.0.0.1:{somebody.getsockname()[1]}"
        given = DashboardConfig(master=place, environ={}, folder=tmp_path)
        browser = create_app(given).test_client()
        assert browser.get("/sign-in").status_code == 200
        answer = browser.post("/sign-in", data={"token": TOKEN})
    assert answer.status_code == 503
    assert "No master can be reached" in answer.text


def test_an_address_that_is_none_is_said(tmp_path: Path) -> None:
    """What TITAN_MASTER says is not an address."""
    given = DashboardConfig(master="a:b", environ={}, folder=tmp_path)
    answer = create_app(given).test_client().get("/sign-in")
    assert answer.status_code == 503
    assert "No master can be looked for" in answer.text


# -- how it is started ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [("--port", "99999"), ("--port", "-1"), ("--master", "a:b"), ("--port", "x")]
)
def test_a_wrong_option_is_refused_at_once(words: tuple[str, ...]) -> None:
    """Not by the first page that is viewed, and not with a traceback."""
    told = CliRunner().invoke(main, words)
    assert told.exit_code == 2
    assert "Error: Invalid value" in told.output


def test_help_shows_an_example_as_it_is_typed() -> None:
    """On a line of its own."""
    told = CliRunner().invoke(main, ["-h"])
    assert "\n    titan-dashboard --port" in told.output


def test_static_files_are_in_the_package(client: FlaskClient) -> None:
    """What the pages name is installed with them."""
    for name in (
        "titan.css",
        "titan.svg",
        "titan.js",
        "live.js",
        "morph.js",
        "stream.js",
        "log.js",
        "ansi.js",
    ):
        with client.get(f"/static/{name}") as answer:
            assert answer.status_code == 200


def test_a_signal_ends_the_server_in_good_order() -> None:
    """It says where it serves, answers there, and SIGTERM ends it with 0."""
    with subprocess.Popen(
        [sys.executable, "-m", "titan_dashboard", "--port", "0", "--master", "127.0.0.1:1"],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        place = process.stderr.readline().split()[-1]
        with urllib.request.urlopen(f"{place}/healthz", timeout=20) as answer:
            assert answer.status == 200
        process.terminate()
        assert process.wait(20) == 0


def test_only_proto_is_needed() -> None:
    """The dashboard works where neither master, worker nor SDK is installed."""
    code = (
        "import sys, titan_dashboard.cli\n"
        "print(sorted(m for m in sys.modules if m in "
        "('titan_sdk', 'titan_master', 'titan_worker')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "[]"
    package = importlib.util.find_spec("titan_dashboard")
    assert package is not None
    assert link.Master is not None
