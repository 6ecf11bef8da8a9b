"""Damage to a master's files is noticed, or makes no difference."""

from __future__ import annotations

import pytest

from tests.chaos.storage import damage
from tests.chaos.storage.results import Result

FLIPS, CUTS = 100, 25


@pytest.fixture(scope="module")
def result() -> Result:
    """What came of the sample."""
    return damage.campaign(1, flips=FLIPS, cuts=CUTS)


def test_no_damage_gives_a_cluster_another_state_to_go_on_from(result: Result) -> None:
    """Refused, or equal to the bit."""
    assert damage.STATE not in result.counts, result.failures
    assert result.counts["detected"] > (FLIPS + CUTS) // 2


def test_no_damage_changes_what_is_told_of_ended_runs(result: Result) -> None:
    """Refused, answered with an error, or equal to the bit."""
    assert result.failures == []
    assert result.counts["detected"] + result.counts.get("harmless", 0) == FLIPS + CUTS
