"""One form for every document that is signed or hashed: RFC 8785 canonical JSON."""

import base64
import json
from datetime import UTC, datetime
from typing import Any, Literal

import rfc8785

from compliance.errors import DocumentTooLarge, NotCanonical

MAX_BYTES = 4 << 20
_SAFE_INTEGER = 2**53 - 1


def canonical(value: Any) -> bytes:
    """The canonical JSON of a value, integers beyond ±(2^53-1) as decimal strings.

    RFC 8785 numbers are IEEE doubles, which cannot hold larger integers (its appendix D advises
    strings). Raises ValueError for what JSON cannot hold (NaN, lone surrogates, other types) and
    DocumentTooLarge beyond MAX_BYTES, so that `parse` can read whatever this writes.
    """
    try:
        data = rfc8785.dumps(value)
    except rfc8785.IntegerDomainError:
        data = rfc8785.dumps(_large_integers_as_text(value))
    if len(data) > MAX_BYTES:
        raise DocumentTooLarge(
            f"A document is larger than {MAX_BYTES} bytes.",
            "Split it; a bulk import belongs in a sub-tree.",
        )
    return data


def parse(data: bytes) -> Any:
    """The value of canonical JSON: `canonical(parse(data)) == data`.

    Whatever two parsers could read differently (duplicate names, other spellings of a number or a
    string, NaN, text around the value) is not canonical. Raises NotCanonical.
    """
    if len(data) > MAX_BYTES:
        raise _not_canonical(f"is larger than {MAX_BYTES} bytes")
    try:
        value = json.loads(data.decode(), parse_int=_number)
        if canonical(value) == data:
            return value
    except (ValueError, OverflowError, RecursionError):
        pass
    raise _not_canonical("is not canonical JSON (RFC 8785)")


def to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def from_base64(text: str) -> bytes:
    """Standard base64 (RFC 4648, section 4) in its one form, padded. Raises ValueError."""
    data = base64.b64decode(text, validate=True)
    if to_base64(data) != text:
        raise ValueError("not the one base64 form of its bytes")
    return data


def timestamp(time: datetime) -> str:
    """RFC 3339 in UTC, whole seconds: 2026-01-31T08:00:00Z. ValueError without a time zone."""
    if time.tzinfo is None:
        raise ValueError("a time without a time zone")
    return time.astimezone(UTC).isoformat()[:19] + "Z"


_LENGTHS = {"day": 10, "month": 7, "year": 4}  # of a time's text that names its period


def calendar(per: Literal["day", "month", "year"], time: datetime) -> str:
    """The calendar period in UTC, as `timestamp` begins in it: 2026, 2026-11 or 2026-11-24."""
    return timestamp(time)[: _LENGTHS[per]]


def _number(literal: str) -> int | float:
    value = int(literal)
    return value if abs(value) <= _SAFE_INTEGER else float(value)


def _large_integers_as_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _large_integers_as_text(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_large_integers_as_text(item) for item in value]
    if isinstance(value, int) and abs(value) > _SAFE_INTEGER:
        return str(value)
    return value


def _not_canonical(problem: str) -> NotCanonical:
    return NotCanonical(
        f"A document {problem}.",
        "Ask whoever sent it for the original bytes; do not reformat it.",
    )
