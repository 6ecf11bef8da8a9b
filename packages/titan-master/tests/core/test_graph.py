"""Questions about a run's graph, compared with slow and simple answers."""

from __future__ import annotations

import msgspec
import pytest
from core_world import World, events, gate, job, run
from hypothesis import given, settings
from hypothesis import strategies as st

from titan_master.core.core import CoreConfig
from titan_master.core.graph import End, Outcome, decided_by
from titan_master.core.queries import dead_jobs, job_view
from titan_master.core.state import layers_above
from titan_proto.messages import CancelRun, DecideGate, StopJob
from titan_proto.messages.worker import Left
from titan_proto.specs import RetryPolicy, Shape, Trigger
from titan_proto.states import JOB_TERMINAL, ExitReason, JobState


def last(turn):
    return events(turn)[-1]


@st.composite
def graphs(draw):
    """Jobs in any order; each depends on some with a smaller number."""
    size = draw(st.integers(1, 12))
    jobs = [
        job(f"j{n}", *(f"j{p}" for p in draw(st.sets(st.integers(0, n - 1), max_size=4))))
        if n
        else job("j0")
        for n in range(size)
    ]
    return draw(st.permutations(jobs))


def dropped_below(admitted_run, job_id):
    """As if this job had just failed."""
    top = admitted_run.jobs[job_id]
    top.state = JobState.FAILED
    outcome = decided_by(admitted_run, [top])
    assert not outcome.opened
    assert {end for end, _ in outcome.dropped} <= {End(JobState.SKIPPED, ExitReason.PARENT_FAILED)}
    return [one.spec.id for _, jobs in outcome.dropped for one in jobs]


def admitted(jobs):
    w = World()
    w.submit(run("r", *jobs))
    return w.state.runs["r"]


@settings(max_examples=80, deadline=None)
@given(jobs=graphs(), data=st.data())
def test_below_a_failure_everything_that_needs_it_is_dropped_however_indirectly(jobs, data):
    admitted_run = admitted(jobs)
    start = data.draw(st.sampled_from(jobs))
    below = {start.id}
    for _ in jobs:
        below |= {one.id for one in jobs if below & set(one.dependencies)}
    assert dropped_below(admitted_run, start.id) == [
        one.id for one in jobs if one.id in below - {start.id}
    ]


@settings(max_examples=80, deadline=None)
@given(jobs=graphs())
def test_a_run_opens_level_by_level_until_nothing_is_blocked(jobs):
    w = World({"w1": 20})
    w.submit(run("r", *jobs, job("keeps-the-run", skills=["NONE"])))
    live = w.state.runs["r"]
    done: set[str] = set()
    while True:
        placed = [one for one in live.order if one.state is JobState.PLACED]
        if not placed:
            break
        one = placed[-1]
        assert set(one.spec.dependencies) <= done
        w.ended(f"r/{one.spec.id}")
        done.add(one.spec.id)
    assert len(done) == len(jobs)


def test_a_job_is_opened_once_though_two_parents_end_together():
    admitted_run = admitted([job("a"), job("b"), job("c", "a", "b")])
    child = admitted_run.jobs["c"]
    child.waiting = 0
    parents = [admitted_run.jobs["a"], admitted_run.jobs["b"]]
    for parent in parents:
        parent.state = JobState.SUCCEEDED
    assert decided_by(admitted_run, parents) == Outcome([child], [], {})
    child.waiting = 1
    assert decided_by(admitted_run, parents) == Outcome([], [], {})


def test_a_chain_of_fifty_thousand_is_no_recursion():
    jobs = [job("j0"), *(job(f"j{n}", f"j{n - 1}") for n in range(1, 50_000))]
    w = World()
    w.core.handle(w.submission(run("r", *jobs)), w.now_ms)
    admitted_run = w.state.runs["r"]
    assert len(dropped_below(admitted_run, "j0")) == 49_999


