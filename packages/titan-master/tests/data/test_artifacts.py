"""Artifacts: by digest on the wire, by name in perm_files, verified before anything is believed."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import pathlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from disks import endless, look
from outlets import FakeOutlet

from titan_master.data.artifacts import Artifacts
from titan_master.data.blobs import BadBlob, BlobStore
from titan_master.data.feed import Streams
from titan_master.data.perm_files import PermFiles
from titan_proto.errors import ErrorCode
from titan_proto.limits import ARTIFACT_BYTES, BULK_CHUNK_BYTES
from titan_proto.messages import (
    ArtifactChunk,
    ArtifactStored,
    ArtifactWanted,
    Error,
    FetchArtifact,
    FilesFound,
    FindFiles,
    OfferArtifact,
)

DATA = bytes(range(256)) * 1000
DIGEST = hashlib.sha256(DATA).hexdigest()
OFFER = OfferArtifact(digest=DIGEST, size_bytes=len(DATA))


class Desk:
    def __init__(self, root, disk):
        self.blobs = BlobStore(root / "artifacts", endless(), lambda: 0)
        self.perm = root / "perm_files"
        self.perm.mkdir()
        self.streams = Streams(asyncio.get_running_loop().create_task)
        self.perm_files = PermFiles(self.perm, self.blobs)
        self.artifacts = Artifacts(self.blobs, self.perm_files, self.streams, disk)

    async def offered(self, offer=OFFER):
        """An outlet whose offer has been answered."""
        outlet = FakeOutlet()
        self.artifacts.offer(outlet, 1, offer)
        await asyncio.wait_for(outlet.until(lambda: outlet.sent), 10)
        return outlet

    def send(self, outlet, data=DATA, offset=0):
        for at in range(offset, len(data), BULK_CHUNK_BYTES):
            piece = data[at : at + BULK_CHUNK_BYTES]
            is_last = at + len(piece) == len(data)
            self.artifacts.chunk(outlet, 1, ArtifactChunk(at, piece), is_last=is_last)


@pytest.fixture
async def desk(tmp_path):
    with ThreadPoolExecutor(1) as disk:
        made = Desk(tmp_path, disk)
        yield made
        made.streams.drop_all()


def open_files():
    return len(list(pathlib.Path("/proc/self/fd").iterdir()))


def parts(desk):
    return list((desk.blobs._root / "parts").iterdir())


async def test_an_upload_is_stored_under_its_digest(desk):
    """Wanted, sent, stored; and known the next time."""
    outlet = await desk.offered()
    desk.send(outlet)
    wanted, stored = await outlet.ended()
    assert wanted == ArtifactWanted(offset=0)
    assert stored == ArtifactStored(digest=DIGEST)
    assert desk.blobs.read(DIGEST) == DATA
    assert parts(desk) == []
    again = await desk.offered()
    assert again.sent == [(ArtifactStored(digest=DIGEST), 1, True)]


async def test_a_broken_upload_goes_on_where_it_stopped(desk):
    """On another link, from the bytes that had come."""
    outlet = await desk.offered()
    desk.artifacts.chunk(outlet, 1, ArtifactChunk(0, DATA[:1000]), is_last=False)
    desk.artifacts.drop_link(outlet.link_id)
    outlet = await desk.offered()
    assert outlet.sent[0][0] == ArtifactWanted(offset=1000)
    desk.send(outlet, offset=1000)
    assert (await outlet.ended())[-1] == ArtifactStored(digest=DIGEST)
    assert desk.blobs.read(DIGEST) == DATA


async def test_two_uploads_of_the_same_bytes_at_once(desk):
    """Neither disturbs the other."""
    first, second = await desk.offered(), await desk.offered()
    desk.artifacts.chunk(first, 1, ArtifactChunk(0, DATA[:10]), is_last=False)
    desk.send(second)
    assert (await second.ended())[-1] == ArtifactStored(digest=DIGEST)
    desk.send(first, offset=10)
    assert (await first.ended())[-1] == ArtifactStored(digest=DIGEST)
    assert parts(desk) == []


async def test_bytes_with_another_digest_are_refused_and_forgotten(desk):
    """The name is the content."""
    outlet = await desk.offered()
    desk.send(outlet, b"!" + DATA[1:])
    refused = (await outlet.ended())[-1]
    assert refused.code is ErrorCode.MALFORMED
    assert not desk.blobs.has(DIGEST)
    assert parts(desk) == []


@pytest.mark.parametrize(
    ("chunk", "is_last"),
    [
        (ArtifactChunk(5, b"not the beginning"), False),
        (ArtifactChunk(0, DATA + b"one more"), False),
        (ArtifactChunk(0, DATA[:-1]), True),
    ],
)
async def test_pieces_that_do_not_fit_end_the_upload(desk, chunk, is_last):
    """A gap, too much, too little; later pieces are ignored."""
    outlet = await desk.offered()
    desk.artifacts.chunk(outlet, 1, chunk, is_last=is_last)
    refused = (await outlet.ended())[-1]
    assert refused.code is ErrorCode.MALFORMED
    said = len(outlet.sent)
    desk.send(outlet)
    assert len(outlet.sent) == said
    assert not desk.blobs.has(DIGEST)


@pytest.mark.parametrize(
    ("offer", "code"),
    [
        (OfferArtifact(digest="../../x", size_bytes=1), ErrorCode.MALFORMED),
        (OfferArtifact(digest=DIGEST.upper(), size_bytes=1), ErrorCode.MALFORMED),
        (OfferArtifact(digest=DIGEST, size_bytes=-1), ErrorCode.MALFORMED),
        (OfferArtifact(digest=DIGEST, size_bytes=ARTIFACT_BYTES + 1), ErrorCode.LIMIT_EXCEEDED),
    ],
)
async def test_an_offer_that_makes_no_sense_is_refused(desk, offer, code):
    """Before any file is made."""
    outlet = await desk.offered(offer)
    assert outlet.sent[0][0].code is code
    assert parts(desk) == []


async def test_an_upload_cancelled_before_it_has_begun_leaves_nothing_open(desk):
    """Its descriptor is closed when the disk is done with it."""
    outlet = FakeOutlet()
    before = open_files()
    desk.artifacts.offer(outlet, 1, OFFER)
    desk.artifacts.drop(outlet.link_id, 1)
    stored = await desk.offered(OfferArtifact(digest=hashlib.sha256(b"").hexdigest(), size_bytes=0))
    desk.send(stored, b"")
    desk.artifacts.chunk(stored, 1, ArtifactChunk(0, b""), is_last=True)
    await stored.ended()
    assert outlet.sent == []
    assert open_files() <= before + 1, "at most the disk's thread opened one"


@pytest.mark.parametrize("offset", [0, 1, 70_000, len(DATA)])
async def test_a_fetch_sends_the_bytes_from_an_offset(desk, offset):
    """In chunks, the last with the end; even none at all has an end."""
    outlet = await desk.offered()
    desk.send(outlet)
    await outlet.ended()
    reader = FakeOutlet()
    desk.artifacts.fetch(reader, 3, FetchArtifact(digest=DIGEST, offset=offset))
    chunks = await reader.ended()
    assert b"".join(chunk.data for chunk in chunks) == DATA[offset:]
    assert [end for _, _, end in reader.sent].count(True) == 1
    assert all(len(chunk.data) <= BULK_CHUNK_BYTES for chunk in chunks)


async def test_a_fetch_waits_for_room_and_ends_with_its_link(desk):
    """A reader that does not read costs nothing but its place."""
    outlet = await desk.offered()
    desk.send(outlet)
    await outlet.ended()
    reader = FakeOutlet(room=BULK_CHUNK_BYTES)
    desk.artifacts.fetch(reader, 3, FetchArtifact(digest=DIGEST))
    await asyncio.wait_for(reader.until(lambda: len(reader.sent) == 1), 10)
    (task,) = desk.streams._tasks[reader.link_id].values()
    reader.change(is_gone=True)
    await asyncio.wait_for(task, 10)
    assert len(reader.sent) == 1


@pytest.mark.parametrize("digest", ["0" * 64, "../../etc/passwd", ""])
async def test_what_is_not_here_is_not_found(desk, digest):
    """Whatever it is called."""
    outlet = FakeOutlet()
    desk.artifacts.fetch(outlet, 1, FetchArtifact(digest=digest))
    (refused,) = await outlet.ended()
    assert isinstance(refused, Error)
    assert refused.code is ErrorCode.NOT_FOUND


async def test_names_are_pinned_to_their_content(desk):
    """What a name meant when it was asked for can be fetched when it means something else."""
    (desk.perm / "scripts").mkdir()
    (desk.perm / "scripts" / "a.py").write_text("print(1)")
    outlet = FakeOutlet()
    desk.artifacts.find_files(outlet, 1, FindFiles(names=("no.py", "scripts/a.py")))
    (found,) = await outlet.ended()
    assert isinstance(found, FilesFound)
    (ref,) = found.files
    assert (ref.name, ref.size_bytes) == ("scripts/a.py", 8)
    (desk.perm / "scripts" / "a.py").write_text("print(22)")
    newer = desk.perm_files.find("scripts/a.py")
    assert newer is not None
    assert newer.digest != ref.digest
    assert desk.blobs.read(ref.digest) == b"print(1)"


@pytest.mark.parametrize(
    "name",
    [
        "../secret", "/etc/passwd", "a/../../secret", "link", "folder/inner", "folder", "", ".",
        "a//b", "nul\0x", "pipe", "a.py/x", "x" * 300,
    ],
)  # fmt: skip
async def test_no_name_leads_out_of_perm_files(desk, name):
    """No parent, no absolute path, no symbolic link, nothing that is no regular file."""
    (desk.perm.parent / "secret").write_text("secret")
    (desk.perm / "a.py").write_text("pass")
    (desk.perm / "link").symlink_to(desk.perm / "a.py")
    (desk.perm.parent / "outside").mkdir()
    (desk.perm.parent / "outside" / "inner").write_text("secret")
    (desk.perm / "folder").symlink_to(desk.perm.parent / "outside")
    os.mkfifo(desk.perm / "pipe")
    assert desk.perm_files.find(name) is None


async def test_a_master_without_perm_files_finds_nothing(tmp_path):
    """And does not mind."""
    blobs = BlobStore(tmp_path / "artifacts", endless(), lambda: 0)
    assert PermFiles(tmp_path / "no", blobs).find("a.py") is None


def test_a_stream_above_the_limit_is_refused_and_leaves_nothing(tmp_path):
    """As soon as it is above."""
    blobs = BlobStore(tmp_path, endless(), lambda: 0)
    (tmp_path / "file").write_bytes(b"x" * 100)
    with (tmp_path / "file").open("rb") as file, pytest.raises(BadBlob, match="99"):
        blobs.store_stream(file.fileno(), 99)
    assert list((tmp_path / "parts").iterdir()) == []


def test_what_earlier_processes_left_half_done_is_swept(tmp_path):
    """But the newest broken uploads stay, so that their clients can go on."""
    parts_ = tmp_path / "parts"
    parts_.mkdir()
    (parts_ / "1234-1").write_text("a copy cut short")
    for number in range(20):
        part = parts_ / f"{number:064x}"
        part.write_text("half")
        os.utime(part, (number, number))
    BlobStore(tmp_path, endless(), lambda: 0)
    assert sorted(part.name for part in parts_.iterdir()) == [f"{n:064x}" for n in range(4, 20)]


async def test_an_artifact_that_has_no_room_is_refused_before_it_is_sent(desk):
    """Not now: the disk is full; the client hears that and not a broken upload."""
    desk.blobs.space.looked(look(len(DATA) - 1))
    (refusal,) = await (await desk.offered()).ended()
    assert refusal.code is ErrorCode.STORAGE_FULL
    assert "full" in refusal.message
    assert parts(desk) == []


async def test_an_upload_that_meets_a_full_disk_goes_on_when_there_is_room(desk):
    """What had come stays; the next try begins there."""
    outlet = await desk.offered()
    desk.blobs.space.looked(look(BULK_CHUNK_BYTES + 1))
    desk.send(outlet)
    _wanted, refusal = await outlet.ended()
    assert refusal.code is ErrorCode.STORAGE_FULL
    desk.blobs.space.looked(look(1 << 30))
    again = await desk.offered()
    assert again.sent[0][0] == ArtifactWanted(offset=BULK_CHUNK_BYTES)
    desk.send(again, offset=BULK_CHUNK_BYTES)
    assert (await again.ended())[-1] == ArtifactStored(digest=DIGEST)


async def test_a_file_of_perm_files_that_has_no_room_is_a_full_disk(desk):
    (desk.perm / "big.py").write_bytes(DATA)
    desk.blobs.space.looked(look(10))
    outlet = FakeOutlet()
    desk.artifacts.find_files(outlet, 1, FindFiles(names=("big.py",)))
    (refusal,) = await outlet.ended()
    assert refusal.code is ErrorCode.STORAGE_FULL
    assert parts(desk) == []


async def test_after_a_sync_that_failed_all_of_it_is_sent_again(desk, monkeypatch):
    """The next sync would succeed without writing what this one did not."""
    real, failed = os.fsync, []

    def fails_once(descriptor):
        if not failed:
            failed.append(descriptor)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fails_once)
    outlet = await desk.offered()
    desk.send(outlet)
    assert (await outlet.ended())[-1].code is ErrorCode.UNAVAILABLE
    assert not desk.blobs.has(DIGEST)
    again = await desk.offered()
    assert again.sent[0][0] == ArtifactWanted(offset=0)
    desk.send(again)
    assert (await again.ended())[-1] == ArtifactStored(digest=DIGEST)
