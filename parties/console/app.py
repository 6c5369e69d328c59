"""The console's application: its pages put together, sign-ins, and what a failure looks like."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, File, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from compliance import people as users
from compliance.errors import (
    AgreementUnknown,
    KeyFileError,
    MustSign,
    NotAllowed,
    NoticeUnknown,
    PersonUnknown,
    ProposalUnknown,
    TwoPeople,
    UserConflict,
    UserUnknown,
    WrongUserKey,
)
from compliance.people import Actor
from compliance.signing import SigningKey
from parties import people
from parties.console import sealed
from parties.console.guard import Application, Guard
from parties.console.pages import (
    account,
    agreements,
    approvals,
    exports,
    features,
    home,
    jobs,
    peers,
    runs,
    verify,
)
from parties.console.pages import people as persons
from parties.console.visit import (
    Console,
    SignedOut,
    Text,
    Writing,
    choose_language,
    rendered,
    visit_of,
)
from parties.errors import FormRefused, SignInLimited, SignInRefused, UnknownRun
from parties.people import check_name
from protos.errors import ConcordatError

_HERE = Path(__file__).parent

# What a failure is in HTTP; others are 400, a user's mistake.
_STATUS: dict[type[ConcordatError], int] = {
    SignInRefused: 401,
    SignInLimited: 429,
    FormRefused: 403,
    NotAllowed: 403,
    TwoPeople: 403,
    UnknownRun: 404,
    AgreementUnknown: 404,
    ProposalUnknown: 404,
    PersonUnknown: 404,
    NoticeUnknown: 404,
}


def make(console: Console) -> Application:
    """The application, which answers at this port of loopback alone."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.state.console = console
    app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")
    app.state.verifications = verify.Verifications()
    for page in (
        *(home, account, approvals, persons, agreements),
        *(runs, verify, exports, jobs, peers, features),
    ):
        app.include_router(page.router)
    app.add_api_route("/sign-in", _sign_in_page, methods=["GET"])
    app.add_api_route("/sign-in/password", _with_password, methods=["POST"])
    app.add_api_route("/sign-in/key", _with_key, methods=["POST"])
    app.add_api_route("/sign-out", _sign_out, methods=["POST"])
    app.add_api_route("/language/{language}", choose_language, methods=["GET"])
    app.add_exception_handler(SignedOut, _signed_out)
    app.add_exception_handler(ConcordatError, _failed)
    app.add_exception_handler(RequestValidationError, _not_understood)
    app.add_exception_handler(HTTPException, _not_found)
    app.add_exception_handler(Exception, _broken)
    return Guard(app, console.port)


# Signing in


def _sign_in_page(request: Request, expired: bool = False) -> Response:
    return _sign_in_form(request, expired=expired)


def _sign_in_form(request: Request, *, status: int = 200, **values: Any) -> Response:
    node = request.app.state.console.node
    with node.reading() as conn:
        anybody = users.any_users(conn)
    shown = {"anybody": anybody, "folder": node.home.path, "expired": False, "failure": None}
    return rendered(request, "sign_in.html", status=status, **(shown | values))


def _with_password(request: Request, name: Text, password: Text) -> Response:
    console: Console = request.app.state.console

    def opened() -> SigningKey | None:
        check_name(name)
        with console.opening:
            return sealed.unseal(console.node.home, name, password)

    return _sign_in(request, name, opened)


def _with_key(
    request: Request,
    name: Text,
    key: Annotated[UploadFile, File()],
    passphrase: Text = "",
) -> Response:
    """The file is held in memory only, which the limit on a request sees to."""
    return _sign_in(request, name, lambda: SigningKey.from_pem(key.file.read(), passphrase))


def _sign_in(request: Request, name: str, opened: Any) -> Response:
    """Signs in whoever has the key; that they did is an entry of the log, signed by them."""
    console: Console = request.app.state.console
    try:
        console.attempts.check(name)
        actor = _actor(console, name, opened)
    except (SignInRefused, SignInLimited) as failure:
        return _sign_in_form(request, status=_status(failure), failure=failure)
    people.read(console.used_by(actor), "console")
    answer = RedirectResponse("/", status_code=303)
    answer.set_cookie(
        console.cookie, console.sessions.open(actor), httponly=True, samesite="strict"
    )
    return answer


def _actor(console: Console, name: str, opened: Any) -> Actor:
    """Raises SignInRefused, in the same words whatever was wrong."""
    try:
        key = opened()
        if key is not None:
            actor = Actor(name, key)
            with console.node.reading() as conn:
                users.check_actor(conn, actor)
            console.attempts.succeeded(name)
            return actor
    except (KeyFileError, MustSign, UserConflict, UserUnknown, WrongUserKey):
        pass
    console.attempts.failed(name)
    console.node.logger.warning("a sign-in at the console was refused")
    raise SignInRefused(
        "The name and the password or key do not belong together.",
        "Try again. A user without a password signs in with the key, and then chooses one.",
    )


def _sign_out(visit: Writing) -> Response:
    console = visit.console
    console.sessions.close(visit.request.cookies.get(console.cookie, ""))
    answer = RedirectResponse("/sign-in", status_code=303)
    answer.delete_cookie(console.cookie)
    return answer


# Failures


def _signed_out(request: Request, _: Exception) -> Response:
    had = request.app.state.console.cookie in request.cookies
    return RedirectResponse("/sign-in?expired=true" if had else "/sign-in", status_code=303)


def _status(failure: ConcordatError) -> int:
    return next((code for kind, code in _STATUS.items() if isinstance(failure, kind)), 400)


def _failed(request: Request, failure: Exception) -> Response:
    if not isinstance(failure, ConcordatError):
        raise failure
    return _failure_page(request, _status(failure), failure=failure)


def _not_understood(request: Request, _: Exception) -> Response:
    return _failure_page(request, 400, title="failure.form")


def _not_found(request: Request, failure: Exception) -> Response:
    status = failure.status_code if isinstance(failure, HTTPException) else 500
    return _failure_page(request, status, title="failure.missing")


def _broken(request: Request, _: Exception) -> Response:
    """What the server logs, with its trace; whoever looks is told that there is something."""
    return _failure_page(request, 500, title="failure.broken")


def _failure_page(request: Request, status: int, **values: Any) -> Response:
    shown: dict[str, Any] = {"failure": None, "title": "failure.other"} | values
    try:
        return visit_of(request).page("failure.html", status=status, **shown)
    except (SignedOut, ConcordatError):
        return rendered(request, "failure.html", status=status, **shown)
