"""The raw DAG string: what it says, and where it says nothing."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from titan_proto.errors import InvalidSpec
from titan_proto.limits import DAG_STRING_BYTES
from titan_proto.messages import SubmitRun
from titan_proto.specs import JobKind, LaunchKind
from titan_sdk.dagstring import DagStringError, parse

HELLO = base64.b64encode(b"print('hello')").decode()


def test_the_documented_form_with_its_content():
    (job,) = parse(f"JOB_CALC|GENERAL|RUN_PAYLOAD|calc.py|{HELLO}|2|0|[]")

    assert (job.id, job.file, job.content) == ("JOB_CALC", "calc.py", b"print('hello')")
    assert (job.skills, job.priority, job.delay_ms, job.parents) == ((), 2, 0, ())


def test_the_form_without_a_skill_has_it_at_the_end():
    (job,) = parse(f"A|RUN_PAYLOAD|a.py|--fast 'x y'|{HELLO}|GPU|7|1500|[]|AFFINITY")

    assert (job.args, job.skills, job.delay_ms) == ("--fast 'x y'", ("GPU",), 1500)
    assert job.affinity


def test_a_script_that_is_here_or_in_perm_files_is_only_named():
    jobs = parse("A|GENERAL|RUN_PAYLOAD|a.py||5|0|[] ; B|GENERAL|RUN_PAYLOAD|b.py|5|0|[A]")

    assert [(job.file, job.content) for job in jobs] == [("a.py", None), ("b.py", None)]


def test_a_service_with_its_port():
    (job,) = parse(f"S|GENERAL|DEPLOY_PAYLOAD|server.py|{HELLO}|9991|2|0|[]")

    assert (job.is_service, job.port) == (True, "9991")


def test_any_other_header_is_a_handler_and_its_name_a_skill():
    (job,) = parse("JOB_PDF|GENERAL|PDF_CONVERT|final report.pdf|1|0|[]")

    assert (job.handler, job.args, job.skills) == (
        "PDF_CONVERT",
        ("final report.pdf",),
        ("PDF_CONVERT",),
    )


def test_the_prefix_that_the_original_puts_before_ids_is_no_part_of_them():
    first, second = parse(
        "DAG-A|GENERAL|RUN_PAYLOAD|a.py|5|0|[];B|GENERAL|RUN_PAYLOAD|b|5|0|[DAG-A]"
    )

    assert (first.id, second.parents) == ("A", ("A",))


def test_what_stands_behind_a_backslash_separates_nothing():
    (job,) = parse(r"A|RUN_PAYLOAD|a.py|say a\|b\;c \\ \[d\]||GENERAL|5|0|[]")

    assert job.args == r"say a|b;c \ [d]"


def test_a_semicolon_in_an_argument_is_never_another_job():
    """In the original it is, and the other job runs."""
    assert len(parse(r"A|RUN_PAYLOAD|a.py|x\;evil\|RUN_PAYLOAD\|rm.py||GENERAL|5|0|[]")) == 1


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("", 1, "no job"),
        (" ; ;", 1, "no job"),
        ("A|GENERAL", 3, "ends with its parents"),
        ("A|GENERAL|RUN_PAYLOAD|a.py||high|0|[]", 29, "priority is 0 to 10, not high"),
        ("A|GENERAL|RUN_PAYLOAD|a.py||11|0|[]", 29, "priority is 0 to 10, not 11"),
        ("A|GENERAL|RUN_PAYLOAD|a.py||5|soon|[]", 31, "delay is milliseconds"),
        ("A|GENERAL|RUN_PAYLOAD|a.py||5|0|[B]", 34, 'is called "B"'),
        ("A|GENERAL|RUN_PAYLOAD|a.py||5|0|[B", 33, "not closed"),
        ("A|GENERAL|RUN_PAYLOAD|a.py||5|0|[[B]]", 34, "brackets inside brackets"),
        ("A|GENERAL|RUN_PAYLOAD|a.py||5|0|[,]", 34, "a parent has no name"),
        ("A|GENERAL|RUN_PAYLOAD|a.py||5|0", 31, "ends with its parents"),
        ("A|GENERAL|RUN_PAYLOAD|a.py|???|5|0|[]", 28, "not base64"),
        ("A|GENERAL|RUN_PAYLOAD||5|0|[]", 23, "names no file"),
        ("|GENERAL|RUN_PAYLOAD|a.py|5|0|[]", 1, "no id"),
        ("A|GENERAL|5|0|[]", 3, "a header is missing"),
        ("A|5|0|[]", 1, "here are 4 fields"),
        ("A|GENERAL|DEPLOY_PAYLOAD|s.py||70000|5|0|[]", 32, "70000 is no port"),
        ("A|GENERAL|DEPLOY_PAYLOAD|Worker.jar||8086|5|0|[]", 26, "would be a worker"),
        ("A|GENERAL|RUN_ARCHIVE|p.zip/main.py|5|0|[]", 11, "no archives"),
        ("A|GENERAL|PDF_CONVERT|a|b|5|0|[]", 11, "takes one field"),
        ("A|GENERAL|RUN_PAYLOAD|a|b|c|d|e|5|0|[]", 11, "takes 1 to 4 fields"),
        ("A|RUN_PAYLOAD|a.py|5|0|[];B|RUN_PAYLOAD|b|5|x|[A]", 45, "delay is milliseconds"),
        ("A|RUN_PAYLOAD|a.py|5|0|[B];B|RUN_PAYLOAD|b|5|0|[A]", 25, "wait for each other: A, B"),
        ("A|RUN_PAYLOAD|a.py|5|0|[]\\", 26, "stands before nothing"),
    ],
)
def test_an_error_points_at_its_column(text, column, message):
    with pytest.raises(DagStringError) as caught:
        parse(text)

    assert message in str(caught.value)
    assert caught.value.column == column
    assert caught.value.problems[0].where == f"column {column}"


def test_an_error_shows_the_place():
    with pytest.raises(DagStringError) as caught:
        parse("A|GENERAL|RUN_PAYLOAD|a.py||high|0|[]")

    first, second, third = str(caught.value).splitlines()
    assert first.startswith("dag:1:29: error[D100] the priority is 0 to 10")
    assert second.index("high") == third.index("^^^^")


def test_a_string_that_is_too_long_names_its_limit():
    with pytest.raises(InvalidSpec, match=r"DAG_STRING_BYTES \(16,777,216\)"):
        parse("A" * (DAG_STRING_BYTES + 1))


@given(st.text(alphabet="AB|;[],\\ 50\nRUN_PAYLOAD", max_size=60))
def test_any_text_is_jobs_or_an_error_with_a_place(text):
    column, jobs = 1, ()
    try:
        jobs = parse(text)
    except DagStringError as error:
        column = error.column

    assert 1 <= column <= len(text) + 1
    assert all(job.id and (job.file or job.handler) for job in jobs)


@given(st.text(max_size=30))
def test_any_argument_can_be_written(argument):
    written = "".join(f"\\{char}" if char in "\\|;[], \t\r\n" else char for char in argument)
    written = written.replace("\\\n", "\\n").replace("\\\t", "\\t")
    (job,) = parse(f"A|GENERAL|PDF_CONVERT|{written}|1|0|[]")

    assert job.args == (argument,)


def test_what_a_string_carries_is_sent_as_files_of_that_name(client, master):
    other = base64.b64encode(b"print('other')").decode()
    text = f"A|GENERAL|RUN_PAYLOAD|a.py|{HELLO}|5|0|[] ; B|GENERAL|RUN_PAYLOAD|a.py|{other}|5|9|[A]"

    client.submit_dag(text, name="two")

    (sent,) = master.of(SubmitRun)
    first, second = sent.spec.jobs
    assert (first.launch.script, second.launch.script) == ("a.py", "a.py")
    assert first.launch.artifact != second.launch.artifact
    assert (second.dependencies, second.delay_ms, sent.spec.name) == (("A",), 9, "two")


def test_a_handler_and_a_service_are_sent_as_such(client, master):
    text = (
        f"H|GENERAL|PDF_CONVERT|x|1|0|[] ; S|GENERAL|DEPLOY_PAYLOAD|s.py|{HELLO}|auto|GPU|1|0|[H]"
    )

    client.submit_dag(text)

    (sent,) = master.of(SubmitRun)
    handler, service = sent.spec.jobs
    assert (handler.launch.kind, handler.launch.handler) == (LaunchKind.HANDLER, "PDF_CONVERT")
    assert handler.needs.skills == ("PDF_CONVERT",)
    assert service.kind is JobKind.SERVICE
    assert service.service.port_auto
    assert service.needs.skills == ("GPU",)
