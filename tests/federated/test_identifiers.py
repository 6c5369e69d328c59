import numpy as np
import pandas as pd
import phonenumbers
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.errors import UnknownKind, UnknownRegion
from federated.identifiers import Ids, Normalised, Reason, normalise


def one(value: str | None, kind: str, region: str = "CN") -> str | None:
    """The id, or the reason why there is none."""
    result = normalise(pa.array([value], pa.string()), kind, region=region)
    return result.ids[0].as_py() or Reason(result.reasons[0].as_py())


def by_phonenumbers(text: str, region: str = "CN") -> str | None:
    """What phonenumbers alone says of one number."""
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def is_partition(result: Normalised) -> bool:
    ids, reasons = result.ids.to_pylist(), result.reasons.to_pylist()
    return all((i is None) != (r is None) for i, r in zip(ids, reasons, strict=True))


# Phones


@pytest.mark.parametrize(
    "written",
    [
        "13912345678",
        " 139 1234 5678 ",
        "139-1234-5678",
        "139.1234.5678",
        "(139) 1234-5678",
        "[139]12345678",
        "+8613912345678",
        "+86 139 1234 5678",
        "(+86)139-1234-5678",
        "+86(0)139 1234 5678",
        "008613912345678",
        "0086 139 1234 5678",
        "8613912345678",
        "013912345678",
        "１３９１２３４５６７８",
        "＋８６（１３９）１２３４－５６７８",
        "139–1234—5678",
        "139\u00a01234\u30005678",
        "\u202a+86 139\u200b1234 5678\u202c",
        "\ufeff13912345678\t",
    ],
)
def test_every_spelling_of_a_mobile_number_is_one_id(written):
    assert one(written, "phone") == "+8613912345678"


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (None, Reason.EMPTY),
        ("", Reason.EMPTY),
        (" \u3000\u200b", Reason.EMPTY),
        ("N/A", Reason.NOT_A_PHONE),
        ("-", Reason.NOT_A_PHONE),
        ("1391234567x", Reason.NOT_A_PHONE),
        ("13912345678x", Reason.NOT_A_PHONE),
        ("13912345678 ext. 2", Reason.NOT_A_PHONE),
        ("13912345678#2", Reason.NOT_A_PHONE),
        ("1-800-FLOWERS", Reason.NOT_A_PHONE),
        ("+1 415", Reason.TOO_SHORT),
        ("12345", Reason.TOO_SHORT),
        ("13912345678/13812345678", Reason.TOO_LONG),
        ("1" * 100_000, Reason.TOO_LONG),
        ("+999 12345678", Reason.UNKNOWN_COUNTRY),
        ("11012345678", Reason.NOT_IN_USE),
        ("14012345678", Reason.NOT_IN_USE),
        ("1.39123E+10", Reason.NOT_A_PHONE),
    ],
)
def test_what_is_no_phone_number_has_a_reason(written, reason):
    assert one(written, "phone") == reason


def test_other_numbers_go_by_their_country_or_the_region():
    assert one("010-6234 5678", "phone") == "+861062345678"
    assert one("+1 650 253 0000", "phone") == "+16502530000"
    assert one("(650) 253-0000", "phone", "US") == "+16502530000"
    assert one("+86 139 1234 5678", "phone", "US") == "+8613912345678"
    assert one("13912345678", "phone", "US") != "+8613912345678"
    assert one("+39 06 698 12345", "phone") == "+390669812345"


def test_every_prefix_agrees_with_phonenumbers():
    """All numbers 1xxxx......, in each of the ways the vectorised path reads."""
    random = np.random.default_rng(7)
    numbers = [f"{prefix}{random.integers(10**6):06}" for prefix in range(10_000, 20_000)]
    forms = ["{}", "+86{}", "0086 {}", "86-{}"]
    written = [forms[i % 4].format(number) for i, number in enumerate(numbers)]
    ids = normalise(pd.Series(written), "phone").ids.to_pylist()
    assert ids == [by_phonenumbers(text) for text in written]
    assert sum(id is not None for id in ids) > 5000


@pytest.mark.parametrize("tail", ["000000", "999999"])
@pytest.mark.parametrize("length", [-1, 0, 1])
def test_lengths_and_edges_agree_with_phonenumbers(tail, length):
    written = [(f"{p}{tail}" + "0")[: 11 + length] for p in range(10_000, 20_000, 7)]
    ids = normalise(pd.Series(written), "phone").ids.to_pylist()
    assert ids == [by_phonenumbers(text) for text in written]


PIECES = st.sampled_from(["+", "+86", "0086", "86", "0", "1", "13", "139", " ", "-", ".", "(", ")"])


