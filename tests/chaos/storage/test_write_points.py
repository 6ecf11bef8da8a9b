"""Killed at any write or sync, a real master has everything that it acknowledged."""

from __future__ import annotations

import pytest

from tests.chaos.storage import points

SAMPLE = 15


@pytest.mark.needs("strace")
@pytest.mark.timeout(180)
def test_a_master_killed_at_any_write_has_what_it_acknowledged() -> None:
    """And killed again while it recovers, too."""
    result = points.campaign(4711, sample=SAMPLE, submissions=12)
    assert result.failures == []
    assert result.lost == 0
    assert result.counts["killed there"] > SAMPLE // 2
    assert result.counts["acknowledged"] > 0
    assert result.counts["recoveries killed"] > 0
