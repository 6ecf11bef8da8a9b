"""Which folders may go, and whose logs are owed, over restarts of the process."""

import pytest

from titan_proto.ids import AttemptRef
from titan_worker.config import KEEP_MS as RETENTION_MS
from titan_worker.endings import HOUR_MS, SWEEP_MAX, Endings

NOW = 10 * RETENTION_MS
LATER = NOW + RETENTION_MS + HOUR_MS


def ref(number):
    return AttemptRef("r" * 16, "job", number)


@pytest.fixture
def reopen(tmp_path):
    opened = []

    def again():
        for endings in opened:
            endings.close()
        endings = Endings(tmp_path / "endings")
        endings.open()
        opened.append(endings)
        return endings

    yield again
    for endings in opened:
        endings.close()


def test_logs_are_owed_until_they_are_shipped(reopen):
    endings = reopen()
    for number in (1, 2, 3):
        endings.ended(ref(number), NOW, owes_logs=number < 3)
    endings.shipped(ref(1), LATER)
    endings.shipped(ref(3), LATER)

    assert endings.owing() == [ref(2)]
    assert reopen().owing() == [ref(2)]


def test_folders_are_due_a_day_after_the_end_and_not_before(reopen):
    endings = reopen()
    endings.ended(ref(1), NOW, owes_logs=False)

    assert endings.due(NOW + RETENTION_MS, RETENTION_MS) is None
    assert endings.due(LATER, RETENTION_MS).refs == (ref(1),)


def test_they_go_in_portions_oldest_first_also_over_a_restart(reopen):
    endings = reopen()
    for number in range(1, SWEEP_MAX + 3):
        endings.ended(ref(number), NOW, owes_logs=False)
    endings.ended(ref(99_999), NOW + 2 * HOUR_MS, owes_logs=False)

    first = endings.due(LATER, RETENTION_MS)
    endings.removed(first, LATER)
    second = endings.due(LATER, RETENTION_MS)
    assert first.refs == tuple(ref(number) for number in range(1, SWEEP_MAX + 1))
    assert second.refs == (ref(SWEEP_MAX + 1), ref(SWEEP_MAX + 2))

    again = reopen()
    assert again.due(LATER, RETENTION_MS).refs == first.refs  # asked twice does no harm
    for _ in range(2):
        again.removed(again.due(LATER, RETENTION_MS), LATER)
    assert again.due(LATER, RETENTION_MS) is None
    assert again.due(LATER + 2 * HOUR_MS, RETENTION_MS).refs == (ref(99_999),)


def test_a_folder_whose_log_is_owed_stays(reopen):
    endings = reopen()
    endings.ended(ref(1), NOW, owes_logs=True)
    endings.ended(ref(2), NOW, owes_logs=False)

    portion = endings.due(LATER, RETENTION_MS)
    endings.removed(portion, LATER)

    assert portion.refs == (ref(2),)
    assert reopen().owing() == [ref(1)]
    endings = reopen()
    endings.shipped(ref(1), LATER)
    assert endings.due(LATER + RETENTION_MS + HOUR_MS, RETENTION_MS).refs == (ref(1),)


def test_a_line_that_a_crash_cut_short_is_skipped_and_spoils_no_other(reopen, tmp_path):
    endings = reopen()
    endings.ended(ref(1), NOW, owes_logs=True)
    with (tmp_path / "endings" / str(NOW // HOUR_MS)).open("a") as file:
        file.write("ended rrrr jo")

    endings = reopen()
    endings.ended(ref(2), NOW, owes_logs=True)

    assert reopen().owing() == [ref(1), ref(2)]
