"""What waits for a second person, and what became of what waited."""

from typing import get_args

from fastapi import APIRouter
from fastapi.responses import Response

from compliance.people import ABOUT_PEOPLE, MAX_REASON, OPEN
from federated.identifiers import Kind
from parties import consents, people
from parties.console.visit import Reading, Text, Writing
from parties.errors import FormUnfit

router = APIRouter()

_DECIDED = 50  # shown of those that were


@router.get("/approvals")
def show(visit: Reading) -> Response:
    """What waits, oldest first; below it what was decided, newest first."""
    known = people.proposals(visit.node, decided=True)
    return visit.page(
        "approvals.html",
        waiting=[one for one in known if one.state == OPEN],
        decided=[one for one in reversed(known) if one.state != OPEN][:_DECIDED],
        longest=MAX_REASON,
        kinds=get_args(Kind),
        about_people=ABOUT_PEOPLE,
    )


@router.post("/approvals/{proposal}/approve")
def approve(
    visit: Writing,
    proposal: str,
    *,
    reason: Text = "",
    back: Text = "",
    kind: Text = "",
    identifier: Text = "",
) -> Response:
    """As another officer than proposed it; it is carried out at once.

    kind, identifier: whom it is about, if it is about a person.
    """
    node, whom = visit.node, identifier.strip()
    subject = consents.subject_of(node, kind, whom) if whom else None
    people.approve(node, proposal, _short(reason), subject=subject)
    return visit.go(_from(back), "approvals.was_approved")


@router.post("/approvals/{proposal}/refuse")
def refuse(visit: Writing, proposal: str, reason: Text = "", back: Text = "") -> Response:
    """With a reason."""
    if not reason.strip():
        raise FormUnfit("A refusal needs a reason.", "Say in a few words why.")
    people.refuse(visit.node, proposal, _short(reason))
    return visit.go(_from(back), "approvals.was_refused")


def _from(back: str) -> str:
    """Where the form was; nowhere but in the console."""
    return back if back.startswith("/agreements/") else "/approvals"


def _short(reason: str) -> str:
    if len(reason) > MAX_REASON:
        raise FormUnfit(
            f"The reason is longer than {MAX_REASON} characters.", "Say it in fewer words."
        )
    return reason.strip()
