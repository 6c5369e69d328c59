import json
import struct
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.canonical import MAX_BYTES, canonical, from_base64, parse, timestamp, to_base64
from compliance.errors import DocumentTooLarge, NotCanonical

# RFC 8785, appendix B: IEEE 754 bits and the number's one spelling.
NUMBERS = {
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "41b3de4355555556": "333333333.3333334",
    "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}


@pytest.mark.parametrize(("bits", "spelling"), NUMBERS.items())
def test_numbers_of_rfc_8785(bits, spelling):
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical(number) == spelling.encode()
    assert parse(spelling.encode()) == number


def test_example_of_rfc_8785_section_3_2_2():
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    assert (
        canonical(value)
        == (
            '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
            '"string":"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
        ).encode()
    )


def test_names_are_sorted_by_utf_16_as_in_rfc_8785_section_3_2_3():
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    data = canonical(dict.fromkeys(names, 0))
    in_order = ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    assert list(json.loads(data)) == in_order


@pytest.mark.parametrize("value", [2**53 - 1, -(2**53) + 1])
def test_integers_a_double_can_hold_stay_numbers(value):
    assert parse(canonical(value)) == value


@pytest.mark.parametrize("value", [2**53, -(2**53), 2**64, -(10**40)])
def test_larger_integers_become_decimal_strings(value):
    assert parse(canonical({"n": [value, 1, "x", 0.5]})) == {"n": [str(value), 1, "x", 0.5]}


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), "\ud800", {1: "a"}, {"a": b"bytes"}, {"a": {1, 2}}]
)
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(ValueError):
        canonical(value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" {}",
        b"{}\n",
        b'{"a": 1}',
        b'{"b":1,"a":1}',
        b'{"a":1,"a":1}',
        b'{"a":1,"a":2}',
        b"1.0",
        b"-0",
        b"1E2",
        b"1e2",
        b"01",
        b"9007199254740993",
        b"1e400",
        b"NaN",
        b"[Infinity]",
        b'"\\u0041"',
        b'"\\/"',
        b'"\\ud800"',
        b'"\xff"',
        b"\xef\xbb\xbf{}",
        b'{"a":1',
        b"[1,]",
        b"[" * 100_000,
        b"9" * 400,  # beyond the largest double
        b"9" * 100_000,
    ],
)
def test_other_forms_are_not_canonical(data):
    with pytest.raises(NotCanonical):
        parse(data)


def test_documents_are_bounded_both_ways():
    largest = "a" * (MAX_BYTES - 2)
    assert parse(canonical(largest)) == largest
    with pytest.raises(DocumentTooLarge):
        canonical(largest + "a")
    with pytest.raises(NotCanonical):
        parse(b'"%b"' % (largest + "a").encode())


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_what_is_written_is_read_back(value):
    assert parse(canonical(value)) == value


@given(st.binary() | st.text(alphabet='{}[]",:.-+eE0123456789aInNtf\\u ').map(str.encode))
def test_garbage_is_refused_or_canonical(data):
    try:
        value = parse(data)
    except NotCanonical:
        return
    assert canonical(value) == data


@given(st.binary())
def test_base64_has_one_form(data):
    text = to_base64(data)
    assert from_base64(text) == data
    for other in (text + "=", text + "\n", text.rstrip("=") + "====", " " + text):
        with pytest.raises(ValueError):
            from_base64(other)


@pytest.mark.parametrize("text", ["QQ", "QR==", "Q_8=", "é", "=", "QQ==QQ=="])
def test_other_base64_is_refused(text):
    with pytest.raises(ValueError):
        from_base64(text)


def test_times_are_utc_and_whole_seconds():
    beijing = timezone(timedelta(hours=8))
    assert timestamp(datetime(2026, 1, 31, 16, 0, 0, 999_999, beijing)) == "2026-01-31T08:00:00Z"
    assert timestamp(datetime(2026, 1, 31, 8, tzinfo=UTC)) == "2026-01-31T08:00:00Z"
    with pytest.raises(ValueError, match="time zone"):
        timestamp(datetime(2026, 1, 31))
