"""What a valid RunSpec is: everything wrong is found at once, with where, what and what to do."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from titan_proto import validation
from titan_proto.limits import (
    ARGS_BYTES,
    ARTIFACT_BYTES,
    AT_MS,
    DELAY_MS,
    ENV_BYTES,
    JOBS_PER_RUN,
    NAME_CHARS,
    SKILLS_PER_JOB,
    STOP_GRACE_MS,
)
from titan_proto.specs import (
    ArtifactFormat,
    ArtifactRef,
    Artifacts,
    Counted,
    GateExpiry,
    GateSection,
    Intake,
    JobKind,
    JobSpec,
    Launch,
    LaunchKind,
    Needs,
    Resources,
    RetryCause,
    RetryPolicy,
    RunSpec,
    ServiceSection,
    Terms,
)
from titan_proto.validation import is_inside, problems

DIGEST = "ab" * 32


def job(name="A", *parents, **changes):
    launch = Launch(script="hello.py", **changes.pop("launch", {}))
    return JobSpec(id=name, launch=launch, dependencies=parents, **changes)


def run(*jobs, **changes):
    return RunSpec(**{"name": "nightly", "jobs": jobs, **changes})


def only(spec):
    """The one problem of a spec that should have one."""
    found = problems(spec)
    assert len(found) == 1, found
    return found[0]


def handled(name="pdf", skills=("pdf",), **fields):
    launch = Launch(kind=LaunchKind.HANDLER, handler=name, **fields)
    return run(JobSpec(id="A", launch=launch, needs=Needs(skills=skills)))


def test_a_handler_needs_the_skill_of_its_name():
    assert problems(handled(args=("report.html",))) == ()
    problem = only(handled(skills=("GENERAL",)))
    assert problem.where == "jobs[0].launch.handler"
    assert "does not need the skill of that name" in problem.message


def test_a_handler_is_named_and_alone():
    assert "handler is empty" in only(handled(name="")).message
    assert "beside handler" in only(handled(shell="ls")).message


def test_a_good_run_has_no_problems():
    spec = run(
        job("EXTRACT"),
        job("TRANSFORM", "EXTRACT", priority=10, delay_ms=5, affinity=True),
        job("_x.1-y", "EXTRACT", "TRANSFORM", needs=Needs(skills=("GPU", "cuda:12.4"))),
        JobSpec(
            id="API",
            kind=JobKind.SERVICE,
            launch=Launch(kind=LaunchKind.SHELL, shell="exec serve $PORT", env={"A": "ä\n"}),
            service=ServiceSection(port_auto=True),
        ),
        JobSpec(id="C", launch=Launch(kind=LaunchKind.COMMAND, command=("true", ""))),
        workspace=ArtifactRef(digest=DIGEST, size_bytes=0),
    )

    assert problems(spec) == ()


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "a\\b", "a..b", "-a", ".a", "a b", "a\0", "ä", "a\n", "x" * 129, "/"],
)
def test_an_id_that_could_not_be_a_folder_is_refused_with_the_rule(name):
    problem = only(run(job(name)))

    assert (problem.code, problem.where) == ("Y202", "jobs[0].id")
    assert "128 characters" in problem.hint
    assert problem.message.isprintable()


@pytest.mark.parametrize("name", ["a", "A" * 128, "_", "0", "a.b", "a-", "EXTRACT_1.v2"])
def test_an_id_of_the_allowed_shape_is_fine(name):
    assert problems(run(job(name))) == ()


def test_an_id_that_is_there_twice():
    problem = only(run(job("A"), job("B"), job("A")))

    assert (problem.code, problem.where) == ("Y203", "jobs[2].id")
    assert "jobs[0]" in problem.message


@pytest.mark.parametrize("name", ["TRANSFROM", "transform", "TRANSFORM1"])
def test_an_unknown_parent_with_what_was_meant(name):
    problem = only(run(job("EXTRACT"), job("TRANSFORM", "EXTRACT"), job("DEPLOY", "EXTRACT", name)))

    assert (problem.code, problem.where) == ("Y201", "jobs[2].dependencies[1]")
    assert problem.message == f'job DEPLOY depends on "{name}", which is not in this pipeline'
    assert problem.hint == "TRANSFORM?"


def test_an_unknown_parent_that_resembles_nothing_has_no_hint():
    assert only(run(job("A", "completely-else"))).hint == ""


def test_a_parent_named_twice():
    problem = only(run(job("A"), job("B", "A", "A")))

    assert (problem.code, problem.where) == ("Y205", "jobs[1].dependencies[1]")


def test_a_cycle_is_printed_as_a_path():
    problem = only(run(job("a", "c"), job("b", "a"), job("c", "b"), job("after", "c")))

    assert (problem.code, problem.where) == ("Y204", "jobs[0].dependencies[0]")
    assert "a → c → b → a" in problem.message


def test_each_cycle_is_told_once():
    spec = run(
        job("s", "s"), job("x", "y"), job("y", "x"), job("z", "x", "s"), job("ok"), job("k", "ok")
    )

    assert [problem.message.rpartition(": ")[2] for problem in problems(spec)] == [
        "s → s",
        "x → y → x",
    ]


def test_a_cycle_among_unknown_parents_is_found_too():
    codes = [problem.code for problem in problems(run(job("a", "nope", "b"), job("b", "a")))]

    assert codes == ["Y201", "Y204"]


def test_a_long_cycle_is_shortened():
    jobs = [job(f"j{n}", f"j{(n - 1) % 1000}") for n in range(1000)]

    message = only(run(*jobs)).message

    assert "988 more" in message
    assert len(message) < 300


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"priority": 11}, "priority"),
        ({"priority": -1}, "priority"),
        ({"delay_ms": -1}, "delay_ms"),
        ({"delay_ms": DELAY_MS + 1}, "delay_ms"),
        ({"launch": {"at_ms": -1}}, "launch.at_ms"),
        ({"launch": {"at_ms": AT_MS + 1}}, "launch.at_ms"),
        ({"stop_grace_ms": -1}, "stop_grace_ms"),
        ({"stop_grace_ms": STOP_GRACE_MS + 1}, "stop_grace_ms"),
        ({"needs": Needs(skills=("a",) * (SKILLS_PER_JOB + 1))}, "needs.skills"),
        ({"kind": JobKind.SERVICE, "service": ServiceSection(port=65_536)}, "service.port"),
        ({"kind": JobKind.SERVICE, "service": ServiceSection(port=-1)}, "service.port"),
    ],
)
def test_a_number_out_of_its_range(changes, where):
    problem = only(run(job("A", **changes)))

    assert (problem.code, problem.where) == ("Y213", f"jobs[0].{where}")


@pytest.mark.parametrize(
    ("changes", "code", "where"),
    [
        ({"kind": JobKind.UNKNOWN}, "Y216", "kind"),
        ({"needs": Needs(skills=("GPU", "a b"))}, "Y214", "needs.skills[1]"),
        ({"needs": Needs(skills=("",))}, "Y214", "needs.skills[0]"),
        ({"service": ServiceSection(port=80)}, "Y215", "service"),
        (
            {"kind": JobKind.SERVICE, "service": ServiceSection(port=80, port_auto=True)},
            "Y215",
            "service.port",
        ),
    ],
)
def test_a_section_that_makes_no_sense(changes, code, where):
    problem = only(run(job("A", **changes)))

    assert (problem.code, problem.where) == (code, f"jobs[0].{where}")


@pytest.mark.parametrize(
    ("launch", "code", "where"),
    [
        (Launch(), "Y208", "script"),
        (Launch(kind=LaunchKind.SHELL), "Y208", "shell"),
        (Launch(kind=LaunchKind.COMMAND), "Y208", "command"),
        (Launch(kind=LaunchKind.COMMAND, command=("",)), "Y208", "command[0]"),
        (Launch(script="a", shell="b"), "Y208", "shell"),
        (Launch(kind=LaunchKind.SHELL, script="a", shell="b"), "Y208", "script"),
        (Launch(kind=LaunchKind.UNKNOWN, script="a"), "Y216", "kind"),
        (Launch(script="../a.py"), "Y209", "script"),
        (Launch(script="/a.py"), "Y209", "script"),
        (Launch(script="a.py", args=("\0",)), "Y210", "args"),
        (Launch(kind=LaunchKind.SHELL, shell="a\0"), "Y210", "shell"),
        (Launch(script="a.py", env={"A": "\0"}), "Y210", "env"),
        (Launch(script="a.py", env={"": "x"}), "Y211", "env"),
        (Launch(script="a.py", env={"A=B": "x"}), "Y211", "env"),
        (Launch(script="a.sh", python="3.12"), "Y220", "python"),
        (Launch(script="a", resources=Resources(cpu_milli=9)), "Y213", "resources.cpu_milli"),
        (Launch(script="a", resources=Resources(memory_bytes=1)), "Y213", "resources.memory_bytes"),
        (Launch(script="a", resources=Resources(pids=-1)), "Y213", "resources.pids"),
        (Launch(kind=LaunchKind.SHELL, shell="a.py", python="3.12"), "Y220", "python"),
        (Launch(kind=LaunchKind.COMMAND, command=("a.py",), python="3.12"), "Y220", "python"),
        (Launch(script="a.py", python="python3"), "Y220", "python"),
        (Launch(script="a.py", python="3.12\n"), "Y220", "python"),
        (Launch(script="a.py", python=".venv/bin/python"), "Y220", "python"),
        (Launch(script="a.py", python="/usr/bin/"), "Y220", "python"),
        (Launch(script="a.py", python="/usr/bin/python\0"), "Y220", "python"),
        (Launch(script="a.py", python="/" + "x" * 4_096), "Y220", "python"),
        (Launch(script="a.py", args=("x" * ARGS_BYTES,)), "Y212", "args"),
        (Launch(script="a.py", env={"A": "x" * ENV_BYTES}), "Y212", "env"),
        (
            Launch(script="a.py", artifact=ArtifactRef(digest="AB", size_bytes=1)),
            "Y217",
            "artifact.digest",
        ),
        (
            Launch(
                script="a.py",
                artifact=ArtifactRef(
                    digest=DIGEST, size_bytes=1, format=ArtifactFormat.FILE, name="../x"
                ),
            ),
            "Y209",
            "artifact.name",
        ),
    ],
)
def test_a_launch_that_could_not_start(launch, code, where):
    problem = only(run(JobSpec(id="A", launch=launch)))

    assert (problem.code, problem.where) == (code, f"jobs[0].launch.{where}")


@pytest.mark.parametrize("python", ["3", "3.9", "3.12", "3.13t", "/usr/bin/python3", "/opt/my py"])
def test_a_python_that_can_be_looked_for(python):
    assert problems(run(JobSpec(id="A", launch=Launch(script="a.py", python=python)))) == ()


@pytest.mark.parametrize(
    ("changes", "code", "where"),
    [
        ({"name": ""}, "Y206", "name"),
        ({"name": "x" * (NAME_CHARS + 1)}, "Y206", "name"),
        ({"name": "a\x1b[31m"}, "Y206", "name"),
        ({"jobs": ()}, "Y207", "jobs"),
        (
            {"workspace": ArtifactRef(digest=DIGEST, size_bytes=ARTIFACT_BYTES + 1)},
            "Y213",
            "workspace.size_bytes",
        ),
        (
            {"workspace": ArtifactRef(digest=DIGEST, size_bytes=1, format=ArtifactFormat.UNKNOWN)},
            "Y216",
            "workspace.format",
        ),
    ],
)
def test_a_run_as_a_whole(changes, code, where):
    problem = only(run(job("A"), **changes) if "jobs" not in changes else run(**changes))

    assert (problem.code, problem.where) == (code, where)


RETRIES = [
    (RetryPolicy(limit=-1), "jobs[0].retries.limit"),
    (RetryPolicy(limit=10**9), "jobs[0].retries.limit"),
    (RetryPolicy(limit=1, delay_ms=-1), "jobs[0].retries.delay_ms"),
    (RetryPolicy(limit=1, max_delay_ms=10**12), "jobs[0].retries.max_delay_ms"),
    (RetryPolicy(limit=1, backoff_percent=99), "jobs[0].retries.backoff_percent"),
    (RetryPolicy(limit=1, backoff_percent=1_001), "jobs[0].retries.backoff_percent"),
    (RetryPolicy(limit=1, causes=()), "jobs[0].retries.causes"),
    (RetryPolicy(limit=1, causes=(RetryCause.UNKNOWN,)), "jobs[0].retries.causes"),
    (RetryPolicy(limit=1, not_exit_codes=(0,)), "jobs[0].retries.not_exit_codes[0]"),
    (RetryPolicy(limit=1, not_exit_codes=(1, 256)), "jobs[0].retries.not_exit_codes[1]"),
]


@pytest.mark.parametrize(("retries", "where"), RETRIES)
def test_retries_out_of_their_range(retries, where):
    assert only(run(job(retries=retries))).where == where


def test_a_refused_retry_limit_quotes_the_allowed_range():
    problem = only(run(job(retries=RetryPolicy(limit=10**9))))

    assert "from 0 to 100 (RETRIES)" in problem.message


def test_retries_and_timeouts_that_are_good():
    spec = run(
        job("A", retries=RetryPolicy(limit=100, backoff_percent=150, not_exit_codes=(2,))),
        job("B", timeout_ms=1, job_timeout_ms=86_400_000, exclusive=True),
    )
    assert problems(spec) == ()


def test_at_most_once_is_exclusive_and_has_no_retries():
    once = RetryPolicy(after_loss=False)
    assert problems(run(job(exclusive=True, retries=once))) == ()
    for changes in (
        {"retries": once},
        {"exclusive": True, "retries": RetryPolicy(limit=1, after_loss=False)},
    ):
        assert only(run(job(**changes))).where == "jobs[0].retries.after_loss"


def gate(name="OK", *parents, section=GateSection(), **changes):  # noqa: B008 - frozen
    return JobSpec(
        id=name,
        kind=JobKind.GATE,
        launch=changes.pop("launch", Launch()),
        dependencies=parents,
        gate=section,
        **changes,
    )


def test_a_good_gate_runs_nothing():
    asking = GateSection(message="go on?", timeout_ms=0, on_timeout=GateExpiry.APPROVE)
    assert problems(run(job("A"), gate("OK", "A", section=asking), job("B", "OK"))) == ()


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        (gate(launch=Launch(script="a.py")), "jobs[0].launch"),
        (gate(exclusive=True), "jobs[0].launch"),
        (gate(timeout_ms=5), "jobs[0].launch"),
        (gate(retries=RetryPolicy(limit=1)), "jobs[0].retries"),
        (gate(section=GateSection(timeout_ms=-1)), "jobs[0].gate.timeout_ms"),
        (gate(section=GateSection(on_timeout=GateExpiry.UNKNOWN)), "jobs[0].gate.on_timeout"),
        (gate(section=GateSection(message="x" * 4_001)), "jobs[0].gate.message"),
        (job(gate=GateSection()), "jobs[0].gate"),
        (job(kind=JobKind.SERVICE, timeout_ms=5), "jobs[0].timeout_ms"),
    ],
)
def test_a_gate_or_a_timeout_that_makes_no_sense(changed, where):
    assert only(run(changed)).where == where


def test_text_that_is_no_unicode_is_refused_before_it_cannot_be_sent():
    problem = only(run(job("A", launch={"args": ("\udcff",)})))

    assert problem.code == "Y210"


def test_a_job_above_its_size():
    parents = [f"{n:0100d}" for n in range(12_000)]

    problem = only(run(*map(job, parents), job("last", *parents)))

    assert (problem.code, problem.where) == ("Y212", "jobs[12000]")


def test_all_problems_come_at_once_but_not_without_end():
    """And the last one says how many there are still."""
    spec = run(*(job(f"j{n}", f"missing{n}") for n in range(1_000)), name="")

    found = problems(spec)

    assert len(found) == validation.PROBLEMS_MAX + 1
    assert found[0].where == "name"
    assert found[-1].message == "and 801 more problems"


def test_what_is_counted_is_checked():
    """Names, amounts, doubles, and that a gate takes nothing."""

    def found(*counted, **fields):
        needs = Needs(terms=Terms(counted=tuple(Counted(name=n, amount=a) for n, a in counted)))
        one = replace(job("A"), needs=needs, **fields)
        return [(problem.code, problem.message) for problem in problems(run(one))]

    assert found(("gpu", 1), ("cpu", 4_096_000), ("memory", 2**40)) == []
    assert found(("pids", 1)) == [("Y240", '"pids" cannot be a resource')]
    assert found(("a b", 1)) == [("Y240", '"a b" cannot be a resource')]
    assert found(("gpu", 1), ("gpu", 1)) == [("Y240", "resource gpu is asked for twice")]
    ((code, message),) = found(("gpu", 0))
    assert (code, "RESOURCE_AMOUNT" in message) == ("Y213", True)
    ((code, message),) = found(("cpu", 4_096_001))
    assert (code, "CPU_MILLI" in message) == ("Y213", True)
    ((code, message),) = found(*((f"r{n}", 1) for n in range(17)))
    assert (code, "RESOURCES_PER_JOB" in message) == ("Y213", True)
    assert found(("gpu", 1), kind=JobKind.GATE, launch=Launch())[0][0] == "Y219"


def test_where_a_job_may_be_is_checked():
    """Of what it is beside: that it comes before; of names and limits: that they can be."""

    def found(*jobs):
        return [(problem.where, problem.code, problem.message) for problem in problems(run(*jobs))]

    def placed(name, *after, **terms):
        return replace(job(name, *after), needs=Needs(terms=Terms(**terms)))

    gate = replace(job("G", "A"), kind=JobKind.GATE, launch=Launch())
    near = "jobs[2].needs.terms.near"
    chain = (job("A"), job("B", "A"))
    assert found(*chain, placed("C", "B", near="A", required=True)) == []
    assert found(*chain, placed("C", "B", near="B")) == []
    tied = placed("C", "B", near="A", required=True, worker="vm:8080")
    assert found(*chain, tied)[0][2] == (
        "job C is tied to a worker and has to be beside another job"
    )
    assert found(*chain, placed("C", near="A")) == [
        (near, "Y241", "job C has an affinity to A, which is no ancestor of it")
    ]
    assert found(*chain, placed("C", "B", near="C")) == [
        (near, "Y241", "job C has an affinity to C, which is no ancestor of it")
    ]
    assert found(*chain, placed("C", "B", near="Z")) == [
        (near, "Y241", 'job C has an affinity to "Z", which is not in this pipeline')
    ]
    assert found(job("A"), gate, placed("C", "G", near="G")) == [
        (near, "Y241", "job C has an affinity to G, a GATE, which runs nowhere")
    ]
    for wrong in (
        {"worker": "x" * 301},
        {"required": True},
        {"worker": "vm:8080", "spread": True},
        {"group": "x" * 65, "limit": 1},
        {"group": "a\nb", "limit": 1},
    ):
        assert {code for _, code, _ in found(placed("A", **wrong))} == {"Y241"}, wrong
    for wrong in (
        {"group": "db"},
        {"group": "db", "limit": 1_000_001},
        {"limit": 1},
        {"run_group": "etl"},
    ):
        assert {code for _, code, _ in found(placed("A", **wrong))} == {"Y213"}, wrong
    one = {"run_group": "etl", "run_limit": 1}
    assert found(placed("A", **one), placed("B", **one), replace(gate, id="H")) == []
    assert found(placed("A", **one), job("B"))[0][1] == "Y241"


def test_every_code_means_one_thing():
    codes = [
        value
        for name, value in vars(validation).items()
        if name.isupper() and isinstance(value, str) and value.startswith("Y2")
    ]

    assert len(set(codes)) == len(codes) >= 27


def test_a_problem_can_travel():
    """Names of any kind come out printable and encodable."""
    for found in problems(run(job("\ud800\0" * 100, "\udfff" * 100), name="\ud800")):
        assert found.message.isprintable()
        msgspec.msgpack.encode(found)


@pytest.mark.parametrize("shape", ["chain", "ring", "fan"])
def test_the_largest_run_is_checked_without_recursion(shape):
    """As many jobs as a run may have, as deep as they can lie."""
    count = JOBS_PER_RUN
    names = [f"j{n}" for n in range(count)]
    parents = {
        "chain": [(), *((name,) for name in names[:-1])],
        "ring": [(names[-1],), *((name,) for name in names[:-1])],
        "fan": [*((),) * (count - 1), tuple(names[:-1])],
    }[shape]
    launch = Launch(script="a.py")
    jobs = tuple(
        JobSpec(id=name, launch=launch, dependencies=above)
        for name, above in zip(names, parents, strict=True)
    )

    found = problems(run(*jobs))

    assert [problem.code for problem in found] == (["Y204"] if shape == "ring" else [])
    one_more = run(*jobs, job("extra"))
    assert "Y207" in [problem.code for problem in problems(one_more)] or shape != "fan"


@pytest.mark.parametrize("path", ["a", "a/b.py", "ä/ö", ".hidden", "a b", "..a", "a..b"])
def test_paths_inside(path):
    assert is_inside(path)


@pytest.mark.parametrize(
    "path", ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a\0", "a\\b", "x" * 256]
)
def test_paths_that_are_not(path):
    assert not is_inside(path)


# -- outputs of other jobs ------------------------------------------------------------------------

ROWS = "${{ jobs.A.outputs.rows }}"


def using(name, text, *parents, **changes):
    """A job that has `text` as its argument."""
    return job(name, *parents, launch={"args": ("--rows", text)}, **changes)


@pytest.mark.parametrize("text", [ROWS, "${{jobs.A.outputs.rows}}", f"<{ROWS}|{ROWS}>"])
def test_an_output_of_a_parent_may_be_used(text):
    assert problems(run(job(), using("B", text, "A"))) == ()


def test_an_output_of_whoever_comes_before_may_be_used_however_far_up():
    chain = [job(f"j{n}", f"j{n - 1}") for n in range(1, 50)]
    last = using("Z", "${{ jobs.j0.outputs.rows }}", "j49")
    assert problems(run(job("j0"), *chain, last)) == ()


@pytest.mark.parametrize(
    "field",
    [
        {"kind": LaunchKind.SHELL, "script": "", "shell": "echo ${{ x }}"},
        {"kind": LaunchKind.COMMAND, "script": "", "command": ("echo", "${{ x }}")},
        {"args": ("${{ x }}",)},
        {"env": {"X": "${{ x }}"}},
    ],
)
def test_an_expression_of_another_form_is_refused_wherever_it_stands(field):
    spec = JobSpec(id="B", launch=Launch(**{"script": "hello.py", **field}))
    problem = only(run(spec))
    assert problem.code == validation.BAD_EXPRESSION
    assert problem.hint.startswith("${{ jobs.JOB.outputs.KEY }}, ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${{ jobs.A.outputs.9 }}", "is no expression"),
        ("${{ jobs.A.outputs.rows", "is no expression"),
        ("${{ jobs.A.rows }}", "is no expression"),
        ("${{ jobs.C.outputs.rows }}", "does not depend on it"),
        ("${{ jobs.B.outputs.rows }}", "does not depend on it"),
        ("${{ jobs.nobody.outputs.rows }}", "not in this pipeline"),
        ("${{ jobs.web.outputs.rows }}", "only a TASK has outputs"),
    ],
)
def test_an_expression_that_could_never_be_filled_in_is_refused(text, words):
    web = job("web", kind=JobKind.SERVICE)
    problem = only(run(job(), using("B", text, "A"), job("C"), web))
    assert problem.code == validation.BAD_EXPRESSION
    assert problem.where == "jobs[1].launch.args[1]"
    assert words in problem.message


def test_jobs_in_a_circle_hear_of_the_circle_alone():
    spec = run(job("A", "C"), job("B", "A"), using("C", ROWS, "B"))
    assert only(spec).code == validation.CYCLE


def test_outputs_from_afar_are_limited_so_that_they_are_checked_in_one_pass():
    most = validation.OUTPUTS_FROM_AFAR
    chain = [job("j0"), *(job(f"j{n}", f"j{n - 1}") for n in range(1, most + 3))]
    users = [
        using(f"u{n}", f"${{{{ jobs.j{n}.outputs.rows }}}}", f"j{most + 2}") for n in range(most)
    ]
    assert problems(run(*chain, *users)) == ()
    more = using("more", f"${{{{ jobs.j{most}.outputs.rows }}}}", f"j{most + 2}")
    assert "OUTPUTS_FROM_AFAR (1000)" in only(run(*chain, *users, more)).message


# -- files of other jobs ----------------------------------------------------------------------------


def handing(name, *after, out=(), take=()):
    artifacts = Artifacts(out=out, take=tuple(Intake(job=job, files=files) for job, files in take))
    launch = Launch(kind=LaunchKind.SHELL, shell="true", artifacts=artifacts)
    return JobSpec(id=name, launch=launch, dependencies=after)


def test_files_of_any_job_above_may_be_taken_in():
    spec = RunSpec(
        name="r",
        jobs=(
            handing("a", out=("x/**", "y.[ch]")),
            handing("b", "a"),
            handing("c", "b", take=(("a", "x/1"), ("a", "y.c"))),
        ),
    )
    assert validation.problems(spec) == ()


@pytest.mark.parametrize(
    ("jobs", "words"),
    [
        ((handing("a", out=("/etc/passwd",)),), "inside a working folder"),
        ((handing("a", out=("x/../../y",)),), "inside a working folder"),
        ((handing("a", out=("",)),), "inside a working folder"),
        ((handing("a", out=("x",)), handing("b", "a", take=(("a", "../x"),))), "inside a working"),
        ((handing("a", out=("x",)), handing("b", take=(("a", "x"),))), "does not depend on it"),
        ((handing("a"), handing("b", "a", take=(("a", "x"),))), "hands out none"),
        ((handing("a", take=(("b", "x"),)),), "not in this pipeline"),
        ((handing("a", out=("x",), take=(("a", "x"),)),), "does not depend on it"),
    ],
)
def test_files_that_nobody_hands_out_are_refused(jobs, words):
    (problem,) = validation.problems(RunSpec(name="r", jobs=jobs))
    assert problem.code == validation.BAD_FILES
    assert words in problem.message


def test_too_many_patterns_are_refused_with_their_limit():
    spec = RunSpec(name="r", jobs=(handing("a", out=tuple(map(str, range(101)))),))
    (problem,) = validation.problems(spec)
    assert "ARTIFACT_PATTERNS (100)" in problem.message
