"""The statement by which one key introduces the next, as a partner may write it."""

from datetime import UTC, datetime

import pytest

from compliance.canonical import canonical, parse
from compliance.errors import SuccessionRefused
from compliance.signing import Envelope, SigningKey
from compliance.succession import PAYLOAD_TYPE, Succession

OLD, NEW = SigningKey.generate(), SigningKey.generate()
MADE = Succession.make("shop", "log", OLD, NEW, datetime(2026, 11, 23, tzinfo=UTC))


def signed(**changes: object) -> bytes:
    said = parse(MADE.envelope.payload) | changes
    return Envelope(PAYLOAD_TYPE, canonical(said)).sign(OLD).sign(NEW).to_json()


def test_it_is_read_as_it_was_made() -> None:
    assert Succession.parse(MADE.data) == MADE
    assert signed() == MADE.data


@pytest.mark.parametrize(
    "changes",
    [
        {"old": OLD.public.hex().upper()},
        {"new": NEW.public.hex().upper()},
        {"new": f" {NEW.public.hex()}"},  # which verify.py would find to be another key
        {"new": OLD.public.hex()},
        {"kind": "certificate"},
        {"party": 5},
        {"more": ""},
    ],
)
def test_of_both_keys_signatures_the_form_is_not_excused(changes: dict[str, object]) -> None:
    with pytest.raises(SuccessionRefused):
        Succession.parse(signed(**changes))
