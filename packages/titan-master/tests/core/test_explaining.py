"""Why a job does not run: each cause in its words, with its numbers."""

from __future__ import annotations

from core_world import World, effects, gate, job, run

from titan_proto.messages import (
    CordonWorker,
    DecideGate,
    Error,
    ExplainJob,
    GetJob,
    RunReceipt,
)
from titan_proto.messages.placing import CauseKind
from titan_proto.specs import RetryPolicy, Trigger
from titan_proto.states import JobState


def told(w, name):
    run_id, _, job_id = name.partition("/")
    return w.answer(ExplainJob(run=run_id, job=job_id))


def causes(w, name):
    return [(str(cause.kind), cause.message) for cause in told(w, name).causes]


def by_worker(cause):
    return {
        one.worker: (str(one.kind), one.message, one.resource, one.wanted, one.free, one.total)
        for one in cause.workers
    }


# -- the ten causes, in the order of the design ------------------------------------------------------
def test_1_it_waits_for_dependencies_and_they_for_something_in_their_turn():
    w = World({"w1": 1})
    w.submit(
        run(
            "r",
            job("a", skills=["GPU"]),
            job("b", "a"),
            job("c"),
            job("d", "b", "c"),
            job("e", "c"),
        )
    )
    assert causes(w, "r/d") == [
        ("DEPENDENCIES", "waits for b (BLOCKED), c (PLACED)"),
        ("SKILLS", "a waits for a worker with GPU: none of the 1 known has that"),
    ]
    assert told(w, "r/d").causes[0].jobs == ("b", "c")
    assert causes(w, "r/e") == [
        ("DEPENDENCIES", "waits for c (PLACED)"),
        ("PLACED", "c is being made ready on host:8080"),
    ]


def test_2_its_delay_is_not_over():
    w = World({"w1": 1})
    w.submit(run("r", job("a", delay_ms=5_000)))
    found = told(w, "r/a")
    assert [(str(one.kind), one.message) for one in found.causes] == [
        ("DELAY", "waits for its time")
    ]
    assert found.causes[0].until_ms == found.expected_at_ms == w.now_ms + 5_000


def test_3_no_slot_is_free_and_who_has_them():
    w = World({"w1": 1, "w2": 1})
    w.submit(run("r", job("a"), job("b"), job("c"), job("d"), job("first", priority=9)))
    assert causes(w, "r/d") == [
        ("SLOTS", "waits for a slot: all 2 of the 2 worker(s) with GENERAL are taken")
    ]
    (cause,) = told(w, "r/d").causes
    assert (cause.position, cause.queued) == (3, 3)
    assert cause.jobs == ("r-1/first", "r-1/a")
    on_it = "0 of 1 slots are free, 1 needed; on it: r-1/"
    assert by_worker(cause) == {
        "host:8080": ("SLOTS", f"{on_it}first", "", 1, 0, 1),
        "host:8081": ("SLOTS", f"{on_it}a", "", 1, 0, 1),
    }


def test_4_no_worker_has_the_skill():
    w = World()
    w.join("w1", skills=["GENERAL"])
    w.join("w2", skills=["GENERAL", "HIGH_MEM"])
    w.submit(run("r", job("a", skills=["GPU", "HIGH_MEM"])))
    (cause,) = told(w, "r/a").causes
    assert (cause.kind, cause.message) == (
        CauseKind.SKILLS,
        "waits for a worker with GPU, HIGH_MEM: none of the 2 known has that",
    )
    assert [one.message for one in cause.workers] == ["lacks GPU, HIGH_MEM", "lacks GPU"]


def test_5_not_enough_of_a_resource_is_left_or_there_at_all():
    w = World()
    w.join("w1", slots=4, resources={"gpu": 2})
    w.join("w2", slots=4, resources={"gpu": 1, "memory": 2**30})
    w.submit(run("r", *(job(f"g{n}", takes={"gpu": 1}) for n in range(4))))
    assert causes(w, "r/g3") == [
        ("RESOURCES", "waits for 1 gpu: at most 0 are left on any of 2 worker(s)")
    ]
    (cause,) = told(w, "r/g3").causes
    assert by_worker(cause) == {
        "host:8080": ("RESOURCES", "0 of 2 gpu are free, 1 needed", "gpu", 1, 0, 2),
        "host:8081": ("RESOURCES", "0 of 1 gpu are free, 1 needed", "gpu", 1, 0, 1),
    }
    w.submit(run("s", job("a", takes={"gpu": 3})))
    assert causes(w, "s/a") == [
        ("RESOURCES", "waits for a worker with 3 gpu: the most that any of 2 has is 2")
    ]
    w.submit(run("t", job("a", takes={"gpu": 1, "memory": 2**31})))
    (cause,) = told(w, "t/a").causes
    assert by_worker(cause)["host:8081"] == (
        "RESOURCES", "1024 MiB of 1024 MiB memory are free, 2048 MiB needed", "memory",
        2**31, 2**30, 2**30,
    )  # fmt: skip


