"""What every verb of `concordat` has in common: its options, who acts, how a failure is said."""

import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer
from rich.console import Console
from rich.markup import escape

from parties.errors import PersonUnclear
from parties.later import Later
from protos.errors import ConcordatError

if TYPE_CHECKING:
    from parties import consents, people
    from parties.config import Home
    from parties.node import Node
else:
    consents = Later("parties.consents")
    people = Later("parties.people")
    Home = Later("parties.config", "Home")
    Node = Later("parties.node", "Node")

HomePath = Annotated[Path, typer.Argument(metavar="HOME", help="The node's home folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

_STDIN = "; - reads it from standard input"
Phone = Annotated[str | None, typer.Option(help=f"Whom, by a phone number{_STDIN}.")]
Email = Annotated[str | None, typer.Option(help=f"Whom, by an email address{_STDIN}.")]
ResidentId = Annotated[
    str | None, typer.Option(help=f"Whom, by a Chinese resident identity number{_STDIN}.")
]
CompanyCode = Annotated[
    str | None, typer.Option(help=f"Whom, by a unified social credit code{_STDIN}.")
]
# Not a terminal: a file has no width to keep to.
_WIDTH = None if sys.stdout.isatty() else 120
out = Console(soft_wrap=True, highlight=False, width=_WIDTH)
err = Console(stderr=True, soft_wrap=True, highlight=False)


def say(failure: ConcordatError, *, as_json: bool) -> None:
    """A failure in the user's words, on standard error; as JSON on standard output."""
    if as_json:
        fields = {
            "code": failure.code,
            "message": failure.message,
            "next_step": failure.next_step,
        }
        print(json.dumps({"error": fields}))
        return
    err.print(f"[bold red]{failure.code}[/] {escape(failure.message)}")
    err.print(f"     {escape(failure.next_step)}")
    err.print(f"     [dim]More: docs/errors/{failure.code}.md[/]")


P = ParamSpec("P")


def verb(command: Callable[P, None]) -> Callable[P, None]:
    """A verb whose failures are said in the user's words; exits 1."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except ConcordatError as failure:
            say(failure, as_json=bool(kwargs.get("as_json", False)))
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            err.print("Stopped.")
            raise typer.Exit(130) from None

    return run


# Who acts, for the verb under way; CONCORDAT_USER and CONCORDAT_KEY say it for several.
_user: tuple[str | None, Path | None] = (None, None)

_ACTING = {
    "acting_as": Annotated[
        str | None,
        typer.Option("--as", envvar="CONCORDAT_USER", help="The user who acts, if there are any."),
    ],
    "acting_key": Annotated[
        Path | None,
        typer.Option("--key", envvar="CONCORDAT_KEY", help="The file of that user's private key."),
    ],
}


def act(command: Callable[..., None]) -> Callable[..., None]:
    """A verb that a user may have to sign for: has --as and --key, which `open_node` heeds."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        global _user  # noqa: PLW0603 (one verb a process, or one after the other)
        _user = (kwargs.pop("acting_as"), kwargs.pop("acting_key"))
        command(*args, **kwargs)

    form = signature(command)
    more = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in _ACTING.items()
    ]
    run.__signature__ = form.replace(  # type: ignore[attr-defined]
        parameters=[*form.parameters.values(), *more]
    )
    run.__annotations__ = {**command.__annotations__, **_ACTING}
    return verb(run)


def open_node(home: Path) -> "Node":
    """The node, used by whom --as names."""
    opened = Node.open(Home(home))
    name, key = _user
    if name is not None:
        opened.actor = people.actor(opened.home, name, key, _passphrase(key, opened.home, name))
    return opened


def _passphrase(key: Path | None, home: "Home", name: str) -> str | None:
    """The passphrase of a key that has one: CONCORDAT_PASSPHRASE, or asked for."""
    path = key or people.user_key(home, name)
    if not path.is_file() or b"ENCRYPTED" not in path.read_bytes()[:64]:
        return None
    given = os.environ.get("CONCORDAT_PASSPHRASE")
    return given or str(typer.prompt(f"Passphrase of {name}'s key", hide_input=True, err=True))


def person_named(home: Path, **identifiers: str | None) -> "tuple[Node, str]":
    """The node, and how its vault knows a person. Raises PersonUnclear."""
    given = {kind: value for kind, value in identifiers.items() if value is not None}
    if len(given) != 1:
        raise PersonUnclear(
            f"One identifier says whose consent it is; there are {len(given)}.",
            "Give one of --phone, --email, --resident-id and --company-code.",
        )
    ((kind, value),) = given.items()
    opened = open_node(home)
    text = sys.stdin.readline(1024).strip() if value == "-" else value
    return opened, consents.subject_of(opened, kind, text)