@given(st.lists(PIECES | st.text("0123456789 -.()[]", max_size=12), max_size=6).map("".join))
def test_what_people_might_write_agrees_with_phonenumbers(written):
    result = normalise(pa.array([written]), "phone")
    assert result.ids[0].as_py() == by_phonenumbers(written)
    assert is_partition(result)


@given(st.lists(st.none() | st.text(max_size=30)), st.sampled_from(["CN", "HK", "US"]))
def test_any_text_is_an_id_or_has_a_reason_and_an_id_stays_itself(values, region):
    for kind in ("phone", "resident_id", "company_code", "email"):
        result = normalise(pa.array(values, pa.string()), kind, region=region)
        assert len(result.ids) == len(values)
        assert is_partition(result)
        assert {r for r in result.reasons.to_pylist() if r} <= set(Reason)
        again = normalise(result.ids.drop_null(), kind, region="GB").ids
        assert again.to_pylist() == result.ids.drop_null().to_pylist()


def test_rows_keep_their_place():
    values = ["010-62345678", "x", "13912345678", None, "14012345678", "+1 650 253 0000", "x"]
    result = normalise(pa.chunked_array([values[:3], values[3:]]), "phone")
    assert result.ids.to_pylist() == [
        "+861062345678", None, "+8613912345678", None, None, "+16502530000", None,
    ]  # fmt: skip
    assert result.reasons.to_pylist() == [
        None, Reason.NOT_A_PHONE, None, Reason.EMPTY, Reason.NOT_IN_USE, None, Reason.NOT_A_PHONE,
    ]  # fmt: skip


def test_no_rows():
    for kind in ("phone", "resident_id", "company_code", "email"):
        assert len(normalise(pa.array([], pa.string()), kind).ids) == 0


def test_unknown_kind_and_region():
    with pytest.raises(UnknownKind):
        normalise(pa.array(["x"]), "passport")
    with pytest.raises(UnknownRegion):
        normalise(pa.array(["x"]), "phone", region="cn")


# Resident identity numbers

# The two examples of GB 11643-1999.
STANDARD = ["11010519491231002X", "440524188001010014"]


@pytest.mark.parametrize("number", STANDARD)
def test_the_standards_own_resident_ids(number):
    assert one(number, "resident_id") == number
    assert one(f" {number[:6]} {number[6:14]}-{number[14:].lower()}", "resident_id") == number
    full_width = "".join(chr(ord(character) + 0xFEE0) for character in number)
    assert one(full_width, "resident_id") == number


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("", Reason.EMPTY),
        ("110105491231002", Reason.FIFTEEN_DIGITS),
        ("11010549123100", Reason.WRONG_LENGTH),
        ("11010519491231002Y", Reason.WRONG_CHARACTER),
        ("1101051949123100X2", Reason.WRONG_CHARACTER),
        ("11010519491231002٣", Reason.WRONG_CHARACTER),
        ("110105194912310020", Reason.CHECK_DIGIT),
        ("110105194913310021", Reason.BIRTH_DATE),
    ],
)
def test_what_is_no_resident_id_has_a_reason(written, reason):
    assert one(written, "resident_id") == reason


def resident_id(first: str) -> str:
    """GB 11643, 4.2.5 by its table of weights."""
    weights = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2]
    total = sum(int(digit) * weight for digit, weight in zip(first, weights, strict=True))
    return first + "10X98765432"[total % 11]


@given(st.integers(110000, 829999), st.dates(), st.integers(0, 999), st.data())
def test_a_wrong_digit_is_always_found(place, birth, order, data):
    number = resident_id(f"{place}{birth:%Y%m%d}".rjust(14, "0")[:14] + f"{order:03}")
    if birth.year >= 1000:
        assert one(number, "resident_id") == number
        at = data.draw(st.integers(0, 16))
        digit = data.draw(st.sampled_from("0123456789").filter(lambda d: d != number[at]))
        wrong = number[:at] + digit + number[at + 1 :]
        assert one(wrong, "resident_id") == Reason.CHECK_DIGIT


# Company codes

ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"


def company_code(first: str) -> str:
    """GB 32100-2015, 5.3: weights are powers of 3 modulo 31."""
    total = sum(ALPHABET.index(c) * pow(3, i, 31) for i, c in enumerate(first))
    return first + ALPHABET[-total % 31]


