"""A power cut takes what was not synced; what was acknowledged is there afterwards."""

from __future__ import annotations

import pytest

pytest.importorskip("apsw", reason="the model of a disk is a VFS of apsw")

from tests.chaos.storage import power

SEEDS = 500


def test_no_power_cut_takes_what_was_acknowledged():
    """Four cuts in each history, in commits, checkpoints and openings, some after a failed sync."""
    result = power.campaign(1, SEEDS, power.Habits())
    assert result.failures == []
    assert result.lost == 0
    assert result.counts["cuts"] == SEEDS * power.CUTS
    assert result.counts["commits"] > SEEDS * 10


@pytest.mark.parametrize(
    "habits",
    [power.Habits(synchronous="NORMAL"), power.Habits(is_log_trusted=True)],
    ids=["a sync is left out", "a failed sync is forgotten"],
)
def test_a_master_that_takes_it_easier_loses_records(habits):
    """The control: the cuts are hard enough for that to be seen."""
    assert power.campaign(1, 60, habits).lost > 0
