"""Files by name at the master: put there, listed, fetched; what is refused, and in which words."""

from __future__ import annotations

import hashlib
import json

import pytest

from titan_proto.errors import ErrorCode
from titan_proto.messages import (
    ArtifactChunk,
    Error,
    FetchArtifact,
    FileList,
    FileOrigin,
    FilesFound,
    FileVersion,
    FileView,
    FindFiles,
    GetRun,
    ListFiles,
    NameFile,
    RunReceipt,
    RunView,
    SubmitRun,
)
from titan_proto.specs import ArtifactFormat, ArtifactRef
from titan_proto.states import RunState
from titan_sdk import files as files_module
from titan_sdk.cli import main
from titan_sdk.errors import Conflict, InvalidSpec, NotFound, PackagingError

NOW, BEFORE = b"print('now')\n" * 5, b"print('before')\n"


def digest(data):
    return hashlib.sha256(data).hexdigest()


def version(data, origin=FileOrigin.STAGED):
    return FileVersion(
        digest=digest(data), size_bytes=len(data), at_ms=1_700_000_000_000, origin=origin
    )


VIEW = FileView(
    name="tools/a.py", current=version(NOW), versions=(version(BEFORE, FileOrigin.DROPPED),)
)


@pytest.fixture
def stored(master):
    """A master that has one name, in two versions."""

    def listed(request):
        if request.name not in {"", VIEW.name}:
            return Error(code=ErrorCode.NOT_FOUND, message="no")
        return FileList(files=(VIEW,))

    def fetched(request):
        data = {digest(NOW): NOW, digest(BEFORE): BEFORE}[request.digest][request.offset :]
        return [
            ArtifactChunk(request.offset + at, data[at : at + 10]) for at in range(0, len(data), 10)
        ]

    def found(request):
        ref = ArtifactRef(
            digest=digest(NOW), size_bytes=len(NOW), format=ArtifactFormat.FILE, name=VIEW.name
        )
        return FilesFound(files=(ref,))

    master.answers.update({ListFiles: listed, FetchArtifact: fetched, FindFiles: found})
    return master


@pytest.fixture
def run(capfdbinary):
    """Run a command in this process: (exit code, stdout, stderr)."""

    def call(*args):
        with pytest.raises(SystemExit) as left:
            main(list(args))
        out, err = capfdbinary.readouterr()
        return left.value.code, out.decode(), err.decode()

    return call


def test_an_upload_sends_the_bytes_and_names_them(master, client, alone):
    (alone / "hello.py").write_bytes(NOW)
    master.answers[NameFile] = lambda request: FileView(name=request.name, current=version(NOW))
    assert client.upload("hello.py").current.digest == digest(NOW)
    assert client.upload("hello.py", name="tools/x.py").name == "tools/x.py"
    assert master.artifacts == {digest(NOW): NOW}
    assert [(one.name, one.digest) for one in master.of(NameFile)] == [
        ("hello.py", digest(NOW)),
        ("tools/x.py", digest(NOW)),
    ]
    assert len({one.key for one in master.of(NameFile)}) == 2


def test_an_upload_that_loses_its_link_is_tried_again_under_its_key(master, client, alone):
    (alone / "a.py").write_bytes(NOW)
    lost = []

    def answer(request):
        if lost:
            return FileView(name=request.name, notices=("replaced",))
        lost.append(request)
        return ["cut"]

    master.answers[NameFile] = answer
    assert client.upload("a.py").notices == ("replaced",)
    first, second = master.of(NameFile)
    assert first == second


@pytest.mark.parametrize("name", ["../a.py", "/a.py", ".a", "a:b", "", "x" * 201])
def test_a_name_that_cannot_be_is_refused_before_anything_is_sent(master, client, alone, name):
    (alone / "a.py").write_bytes(NOW)
    with pytest.raises(InvalidSpec, match="cannot be a file's name"):
        client.upload("a.py", name=name)
    assert master.requests == []


def test_what_is_too_large_or_no_file_is_refused_before_anything_is_sent(
    master, client, alone, monkeypatch
):
    monkeypatch.setattr(files_module, "ARTIFACT_BYTES", 10)
    (alone / "a.py").write_bytes(NOW)
    with pytest.raises(PackagingError, match=r"65 bytes, more than ARTIFACT_BYTES \(10\)"):
        client.upload("a.py")
    with pytest.raises(PackagingError, match="is not a file"):
        client.upload(alone, name="x")
    with pytest.raises(PackagingError, match="No such file"):
        client.upload("none.py")
    assert master.requests == []