def test_what_is_reached_on_many_ways_is_looked_at_once():
    """Sixty layers of two jobs, each on both below: 2^60 ways through 120 jobs."""
    jobs = [job("a0"), job("b0")]
    for n in range(1, 60):
        jobs += [job(f"{name}{n}", f"a{n - 1}", f"b{n - 1}") for name in "ab"]
    admitted_run = admitted(jobs)
    assert len(dropped_below(admitted_run, "a0")) == 118


# -- triggers -------------------------------------------------------------------------------------
TRIGGERS = [one for one in Trigger if one is not Trigger.UNKNOWN]
OK, BAD, SKIPPED = JobState.SUCCEEDED, JobState.FAILED, JobState.SKIPPED


def begins(trigger, ends):
    """Whether a job begins after dependencies that ended so: succeeded, failed or skipped, each with
    whether that counts as a failure. Slow and simple, and never in the way of the core.
    """
    states = [state for state, _ in ends]
    failed = [is_failure for _, is_failure in ends]
    return {
        Trigger.ALL_SUCCEEDED: set(states) <= {OK},
        Trigger.ALL_DONE: True,
        Trigger.ANY_FAILED: any(failed),
        Trigger.ANY_SUCCEEDED: OK in states,
        Trigger.NONE_FAILED: not any(failed),
    }[trigger]


@settings(max_examples=150, deadline=None)
@given(jobs=graphs(), data=st.data())
def test_every_job_ends_as_its_trigger_says_in_whatever_order_things_happen(jobs, data):
    triggers = {one.id: data.draw(st.sampled_from(TRIGGERS)) for one in jobs if one.dependencies}
    fails = {one.id: data.draw(st.booleans(), label=f"{one.id} fails") for one in jobs}
    expected: dict[str, tuple[JobState, bool]] = {}
    while len(expected) < len(jobs):
        for one in jobs:
            if one.id in expected or not set(one.dependencies) <= expected.keys():
                continue
            above = [expected[parent] for parent in one.dependencies]
            trigger = triggers.get(one.id, Trigger.ALL_SUCCEEDED)
            if begins(trigger, above):
                expected[one.id] = (BAD, True) if fails[one.id] else (OK, False)
            else:
                # Only what waits for failures alone is skipped for want of one.
                wants = trigger is not Trigger.ANY_FAILED
                expected[one.id] = (SKIPPED, wants and any(failed for _, failed in above))
    w = World({"w1": 20})
    w.submit(run("r", *jobs, job("keeps-the-run", skills=["NONE"]), **triggers))
    live = w.state.runs["r"]
    while placed := [one for one in live.order if one.state is JobState.PLACED]:
        one = data.draw(st.sampled_from(placed), label="ends next")
        w.ended(f"r/{one.spec.id}", int(fails[one.spec.id]))
    assert {one.id: live.jobs[one.id].state for one in jobs} == {
        name: state for name, (state, _) in expected.items()
    }


def begun(trigger, *ends):
    """What becomes of a job with this trigger after dependencies that end so, and for what reason."""
    w = World({"w1": 20})
    names = [f"p{n}" for n in range(len(ends))]
    w.submit(
        run(
            "r",
            *(job(name) for name in names),
            job("x", *names),
            job("keeps-the-run", skills=["NONE"]),
            x=trigger,
        )
    )
    for name, end in zip(names, ends, strict=True):
        if end is JobState.CANCELLED:
            w.ask(StopJob(run="r", job=name))
            w.ended(f"r/{name}", reason=ExitReason.CANCELLED)
        else:
            w.ended(f"r/{name}", int(end is BAD))
    found = w.state.runs["r"].jobs["x"]
    assert found.is_terminal == (found.state in JOB_TERMINAL)
    return str(found.reason) if found.is_terminal else str(found.state)


GONE = JobState.CANCELLED


