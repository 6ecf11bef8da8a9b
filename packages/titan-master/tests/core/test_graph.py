"""Questions about a run's graph, compared with slow and simple answers."""

from __future__ import annotations

from core_world import World, job, run
from hypothesis import given, settings
from hypothesis import strategies as st

from titan_master.core.graph import blocked_below, opened_by
from titan_proto.states import JobState


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


def admitted(jobs):
    w = World()
    w.submit(run("r", *jobs))
    return w.state.runs["r"]


@settings(max_examples=80, deadline=None)
@given(jobs=graphs(), data=st.data())
def test_below_a_job_is_everything_that_needs_it_however_indirectly(jobs, data):
    admitted_run = admitted(jobs)
    start = data.draw(st.sampled_from(jobs))
    below = {start.id}
    for _ in jobs:
        below |= {one.id for one in jobs if below & set(one.dependencies)}
    found = blocked_below(admitted_run, [admitted_run.jobs[start.id]])
    assert [one.spec.id for one in found] == [
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
    assert opened_by(admitted_run, parents) == [child]
    child.waiting = 1
    assert opened_by(admitted_run, parents) == []


def test_a_chain_of_fifty_thousand_is_no_recursion():
    jobs = [job("j0"), *(job(f"j{n}", f"j{n - 1}") for n in range(1, 50_000))]
    w = World()
    w.core.handle(w.submission(run("r", *jobs)), w.now_ms)
    admitted_run = w.state.runs["r"]
    assert len(blocked_below(admitted_run, [admitted_run.jobs["j0"]])) == 49_999


def test_what_is_reached_on_many_ways_is_looked_at_once():
    """Sixty layers of two jobs, each on both below: 2^60 ways through 120 jobs."""
    jobs = [job("a0"), job("b0")]
    for n in range(1, 60):
        jobs += [job(f"{name}{n}", f"a{n - 1}", f"b{n - 1}") for name in "ab"]
    admitted_run = admitted(jobs)
    assert len(blocked_below(admitted_run, [admitted_run.jobs["a0"]])) == 118
