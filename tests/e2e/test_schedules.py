"""Schedules: the examples, each fired once, and what the command says and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, Titan
from tests.harness.cluster import Cluster

EXAMPLES = ROOT / "examples" / "schedules"


@pytest.mark.parametrize(
    ("file", "name", "job", "said"),
    [
        ("hourly/hourly.yaml", "disk-watch", "LOOK", "% of the disk is used"),
        ("nightly_etl/nightly.yaml", "nightly-etl", "LOAD", "ann 55.50, bob 8.90, eve 1.20"),
        ("database_backup/backup.yaml", "database-backup", "CHECK", "customer: 3 rows"),
        ("database_backup/backup.yaml", "database-backup", "KEEP", "1 in all"),
        ("weekly_report/report.yaml", "weekly-report", "PUBLISH", "The best day was sat"),
    ],
)
def test_an_example_is_added_triggered_and_says_what_it_should(
    cluster: Cluster, titan: Titan, file: str, name: str, job: str, said: str
) -> None:
    """Each with its own schedule; its jobs know the slot."""
    cluster.start_worker(8080)
    assert titan("schedule", "add", str(EXAMPLES / file)).stdout.strip() == name
    alias = titan("schedule", "trigger", name, "--wait").stdout.splitlines()[0]
    assert said in titan("logs", f"{alias}/{job}").stdout
    shown = json.loads(titan("schedule", "show", name, "-o", "json").stdout)
    assert shown["last"]["runAlias"] == alias
    assert shown["last"]["triggered"] is True
    assert shown["next"]
    run = json.loads(titan("show", alias, "-o", "json").stdout)
    assert run["schedule"] == name


def test_the_command_says_what_is_and_refuses_what_cannot_be(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """Added, listed, shown, replaced, paused, resumed, removed; each bad word with its reason."""
    del cluster
    script = tmp_path / "hello.sh"
    script.write_text("echo hello\n", encoding="utf-8")
    made = titan("schedule", "add", "30 2 * * 1-5", str(script), "--tz", "Europe/Berlin")
    assert made.stdout == "hello\n"
    assert "next" in made.stderr
    again = titan("schedule", "add", "30 2 * * 1-5", str(script), "--tz", "Europe/Berlin")
    assert "Nothing has changed" in again.stderr
    replaced = titan("schedule", "add", "@daily", str(script))
    assert "version 2" in replaced.stderr
    assert "hello" in titan("schedule", "ls").stdout
    titan("schedule", "pause", "hello", "-m", "not now")
    shown = titan("schedule", "show", "hello").stdout
    assert "not now" in shown
    assert "paused" in titan("schedule", "ls").stdout
    listed = json.loads(titan("schedule", "ls", "-o", "json").stdout)["items"]
    assert [(one["name"], one["version"], one["next"]) for one in listed] == [("hello", 2, [])]
    titan("schedule", "resume", "hello")
    assert "did you mean" in titan("schedule", "show", "helo", code=3).stderr.lower()
    titan("schedule", "rm", "hello")
    titan("schedule", "trigger", "hello", code=3)
    for words, said in (
        (("*/5 * * * * *", str(script)), "has six"),
        (("0 0 31 2 *", str(script)), "never fires"),
        (("@daily", str(script), "--tz", "Mars/Base"), "is no time zone"),
        (("@daily", str(script), "--overlap", "skipp"), 'did you mean "skip"?'),
        (("@daily",), "Say when and what"),
        ((str(script), "@daily"), "five fields"),
    ):
        refused = titan("schedule", "add", *words, code=2)
        assert said in refused.stderr, refused


def test_a_pipelines_schedule_is_refused_at_its_place(titan: Titan, tmp_path: Path) -> None:
    """With line and column, before anything is sent."""
    file = tmp_path / "p.yaml"
    file.write_text(
        "name: p\nschedule:\n  cron: ['@daily', '0 0 31 2 *']\n  timezone: Europe/Berln\n"
        "jobs: [{id: A, run: a}]\n",
        encoding="utf-8",
    )
    said = titan("validate", str(file), code=2).stdout
    assert "p.yaml:3:20: error[Y230]" in said
    assert "never fires" in said