@pytest.mark.parametrize(
    ("trigger", "ends", "becomes"),
    [
        (Trigger.ALL_SUCCEEDED, (OK, OK), "PLACED"),
        (Trigger.ALL_SUCCEEDED, (OK, BAD), "PARENT_FAILED"),
        (Trigger.ALL_SUCCEEDED, (GONE, OK), "CANCELLED"),
        (Trigger.ALL_DONE, (OK, BAD), "PLACED"),
        (Trigger.ALL_DONE, (GONE, BAD), "PLACED"),
        (Trigger.ANY_FAILED, (OK, BAD), "PLACED"),
        (Trigger.ANY_FAILED, (OK, OK), "TRIGGER_UNMET"),
        (Trigger.ANY_FAILED, (OK, GONE), "TRIGGER_UNMET"),
        (Trigger.ANY_SUCCEEDED, (BAD, OK), "PLACED"),
        (Trigger.ANY_SUCCEEDED, (BAD, GONE), "PARENT_FAILED"),
        (Trigger.ANY_SUCCEEDED, (GONE, GONE), "CANCELLED"),
        (Trigger.NONE_FAILED, (OK, OK), "PLACED"),
        (Trigger.NONE_FAILED, (OK, BAD), "PARENT_FAILED"),
        (Trigger.NONE_FAILED, (OK, GONE), "CANCELLED"),
    ],
)
def test_what_a_trigger_makes_of_how_dependencies_ended(trigger, ends, becomes):
    assert begun(trigger, *ends) == becomes


def test_a_job_that_waits_for_all_to_end_is_not_begun_by_the_first_of_them():
    w = World({"w1": 20})
    w.submit(run("r", job("a"), job("b"), job("x", "a", "b"), x=Trigger.ANY_FAILED))
    w.ended("r/a", 1)
    assert w.job_states("r")["x"] == "BLOCKED"
    w.ended("r/b")
    assert w.job_states("r")["x"] == "PLACED"


def test_a_handled_failure_leaves_its_run_failed():
    w = World({"w1": 20})
    w.submit(run("r", job("a"), job("mend", "a"), job("after", "mend"), mend=Trigger.ANY_FAILED))
    w.ended("r/a", 1)
    w.ended("r/mend")
    assert last(w.ended("r/after")) == "RunEnded(run_id=r, state=FAILED)"


def test_a_handler_that_has_nothing_to_do_leaves_its_run_succeeded():
    w = World({"w1": 20})
    w.submit(run("r", job("a"), job("mend", "a"), job("after", "mend"), mend=Trigger.ANY_FAILED))
    assert events(w.ended("r/a"))[2:] == [
        "JobsDropped(run_id=r, job_ids=[mend], state=SKIPPED, reason=TRIGGER_UNMET)",
        "JobsDropped(run_id=r, job_ids=[after], state=SKIPPED, reason=PARENT_SKIPPED)",
        "RunEnded(run_id=r, state=SUCCEEDED)",
    ]


def test_a_run_that_is_cancelled_begins_nothing_whatever_its_trigger():
    w = World({"w1": 20})
    w.submit(run("r", job("a"), job("tidy", "a"), tidy=Trigger.ALL_DONE))
    w.ask(CancelRun(run="r"))
    assert last(w.ended("r/a", reason=ExitReason.CANCELLED)) == (
        "RunEnded(run_id=r, state=CANCELLED)"
    )


def test_a_job_below_a_failure_that_is_tried_again_waits_for_its_last_try():
    w = World({"w1": 20})
    patient = msgspec.structs.replace(job("a"), retries=RetryPolicy(limit=1, delay_ms=0))
    w.submit(run("r", patient, job("mend", "a"), mend=Trigger.ANY_FAILED))
    w.ended("r/a", 1)
    assert w.job_states("r")["mend"] == "BLOCKED"
    w.advance(10)
    w.ended("r/a", 1)
    assert w.job_states("r")["mend"] == "PLACED"


def test_a_rejected_gate_is_a_failure_to_those_after_it():
    w = World({"w1": 20})
    w.submit(run("r", gate("ask"), job("tell", "ask"), tell=Trigger.ANY_FAILED))
    w.ask(DecideGate(gate="r/ask", approve=False))
    assert w.job_states("r")["tell"] == "PLACED"


