"""A node with users, and somebody who uses its console without a browser."""

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from parties import people
from parties.console import app, sealed
from parties.console.visit import Console
from parties.node import Node

PORT = 8460
PASSWORD = "correct horse battery"
USERS = {"li": "officer", "he": "officer", "wang": "engineer", "audra": "auditor"}


_CHEAP = {"time_cost": 1, "memory_cost": 64, "parallelism": 1}
_SHIPPED = dict(sealed.COST)


@contextmanager
def cheap_passwords(cost: Mapping[str, int] = _CHEAP) -> Iterator[None]:
    """Passwords that take no time, for tests that are not about that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealed, "COST", dict(cost))
        yield


def shipped_passwords() -> AbstractContextManager[None]:
    return cheap_passwords(_SHIPPED)


class Clock:
    """Seconds, as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def as_user(node: Node, name: str) -> Node:
    """The node as a command of that user opens it."""
    opened = Node.open(node.home)
    opened.actor = people.actor(node.home, name, None, None)
    return opened


def staff(node: Node) -> None:
    """li and he, officers; wang, an engineer; audra, an auditor: each with PASSWORD."""
    people.add(node, "li", "officer")
    li = as_user(node, "li")
    for name in ("wang", "audra", "he"):
        people.add(li, name, USERS[name])
    for name in USERS:
        sealed.seal(node.home, name, *people.signing(as_user(node, name))[1:], PASSWORD)


class Visitor:
    """Somebody at the console, as a browser would be: with cookies, and an origin on forms."""

    def __init__(self, console: Console) -> None:
        base = f"http://127.0.0.1:{console.port}"
        self.http = TestClient(app.make(console), base, follow_redirects=False)
        self.http.headers["origin"] = base

    def get(self, path: str, **more: Any) -> Response:
        return self.http.get(path, **more)

    def see(self, path: str) -> str:
        """A page that is there."""
        found = self.get(path)
        assert found.status_code == 200, (path, found.status_code, found.text)
        return found.text

    def token(self) -> str:
        """The session's form token, as every page has it."""
        return re.search(r'name="form_token" value="([^"]+)"', self.see("/account"))[1]

    def post(self, path: str, **fields: Any) -> Response:
        return self.http.post(path, data={"form_token": self.token(), **fields})

    def do(self, path: str, **fields: Any) -> str:
        """A form that is taken; the page that says so."""
        answer = self.post(path, **fields)
        assert answer.status_code == 303, (path, answer.status_code, answer.text)
        return self.see(answer.headers["location"])

    def sign_in(self, name: str, password: str = PASSWORD) -> Response:
        return self.http.post("/sign-in/password", data={"name": name, "password": password})


def signed_in(console: Console, name: str) -> Visitor:
    visitor = Visitor(console)
    assert visitor.sign_in(name).status_code == 303
    return visitor
