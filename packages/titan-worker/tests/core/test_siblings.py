"""Siblings of a worker: each spawned once, told of until heard, killed when given up."""

import pytest

from titan_proto.messages import Kin, Leave, SpawnReport, SpawnReports, SpawnSibling, SpawnVerdicts
from titan_worker.core.core import BornAs
from titan_worker.core.effects import BearSibling, EndSibling, Exit, FindSibling, Send
from titan_worker.core.inputs import (
    FromMaster,
    LinkDown,
    SiblingBegan,
    SiblingGone,
    Started,
    StopRequested,
)
from titan_worker.core.records import SiblingForgotten, SiblingTaken


def order(number=7, *, term=1):
    return FromMaster(
        message=SpawnSibling(
            term=term,
            number=number,
            proof="p",
            port=8081,
            slots=2,
            skills=("GENERAL",),
            join_within_ms=60_000,
        )
    )


def verdict(*, settled=(), given_up=(), term=1):
    return FromMaster(message=SpawnVerdicts(term=term, settled=settled, given_up=given_up))


def began(number=7):
    return SiblingBegan(number=number, pid=4711, start_ticks=99)


def gone(number=7, message="it ended with 1"):
    return SiblingGone(number=number, message=message)


def asked(turn, kind):
    return [effect for effect in turn.effects if isinstance(effect, kind)]


def said(turn, kind):
    return [
        effect.message
        for effect in turn.effects
        if isinstance(effect, Send) and isinstance(effect.message, kind)
    ]


@pytest.fixture
def parent(new_world):
    """A worker with cores, joined."""
    return new_world(cores=8).begin()


def test_an_order_is_written_down_before_it_is_carried_out_and_carried_out_once(parent):
    turn = parent.turn(order())
    assert [type(record) for record in turn.records] == [SiblingTaken]
    assert [effect.order.number for effect in asked(turn, BearSibling)] == [7]
    again = parent.turn(order())
    assert (again.records, asked(again, BearSibling)) == ((), [])


def test_one_of_which_nothing_is_known_any_more_is_not_spawned_again_on_the_same_link(parent):
    parent.turn(order(7), order(8))
    parent.turn(gone(7), gone(8))
    parent.turn(verdict(settled=(7, 8)))
    assert asked(parent.turn(order(7), order(8)), BearSibling) == []


def test_an_end_is_told_and_remembered_until_the_master_has_heard(parent):
    parent.turn(order(), began())
    turn = parent.turn(gone())
    assert said(turn, SpawnReports) == [
        SpawnReports(reports=(SpawnReport(number=7, ended=True, message="it ended with 1"),))
    ]
    parent.turn(LinkDown())
    (kin,) = said(parent.turn(parent.link_up()), Kin)
    assert kin.spawned == (SpawnReport(number=7, ended=True, message="it ended with 1"),)
    turn = parent.turn(parent.joined(), verdict(settled=(7,)))
    assert [type(record) for record in turn.records] == [SiblingForgotten]


def test_one_that_has_joined_is_told_of_no_more_and_forgotten_when_it_ends(parent):
    parent.turn(order(), began(), verdict(settled=(7,)))
    parent.turn(LinkDown())
    (kin,) = said(parent.turn(parent.link_up()), Kin)
    assert kin.spawned == ()
    parent.turn(parent.joined())
    turn = parent.turn(gone())
    assert said(turn, SpawnReports) == []
    assert isinstance(turn.records[-1], SiblingForgotten)


@pytest.mark.parametrize("is_quick", [True, False])
def test_one_that_is_given_up_is_killed_as_soon_as_it_can_be(parent, is_quick):
    parent.turn(order(), *([began()] if is_quick else []))
    turn = parent.turn(verdict(given_up=(7,)))
    assert len(asked(turn, EndSibling)) == is_quick
    if not is_quick:
        assert len(asked(parent.turn(began()), EndSibling)) == 1
    assert isinstance(parent.turn(gone()).records[-1], SiblingForgotten)


def test_the_next_process_looks_for_what_this_one_spawned(parent):
    parent.turn(order(7), order(8), began(7))
    turn = parent.crash().turn(Started(boot_id="boot"))
    found = [(one.order.number, one.pid) for one in asked(turn, FindSibling)]
    assert found == [(7, 4711), (8, 0)]
    parent.turn(gone(8, "it ended while nobody watched"))
    (kin,) = said(parent.turn(parent.link_up()), Kin)
    assert [(one.number, one.ended) for one in kin.spawned] == [(7, False), (8, True)]


def test_after_a_boot_none_of_them_is_there(parent):
    parent.turn(order(), began())
    turn = parent.crash().turn(Started(boot_id="another"))
    assert asked(turn, FindSibling) == []
    (kin,) = said(parent.turn(parent.link_up()), Kin)
    assert kin.spawned[0].ended


def test_a_worker_that_leaves_spawns_nobody_and_says_so(parent):
    parent.drain_ms = 60_000
    parent.crash().running_jobs(parent.order("a"))
    parent.turn(StopRequested())
    turn = parent.turn(order())
    assert asked(turn, BearSibling) == []
    (told,) = said(turn, SpawnReports)
    assert told.reports[0].ended
    assert "leaving" in told.reports[0].message


def test_a_master_of_an_older_term_has_nobody_spawned_or_killed(new_world):
    world = new_world(cores=8)
    world.turn(Started(boot_id="boot"), world.link_up(term=3), world.joined(term=3))
    assert asked(world.turn(order(term=2)), BearSibling) == []


def test_a_worker_without_cores_says_nothing_of_siblings(new_world):
    world = new_world()
    assert said(world.turn(world.link_up()), Kin) == []


# -- one that was spawned ---------------------------------------------------------------------------
BORN = BornAs(number=7, proof="p", join_within_ms=60_000, alone_ms=600_000)


def test_a_spawned_worker_shows_that_it_was_asked_for(new_world):
    world = new_world(cores=8, born_as=BORN)
    world.turn(Started(boot_id="boot"))
    (kin,) = said(world.turn(world.link_up()), Kin)
    assert (kin.number, kin.proof) == (7, "p")


def test_a_spawned_worker_that_is_not_taken_in_ends_by_itself(new_world):
    world = new_world(born_as=BORN)
    world.turn(Started(boot_id="boot"))
    assert world.core.next_deadline_ms() == world.now_ms + 60_000
    assert asked(world.turn(after_ms=59_999), Exit) == []
    assert len(asked(world.turn(after_ms=1), Exit)) == 1


def test_a_spawned_worker_without_a_master_for_long_leaves_by_itself(new_world):
    world = new_world(born_as=BORN)
    world.turn(Started(boot_id="boot"))
    world.turn(world.link_up(), world.joined())
    world.turn(LinkDown(), after_ms=20_000)
    assert not world.core.is_leaving
    world.turn(after_ms=599_999)
    assert not world.core.is_leaving
    world.turn(after_ms=1)
    assert world.core.is_leaving


def test_a_spawned_worker_that_finds_its_master_again_stays(new_world):
    world = new_world(born_as=BORN)
    world.turn(Started(boot_id="boot"))
    world.turn(world.link_up(), world.joined())
    world.turn(LinkDown())
    world.turn(world.link_up(), world.joined(), after_ms=500_000)
    world.turn(LinkDown(), after_ms=1)
    turn = world.turn(after_ms=500_000)
    assert not world.core.is_leaving
    assert said(turn, Leave) == []


def test_other_workers_may_be_alone_for_ever(new_world):
    world = new_world()
    world.turn(Started(boot_id="b"))
    world.turn(after_ms=10_000_000)
    assert not world.core.is_leaving
