"""The language of `when`: what is taken, what comes of it, and that nothing else ever happens."""

from __future__ import annotations

import operator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from titan_proto.conditions import BadCondition, Undecidable, holds, names, parse
from titan_proto.limits import WHEN_CHARS, WHEN_DEPTH

VALUES = {
    "jobs.A.outputs.rows": "12",
    "jobs.A.outputs.day": "2026-11-26",
    "jobs.A.outputs.ok": "true",
    "jobs.A.outputs.no": "false",
    "jobs.A.outputs.word": "alpha",
    "jobs.a-b.1.outputs.x_1": "1.0",
    "jobs.A.state": "SUCCEEDED",
    "params.env": "prod",
    "matrix.size": "3",
}


def read(name):
    if str(name) not in VALUES:
        raise Undecidable(f"{name} is not there")
    return VALUES[str(name)]


def decide(text):
    return holds(parse(text), read)


@pytest.mark.parametrize(
    ("text", "comes_to"),
    [
        ("jobs.A.outputs.rows > 0", True),
        ("jobs.A.outputs.rows >= 12.0 and jobs.A.outputs.rows <= 12", True),
        ("jobs.A.outputs.rows < 9", False),
        ("'12' < '9'", False),
        ("jobs.A.outputs.rows == '12'", True),
        ("jobs.A.outputs.rows == '12.0'", False),
        ("jobs.A.outputs.rows == 12.0", True),
        ("jobs.A.outputs.word == 12", False),
        ("jobs.A.outputs.word != 12", True),
        ("jobs.A.outputs.day >= '2026-01-01' and jobs.A.outputs.day < '2027-01-01'", True),
        ("jobs.a-b.1.outputs.x_1==1", True),
        ("jobs.A.outputs.ok", True),
        ("not jobs.A.outputs.ok", False),
        ("jobs.A.outputs.no or jobs.A.outputs.ok", True),
        ("jobs.A.outputs.ok == true", True),
        ("jobs.A.outputs.rows == true", False),
        ("jobs.A.state == 'SUCCEEDED'", True),
        ("jobs.A.state in ['FAILED', 'SKIPPED']", False),
        ("jobs.A.state not in ['FAILED', \"SKIPPED\",]", True),
        ("matrix.size in [1, 2, 3]", True),
        ("params.env in 'production'", True),
        ("'x' in params.env", False),
        ("params.env not in []", True),
        ("true", True),
        ("not (false or false)", True),
        ("false and false or true", True),
        ("true or false and false", True),
        ("not false and false", False),
        ("(((jobs.A.outputs.rows > -1)))", True),
        ("jobs.A.state != 'SUCCEEDED' and jobs.B.outputs.x > 1", False),
        ("jobs.A.state == 'SUCCEEDED' or jobs.B.outputs.x > 1", True),
        ("  params.env\n == 'prod'  ", True),
    ],
)
def test_what_comes_of_a_condition(text, comes_to):
    assert decide(text) is comes_to


@pytest.mark.parametrize(
    ("text", "at", "said"),
    [
        ("", 0, "missing"),
        ("jobs.A.outputs.rows >", 21, "missing"),
        ("jobs.A.outputs.rows = 1", 20, "means nothing"),
        ("jobs.A.outputs.rows > 1 && true", 24, "means nothing"),
        ("jobs.A.outputs", 0, "no value"),
        ("jobs.A.outputs.rows.x > 1", 0, "no value"),
        ("prod == params.env", 0, "no value"),
        ("params.env == prod", 14, "no value"),
        ("1 < matrix.size < 3", 16, "two comparisons"),
        ("(1 < 2) < 3", 3, "compared here"),
        ("(1 < 2", 0, "not closed"),
        ("1 < 2)", 5, "does not go on"),
        ("'abc", 0, "not closed"),
        ("matrix.size in [1, 2", 15, "not closed"),
        ("matrix.size in [1 2]", 18, "comma"),
        ("matrix.size in [params.env]", 16, "cannot stand in a list"),
        ("matrix.size in 3", 15, "nothing in it"),
        ("matrix.size == [3]", 15, "compared by =="),
        ("[3] == matrix.size", 0, "on the left"),
        ("params.env", None, ""),
        ("'prod'", 0, "no condition"),
        ("1 and true", 0, "no condition"),
        ("true and 1", 9, "no condition"),
        ("not 'x'", 4, "no condition"),
        ("jobs.A.state", 0, "no condition"),
        ("jobs.A.state == 'SUCCESS'", 16, "no state"),
        ("jobs.A.state in ['FAILED', 1]", 16, "no state"),
        ("${{ params.env }} == 'a'", 0, "without"),
        ("params.env not == 'a'", 11, "between two values"),
        ("__import__('os')", 0, "no value"),
        ("True", 0, "no value"),
        ("x" * (WHEN_CHARS + 1), 0, "WHEN_CHARS"),
        ("(" * (WHEN_DEPTH + 1) + "true" + ")" * (WHEN_DEPTH + 1), WHEN_DEPTH, "WHEN_DEPTH"),
        ("not " * (WHEN_DEPTH + 1) + "true", 4 * WHEN_DEPTH, "WHEN_DEPTH"),
    ],
)
def test_what_is_no_condition_is_told_with_its_place(text, at, said):
    if at is None:
        parse(text)  # it may be true or false: that is known when it is read
        return
    with pytest.raises(BadCondition) as caught:
        parse(text)
    assert (caught.value.at, said in caught.value.message) == (at, True), caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("jobs.B.outputs.x > 1", "jobs.B.outputs.x is not there"),
        ("jobs.A.outputs.word > 1", "jobs.A.outputs.word is 'alpha', which is no number"),
        ("1 <= jobs.A.outputs.word", "jobs.A.outputs.word is 'alpha', which is no number"),
        ("jobs.A.outputs.word", "neither true nor false"),
        ("not params.env", "params.env is 'prod', which is neither"),
    ],
)
def test_what_cannot_be_decided_says_so(text, said):
    with pytest.raises(Undecidable, match=said):
        decide(text)


