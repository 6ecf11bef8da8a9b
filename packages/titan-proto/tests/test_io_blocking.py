"""The blocking link and its pool, over real sockets."""

from __future__ import annotations

import hashlib
import socket
import threading
import time

import pytest

from titan_proto.connection import Closed
from titan_proto.errors import (
    ConnectFailed,
    ErrorCode,
    LinkLost,
    LocalProtocolError,
    NotFound,
    Refused,
    RemoteProtocolError,
    Timeout,
    Unavailable,
)
from titan_proto.io.address import Address
from titan_proto.io.blocking import BlockingLink, LinkPool
from titan_proto.messages import (
    Cancel,
    FetchArtifact,
    GetRun,
    GetStats,
    JobChange,
    Role,
    RunView,
    Stats,
    WatchRun,
)

DEADLINE_S = 10.0


def connect(master, token=None):
    return BlockingLink.connect(
        master.address,
        token or master.token,
        role=Role.CLIENT,
        software="test 1.0",
        timeout_s=DEADLINE_S,
    )


@pytest.fixture
def link(master):
    with connect(master) as made:
        yield made


@pytest.fixture
def mute():
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Address(*server.getsockname())


# -- opening --------------------------------------------------------------------------------------


def test_a_link_opens_and_knows_where_it_has_arrived(link):
    assert link.welcome.cluster_id == "c1"
    assert link.welcome.version == 1
    assert link.is_usable


def test_nobody_there(mute):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address(*server.getsockname())
    with pytest.raises(ConnectFailed, match=f"no master answers at {address}"):
        BlockingLink.connect(
            address, f"titan_local_a_{'0' * 64}", role=Role.CLIENT, software="t", timeout_s=5
        )


def test_somebody_there_who_does_not_answer(mute):
    with pytest.raises(ConnectFailed, match="did not complete the handshake"):
        BlockingLink.connect(
            mute, f"titan_local_a_{'0' * 64}", role=Role.CLIENT, software="t", timeout_s=0.05
        )


def test_a_wrong_secret_is_refused_by_the_dialler(master, other_token):
    with pytest.raises(Refused, match="could not prove") as caught:
        connect(master, other_token[0])
    assert caught.value.code is ErrorCode.UNAUTHENTICATED


def test_an_unknown_token_is_refused_by_the_master(master):
    with pytest.raises(Refused, match="unknown token"):
        connect(master, f"titan_local_nobody_{'0' * 64}")


# -- calls ----------------------------------------------------------------------------------------


def test_a_call_has_its_answer(link):
    assert isinstance(link.call(GetStats()), Stats)
    view = link.call(GetRun(run="r1"), timeout_s=DEADLINE_S)
    assert isinstance(view, RunView)
    assert view.run_id == "r1"


def test_a_refusal_is_raised_and_the_link_stays(link):
    with pytest.raises(NotFound, match="no run missing"):
        link.call(GetRun(run="missing"))
    assert link.call(GetRun(run="r2")).run_id == "r2"


def test_an_answer_of_another_kind_is_the_masters_mistake(link):
    with pytest.raises(RemoteProtocolError, match="Stats is no answer to GetRun"):
        link.call(GetRun(run="wrong"))


def test_a_timeout_tells_the_master_and_leaves_the_link_usable(link, master):
    with pytest.raises(Timeout):
        link.call(GetRun(run="never"), timeout_s=0.05)

    assert master.cancelled.wait(DEADLINE_S)
    assert link.call(GetRun(run="r3"), timeout_s=DEADLINE_S).run_id == "r3"


@pytest.mark.parametrize(("run", "words"), [("cut", "hung up|cut"), ("bye", "the master stops")])
def test_a_link_that_ends_while_waiting_is_lost(link, run, words):
    with pytest.raises(LinkLost, match=words):
        link.call(GetRun(run=run), timeout_s=DEADLINE_S)
    assert not link.is_usable
    with pytest.raises(LinkLost):
        link.call(GetStats())


