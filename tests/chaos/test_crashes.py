"""A sample of the crash campaign: `nox -s chaos-full -- crashes` does the same for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.crashes import Campaign, result

CYCLES = 15
BACKLOG = 300


@pytest.mark.timeout(150)
def test_nothing_acknowledged_is_lost_doubled_or_stuck(tmp_path: Path) -> None:
    """Master and workers killed at random moments under load; then everything is counted."""
    campaign = Campaign(tmp_path, seed=20261126, backlog=BACKLOG)
    tally = campaign.run(CYCLES, check_every=8)
    found = result(tally, cycles=CYCLES, seed=20261126, backlog=BACKLOG)
    assert found.found == [], campaign.logs()
    assert found.passed
    # A campaign that killed nothing or ran nothing would have shown nothing.
    assert tally.masters >= 5
    assert tally.workers >= 2
    assert tally.runs > CYCLES
    assert tally.keys_asked_again > 0
