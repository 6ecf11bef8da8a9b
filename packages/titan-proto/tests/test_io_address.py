"""Where the master is and which token opens it: the order of asking, and what is refused."""

from __future__ import annotations

import pytest

from titan_proto.errors import NoToken
from titan_proto.ids import is_run_id
from titan_proto.io.address import (
    Address,
    BadAddress,
    find_master,
    find_token,
    parse_address,
    token_link,
)
from titan_proto.io.entropy import new_id, new_key, nonce

HERE = Address("127.0.0.1", 9090)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("box", "box", 9090),
        ("box:1", "box", 1),
        (" titan://box:65535/ ", "box", 65535),
        ("titan://box", "box", 9090),
        ("10.0.0.7:9091", "10.0.0.7", 9091),
        ("[::1]:9091", "::1", 9091),
        ("[::1]", "::1", 9090),
        ("fe80::1", "fe80::1", 9090),
    ],
)
def test_addresses(text, host, port):
    assert parse_address(text) == (host, port)
    assert parse_address(str(parse_address(text))) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":9090",
        "box:",
        "box:0",
        "box:65536",
        "box:http",
        "http://box:1",
        "[::1",
        "[::1]9",
        "a b",
        "box:-1",
        "box:²",
        "titan://user@box",
    ],
)
def test_what_is_no_address(text):
    with pytest.raises(BadAddress, match="expected host"):
        parse_address(text)


def test_the_master_is_looked_for_in_order(tmp_path):
    """Flag, environment, nearest folder, default."""
    below = tmp_path / "project" / "src" / "deep"
    below.mkdir(parents=True)
    assert find_master(None, {}, below) == HERE
    (tmp_path / ".titan").mkdir()
    (tmp_path / ".titan" / "address").write_text("far:1\n")
    assert find_master(None, {}, below) == ("far", 1)
    (tmp_path / "project" / ".titan").mkdir()
    assert find_master(None, {}, below) == ("far", 1)
    (tmp_path / "project" / ".titan" / "address").write_text("near:2\n")
    assert find_master(None, {}, below) == ("near", 2)
    assert find_master("", {"TITAN_MASTER": "env:3"}, below) == ("env", 3)
    assert find_master("flag:4", {"TITAN_MASTER": "env:3"}, below) == ("flag", 4)


def write_token(path, text="tok\n", mode=0o600):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_token_is_looked_for_in_order(tmp_path):
    """Environment, named file, nearest folder, what a master of this account has left."""
    below = tmp_path / "project" / "src"
    below.mkdir(parents=True)
    environ = {"HOME": str(tmp_path / "home")}
    with pytest.raises(NoToken, match=r"no token for the master at 127\.0\.0\.1:9090"):
        find_token(HERE, environ, below)
    write_token(token_link(HERE, environ), "left\n")
    assert find_token(HERE, environ, below) == "left"
    write_token(tmp_path / "project" / ".titan" / "token", "near")
    assert find_token(HERE, environ, below) == "near"
    named = write_token(tmp_path / "named", "named\n")
    assert find_token(HERE, {**environ, "TITAN_TOKEN_FILE": str(named)}, below) == "named"
    both = {**environ, "TITAN_TOKEN_FILE": str(named), "TITAN_TOKEN": "env"}
    assert find_token(HERE, both, below) == "env"


def test_the_token_of_another_master_that_lies_nearer_is_passed_over(tmp_path):
    """Its folder names another port. With the same port it counts: a machine has many addresses."""
    below = tmp_path / "project" / "src"
    below.mkdir(parents=True)
    environ = {"HOME": str(tmp_path / "home")}
    write_token(tmp_path / "project" / ".titan" / "token", "near")
    note = tmp_path / "project" / ".titan" / "address"
    asked = Address("127.0.0.1", 9191)
    note.write_text("127.0.0.1:9090\n")
    with pytest.raises(NoToken, match="no token for the master"):
        find_token(asked, environ, below)
    write_token(token_link(asked, environ), "left")
    assert find_token(asked, environ, below) == "left"
    assert find_token(HERE, environ, below) == "near"
    assert find_token(Address("box", 9090), environ, below) == "near"
    write_token(tmp_path / ".titan" / "token", "far")
    assert find_token(asked, environ, below) == "far"
    for said in ("no address", ""):
        note.write_text(said)
        assert find_token(asked, environ, below) == "near"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o660])
def test_a_token_that_others_may_read_is_refused(tmp_path, mode):
    """With what to do about it; another token further on is not tried instead."""
    path = write_token(tmp_path / ".titan" / "token", mode=mode)
    environ = {"HOME": str(tmp_path)}
    write_token(token_link(HERE, environ), "left\n")

    with pytest.raises(NoToken, match=f"mode 0{mode:o}.*chmod 600 {path}"):
        find_token(HERE, environ, tmp_path)


def test_a_link_to_a_token_is_as_good_as_its_file(tmp_path):
    """What a master leaves for its account is a link into its data folder."""
    environ = {"XDG_STATE_HOME": str(tmp_path / "state")}
    link = token_link(HERE, environ)
    link.parent.mkdir(parents=True)
    token = write_token(tmp_path / "data" / "token")
    link.symlink_to(token)
    assert find_token(HERE, environ, tmp_path) == "tok"

    token.chmod(0o644)

    with pytest.raises(NoToken, match="chmod"):
        find_token(HERE, environ, tmp_path)


def test_a_named_file_that_is_not_there_or_empty_is_told(tmp_path):
    environ = {"HOME": str(tmp_path), "TITAN_TOKEN_FILE": str(tmp_path / "gone")}
    with pytest.raises(NoToken, match="TITAN_TOKEN_FILE names"):
        find_token(HERE, environ, tmp_path)
    write_token(tmp_path / "gone", "\n")
    with pytest.raises(NoToken, match="is empty"):
        find_token(HERE, environ, tmp_path)


def test_every_name_of_this_machine_has_the_same_token_file():
    environ = {"HOME": "/somewhere/me"}

    paths = {
        str(token_link(Address(host, 9090), environ))
        for host in ("localhost", "127.0.0.1", "::1", "127.0.1.1")
    }

    assert paths == {"/somewhere/me/.local/state/titan/127.0.0.1-9090.token"}
    far = token_link(Address("box", 1), {**environ, "XDG_STATE_HOME": "/state"})
    assert str(far) == "/state/titan/box-1.token"


def test_ids_are_of_the_shape_in_order_and_never_the_same():
    ids = [new_id() for _ in range(2_000)]

    assert all(map(is_run_id, ids))
    assert len(set(ids)) == len(ids)
    assert [made[:9] for made in ids] == sorted(made[:9] for made in ids)


def test_keys_and_nonces():
    assert len(nonce()) == 32
    assert nonce() != nonce()
    assert len(bytes.fromhex(new_key())) == 32
    assert new_key() != new_key()
