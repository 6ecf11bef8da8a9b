"""Actions: first a page that says what will happen, then one request, then what came of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from titan_dashboard import create_app
from titan_dashboard.config import DashboardConfig
from titan_dashboard.link import Credentials, Kind, Master, Trouble
from titan_proto.messages import (
    CancelRun,
    DecideGate,
    GateView,
    GetJob,
    GetRun,
    GetStats,
    JobView,
    ListServices,
    RerunRun,
    RestartService,
    RunReceipt,
    RunView,
    ServiceList,
    ServiceView,
    ShutdownOrdered,
    ShutDownWorker,
    SpawnOrdered,
    SpawnWorker,
    Stats,
    StopJob,
    StopService,
    WorkerView,
)
from titan_proto.specs import JobKind
from titan_proto.states import ExitReason, JobState, RunState, ServiceState, WorkerState

TOKEN = "titan_local_x_" + "0" * 64
RUN = "r" * 16
WORKER = WorkerView(
    worker_id="w1",
    host="h",
    port=8080,
    state=WorkerState.ONLINE,
    slots=4,
    used=3,
    skills=("GENERAL",),
    services=("weather/API",),
)
ACTIVE = RunView(
    run_id=RUN,
    alias="nightly-7",
    name="n",
    state=RunState.ACTIVE,
    submitted_at_ms=1,
    jobs=5,
    counts={"RUNNING": 2, "QUEUED": 3},
)
ENDED = RunView(
    run_id=RUN,
    alias="nightly-7",
    name="n",
    state=RunState.FAILED,
    submitted_at_ms=1,
    ended_at_ms=2,
    jobs=5,
    counts={"SUCCEEDED": 4, "FAILED": 1},
)
JOB = JobView(
    run_id=RUN, run_alias="nightly-7", job_id="LOAD", kind=JobKind.TASK, state=JobState.RUNNING
)
GATE = GateView(
    run_id=RUN,
    run_alias="nightly-7",
    job_id="REVIEW",
    state=JobState.WAITING,
    message="<b>Right?</b>",
)
ASKS = JobView(
    run_id=RUN,
    run_alias="nightly-7",
    job_id="REVIEW",
    kind=JobKind.GATE,
    state=JobState.WAITING,
    gate=GATE,
)
API = ServiceView(
    name="weather/API",
    run_id=RUN,
    run_alias="weather-1",
    job_id="API",
    attempt=1,
    state=ServiceState.HEALTHY,
    worker="h:8080",
    port=8080,
    healthy_at_ms=5,
)
STATS = Stats(
    cluster_id="c",
    cluster_name="n",
    term=1,
    at_ms=1,
    started_at_ms=0,
    workers=(WORKER,),
    runs_active=0,
    queued=0,
    blocked=0,
    delayed=0,
    running=0,
    services=1,
)


class Rig:
    """A browser that has signed in, and a master that notes what it is asked to do."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, role: str = "admin") -> None:
        self.asked: list[Any] = []
        self.ended: tuple[ServiceView, ...] = ()
        self.answers: dict[type, Any] = {
            GetRun: ACTIVE,
            GetJob: JOB,
            GetStats: STATS,
            ListServices: ServiceList(services=(API,)),
        }
        monkeypatch.setattr(Master, "admit", lambda _, token: Credentials(token, role))
        monkeypatch.setattr(Master, "call", lambda _, __, request: self._call(request))
        config = DashboardConfig(master="127.0.0.1:1", environ={}, folder=folder)
        self.browser: FlaskClient = create_app(config).test_client()
        assert self.browser.post("/sign-in", data={"token": TOKEN}).status_code == 303

    def _call(self, request: Any) -> Any:
        self.asked.append(request)
        if isinstance(request, ListServices) and request.ended:
            return ServiceList(services=self.ended)
        reply = self.answers[type(request)]
        if isinstance(reply, Trouble):
            raise reply
        return reply

    def do(self, action: str, target: str, **more: str) -> Any:
        """Ask, press the button, and follow to where it leads; the page that asked, and the answer."""
        page = self.browser.get(f"/do/{action}", query_string={"target": target})
        assert page.status_code == 200, page.text
        fields = dict(re.findall(r'name="(\w+)"(?: type="\w+")? value="([^"]*)"', page.text))
        assert fields["target"] == target
        if 'name="choice"' in page.text:
            fields["choice"] = re.findall(r'value="(\w+)" checked', page.text)[0]
        self.asked.clear()
        answer = self.browser.post(f"/do/{action}", data={**fields, **more})
        return page.text, answer


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(tmp_path, monkeypatch)


def test_cancelling_says_how_many_jobs_it_stops(rig: Rig) -> None:
    rig.answers[CancelRun] = ACTIVE
    text, answer = rig.do("cancel", RUN)
    assert "2 running jobs will be stopped, 3 waiting jobs will not start." in text
    assert rig.asked == [CancelRun(run=RUN)]
    assert answer.location == f"/runs/{RUN}"
    page = rig.browser.get("/workers/nobody").text
    assert "nightly-7 is being cancelled." in page
    assert "is being cancelled" not in rig.browser.get("/workers/nobody").text


