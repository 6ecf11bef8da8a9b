"""`titan next`: the next times, and the odd days."""

from __future__ import annotations

import json

import pytest

from titan_sdk.cli import main


@pytest.fixture
def next_of(capsys, monkeypatch):
    """Run `titan next` in this process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("TZ", "UTC")

    def call(*args):
        with pytest.raises(SystemExit) as left:
            main(["next", *args])
        out, err = capsys.readouterr()
        return left.value.code, out, err

    return call


def test_times_stand_in_both_zones_and_odd_days_have_a_star(next_of):
    code, out, _ = next_of(
        "30 2 * * *", "--tz", "America/New_York", "-n", "2", "--after", "2026-03-07T12:00:00Z"
    )
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "At 02:30 every day, America/New_York"
    assert lines[2].split()[:4] == ["Sun", "2026-03-08", "03:00:00", "EDT"]
    assert lines[2].endswith("*")
    assert "2026-03-08 07:00:00" in lines[2]
    assert not lines[3].endswith("*")
    assert lines[-2:] == [
        "  Sun 2026-03-08 02:00 becomes 03:00: it fires once, 03:00 EDT",
        "  Sun 2026-11-01 02:00 becomes 01:00: it fires once, 02:30 EST",
    ]


def test_a_rhythm_on_an_odd_day_is_told_in_short(next_of):
    _, out, _ = next_of("0 * * * *", "--tz", "Europe/Berlin", "--after", "2026-10-01T00:00:00Z")
    assert "it fires 25 times, 00:00 CEST, 01:00 CEST, 02:00 CEST, 02:00 CET," in out
    assert out.rstrip().splitlines()[-2].endswith("and 19 more")
    _, out, _ = next_of("0 0 1 1 *", "--tz", "Europe/Berlin", "--after", "2026-10-01T00:00:00Z")
    assert "it does not fire that day" in out


def test_as_json(next_of):
    _, out, _ = next_of("@every 90m", "-n", "2", "--after", "2026-10-01T00:00:00Z", "-o", "json")
    value = json.loads(out)
    assert (value["kind"], value["words"]) == (
        "ScheduleTimes",
        "Every 1 hour 30 minutes",
    )
    assert [one["at"] for one in value["times"]] == [
        "2026-10-01T01:30:00.000Z",
        "2026-10-01T03:00:00.000Z",
    ]
    assert value["changes"] == []
    _, out, _ = next_of(
        "*/30 2 * * *", "--tz", "America/New_York", "--after", "2026-03-07T12:00:00Z", "-o", "json"
    )
    value = json.loads(out)
    assert [one["fires"] for one in value["changes"]] == [
        [],
        ["2026-11-01T02:00:00-05:00", "2026-11-01T02:30:00-05:00"],
    ]
    assert value["changes"][0]["offsetBeforeSeconds"] == -18_000


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["*/5 * * * * *"], "has six"),
        (["0 0 31 2 *"], "never fires"),
        (["@daily", "--tz", "Europe/berlin"], 'did you mean "Europe/Berlin"?'),
        (["@daily", "-n", "0"], "'-n'"),
        (["@daily", "--after", "soon"], "no point in time"),
    ],
)
def test_what_cannot_be_meant_is_refused(next_of, args, said):
    code, out, err = next_of(*args)
    assert (code, out) == (2, "")
    assert said in err
