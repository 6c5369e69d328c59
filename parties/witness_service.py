"""A witness of its own, for a regulator: `add-checkpoint` of C2SP tlog-witness over HTTP.

Its home holds a key, the verifier keys of the logs it knows, and what it cosigned last for each. It
sees checkpoints, never entries: origins, sizes and hashes. What proves that a log was rewritten is
kept as evidence.
"""

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import uvicorn
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import Engine
from uvicorn.protocols.http.h11_impl import H11Protocol

from compliance import document, witness
from compliance.errors import MalformedNote
from compliance.note import COSIGNATURE, ED25519, VerifierKey
from compliance.signing import SigningKey
from compliance.store import open_store, read, write
from compliance.witness import MAX_REQUEST, Answer, Request, Witness
from parties.config import Address
from parties.errors import ConfigError, HomeExists, NoHome, PortBusy
from protos.errors import ConcordatError

PATH = "/add-checkpoint"
MAX_EVIDENCE = 1000  # files

_BODY_SECONDS = 10.0  # for a request to arrive
_CONNECTION_SECONDS = 60.0  # for a connection to last, whatever it says
_CONNECTIONS = 128

_logger = logging.getLogger("concordat.witness")


class WitnessConfig(BaseModel):
    """The file `witness.yaml`. With certificate and private_key, PEM files, it speaks TLS."""

    model_config = ConfigDict(extra="forbid")

    name: str
    listen: Address
    certificate: Path | None = None
    private_key: Path | None = None


class WitnessHome:
    """A witness's folder: witness.yaml, logs, keys/witness, witness.db, evidence/."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()

    @property
    def logs_file(self) -> Path:
        return self.path / "logs"

    @property
    def key_file(self) -> Path:
        return self.path / "keys" / "witness"

    def create(self, name: str, listen: str) -> VerifierKey:
        """Makes the home and a key; its verifier key. Raises HomeExists, ConfigError."""
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise HomeExists(
                f"{self.path} exists and is not empty.",
                "Choose a folder that does not exist yet; nothing was changed.",
            )
        key = SigningKey.generate()
        try:
            verifier = VerifierKey(name, key.public, COSIGNATURE)
            config = WitnessConfig(name=name, listen=listen)
        except (MalformedNote, ValidationError) as error:
            raise ConfigError(
                f"The witness cannot be called {name!r} and listen at {listen!r}.",
                "Name it like an address without a scheme, such as regulator.example/witness, and "
                "write where it listens as HOST:PORT.",
            ) from error
        self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o700)
        self.key_file.parent.mkdir(mode=0o700)
        key.save(self.key_file)
        text = yaml.safe_dump(config.model_dump(exclude_none=True), sort_keys=False)
        (self.path / "witness.yaml").write_text(text, "utf-8")
        self.logs_file.write_text("# verifier keys of the logs to cosign, one a line\n", "utf-8")
        open_store(self._store_url, create=True).dispose()
        return verifier

    @property
    def _store_url(self) -> str:
        return f"sqlite:///{self.path / 'witness.db'}"

    def store(self) -> Engine:
        """What was cosigned last. Raises E708 if it is gone: then the witness has to retire."""
        return open_store(self._store_url)

    def config(self) -> WitnessConfig:
        """Raises NoHome, ConfigError."""
        file = self.path / "witness.yaml"
        if not file.is_file():
            raise NoHome(
                f"There is no witness in {self.path}.",
                "Make one with `concordat witness init`, or name its folder.",
            )
        try:
            return WitnessConfig.model_validate(document.load(file.read_text("utf-8")))
        except (document.DocumentError, UnicodeDecodeError, ValidationError) as error:
            raise ConfigError(
                f"{file} is not what a witness can use.", "See docs/witness.md for all it may say."
            ) from error

    def key(self) -> SigningKey:
        return SigningKey.load(self.key_file)

    def verifier(self) -> VerifierKey:
        return VerifierKey(self.config().name, self.key().public, COSIGNATURE)

    def logs(self) -> list[VerifierKey]:
        """The logs it knows. Raises ConfigError."""
        lines = self.logs_file.read_text("utf-8").splitlines()
        return [_log_key(line) for line in lines if line.strip() and not line.startswith("#")]

    def add_log(self, text: str) -> VerifierKey:
        """Knows a log from now on, also while it serves. Raises ConfigError."""
        self.config()
        key = _log_key(text)
        for known in self.logs():
            if known == key:
                return key
            if known.name == key.name:
                raise ConfigError(
                    f"Another key of the log {key.name} is known already.",
                    f"Find out which is right; the keys stand in {self.logs_file}.",
                )
        with self.logs_file.open("a", encoding="utf-8") as file:
            file.write(f"{key}\n")
        return key

    def cosigned(self) -> dict[str, int]:
        """The size cosigned last for each log, by origin."""
        with read(self.store()) as conn:
            return witness.sizes(conn)


def _log_key(text: str) -> VerifierKey:
    try:
        key = VerifierKey.parse(text.strip())
    except MalformedNote as error:
        raise ConfigError(
            "That is no verifier key of a log.",
            "It is one line, NAME+ID+KEY; `concordat node keys` prints it at the node.",
        ) from error
    if key.kind != ED25519:
        raise ConfigError(
            f"The key of {key.name} is a witness's, not a log's.",
            "`concordat node keys` prints both; give the log's.",
        )
    return key


# Answering

Message = MutableMapping[str, Any]


class Service:
    """The ASGI application: one path, one method, a bounded body, a bounded wait for it."""

    def __init__(self, home: WitnessHome) -> None:
        self._home = home
        self._name, self._key = home.config().name, home.key()
        self._store = home.store()
        home.logs()

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            raise ValueError("only HTTP is spoken here")
        answer, more = await self._answer(scope, receive)
        headers = [
            (b"content-type", answer.content_type.encode()),
            (b"content-length", str(len(answer.body)).encode()),
            *more,
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(
        self, scope: Message, receive: Callable[[], Awaitable[Message]]
    ) -> tuple[Answer, list[tuple[bytes, bytes]]]:
        close = [(b"connection", b"close")]  # what is left of a request is not read
        if scope["path"] != PATH:
            return Answer(404, b"nothing is here\n"), close
        if scope["method"] != "POST":
            return Answer(405, b"only POST\n"), [(b"allow", b"POST"), *close]
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                body = await _body(receive)
        except TimeoutError:
            return Answer(408, b"the request took too long to arrive\n"), close
        if body is None:
            return Answer(413, b"larger than a checkpoint with a proof can be\n"), close
        return await asyncio.to_thread(self._add_checkpoint, body), []

    def _add_checkpoint(self, body: bytes) -> Answer:
        """Check and persist in one transaction; what it says may be sent once that is durable."""
        try:
            ours = Witness(self._name, self._key, self._home.logs())
            with write(self._store) as conn:
                answer = ours.add_checkpoint(conn, body, datetime.now(UTC))
        except ConcordatError as error:
            _logger.error("no answer: %s %s", error.code, error.message)  # noqa: TRY400 (its words)
            return Answer(503, f"{error.code}: the witness cannot answer now\n".encode())
        except Exception:
            _logger.exception("a request failed")
            return Answer(500, b"the witness failed\n")
        self._note(body, answer)
        return answer

    def _note(self, body: bytes, answer: Answer) -> None:
        """A line in the log; and what the log signed but cannot have both, kept as evidence."""
        if answer.status in {400, 404}:
            _logger.info("a request was refused: %d", answer.status)
            return
        checkpoint = Request.parse(body).checkpoint
        _logger.info("%s at %d: %d", checkpoint.origin, checkpoint.size, answer.status)
        if answer.status == 422 or (answer.status == 409 and answer.content_type == witness.TEXT):
            folder = self._home.path / "evidence"
            folder.mkdir(mode=0o700, exist_ok=True)
            file = folder / f"{sha256(body).hexdigest()}.txt"
            if not file.exists() and sum(1 for _ in folder.iterdir()) < MAX_EVIDENCE:
                file.write_bytes(body)
            _logger.warning("%s does not extend what was cosigned: %s", checkpoint.origin, file)


async def _body(receive: Callable[[], Awaitable[Message]]) -> bytes | None:
    """A request's body, or None if it is too large."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += bytes(message.get("body", b""))
        if len(body) > MAX_REQUEST:
            return None
        if not message.get("more_body", False):
            return body


