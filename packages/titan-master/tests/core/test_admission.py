"""Admission: keys, limits, names."""

from __future__ import annotations

import msgspec
from core_world import World, effects, events, job, kinds, run

from titan_master.core.apply import KEY_REMEMBERED_MS, apply
from titan_master.core.core import CoreConfig
from titan_master.core.events import PoisonRemembered
from titan_proto.errors import ErrorCode
from titan_proto.messages import Error, RunReceipt


def answer(turn):
    return turn.effects[0].message


def test_a_run_is_accepted_in_one_event_and_answered_with_its_alias():
    w = World()
    turn = w.submit(run("My Pipeline!", job("a"), job("b", "a")), run_id="r")
    assert events(turn) == [
        (
            "RunAccepted(run_id=r, key=key-r, name='My Pipeline!', slug=my-pipeline, number=1,"
            " owner=ann, jobs=2, spec=<bytes>)"
        )
    ]
    assert effects(turn) == ["Reply(origin=1.1, message=RunReceipt(run_id=r, alias=my-pipeline-1))"]


def test_the_same_key_with_the_same_content_is_the_same_run_and_no_event():
    w = World()
    w.submit(run("r", job("a")), key="k")
    turn = w.submit(run("r", job("a")), key="k", run_id="other")
    assert events(turn) == []
    assert effects(turn) == [
        "Reply(origin=1.2, message=RunReceipt(run_id=r, alias=r-1, known=True))"
    ]


def test_what_was_said_of_the_files_stands_on_the_receipt_of_every_try():
    """It is for whoever submits, and no part of what is remembered."""
    w = World()
    first = w.submission(run("r", job("a")), key="k")
    turn = w.turn(msgspec.structs.replace(first, notices=("a.py was replaced",)))
    assert "replaced" not in events(turn)[0]
    assert answer(turn).notices == ("a.py was replaced",)
    again = msgspec.structs.replace(first, notices=("a.py was replaced",))
    assert answer(w.turn(again)) == msgspec.structs.replace(answer(turn), known=True)


def test_a_key_is_known_after_its_run_has_ended():
    w = World({"w1": 1})
    w.submit(run("r", job("a")), key="k")
    w.ended("r/a")
    assert not w.state.runs
    receipt = answer(w.submit(run("r", job("a")), key="k", run_id="other"))
    assert receipt == RunReceipt(run_id="r", alias="r-1", known=True)


def test_two_submissions_of_one_key_in_one_turn_are_one_run():
    w = World()
    first = w.submission(run("r", job("a")), key="k")
    second = w.submission(run("r", job("a")), key="k", run_id="other")
    turn = w.turn(first, second)
    assert kinds(turn) == ["RunAccepted"]
    assert [effect.message.known for effect in turn.effects] == [False, True]


def test_the_same_key_with_other_content_is_a_conflict():
    w = World()
    w.submit(run("r", job("a")), key="k")
    turn = w.submit(run("r", job("b")), key="k", run_id="other")
    assert events(turn) == []
    assert answer(turn).code is ErrorCode.CONFLICT
    assert answer(turn).details == {"run_id": "r", "alias": "r-1"}


def test_a_key_is_forgotten_after_seven_days():
    w = World()
    w.submit(run("r", job("a")), key="k")
    w.now_ms += KEY_REMEMBERED_MS - 1
    assert answer(w.submit(run("r", job("a")), key="k", run_id="r2")).known
    w.now_ms += 1
    assert not answer(w.submit(run("r", job("a")), key="k", run_id="r2")).known
    assert list(w.state.keys) == ["k"]
    assert w.state.keys["k"].run_id == "r2"


def test_old_keys_leave_memory():
    w = World()
    for number in range(5):
        w.submit(run("r", job("a")), run_id=f"r{number}")
        w.now_ms += KEY_REMEMBERED_MS // 2
    assert list(w.state.keys) == ["key-r3", "key-r4"]


def test_numbers_of_a_slug_go_on_when_its_runs_have_ended():
    w = World({"w1": 4})
    aliases = []
    for number in range(3):
        aliases.append(answer(w.submit(run("Nightly", job("a")), run_id=f"r{number}")).alias)
        w.ended(f"r{number}/a")
    assert aliases == ["nightly-1", "nightly-2", "nightly-3"]


def test_live_runs_are_limited_and_the_error_names_the_limit():
    w = World(config=CoreConfig(live_runs_max=1))
    w.submit(run("r", job("a")))
    turn = w.submit(run("s", job("a")))
    assert events(turn) == []
    assert answer(turn).code is ErrorCode.LIMIT_EXCEEDED
    assert answer(turn).details == {"limit": "live_runs"}


def test_live_jobs_are_limited():
    w = World(config=CoreConfig(live_jobs_max=3))
    w.submit(run("r", job("a"), job("b")))
    refusal = answer(w.submit(run("s", job("a"), job("b"))))
    assert refusal.details == {"limit": "live_jobs"}
    assert isinstance(answer(w.submit(run("t", job("a")))), RunReceipt)


def test_a_key_must_be_there_and_not_endless():
    w = World()
    for key in (" " * 129, "k" * 1000):
        refusal = answer(w.submit(run("r", job("a")), key=key))
        assert refusal.details == {"limit": "submit_key_chars"}
    assert not w.state.runs


def test_what_stopped_the_master_once_is_refused():
    w = World()
    item = w.submission(run("r", job("a")))
    for state in (w.state, w._shadow):
        apply(state, PoisonRemembered(at_ms=1, digest=item.digest, what="broke it"))
    refusal = answer(w.turn(item))
    assert isinstance(refusal, Error)
    assert refusal.code is ErrorCode.INTERNAL
    assert not w.state.runs


def test_a_run_without_jobs_is_over_at_once():
    w = World()
    turn = w.submit(run("r"))
    assert kinds(turn) == ["RunAccepted", "RunEnded"]
    assert not w.state.runs


def test_a_key_that_has_grown_too_old_is_not_known_to_the_shell_either():
    """It may lie in the state still, until the next run is accepted: its scripts must be found."""
    w = World()
    w.submit(run("r", job("a")), key="k")
    assert w.core.knows_key("k", w.now_ms)
    assert not w.core.knows_key("other", w.now_ms)
    assert not w.core.knows_key("k", w.now_ms + KEY_REMEMBERED_MS)
    w.advance(KEY_REMEMBERED_MS)
    assert "k" in w.state.keys
    again = answer(w.submit(run("r", job("a")), key="k", run_id="other"))
    assert (again.run_id, again.known) == ("other", False)
