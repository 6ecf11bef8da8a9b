"""How busy workers are is remembered for a while, within its bounds, and told to who looks."""

import pytest

from titan_master.data.usage import LOOK_FOR_MS, UsageDesk, UsageLimits
from titan_proto.ids import AttemptRef
from titan_proto.messages import (
    AttemptUsage,
    GetUsage,
    SampleUsage,
    Usage,
    UsageView,
    WorkerUsage,
)

MINUTE_MS = 60_000


class Outlet:
    """A link that keeps what is sent on it."""

    link_id = 1

    def __init__(self):
        self.sent = []

    def send(self, message, correlation=0, *, end=False):
        self.sent.append(message)

    def take(self, kind):
        found = [message for message in self.sent if isinstance(message, kind)]
        self.sent = [message for message in self.sent if not isinstance(message, kind)]
        return found


class Place:
    """A desk, its clock, a person and a worker."""

    def __init__(self, **limits):
        self.now_ms = 1_000_000
        usual = {"history_ms": 15 * MINUTE_MS, "history_bytes": 10**6, "reply_bytes": 10**6}
        self.desk = UsageDesk(lambda: self.now_ms, UsageLimits(**(usual | limits)))
        self.person, self.worker = Outlet(), Outlet()

    def tell(self, cpu=100, worker_id="w-1", outlet=None, attempts=0):
        usage = Usage(
            cpu_permille=cpu,
            attempts=tuple(
                AttemptUsage(ref=AttemptRef("r" * 16, f"j{n}", 1)) for n in range(attempts)
            ),
        )
        message = WorkerUsage(usage=usage, limits="rlimits")
        self.desk.heard(outlet or self.worker, worker_id, "box:8080", message)

    def ask(self, history_of=""):
        self.desk.answer(self.person, 7, GetUsage(history_of=history_of))
        (view,) = self.person.take(UsageView)
        return view


@pytest.fixture
def place():
    return Place()


def test_who_asks_is_told_the_newest_of_every_worker_and_the_history_of_one(place):
    place.tell(100)
    place.now_ms += 15_000
    place.tell(200)
    place.tell(300, "w-2")

    view = place.ask("w-1")

    assert {one.worker_id: one.usage.cpu_permille for one in view.workers} == {
        "w-1": 200,
        "w-2": 300,
    }
    assert (view.workers[0].name, view.workers[0].limits) == ("box:8080", "rlimits")
    assert [(point.at_ms, point.usage.cpu_permille) for point in view.history] == [
        (1_000_000, 100),
        (1_015_000, 200),
    ]
    assert place.ask().history == ()
    assert place.ask("w-9").history == ()


def test_workers_tell_more_often_while_somebody_looks_and_not_longer(place):
    place.tell()
    assert place.worker.take(SampleUsage) == []

    place.ask()
    assert place.worker.take(SampleUsage) == [SampleUsage(every_ms=2_000, for_ms=LOOK_FOR_MS)]
    place.now_ms += 1_000
    place.ask()
    assert place.worker.take(SampleUsage) == []  # it was told so a moment ago
    place.now_ms += 5_000
    place.tell()
    assert len(place.worker.take(SampleUsage)) == 1
    place.now_ms += LOOK_FOR_MS
    place.tell()
    assert place.worker.take(SampleUsage) == []


def test_a_worker_that_comes_back_while_somebody_looks_is_asked_on_its_new_link(place):
    place.tell()
    place.ask()
    place.worker.take(SampleUsage)
    place.desk.gone(place.worker)
    place.now_ms += 6_000
    place.ask()
    assert place.worker.sent == []  # nobody is there

    again = Outlet()
    place.tell(outlet=again)

    assert len(again.take(SampleUsage)) == 1
    assert place.worker.sent == []


def test_a_quarter_of_an_hour_is_remembered_and_a_worker_that_is_gone_for_longer_is_not(place):
    for minute in range(20):
        place.tell(minute)
        place.now_ms += MINUTE_MS

    history = place.ask("w-1").history
    assert [point.usage.cpu_permille for point in history] == list(range(5, 20))
    place.now_ms += 15 * MINUTE_MS
    assert place.ask("w-1") == UsageView(at_ms=place.now_ms)
    assert place.desk._bytes == 0


def test_too_much_is_never_remembered_and_the_oldest_goes_first():
    place = Place(history_bytes=10_000)
    for turn in range(1_000):
        place.tell(turn, f"w-{turn % 3}", attempts=20)
        place.now_ms += 100
        assert place.desk._bytes <= 10_000

    view = place.ask("w-0")
    assert view.history[-1].usage.cpu_permille == 999
    assert len(view.workers) == 3


def test_an_answer_fits_whatever_there_is():
    place = Place(reply_bytes=20_000, history_bytes=10**7)
    for _ in range(100):
        for worker in range(30):
            place.tell(7, f"w-{worker}", attempts=100)
            place.now_ms += 1

    view = place.ask("w-3")

    assert len(view.workers) == 30
    assert 0 < sum(len(one.usage.attempts) for one in view.workers) < 1_000
    assert len(view.history) < 100
