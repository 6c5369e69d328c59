"""Agreements: read in words, versions compared, signed and ended by two people."""

from typing import Annotated, Any

from fastapi import APIRouter, File, UploadFile
from fastapi.responses import Response

from compliance import lifecycle
from compliance.agreement import Agreement, Job
from compliance.amendment import changes
from compliance.disclosure import sentences
from compliance.errors import AgreementUnknown
from compliance.lifecycle import MAX_REASON, RESUMED, SUSPENDED, TERMINATED, Step
from compliance.people import Proposal
from compliance.register import Registered
from parties import agreements
from parties.console import originals
from parties.console.visit import Reading, Text, Writing
from parties.errors import FormUnfit
from parties.node import Node

router = APIRouter()

_STEPS: dict[str, Step] = {"suspend": SUSPENDED, "resume": RESUMED, "terminate": TERMINATED}


@router.get("/agreements")
def show_all(visit: Reading) -> Response:
    """Every version, the newest of each agreement first."""
    node = visit.node
    known = sorted(
        agreements.every(node), key=lambda held: (held.agreement.agreement, -held.agreement.version)
    )
    standing = {held.agreement.agreement: _standing(node, held) for held in known}
    return visit.page("agreements.html", known=known, standing=standing)


@router.post("/agreements/propose")
def propose(visit: Writing, file: Annotated[UploadFile, File()]) -> Response:
    """A new agreement or version, as a document: signed at once, or proposed for that."""
    try:
        text = file.file.read().decode()
    except UnicodeDecodeError:
        raise FormUnfit("The file is not UTF-8.", "Choose the agreement as YAML.") from None
    name, version = agreements.propose_document(visit.node, text).named
    waits = agreements.waiting(visit.node, name, version)
    return visit.go(_page(name, version), "agreements.waits" if waits else "agreements.offered")


@router.get("/agreements/{name}/compare")
def compare(visit: Reading, name: str, old: int, new: int) -> Response:
    """What a version changes, in words."""
    before, after = agreements.versions(visit.node, name, old, new)
    return visit.page(
        "comparison.html",
        name=name,
        before=before,
        after=after,
        changes=originals.changes(visit.language, changes(before, after)),
        versions=_versions(visit.node, name),
    )


@router.get("/agreements/{name}/{version}")
def show(visit: Reading, name: str, version: int) -> Response:
    """One version in words, with its signatures and what was declared about it."""
    node = visit.node
    held = agreements.find(node, name, version)
    return visit.page(
        "agreement.html",
        held=held,
        agreement=held.agreement,
        unsigned=agreements.unsigned(node, held),
        standing=_standing(node, held),
        notices=agreements.notices(node, name),
        waiting=agreements.waiting(node, name),
        versions=_versions(node, name),
        learned=_learned(held.agreement, visit.language),
        own=node.config.name,
        further=_further(held.agreement),
    )


@router.post("/agreements/{name}/{version}/sign")
def sign(visit: Writing, name: str, version: int) -> Response:
    """Proposes the institution's signature; or offers again what is signed."""
    node = visit.node
    agreements.sign(node, name, version)
    waits = agreements.waiting(node, name, version)
    return visit.go(_page(name, version), "agreements.waits" if waits else "agreements.offered")


@router.post("/agreements/{name}/{version}/{step}")
def declare(visit: Writing, name: str, version: int, step: str, reason: Text = "") -> Response:
    """Suspends at once, or proposes to resume or terminate."""
    if step not in _STEPS:
        raise AgreementUnknown("An agreement has no such step.", "Choose one on its page.")
    if len(reason) > MAX_REASON or not (reason.strip() or step == "resume"):
        raise FormUnfit(
            f"A reason is needed, of at most {MAX_REASON} characters.",
            "Say in a few words why; the partner reads it, too.",
        )
    done = agreements.declare(visit.node, name, _STEPS[step], reason.strip())
    note = "agreements.waits" if isinstance(done, Proposal) else "agreements.told"
    return visit.go(_page(name, version), note)


def _page(name: str, version: int) -> str:
    return f"/agreements/{name}/{version}"


def _versions(node: Node, name: str) -> list[int]:
    """Newest first."""
    known = [held.agreement for held in agreements.every(node)]
    return sorted((one.version for one in known if one.agreement == name), reverse=True)


def _standing(node: Node, held: Registered) -> str:
    """What the parties' last notices make of an agreement: suspended, terminated, or nothing."""
    with node.reading() as conn:
        last = lifecycle.standing(conn, held.agreement.agreement).values()
    steps = {notice.step for notice in last}
    return next((step for step in (TERMINATED, SUSPENDED) if step in steps), "")


# What the page has a place for; whatever else an agreement says is listed by its name.
_PLACED = {
    *("agreement", "version", "parties", "purpose", "legal_basis", "valid", "retention_days"),
    *("impact_assessment", "credit_reporting", "consent_kinds", "data", "segmentation", "jobs"),
    *("limits", "witnesses"),
}


def _further(agreement: Agreement) -> dict[str, Any]:
    said = agreement.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    return {name: value for name, value in said.items() if name not in _PLACED}


def _learned(agreement: Agreement, language: str) -> dict[str, dict[str, Any]]:
    """Each allowed job: its terms, and who would learn what from it, asked for all it may be."""
    found = {}
    for kind in Agreement.model_fields["jobs"].annotation.model_fields:  # type: ignore[union-attr]
        terms = getattr(agreement.jobs, kind)
        if terms is None:
            continue
        asked: dict[str, Any] = {"job": kind}
        if kind == "insight":
            asked["features"] = dict.fromkeys(agreement.data.partner.features, terms.statistics)
        job = Job.model_construct(**asked, agreement=agreement.agreement, purpose=agreement.purpose)
        said = terms.model_dump(mode="json", exclude_none=True)
        learns = originals.would_learn(language, sentences(agreement, job))
        found[kind] = {"terms": said, "learns": learns}
    return found