class _Impatient(H11Protocol):
    """A connection that ends after a while, so that those who say nothing do not fill the place."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._limit = self.loop.call_later(_CONNECTION_SECONDS, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._limit.cancel()
        super().connection_lost(exc)


@contextmanager
def serving(home: WitnessHome) -> Iterator[uvicorn.Server]:
    """Serves in a thread until the block ends. Raises NoHome, ConfigError, PortBusy, E70x."""
    config = home.config()
    host, _, port = config.listen.rpartition(":")
    try:
        listening = socket.create_server((host, int(port)))
    except OSError as error:
        raise PortBusy(
            f"The witness cannot listen at {config.listen}.",
            "Another program has the port, or the address is not this machine's: stop that "
            f"program, or change `listen` in {home.path / 'witness.yaml'}.",
        ) from error
    with listening:
        server = uvicorn.Server(_settings(home, config))
        thread = threading.Thread(target=server.run, args=([listening],), name="witness")
        thread.start()
        try:
            yield server
        finally:
            server.should_exit = True
            thread.join()


def _settings(home: WitnessHome, config: WitnessConfig) -> uvicorn.Config:
    files = {
        name: home.path / file
        for name, file in (
            ("ssl_certfile", config.certificate),
            ("ssl_keyfile", config.private_key),
        )
        if file is not None
    }
    settings = uvicorn.Config(
        Service(home),
        http=_Impatient,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        backlog=_CONNECTIONS,
        h11_max_incomplete_event_size=16 << 10,
        timeout_graceful_shutdown=5,
        **files,  # type: ignore[arg-type]
    )
    try:
        settings.load()
    except (OSError, ValueError) as error:
        raise ConfigError(
            "The witness's certificate and private_key cannot be used.",
            "Name two PEM files that belong together; see docs/witness.md.",
        ) from error
    if settings.ssl is not None:
        settings.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    return settings
