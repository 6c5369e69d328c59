"""What every request has to pass before a page sees it, and what every answer bears."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

MAX_BODY = 1 << 20
_SAFE = {"GET", "HEAD"}
_NAMES = ("127.0.0.1", "localhost", "[::1]")

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with less, browsers name no origin with a form
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """Only for this machine, from pages of its own, and no more than a form can hold.

    A name that resolves to loopback but is not one of ours is how a foreign page would read the
    answers (DNS rebinding); a form whose origin is another page is how it would act for whoever is
    signed in.
    """

    def __init__(self, app: Application, port: int) -> None:
        self._app = app
        self._hosts = {f"{name}:{port}".encode() for name in _NAMES}
        self._origins = {b"http://" + host for host in self._hosts}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError("only HTTP is spoken here")
        headers = dict(scope["headers"])

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *own]
            await send(message)

        if headers.get(b"host") not in self._hosts:
            await _refuse(guarded, 421, "This name is not the console's: use the address it said.")
        elif scope["method"] not in _SAFE and headers.get(b"origin") not in self._origins:
            await _refuse(guarded, 403, "This form is not one of the console's own pages.")
        elif (body := await _body(headers, receive)) is None:
            await _refuse(guarded, 413, "This is larger than anything the console takes.")
        else:
            await self._app(scope, _again(body, receive), guarded)


async def _body(headers: dict[bytes, bytes], receive: Receive) -> bytes | None:
    """The whole of a request's body; None if it is too large."""
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or len(length) > 10 or int(length) > MAX_BODY:
        return None
    parts, size = [], 0
    while True:
        message = await receive()
        part = bytes(message.get("body", b""))
        parts.append(part)
        size += len(part)
        if size > MAX_BODY:
            return None
        if message["type"] != "http.request" or not message.get("more_body", False):
            return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """The body at once, then whatever else comes."""
    given = False

    async def first() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return first


async def _refuse(send: Send, status: int, text: str) -> None:
    body = text.encode() + b"\n"
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
