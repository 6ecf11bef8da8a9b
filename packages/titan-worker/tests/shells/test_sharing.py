"""What one job leaves in its run's shared folder is there for the next, whichever folder that runs in."""

import hashlib

import pytest

from titan_proto.filelist import FileLeft, FileList
from titan_proto.messages.worker import Layer, Left
from titan_proto.specs import Artifacts, Intake, JobKind, Launch, LaunchKind, ServiceSection
from titan_proto.states import ExitReason
from titan_worker import leavings
from titan_worker.leavings import decode

RUN = "r" * 16
LARGE = 200_000


@pytest.fixture
def two(nest, make_nest, tmp_path_factory):
    """Two workers with a folder each."""
    return nest, make_nest(tmp_path_factory.mktemp("other"))


def shared(nest):
    return nest.settings.workspace / "shared" / RUN


def listed(peer, left):
    """By path: what the list of an attempt's files says."""
    return {file.path: file for file in decode(peer.blobs[left.digest]).shared}


def layer(index, left):
    return Layer(index=index, left=left)


def stored(peer, *files, index=1, mtime_ns=1_000_000_000):
    """A layer of these (path, bytes), as another worker would have stored it."""
    made = []
    for path, data in files:
        digest = hashlib.sha256(data).hexdigest()
        inline = data if len(data) <= leavings.INLINE_BYTES else b""
        if not inline:
            peer.blobs[digest] = data
        made.append(FileLeft(path, 0o644, mtime_ns, len(data), digest, inline))
    body = leavings.encode(FileList(shared=tuple(made)))
    digest = hashlib.sha256(body).hexdigest()
    peer.blobs[digest] = body
    return layer(index, Left(digest=digest, size_bytes=len(body), shared=len(made)))


# -- leaving ------------------------------------------------------------------------------------------
async def test_what_a_job_leaves_is_stored_before_its_success_is_told(nest, peer):
    await nest.start()
    line = f"mkdir -p $TITAN_SHARED/a/b && echo hello > $TITAN_SHARED/a/b/x && head -c {LARGE} /dev/zero > $TITAN_SHARED/big"
    peer.order("one", shell=line, publishes=True)

    end = await peer.end_of("one")

    assert (end.reason, end.exit_code, end.left.shared) == (ExitReason.EXITED, 0, 2)
    files = listed(peer, end.left)
    assert sorted(files) == ["a/b/x", "big"]
    assert files["a/b/x"].data == b"hello\n"
    assert not files["big"].is_inline
    assert peer.blobs[files["big"].digest] == bytes(LARGE)


async def test_a_job_that_leaves_nothing_stores_nothing(nest, peer):
    shared(nest).mkdir(parents=True)
    (shared(nest) / "old").write_text("of another job, before")
    await nest.start()
    peer.order("one", shell="cat $TITAN_SHARED/old", publishes=True)
    end = await peer.end_of("one")
    assert (end.exit_code, end.left, peer.offers) == (0, None, [])


async def test_where_all_workers_have_one_folder_nothing_is_stored_and_that_is_told(nest, peer):
    await nest.start()
    peer.order("one", shell="echo hello > $TITAN_SHARED/x")
    end = await peer.end_of("one")
    kept = Left(digest="", size_bytes=0, kept=True)
    assert (end.exit_code, end.left, peer.offers) == (0, kept, [])


async def test_only_what_is_new_or_changed_is_stored(nest, peer):
    await nest.start()
    peer.order("one", shell="cd $TITAN_SHARED && echo 1 > a && echo 1 > b", publishes=True)
    first = (await peer.end_of("one")).left
    # In place, of the same size, within the same tick of the file system's clock.
    peer.order("two", shell="cd $TITAN_SHARED && echo 2 > b && echo 2 > c", publishes=True)
    second = (await peer.end_of("two")).left

    assert sorted(listed(peer, first)) == ["a", "b"]
    assert {path: file.data for path, file in listed(peer, second).items()} == {
        "b": b"2\n",
        "c": b"2\n",
    }


