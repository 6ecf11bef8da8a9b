"""The simulator's default run: a few hundred seeds, what they covered, and that they repeat.

More seeds: `nox -s sim`. One seed, told step by step: `nox -s sim -- --seed 4711 --trace`.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.sim.campaign import campaign, gather
from tests.sim.coverage import Coverage
from tests.sim.simulation import FAULTS_MIN, JOBS_MIN, RUNS_MIN, WORKERS_MIN, Failure, simulate

ROOT = pathlib.Path(__file__).resolve().parents[2]
SEEDS = 300
PROCESSES = 2
ONE_SEED = 7
FAILED = pathlib.Path(__file__).with_name("failed_seeds.txt")


def test_every_seed_keeps_every_promise_and_together_they_exercise_everything(record_property):
    outcome, coverage = gather(1, SEEDS, processes=PROCESSES)
    record_property("told", coverage.report())
    assert outcome.failures == ()
    assert outcome.seeds == SEEDS
    assert coverage.missing() == []


def failed_seeds() -> list[int]:
    lines = FAILED.read_text(encoding="utf-8").splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("seed", failed_seeds())
def test_a_seed_that_once_failed_is_green(seed):
    """Later commits draw another story from it; what it found then has a test of its own."""
    assert simulate(seed).seed == seed


def test_a_campaign_writes_down_what_it_came_to(tmp_path, monkeypatch):
    report = tmp_path / "new" / "sim.json"
    assert campaign(ONE_SEED, 2, processes=1, report_to=report) == 1  # two seeds miss a lot
    found = json.loads(report.read_bytes())
    assert (found["first"], found["seeds"], found["failed"]) == (ONE_SEED, 2, [])
    assert found["coverage"]["message"]["Join"] > 0
    assert found["missing"]
    assert found["steps"] > 0
    monkeypatch.setattr("tests.sim.simulation.STEPS_MAX", 50)
    campaign(ONE_SEED, 2, processes=1, report_to=report)
    found = json.loads(report.read_bytes())
    assert found["failed"] == [ONE_SEED, ONE_SEED + 1]
    assert "--trace" in found["failures"][0]


def test_a_seed_draws_at_least_what_is_promised():
    assert (WORKERS_MIN, RUNS_MIN, JOBS_MIN, FAULTS_MIN) >= (2, 3, 20, 3)
    drawn = simulate(ONE_SEED).drawn.replace(",", "").split()
    workers, runs, jobs, faults = (int(word) for word in drawn[::2])
    assert workers >= 2
    assert runs >= 3
    assert jobs >= 20
    assert faults >= 3


def test_a_seed_repeats_itself():
    assert simulate(ONE_SEED).digest == simulate(ONE_SEED).digest
    assert simulate(ONE_SEED).digest != simulate(ONE_SEED + 1).digest


@pytest.mark.parametrize("seed", [ONE_SEED, 25])
def test_a_seed_is_the_same_under_every_hash_seed(seed):
    """What depends on the order of a set, or on hash(), would differ."""
    answers = {_replay(seed, hash_seed) for hash_seed in ("1", "4242")}
    assert len(answers) == 1
    assert f"digest {simulate(seed).digest}" in answers.pop()


def _replay(seed: int, hash_seed: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim", "--seed", str(seed)],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONHASHSEED": hash_seed,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    return done.stdout


def test_tracing_changes_nothing(capsys):
    quiet = simulate(ONE_SEED).digest
    assert simulate(ONE_SEED, tracing=True).digest == quiet
    assert "FAULT" in capsys.readouterr().out


def test_a_failing_seed_says_how_to_see_it_again(monkeypatch):
    monkeypatch.setattr("tests.sim.simulation.STEPS_MAX", 50)
    with pytest.raises(Failure, match=rf"step 51: .*(\n.*)*-- --seed {ONE_SEED} --trace"):
        simulate(ONE_SEED)


def test_what_was_never_exercised_is_named():
    missing = Coverage().missing()
    assert "fault: link half-open" in missing
    assert "message: Join" in missing
    assert "transition: JOB QUEUED -> PLACED" in missing
    assert not any("LogChunk" in name for name in missing)
