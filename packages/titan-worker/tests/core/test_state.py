"""apply, check, digest and the table of moves: what may be true, and that nothing else can be."""

import itertools
import subprocess
import sys

import pytest

from titan_proto.states import AttemptState, ExitReason
from titan_worker.core.apply import apply
from titan_worker.core.check import InvariantViolation, check
from titan_worker.core.inputs import SpawnFailed, Started, WorkspaceFailed
from titan_worker.core.records import (
    AttemptClosed,
    AttemptForgotten,
    AttemptHeld,
    AttemptSpawned,
    AttemptStopping,
    ClusterBound,
)
from titan_worker.core.state import WorkerState, digest
from titan_worker.core.transitions import ATTEMPT

P, R, S, E = (
    AttemptState.PREPARING,
    AttemptState.RUNNING,
    AttemptState.STOPPING,
    AttemptState.ENDED,
)


@pytest.fixture
def records(world):
    ref = world.ref("a")
    return {
        P: AttemptHeld(order=world.order("a"), at_ms=1),
        R: AttemptSpawned(ref=ref, pid=5, start_ticks=7, at_ms=2),
        S: AttemptStopping(ref=ref, reason=ExitReason.CANCELLED, at_ms=3),
        E: AttemptClosed(report=world.ended("a", ExitReason.EXITED, ended_at_ms=4)),
        None: AttemptForgotten(ref=ref),
    }


def brought_to(records, state):
    """A WorkerState in which `a` is in `state`, by the shortest way."""
    it = WorkerState()
    apply(it, ClusterBound(cluster_id="c1", term=1))
    way = {P: (P,), R: (P, R), S: (P, S), E: (P, E)}[state]
    for step in way:
        apply(it, records[step])
    check(it)
    return it


@pytest.mark.parametrize(("before", "after"), [*itertools.product((P, R, S, E), (R, S, E))])
def test_apply_makes_exactly_the_legal_moves(world, records, before, after):
    state = brought_to(records, before)
    # The word that it runs moves nothing once it is stopping, but it is welcome.
    if (before, after) in ATTEMPT | {(S, R)}:
        apply(state, records[after])
        check(state)
        expected = before if (before, after) == (S, R) else after
        assert state.held[world.ref("a")].state is expected
    else:
        with pytest.raises(InvariantViolation) as caught:
            apply(state, records[after])
        assert caught.value.state_digest == digest(state)


def test_only_the_ended_are_forgotten(records):
    for state in (P, R, S):
        with pytest.raises(InvariantViolation, match="forgotten while"):
            apply(brought_to(records, state), records[None])
    state = brought_to(records, E)
    apply(state, records[None])
    assert state.held == {}


def test_records_of_attempts_that_are_not_held_cannot_be(records):
    for kind in (R, S, E, None):
        with pytest.raises(InvariantViolation, match="not held"):
            apply(WorkerState(cluster_id="c1", term=1), records[kind])


def test_an_attempt_is_taken_once_and_started_once(records):
    state = brought_to(records, P)
    with pytest.raises(InvariantViolation, match="taken twice"):
        apply(state, records[P])
    apply(state, records[S])
    apply(state, records[R])
    with pytest.raises(InvariantViolation, match="started twice"):
        apply(state, records[R])


def test_terms_never_go_back_inside_a_cluster():
    state = WorkerState()
    apply(state, ClusterBound(cluster_id="c1", term=5))
    with pytest.raises(InvariantViolation, match="term 4"):
        apply(state, ClusterBound(cluster_id="c1", term=4))
    apply(state, ClusterBound(cluster_id="c2", term=1))
    assert (state.cluster_id, state.term) == ("c2", 1)


def test_every_legal_move_is_made_by_some_input(new_world):
    """A row that no input leads to would be a promise that nobody needs."""
    world = new_world(slots=3)
    world.running_jobs(world.order("a"), world.order("b"))
    world.turn(world.start(world.order("c"), world.order("d")))
    world.turn(WorkspaceFailed(ref=world.ref("d"), message="no"))
    world.turn(world.ready("c"))
    world.turn(world.stop("a", "c"))
    world.turn(world.exited("a"), world.exited("b"))
    world.turn(SpawnFailed(ref=world.ref("c"), message="no"))
    assert world.moves == ATTEMPT


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda held: setattr(held, "state", AttemptState.STARTING), "no record says"),
        (lambda held: setattr(held, "state", E), "no report"),
        (lambda held: setattr(held, "pid", 0), "without a process"),
        (lambda held: setattr(held, "state", S), "for no reason"),
    ],
)
def test_check_names_what_is_wrong(world, records, spoil, words):
    state = brought_to(records, R)
    spoil(state.held[world.ref("a")])
    with pytest.raises(InvariantViolation, match=words):
        check(state)


def test_check_wants_a_cluster_the_right_order_and_the_right_report(world, records):
    state = brought_to(records, R)
    state.held[world.ref("a")].order = world.order("b")
    with pytest.raises(InvariantViolation, match="another's name"):
        check(state)
    state = brought_to(records, E)
    state.held[world.ref("a")].report = world.ended("b", ExitReason.EXITED)
    with pytest.raises(InvariantViolation, match="not of its end"):
        check(state)
    state = brought_to(records, P)
    state.cluster_id = ""
    with pytest.raises(InvariantViolation, match="no cluster"):
        check(state)


def test_the_digest_sees_every_difference_and_no_order(world, records):
    seen = {digest(brought_to(records, state)) for state in (P, R, S, E)}
    assert len(seen) == 4
    one, two = WorkerState(), WorkerState()
    for state, names in ((one, "ab"), (two, "ba")):
        apply(state, ClusterBound(cluster_id="c1", term=1))
        for name in names:
            apply(state, AttemptHeld(order=world.order(name), at_ms=1))
    assert digest(one) == digest(two)


PROGRAM = """
from titan_proto.ids import AttemptRef
from titan_proto.messages import AttemptOrder
from titan_proto.specs import JobSpec, Launch
from titan_worker.core.apply import apply
from titan_worker.core.records import AttemptHeld, ClusterBound
from titan_worker.core.state import WorkerState, digest
state = WorkerState()
apply(state, ClusterBound(cluster_id="c", term=1))
names = {"x", "y", "z", "A", "B"}
for job in sorted(names):
    launch = Launch(script="s", env={name: "1" for name in names})
    order = AttemptOrder(ref=AttemptRef("r", job, 1), fence=1, spec=JobSpec(id=job, launch=launch),
                         run_name="n")
    apply(state, AttemptHeld(order=order, at_ms=1))
print(digest(state))
"""


def test_the_digest_does_not_depend_on_the_hash_seed():
    digests = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            check=True,
            timeout=30,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_a_process_begins_with_nothing_on_its_hands(world):
    world.turn(Started(boot_id="boot"))
    assert digest(world.core.state) == digest(WorkerState())
