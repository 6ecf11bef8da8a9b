"""The roster: links, and the index of workers that could take more, against a slow count."""

from __future__ import annotations

from core_world import World, job, run
from hypothesis import given, settings
from hypothesis import strategies as st

from titan_master.core.presence import share
from titan_proto.states import WorkerState


def slow_index(w):
    """What the index must be, counted from the state."""
    roster = w.core._draft.roster
    index = {}
    for worker in w.state.workers.values():
        linked = roster.link_of(worker.worker_id) is not None
        free = len(worker.held) < worker.slots
        if linked and free and worker.state is WorkerState.ONLINE:
            key = tuple(sorted(set(worker.skills)))
            entry = (share(worker), worker.name, worker.worker_id)
            index.setdefault(key, []).append(entry)
    return {key: sorted(entries) for key, entries in index.items()}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["join", "rejoin", "cut", "leave", "submit", "end", "lose", "wait", "beat", "restart"]
        ),
        st.integers(0, 3),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_the_index_of_free_workers_is_what_a_count_says(steps):
    w = World()
    runs = 0
    for what, number in steps:
        name = f"w{number}"
        if what == "join":
            w.join(name, slots=number + 1, skills=["A", "B"][: number % 2 + 1])
        elif what == "rejoin" and name in w.joins:
            w.join(name, incarnation=w.joins[name].incarnation + 1, skills=["B"])
        elif what == "submit":
            runs += 1
            w.submit(run(f"r{runs}", job("a", skills=["AB"[number % 2]])))
        elif what == "restart":
            w.restart()
        elif what == "wait":
            w.advance(8_000)
        elif name in w.links:
            {"cut": w.cut, "leave": w.leave, "beat": w.heartbeat}.get(what, lambda _: None)(name)
            held = list(w.state.workers[name].held) if name in w.state.workers else []
            if what in ("end", "lose") and held and name in w.links:
                code = 0 if what == "end" else 1
                w.report(name, w.ended_report("/".join(held[0]), code))
        assert w.core._draft.roster.free == slow_index(w)


def test_shares_of_any_two_workers_compare_exactly():
    w = World({"w1": 4_096, "w2": 4_095})
    one, two = w.state.workers["w1"], w.state.workers["w2"]
    one.used, two.used = 4_095, 4_094
    # 4095/4096 against 4094/4095
    assert share(one) > share(two)


def test_asking_for_a_worker_that_was_never_seen_does_no_harm():
    roster = World().core._draft.roster
    assert roster.link_of("nobody") is None
    assert roster.worker_on(99) is None
    assert roster.unbind(99, 0) is None
    roster.forget("nobody")
