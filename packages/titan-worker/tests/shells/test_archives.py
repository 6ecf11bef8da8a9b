"""Archives that nobody trusts: what is fit comes out as it went in, the rest is refused."""

import contextlib
import io
import os
import random
import shutil
import stat
import struct
import warnings
import zipfile

import pytest

from titan_worker.archives import ArchiveError, Tree, TreeFile, path_problem, unpack


def info(name, mode=0o644, kind=stat.S_IFREG, method=zipfile.ZIP_DEFLATED):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (kind | mode) << 16
    entry.compress_type = method
    return entry


@pytest.fixture
def extract(tmp_path):
    """Pack entries (name or ZipInfo, bytes), let `edit` spoil the bytes, unpack."""

    def run(*entries, edit=None, method=zipfile.ZIP_DEFLATED):
        target = io.BytesIO()
        with warnings.catch_warnings(), zipfile.ZipFile(target, "w", method) as archive:
            warnings.simplefilter("ignore")  # zipfile warns of the duplicates that we want
            for name, data in entries:
                archive.writestr(name, data)
        packed = target.getvalue()
        (tmp_path / "a.zip").write_bytes(edit(packed) if edit else packed)
        (tmp_path / "out").mkdir()
        return unpack(str(tmp_path / "a.zip"), str(tmp_path / "out"))

    return run


def test_files_and_folders_come_out_with_modes_within_0755(extract, tmp_path):
    tree = extract(
        (info("run", 0o4777), b"#!/bin/sh\n"),
        (info("deep/er/data.bin", 0o600), b"\0" * 3_000),
        (info("empty/", 0o777, stat.S_IFDIR), b""),
        (info("open", 0o666), b"x"),
        ("plain", b""),
    )

    assert tree == Tree(
        ("deep", "empty", "deep/er"),
        (
            TreeFile("run", 0o755, 10),
            TreeFile("deep/er/data.bin", 0o600, 3_000),
            TreeFile("open", 0o644, 1),
            TreeFile("plain", 0o600, 0),
        ),
    )
    assert tree.size_bytes == 3_011
    out = tmp_path / "out"
    assert (out / "deep/er/data.bin").read_bytes() == b"\0" * 3_000
    assert stat.S_IMODE((out / "run").stat().st_mode) & ~0o755 == 0
    assert (out / "empty").is_dir()


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "a/../../evil",
        "/etc/passwd",
        "a//b",
        "./a",
        "a/.",
        "..",
        "C:/x",
        "c:x",
        "a\\b",
        "/".join("d" * 33),
        "x" * 1025,
        "/",
    ],
)
def test_names_that_lead_astray_are_refused(extract, tmp_path, name):
    with pytest.raises(ArchiveError, match="refused"):
        extract(("good", b"1"), (name, b"evil"))

    assert list((tmp_path / "out").iterdir()) == []  # judged before a byte was written


def test_a_nul_in_a_name_does_not_hide_what_follows(extract):
    with pytest.raises(ArchiveError, match="NUL"):
        extract(("goodXevil", b""), edit=lambda packed: packed.replace(b"goodX", b"good\0"))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_devices_are_refused(extract, kind):
    with pytest.raises(ArchiveError, match="neither a plain file nor a folder"):
        extract((info("x", kind=kind), b"/etc/passwd"))


@pytest.mark.parametrize(
    ("first", "second"),
    [("a", "a"), ("Readme", "README"), ("d/x", "D/X"), ("ß", "SS"), ("d/", "d")],
)
def test_two_entries_of_one_name_are_refused(extract, first, second):
    with pytest.raises(ArchiveError, match="same name"):
        extract((first, b""), (second, b""))


def test_a_file_may_not_be_a_folder_too(extract):
    with pytest.raises(ArchiveError, match="is a file and the folder"):
        extract(("a", b"1"), ("a/b", b"2"))


def test_what_the_sdk_packs_may_be_packed_as_tightly_as_it_can_be(extract):
    """Seventy megabytes of zeros are data like any other, and well below every ceiling."""
    assert extract(("zeros", b"\0" * 70_000_000)).size_bytes == 70_000_000


def test_a_bomb_is_refused_by_its_table_before_a_byte_is_written(extract, tmp_path):
    """More than the SDK ever packs, out of next to nothing: nobody made that to be used."""

    def edit(packed):
        """Every member claims to unpack to 90 MB."""
        head, *members = packed.split(b"PK\x01\x02")
        claim = struct.pack("<I", 90_000_000)
        return b"PK\x01\x02".join([head, *(m[:20] + claim + m[24:] for m in members)])

    with pytest.raises(ArchiveError, match="200 times its packed size"):
        extract(*((f"bomb{number}", b"\0" * 100_000) for number in range(3)), edit=edit)
    assert [path for path in tmp_path.rglob("bomb*") if path.is_file()] == []


