"""Requests: selectors, pages, what is answered here and what goes on to history."""

from __future__ import annotations

import pytest
from core_world import World, effects, events, job, run

from titan_master.core.effects import AskHistory
from titan_proto.codec import encode
from titan_proto.errors import ErrorCode
from titan_proto.limits import FRAME_PAYLOAD_BYTES, REPORT_MESSAGE_CHARS
from titan_proto.messages import (
    CancelRun,
    GetJob,
    GetRun,
    GetStats,
    JobView,
    ListAttempts,
    ListJobs,
    ListRuns,
    ListServices,
    ReadLog,
    RunView,
    WaitJob,
    WaitRun,
    WatchRun,
)
from titan_proto.states import ExitReason

RUN_1 = "0000000000000001"
RUN_2 = "0000000000000002"


def two_runs(workers=None):
    w = World(workers)
    w.submit(run("nightly", job("a"), job("b", "a")), run_id=RUN_1)
    w.submit(run("hourly", job("a")), run_id=RUN_2)
    return w


def question(w, request):
    """What goes on to history."""
    turn = w.ask(request)
    assert events(turn) == []
    assert len(turn.effects) == 1
    assert isinstance(turn.effects[0], AskHistory)
    return turn.effects[0]


# -- selectors ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("selector", "run_id"),
    [(RUN_1, RUN_1), ("nightly-1", RUN_1), ("hourly-1", RUN_2), ("@last", RUN_2)],
)
def test_a_live_run_is_found_by_its_id_its_alias_or_as_the_last(selector, run_id):
    assert two_runs().answer(GetRun(run=selector)).run_id == run_id


def test_a_prefix_goes_to_history_with_the_live_runs_that_it_fits():
    w = two_runs()
    asked = question(w, GetRun(run="night"))
    assert asked.live_ids == (RUN_1,)
    assert question(w, GetRun(run="00")).live_ids == (RUN_1, RUN_2)
    assert question(w, GetRun(run="00")).live_aliases == ("nightly-1", "hourly-1")
    assert question(w, GetRun(run="gone")).live_ids == ()


def test_an_exact_id_that_is_not_live_goes_to_history_alone():
    asked = question(two_runs(), WaitRun(run="000000000000000x"))
    assert asked.request == WaitRun(run="000000000000000x")
    assert asked.live_ids == ()


def test_the_last_run_stays_the_last_when_it_has_ended():
    w = two_runs({"w1": 4})
    w.ended(f"{RUN_2}/a")
    assert question(w, GetRun(run="@last")).request == GetRun(run=RUN_2)


@pytest.mark.parametrize("selector", ["@last", ""])
def test_before_the_first_run_there_is_no_last(selector):
    w = World()
    assert w.answer(GetRun(run=selector)).code is ErrorCode.NOT_FOUND


@pytest.mark.parametrize(
    "request_",
    [
        CancelRun(run="gone-1"),
        ListJobs(run="gone-1"),
        WaitRun(run="gone-1"),
        WatchRun(run="gone-1"),
        GetJob(run="gone-1", job="a"),
        ListAttempts(run="gone-1", job="a"),
        WaitJob(run="gone-1", job="a"),
        ReadLog(run="gone-1", job="a"),
    ],
)
def test_everything_about_a_run_that_is_not_live_goes_to_history(request_):
    assert question(two_runs(), request_).request == request_


@pytest.mark.parametrize(
    "request_",
    [
        GetJob(run="@last", job="x"),
        WaitJob(run="@last", job="x"),
        ReadLog(run="@last", job="x"),
        ListAttempts(run="@last", job="x"),
    ],
)
def test_a_job_that_a_live_run_does_not_have_is_not_found(request_):
    error = two_runs().answer(request_)
    assert error.code is ErrorCode.NOT_FOUND
    assert "hourly-1 has no job 'x'" in error.message


def test_history_joins_the_attempts_of_a_live_job_to_what_the_core_says_of_it():
    w = two_runs({"w1": 1})
    w.running(f"{RUN_1}/a")
    asked = question(w, ListAttempts(run="nightly-1", job="a"))
    assert asked.request == ListAttempts(run=RUN_1, job="a")
    assert [(job.job_id, job.attempt) for job in asked.live_jobs] == [("a", 1)]
    assert asked.live_spec is not None
    assert asked.live_spec.id == "a"


def test_a_bare_job_is_the_newest_runs_if_no_ended_one_can_be_newer():
    w = two_runs()
    assert w.answer(GetJob(job="a")).run_id == RUN_2


