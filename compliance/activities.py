"""Registers that the law wants kept: GDPR, Article 30(1), and PIPL, Articles 23, 55 and 56.

A row for each version of an agreement that both have signed, made of the agreement, the consents
and the runs. What the program cannot know, the institution states in its configuration, or a
notice has told people; what nobody has said stays empty and is listed under `missing`.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from io import StringIO
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, func, select

from compliance import lifecycle, notice, receipt, register
from compliance.agreement import Agreement
from compliance.canonical import parse, timestamp
from compliance.choices import Form, Kind
from compliance.consent import GRANTED, KINDS, consents, microseconds, terms
from compliance.notice import Notice
from compliance.receipt import receipts
from compliance.signing import Envelope

Row = dict[str, Any]

TITLES: dict[Kind, str] = {
    "gdpr-30": "Record of processing activities, GDPR Article 30(1)",
    "pipl-23": "Register of provision to others, PIPL Articles 23, 55 and 56",
}
KEPT_YEARS = 3  # PIPL, Article 56


class Contact(BaseModel):
    """Somebody's name and how to reach them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    contact: str = ""


class Stated(BaseModel):
    """What only the institution knows; an empty text says nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    controller: str = ""
    contact: str = ""
    joint_controller: str = ""
    representative: str = ""
    data_protection_officer: str = ""
    data_subjects: str = ""
    transfers: str = ""
    safeguards: str = ""
    security_measures: str = ""
    method: str = ""
    recipients: dict[str, Contact] = {}  # by the names of their nodes


@dataclass
class _Runs:
    """The runs under one version of an agreement."""

    started: int = 0
    complete: int = 0
    first: str = ""
    last: str = ""
    people: int = 0


@dataclass
class _Facts:
    """What the rows are made of."""

    conn: Connection
    name: str
    stated: Stated
    now: datetime
    runs: Mapping[tuple[str, int], _Runs]
    notices: list[Notice] = field(default_factory=list)

    def said(self, text: str, party: str, member: str) -> str:
        """What is stated, or what the latest notice that describes a party says."""
        described = [one.parties[party] for one in self.notices if party in one.parties]
        return text or (str(getattr(described[-1], member)) if described else "")

    def recipient(self, party: str, member: Literal["name", "contact"]) -> str:
        known = self.stated.recipients.get(party, Contact())
        return self.said(getattr(known, member), party, member)


def rows(
    conn: Connection, kind: Kind, *, name: str, origin: str, stated: Stated, now: datetime
) -> list[Row]:
    """The register's rows, as of a time.

    name: this institution's. origin: its log's. Raises AgreementBroken (E306), ReceiptBroken.
    """
    facts = _Facts(conn, name, stated, now, _runs(conn, origin), notice.every(conn))
    make = {"gdpr-30": _activity, "pipl-23": _provision}[kind]
    signed = (held.agreement for held in register.every(conn) if held.state == register.SIGNED)
    found = []
    for agreement in signed:
        row = make(facts, agreement)
        row["missing"] = "; ".join(item for item, said in row.items() if said == "")
        found.append(row)
    return found


def write(kind: Kind, form: Form, found: list[Row], *, name: str, now: datetime) -> bytes:
    """The register as a file. A spreadsheet takes no cell of it for a formula."""
    if form == "json":
        whole = {
            "register": kind,
            "title": TITLES[kind],
            "institution": name,
            "as_of": timestamp(now),
            "entries": found,
        }
        return (json.dumps(whole, ensure_ascii=False, indent=2) + "\n").encode()
    text = StringIO()
    writer = csv.writer(text)
    if found:
        writer.writerow(found[0])
        writer.writerows([_cell(value) for value in row.values()] for row in found)
    return text.getvalue().encode()


def files(
    conn: Connection, *, name: str, origin: str, stated: Stated, now: datetime
) -> Iterator[tuple[str, bytes]]:
    """Every register in every form, by the name of its file."""
    for kind in get_args(Kind):
        found = rows(conn, kind, name=name, origin=origin, stated=stated, now=now)
        for form in get_args(Form):
            yield f"registers/{kind}.{form}", write(kind, form, found, name=name, now=now)


def _cell(value: Any) -> str:
    """OWASP, CSV injection: what begins like a formula is made text; full-width signs as well."""
    text = str(value)
    return f"'{text}" if text[:1] in {*"=+-@\t\r\n＝＋－＠"} else text


def _activity(facts: _Facts, agreement: Agreement) -> Row:
    """A processing activity, by the items of Article 30(1)."""
    stated, (own, other) = facts.stated, _sides(facts, agreement)
    return {
        "activity": f"{agreement.agreement}, version {agreement.version}",
        "30(1)(a) controller": facts.said(stated.controller, own, "name"),
        "30(1)(a) contact": facts.said(stated.contact, own, "contact"),
        "30(1)(a) joint controller": stated.joint_controller,
        "30(1)(a) representative": stated.representative,
        "30(1)(a) data protection officer": stated.data_protection_officer,
        "30(1)(b) purposes": agreement.purpose,
        "30(1)(c) categories of data subjects": stated.data_subjects,
        "30(1)(c) categories of personal data": _categories(agreement, own),
        "30(1)(d) recipients": facts.recipient(other, "name") or other,
        "30(1)(e) transfers to third countries": stated.transfers,
        "30(1)(e) safeguards": stated.safeguards,
        "30(1)(f) time limits for erasure": f"{agreement.retention_days} days",
        "30(1)(g) security measures": stated.security_measures,
        "legal basis": agreement.legal_basis,
        "impact assessment": agreement.impact_assessment.reference,
        **_in_force(facts, agreement),
    }


def _provision(facts: _Facts, agreement: Agreement) -> Row:
    """A provision to another, by the items of Article 23, with those of 55 and 56."""
    stated, (own, other) = facts.stated, _sides(facts, agreement)
    told = [one.processing_method for one in facts.notices if agreement.purpose in one.purposes]
    jobs = sorted(agreement.jobs.model_fields_set)
    method = stated.method or next((text for text in reversed(told) if text), "")
    live = _live(facts, agreement, other, frozenset(_provided(agreement, own)))
    until = agreement.impact_assessment.valid_until
    last = facts.runs.get(agreement.named, _Runs()).last
    return {
        "provision": f"{agreement.agreement}, version {agreement.version}",
        "23 recipient's name": facts.recipient(other, "name") or other,
        "23 recipient's contact": facts.recipient(other, "contact"),
        "23 purpose": agreement.purpose,
        "23 method": method,
        "jobs": ", ".join(jobs),
        "23 categories": _categories(agreement, own),
        **{
            f"{'23 ' if kind == 'separate' else ''}people with a live {kind} consent": live[kind]
            for kind in KINDS
        },
        "55 impact assessment": agreement.impact_assessment.reference,
        "55 assessment valid until": timestamp(until) if until else "no end is stated",
        "56 records kept until at least": _years_on(last) if last else "no run yet",
        **_in_force(facts, agreement),
    }


def _in_force(facts: _Facts, agreement: Agreement) -> Row:
    runs = facts.runs.get(agreement.named, _Runs())
    standing = lifecycle.standing(facts.conn, agreement.agreement).values()
    said = [str(one) for one in standing if one.step != lifecycle.RESUMED]
    return {
        "valid from": timestamp(agreement.valid.start),
        "valid until": timestamp(agreement.valid.until),
        "state": "; ".join(said) or "signed by both",
        "runs started": runs.started,
        "runs complete": runs.complete,
        "first run": runs.first or "none yet",
        "last run": runs.last or "none yet",
        "people put in, repeats included": runs.people,
    }


def _sides(facts: _Facts, agreement: Agreement) -> tuple[str, str]:
    parties = [agreement.parties.bank, agreement.parties.partner]
    parties.remove(facts.name)
    return facts.name, parties[0]


def _provided(agreement: Agreement, party: str) -> tuple[str, ...]:
    data, bank = agreement.data, agreement.parties.bank
    return (data.bank if party == bank else data.partner).categories


def _categories(agreement: Agreement, party: str) -> str:
    return ", ".join(_provided(agreement, party))


def _runs(conn: Connection, origin: str) -> dict[tuple[str, int], _Runs]:
    """The runs by agreement and version."""
    found: dict[tuple[str, int], _Runs] = {}
    complete = set(
        conn.execute(select(receipts.c.run).where(receipts.c.kind == "completion")).scalars()
    )
    query = select(receipts.c.run, receipts.c.envelope).where(receipts.c.kind == "intent")
    for run, data in conn.execute(query.order_by(receipts.c.entry)):
        intent = Envelope.from_json(data)
        started = parse(intent.payload)["predicate"]
        named = started["agreement"]
        runs = found.setdefault((named["id"], named["version"]), _Runs(first=started["started"]))
        runs.started += 1
        runs.complete += run in complete
        runs.last = started["started"]
        runs.people += receipt.own_section(intent, origin)["inputs"]["size"]
    return found


def _live(
    facts: _Facts, agreement: Agreement, recipient: str, categories: frozenset[str]
) -> dict[str, int]:
    """How many people have a live consent for what is provided, by its kind."""
    conn, now, held = facts.conn, microseconds(facts.now), consents.c
    counts = dict.fromkeys(KINDS, 0)
    for kind in KINDS:
        query = select(terms.c.id, terms.c.categories).where(
            terms.c.purpose == agreement.purpose,
            terms.c.recipient == recipient,
            terms.c.kind == kind,
        )
        fitting = [
            row.id for row in conn.execute(query) if categories <= {*row.categories.split(";")}
        ]
        people = select(func.count(held.subject.distinct())).where(
            held.terms.in_(fitting),
            held.state.in_(GRANTED),
            held.granted_at <= now,
            held.expires_at > now,
            held.withdrawn_at > now,
        )
        counts[kind] = int(conn.execute(people).scalar_one())
    return counts


def _years_on(time: str) -> str:
    """The day three years after a time."""
    day = datetime.fromisoformat(time).date()
    try:
        return day.replace(year=day.year + KEPT_YEARS).isoformat()
    except ValueError:  # 29 February
        return day.replace(year=day.year + KEPT_YEARS, month=3, day=1).isoformat()
