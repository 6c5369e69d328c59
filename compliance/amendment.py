"""What a new version of an agreement changes, in words an officer reads."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from compliance.agreement import Agreement
from compliance.canonical import parse

# Where a name alone would not say what it is.
_WORDS = {
    "valid.from": "valid from",
    "valid.until": "valid until",
    "legal_basis": "legal basis",
    "retention_days": "days of retention",
    "impact_assessment": "impact assessment",
    "impact_assessment.reference": "impact assessment",
    "impact_assessment.valid_until": "end of the impact assessment",
    "credit_reporting": "credit reporting",
    "credit_reporting.licence": "credit reporting licence",
    "credit_reporting.valid_until": "end of the credit reporting licence",
    "consent_kinds": "kinds of consent that count",
    "limits.runs_per_day": "runs a day at most",
    "limits.runs_per_week": "runs a week at most",
    "limits.runs_per_month": "runs a month at most",
    "limits.hours_between_runs": "hours between two runs at least",
    "limits.features_per_job": "features in a job at most",
    "period": "comparison of releases",
    "period.per": "calendar period whose releases are compared",
    "period.cells": "figures without noise a period at most",
    "acknowledge_within_hours": "hours to acknowledge that somebody has withdrawn",
    "jobs.lookup.features": "features that may be looked up",
    "jobs.lookup.people_per_day": "people looked up a day at most",
    "jobs.lookup.epoch_hours": "hours that a lookup's table lasts",
    "jobs.score.features": "features that may be scored",
    "jobs.score.people_per_day": "people scored a day at most",
    "jobs.score.epoch_hours": "hours that a score's table lasts",
}


# How something may have changed. The console has the same in other languages.
TEMPLATES = {
    "other": "{place}: was {old}, is now {new}",
    "added": "{place}: is new: {new}",
    "removed": "{place}: is gone; it was {old}",
    "more": "{place}: also {new}",
    "fewer": "{place}: no longer {old}",
    "order": "{place}: is in another order",
}


@dataclass(frozen=True)
class Change:
    """One difference: where in the document, how, what was there and what is there now."""

    path: tuple[str, ...]
    how: str  # of TEMPLATES
    old: Any = None
    new: Any = None

    def __str__(self) -> str:
        place, old, new = _place(self.path), _value(self.old), _value(self.new)
        return TEMPLATES[self.how].format(place=place, old=old, new=new)


def in_words(old: Agreement, new: Agreement) -> list[str]:
    """Each difference between two versions on a line of its own; none if only the version does."""
    return list(map(str, changes(old, new)))


def changes(old: Agreement, new: Agreement) -> list[Change]:
    """The same as data."""
    before, after = parse(old.document), parse(new.document)
    for document in (before, after):
        del document["version"]
        reference = document["impact_assessment"]
        if isinstance(reference, str):  # the same, written shorter
            document["impact_assessment"] = {"reference": reference}
    return list(_changes(before, after, ()))


def _changes(old: Any, new: Any, path: tuple[str, ...]) -> Iterator[Change]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            yield from _member(old, new, (*path, name))
    elif isinstance(old, list) and isinstance(new, list):
        yield from _listed(old, new, path)
    elif old != new:
        yield Change(path, "other", old, new)


def _member(old: dict[str, Any], new: dict[str, Any], path: tuple[str, ...]) -> Iterator[Change]:
    name = path[-1]
    if name not in old:
        yield Change(path, "added", new=new[name])
    elif name not in new:
        yield Change(path, "removed", old=old[name])
    else:
        yield from _changes(old[name], new[name], path)


def _listed(old: list[Any], new: list[Any], path: tuple[str, ...]) -> Iterator[Change]:
    """Lists of labelled things by their labels, others by what was added and what is gone."""
    if all(isinstance(item, dict) and "label" in item for item in old + new):
        before, after = ({item["label"]: item for item in items} for items in (old, new))
        yield from _changes(before, after, path)
        if before == after and old != new:
            yield Change(path, "order")
        return
    gone = [item for item in old if item not in new]
    added = [item for item in new if item not in old]
    if added:
        yield Change(path, "more", new=added)
    if gone:
        yield Change(path, "fewer", old=gone)
    if old != new and not gone and not added:
        yield Change(path, "order")


def _place(path: tuple[str, ...]) -> str:
    """Where in the document, in words."""
    known = _WORDS.get(".".join(path))
    if known:
        return known
    match path:
        case ("jobs", job, *rest):
            return " ".join(["job", job, *map(_spaced, rest)])
        case ("data", "partner", "features", feature, *rest):
            return " ".join(["feature", feature, *map(_spaced, rest)])
        case ("data", party, *rest):
            return " ".join([f"what the {party} provides:", *map(_spaced, rest)])
    return " ".join(map(_spaced, path))


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _value(value: Any) -> str:
    match value:
        case dict():
            inner = ", ".join(f"{_spaced(name)} {_value(value[name])}" for name in value)
            return inner or "without conditions"
        case list():
            return ", ".join(map(_value, value))
        case bool():
            return "yes" if value else "no"
        case _:
            return str(value)
