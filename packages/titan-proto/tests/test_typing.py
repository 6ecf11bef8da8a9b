"""The types that users of this package see, as a type checker sees them."""

from __future__ import annotations

import pathlib

import pytest

API = pathlib.Path(__file__).parent / "typing" / "api.py"


@pytest.fixture(scope="module")
def mypy(tmp_path_factory):
    """Runs mypy over a file and gives its exit code and what it says."""
    api = pytest.importorskip("mypy.api", reason="needs mypy: not on this machine")
    cache = tmp_path_factory.mktemp("mypy")

    def run(path):
        said, _, code = api.run(["--strict", "--cache-dir", str(cache), str(path)])
        return code, said

    return run


def test_a_request_knows_its_reply(mypy, tmp_path):
    """And a wrong expectation is an error: the check can fail."""
    code, said = mypy(API)
    assert code == 0, said

    wrong = tmp_path / "wrong.py"
    wrong.write_text(API.read_text().replace("spec=spec)), RunReceipt)", "spec=spec)), Stats)"))
    code, said = mypy(wrong)
    assert code == 1
    assert said.count("Expression is of type") == 2, said