def test_sizes_have_a_ceiling(extract):
    def claim(size):
        def edit(packed):
            at = packed.index(b"PK\x01\x02")
            # compressed and real size in the table, equal, so that the ratio says nothing
            return packed[: at + 20] + struct.pack("<II", size, size) + packed[at + 28 :]

        return edit

    with pytest.raises(ArchiveError, match="at most 268435456"):
        extract(("big", b"x"), edit=claim(300_000_000), method=zipfile.ZIP_STORED)


def test_more_bytes_than_the_header_claims_are_refused(extract):
    def edit(packed):
        at = packed.index(b"PK\x01\x02")
        return packed[: at + 24] + struct.pack("<I", 10) + packed[at + 28 :]

    with pytest.raises(ArchiveError, match=r"damaged|larger|smaller"):
        extract(("liar", os.urandom(5_000)), edit=edit)


def test_too_many_entries_are_refused(extract):
    with pytest.raises(ArchiveError, match="ARCHIVE_ENTRIES"):
        extract(*((str(number), b"") for number in range(10_001)))


def test_members_that_share_their_packed_bytes_are_refused(extract):
    def edit(packed):
        first = packed.index(b"PK\x01\x02")
        second = packed.index(b"PK\x01\x02", first + 4)
        # The second entry points at the first one's data, under the first one's name's length.
        return packed[: second + 42] + struct.pack("<I", 0) + packed[second + 46 :]

    with pytest.raises(ArchiveError, match="overlap"):
        extract(("a", b"1" * 100), ("b", b"1" * 100), edit=edit)


def test_encrypted_and_foreign_methods_are_refused(extract, tmp_path):
    def encrypted(packed):
        at = packed.index(b"PK\x01\x02")
        return packed[: at + 8] + b"\x01\x00" + packed[at + 10 :]

    with pytest.raises(ArchiveError, match="encrypted"):
        extract(("secret", b"x"), edit=encrypted)
    (tmp_path / "out").rmdir()
    with pytest.raises(ArchiveError, match="deflate"):
        extract(("odd", b"x"), method=zipfile.ZIP_BZIP2)


@pytest.mark.parametrize("cut", [0, 10, 60, -1])
def test_damage_is_refused_in_words(extract, cut):
    with pytest.raises(ArchiveError, match="damaged"):
        extract(("a", b"x" * 100), edit=lambda packed: packed[:cut])


def test_a_flipped_bit_is_noticed(extract):
    def flip(packed):
        at = packed.index(b"needle")
        return packed[:at] + b"N" + packed[at + 1 :]

    with pytest.raises(ArchiveError, match="damaged"):
        extract(("a", b"hay needle hay"), edit=flip, method=zipfile.ZIP_STORED)


def test_ordinary_paths_are_fine():
    for path in ("a", "a/b.c", "ü/…", "..a/b..", " ", "-rf", "ab:c"):
        assert path_problem(path) == ""
    assert path_problem("")


def test_whatever_is_done_to_an_archive_it_is_unpacked_or_refused(tmp_path):
    """No other exception, whichever bytes are spoilt: it would end the worker."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(info("d/", 0o755, stat.S_IFDIR), b"")
        archive.writestr("d/ü.txt", b"text " * 50)
        archive.writestr(info("stored", method=zipfile.ZIP_STORED), b"bytes")
        with archive.open(info("big"), "w", force_zip64=True) as member:
            member.write(b"zip64")
    packed = target.getvalue()
    dice = random.Random(7)
    for number in range(1_500):
        spoilt = bytearray(packed)
        for _ in range(dice.choice((1, 1, 2, 4))):
            at = dice.randrange(len(spoilt))
            spoilt[at : at + dice.choice((1, 2, 4, 8))] = dice.choice(
                (b"\xff" * dice.choice((1, 2, 4, 8)), b"\0\0\0\0", dice.randbytes(4), b"", b"PK")
            )
        (tmp_path / "a.zip").write_bytes(spoilt)
        out = tmp_path / str(number)
        out.mkdir()
        with contextlib.suppress(ArchiveError, OSError):
            unpack(str(tmp_path / "a.zip"), str(out))
        shutil.rmtree(out)
