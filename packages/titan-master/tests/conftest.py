"""Of the master's tests: the kit on the path, and `--rewrite` for the scenarios."""

from __future__ import annotations

import contextlib
import pathlib
import sys

import pytest

# Tests are no packages (they are imported by file), so what several of them share lies here.
sys.path.insert(0, str(pathlib.Path(__file__).parent / "kit"))


def pytest_addoption(parser):
    with contextlib.suppress(ValueError):  # another package's tests have it too
        parser.addoption("--rewrite", action="store_true", help="accept what the scenarios do now")


@pytest.fixture
def rewrite(request):
    """Whether scenario files shall be written anew; False where the option is not known."""
    return request.config.getoption("--rewrite", default=False)
