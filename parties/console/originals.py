"""What stands in English wherever it is kept, signed or logged, in the language of who reads it.

Pages show it beside the original, which is what counts. What has no words in a language, such as a
sentence that an earlier version signed, is shown as it stands.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from compliance.agreement import Agreement, Job
from compliance.amendment import Change
from compliance.canonical import canonical
from compliance.disclosure import Sentence, sentences
from parties.console import words
from parties.console.words import translations
from protos.errors import ConcordatError

_ERROR = re.compile(r"(E\d{3}) (.*)", re.DOTALL)
_HOLE = re.compile(r"\{(\w+)\}")
_LONGEST = 1024  # characters of a finding that is looked at


@dataclass(frozen=True)
class Original:
    """A sentence as it stands, and in the reader's language; the same where it has none there."""

    text: str
    shown: str

    @property
    def translated(self) -> bool:
        return self.text != self.shown


def learned(
    language: str, agreement: Agreement, job: Mapping[str, Any], signed: Mapping[str, Sequence[str]]
) -> dict[str, list[Original]]:
    """What each party learns, as it was signed for a job under an agreement.

    A sentence is found by writing again what this version would sign: where that is another text,
    the signed one stands alone.
    """
    try:
        made = sentences(agreement, Job.from_document(canonical(dict(job))))
    except (ConcordatError, ValueError, KeyError):
        made = {}
    return {
        party: [_learned(language, made.get(party, []), text) for text in texts]
        for party, texts in signed.items()
    }


def would_learn(language: str, made: Mapping[str, list[Sentence]]) -> dict[str, list[Original]]:
    """What each party would learn, as it would be signed."""
    return {
        party: [_learned(language, found, one.written()) for one in found]
        for party, found in made.items()
    }


def _learned(language: str, made: Iterable[Sentence], text: str) -> Original:
    templates = translations(language, "disclosure")
    found = next((one for one in made if one.written() == text), None)
    return Original(text, found.written(templates) if found and templates else text)


def findings(language: str, found: Iterable[str]) -> list[Original]:
    """What verifying has found, or where two receipts differ: `place: what is wrong there`."""
    return [Original(text, _finding(language, text) or text) for text in found]


def _finding(language: str, text: str) -> str | None:
    if len(text) > _LONGEST:
        return None
    where, _, problem = text.partition(": ")
    numbered = _ERROR.fullmatch(problem)
    if numbered and (known := error(language, numbered[1])):
        said: str | None = f"{numbered[1]} {known['title']}"
    else:
        said = _matched(language, "findings", problem)
    return said and f"{_matched(language, 'findings', where) or where}：{said}"


def item(language: str, text: str) -> str:
    """The name or the value of an item of a register."""
    return _matched(language, "registers", text) or text


def _matched(language: str, catalogue: str, text: str) -> str | None:
    """A text by the template it was made with, what was put into it put in again."""
    for pattern, translation in _patterns(language, catalogue):
        if match := pattern.fullmatch(text):
            return translation.format(**match.groupdict())
    return None


@cache
def _patterns(language: str, catalogue: str) -> list[tuple[re.Pattern[str], str]]:
    """The one that says the most first."""
    known = translations(language, catalogue).items()
    ranked = sorted(known, key=lambda one: -len(_HOLE.sub("", one[0])))
    return [(re.compile(_expression(template), re.DOTALL), said) for template, said in ranked]


def _expression(template: str) -> str:
    parts = _HOLE.split(template)  # text, name, text, name, text
    return "".join(
        f"(?P<{part}>.+?)" if at % 2 else re.escape(part) for at, part in enumerate(parts)
    )


def error(language: str, code: str) -> Mapping[str, str] | None:
    """Title and text of a numbered error."""
    found: Mapping[str, str] | None = translations(language, "errors").get(code)
    return found


def feature(language: str, entry: Mapping[str, Any]) -> Mapping[str, str]:
    """A feature's definition, and who has none: as the catalogue has them, or in the language."""
    own = {part: str(entry[part]) for part in ("definition", "missing")}
    found: Mapping[str, str] = translations(language, "features").get(entry["name"], own)
    return found


def changes(language: str, found: Iterable[Change]) -> list[Original]:
    """What a version of an agreement changes."""
    templates = translations(language, "changes")
    return [
        Original(str(one), _change(language, templates[one.how], one) if templates else str(one))
        for one in found
    ]


def _change(language: str, template: str, one: Change) -> str:
    return template.format(
        place=_place(language, one.path),
        old=shown_value(language, one.old, one.path[-1]),
        new=shown_value(language, one.new, one.path[-1]),
    )


def _place(language: str, path: Sequence[str]) -> str:
    """Where in an agreement, from the whole to the part. Names of features and jobs stay."""
    match path:
        case ("data", "partner", "features", feature, *rest):
            return " › ".join([f"{term(language, 'feature')} {feature}", *_terms(language, rest)])
        case ("jobs", job, *rest):
            return " › ".join([f"{term(language, 'job')} {job}", *_terms(language, rest)])
    return " › ".join(_terms(language, path))


def _terms(language: str, names: Iterable[str]) -> list[str]:
    return [term(language, name) for name in names]


def term(language: str, name: str) -> str:
    """The name of a member of a document, of a figure or of a kind of something."""
    known = words.known(language, f"term.{name}")
    return words.say(language, f"term.{name}") if known else name.replace("_", " ")


# Members whose values are words of ours; those of others are names.
_CHOICES = {
    *("release", "exponents", "partner_learns", "binning", "statistics", "identifier"),
    *("consent_kinds", "legal_basis", "per"),
}


def shown_value(language: str, value: Any, member: str = "") -> str:
    """A term of an agreement, or a figure of a report, on one line."""
    match value:
        case None | "" | [] | ():
            return "–"
        case dict() if not value:  # as a pattern, {} is any mapping
            return "–"
        case bool():
            return "✓" if value else "✗"
        case int():
            return f"{value:,}"
        case dict():
            parts = [
                f"{term(language, name)} {shown_value(language, one, name)}"
                for name, one in value.items()
            ]
        case list() | tuple():
            parts = [shown_value(language, one, member) for one in value]
        case _:
            name = f"value.{value}"
            chosen = member in _CHOICES and words.known(language, name)
            parts = [words.say(language, name) if chosen else str(value)]
    return ", ".join(parts)