def test_what_has_ended_is_not_cancelled(rig: Rig) -> None:
    rig.answers[GetRun] = ENDED
    answer = rig.browser.get(f"/do/cancel?target={RUN}")
    assert answer.status_code == 409
    assert "nightly-7 has ended already: failed." in answer.text


def test_running_again_is_one_run_however_often_it_is_sent(rig: Rig) -> None:
    """The key is drawn when the page asks, so the same form is the same run."""
    rig.answers[GetRun] = ENDED
    rig.answers[RerunRun] = RunReceipt(run_id="s" * 16, alias="nightly-8")
    text, answer = rig.do("rerun", RUN)
    assert "only what did not succeed: 1 job" in text
    (first,) = rig.asked
    assert (first.run, first.failed) == (RUN, True)
    assert re.fullmatch(r"dashboard-[0-9a-f]{32}", first.key)
    assert answer.location == f"/runs/{'s' * 16}"
    _, _ = rig.do("rerun", RUN, choice="all", key=first.key)
    (second,) = rig.asked
    assert (second.key, second.failed) == (first.key, False)


def test_a_job_is_stopped_and_a_gate_decided(rig: Rig) -> None:
    rig.answers[StopJob] = JOB
    text, answer = rig.do("stop-job", f"{RUN}/LOAD")
    assert "what depends on it" in text
    assert rig.asked == [StopJob(run=RUN, job="LOAD")]
    assert answer.location == f"/runs/{RUN}/jobs/LOAD"
    rig.answers[GetJob], rig.answers[DecideGate] = ASKS, GATE
    text, _ = rig.do("approve", f"{RUN}/REVIEW", comment=" fine ")
    assert "&lt;b&gt;Right?" in text
    assert rig.asked == [DecideGate(gate=f"{RUN}/REVIEW", approve=True, comment="fine")]
    rig.do("reject", f"{RUN}/REVIEW")
    assert rig.asked == [DecideGate(gate=f"{RUN}/REVIEW", approve=False)]


def test_services_are_listed_stopped_and_replaced(rig: Rig) -> None:
    page = rig.browser.get("/services").text
    assert "weather/API" in page
    assert "healthy" in page
    rig.answers[StopService] = API
    text, answer = rig.do("stop-service", "weather/API")
    assert "1 of it (h:8080) will be told to end" in text
    assert rig.asked == [StopService(service="weather/API")]
    assert answer.location == "/services"
    rig.answers[RestartService] = ServiceList(services=(API,))
    rig.do("restart-service", "weather/API")
    assert rig.asked == [RestartService(service="weather/API")]
    assert rig.browser.get("/do/stop-service?target=nobody").status_code == 404


def test_services_that_ended_say_why(rig: Rig) -> None:
    ended = ServiceView(
        name="old/API", run_id="o" * 16, run_alias="old-1", job_id="API", attempt=1,
        state=ServiceState.FAILED, ended_at_ms=9, reason=ExitReason.CRASH_LOOP,
    )  # fmt: skip
    rig.ended = (ended,)
    assert "it ended again and again" in rig.browser.get("/services").text


def test_no_services_teach_how_to_have_one(rig: Rig) -> None:
    rig.answers[ListServices] = ServiceList(services=())
    assert "titan deploy" in rig.browser.get("/services").text


def test_a_worker_is_drained_and_another_launched(rig: Rig) -> None:
    rig.answers[ShutDownWorker] = ShutdownOrdered(worker=WORKER)
    text, _ = rig.do("drain", "8080")
    assert "2 running jobs may end" in text
    assert rig.asked == [ShutDownWorker(worker="8080")]
    rig.answers[SpawnWorker] = SpawnOrdered(number=1, parent="h:8080", port=8081)
    text, _ = rig.do("launch", "")
    assert 'value="8081"' in text
    assert rig.asked == [SpawnWorker(port=8081)]
    assert rig.do("launch", "h:8080", port="x")[1].status_code == 409


@pytest.mark.parametrize("target", ["", "x", "a/b/c", "<script>"])
@pytest.mark.parametrize("action", ["stop-job", "approve", "stop-service", "drain"])
def test_a_target_that_is_none_is_a_page_of_its_own(rig: Rig, action: str, target: str) -> None:
    rig.answers[GetJob] = Trouble(Kind.MISSING, "no such job")
    answer = rig.browser.get(f"/do/{action}", query_string={"target": target})
    assert answer.status_code == 404
    assert "<script>" not in answer.text
    assert rig.browser.get("/do/nonsense").status_code == 404


def test_what_the_master_forbids_or_refuses_is_said(rig: Rig) -> None:
    for kind, status in ((Kind.FORBIDDEN, 403), (Kind.CONFLICT, 409), (Kind.AWAY, 503)):
        rig.answers[CancelRun] = Trouble(kind, "because of <that>")
        _, answer = rig.do("cancel", RUN)
        assert answer.status_code == status
        assert "because of &lt;that&gt;" in answer.text


def test_nothing_is_done_by_following_a_link_or_without_the_number(rig: Rig) -> None:
    rig.asked.clear()
    assert rig.browser.post("/do/cancel", data={"target": RUN}).status_code == 403
    assert rig.asked == []


def test_who_may_only_look_is_offered_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path, monkeypatch, role="viewer")
    assert "/do/" not in rig.browser.get("/services").text
