"""The cache keeps what is used, within its size, and trusts only this boot."""

import asyncio
import hashlib
import os

import pytest

from titan_proto.errors import LinkLost, NotFound
from titan_proto.messages import ArtifactChunk
from titan_proto.specs import ArtifactFormat, ArtifactRef
from titan_worker.artifacts import ArtifactError, Artifacts, Cache, copy_into
from titan_worker.tasks import Tasks


def make_ref(data, name="f", **fields):
    digest = hashlib.sha256(data).hexdigest()
    return ArtifactRef(
        digest=digest, size_bytes=len(data), format=ArtifactFormat.FILE, name=name, **fields
    )


class Source:
    """The other end of the link."""

    def __init__(self):
        self.blobs = {}
        self.asked = []
        self.break_after = None
        self.gate = None

    async def fetch(self, digest, offset):
        self.asked.append(offset)
        if self.gate is not None:
            await self.gate.wait()
        if digest not in self.blobs:
            raise NotFound("nobody has it")
        data = self.blobs[digest]
        for at in range(offset, max(len(data), 1), 10):
            if self.break_after is not None and at >= self.break_after:
                self.break_after = None
                raise LinkLost("cut")
            yield ArtifactChunk(at, data[at : at + 10])

    def has(self, data, **fields):
        ref = make_ref(data, **fields)
        self.blobs[ref.digest] = data
        return ref


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def make(tmp_path, source):
    def build(bytes_max=1_000, boot_id="boot-1"):
        cache = Cache(tmp_path / "cache", bytes_max=bytes_max, boot_id=boot_id)
        cache.open()
        return cache, Artifacts(
            cache=cache, fetch=source.fetch, tasks=Tasks(asyncio.get_running_loop())
        )

    return build


async def test_bytes_arrive_whole_and_are_fetched_once(make, source, tmp_path):
    cache, artifacts = make()
    data = os.urandom(95)
    ref = source.has(data, name="sub/f.bin")

    entry = await artifacts.get(ref)
    assert await artifacts.get(ref) == artifacts.find(ref) == entry
    copy_into(entry, ref, str(tmp_path))

    assert (tmp_path / "sub/f.bin").read_bytes() == data
    assert (tmp_path / "sub/f.bin").stat().st_mode & 0o100
    assert source.asked == [0]
    assert cache.size_bytes == 95


async def test_an_empty_artifact_is_one_too(make, source, tmp_path):
    _, artifacts = make()
    ref = source.has(b"")

    copy_into(await artifacts.get(ref), ref, str(tmp_path))

    assert (tmp_path / "f").read_bytes() == b""


async def test_a_broken_link_costs_only_what_had_not_arrived(make, source):
    _, artifacts = make()
    ref = source.has(os.urandom(100))
    source.break_after = 40

    await artifacts.get(ref)

    assert source.asked == [0, 40]


async def test_many_requests_share_one_download_and_one_that_gives_up_does_not_end_it(make, source):
    _, artifacts = make()
    ref = source.has(b"shared")
    source.gate = asyncio.Event()
    first, second, third = (asyncio.ensure_future(artifacts.get(ref)) for _ in range(3))
    await asyncio.sleep(0)

    first.cancel()
    source.gate.set()

    assert await second == await third
    assert first.cancelled() or not first.done()
    assert source.asked == [0]
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_what_cannot_be_had_is_said_and_leaves_nothing(make, source, tmp_path):
    _, artifacts = make()
    wrong = source.has(b"right bytes")
    source.blobs[wrong.digest] = b"wrong bytes"
    short = source.has(b"0123456789")
    source.blobs[short.digest] = b"0123"
    long = source.has(b"abc")
    source.blobs[long.digest] = b"abcdef"
    for ref, words in (
        (wrong, "other bytes"),
        (short, "other bytes"),
        (long, "longer than announced"),
        (make_ref(b"unknown"), "nobody has it"),
        (make_ref(b"x", name="../up"), "refused"),
        (ArtifactRef(digest="../../x", size_bytes=1), "no digest"),
        (ArtifactRef(digest="0" * 64, size_bytes=2**31), "ARTIFACT_BYTES"),
        (ArtifactRef(digest="0" * 64, size_bytes=1, format=ArtifactFormat.UNKNOWN), "too old"),
    ):
        with pytest.raises(ArtifactError, match=words):
            await artifacts.get(ref)
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"boot"}


async def test_what_was_used_longest_ago_is_given_up_first(make, source):
    cache, artifacts = make(bytes_max=25)
    a, b, c = (source.has(letter * 10) for letter in (b"a", b"b", b"c"))
    await artifacts.get(a)
    await artifacts.get(b)
    assert artifacts.find(a) is not None

    await artifacts.get(c)

    assert artifacts.find(b) is None
    assert artifacts.find(a) is not None
    assert cache.size_bytes == 20


async def test_what_is_being_copied_is_not_given_up(make, source):
    cache, artifacts = make(bytes_max=15)
    a, b = (source.has(letter * 10) for letter in (b"a", b"b"))
    await artifacts.get(a)

    with cache.in_use(f"{a.digest}.{a.format}"):
        await artifacts.get(b)
        assert artifacts.find(a) is not None


async def test_one_larger_than_the_cache_is_still_had(make, source):
    _, artifacts = make(bytes_max=5)
    ref = source.has(b"more than five")

    assert await artifacts.get(ref) == artifacts.find(ref)


async def test_the_next_process_finds_it_but_the_next_boot_does_not(make, source, tmp_path):
    _, artifacts = make()
    ref = source.has(b"kept")
    await artifacts.get(ref)
    (tmp_path / "cache" / "tmp-9").mkdir()

    again, same_boot = make()
    assert same_boot.find(ref) is not None
    assert again.size_bytes == 4
    assert not (tmp_path / "cache" / "tmp-9").exists()
    _, next_boot = make(boot_id="boot-2")
    assert next_boot.find(ref) is None