async def test_what_a_failed_attempt_left_is_stored_with_the_success_that_used_it(nest, peer):
    await nest.start()
    peer.order("one", shell="echo 1 > $TITAN_SHARED/a; exit 1", publishes=True)
    assert (await peer.end_of("one")).left is None
    assert peer.offers == []
    line = "test -e $TITAN_SHARED/a"
    peer.order("one", shell=line, number=2, publishes=True)
    end = await peer.end_of("one", 2)
    assert sorted(listed(peer, end.left)) == ["a"]


async def test_a_link_that_is_cut_only_delays_the_success(nest, peer):
    peer.cut_upload_at = 100_000
    await nest.start()
    peer.order("one", shell=f"head -c {LARGE} /dev/zero > $TITAN_SHARED/big", publishes=True)
    end = await peer.end_of("one")
    assert (end.exit_code, end.left.shared) == (0, 1)
    assert len(peer.links) == 2
    assert peer.blobs[listed(peer, end.left)["big"].digest] == bytes(LARGE)


async def test_bytes_that_are_stored_already_are_not_sent(nest, peer):
    await nest.start()
    peer.offer(bytes(LARGE))
    peer.order("one", shell=f"head -c {LARGE} /dev/zero > $TITAN_SHARED/big", publishes=True)
    await peer.end_of("one")
    assert [offer.size_bytes for offer, _ in peer.uploads.values()] != []
    assert all(offer.size_bytes < LARGE for offer, _ in peer.uploads.values())


async def test_links_and_what_is_no_file_stay_where_they_are(nest, peer):
    await nest.start()
    line = "cd $TITAN_SHARED && ln -s /etc/passwd out && mkfifo pipe && mkdir empty && ln -s . self && echo 1 > a"
    peer.order("one", shell=line, publishes=True)
    end = await peer.end_of("one")
    assert (end.exit_code, sorted(listed(peer, end.left))) == (0, ["a"])


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("touch 'a\\b'", "backslash"),
        ("touch \"$(printf 'a\\377')\"", "not UTF-8"),
        ("touch 1 2 3", "FILES_LEFT_PER_JOB (2)"),
        (f"head -c {LARGE} /dev/zero > a", "FILES_LEFT_BYTES (1000)"),
    ],
)
async def test_what_cannot_be_carried_fails_the_attempt_and_says_why(
    nest, peer, monkeypatch, line, why
):
    monkeypatch.setattr(leavings, "FILES_LEFT_PER_JOB", 2)
    monkeypatch.setattr(leavings, "FILES_LEFT_BYTES", 1_000)
    await nest.start()
    peer.order("one", shell=f"cd $TITAN_SHARED && {line}", publishes=True)
    end = await peer.end_of("one")
    assert (end.reason, end.left) == (ExitReason.BAD_FILES, None)
    assert why in end.message
    assert "`share: node`" in end.message


async def test_an_attempt_may_be_stopped_while_its_files_are_stored(nest, peer):
    await nest.start()
    peer.is_silent = True
    peer.order("one", shell="echo 1 > $TITAN_SHARED/a", publishes=True)
    await peer.until(peer.got_offer)
    peer.is_silent = False
    peer.stop("one")
    end = await peer.end_of("one")
    assert (end.reason, end.left) == (ExitReason.CANCELLED, None)


async def test_a_service_leaves_its_files_when_it_turns_healthy(nest, peer):
    await nest.start()
    line = "echo ready > $TITAN_SHARED/ready && exec python3 -m http.server --bind 127.0.0.1 $PORT"
    peer.order(
        "one",
        shell=line,
        publishes=True,
        kind=JobKind.SERVICE,
        service=ServiceSection(port_auto=True),
        stop_grace_ms=0,
    )
    await peer.until(lambda: any(report.healthy for report in peer.starts.values()))
    (report,) = peer.starts.values()
    assert {path: file.data for path, file in listed(peer, report.left).items()} == {
        "ready": b"ready\n"
    }


