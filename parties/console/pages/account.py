"""Whoever is signed in: their role, and their password."""

from fastapi import APIRouter
from fastapi.responses import Response

from compliance.signing import SigningKey
from parties.console import sealed
from parties.console.visit import Reading, Text, Writing
from parties.errors import PasswordUnfit

router = APIRouter()


@router.get("/account")
def show(visit: Reading) -> Response:
    home = visit.node.home
    return visit.page("account.html", has_password=sealed.has_password(home, visit.user.name))


@router.post("/account/password")
def change_password(visit: Writing, password: Text, again: Text) -> Response:
    """Seals the key of this session under a new password."""
    if password != again:
        raise PasswordUnfit("The two passwords differ.", "Type the same twice; nothing is changed.")
    key = visit.session.actor.key
    if not isinstance(key, SigningKey):
        raise TypeError("a session has a key of its own")
    sealed.seal(visit.node.home, visit.user.name, key, password)
    return visit.go("/account", "account.changed")