def test_a_bare_job_of_an_older_run_is_for_history_to_compare():
    w = two_runs()
    assert question(w, GetJob(job="b")).live_ids == (RUN_1,)
    assert question(w, GetJob(job="nobody's")).live_ids == ()


# -- views ----------------------------------------------------------------------------------------
def test_a_run_is_shown_with_its_jobs_counted_by_state():
    w = two_runs({"w1": 1})
    assert w.answer(GetRun(run=RUN_1)) == RunView(
        run_id=RUN_1,
        alias="nightly-1",
        name="nightly",
        state="ACTIVE",
        submitted_at_ms=1_000_000,
        jobs=2,
        counts={"PLACED": 1, "BLOCKED": 1},
    )


def test_a_job_is_shown_with_what_it_waits_for_and_with_its_newest_attempt():
    w = two_runs({"w1": 1})
    view = w.answer(GetJob(run=RUN_1, job="b"))
    assert (view.waits_for, view.dependencies, view.attempt) == (("a",), ("a",), 0)
    w.running(f"{RUN_1}/a")
    w.ended(f"{RUN_1}/a", reason=ExitReason.LOST, message="gone")
    view = w.answer(GetJob(run=RUN_1, job="a"))
    assert isinstance(view, JobView)
    assert (view.state, view.attempt, view.lost) == ("QUEUED", 1, 1)
    assert (view.attempt_state, view.reason, view.worker) == ("ENDED", "LOST", "host:8080")


@pytest.mark.parametrize(
    ("workers", "why"),
    [
        ({}, "waits for a worker: none has joined"),
        ({"w1": 1}, "waits for a slot: all 1 of the 1 worker(s) with GENERAL are taken"),
    ],
)
def test_a_queued_job_says_why_it_waits(workers, why):
    w = World(workers)
    w.submit(run("r", job("first"), job("a")))
    assert w.answer(GetJob(run="r", job="a")).message == why


def test_a_job_that_no_worker_can_run_says_so():
    w = World({"w1": 1})
    w.submit(run("r", job("a", skills=["GPU"])))
    assert w.answer(GetJob(run="r", job="a")).message == (
        "waits for a worker with GPU: none of the 1 known has that"
    )


def test_jobs_are_listed_page_by_page_in_the_order_of_the_submission():
    w = World()
    w.submit(run("r", *(job(f"j{n}") for n in range(5))))
    page = w.answer(ListJobs(run="r", limit=2))
    assert [view.job_id for view in page.jobs] == ["j0", "j1"]
    page = w.answer(ListJobs(run="r", limit=2, cursor=page.cursor))
    page = w.answer(ListJobs(run="r", limit=2, cursor=page.cursor))
    assert [view.job_id for view in page.jobs] == ["j4"]
    assert page.cursor == ""


@pytest.mark.parametrize("limit", [0, -5, 10**9])
def test_a_page_holds_one_to_a_thousand_whatever_is_asked(limit):
    w = World()
    w.submit(run("r", *(job(f"j{n}") for n in range(1_200))))
    assert len(w.answer(ListJobs(run="r", limit=limit)).jobs) in {1, 1_000}


def test_a_page_ends_early_when_its_dependencies_would_not_fit_a_frame():
    w = World()
    parents = [job(f"p{n}") for n in range(6_000)]
    names = [parent.id for parent in parents]
    w.submit(run("r", *parents, *(job(f"c{n}", *names) for n in range(4))))
    page = w.answer(ListJobs(run="r", cursor="6000"))
    assert len(page.jobs) == 2
    assert len(w.answer(ListJobs(run="r", cursor=page.cursor)).jobs) == 2


def test_a_page_ends_early_when_its_messages_would_not_fit_a_frame():
    w = World({"w1": 4_000})
    w.submit(run("r", *(job(f"j{n}") for n in range(1_001))))
    w.advance(1)
    message = "\N{SNOWMAN}" * REPORT_MESSAGE_CHARS
    w.report("w1", *(w.ended_report(f"r/j{n}", 1, message=message) for n in range(1_000)))
    page = w.answer(ListJobs(run="r"))
    assert 100 < len(page.jobs) < 1_000
    assert len(encode(page)) < FRAME_PAYLOAD_BYTES
    assert w.answer(ListJobs(run="r", cursor=page.cursor)).jobs[0].job_id == f"j{len(page.jobs)}"


