"""Plain entries: what the kernels read or write is what the full check and the library would."""

from enum import IntEnum

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from compliance import merkle
from compliance.batch import joined, joined_bytes, lines
from compliance.canonical import canonical, parse
from compliance.errors import NotCanonical
from federated import _native

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
BODIES = st.dictionaries(st.sampled_from(["a", "run", "subtree", "é", "z"]) | st.text(), JSON)


def plain(leaves, types, runs, **options):
    return _native.plain_entries(
        *joined_bytes(leaves),
        [("type", *joined(types)), ("run", *joined(runs))],
        "subtree",
        **options,
    ).tolist()


def truly(leaf, type_, run):
    try:
        body = parse(leaf)
    except NotCanonical:
        return False
    agrees = isinstance(body, dict) and body.get("type") == type_ and body.get("run", "") == run
    return agrees and "subtree" not in body


@given(BODIES, st.sampled_from(["test", "other", ""]), st.sampled_from(["", "r1"]))
def test_yes_is_always_true(body, type_, run):
    leaf = canonical(body | {"type": "test"} | ({"run": run} if run else {}))
    (found,) = plain([leaf], [type_], [run])
    assert not found or truly(leaf, type_, run)


@given(BODIES, st.data())
@example({"n": 10}, None)
def test_a_changed_byte_is_not_plain_unless_it_is_canonical_all_the_same(body, data):
    leaf = bytearray(canonical(body | {"type": "test", "run": "r1"}))
    if data is not None:
        at = data.draw(st.integers(0, len(leaf) - 1))
        leaf[at] = data.draw(st.integers(0, 255))
    (found,) = plain([bytes(leaf)], ["test"], ["r1"])
    assert not found or truly(bytes(leaf), "test", "r1")


def test_the_entries_the_program_writes_are_plain():
    bodies = [
        {"type": "test", "n": 5, "of": ["a", "b"], "text": "王", "by": {"x": None, "y": True}},
        {"type": "test", "run": "r1", "n": -(10**14), "zero": 0, "empty": {}, "none": []},
    ]
    assert plain([*map(canonical, bodies)], ["test", "test"], ["", "r1"]) == [True, True]


@pytest.mark.parametrize(
    "leaf",
    [
        b"",
        b"{}",
        b"[]",
        b'{"type":"test"',
        b'{"type":"test"} ',
        b' {"type":"test"}',
        b'{"type": "test"}',
        b'{"type":"test","a":1}',
        b'{"a":1,"a":1,"type":"test"}',
        b'{"a":01,"type":"test"}',
        b'{"a":-0,"type":"test"}',
        b'{"a":1.0,"type":"test"}',
        b'{"a":1e5,"type":"test"}',
        b'{"a":1234567890123456,"type":"test"}',
        b'{"a":NaN,"type":"test"}',
        b'{"a":"\\u0041","type":"test"}',
        b'{"a":"\n","type":"test"}',
        b'{"a":"\xff","type":"test"}',
        b'{"a":"\xed\xa0\x80","type":"test"}',
        b'{"a":tru,"type":"test"}',
        b'{"a":[1,],"type":"test"}',
        b'{"a":1,"type":"test",}',
        b'{"subtree":1,"type":"test"}',
        b'{"type":"tes"}',
        b'{"type":"testing"}',
        b'{"type":5}',
        b'{"run":"r1","type":"test"}',
        b'{"a":' + b"[" * 17 + b"]" * 17 + b',"type":"test"}',
        b'{"a":' + b"[" * 100_000,
    ],
)
def test_what_is_not_plain(leaf):
    assert plain([leaf], ["test"], [""]) == [False]


def test_lines_as_one_text():
    leaves = [canonical({"type": kind, "run": "r1"}) for kind in "ab"]
    columns = [("type", *lines(b"a\nb")), ("run", *lines(b"r1\nr1"))]
    assert _native.plain_entries(*lines(b"\n".join(leaves)), columns, "subtree", 1).all()
    assert (
        _native.leaf_hashes(*lines(b"\n".join(leaves)), 1)
        == _native.leaf_hashes(*joined_bytes(leaves))
    ).all()


def test_columns_of_another_length_are_refused():
    with pytest.raises(ValueError, match="1 values for 2"):
        plain([b"{}", b"{}"], ["test"], ["", ""])
    data, offsets = np.zeros(4, np.uint8), np.array([0, 0, 4], np.uint64)
    with pytest.raises(ValueError, match="gap"):
        _native.leaf_hashes(data, offsets, 1)


@given(BODIES, BODIES)
@example({"n": 10**15 - 1}, {"n": 1 - 10**15})
@example({"\U0001f600": 1, "\uffff": 2}, {})
def test_what_is_written_is_what_the_library_writes(first, second):
    bodies = [first, second]
    leaves, hashes = _native.written_entries(bodies, ["a", "b"], "now", "0123")
    added = ({"type": "a", "nonce": "01"}, {"type": "b", "nonce": "23"})
    for body, more, leaf, digest in zip(bodies, added, leaves, hashes, strict=True):
        assert leaf in {None, canonical(body | more | {"time": "now"})}
        assert bytes(digest) == (bytes(32) if leaf is None else merkle.leaf_hash(leaf))


def test_the_entries_of_the_program_are_written():
    bodies = [
        {"n": 5, "of": ["a", "b"], "text": "王", "by": {"x": None, "y": True}},
        {
            "run": "r1",
            "n": -(10**14),
            "zero": 0,
            "empty": {},
            "none": (),
            "f": False,
        },
        {},
    ]
    leaves, _ = _native.written_entries(bodies, ["test"] * 3, "now", "001122")
    assert leaves == [
        canonical(body | {"type": "test", "time": "now", "nonce": nonce})
        for body, nonce in zip(bodies, ("00", "11", "22"), strict=True)
    ]
    assert _native.written_entries([], [], "now", "")[0] == []


@pytest.mark.parametrize(("kinds", "nonces"), [([], "00"), (["a"], "0é"), (["a", "b"], "00")])
def test_an_entry_has_one_kind_and_one_nonce(kinds, nonces):
    with pytest.raises(ValueError, match="one kind and one nonce"):
        _native.written_entries([{}], kinds, "now", nonces)


class Level(IntEnum):
    LOW = 1


class Text(str):
    pass


@pytest.mark.parametrize(
    "body",
    [
        {"a": 10**15},
        {"a": -(10**15)},
        {"a": 10**30},
        {"a": 1.0},
        {"a": "\n"},
        {"a": '"'},
        {"a": "\\"},
        {"a": "\ud800"},
        {"é": 1},
        {'"': 1},
        {1: 1},
        {"a": b"bytes"},
        {"a": {1, 2}},
        {"a": Level.LOW},
        {"a": Text("a")},
        {Text("a"): 1},
        {"a": [[[[[[[[[[[[[[[[[0]]]]]]]]]]]]]]]]]},
        {"type": "other"},
        {"time": "then"},
        {"nonce": "01"},
        [],
    ],
)
def test_what_is_not_plainly_written(body):
    leaves, hashes = _native.written_entries([body], ["test"], "now", "00")
    assert (leaves, hashes.tolist()) == ([None], [[0] * 32])


@pytest.mark.parametrize(("size", "peaks"), [(0, 1), (1, 0), (3, 1), (4, 2)])
def test_a_tree_of_other_peaks_than_its_size_has_is_refused(size, peaks):
    with pytest.raises(ValueError, match="peaks for"):
        _native.grown_tree(size, np.zeros((peaks, 32), np.uint8), np.zeros((1, 32), np.uint8))