def test_files_from_above_a_failure_come_to_what_is_begun_after_it():
    w = World({"w1": 20})
    w.join("w2", workspace="elsewhere")
    w.submit(run("r", job("a"), job("b", "a"), job("x", "b"), x=Trigger.ALL_DONE))
    w.ended("r/a", left=Left(digest="d" * 64, size_bytes=1, shared=1))
    w.ended("r/b", 1)
    live = w.state.runs["r"]
    assert layers_above(live, live.jobs["x"]) == 1


# -- over only when everything above is -------------------------------------------------------------
def test_what_follows_a_skipped_job_waits_for_what_still_runs_above_that():
    """A failure skips b at once; the clean-up must not begin while c, above b as well, still works."""
    w = World({"w1": 9})
    tidy = Trigger.ALL_DONE
    w.submit(run("r", job("a"), job("c"), job("b", "a", "c"), job("tidy", "b"), tidy=tidy))
    w.running("r/c")
    w.ended("r/a", 1)
    assert w.job_states("r") == {"a": "FAILED", "c": "RUNNING", "b": "SKIPPED", "tidy": "BLOCKED"}
    live = w.state.runs["r"]
    assert job_view(live, live.jobs["tidy"]).waits_for == ("c",)
    w.restart()
    w.join("w1", held=[("r/c.1", "RUNNING")])
    assert events(w.ended("r/c"))[2] == "JobsQueued(run_id=r, job_ids=[tidy])"


def test_what_follows_a_cancelled_job_waits_for_what_still_runs_above_that():
    w = World({"w1": 9})
    w.submit(
        run("r", job("c"), job("b", "c"), job("d", "b"), job("tidy", "d"), tidy=Trigger.ALL_DONE)
    )
    w.ask(StopJob(run="r", job="b"))
    assert w.job_states("r") == {
        "c": "PLACED",
        "b": "CANCELLED",
        "d": "CANCELLED",
        "tidy": "BLOCKED",
    }
    w.ended("r/c")
    assert w.job_states("r")["tidy"] == "PLACED"


def test_a_condition_reads_how_a_job_ended_that_ends_after_a_skip_below_it():
    w = World({"w1": 9})
    shape = Shape(
        when="jobs.c.outputs.rows > 0 and jobs.c.state == 'SUCCEEDED'", trigger=Trigger.ALL_DONE
    )
    w.submit(run("r", job("a"), job("c"), job("b", "a", "c"), job("x", "b"), x=shape))
    w.ended("r/a", 1)
    w.ended("r/c", outputs={"rows": "7"})
    assert w.job_states("r")["x"] == "PLACED"


@settings(max_examples=100, deadline=None)
@given(jobs=graphs(), data=st.data())
def test_no_job_begins_before_every_job_above_it_has_ended(jobs, data):
    """Whatever is stopped, fails or is skipped, in whatever order."""
    triggers = {one.id: data.draw(st.sampled_from(TRIGGERS)) for one in jobs if one.dependencies}
    above: dict[str, set[str]] = {one.id: set(one.dependencies) for one in jobs}
    for _ in jobs:
        for found in above.values():
            found |= {higher for parent in found for higher in above[parent]}
    w = World({"w1": 20})
    w.submit(run("r", *jobs, job("keeps-the-run", skills=["NONE"]), **triggers))
    live = w.state.runs["r"]
    while placed := [one for one in live.order if one.state is JobState.PLACED]:
        if data.draw(st.integers(0, 3), label="stop one") == 0:
            blocked = [one for one in live.order if one.state is JobState.BLOCKED]
            if blocked:
                w.ask(StopJob(run="r", job=data.draw(st.sampled_from(blocked)).spec.id))
                continue
        one = data.draw(st.sampled_from(placed), label="ends next")
        running = {each.spec.id for each in live.order if not each.is_terminal}
        assert not above[one.spec.id] & running
        w.ended(f"r/{one.spec.id}", data.draw(st.integers(0, 1), label="exit code"))
    assert all(live.jobs[one.id].is_over for one in jobs)