def test_threads_take_turns(link):
    """Each gets its own answer, whoever asks meanwhile."""
    answers: dict[str, str] = {}

    def ask(name):
        for _ in range(20):
            answers[name] = link.call(GetRun(run=name), timeout_s=DEADLINE_S).run_id

    threads = [threading.Thread(target=ask, args=(f"r{n}",)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)

    assert answers == {f"r{n}": f"r{n}" for n in range(5)}


def test_waiting_for_ones_turn_is_part_of_the_timeout(link):
    stream = link.stream(WatchRun(run="endless"))
    next(stream)
    failures = []

    def ask():
        try:
            link.call(GetStats(), timeout_s=0.05)
        except Timeout as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(DEADLINE_S)
    stream.close()

    assert len(failures) == 1
    assert "busy" in str(failures[0])


def test_closing_ends_a_call_that_waits_in_another_thread(master):
    link = connect(master)
    outcome = []

    def ask():
        try:
            link.call(GetRun(run="never"))
        except LinkLost as error:
            outcome.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    deadline = time.monotonic() + DEADLINE_S
    while not any(m.message == GetRun(run="never") for m in master.messages):
        assert time.monotonic() < deadline
    link.close()
    thread.join(DEADLINE_S)

    assert len(outcome) == 1


def test_closing_says_goodbye(master):
    connect(master).close()

    assert master.link_closed.wait(DEADLINE_S)
    assert master.closed == [Closed(ErrorCode.SHUTTING_DOWN, "the client has finished")]


# -- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", ["done", "end"])
def test_a_stream_ends_with_done_or_with_its_last_message(link, run):
    changes = list(link.stream(WatchRun(run=run)))

    assert [change.at_ms for change in changes] == [0, 1, 2]
    assert all(isinstance(change, JobChange) for change in changes)
    assert link.call(GetRun(run="after")).run_id == "after"


def test_a_stream_that_fails_gives_what_it_had_first(link):
    stream = link.stream(WatchRun(run="fails"))
    assert [next(stream).at_ms for _ in range(3)] == [0, 1, 2]
    with pytest.raises(Unavailable, match="not any more"):
        next(stream)


def test_a_stream_that_is_left_is_cancelled(link, master):
    for change in link.stream(WatchRun(run="endless")):
        assert change.run_id == "r"
        break

    assert master.cancelled.wait(DEADLINE_S)
    assert link.call(GetRun(run="after"), timeout_s=DEADLINE_S).run_id == "after"


def test_a_stream_has_a_timeout_for_all_of_it(link):
    with pytest.raises(Timeout):
        for _ in link.stream(WatchRun(run="endless"), timeout_s=0.05):
            pass
    assert link.call(GetStats(), timeout_s=DEADLINE_S)


def test_asking_on_the_link_of_ones_own_stream_is_told_at_once(link):
    """It would wait for itself."""
    stream = link.stream(WatchRun(run="endless"))
    next(stream)

    with pytest.raises(LocalProtocolError, match="another link"):
        link.call(GetStats())
    stream.close()


# -- bytes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 3_000_000])
def test_an_upload_arrives_whole_and_comes_back(link, master, size):
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    digest = hashlib.sha256(data).hexdigest()

    link.upload(digest, size, lambda offset: iter([data[offset:]]), timeout_s=DEADLINE_S)

    assert master.stored[digest] == data
    if size:
        back = b"".join(piece.data for piece in link.stream(FetchArtifact(digest=digest)))
        assert back == data


def test_an_upload_of_what_is_known_sends_nothing(link, master):
    master.stored["d"] = b"known"

    link.upload("d", 5, lambda _offset: pytest.fail("asked for bytes"))


def test_an_upload_goes_on_where_the_master_stands(link, master):
    master.wants_from = 70_000
    asked = []

    def chunks(offset):
        asked.append(offset)
        yield bytes(100_000 - offset)

    link.upload("partly-there", 100_000, chunks)

    assert asked == [70_000]
    assert len(master.stored["partly-there"]) == 30_000


def test_a_master_that_changes_its_mind_stops_an_upload(link):
    """With the reason it gave, and the link stays."""
    with pytest.raises(Unavailable, match="disk full"):
        link.upload("full", 50_000_000, lambda _offset: iter([bytes(65_536)] * 800))
    assert link.call(GetStats(), timeout_s=DEADLINE_S)


def test_a_file_that_has_shrunk_is_not_sent_as_if_it_were_whole(link, master):
    with pytest.raises(LocalProtocolError, match="ended at byte 10 of 20"):
        link.upload("shrunk", 20, lambda _offset: iter([bytes(10)]))
    assert master.cancelled.wait(DEADLINE_S)
    assert link.call(GetStats(), timeout_s=DEADLINE_S)


# -- the pool -------------------------------------------------------------------------------------


@pytest.fixture
def pool(master):
    with LinkPool(lambda: connect(master)) as made:
        yield made


def test_a_pool_uses_its_links_again(pool):
    with pool.link() as first:
        pass
    with pool.link() as second, pool.link() as third:
        assert second is first
        assert third is not first
    assert pool.call(GetRun(run="r")).run_id == "r"


def test_a_pool_asks_while_it_streams(pool):
    for number, _ in enumerate(pool.stream(WatchRun(run="done"))):
        assert pool.call(GetRun(run=f"r{number}"), DEADLINE_S).run_id == f"r{number}"


def test_a_pool_dials_again_when_its_link_has_gone_stale(pool, master):
    """The master was started again meanwhile; who asks need not know."""
    assert pool.call(GetStats())
    master.hang_up()
    assert master.link_closed.wait(DEADLINE_S)

    assert pool.call(GetRun(run="again"), DEADLINE_S).run_id == "again"


def test_a_pool_keeps_no_broken_link(pool):
    with pytest.raises(LinkLost):
        pool.call(GetRun(run="cut"), DEADLINE_S)
    with pool.link() as link:
        assert link.is_usable


def test_a_closed_pool_lends_nothing(pool):
    with pool.link() as lent:
        pool.close()
        assert lent.call(GetStats())
    assert not lent.is_usable
    with pytest.raises(LocalProtocolError, match="closed"):
        pool.call(GetStats())


def test_nothing_but_cancels_were_told_of_exchanges_given_up(master):
    """A whole little session leaves no open exchange on the master's side."""
    with connect(master) as link:
        link.call(GetStats())
        list(link.stream(WatchRun(run="end")))
    assert not [m for m in master.messages if isinstance(m.message, Cancel)]
