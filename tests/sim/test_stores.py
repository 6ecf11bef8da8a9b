"""What a simulated cluster journalled, given to the other store: both must come to the same."""

from __future__ import annotations

import pytest

from tests.sim.simulation import Simulation
from titan_master.core.state import digest
from titan_master.store import codec
from titan_master.store.sqlite import SqliteStore, connect

TURN = 7
"""Events in one commit; the real turns are not written down in a journal."""


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_both_stores_tell_the_same_of_a_stormy_day(seed, tmp_path):
    """State, and every view of every run, job and attempt."""
    simulation = Simulation(seed)
    simulation.run()
    memory = simulation.master.store
    events = [codec.decode(record.body) for record in memory.records()]
    sqlite = SqliteStore(tmp_path / "t.sqlite", connect=connect)
    term = sqlite.open().term
    for start in range(0, len(events), TURN):
        sqlite.commit(events[start : start + TURN], term)
    try:
        _compare(memory, sqlite)
    finally:
        sqlite.close()
    assert digest(sqlite.open().state) == digest(memory.open().state)
    sqlite.close()


def _compare(memory, sqlite):
    runs = memory.runs("", 100).runs
    assert runs == sqlite.runs("", 100).runs
    assert len(runs) >= 3
    for run in runs:
        assert memory.run(run.run_id) == sqlite.run(run.run_id)
        assert memory.resolve(run.alias) == sqlite.resolve(run.alias)
        page, other = memory.jobs(run.run_id, "", 1_000), sqlite.jobs(run.run_id, "", 1_000)
        assert page == other
        for job in page.jobs:
            assert memory.job(run.run_id, job.job_id) == sqlite.job(run.run_id, job.job_id)
            attempts = memory.attempts(run.run_id, job.job_id)
            assert attempts == sqlite.attempts(run.run_id, job.job_id)
            assert memory.newest_with_job(job.job_id) == sqlite.newest_with_job(job.job_id)
