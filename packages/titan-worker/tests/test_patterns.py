"""Patterns name what people expect of them, and nothing outside."""

import pytest

from titan_worker.patterns import is_match, is_plain, top


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("a.csv", ["a.csv"], ["b.csv", "d/a.csv", "a.csvx", "axcsv"]),
        ("*.csv", ["a.csv", ".csv"], ["d/a.csv", "a.csv.gz"]),
        ("data/*.csv", ["data/a.csv"], ["a.csv", "data/d/a.csv"]),
        ("clean/**", ["clean/a", "clean/a/b"], ["clean", "unclean/a"]),
        ("**/a.txt", ["a.txt", "x/a.txt", "x/y/a.txt"], ["xa.txt", "a.txt2"]),
        ("x/**/a", ["x/a", "x/y/a", "x/y/z/a"], ["a", "xa"]),
        ("out", ["out", "out/a", "out/b/c"], ["output", "in/out"]),
        ("out/", ["out/a"], ["output/a"]),
        ("part-?", ["part-1"], ["part-10", "part-/"]),
        ("part-[0-2]", ["part-0", "part-2"], ["part-3"]),
        ("part-[!0-2]", ["part-3"], ["part-0", "part-/"]),
        ("a[", ["a["], ["a"]),
        ("a+b(c)", ["a+b(c)"], ["aab(c)"]),
        ("line\nbreak*", ["line\nbreak\n"], ["line"]),
        ("[]]", ["]"], ["["]),
    ],
)
def test_what_a_pattern_names(pattern, yes, no):
    assert [path for path in yes if not is_match(path, pattern)] == []
    assert [path for path in no if is_match(path, pattern)] == []


@pytest.mark.parametrize(
    ("pattern", "folder"),
    [("a", ""), ("d/a", "d"), ("d/*", "d"), ("d/*/x", "d"), ("**", ""), ("d/e/f?", "d/e")],
)
def test_only_the_folder_above_the_first_wildcard_is_searched(pattern, folder):
    assert top(pattern) == folder


def test_what_has_no_wildcard_is_plain():
    assert is_plain("a/b.c")
    assert not any(map(is_plain, ("a*", "a?", "[a]")))
