"""The draft of a turn: events are true at once, effects keep their order, batches come last."""

from __future__ import annotations

from core_world import START_MS

from titan_master.core.core import CoreConfig
from titan_master.core.events import ClusterFounded
from titan_master.core.inputs import Origin
from titan_master.core.state import State
from titan_master.core.turn import REFS_PER_FRAME, Draft
from titan_proto.codec import encode
from titan_proto.errors import ErrorCode
from titan_proto.ids import AttemptRef
from titan_proto.limits import FRAME_PAYLOAD_BYTES
from titan_proto.messages import ReportAcks, StopAttempts
from titan_proto.states import ExitReason


def draft():
    return Draft(State(), CoreConfig())


def test_an_event_is_true_as_soon_as_it_is_emitted():
    one = draft()
    one.emit(ClusterFounded(at_ms=START_MS, cluster_id="c", name="n"))
    assert one.state.cluster_id == "c"
    assert [event.cluster_id for event in one.take().events] == ["c"]


def test_acknowledgements_of_one_link_leave_together_behind_the_rest():
    one = draft()
    refs = [AttemptRef("r", name, 1) for name in "ab"]
    one.acknowledge(7, refs[0])
    one.refuse(Origin(1, 1), ErrorCode.CONFLICT, "no")
    one.acknowledge(7, refs[1])
    one.acknowledge(8, refs[0])
    reply, first, second = one.take().effects
    assert reply.message.message == "no"
    assert (first.link_id, first.message.refs) == (7, tuple(refs))
    assert (second.link_id, second.message.refs) == (8, (refs[0],))


def test_a_stop_order_to_a_worker_without_a_link_is_left_to_its_return():
    one = draft()
    one.stop("w1", AttemptRef("r", "a", 1), ExitReason.CANCELLED)
    assert one.take().effects == ()


def test_a_lease_is_divided_into_silence_and_heartbeats():
    config = CoreConfig(lost_after_ms=60_000, heartbeats_per_lease=4)
    assert (config.silent_after_ms, config.heartbeat_ms) == (20_000, 15_000)


def test_what_would_not_fit_a_frame_leaves_in_several():
    """However many attempts a worker has reported on, or is to stop, in one turn."""
    one = draft()
    count = 2 * REFS_PER_FRAME + 1
    refs = [AttemptRef("r" * 16, f"{number:0128}", 2**63 - 1) for number in range(count)]
    for ref in refs:
        one.acknowledge(7, ref)
    one.roster.bind("w", 7, START_MS)
    for ref in refs:
        one.stop("w", ref, ExitReason.CANCELLED)
    messages = [effect.message for effect in one.take().effects]
    for kind in (ReportAcks, StopAttempts):
        ours = [message for message in messages if isinstance(message, kind)]
        assert [ref for message in ours for ref in message.refs] == refs
        assert len(ours) == 3
    assert max(len(encode(message)) for message in messages) < FRAME_PAYLOAD_BYTES