def beside(name, *after, near):
    return job(name, *after, terms={"near": near, "required": True}, delay_ms=1_000)


def test_6_what_it_has_to_be_beside_is_gone_or_has_no_room():
    w = World({"w1": 1, "w2": 2})
    w.submit(run("r", job("TRAIN"), beside("EVAL", "TRAIN", near="TRAIN")))
    w.ended("r/TRAIN")
    w.submit(run("s", job("fills")))
    w.advance(1_000)
    assert causes(w, "r/EVAL") == [
        (
            "SLOTS",
            "waits for a slot beside TRAIN, on host:8080: 0 of 1 slots are free, 1 needed; on it: s-1/fills",
        )
    ]
    (cause,) = told(w, "r/EVAL").causes
    assert by_worker(cause)["host:8081"][:2] == ("AFFINITY", "is not where TRAIN was")
    w.cut("w1")
    assert causes(w, "r/EVAL") == [
        (
            "AFFINITY",
            "has to be beside TRAIN, on host:8080, which has no link to this master at the moment",
        )
    ]
    w.join("w1", held=[("s/fills", "RUNNING")])
    w.leave("w1")
    assert causes(w, "r/EVAL") == [
        (
            "AFFINITY",
            "has to be beside TRAIN, which was on host:8080: that worker is not known any more",
        )
    ]


def test_6_the_worker_that_it_is_for_is_away():
    w = World({"w1": 1, "w2": 1})
    pinned = job("a", terms={"worker": "host:8081"})
    w.submit(run("fill", job("x"), job("y")))
    w.submit(run("r", pinned, job("b", terms={"worker": "box:1"})))
    assert causes(w, "r/b") == [
        (
            "PIN",
            "waits for worker box:1: it is not here, and not known; there are host:8080, host:8081",
        )
    ]
    assert causes(w, "r/a")[0][0] == "SLOTS"
    w.cut("w2")
    assert causes(w, "r/a") == [
        ("PIN", "waits for worker host:8081: host:8081 has no link to this master at the moment")
    ]


def test_7_those_that_could_have_it_are_cordoned():
    w = World({"w1": 1})
    w.answer(CordonWorker(worker="w1"))
    w.submit(run("r", job("a")))
    assert causes(w, "r/a") == [
        ("CORDONED", "waits for a worker that is not cordoned: host:8080 could have it")
    ]


def test_8_a_person_has_not_decided():
    w = World({"w1": 1})
    w.submit(
        run("r", gate("REVIEW", message="Rows look right?", timeout_ms=60_000), job("b", "REVIEW"))
    )
    opened_ms = w.now_ms
    w.advance(2_000)
    (cause,) = told(w, "r/REVIEW").causes
    assert (cause.kind, cause.message) == (
        CauseKind.APPROVAL,
        "waits for an approval: Rows look right?",
    )
    assert (cause.since_ms, cause.until_ms) == (opened_ms, opened_ms + 60_000)
    assert causes(w, "r/b") == [
        ("DEPENDENCIES", "waits for REVIEW (WAITING)"),
        ("APPROVAL", "REVIEW waits for an approval: Rows look right?"),
    ]
    assert told(w, "r/REVIEW").expected_at_ms == 0
    w.answer(DecideGate(gate="r-1/REVIEW", approve=True))
    assert causes(w, "r/b")[0][0] == "PLACED"


def test_9_it_is_tried_again_after_a_pause():
    w = World({"w1": 1})
    w.submit(run("r", job("a", retries=RetryPolicy(limit=3, delay_ms=4_000, jitter=False))))
    w.ended("r/a", 1)
    found = told(w, "r/a")
    assert [(str(one.kind), one.message) for one in found.causes] == [
        ("BACKOFF", "attempt 1 failed; try 2 of 4 comes after a pause")
    ]
    assert found.expected_at_ms == found.causes[0].until_ms == w.now_ms + 4_000


def test_10_its_concurrency_group_is_full():
    w = World({"w1": 4})
    grouped = {"group": "db", "limit": 1}
    w.submit(run("r", job("a", terms=grouped), job("b", terms=grouped)))
    (cause,) = told(w, "r/b").causes
    assert cause.message == "waits for its concurrency group db: 1 of 1 run: r-1/a"
    assert (cause.kind, cause.group, cause.limit, cause.taken, cause.jobs) == (
        CauseKind.GROUP, "db", 1, 1, ("r-1/a",),
    )  # fmt: skip
    of_runs = {"run_group": "etl", "run_limit": 1}
    w.submit(run("s", job("a", terms=of_runs)))
    w.submit(run("t", job("a", terms=of_runs)))
    assert causes(w, "t/a") == [
        ("GROUP", "its run waits for its concurrency group etl: 1 of 1 are under way: s-1")
    ]


# -- more than one, and none --------------------------------------------------------------------------
def test_one_cause_comes_after_the_other():
    w = World({"w1": 4})
    grouped = {"group": "db", "limit": 1}
    w.submit(run("r", job("a", terms=grouped), job("b", terms=grouped, skills=["GPU"])))
    assert [kind for kind, _ in causes(w, "r/b")] == ["GROUP", "SKILLS"]


