"""The console's catalogue: every message in every language, and every one of them used."""

import re
from pathlib import Path
from string import Formatter

import pytest

from parties.console import words

ROOM = Path(words.__file__).parent
LANGUAGES = list(words.LANGUAGES)

# Families whose last part is a word of ours, put together where it is said.
FAMILIES = (
    *("act.", "agreements.", "entry.", "failure.", "job.", "nav.", "report.", "role.", "runs."),
    *("people.", "peers.", "reason.", "register.", "stage.", "state.", "step.", "term."),
    *("value.", "verified.", "verify."),
)


def fields(message: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(message) if name}


def sources() -> str:
    paths = [*ROOM.rglob("*.py"), *(ROOM / "templates").glob("*.html")]
    paths += [*(ROOM.parent / "reports").glob("*.*")]
    return "\n".join(path.read_text("utf-8") for path in paths)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_message_is_missing_and_none_lacks_a_value(language: str) -> None:
    others = words.catalogue("en")
    found = words.catalogue(language)
    assert found.keys() == others.keys()
    for name, message in found.items():
        assert message.strip(), name
        assert fields(message) - {"n"} == fields(others[name]) - {"n"}, name


def test_every_message_is_used() -> None:
    text = sources()
    for name in words.catalogue("en"):
        bare = name.removesuffix("_one")
        assert f'"{bare}"' in text or f"'{bare}'" in text or name.startswith(FAMILIES), name


def test_every_message_that_is_said_is_there() -> None:
    for name in re.findall(r"""say\(\s*["']([\w.]+)["']\s*[,)]""", sources()):
        assert name in words.catalogue("en"), name


def test_one_is_said_differently() -> None:
    assert words.say("en", "home.certificate", n=1) != words.say("en", "home.certificate", n=2)
    assert "1,234" in words.say("en", "home.cosigned_by", witness="w", n=1234)