# -- coming -------------------------------------------------------------------------------------------
async def test_a_job_in_another_folder_finds_what_was_left(two, peer):
    here, there = two
    await here.start()
    line = f"cd $TITAN_SHARED && mkdir d && echo hello > d/x && chmod 750 d/x && head -c {LARGE} /dev/zero > big"
    peer.order("one", shell=line, publishes=True)
    left = (await peer.end_of("one")).left
    await there.start()
    line = "cd $TITAN_SHARED && cat d/x && stat -c '%a' d/x && wc -c < big"
    peer.order("two", shell=line, layers=(layer(1, left),))
    end = await peer.end_of("two")
    assert end.exit_code == 0
    assert await peer.log_of("two", b"200000") == b"hello\n750\n200000\n"
    assert (shared(there) / "big").stat().st_nlink == 1


async def test_in_the_folder_where_it_was_left_nothing_is_brought(nest, peer):
    await nest.start()
    peer.order("one", shell="echo 1 > $TITAN_SHARED/a", publishes=True)
    left = (await peer.end_of("one")).left
    peer.order("two", shell="cat $TITAN_SHARED/a", layers=(layer(1, left),))
    assert (await peer.end_of("two")).exit_code == 0
    assert peer.fetches == []


async def test_it_comes_once_for_all_jobs_of_a_folder(nest, peer, make_nest, tmp_path):
    """Also for those of a second worker there; and what they made of it meanwhile stays."""
    found = stored(peer, ("a", b"1\n"), ("big", bytes(LARGE)))
    await nest.start()
    peer.order("one", shell="cd $TITAN_SHARED && cat a && echo 2 > a", layers=(found,))
    assert (await peer.end_of("one")).exit_code == 0
    fetched = len(peer.fetches)
    peer.order("two", shell="cat $TITAN_SHARED/a", layers=(found,))
    assert await peer.log_of("two", b"\n") == b"2\n"

    second = make_nest(tmp_path, port=8081)
    await second.start()
    assert peer.joins[-1].workspace == peer.joins[0].workspace != ""
    peer.order("three", shell="cat $TITAN_SHARED/a", layers=(found,))
    assert await peer.log_of("three", b"\n") == b"2\n"
    assert len(peer.fetches) == fetched


async def test_two_folders_are_two(two, peer):
    for one in two:
        await one.start()
    assert len({join.workspace for join in peer.joins}) == 2


@pytest.mark.parametrize("backwards", [False, True])
async def test_of_two_files_of_one_path_the_later_counts(nest, peer, backwards):
    early = stored(peer, ("a", b"early\n"), ("b", b"b\n"), index=1)
    late = stored(peer, ("a", b"late\n"), index=2, mtime_ns=5)
    await nest.start()
    for name, one in zip(("x", "y"), (late, early) if backwards else (early, late), strict=True):
        peer.order(name, shell="true", layers=(one,))
        assert (await peer.end_of(name)).exit_code == 0
    assert (shared(nest) / "a").read_text() == "late\n"
    assert (shared(nest) / "b").read_text() == "b\n"


async def test_what_was_put_over_a_later_file_is_put_right_when_its_place_is_known(nest, peer):
    """Two jobs that do not know of each other wrote one path; the third waits for both."""
    await nest.start()
    peer.order("one", shell="echo later > $TITAN_SHARED/a", publishes=True)
    left = (await peer.end_of("one")).left
    early = stored(peer, ("a", b"early\n"), index=1)
    peer.order("two", shell="cat $TITAN_SHARED/a", layers=(early,))
    assert await peer.log_of("two", b"\n") == b"early\n"
    peer.order("three", shell="cat $TITAN_SHARED/a", layers=(layer(2, left),))
    assert await peer.log_of("three", b"\n") == b"later\n"


