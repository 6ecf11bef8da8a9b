"""The host's load is read as the kernel writes it."""

import os
import time

import pytest

from titan_proto.ids import AttemptRef
from titan_worker.clock import Clock, read_steady_s, system_clock
from titan_worker.host.identity import ProcessIdentity, boot_id, list_pids, read_stat
from titan_worker.host.usage import HostLooker, UsageSampler


def test_this_machine_can_be_sampled():
    usage = UsageSampler().sample()

    assert 0 <= usage.cpu_permille <= 1000
    assert 0 < usage.memory_used_bytes < usage.memory_total_bytes


def test_a_look_shows_this_machine_and_a_folder_that_is_gone_is_no_trouble(tmp_path):
    looker = HostLooker(str(tmp_path / "gone"))

    usage = looker.look({})

    assert 0 <= usage.cpu_permille <= 1000
    assert 0 < usage.memory_used_bytes < usage.memory_total_bytes
    assert (usage.disk_used_bytes, usage.disk_total_bytes) == (0, 0)
    assert usage.received_bytes_per_s >= 0
    assert usage.attempts == ()


def test_a_number_that_was_given_out_again_is_not_taken_for_the_attempt(tmp_path):
    ref = AttemptRef("r" * 16, "a", 1)
    me = ProcessIdentity(os.getpid(), read_stat(os.getpid()).start_ticks)
    looker = HostLooker(str(tmp_path))

    (mine,) = looker.look({ref: me}).attempts
    assert mine.memory_bytes > 1_000_000
    assert looker.look({ref: me._replace(start_ticks=me.start_ticks - 1)}).attempts == ()


def test_a_process_is_described_and_a_missing_one_is_none():
    me = read_stat(os.getpid())

    assert (me.pid, me.parent, me.is_alive) == (os.getpid(), os.getppid(), True)
    assert os.getpid() in list_pids()
    assert read_stat(2**22 + 1) is None
    assert len(boot_id()) == 36


@pytest.mark.parametrize("set_to_s", [1000.0 - 86_400, 1000.0 + 86_400])
def test_the_clock_does_not_notice_that_the_wall_is_set(set_to_s):
    """A day back or forward: no lease ends early, no timeout late."""
    wall, ticks = [1000.0], [5.0]
    clock = Clock(wall_s=lambda: wall[0], steady_s=lambda: ticks[0])
    assert clock.now_ms() == 1_000_000

    wall[0], ticks[0] = set_to_s, 6.0
    assert clock.now_ms() == 1_001_000
    assert clock.steady_at_s(1_001_500) == 6.5


def test_the_clock_of_this_machine_tells_the_time():
    clock = system_clock()

    before_ms, steady_s, after_ms = clock.now_ms(), read_steady_s(), clock.now_ms()

    assert abs(before_ms / 1000 - time.time()) < 60
    assert clock.steady_at_s(before_ms) <= steady_s
    assert steady_s < clock.steady_at_s(after_ms + 1)
