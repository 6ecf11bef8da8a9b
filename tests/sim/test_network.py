"""The virtual network does what its faults say, and nothing else."""

from __future__ import annotations

import pytest

from tests.sim.network import Network, Partition
from tests.sim.world import Clock, Life, World
from titan_proto.frame import pack


class Talk:
    """A dialler and the master, and what each has heard."""

    def __init__(self, seed=1):
        self.world = World(seed)
        self.network = Network(self.world)
        self.dialler, self.master = Life(self.world, "worker0"), Life(self.world, "master")
        self.heard = {"in": b"", "out": b""}
        self.closed = []
        self.refused = 0
        self.network.listening = self.master
        self.network.accept = lambda end: self._hold("far", end, "in")
        self.dial()
        self.run(50)

    def dial(self):
        self.network.dial(
            self.dialler,
            connected=lambda end: self._hold("near", end, "out"),
            refused=self._refused,
        )

    def _refused(self):
        self.refused += 1

    def _hold(self, name, end, ear):
        setattr(self, name, end)

        def data(piece):
            self.heard[ear] += piece

        end.on_data = data
        end.on_close = lambda: self.closed.append(name)

    def run(self, for_ms):
        over = []
        self.world.after(for_ms, lambda: over.append(True))
        while not over:
            self.world.advance()


@pytest.mark.parametrize(("inward", "outward"), [(True, True), (True, False), (False, True)])
def test_a_partition_keeps_apart_what_it_says_and_hands_it_over_when_it_heals(inward, outward):
    talk = Talk(seed=9)
    names = frozenset({"worker0"})
    # Without the dice: nobody gives up.
    talk.world.chance = lambda _percent: False
    talk.network.part(Partition(names, inward=inward, outward=outward), 1_000)
    talk.near.write(b"to master")
    talk.far.write(b"to worker")
    talk.dial()
    talk.run(500)
    assert talk.heard == {
        "in": b"" if inward else b"to master",
        "out": b"" if outward else b"to worker",
    }
    talk.run(6_000)
    assert talk.heard == {"in": b"to master", "out": b"to worker"}
    assert talk.refused == 1
    assert talk.closed == []


def test_who_gives_up_in_a_partition_is_missed_by_the_other_end_when_it_heals():
    """Also where the other end only waits: found by seeds 102 and 233."""
    talk = Talk()
    talk.world.chance = lambda _percent: True
    talk.network.part(Partition(frozenset({"worker0"}), inward=True, outward=True), 60_000)
    talk.near.write(b"never arrives")
    talk.run(61_000)
    assert sorted(talk.closed) == ["far", "near"]
    assert talk.heard["in"] == b""


def test_what_is_kept_in_the_middle_arrives_when_its_sender_is_long_gone():
    talk = Talk()
    pipe = talk.near.pipe
    talk.near.write(b"hello ")
    talk.near.write(b"proof ")
    pipe.keep(100, 2_000)
    talk.near.write(b"report")
    talk.far.write(b"order")
    talk.run(1_000)
    assert talk.closed == ["near"]
    assert talk.heard == {"in": b"hello proof ", "out": b""}
    talk.run(2_000)
    assert talk.heard["in"] == b"hello proof report"
    assert talk.closed == ["near", "far"]


def test_frames_are_repeated_whole_and_none_is_missing():
    talk = Talk()
    frames = [pack(1, 0x20, 0, 0, bytes([n]) * n) for n in range(1, 40)]
    talk.near.write(frames[0])
    talk.near.write(frames[1])
    talk.near.pipe.repeat(10_000)
    talk.near.write(b"".join(frames[2:]))
    talk.run(100)
    heard, found = talk.heard["in"], []
    while heard:
        length = 8 + int.from_bytes(heard[4:8], "big")
        found.append(heard[:length])
        heard = heard[length:]
    assert list(dict.fromkeys(found)) == frames
    assert len(found) > len(frames)


def test_a_word_to_an_end_that_is_gone_is_answered_with_a_reset():
    talk = Talk()
    talk.far.open = False
    talk.near.write(b"anybody there?")
    talk.run(100)
    assert talk.closed == ["near"]


@pytest.mark.parametrize("permille", [900, 1_000, 1_100])
def test_a_skewed_clock_never_goes_back_and_sleeps_long_enough(permille):
    world = World(1)
    clock = Clock(world, ahead_ms=-700)
    began_ms = clock.now_ms()
    clock.run_at(permille)
    assert clock.now_ms() == began_ms
    world.after(clock.lasts_ms(10_000), lambda: None)
    world.advance()
    assert began_ms + 10_000 <= clock.now_ms() <= began_ms + 10_002
