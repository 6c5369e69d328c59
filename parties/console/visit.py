"""One request of somebody who is signed in: who they are, in which language, and what they see."""

import hmac
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from functools import partial
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Annotated, Any

from fastapi import Depends, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from compliance import people
from compliance.choices import Role
from compliance.errors import NotAllowed, UserUnknown, WrongUserKey
from compliance.people import User
from parties.console import originals, words
from parties.console.sessions import Attempts, Clock, Session, Sessions
from parties.errors import FormRefused, FormUnfit
from parties.node import Node

_LANGUAGE = "concordat-language"
_SECTIONS = (
    *("home", "approvals", "people", "agreements", "runs", "verify", "exports"),
    *("jobs", "peers"),
)
_ABOUT_PEOPLE = {"people", "exports"}  # not for engineers
_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class SignedOut(Exception):
    """Nobody is signed in, or no longer."""


@dataclass
class Console:
    """A node as the console shows it, to whoever is signed in."""

    node: Node
    port: int
    clock: Clock = monotonic
    sessions: Sessions = field(init=False)
    attempts: Attempts = field(init=False)
    opening: Lock = field(default_factory=Lock)  # one password at a time: each takes 64 MiB

    def __post_init__(self) -> None:
        self.sessions, self.attempts = Sessions(self.clock), Attempts(self.clock)

    @property
    def cookie(self) -> str:
        """Its name: browsers tell hosts apart by their cookies, and not ports."""
        return f"concordat-{self.port}"

    def used_by(self, actor: people.Actor) -> Node:
        """The node, where everything is signed by this user."""
        return self.node.used_by(actor)


@dataclass
class Visit:
    """What a page needs of the request it answers."""

    request: Request
    console: Console
    session: Session
    user: User

    @property
    def node(self) -> Node:
        return self.console.used_by(self.session.actor)

    @property
    def language(self) -> str:
        return language_of(self.request)

    def require(self, *roles: Role) -> None:
        """Raises NotAllowed."""
        if self.user.role not in roles:
            raise NotAllowed(
                f"{self.user.name} is signed in as {self.user.role}; this is for "
                f"{' or '.join(roles)}.",
                "Ask one of them; docs/roles.md says who may do what.",
            )

    def may(self, *roles: Role) -> bool:
        return self.user.role in roles

    def say(self, name: str, /, **values: Any) -> str:
        return words.say(self.language, name, **values)

    def page(self, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        notes, self.session.notes = self.session.notes, []
        return rendered(
            self.request,
            template,
            status=status,
            user=self.user,
            form_token=self.session.form_token,
            notes=[self.say(name, **said) for name, said in notes],
            may=self.may,
            sections=[
                name
                for name in _SECTIONS
                if self.may("officer", "auditor") or name not in _ABOUT_PEOPLE
            ],
            **values,
        )

    def file(self, data: bytes, name: str, media_type: str) -> Response:
        """What a browser is to save under this name."""
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(data, media_type=media_type, headers=headers)

    def go(self, path: str, note: str = "", /, **values: str) -> RedirectResponse:
        """To another page, which says what was done."""
        if note:
            self.session.notes.append((note, values))
        return RedirectResponse(path, status_code=303)


def rendered(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page, in the language of whoever asks."""
    console: Console = request.app.state.console
    language = language_of(request)

    def say(name: str, /, **said: Any) -> str:
        return words.say(language, name, **said)

    def known(name: str) -> bool:
        return words.known(language, name)

    path = request.url.path if request.method == "GET" else "/"
    shown = {
        "say": say,
        "known": known,
        "language": language,
        "languages": words.LANGUAGES,
        "institution": console.node.config.name,
        "here": path,
        "section": path.split("/")[1],
        "user": None,
        "notes": [],
        "time": words.shown_time,
        "term": partial(originals.term, language),
        "shown": partial(originals.shown_value, language),
        "error": partial(originals.error, language),
    }
    return HTMLResponse(_PAGES.get_template(template).render(shown | values), status)


def day(text: str) -> datetime | None:
    """The beginning of a day in UTC, as a field for a date gives it. Raises FormUnfit."""
    if not text:
        return None
    try:
        return datetime.combine(date.fromisoformat(text), time(), UTC)
    except ValueError as error:
        raise FormUnfit("This is no date.", "Write it as 2026-01-31.") from error


def language_of(request: Request) -> str:
    """As the switch says, or else the browser."""
    chosen = request.cookies.get(_LANGUAGE)
    if chosen in words.LANGUAGES:
        return chosen
    return words.preferred(request.headers.get("accept-language", ""))


def choose_language(request: Request, language: str, back: str) -> RedirectResponse:
    """Keeps the language for this browser, and goes back to a page of the console."""
    local = back.startswith("/") and not back.startswith(("//", "/\\"))
    answer = RedirectResponse(back if local else "/", status_code=303)
    if language in words.LANGUAGES:
        answer.set_cookie(_LANGUAGE, language, max_age=31_536_000, httponly=True, samesite="strict")
    return answer


def visit_of(request: Request) -> Visit:
    """Whoever is signed in, and still a user with this key. Raises SignedOut."""
    console: Console = request.app.state.console
    cookie = request.cookies.get(console.cookie, "")
    session = console.sessions.find(cookie)
    if session is None:
        raise SignedOut
    try:
        with console.node.reading() as conn:
            user = people.check_actor(conn, session.actor)
    except (UserUnknown, WrongUserKey) as error:
        console.sessions.close(cookie)
        raise SignedOut from error
    return Visit(request, console, session, user)


def _form(request: Request, form_token: Annotated[str, Form()] = "") -> Visit:
    """The same, for a form: it bears the session's token. Raises FormRefused."""
    visit = visit_of(request)
    if not hmac.compare_digest(form_token.encode(), visit.session.form_token.encode()):
        raise FormRefused(
            "This form is not one that was shown in this session.", "Load the page and try again."
        )
    return visit


Reading = Annotated[Visit, Depends(visit_of)]
Writing = Annotated[Visit, Depends(_form)]
Text = Annotated[str, Form(max_length=1024)]
