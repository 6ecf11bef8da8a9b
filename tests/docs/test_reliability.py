"""The reliability report says what the full runs left, and nothing else."""

from __future__ import annotations

from tests.chaos import report


def test_the_report_is_what_the_runs_left() -> None:
    """Generated, never typed: `python -m tests.chaos report` makes it anew."""
    assert report.PAGE.read_text(encoding="utf-8") == report.render(report.load(report.FOLDER))


def test_every_run_says_when_where_and_how_to_repeat_it() -> None:
    """A figure without them is a rumour."""
    results = report.load(report.FOLDER)
    assert results
    for result in results:
        assert result.date, result.name
        assert result.command.startswith("nox -s "), result.name
        assert result.figures, result.name
        assert result.passed == (not result.found), result.name
