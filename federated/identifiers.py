"""Ids in one canonical form, so that two institutions' spellings of one person are equal bytes.

============  ==========================================================================
phone         E.164, `+8613912345678`; valid in phonenumbers' metadata
resident_id   Chinese resident identity number, 18 characters, `X` upper case (GB 11643)
company_code  Chinese unified social credit code, 18 characters, upper case (GB 32100)
email         lower case, the domain in ASCII (IDNA 2003)
============  ==========================================================================

Full-width characters, invisible characters and typographic dashes are made plain first (NFKC).
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np
import pandas as pd
import phonenumbers
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from phonenumbers import NumberParseException, PhoneMetadata, ValidationResult
from stdnum.cn import ric, uscc
from stdnum.exceptions import ValidationError
from stdnum.util import clean

from federated.errors import UnknownKind, UnknownRegion

Kind = Literal["phone", "resident_id", "company_code", "email"]
Texts: TypeAlias = "pd.Series[str] | pa.Array[Any] | pa.ChunkedArray[Any]"

_TEXT = pa.large_string()


def _text(value: str | None) -> pa.LargeStringScalar:
    return pa.scalar(value, _TEXT)


_NO_TEXT = _text(None)


class Reason(StrEnum):
    """Why a value is no id."""

    EMPTY = "empty"
    NOT_A_PHONE = "not a phone number"
    UNKNOWN_COUNTRY = "country code unknown"
    TOO_SHORT = "too short"
    TOO_LONG = "too long"
    NOT_IN_USE = "number range not in use"
    WRONG_LENGTH = "wrong length"
    FIFTEEN_DIGITS = "old 15-digit number"
    WRONG_CHARACTER = "character not allowed"
    CHECK_DIGIT = "check digit wrong"
    BIRTH_DATE = "birth date impossible"
    NOT_AN_EMAIL = "not an email address"


@dataclass(frozen=True)
class Normalised:
    """Row i is either an id or a reason; the other one is null."""

    ids: pa.LargeStringArray
    reasons: pa.LargeStringArray


def normalise(values: Texts, kind: str, *, region: str = "CN") -> Normalised:
    """The canonical form of every value, or why it has none. Both results are as long as `values`.

    `region` (ISO 3166) is where a phone number without a country code belongs.
    Raises UnknownKind, UnknownRegion.
    """
    if kind not in get_args(Kind):
        raise UnknownKind(kind)
    if region not in phonenumbers.SUPPORTED_REGIONS:
        raise UnknownRegion(region)
    text = _plain(values)
    text = pc.if_else(pc.equal(text, _text("")), _NO_TEXT, text)
    match kind:
        case "phone":
            ids, reasons = _phones(text, region)
        case "email":
            ids, reasons = _emails(text)
        case _:
            ids, reasons = _distinct(text, _resident_id if kind == "resident_id" else _company_code)
    return Normalised(ids, pc.if_else(pc.is_null(text), _text(Reason.EMPTY), reasons))


def as_text(values: Texts) -> pa.LargeStringArray:
    """The values as one Arrow array."""
    text: Any = pa.array(values, _TEXT) if isinstance(values, pd.Series) else values.cast(_TEXT)
    if isinstance(text, pa.ChunkedArray):
        text = text.combine_chunks()
    return cast(pa.LargeStringArray, text)


def _plain(values: Texts) -> pa.LargeStringArray:
    """The values as one array, trimmed, without full-width or invisible characters."""
    text: Any = as_text(values)
    if not pc.all(pc.string_is_ascii(text), min_count=0).as_py():
        text = pc.utf8_normalize(text, "NFKC")  # type: ignore[attr-defined]
        text = pc.replace_substring_regex(text, r"\p{Cf}+", "")
        text = pc.replace_substring_regex(text, r"[\p{Pd}\x{2212}]", "-")
    return cast(pa.LargeStringArray, pc.utf8_trim_whitespace(text))


def _distinct(
    text: pa.LargeStringArray, check: Callable[[str], str]
) -> tuple[pa.LargeStringArray, pa.LargeStringArray]:
    """Ids and reasons from a check called once for every distinct value."""
    encoded = text.dictionary_encode()
    results = [check(str(value)) for value in encoded.dictionary]
    wrong = np.array([isinstance(result, Reason) for result in results], bool)
    ids = pa.array(results, _TEXT, mask=wrong)
    reasons = pa.array(results, _TEXT, mask=~wrong)
    return ids.take(encoded.indices), reasons.take(encoded.indices)


# Phones

# The ways to write a mobile number of China, and those of them in use, by phonenumbers' metadata.
_CN_PREFIX = r"(?:(?:\+|00)?86)?"
_CN_WRITTEN = f"^{_CN_PREFIX}1[3-9][0-9]{{9}}$"
_CN: Any = PhoneMetadata.metadata_for_region("CN")
_CN_IN_USE = f"^{_CN_PREFIX}(?:{_CN.mobile.national_number_pattern})$"

_IMPOSSIBLE = {
    ValidationResult.TOO_SHORT: Reason.TOO_SHORT,
    ValidationResult.IS_POSSIBLE_LOCAL_ONLY: Reason.TOO_SHORT,
    ValidationResult.TOO_LONG: Reason.TOO_LONG,
    ValidationResult.INVALID_LENGTH: Reason.WRONG_LENGTH,
}
_UNREADABLE = {
    NumberParseException.INVALID_COUNTRY_CODE: Reason.UNKNOWN_COUNTRY,
    NumberParseException.NOT_A_NUMBER: Reason.NOT_A_PHONE,
    NumberParseException.TOO_SHORT_AFTER_IDD: Reason.TOO_SHORT,
    NumberParseException.TOO_SHORT_NSN: Reason.TOO_SHORT,
    NumberParseException.TOO_LONG: Reason.TOO_LONG,
}


def _phones(
    text: pa.LargeStringArray, region: str
) -> tuple[pa.LargeStringArray, pa.LargeStringArray]:
    """China's mobile numbers a column at a time, every other number through phonenumbers."""
    ids = reasons = pa.nulls(len(text), _TEXT)
    if region == "CN":
        ids = _mobiles(text)
        rest = pc.and_(pc.is_valid(text), pc.is_null(ids))
        bare = pc.replace_substring_regex(text.filter(rest), r"[ .()\[\]-]+", "")
        found = _mobiles(bare)
        mobile = pc.match_substring_regex(bare, _CN_WRITTEN)
        unused = pc.if_else(pc.and_(mobile, pc.is_null(found)), _text(Reason.NOT_IN_USE), _NO_TEXT)
        ids = pc.replace_with_mask(ids, rest, found)
        reasons = pc.replace_with_mask(reasons, rest, unused)
    rest = pc.and_(pc.is_valid(text), pc.and_(pc.is_null(ids), pc.is_null(reasons)))
    other_ids, other_reasons = _distinct(text.filter(rest), lambda value: _phone(value, region))
    return (
        pc.replace_with_mask(ids, rest, other_ids),
        pc.replace_with_mask(reasons, rest, other_reasons),
    )