def test_a_download_takes_its_name_when_it_is_whole(stored, client, alone):
    assert client.download("tools/a.py") == alone.joinpath("a.py").relative_to(alone)
    assert (alone / "a.py").read_bytes() == NOW
    (alone / "sub").mkdir()
    client.download("tools/a.py", "sub", version=digest(BEFORE)[:6].upper())
    assert (alone / "sub" / "a.py").read_bytes() == BEFORE
    assert sorted(path.name for path in alone.rglob("*")) == ["a.py", "a.py", "sub"]
    assert [one.name for one in stored.of(FetchArtifact)] == ["tools/a.py"] * 2


def test_a_download_goes_on_where_its_link_broke(stored, client, alone):
    whole = stored.answers[FetchArtifact]
    stored.answers[FetchArtifact] = lambda request: (
        [*whole(request)[:2], "cut"] if request.offset < 40 else whole(request)
    )
    client.download("tools/a.py")
    assert (alone / "a.py").read_bytes() == NOW
    assert [one.offset for one in stored.of(FetchArtifact)] == [0, 20, 40]


def test_a_download_of_other_bytes_leaves_nothing(stored, client, alone):
    stored.answers[FetchArtifact] = [ArtifactChunk(0, b"something else")]
    with pytest.raises(Conflict, match="nothing was written"):
        client.download("tools/a.py")
    assert list(alone.iterdir()) == []


def test_a_download_overwrites_only_when_told_to(stored, client, alone):
    (alone / "a.py").write_bytes(b"mine")
    with pytest.raises(Conflict, match="--force"):
        client.download("tools/a.py")
    assert (alone / "a.py").read_bytes() == b"mine"
    client.download("tools/a.py", overwrite=True)
    assert (alone / "a.py").read_bytes() == NOW


def test_an_unknown_name_or_version_says_what_may_be_meant(stored, client):
    with pytest.raises(NotFound, match=r"Did you mean tools/a\.py\?"):
        client.download("tool/a.py")
    with pytest.raises(NotFound, match="titan files"):
        client.files("zzz")
    with pytest.raises(NotFound, match=digest(BEFORE)[:12]):
        client.download("tools/a.py", version="ffff0000")
    with pytest.raises(Conflict, match="fits"):
        client.download("tools/a.py", version=digest(NOW)[:1])


def test_the_commands_print_data_on_stdout_and_the_rest_beside_it(stored, run, alone):
    (alone / "hello.py").write_bytes(NOW)
    stored.answers[NameFile] = FileView(
        name="hello.py", current=version(NOW), notices=("hello.py: was replaced",)
    )
    assert run("upload", "hello.py") == (0, "hello.py\n", "note: hello.py: was replaced\n")
    code, out, _ = run("files")
    assert code == 0
    assert out.split("\n")[1].split()[:3] == ["tools/a.py", "65", digest(NOW)[:12]]
    assert "staged by a run" in out
    code, out, _ = run("files", "tools/a.py")
    assert [line.split()[0] for line in out.splitlines()] == ["VERSION", "now", "-1"]
    assert "dropped by hand" in out
    code, out, _ = run("files", "tools/a.py", "-o", "json")
    shown = json.loads(out)
    assert shown["kind"] == "File"
    assert shown["versions"][0]["origin"] == "DROPPED"
    assert shown["current"]["sizeBytes"] == len(NOW)
    assert json.loads(run("files", "-o", "json")[1])["items"][0]["name"] == "tools/a.py"
    to = "x/a.py"
    assert run("download", "tools/a.py", "-o", to)[0] == 2
    (alone / "x").mkdir()
    assert run("download", "tools/a.py", "-o", to) == (0, f"{to}\n", "")
    assert run("download", "tools/a.py", "-o", to)[0] == 7
    assert run("download", "tool/a.py")[0] == 3
    assert run("upload", "a", "b", "--as", "c")[0] == 2


def test_run_says_what_became_of_the_files_that_it_brought(master, run, alone):
    (alone / "a.py").write_bytes(NOW)
    master.answers[SubmitRun] = RunReceipt(
        run_id="run0000000000001", alias="a-1", notices=("a.py: was \x1b[31mreplaced",)
    )
    master.answers[GetRun] = RunView(
        run_id="run0000000000001", alias="a-1", name="a", state=RunState.ACTIVE, jobs=1,
        counts={}, submitted_at_ms=1,
    )  # fmt: skip
    code, out, err = run("run", "a.py")
    assert (code, out) == (0, "a-1\n")
    assert err.startswith("note: a.py: was ")
    assert "\x1b" not in err