# -- conditions -----------------------------------------------------------------------------------
def conditional(when, *ends, outputs=None, trigger=Trigger.ALL_DONE):
    """What becomes of a job with this condition after a job `a` that ends so: reason or state, message."""
    w = World({"w1": 9})
    shape = Shape(when=when, trigger=trigger)
    keeps = job("keeps-the-run", skills=["NONE"])
    w.submit(run("r", job("a"), job("b", "a"), job("x", "b"), keeps, x=shape))
    w.ended("r/a", *ends, outputs=outputs or {})
    if w.job_state("r/b") is JobState.PLACED:
        w.ended("r/b")
    found = w.state.runs["r"].jobs["x"]
    return str(found.reason) if found.is_terminal else str(found.state), found.message


@pytest.mark.parametrize(
    ("when", "becomes", "message"),
    [
        ("jobs.a.outputs.rows > 0", "PLACED", ""),
        (
            "jobs.a.outputs.rows > 12",
            "WHEN_FALSE",
            "jobs.a.outputs.rows > 12; jobs.a.outputs.rows is '12'",
        ),
        ("jobs.a.state == 'SUCCEEDED' and jobs.b.state == 'SUCCEEDED'", "PLACED", ""),
        ("false", "WHEN_FALSE", "false"),
        (
            "jobs.a.outputs.columns > 0",
            "BAD_WHEN",
            "its when cannot be decided: jobs.a.outputs.columns is not there: a did not write it",
        ),
        (
            "jobs.b.outputs.day",
            "BAD_WHEN",
            "its when cannot be decided: jobs.b.outputs.day is not there: b did not write it",
        ),
    ],
)
def test_a_condition_is_decided_once_what_is_above_has_ended(when, becomes, message):
    assert conditional(when, outputs={"rows": "12"}) == (becomes, message)


@pytest.mark.parametrize(
    ("when", "becomes", "message"),
    [
        ("jobs.a.state == 'FAILED' and jobs.b.state == 'SKIPPED'", "PLACED", ""),
        ("jobs.a.state == 'SUCCEEDED' and jobs.a.outputs.rows > 0", "WHEN_FALSE", None),
        (
            "jobs.a.outputs.rows > 0",
            "BAD_WHEN",
            "its when cannot be decided: jobs.a.outputs.rows is not there, for a is FAILED",
        ),
    ],
)
def test_a_condition_reads_how_jobs_ended_that_did_not_succeed(when, becomes, message):
    found, said = conditional(when, 1)
    assert (found, said) == (becomes, said if message is None else message)


def test_a_condition_is_not_looked_at_where_the_trigger_is_not_there():
    usual = Trigger.ALL_SUCCEEDED
    assert conditional("jobs.a.outputs.rows > 0", 1, trigger=usual) == ("PARENT_FAILED", "")


def test_a_job_without_dependencies_is_decided_about_when_its_run_is_accepted():
    w = World({"w1": 9})
    jobs = (job("a"), job("b", "a"), job("c"))
    turn = w.submit(run("r", *jobs, a=Shape(when="false"), c=Shape(when="true")))
    assert events(turn)[1:4] == [
        "JobsDropped(run_id=r, job_ids=[a], state=SKIPPED, reason=WHEN_FALSE, messages=[false])",
        "JobsDropped(run_id=r, job_ids=[b], state=SKIPPED, reason=PARENT_SKIPPED)",
        "JobsQueued(run_id=r, job_ids=[c])",
    ]
    w.restart()
    w.join("w1", held=[("r/c.1", "RUNNING")])
    assert last(w.ended("r/c")) == "RunEnded(run_id=r, state=SUCCEEDED)"


def test_a_run_whose_every_condition_is_false_has_succeeded_at_once():
    w = World({"w1": 9})
    turn = w.submit(run("r", job("a"), a=Shape(when="false")))
    assert last(turn) == "RunEnded(run_id=r, state=SUCCEEDED)"


def test_a_gate_whose_condition_is_false_asks_nobody():
    w = World({"w1": 9})
    w.submit(run("r", job("a"), gate("ask", "a"), ask=Shape(when="jobs.a.state == 'FAILED'")))
    w.ended("r/a")
    assert not w.state.gates
    assert not w.state.runs


