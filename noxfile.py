"""Every command a developer or a CI machine runs. `nox -l` lists them, `nox` alone runs the matrix.

Which Pythons are tested is read from the classifiers of the five pyproject files, so a Python cannot
be promised without being tested. An interpreter that is not on the machine is skipped, in yellow,
also under CI: what is on the machine decides, and run.py's last lines count what was left out.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys

import nox

ROOT = pathlib.Path(__file__).parent.resolve()
DIST = ROOT / "dist"
# Constraints: our names mean these very wheels, never those of a stranger. By absolute paths, so not
# a part of dist/, which is meant to be carried elsewhere.
OURS = ROOT / ".nox" / "ours.txt"
RESULTS = ROOT / ".nox" / "results"

# No hyphens in these: `nox -k titan-sdk` would read one as a minus.
PACKAGES = ("proto", "master", "worker", "sdk", "dashboard")


def _pythons(package: str) -> list[str]:
    text = (ROOT / f"packages/titan-{package}/pyproject.toml").read_text(encoding="utf-8")
    return re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text)


MATRIX = [(python, package) for package in PACKAGES for python in _pythons(package)]
SHARED_PYTHONS = [p for p in _pythons("master") if all(p in _pythons(x) for x in PACKAGES)]

# pyenv puts a `python3.12` on PATH that only answers while that version is "active": make all of them
# so. What was active stays first, because a bare `python3` means the first; it is set even where nobody
# set it, since pyenv's own `python3` does so for whatever it starts.
_versions = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv")) / "versions"
if _versions.is_dir():
    _active = [v for v in os.environ.get("PYENV_VERSION", "").split(":") if v]
    _active = _active or [".".join(map(str, sys.version_info[:3]))]
    _found = [p.name for p in _versions.iterdir() if re.match(r"3\.1\d\.\d+$", p.name)]
    _found.sort(key=lambda name: [int(part) for part in name.split(".")], reverse=True)
    _all = [v for v in _active if v in _found] + [v for v in _found if v not in _active]
    if _all:
        os.environ["PYENV_VERSION"] = ":".join(_all)

nox.needs_version = ">=2026.10.20"  # for allow_parallel
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = False  # nox's default is the opposite where CI is set
nox.options.error_on_external_run = True
nox.options.stop_on_first_error = False

# What the suites need beside our wheels; the packages' own lists are tests/requirements.txt.
TEST_TOOLS = ("pytest>=8", "pytest-timeout>=2.3", "pytest-asyncio>=0.24", "hypothesis>=6.100")

# A browser is driven, and pages are judged by axe-core; the browser itself is the machine's own Chromium.
# The screen of a terminal is read by pyte.
E2E_TOOLS = (
    *TEST_TOOLS,
    *("playwright>=1.45", "axe-playwright-python>=0.1.4"),
    *("prompt-toolkit>=3.0.40", "pyte>=0.8"),
)

# apsw: a disk that loses what was not synced is a VFS of SQLite, which the standard library cannot have.
CHAOS_TOOLS = (*TEST_TOOLS, "apsw>=3.46")


def _wheel(package: str) -> pathlib.Path:
    found = sorted(DIST.glob(f"titan_{package}-*.whl"))
    if len(found) != 1:
        raise FileNotFoundError(f"dist/ must hold one wheel of titan-{package}, has {len(found)}")
    return found[0]


def _digest(paths: list[pathlib.Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _requirements_digest() -> str:
    """Changes when any package's or suite's requirements may have."""
    named = [
        *ROOT.glob("packages/*/pyproject.toml"),
        *ROOT.glob("packages/*/tests/requirements.txt"),
    ]
    return _digest([*named, ROOT / "noxfile.py"])


def _install(session: nox.Session, packages: tuple[str, ...], *requirements: str) -> None:
    """Put these wheels and what they declare into the session's environment, unless they are there."""
    wheels = [_wheel(package) for package in packages]
    stamp = pathlib.Path(session.virtualenv.location) / "titan-installed"
    state = f"{_requirements_digest()} {_digest(wheels)} {requirements}"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == state:
        return
    paths = [str(wheel) for wheel in wheels]
    session.install("-c", str(OURS), *paths, *requirements)
    # The version stays while the code changes; without force an older build of it would be kept.
    session.install("--force-reinstall", "--no-deps", *paths)
    stamp.write_text(state, encoding="utf-8")


def _label(session: nox.Session) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", session.name).strip("-")