def test_without_a_worker_nothing_runs():
    w = World()
    w.submit(run("r", job("a"), job("b", terms={"worker": "box"})))
    assert causes(w, "r/a") == [("SKILLS", "waits for a worker: none has joined")]
    assert causes(w, "r/b") == [("SKILLS", "waits for worker box: none has joined")]


def test_what_runs_says_where_and_why_there():
    w = World({"w1": 4, "w2": 4})
    w.submit(
        run(
            "r",
            job("pinned", terms={"worker": "w2"}),
            job("TRAIN"),
            beside("E", "TRAIN", near="TRAIN"),
        )
    )
    w.running("r/pinned")
    assert causes(w, "r/pinned") == [("PLACED", "runs on host:8081, the worker that it is for")]
    w.submit(run("c", job("child")), parent="r/pinned")
    assert causes(w, "c/child") == [
        ("PLACED", "is being made ready on host:8081, where the job runs that asked for it")
    ]


def test_what_has_ended_is_not_live_any_more():
    w = World({"w1": 1})
    w.submit(run("r", job("a"), job("b")))
    w.ended("r/a")
    assert causes(w, "r/a") == [("ENDED", "has ended: SUCCEEDED")]
    w.ended("r/b")
    answer = told(w, "r/b")
    assert isinstance(answer, Error)
    assert answer.message == "nothing that is live is called r/b; `titan show` tells how it ended"


def test_a_view_has_the_first_cause_in_one_line():
    w = World({"w1": 4})
    grouped = {"group": "db", "limit": 1}
    w.submit(run("r", job("a", terms=grouped), job("b", terms=grouped)))
    view = w.answer(GetJob(run="r", job="b"))
    assert view.message == told(w, "r/b").causes[0].message


def test_a_receipt_says_at_once_what_no_worker_can_run_yet():
    """A skill that no worker has, above all; the run is accepted, and waits."""
    w = World()
    w.join("w1", slots=2, resources={"gpu": 1})
    w.submit(
        run(
            "r",
            job("fine"),
            job("TRAIN", skills=["GPU"]),
            job("TRAIN2", skills=["GPU"]),
            job("big", slots=3),
            job("gpus", takes={"gpu": 2}),
            job("there", terms={"worker": "box:1"}),
        )
    )
    (receipt,) = [
        effect.message
        for effect in w.last.effects
        if isinstance(getattr(effect, "message", None), RunReceipt)
    ]
    ends = "It waits until such a worker joins"
    assert list(receipt.notices) == [
        f"nothing can run TRAIN yet: it needs GPU, and none of the 1 known workers has that. {ends}",
        f"nothing can run big yet: it needs 3 slots on one worker, and none has so many. {ends}",
        f"nothing can run gpus yet: it takes 2 gpu, and the most that a worker has is 1. {ends}",
        f"nothing can run there yet: it is for worker box:1, which is none of the 1 known. {ends}",
    ]
    assert w.job_state("r/TRAIN") is JobState.QUEUED
    assert effects(w.last)


# -- a train-evaluate pair on four workers ------------------------------------------------------------
def test_a_pair_with_affinity_lands_on_one_node_100_times_of_100_and_says_so():
    w = World({f"w{n}": 2 for n in range(4)})
    homes = set()
    for n in range(100):
        name = f"pair{n}"
        # Something else is under way, so that the least loaded worker is another one each time.
        w.submit(run(f"busy{n}", job("x")), run_id=f"busy{n}")
        required = n % 2 == 0
        evaluate = job("EVALUATE", "TRAIN", terms={"near": "TRAIN", "required": required})
        w.submit(run(name, job("TRAIN"), evaluate), run_id=name)
        home = w.worker_of(f"{name}/TRAIN")
        homes.add(home)
        w.ended(f"{name}/TRAIN")
        assert w.worker_of(f"{name}/EVALUATE") == home
        w.running(f"{name}/EVALUATE")
        worker = w.state.workers[home].name
        wish = "requires" if required else "prefers"
        assert causes(w, f"{name}/EVALUATE") == [
            ("PLACED", f"runs on {worker}, beside TRAIN, as its affinity {wish}")
        ]
        w.ended(f"{name}/EVALUATE")
        if n >= 3:
            w.ended(f"busy{n - 3}/x")
    assert len(homes) == 4, "all four were tried"


def test_what_comes_after_a_skipped_job_waits_for_what_still_runs_above_it():
    """Not for the skipped one, which will never be anything else."""
    w = World({"w1": 2})
    w.submit(run("r", job("a"), job("c"), job("b", "a", "c"), job("d", "b"), d=Trigger.ALL_DONE))
    w.running("r/c")
    w.ended("r/a", code=1)
    assert w.job_state("r/b") is JobState.SKIPPED
    assert causes(w, "r/d") == [
        ("DEPENDENCIES", "waits for c (RUNNING)"),
        ("PLACED", "c runs on host:8080"),
    ]
    assert told(w, "r/d").causes[0].jobs == ("c",)