def test_what_cannot_be_decided_has_failed_and_is_listed_among_the_dead():
    w = World({"w1": 9})
    keeps = job("keeps-the-run", skills=["NONE"])
    w.submit(run("r", job("a"), job("x", "a"), keeps, x=Shape(when="jobs.a.outputs.n > 0")))
    w.ended("r/a")
    (dead,) = dead_jobs(w.state)
    assert (dead.job_id, dead.state, dead.reason) == ("x", "FAILED", "BAD_WHEN")
    assert "did not write it" in dead.message


def many_conditions(number):
    """A run whose jobs all have conditions of their own: of every two the first is true."""
    names = [f"j{n}" for n in range(number)]
    shapes = {name: Shape(when=f"jobs.a.outputs.n == {int(name[1:]) % 2}") for name in names}
    return run("r", job("a"), *(job(name, "a", skills=["NONE"]) for name in names), **shapes)


def test_a_turn_decides_a_limited_number_of_conditions_and_then_goes_on():
    w = World({"w1": 9}, CoreConfig(condition_chars_max=400))
    w.submit(many_conditions(5))
    w.ended("r/a", outputs={"n": "0"})
    found = [[*w.job_states("r").values()]]
    while w.core.next_deadline_ms() <= w.now_ms:
        w.turn()
        found.append([*w.job_states("r").values()])
    assert [[str(state) for state in states[1:]] for states in found] == [
        ["QUEUED", "SKIPPED", "BLOCKED", "BLOCKED", "BLOCKED"],
        ["QUEUED", "SKIPPED", "QUEUED", "SKIPPED", "BLOCKED"],
        ["QUEUED", "SKIPPED", "QUEUED", "SKIPPED", "QUEUED"],
    ]


def test_what_no_turn_had_room_to_decide_is_decided_after_a_restart():
    w = World({"w1": 9}, CoreConfig(condition_chars_max=1))
    w.submit(many_conditions(4))
    w.ended("r/a", outputs={"n": "1"})
    assert [*w.job_states("r").values()].count("BLOCKED") == 3
    w.restart()
    while w.core.next_deadline_ms() <= w.now_ms:
        w.turn()
    assert [*w.job_states("r").values()][1:] == ["SKIPPED", "QUEUED", "SKIPPED", "QUEUED"]


def test_a_run_can_be_cancelled_while_its_conditions_are_being_decided():
    w = World({"w1": 9}, CoreConfig(condition_chars_max=1))
    w.submit(many_conditions(4))
    w.ended("r/a", outputs={"n": "1"})
    w.ask(StopJob(run="r", job="j3"))
    assert last(w.ask(CancelRun(run="r"))) == "RunEnded(run_id=r, state=CANCELLED)"
    assert not w.turn().events


def test_a_run_whose_last_conditions_are_false_ends_with_the_turn_that_decides_them():
    w = World({"w1": 9}, CoreConfig(condition_chars_max=1))
    names = ["a", "b", "c"]
    w.submit(run("r", *map(job, names), **dict.fromkeys(names, Shape(when="false"))))
    assert "b" in w.job_states("r")
    turns = []
    while (
        w.core.next_deadline_ms() is not None
        and w.core.next_deadline_ms() <= w.now_ms
        and len(turns) < 9
    ):
        turns.append(w.turn())
    assert last(turns[-1]) == "RunEnded(run_id=r, state=SUCCEEDED)"


def test_the_record_of_what_one_turn_decides_is_small_however_many_conditions_there_are():
    w = World({"w1": 9})
    when = " or ".join(["jobs.a.outputs.n == 'somewhat long'"] * 20)
    names = [f"j{n}" for n in range(3_000)]
    shapes = {name: Shape(when=f"{when} or {name[1:]} == 1.5") for name in names}
    w.submit(run("r", job("a"), *(job(name, "a") for name in names), **shapes))
    turn = w.ended("r/a", outputs={"n": "x"})
    sizes = [len(msgspec.msgpack.encode(event)) for event in turn.events]
    assert max(sizes) < 1_000_000
    assert 200 < w.state.runs["r"].counts[JobState.SKIPPED] < 300