async def test_what_cannot_be_had_fails_the_attempt_and_can_be_had_later(nest, peer):
    """Named once on a link, it is brought for whoever comes next."""
    found = stored(peer, ("a", b"1\n"), ("big", bytes(LARGE)))
    blob = peer.blobs.pop(hashlib.sha256(bytes(LARGE)).hexdigest())
    await nest.start()
    peer.order("one", shell="true", layers=(found,))
    end = await peer.end_of("one")
    assert end.reason is ExitReason.PREPARE_FAILED
    assert "left in the shared folder cannot be had" in end.message
    assert not (shared(nest) / "big").exists()

    peer.offer(blob)
    peer.order("two", shell="wc -c < $TITAN_SHARED/big")
    assert (await peer.end_of("two")).exit_code == 0


async def test_a_cut_on_the_way_leaves_no_half_a_file(nest, peer):
    found = stored(peer, ("big", bytes(range(250)) * 4_000))
    peer.artifact_cuts = [300_000]
    await nest.start()
    peer.order("one", shell="sha256sum < $TITAN_SHARED/big", layers=(found,))
    assert (await peer.end_of("one")).exit_code == 0
    assert len(peer.links) == 2
    assert (shared(nest) / "big").read_bytes() == bytes(range(250)) * 4_000


async def test_nothing_is_put_through_a_link_that_a_job_made(nest, peer, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    shared(nest).mkdir(parents=True)
    (shared(nest) / "d").symlink_to(outside)
    await nest.start()
    peer.order("one", shell="true", layers=(stored(peer, ("d/x", b"1")),))
    end = await peer.end_of("one")
    assert end.reason is ExitReason.PREPARE_FAILED
    assert "made by another job" in end.message
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "a\\b", ""])
async def test_a_list_that_leads_outside_is_refused(nest, peer, path):
    await nest.start()
    peer.order("one", shell="true", layers=(stored(peer, (path, b"1")),))
    end = await peer.end_of("one")
    assert end.reason is ExitReason.PREPARE_FAILED
    assert "refused" in end.message
    assert not (nest.settings.workspace / "shared" / "x").exists()


async def test_a_list_whose_bytes_are_not_those_it_names_is_refused(nest, peer):
    file = FileLeft("a", 0o644, 1, 1, hashlib.sha256(b"2").hexdigest(), b"1")
    body = leavings.encode(FileList(shared=(file,)))
    peer.offer(body)
    left = Left(digest=hashlib.sha256(body).hexdigest(), size_bytes=len(body), shared=1)
    await nest.start()
    peer.order("one", shell="true", layers=(layer(1, left),))
    assert "not those of its digest" in (await peer.end_of("one")).message


async def test_ten_jobs_that_start_at_once_wait_for_one_copy(nest, peer, make_order):
    found = stored(peer, ("big", bytes(LARGE)))
    await nest.start()
    line = "wc -c < $TITAN_SHARED/big"
    others = [make_order(f"j{number}", shell=line) for number in range(9)]
    peer.order("one", *others, shell=line, layers=(found,))
    for name in ("one", *(other.ref.job_id for other in others)):
        assert (await peer.end_of(name)).exit_code == 0
    assert len(peer.fetches) == 2  # the list, and the one large file


# -- artifacts ----------------------------------------------------------------------------------------
def handing(line, *out, take=()):
    artifacts = Artifacts(out=out, take=tuple(Intake(job=job, files=files) for job, files in take))
    return Launch(kind=LaunchKind.SHELL, shell=line, artifacts=artifacts)


def handed_out(peer, left):
    return {file.path: file for file in decode(peer.blobs[left.digest]).artifacts}


