"""Orders leave in as few frames as hold them, and no frame is too large to be sent."""

from titan_master.core.turn import _frames
from titan_proto import codec
from titan_proto.ids import AttemptRef
from titan_proto.limits import ENV_BYTES, FRAME_PAYLOAD_BYTES
from titan_proto.messages import AttemptOrder, StartAttempts
from titan_proto.specs import ArtifactFormat, ArtifactRef, JobSpec, Launch, LaunchKind


def _orders(count, env):
    launch = Launch(kind=LaunchKind.COMMAND, command=("true",), env=env)
    return [
        AttemptOrder(
            ref=AttemptRef("r" * 16, f"j{number}", 1),
            fence=number,
            spec=JobSpec(id=f"j{number}", launch=launch),
            run_name="run",
        )
        for number in range(count)
    ]


def test_ordinary_orders_share_one_frame():
    orders = _orders(500, {})

    assert list(_frames(orders)) == [tuple(orders)]


def test_large_orders_are_split_in_order_and_each_frame_can_be_sent():
    orders = _orders(200, {"BIG": "\N{SNOWMAN}" * (ENV_BYTES // 3 - 1)})

    parts = list(_frames(orders))

    assert [order for part in parts for order in part] == orders
    assert 1 < len(parts) < len(orders)
    for part in parts:
        assert len(codec.encode(StartAttempts(term=1, orders=part))) < FRAME_PAYLOAD_BYTES


def test_one_order_larger_than_a_share_goes_alone():
    orders = _orders(2, {"BIG": "x" * (2 * 1024 * 1024)})

    assert [len(part) for part in _frames(orders)] == [1, 1]


def test_names_of_files_count_too():
    """A path may be as long as the system allows, three times in one order."""
    path = "/".join(["\N{SNOWMAN}" * 85] * 47)
    named = ArtifactRef(digest="0" * 64, size_bytes=1, format=ArtifactFormat.FILE, name=path)
    launch = Launch(script=path, artifact=named)
    orders = [
        AttemptOrder(
            ref=AttemptRef("r" * 16, f"j{number}", 1),
            fence=number,
            spec=JobSpec(id=f"j{number}", launch=launch),
            run_name="run",
            workspace=named,
        )
        for number in range(500)
    ]

    for part in _frames(orders):
        assert len(codec.encode(StartAttempts(term=1, orders=part))) < FRAME_PAYLOAD_BYTES
