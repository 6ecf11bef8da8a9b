"""A full disk: nothing new begins, everything that has begun can end, and nobody restarts anything."""

from __future__ import annotations

from core_world import World, kinds, run
from core_world import job as task

from titan_master.core.inputs import StorageChanged
from titan_master.core.storage import JOB_ROOM_BYTES, RUN_ROOM_BYTES
from titan_proto.errors import ErrorCode
from titan_proto.messages import CancelRun, RunReceipt

MIB = 1024 * 1024


def looked(room_bytes, *, free_bytes=12 * MIB, wanted_bytes=96 * MIB):
    return StorageChanged(room_bytes=room_bytes, free_bytes=free_bytes, wanted_bytes=wanted_bytes)


def answer(turn):
    return turn.effects[0].message


def test_on_a_full_disk_new_runs_are_refused_with_what_is_free_and_what_is_wanted():
    w = World()
    w.turn(looked(0))
    turn = w.submit(run("r", task("a")))
    assert kinds(turn) == []
    refusal = answer(turn)
    assert refusal.code is ErrorCode.STORAGE_FULL
    assert "12.0 MiB" in refusal.message
    assert "96.0 MiB" in refusal.message
    assert "without a restart" in refusal.message
    assert refusal.details == {"free_bytes": str(12 * MIB), "wanted_bytes": str(96 * MIB)}


def test_a_full_disk_is_no_event():
    w = World()
    assert kinds(w.turn(looked(0))) == []


def test_what_has_begun_ends_on_a_full_disk():
    """Ends and cancellations are recorded; what is queued waits."""
    w = World({"w1": 1})
    w.submit(run("r", task("a"), task("b", "a")))
    w.submit(run("s", task("c")))
    w.running("r/a")
    w.turn(looked(0))
    assert kinds(w.ended("r/a")) == ["AttemptEnded", "JobEnded", "JobsQueued"]
    assert w.job_state("r/b") == "QUEUED"
    assert "RunEnded" in kinds(w.ask(CancelRun(run="s")))


def test_with_room_again_all_goes_on_without_a_restart():
    w = World({"w1": 1})
    w.submit(run("r", task("a"), task("b", "a")))
    w.turn(looked(-1))
    w.ended("r/a")
    turn = w.turn(looked(500 * MIB))
    assert kinds(turn) == ["AttemptPlaced"]
    assert isinstance(answer(w.submit(run("s", task("c")))), RunReceipt)


def test_nothing_is_tried_again_and_again_while_the_disk_is_full():
    """The engine is not woken for a queue that cannot move."""
    w = World({"w1": 1})
    w.turn(looked(0))
    deadline = w.core.next_deadline_ms()
    assert deadline is None or deadline > w.now_ms


def test_a_retry_finds_its_run_on_a_full_disk():
    """The run that the key stands for is there; being refused, the client would think it is not."""
    w = World()
    w.submit(run("r", task("a")), key="k")
    w.turn(looked(0))
    assert answer(w.submit(run("r", task("a")), key="k", run_id="other")).known


def test_between_two_looks_what_is_let_in_is_counted():
    """A burst is not let in on the strength of one look."""
    w = World()
    each = RUN_ROOM_BYTES + JOB_ROOM_BYTES
    w.turn(looked(3 * each + 3 * 2_000))
    answers = [answer(w.submit(run("r", task("a")), run_id=f"r{n}")) for n in range(4)]
    assert [type(said) is RunReceipt for said in answers] == [True, True, True, False]
    assert answers[3].code is ErrorCode.STORAGE_FULL
    w.turn(looked(500 * MIB))
    assert isinstance(answer(w.submit(run("r", task("a")), run_id="r9")), RunReceipt)


def test_a_run_larger_than_the_room_is_refused_with_both_sizes():
    w = World()
    w.turn(looked(1 * MIB))
    refusal = answer(w.submit(run("r", *(task(f"j{n}") for n in range(1_000)))))
    assert refusal.code is ErrorCode.STORAGE_FULL
    assert "1.0 MiB to give" in refusal.message
    assert isinstance(answer(w.submit(run("s", task("a")))), RunReceipt)


def test_the_next_process_looks_for_itself():
    """How full the disk is, is never read from the journal."""
    w = World()
    w.turn(looked(0))
    w.restart()
    assert isinstance(answer(w.submit(run("r", task("a")))), RunReceipt)
