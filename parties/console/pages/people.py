"""One person: consents with the notice shown, the runs they were in, and what can be done.

Who is looked at never stands in an address: a session has a name of its own for everybody it has
found, which says nothing elsewhere.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

from fastapi import APIRouter
from fastapi.responses import Response

from compliance.canonical import parse
from compliance.errors import NoticeUnknown, PersonUnknown
from federated.identifiers import Kind
from parties import consents, evidence
from parties.console.files import zipped
from parties.console.visit import Reading, Text, Visit, Writing, day
from parties.errors import FormRefused, FormUnfit

router = APIRouter()

_ACTS = ("withdraw", "restrict", "lift", "erase")


@router.get("/people")
def ask(visit: Reading) -> Response:
    visit.require("officer", "auditor")
    return visit.page("people.html", kinds=get_args(Kind))


@router.post("/people")
def search(visit: Writing, kind: Text, identifier: Text) -> Response:
    """Finds somebody; the page that follows enters that it was looked at."""
    visit.require("officer", "auditor")
    subject = consents.subject_of(visit.node, kind, identifier.strip())
    return visit.go(f"/people/{visit.session.refer(subject)}")


@router.get("/people/{person}")
def show(visit: Reading, person: str) -> Response:
    """Consents, refusals and restrictions; of whoever was erased, when that was."""
    subject = _subject(visit, person)
    try:
        held = consents.show(visit.node, subject, {})
    except PersonUnknown:
        told = evidence.person(visit.node, subject, None, None)
        return visit.page("person_erased.html", told=told, person=person)
    for one in held["consents"]:
        said = one["record"]["pii_processing"].get("notice")
        one["notice"] = _notice(visit, said["digest"]) if said else None
    kind = subject.partition(":")[0]
    return visit.page("person.html", held=held, person=person, kind=kind)


@router.get("/people/{person}/runs")
def show_runs(visit: Reading, person: str, run: str = "") -> Response:
    """The runs the person's data was put into; and of one that is named, whether it was."""
    told = evidence.person(visit.node, _subject(visit, person), run.strip() or None, None)
    return visit.page("person_runs.html", told=told, person=person, asked=run.strip())


@router.post("/people/{person}/proofs")
def proofs(visit: Writing, person: str, run: Text = "") -> Response:
    """The same as evidence that can be verified elsewhere."""
    subject, node = _subject(visit, person), visit.node
    with TemporaryDirectory(dir=node.home.path) as folder:
        name = f"evidence-person-{run[:8]}" if run else "evidence-person"
        made = Path(folder) / name
        evidence.person(node, subject, run or None, made)
        return visit.file(zipped(made), f"{name}.zip", "application/zip")


@router.post("/people/{person}/{act}")
def change(
    visit: Writing,
    person: str,
    act: str,
    *,
    reason: Text = "",
    until: Text = "",
    purpose: Text = "",
    recipient: Text = "",
    by: Text = "",
) -> Response:
    """Withdraws, restricts, lifts or erases; or proposes to, where that takes two."""
    visit.require("officer")
    subject, node = _subject(visit, person), visit.node
    if act not in _ACTS:
        raise FormUnfit("Nothing of this name is done to people.", "Choose it on the page.")
    said = {"reason": reason.strip()}
    done: Any
    if act == "withdraw":
        said |= {"purpose": purpose.strip(), "recipient": recipient.strip()}
        done = consents.withdraw(node, subject, said, by)
    elif act == "restrict":
        last = day(until)
        said |= {"until": last.isoformat() if last else ""}
        done = consents.restrict(node, subject, said)
    elif act == "lift":
        done = consents.lift(node, subject, said)
    else:
        done = consents.erase(node, subject, {})
    waits = any("proposal" in one for one in (done if isinstance(done, list) else [done]))
    note = "people.waits" if waits else f"people.done_{act}"
    return visit.go(f"/people/{person}", note)


def _subject(visit: Visit, person: str) -> str:
    """Whom an address means in this session. Raises FormRefused."""
    visit.require("officer", "auditor")
    subject = visit.session.found.get(person)
    if subject is None:
        raise FormRefused("This session has not looked for this person.", "Search for them again.")
    return subject


def _notice(visit: Visit, digest: str) -> dict[str, Any] | None:
    """What the person was told."""
    try:
        found = consents.find_notice(visit.node, digest)
    except NoticeUnknown:
        return None
    said: dict[str, Any] = parse(found.document)
    return said
