import pytest

from compliance.document import MAX_CHARACTERS, MAX_DEPTH, DocumentError, load


def test_values_are_read_as_yaml_1_2_reads_them():
    text = """
    number: 2e+05
    fraction: -.5
    whole: -0012
    text: "12"
    time: 2026-01-01T00:00:00+08:00
    answer: no
    clock: 12:30
    yes: true
    list: [1, {}]
    """
    assert load(text) == {
        "number": 200000.0,
        "fraction": -0.5,
        "whole": -12,
        "text": "12",
        "time": "2026-01-01T00:00:00+08:00",
        "answer": "no",
        "clock": "12:30",
        "yes": True,
        "list": [1, {}],
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: a is given twice"),
        ("a: {b: 1, b: 1}", "b is given twice"),
        ("a: &x [1]\nb: *x", "anchors and aliases"),
        ("a: *x", "anchors and aliases"),
        ("a: !!python/name:os.system x", "tags"),
        ("a: !!binary aGk=", "tags"),
        ("a:\nb: 1", "a value is missing"),
        ("a: ~", "a value is missing"),
        ("1: a", "must be text"),
        ("? [a]\n: 1", "must be text"),
        ("a: 1e999", "too large"),
        ("a: 1\n---\nb: 2", "another document"),
        ("a: [1", "line 1"),
        ("a: \x00", "character"),
        ("- a", "not a mapping"),
        ("", "not a mapping"),
        ("a: " + "[" * MAX_DEPTH, "nested deeper"),
        ("#" * (MAX_CHARACTERS + 1), "longer than"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(text, problem):
    with pytest.raises(DocumentError, match=problem):
        load(text)


def test_a_reused_name_is_refused_at_any_depth_but_not_across_branches():
    assert load("a: {n: 1}\nb: {n: 1}") == {"a": {"n": 1}, "b": {"n": 1}}