def test_as_deep_as_allowed_is_taken_and_a_long_chain_is_not_deep():
    assert decide("(" * WHEN_DEPTH + "true" + ")" * WHEN_DEPTH)
    assert not decide(" or ".join(["false"] * 100))


def test_names_are_told_in_their_order_with_their_places():
    found = names(parse("params.a == 1 and (jobs.A.state == 'FAILED' or not jobs.B.outputs.c)"))
    assert [(name.at, str(name)) for name in found] == [
        (0, "params.a"),
        (19, "jobs.A.state"),
        (51, "jobs.B.outputs.c"),
    ]


# -- properties -----------------------------------------------------------------------------------
PIECES = st.sampled_from(
    [
        *VALUES, "and", "or", "not", "in", "true", "false", "==", "!=", "<", ">=", "(", ")", "[", "]",
        ",", "'a'", '"b"', "1", "-2.5", "x", "${{", "=", "jobs.", "__class__", "\0", "'", "é",
    ]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=25).map(" ".join)))
@example("not" * 300)
@example("(" * 900)
@example("[" * 900)
def test_any_text_is_a_condition_or_refused_and_a_condition_is_decided_or_not(text):
    """Nothing else is ever raised."""
    at, said = outcome(text)
    assert 0 <= at <= len(text)
    assert said in (True, False) or said.isprintable()


def outcome(text):
    try:
        return 0, decide(text)
    except BadCondition as error:
        return error.at, error.message
    except Undecidable as error:
        return 0, str(error)


OPERATORS = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
    ">=": operator.ge,
}  # fmt: skip


@st.composite
def whole(draw, depth=4):
    """A condition as text, and what Python makes of it."""
    kind = draw(
        st.sampled_from(
            ["number", "text", "in"]
            if not depth
            else ["and", "or", "not"] * 2 + ["number", "text", "in"]
        )
    )
    if kind == "not":
        text, value = draw(whole(depth=depth - 1))
        return f"not ({text})", not value
    if kind in ("and", "or"):
        parts = draw(st.lists(whole(depth=depth - 1), min_size=2, max_size=3))
        values = [value for _, value in parts]
        joined = f" {kind} ".join(f"({text})" for text, _ in parts)
        return joined, all(values) if kind == "and" else any(values)
    if kind == "in":
        items = draw(st.lists(st.integers(0, 5), max_size=4))
        item = draw(st.integers(0, 5))
        return f"{item} in {items}", item in items
    op = draw(st.sampled_from(list(OPERATORS)))
    of = st.integers(-99, 99) if kind == "number" else st.text("abc ", max_size=3)
    left, right = draw(of), draw(of)
    shown = (left, right) if kind == "number" else (f"'{left}'", f'"{right}"')
    return f"{shown[0]} {op} {shown[1]}", OPERATORS[op](left, right)


@settings(max_examples=200, deadline=None)
@given(whole())
def test_a_condition_comes_to_what_python_would_make_of_it(found):
    text, value = found
    if len(text) <= WHEN_CHARS:
        assert decide(text) is value
