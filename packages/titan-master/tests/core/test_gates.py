"""Gates: what a person decides, once, and what waits for it meanwhile."""

from __future__ import annotations

import pytest
from core_world import START_MS, World, effects, events, gate, job, kinds, run

from titan_master.core.effects import AskHistory
from titan_master.core.gates import EXPIRED_AT_ONCE
from titan_proto.errors import ErrorCode
from titan_proto.limits import (
    DECISION_CHARS,
    GATE_MESSAGE_CHARS,
    GATE_TIMEOUT_MS_DEFAULT,
    PAGE_ITEMS,
)
from titan_proto.messages import (
    CancelRun,
    DecideGate,
    Error,
    GateView,
    GetJob,
    GetRun,
    GetStats,
    ListGates,
    ListJobs,
    ReadLog,
    WaitRun,
    WatchRun,
)
from titan_proto.specs import GateExpiry
from titan_proto.states import ExitReason, JobState, RunState


def approve(name, comment=""):
    return DecideGate(gate=name, approve=True, comment=comment)


def reject(name, comment=""):
    return DecideGate(gate=name, approve=False, comment=comment)


def reviewed(*jobs, slots=1, **section):
    """A run whose gate ``ok`` stands between ``a`` and ``b``; ``a`` has succeeded."""
    w = World({"w1": slots} if slots else {})
    w.submit(run("r", job("a"), gate("ok", "a", **section), job("b", "ok"), *jobs))
    w.ended("r/a")
    return w


def refused(answer, code):
    assert isinstance(answer, Error), answer
    assert answer.code is code
    return answer.message


def test_a_gate_opens_once_its_dependencies_have_succeeded_and_takes_no_slot():
    w = reviewed(job("other", "a"), message="Ship?")
    assert w.job_states("r") == {
        "a": "SUCCEEDED",
        "ok": "WAITING",
        "b": "BLOCKED",
        "other": "PLACED",
    }
    assert w.state.runs["r"].jobs["ok"].attempt is None
    (view,) = w.answer(ListGates()).gates
    assert view == GateView(
        run_id="r",
        run_alias="r-1",
        job_id="ok",
        state=JobState.WAITING,
        message="Ship?",
        opened_at_ms=START_MS,
        expires_at_ms=START_MS + GATE_TIMEOUT_MS_DEFAULT,
    )
    stats = w.answer(GetStats())
    assert (stats.waiting, stats.queued, stats.workers[0].used) == (1, 0, 1)


def test_a_gate_without_dependencies_opens_with_its_run():
    w = World()
    turn = w.submit(run("r", gate("ok"), job("b", "ok")))
    assert kinds(turn) == ["RunAccepted"]
    assert w.job_states("r") == {"ok": "WAITING", "b": "BLOCKED"}


def test_an_approved_gate_lets_what_comes_after_it_begin():
    w = reviewed()
    turn = w.ask(approve("r/ok", "fine"), who="t1")
    assert kinds(turn) == ["GateDecided", "JobEnded", "JobsQueued", "AttemptPlaced"]
    job_ok = w.state.runs["r"].jobs["ok"]
    assert (job_ok.state, job_ok.reason) == (JobState.SUCCEEDED, ExitReason.APPROVED)
    view = w.answer(GetJob(run="r", job="ok")).gate
    assert (view.decided_by, view.comment, view.decided_at_ms) == ("t1", "fine", w.now_ms)


def test_a_rejected_gate_fails_and_skips_what_hangs_on_it():
    w = reviewed(job("c", "b"))
    watch = w.ask(WaitRun(run="r"))
    turn = w.ask(reject("r/ok", "no good"), who="t1")
    assert kinds(turn) == ["GateDecided", "JobEnded", "JobsDropped", "RunEnded"]
    assert "state=SKIPPED" in events(turn)[2]
    assert "message='rejected by t1: no good'" in events(turn)[1]
    assert any("state=FAILED" in effect for effect in effects(turn))
    assert watch.events == ()


def test_the_same_decision_twice_is_one_and_the_first_comment_stays():
    w = reviewed(job("other", "a"))
    first = w.answer(approve("r/ok", "one"), who="t1")
    again = w.ask(approve("r-1/ok", "two"), who="t2")
    assert again.events == ()
    assert w.answer(approve("r/ok"), who="t2") == first
    assert (first.decided_by, first.comment) == ("t1", "one")