def test_runs_are_listed_newest_first_and_paged():
    w = World()
    for n in range(5):
        w.submit(run(f"r{n}", job("a")))
    page = w.answer(ListRuns(limit=2))
    assert [view.run_id for view in page.runs] == ["r4", "r3"]
    w.ask(CancelRun(run="r3"))  # that the cursor's run has gone meanwhile does no harm
    page = w.answer(ListRuns(limit=2, cursor=page.cursor))
    assert [view.run_id for view in page.runs] == ["r2", "r1"]
    page = w.answer(ListRuns(limit=2, cursor=page.cursor))
    assert ([view.run_id for view in page.runs], page.cursor) == (["r0"], "")


def test_ended_runs_follow_the_live_ones_out_of_history():
    w = World()
    for n in range(3):
        w.submit(run(f"r{n}", job("a")))
    page = w.answer(ListRuns(ended=True, limit=2))
    assert len(page.runs) == 2
    asked = question(w, ListRuns(ended=True, limit=2, cursor=page.cursor))
    assert [view.run_id for view in asked.live_runs] == ["r0"]
    assert asked.request == ListRuns(ended=True, limit=2)
    asked = question(w, ListRuns(ended=True, limit=2, cursor="of history"))
    assert asked.live_runs == ()
    assert asked.request.cursor == "of history"


def test_stats_count_workers_jobs_and_services():
    w = World({"w1": 2, "w2": 1})
    jobs = [job("api", service=True), job("a"), job("b", "a"), job("c", delay_ms=9), job("d")]
    w.submit(run("Shop", *jobs, job("e")), run_id="r")
    w.running("r/api", healthy=True, port=80)
    w.now_ms += 250
    stats = w.answer(GetStats())
    assert (stats.queued, stats.blocked, stats.delayed, stats.running) == (1, 1, 1, 2)
    assert (stats.runs_active, stats.services, stats.term) == (1, 1, 1)
    first, second = stats.workers
    assert (first.used, first.slots, first.services) == (2, 2, ("Shop/api",))
    assert (second.used, second.seen_ms_ago) == (1, 250)


def test_services_are_listed():
    w = World({"w1": 2})
    w.submit(run("Shop", job("api", service=True)), run_id="r")
    assert w.answer(ListServices()).services == ()
    w.running("r/api", healthy=True, port=80)
    (view,) = w.answer(ListServices()).services
    assert (view.name, view.port, view.worker, view.state) == (
        "Shop/api",
        80,
        "host:8080",
        "HEALTHY",
    )


# -- logs -----------------------------------------------------------------------------------------
def test_the_log_of_a_running_job_is_served_from_the_store():
    w = two_runs({"w1": 1})
    turn = w.ask(ReadLog(run=RUN_1, job="a"))
    assert effects(turn) == [
        f"ServeLog(origin=1.3, ref={RUN_1}/a.1, request=ReadLog(run={RUN_1}, job=a), ended=False)"
    ]


def test_the_log_of_an_ended_job_is_served_with_its_final_sizes():
    w = two_runs({"w1": 1})
    w.ended(f"{RUN_1}/a", stdout_bytes=7, stderr_bytes=1)
    (served,) = w.ask(ReadLog(run=RUN_1, job="a")).effects
    assert (served.ended, served.stdout_bytes, served.stderr_bytes, served.lost) == (
        True,
        7,
        1,
        False,
    )


def test_nobody_knows_the_sizes_of_a_lost_attempts_log():
    w = two_runs({"w1": 1})
    w.ended(f"{RUN_1}/a", reason=ExitReason.LOST)
    (served,) = w.ask(ReadLog(run=RUN_1, job="a", follow=True)).effects
    assert (served.ended, served.lost) == (True, True)


def test_an_earlier_attempts_log_is_for_history_to_find():
    w = two_runs({"w1": 2})
    w.ended(f"{RUN_1}/a", reason=ExitReason.LOST)
    asked = question(w, ReadLog(run="nightly-1", job="a", attempt=1))
    assert asked.request == ReadLog(run=RUN_1, job="a", attempt=1)


def test_an_attempt_that_has_not_been_is_not_found():
    w = two_runs({"w1": 2})
    error = w.answer(ReadLog(run=RUN_1, job="a", attempt=2))
    assert error.code is ErrorCode.NOT_FOUND


def test_a_job_that_has_not_started_has_no_log_yet():
    w = two_runs()
    error = w.answer(ReadLog(run=RUN_1, job="a"))
    assert error.code is ErrorCode.NOT_FOUND
    assert error.details == {"state": "QUEUED"}