def test_company_codes():
    standard = "91350100M000100Y43"  # the example of GB 32100-2015
    assert one(standard, "company_code") == standard
    assert one("9135 0100-M000100y43", "company_code") == standard
    assert one("91350100M000100Y44", "company_code") == Reason.CHECK_DIGIT
    assert one("91350100M000100I43", "company_code") == Reason.WRONG_CHARACTER
    assert one("9135010OM000100Y43", "company_code") == Reason.WRONG_CHARACTER
    assert one("91350100M000100Y4", "company_code") == Reason.WRONG_LENGTH
    village = company_code("N2440101MF1234567")
    assert one(village, "company_code") == village


@given(
    st.sampled_from("159Y"),
    st.integers(0, 10**7 - 1),
    st.text(ALPHABET, min_size=9, max_size=9),
    st.integers(8, 16),
    st.sampled_from(ALPHABET),
)
def test_company_check_characters(department, place, body, at, other):
    code = company_code(f"{department}{place:07}{body}")
    assert one(code.lower(), "company_code") == code
    wrong = code[:at] + other + code[at + 1 :]
    assert one(wrong, "company_code") == (code if other == code[at] else Reason.CHECK_DIGIT)


# Email


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        (" Li.Wei+shop@Example.COM ", "li.wei+shop@example.com"),
        ("o'neil@a-b.co.uk", "o'neil@a-b.co.uk"),
        ("x@Bücher.example", "x@xn--bcher-kva.example"),
        ("x@例子.测试", "x@xn--fsqu00a.xn--0zwm56d"),
        ("ｘ＠ｅｘａｍｐｌｅ．com", "x@example.com"),
        ("a" * 64 + "@example.com", "a" * 64 + "@example.com"),
    ],
)
def test_emails(written, canonical):
    assert one(written, "email") == canonical


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("", Reason.EMPTY),
        ("N/A", Reason.NOT_AN_EMAIL),
        ("a@b", Reason.NOT_AN_EMAIL),
        ("@example.com", Reason.NOT_AN_EMAIL),
        ("a@@example.com", Reason.NOT_AN_EMAIL),
        ("a b@example.com", Reason.NOT_AN_EMAIL),
        (".a@example.com", Reason.NOT_AN_EMAIL),
        ("a..b@example.com", Reason.NOT_AN_EMAIL),
        ("a@-x.com", Reason.NOT_AN_EMAIL),
        ("a@x.com, b@x.com", Reason.NOT_AN_EMAIL),
        ("a@192.168.0.1", Reason.NOT_AN_EMAIL),
        ("a@ü..com", Reason.NOT_AN_EMAIL),
        ("é@example.com", Reason.NOT_AN_EMAIL),
        ("a" * 65 + "@example.com", Reason.TOO_LONG),
        ("a@" + "b" * 60 + ".c" * 100 + ".com", Reason.TOO_LONG),
        ("a" * 100_000, Reason.TOO_LONG),
        ("a@" + "ü" * 100_000, Reason.TOO_LONG),
    ],
)
def test_what_is_no_email_has_a_reason(written, reason):
    assert one(written, "email") == reason


# Many ids

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))


@given(TEXTS, st.integers(0, 5), st.integers(0, 5))
def test_ids_hold_the_strings_of_any_array(texts, skip, drop):
    chosen = texts[skip : max(len(texts) - drop, skip)]
    array = pa.array(texts, pa.large_string())[skip : skip + len(chosen)]
    arrays = [array, array.cast(pa.string()), pa.chunked_array([array[:1], array[1:]])]
    for strings in [*arrays, pd.Series(chosen, dtype=object), pd.Series(chosen, dtype="string")]:
        ids = Ids.from_strings("email", strings)
        assert len(ids) == len(chosen)
        assert ids.to_strings().to_pylist() == chosen
        assert ids.data.dtype == np.uint8
        assert ids.offsets.dtype == np.uint64
        assert ids.data.tobytes() == "".join(chosen).encode()
        assert ids.offsets.tolist() == [
            len("".join(chosen[:i]).encode()) for i in range(len(chosen) + 1)
        ]


@given(TEXTS.filter(bool), st.data())
def test_take_chooses_rows(texts, data):
    rows = data.draw(st.lists(st.integers(0, len(texts) - 1)))
    ids = Ids.from_strings("phone", pa.array(texts)).take(np.array(rows, np.int64))
    assert ids.to_strings().to_pylist() == [texts[row] for row in rows]
    assert ids.offsets[0] == 0


def test_a_missing_id_is_refused():
    with pytest.raises(ValueError, match="missing"):
        Ids.from_strings("phone", pa.array(["+8613912345678", None]))


def test_what_is_hashed():
    ids = Ids.from_strings("phone", normalise(pd.Series(["139 1234 5678"]), "phone").ids)
    assert ids.prefix + ids.data.tobytes() == b"phone:+8613912345678"