async def test_what_a_job_hands_out_comes_to_those_that_take_it_in(two, peer):
    here, there = two
    await here.start()
    line = f"mkdir -p d/e && echo 1 > d/a.csv && echo 2 > d/e/b.csv && echo no > d/c && head -c {LARGE} /dev/zero > big"
    peer.order("one", launch=handing(line, "d/**/*.csv", "big"))
    end = await peer.end_of("one")
    assert (end.exit_code, end.left.artifacts, end.left.shared) == (0, 3, 0)
    assert sorted(handed_out(peer, end.left)) == ["big", "d/a.csv", "d/e/b.csv"]
    await there.start()

    take = (("one", "d"), ("one", "big"))
    peer.order(
        "two", launch=handing("find * -type f && wc -c < big", take=take), intake={"one": end.left}
    )
    assert (await peer.end_of("two")).exit_code == 0
    said = await peer.log_of("two", b"200000")
    assert sorted(said.split()) == [b"200000", b"big", b"d/a.csv", b"d/e/b.csv"]
    fetched = len(peer.fetches)
    peer.order("three", launch=handing("wc -c < big", take=take), intake={"one": end.left})
    assert (await peer.end_of("three")).exit_code == 0
    assert len(peer.fetches) == fetched


async def test_a_file_that_was_to_be_handed_out_and_is_missing_fails_the_attempt(nest, peer):
    await nest.start()
    peer.order("one", launch=handing("touch a b", "a", "out/*.csv"))
    end = await peer.end_of("one")
    assert (end.reason, end.exit_code, end.left) == (ExitReason.BAD_FILES, 0, None)
    assert "'out/*.csv'" in end.message
    assert "which holds a, b" in end.message


async def test_a_job_that_failed_is_not_blamed_for_what_it_did_not_make(nest, peer):
    await nest.start()
    peer.order("one", launch=handing("exit 3", "a"))
    end = await peer.end_of("one")
    assert (end.reason, end.exit_code) == (ExitReason.EXITED, 3)


async def test_a_link_is_not_handed_out(nest, peer):
    await nest.start()
    peer.order("one", launch=handing("ln -s /etc/passwd a; ln -s /etc d", "a"))
    assert (await peer.end_of("one")).reason is ExitReason.BAD_FILES
    peer.order("two", launch=handing("ln -s /etc d", "d/passwd"))
    assert (await peer.end_of("two")).reason is ExitReason.BAD_FILES


async def test_a_pattern_that_fits_nothing_of_what_was_handed_out_fails_before_a_process(
    nest, peer
):
    await nest.start()
    peer.order("one", launch=handing("touch a", "a"))
    left = (await peer.end_of("one")).left
    peer.order("two", launch=handing("touch ran", take=(("one", "b"),)), intake={"one": left})
    end = await peer.end_of("two")
    assert end.reason is ExitReason.PREPARE_FAILED
    assert "one handed out no file 'b'" in end.message
    peer.order("three", launch=handing("true", take=(("one", "a"),)))  # of which nothing is known
    assert (await peer.end_of("three")).reason is ExitReason.PREPARE_FAILED


async def test_one_path_with_two_contents_is_not_taken_in(nest, peer):
    await nest.start()
    for name, line in (("one", "echo 1 > a"), ("two", "echo 2 > a"), ("same", "echo 1 > a")):
        peer.order(name, launch=handing(line, "a"))
    lefts = {name: (await peer.end_of(name)).left for name in ("one", "two", "same")}
    take = (("one", "a"), ("two", "a"))
    peer.order("three", launch=handing("true", take=take), intake=lefts)
    end = await peer.end_of("three")
    assert end.reason is ExitReason.PREPARE_FAILED
    assert "'a' comes from one and, different, from two" in end.message
    take = (("one", "a"), ("same", "a"))
    peer.order("four", launch=handing("cat a", take=take), intake=lefts)
    assert (await peer.end_of("four")).exit_code == 0


async def test_what_a_job_makes_of_what_it_took_in_reaches_nobody(nest, peer):
    await nest.start()
    peer.order("one", launch=handing(f"head -c {LARGE} /dev/zero > a", "a"))
    left = (await peer.end_of("one")).left
    for name in ("two", "three"):
        line = "test $(tr -d '\\0' < a | wc -c) = 0 && echo harm >> a"
        peer.order(name, launch=handing(line, take=(("one", "a"),)), intake={"one": left})
        assert (await peer.end_of(name)).exit_code == 0