def test_another_decision_is_refused_and_says_who_decided():
    w = reviewed()
    w.ask(approve("r/ok", "fine"), who="t1")
    text = refused(w.answer(reject("r/ok"), who="t2"), ErrorCode.CONFLICT)
    assert "approved by t1: fine" in text
    assert w.job_state("r/ok") is JobState.SUCCEEDED


def test_a_gate_that_is_not_open_yet_cannot_be_decided():
    """Nothing may be approved before it can be looked at."""
    w = World({"w1": 1})
    w.submit(run("r", job("a"), gate("ok", "a"), gate("later", delay_ms=5_000)))
    assert "BLOCKED" in refused(w.answer(approve("r/ok")), ErrorCode.CONFLICT)
    assert "SCHEDULED" in refused(w.answer(approve("later")), ErrorCode.CONFLICT)
    w.ended("r/a")
    assert w.job_state("r/ok") is JobState.WAITING


def test_a_bare_id_means_the_one_open_gate_of_that_name():
    w = World()
    for name in ("r", "s"):
        w.submit(run(name, gate("ok"), gate(f"only-{name}")))
    text = refused(w.answer(approve("ok")), ErrorCode.CONFLICT)
    assert "r-1/ok, s-1/ok" in text
    assert w.answer(approve("only-r")).run_id == "r"
    w.ask(reject("s/ok"))
    assert w.answer(approve("ok")).run_id == "r"


def test_a_bare_id_repeated_after_the_decision_is_the_same_decision():
    """A client that lost the answer asks again with the same words."""
    w = reviewed()
    assert w.answer(approve("ok")) == w.answer(approve("ok"))
    refused(w.answer(reject("ok")), ErrorCode.CONFLICT)


def test_what_is_no_gate_is_refused_with_the_open_ones_listed():
    w = reviewed()
    for name in ("r/a", "r/nothing"):
        text = refused(w.answer(approve(name)), ErrorCode.NOT_FOUND)
        assert "open are r-1/ok" in text
    w.ask(approve("r/ok"))
    assert "no gate is open" in refused(w.answer(approve("r/nothing")), ErrorCode.NOT_FOUND)


@pytest.mark.parametrize("name", ["nobody", "nobody/ok", "@last/nothing"])
def test_what_the_core_does_not_know_is_asked_of_history_with_the_one_who_decides(name):
    w = World()
    turn = w.ask(approve(name), who="t1")
    (asked,) = turn.effects
    assert isinstance(asked, AskHistory)
    assert (asked.by, asked.open_gates) == ("t1", "no gate is open")


def test_only_so_many_open_gates_are_listed():
    w = World()
    w.submit(run("r", *(gate(f"g{n}") for n in range(30)), job("x")))
    text = refused(w.answer(approve("r/x")), ErrorCode.NOT_FOUND)
    assert text.endswith("r-1/g9 and 20 more")


def test_a_comment_is_bounded():
    w = reviewed()
    text = refused(w.answer(approve("r/ok", "x" * (DECISION_CHARS + 1))), ErrorCode.LIMIT_EXCEEDED)
    assert f"DECISION_CHARS ({DECISION_CHARS})" in text
    assert w.job_state("r/ok") is JobState.WAITING
    assert w.answer(approve("r/ok", "x" * DECISION_CHARS)).reason is ExitReason.APPROVED


@pytest.mark.parametrize(
    ("on_timeout", "state", "below"),
    [
        (GateExpiry.REJECT, "FAILED", "SKIPPED"),
        (GateExpiry.FAIL, "FAILED", "SKIPPED"),
        (GateExpiry.APPROVE, "SUCCEEDED", "PLACED"),
    ],
)
def test_time_decides_as_on_timeout_says(on_timeout, state, below):
    w = reviewed(job("stays", "a"), timeout_ms=5_000, on_timeout=on_timeout, slots=2)
    w.advance(4_999)
    assert w.job_state("r/ok") is JobState.WAITING
    w.advance(1)
    states = w.job_states("r")
    assert (states["ok"], states["b"]) == (state, below)
    view = w.answer(GetJob(run="r", job="ok"))
    assert (view.reason, view.gate.decided_by) == (ExitReason.EXPIRED, "")
    assert view.message.startswith("nobody decided within 5 s")
    refused(w.answer(approve("r/ok")), ErrorCode.CONFLICT)
    refused(w.answer(reject("r/ok")), ErrorCode.CONFLICT)


def test_a_gate_without_a_timeout_waits_for_ever():
    w = reviewed(timeout_ms=0)
    w.advance(400 * 24 * 3_600_000)
    assert w.job_state("r/ok") is JobState.WAITING