def _mobiles(text: pa.LargeStringArray) -> pa.LargeStringArray:
    """China's mobile numbers in use that are written without separators; null for the others."""
    in_use = pc.match_substring_regex(text, _CN_IN_USE)
    number: Any = pc.if_else(in_use, text, _NO_TEXT).cast(pa.large_binary())
    number = pc.binary_slice(number, -11).cast(_TEXT)
    return _joined("+86", number)


def _phone(text: str, region: str) -> str:
    # Letters and extensions go: a word in place of digits, or a desk behind a shared number.
    if any(character.isalpha() for character in text):
        return Reason.NOT_A_PHONE
    try:
        number = phonenumbers.parse(text, region)
    except NumberParseException as error:
        return _UNREADABLE[error.error_type]
    if number.extension:
        return Reason.NOT_A_PHONE
    possible = phonenumbers.is_possible_number_with_reason(number)
    if possible != ValidationResult.IS_POSSIBLE:
        return _IMPOSSIBLE.get(possible, Reason.UNKNOWN_COUNTRY)
    if not phonenumbers.is_valid_number(number):
        return Reason.NOT_IN_USE
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


# Numbers with a check digit


def _resident_id(text: str) -> str:
    # The place is not looked up, as stdnum's own validation does: that wants the county to have
    # existed in the year of birth, but numbers name the county of registration, from 1984 on.
    number = clean(text, " -").upper()
    if len(number) == 15 and number.isdecimal():
        return Reason.FIFTEEN_DIGITS
    if len(number) != 18:
        return Reason.WRONG_LENGTH
    if not (number.isascii() and number[:17].isdecimal() and number[17] in "0123456789X"):
        return Reason.WRONG_CHARACTER
    if number[17] != ric.calc_check_digit(number):
        return Reason.CHECK_DIGIT
    try:
        ric.get_birth_date(number)
    except ValidationError:
        return Reason.BIRTH_DATE
    return number


