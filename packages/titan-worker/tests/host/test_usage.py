"""The host's load is read as the kernel writes it."""

import os

from titan_worker.clock import Clock
from titan_worker.host.identity import boot_id, list_pids, read_stat
from titan_worker.host.usage import UsageSampler


def test_this_machine_can_be_sampled():
    usage = UsageSampler().sample()

    assert 0 <= usage.cpu_permille <= 1000
    assert 0 < usage.memory_used_bytes < usage.memory_total_bytes


def test_a_process_is_described_and_a_missing_one_is_none():
    me = read_stat(os.getpid())

    assert (me.pid, me.parent, me.is_alive) == (os.getpid(), os.getppid(), True)
    assert os.getpid() in list_pids()
    assert read_stat(2**22 + 1) is None
    assert len(boot_id()) == 36


def test_the_clock_moves_on_when_the_wall_is_set_back_and_follows_it_ahead():
    wall, ticks = [1000.0], [5.0]
    clock = Clock(wall_s=lambda: wall[0], monotonic_s=lambda: ticks[0])
    assert clock.now_ms() == 1_000_000

    wall[0], ticks[0] = 400.0, 6.0
    assert clock.now_ms() == 1_001_000

    wall[0], ticks[0] = 2000.0, 7.0
    assert clock.now_ms() == 2_000_000
