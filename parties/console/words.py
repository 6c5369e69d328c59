"""What the pages say, in each language: a catalogue of messages, as data.

Beside it, in the language's own folder, what others say in English: `originals` puts it together.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from compliance.document import load

LANGUAGES = {"en": "English", "zh": "中文"}
_FOLDER = Path(__file__).parent / "words"


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """The messages of a language by name; those with `_one` are for a single one."""
    found: dict[str, str] = load((_FOLDER / f"{language}.yaml").read_text("utf-8"))
    return found


def say(language: str, name: str, /, **values: Any) -> str:
    """A message with its values put in. `n` decides between one and many."""
    messages = catalogue(language)
    if values.get("n") == 1 and f"{name}_one" in messages:
        name = f"{name}_one"
    shown = {key: f"{value:,}" if type(value) is int else value for key, value in values.items()}
    return messages[name].format(**shown)


@cache
def translations(language: str, name: str) -> Mapping[str, Any]:
    """What is English where it is kept, in another language; nothing for English itself."""
    path = _FOLDER / language / f"{name}.yaml"
    return load(path.read_text("utf-8")) if language != "en" else {}


def shown_time(value: str | datetime | None) -> str:
    """To the minute, in UTC."""
    if not value:
        return "–"
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def known(language: str, name: str) -> bool:
    return name in catalogue(language)


def preferred(accepted: str) -> str:
    """The language of an Accept-Language header (RFC 9110, section 12.5.4) that there is."""
    choices = []
    for part in accepted[:1000].split(","):
        tag, _, weight = part.partition(";q=")
        try:
            quality = float(weight) if weight else 1.0
        except ValueError:
            continue
        primary = tag.strip().partition("-")[0].lower()
        if primary in LANGUAGES and quality > 0:
            choices.append((quality, primary))
    return max(choices, key=lambda choice: choice[0])[1] if choices else "en"