def test_a_delayed_gate_opens_after_its_delay_and_its_time_runs_from_then():
    w = World()
    w.submit(run("r", gate("ok", delay_ms=10_000, timeout_ms=5_000)))
    w.advance(10_000)
    assert w.job_state("r/ok") is JobState.WAITING
    w.advance(4_999)
    assert w.job_state("r/ok") is JobState.WAITING
    w.advance(1)
    assert "r" not in w.state.runs


def test_gates_of_which_many_expire_at_once_do_so_in_bounded_turns():
    w = World()
    count = 2 * EXPIRED_AT_ONCE + 1
    w.submit(run("r", *(gate(f"g{n}", timeout_ms=5_000) for n in range(count))))
    w.now_ms += 5_000
    turn = w.turn()
    assert kinds(turn).count("GateDecided") == EXPIRED_AT_ONCE
    turn = w.advance(10)
    assert kinds(turn).count("GateDecided") == EXPIRED_AT_ONCE + 1
    assert not w.state.runs


def test_cancelling_the_run_closes_its_gates_and_they_cannot_be_decided():
    w = reviewed(job("other", "a"))
    w.ask(CancelRun(run="r"))
    assert w.job_state("r/ok") is JobState.CANCELLED
    assert w.answer(ListGates()).gates == ()
    refused(w.answer(approve("r/ok")), ErrorCode.CONFLICT)


def test_an_open_gate_and_its_deadline_survive_a_restart():
    w = reviewed(timeout_ms=60_000, on_timeout=GateExpiry.REJECT)
    (before,) = w.answer(ListGates()).gates
    w.restart()
    assert w.answer(ListGates()).gates == (before,)
    w.join("w1", incarnation=2)
    w.advance(59_999)
    assert w.job_state("r/ok") is JobState.WAITING
    w.advance(1)
    assert "r" not in w.state.runs


def test_open_gates_come_in_pages_oldest_first():
    w = World()
    w.submit(run("r", *(gate(f"g{n}") for n in range(5))))
    first = w.answer(ListGates(limit=2))
    assert [view.job_id for view in first.gates] == ["g0", "g1"]
    for name in ("g0", "g1", "g2"):
        w.ask(approve(f"r/{name}"))
    rest = w.answer(ListGates(limit=2, cursor=first.cursor))
    assert [view.job_id for view in rest.gates] == ["g3", "g4"]
    assert rest.cursor == ""


def test_a_page_of_long_questions_fits_into_a_frame():
    w = World()
    question = "é" * GATE_MESSAGE_CHARS
    w.submit(run("r", *(gate(f"g{n}", message=question) for n in range(400))))
    page = w.answer(ListGates(limit=PAGE_ITEMS))
    assert 100 < len(page.gates) < 200
    jobs = w.answer(ListJobs(run="r"))
    assert 0 < len(jobs.jobs) < 100
    assert jobs.cursor == str(len(jobs.jobs))


def test_who_watches_is_told_the_question():
    w = reviewed(message="Ship?")
    told = effects(w.ask(WatchRun(run="r")))
    assert any("job_id=ok, state=WAITING, message=Ship?" in line for line in told)
    assert w.answer(GetJob(run="r", job="ok")).message == "Ship?"
    assert w.answer(GetRun(run="r")).counts["WAITING"] == 1


def test_a_gate_has_no_log():
    w = reviewed()
    refused(w.answer(ReadLog(run="r", job="ok", follow=True)), ErrorCode.NOT_FOUND)


def test_affinity_looks_through_a_gate_at_what_it_stands_after():
    """Otherwise an approval between two jobs would take the second one's home away."""
    w = World({"w1": 4, "w2": 4})
    w.submit(run("r", job("a"), gate("ok", "a"), job("b", "ok", affinity=True), job("c", "ok")))
    home = w.worker_of("r/a")
    w.submit(run("s", *(job(name) for name in "xyz")))
    w.ended("r/a")
    for name in "xyz":
        if w.worker_of(f"s/{name}") != home:
            w.ended(f"s/{name}")
    assert len(w.state.workers[home].held) > 0, "its home is the fuller one"
    w.ask(approve("r/ok"))
    assert w.worker_of("r/b") == home
    assert w.worker_of("r/c") != home


def test_a_run_of_an_approved_gate_alone_has_succeeded():
    w = World()
    w.submit(run("r", gate("ok")))
    turn = w.ask(approve("r/ok"))
    assert f"state={RunState.SUCCEEDED}" in events(turn)[-1]
