"""Every state has a sign, a word and a tone; every reason has words; times and sizes are short."""

from __future__ import annotations

import pytest

from titan_dashboard.words import duration, ended, mark, size
from titan_proto.states import (
    AttemptState,
    ExitReason,
    JobState,
    OpenEnum,
    RunState,
    ServiceState,
    WorkerState,
)

STATES = [
    state
    for kind in (RunState, JobState, AttemptState, WorkerState, ServiceState)
    for state in kind
    if state.value != "UNKNOWN"
]


@pytest.mark.parametrize("state", STATES, ids=lambda state: f"{type(state).__name__}.{state}")
def test_no_state_is_shown_as_unknown(state: OpenEnum) -> None:
    assert mark(state).word != "unknown"


@pytest.mark.parametrize("why", [why for why in ExitReason if why is not ExitReason.UNKNOWN])
def test_every_reason_has_words(why: ExitReason) -> None:
    assert ended(why, 3, 9)


def test_what_is_not_known_yet_is_said_to_be_so() -> None:
    """A state of a newer master."""
    assert mark("HIBERNATING").word == "unknown"
    assert ended(ExitReason.UNKNOWN, 0, 0) == ""
    assert ended(ExitReason.SIGNALLED, 0, 99) == "killed by signal 99"


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (-5, "0 ms"),
        (840, "840 ms"),
        (14_000, "14.0 s"),
        (185_000, "3m 05s"),
        (7_440_000, "2h 04m"),
        (277_200_000, "3d 05h"),
    ],
)
def test_durations(ms: int, text: str) -> None:
    assert duration(ms) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (2**30, "1.0 GiB"), (2**50, "1024 TiB")],
)
def test_sizes(number: int, text: str) -> None:
    assert size(number) == text