def _company_code(text: str) -> str:
    # stdnum's own validation refuses departments that are letters, as Y (other) and N (farming).
    code = clean(text, " -").upper()
    if len(code) != 18:
        return Reason.WRONG_LENGTH
    letters = set("0123456789ABCDEFGHJKLMNPQRTUWXY")
    if not (set(code) <= letters and code[1:8].isdecimal()):
        return Reason.WRONG_CHARACTER
    if code[17] != uscc.calc_check_digit(code):
        return Reason.CHECK_DIGIT
    return code


# Email

_ATOM = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_EMAIL = rf"^{_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)+[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?$"


def _emails(text: pa.LargeStringArray) -> tuple[pa.LargeStringArray, pa.LargeStringArray]:
    """RFC 5321: a dot-atom of at most 64 bytes at a domain name, at most 254 bytes in all."""
    # The local part too becomes lower case: institutions write it either way.
    address = pc.utf8_lower(text)
    foreign = pc.invert(pc.string_is_ascii(address))
    if pc.any(foreign).as_py():
        ascii_form, _ = _distinct(address.filter(foreign), _ascii_domain)
        address = pc.replace_with_mask(address, foreign, ascii_form)
    length = pc.binary_length(address)
    local = pc.find_substring(address, "@")
    long = pc.or_(pc.greater(length, pa.scalar(254)), pc.greater(local, pa.scalar(64)))
    valid = pc.match_substring_regex(address, _EMAIL)
    accepted = pc.and_not(valid, long)
    reasons = pc.if_else(long, _text(Reason.TOO_LONG), _text(Reason.NOT_AN_EMAIL))
    return pc.if_else(accepted, address, _NO_TEXT), pc.if_else(accepted, _NO_TEXT, reasons)


def _ascii_domain(address: str) -> str:
    if len(address) > 254:
        return address
    local, at, domain = address.rpartition("@")
    try:
        return f"{local}{at}{domain.encode('idna').decode()}"
    except UnicodeError:
        return ""


# Many ids


def with_kind(kind: str, ids: Texts) -> Any:
    """Arrow array of `kind:` and id: what is hashed, and how consents know a person."""
    return _joined(f"{kind}:", as_text(ids))


def _joined(prefix: str, text: pa.LargeStringArray) -> pa.LargeStringArray:
    """The prefix before every value; null stays null."""
    join: Any = pc.binary_join_element_wise
    return cast(pa.LargeStringArray, join(_text(prefix), text, _text("")))


@dataclass(frozen=True, eq=False)
class Ids:
    """Canonical ids joined in one buffer, as the native kernels take them.

    data: uint8, UTF-8. offsets: uint64 (n+1,), from 0; id i is data[offsets[i] : offsets[i + 1]].
    """

    kind: str
    data: NDArray[np.uint8]
    offsets: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def prefix(self) -> bytes:
        """What precedes every id when it is hashed."""
        return f"{self.kind}:".encode()

    @classmethod
    def from_strings(cls, kind: str, ids: Texts) -> "Ids":
        """The ids in order; the bytes are shared where possible. ValueError if one is missing."""
        text = as_text(ids)
        if text.null_count:
            raise ValueError("an id is missing")
        if not len(text):
            return cls(kind, np.empty(0, np.uint8), np.zeros(1, np.uint64))
        starts, joined = (memoryview(buffer or b"") for buffer in text.buffers()[1:])
        offsets = np.frombuffer(starts, np.int64)[text.offset : text.offset + len(text) + 1]
        data = np.frombuffer(joined, np.uint8)[offsets[0] : offsets[-1]]
        return cls(kind, data, (offsets - offsets[0]).view(np.uint64))

    def take(self, rows: NDArray[np.int64]) -> "Ids":
        """The ids at these rows, in this order."""
        return Ids.from_strings(self.kind, self.to_strings().take(pa.array(rows, pa.int64())))

    def to_strings(self) -> pa.LargeStringArray:
        """An Arrow array over the same bytes."""
        offsets, data = pa.py_buffer(self.offsets.data), pa.py_buffer(self.data.data)
        ids = pa.LargeStringArray.from_buffers(len(self), offsets, data)
        return cast(pa.LargeStringArray, ids)