def _pytest(session: nox.Session, *args: str, part: str = "", empty_ok: bool = False) -> None:
    """Run pytest outside the tree against what is installed, and leave its counts for run.py."""
    label = _label(session) + part
    work = pathlib.Path(session.create_tmp()).resolve()
    session.chdir(work)
    # Short, because a unix socket's path may have 107 bytes, and inside the checkout.
    base = ROOT / ".nox" / "t" / hashlib.sha256(label.encode()).hexdigest()[:6]
    base.parent.mkdir(parents=True, exist_ok=True)
    session.run(
        "python",
        "-m",
        "pytest",
        f"--rootdir={ROOT}",
        f"--config-file={ROOT / 'pyproject.toml'}",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--basetemp={base}",
        f"--junitxml={RESULTS / (label + '.xml')}",
        *args,
        env={"TITAN_RESULTS": str(RESULTS / f"{label}.json"), "TITAN_DIST": str(DIST)},
        # 5: nothing was selected
        success_codes=[0, 5] if empty_ok else [0],
    )
    session.chdir(ROOT)


def _oldest_python() -> str:
    """The oldest Python found that the SDK is tested on: agents run on old machines."""
    for version in sorted(_pythons("sdk"), key=lambda v: int(v.split(".")[1])):
        program = shutil.which(f"python{version}")
        if program is None:
            continue
        answer = subprocess.run(
            [program, "-c", "import sys; print(sys.executable)"],
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode == 0:
            return answer.stdout.strip()
    return sys.executable


# -- static ------------------------------------------------------------------------------------------


@nox.session(allow_parallel=True)
def lint(session: nox.Session) -> None:
    """Style and formatting: ruff."""
    session.install("ruff>=0.17")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(allow_parallel=True)
def types(session: nox.Session) -> None:
    """mypy, strict, over the five packages, and over a user's code with what it must infer."""
    session.install(
        "mypy>=2",
        "types-PyYAML",
        "types-psutil",
        "types-waitress",
        *("msgspec>=0.20", "click>=8.4", "flask>=3", "typing-extensions>=4.10"),
        *("cronsim>=2.7", "tzdata"),
        "prompt-toolkit>=3.0.40",
        *("pytest>=8",),  # the SDK's helpers for its users' tests may name it
    )
    session.run("mypy")
    session.run("mypy", "packages/titan-proto/tests/typing/api.py")


@nox.session(allow_parallel=True)
def arch(session: nox.Session) -> None:
    """Import contracts, the proof that they bite, and tidiness of the tree."""
    session.install("import-linter>=2.5", *TEST_TOOLS)
    _pytest(session, str(ROOT / "tests" / "arch"))


# -- wheels ------------------------------------------------------------------------------------------


@nox.session
def build(session: nox.Session) -> None:
    """Make an sdist and, from it, the wheel of all five into dist/."""
    stamp = ROOT / ".nox" / "requirements"
    wanted = _requirements_digest()
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
        # An environment made for older requirements may hold what is not declared any more, and
        # `isolated` would then prove nothing.
        for kind in (
            "isolated*",
            "integration*",
            "quick",
            "seeds",
            "cron*",
            "sim*",
            "e2e",
            "chaos*",
            "docs",
            "bench",
        ):
            for old in (ROOT / ".nox").glob(kind):
                shutil.rmtree(old)
        stamp.write_text(wanted, encoding="utf-8")
    session.install("build>=1.2", "hatchling>=1.26")
    for old in DIST.glob("titan_*"):
        old.unlink()
    for package in PACKAGES:
        folder = str(ROOT / f"packages/titan-{package}")
        session.run(
            *("python", "-m", "build", "--no-isolation", "--outdir", str(DIST), folder),
            # Hundreds of lines that nobody reads; nox shows them when it fails.
            silent=True,
        )
    lines = [f"titan-{package} @ {_wheel(package).as_uri()}\n" for package in PACKAGES]
    OURS.write_text("".join(lines), encoding="utf-8")


# -- tests -------------------------------------------------------------------------------------------


# Two at a time under `nox -j 2`: unit tests take port 0 and folders of their own. What starts whole
# clusters stays alone on the machine, or its deadlines would measure its neighbour.
@nox.session(requires=["build"], allow_parallel=True)
@nox.parametrize(
    "python,package",
    MATRIX,
    ids=[f"{package}_py{python.replace('.', '')}" for python, package in MATRIX],
)
def isolated(session: nox.Session, package: str) -> None:
    """One wheel alone, with only what it declares: its unit tests."""
    tests = ROOT / f"packages/titan-{package}/tests"
    _install(session, (package,), "-r", str(tests / "requirements.txt"))
    _pytest(session, "-m", "not siblings", str(tests), *session.posargs)


def _integration(session: nox.Session) -> None:
    _install(session, PACKAGES, *TEST_TOOLS, "jsonschema>=4.20")  # for those of the SDK's tests
    folders = [str(ROOT / f"packages/titan-{package}/tests") for package in PACKAGES]
    _pytest(session, "-m", "siblings", *folders, part="-siblings", empty_ok=True)
    _pytest(session, str(ROOT / "tests" / "integration"), *session.posargs)


@nox.session(python=SHARED_PYTHONS, requires=["build"])
def integration(session: nox.Session) -> None:
    """All five wheels together."""
    _integration(session)


@nox.session(requires=["build"], default=False)
def quick(session: nox.Session) -> None:
    """As `integration`, on the Python that nox itself runs on."""
    _integration(session)


@nox.session(requires=["build"])
def seeds(session: nox.Session) -> None:
    """The simulator's tests: a few hundred seeds, within a minute."""
    _install(session, PACKAGES, *TEST_TOOLS)
    # Every seed of a suite belongs to one test, so a single test may take as long as all of them.
    _pytest(session, "--timeout=180", str(ROOT / "tests" / "sim"), *session.posargs)


@nox.session(requires=["build"], allow_parallel=True)
def cron(session: nox.Session) -> None:
    """When schedules fire, against a scan of every minute near each change of clocks."""
    _install(session, PACKAGES, *TEST_TOOLS)
    _pytest(session, str(ROOT / "tests" / "cron"), *session.posargs)


@nox.session(name="cron-full", requires=["build"], default=False)
def cron_full(session: nox.Session) -> None:
    """The same for ten years: every minute in five zones, every change of every zone, and its report."""
    _install(session, PACKAGES, *TEST_TOOLS)
    try:
        session.run("python", "-m", "tests.cron")
    finally:
        session.run("python", "-m", "tests.chaos", "report")


@nox.session(requires=["build"], default=False)
def sim(session: nox.Session) -> None:
    """A campaign of the simulator: 1,000 seeds, or what follows `--` (`--seed 4711 --trace`)."""
    _install(session, PACKAGES, *TEST_TOOLS)
    session.run("python", "-m", "tests.sim", *(session.posargs or ("--seeds", "1000")))


@nox.session(name="sim-full", requires=["build"], default=False)
def sim_full(session: nox.Session) -> None:
    """The simulator's long campaign, 10,000 seeds, and its lines of docs/reliability-report.md."""
    _install(session, PACKAGES, *TEST_TOOLS)
    found = str(ROOT / "docs" / "reliability" / "sim.json")
    try:
        command = ("python", "-m", "tests.sim", "--seeds", "10000", "--report", found)
        session.run(*command, *session.posargs)
    finally:
        session.run("python", "-m", "tests.chaos", "report")  # whatever was found


@nox.session(requires=["build"])
def e2e(session: nox.Session) -> None:
    """Real processes, a real browser, and installations as users make them."""
    _install(session, PACKAGES, *E2E_TOOLS)
    session.env["TITAN_OLDEST_PYTHON"] = _oldest_python()
    _pytest(session, str(ROOT / "tests" / "e2e"), *session.posargs)


@nox.session(requires=["build"])
def chaos(session: nox.Session) -> None:
    """Real faults against real processes: a sample of each campaign."""
    _install(session, PACKAGES, *CHAOS_TOOLS)
    planted = f"--ignore={ROOT / 'tests' / 'chaos' / 'test_planted.py'}"
    _pytest(session, planted, str(ROOT / "tests" / "chaos"), *session.posargs)


@nox.session(requires=["build"])
def planted(session: nox.Session) -> None:
    """Guards taken away in a copy of the tree, one by one: the test named for each must fail."""
    _install(session, PACKAGES, *CHAOS_TOOLS)
    _pytest(session, str(ROOT / "tests" / "chaos" / "test_planted.py"), *session.posargs)


@nox.session(name="chaos-full", requires=["build"], default=False)
def chaos_full(session: nox.Session) -> None:
    """The same for long, with docs/reliability-report.md: all, or what follows `--` (`crashes --cycles 1000`)."""
    _install(session, PACKAGES, *CHAOS_TOOLS)
    session.run("python", "-m", "tests.chaos", *session.posargs)


@nox.session(requires=["build"])
def docs(session: nox.Session) -> None:
    """Every fenced block of the README and the docs is run or checked."""
    _install(session, PACKAGES, *TEST_TOOLS)
    _pytest(session, str(ROOT / "tests" / "docs"), *session.posargs)


@nox.session(requires=["build"], default=False)
def bench(session: nox.Session) -> None:
    """Speed and memory, beside a floor measured in the same run."""
    _install(session, PACKAGES, "playwright>=1.45")
    session.run("python", "-m", "tests.bench", *session.posargs)


# -- working on it -----------------------------------------------------------------------------------


@nox.session(default=False)
def dev(session: nox.Session) -> None:
    """An environment with all five packages editable, and the tools."""
    editable = [arg for p in PACKAGES for arg in ("-e", str(ROOT / f"packages/titan-{p}"))]
    tools = ("nox", "ruff>=0.17", "mypy>=2", "import-linter>=2.5", "types-PyYAML", "types-psutil")
    session.install(*editable, *tools, *CHAOS_TOOLS, *E2E_TOOLS)
    session.log("source %s/bin/activate", os.path.relpath(session.virtualenv.location))
