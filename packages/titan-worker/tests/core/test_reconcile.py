"""The master's verdict on an inventory, and whom a worker believes: as tables."""

import pytest

from titan_proto.messages import AttemptReports
from titan_proto.states import AttemptState, ExitReason
from titan_worker.core.effects import AbandonPrepare, Forget, Send, Terminate
from titan_worker.core.inputs import LinkDown
from titan_worker.core.reconcile import Standing, standing
from titan_worker.core.state import WorkerState

KEEP, STOP, FORGET = "keep", "stop", "forget"

# given: how far "a" has come when the link goes. Then: its state, what is done, what is reported,
# for each verdict. None: it is not held any more.
P, R, S, E = (
    AttemptState.PREPARING,
    AttemptState.RUNNING,
    AttemptState.STOPPING,
    AttemptState.ENDED,
)
TABLE = [
    ("preparing", KEEP, P, (), ()),
    ("preparing", STOP, E, (AbandonPrepare,), (E,)),
    ("preparing", FORGET, P, (), ()),
    ("waiting", KEEP, P, (), ()),
    ("waiting", STOP, E, (), (E,)),
    ("starting", KEEP, P, (), ()),
    ("starting", STOP, S, (), ()),
    ("starting", FORGET, P, (), ()),
    ("running", KEEP, R, (), (R,)),
    ("running", STOP, S, (Terminate,), ()),
    ("running", FORGET, R, (), (R,)),
    ("stopping", KEEP, S, (), ()),
    ("stopping", STOP, S, (), ()),
    ("stopping", FORGET, S, (), ()),
    ("ended", KEEP, E, (), (E,)),
    ("ended", STOP, E, (), (E,)),
    ("ended", FORGET, None, (Forget,), ()),
    # what went on between Join and Joined
    ("ended meanwhile", KEEP, E, (), (E,)),
    ("ended meanwhile", STOP, E, (), (E,)),
    ("unknown", STOP, None, (), ()),
    ("unknown", FORGET, None, (), ()),
]


def bring(world, how_far):
    """A world whose link is up and not joined, and in which `a` has come so far."""
    others = {"waiting": [world.order("other")]}.get(how_far, [])
    world.running_jobs(*others)
    if how_far != "unknown":
        world.turn(world.start(world.order("a")))
    if how_far not in {"preparing", "unknown"}:
        world.turn(world.ready("a"))
    if how_far in {"running", "stopping", "ended", "ended meanwhile"}:
        world.turn(world.spawned("a"))
    if how_far == "stopping":
        world.turn(world.stop("a"))
    if how_far == "ended":
        world.turn(world.exited("a"))
    world.turn(LinkDown())
    world.turn(world.link_up())
    if how_far == "ended meanwhile":
        world.turn(world.exited("a"))


@pytest.mark.parametrize(
    ("how_far", "verdict", "state", "done", "reported"),
    TABLE,
    ids=[f"{row[0].replace(' ', '_')}-{row[1]}" for row in TABLE],
)
def test_verdicts(new_world, how_far, verdict, state, done, reported):
    world = new_world(slots=1)
    bring(world, how_far)
    ref = world.ref("a")
    turn = world.turn(
        world.joined(
            stop=[ref] if verdict == STOP else (), forget=[ref] if verdict == FORGET else ()
        )
    )
    held = world.core.state.held.get(ref)
    assert (held.state if held else None) == state
    sent = [e.message for e in turn.effects if isinstance(e, Send)]
    told = [
        report.state
        for message in sent
        if isinstance(message, AttemptReports)
        for report in message.reports
        if report.ref == ref
    ]
    assert tuple(told) == reported
    assert tuple(type(e) for e in turn.effects if not isinstance(e, Send)) == done


def test_what_the_verdict_stops_ends_as_cancelled(world):
    world.running_jobs(world.order("a"))
    world.turn(world.link_up())
    world.turn(world.joined(stop=[world.ref("a")]))
    (record,) = world.turn(world.exited("a", signal=15)).records
    assert record.report.reason is ExitReason.CANCELLED


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        (("", 0), ("c1", 1), Standing.FIRST),
        (("c1", 3), ("c1", 3), Standing.KNOWN),
        (("c1", 3), ("c1", 4), Standing.NEWER),
        (("c1", 3), ("c1", 2), Standing.OLDER),
        (("c1", 3), ("c2", 2), Standing.STRANGER),
        (("c1", 3), ("c2", 4), Standing.STRANGER),
    ],
)
def test_whom_to_believe(mine, theirs, expected):
    assert standing(WorkerState(cluster_id=mine[0], term=mine[1]), *theirs) is expected
