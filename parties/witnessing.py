"""Witnesses of this node's log: its partners, and third ones that the configuration names.

Each node is the witness of its partners' logs. A third witness is a service of its own; an
agreement may require its cosignature: over the intent before any data goes out, and over all that
a run has logged for the run to count (docs/adr/0062).
"""

import http.client
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from sqlalchemy import Connection, select

from compliance import witness
from compliance.agreement import Agreement
from compliance.canonical import parse
from compliance.errors import MalformedNote, UnverifiedNote, WitnessRefused
from compliance.log import log_entries, tree_size
from compliance.note import Checkpoint, VerifierKey
from compliance.witness import Answer
from federated.errors import ProtocolViolation
from parties import rotation
from parties.config import ThirdWitness
from parties.errors import (
    PeerRefused,
    PeerUnreachable,
    WitnessMissing,
    WitnessNotConfigured,
)
from parties.identity import Identity
from parties.node import Node
from protos.errors import ConcordatError

PINNED = "witness.pinned"
DISPUTED = "witness.disputed"

_TRIES = 3  # the witness may have seen more than we know of, once; then it is consistent or not
_SECONDS = 15.0  # for a third witness to answer
_MAX_ANSWER = 64 << 10
_MAX_DISPUTES = 100  # entries


def ask(node: Node, peer: Identity) -> bool:
    """Have the partner cosign our latest checkpoint; whether it did.

    A partner that does not, or whose answer is none, is asked again after the next run. Raises
    SplitView and LogRolledBack: then one of the two logs was rewritten.
    """
    try:
        rotation.announce(node, peer)
        with node.dial(peer) as client:
            return _ask(
                node,
                VerifierKey.parse(peer.witness_key),
                lambda body: Answer(*client.add_checkpoint(body)),
            )
    except (PeerUnreachable, PeerRefused) as error:
        node.logger.warning("%s did not cosign: %s", peer.name, error.message)
    return False


def ask_third(node: Node, third: ThirdWitness) -> bool:
    """Have a third witness cosign our latest checkpoint; whether it did. Raises as `ask`."""
    pin(node, third)
    try:
        return _ask(node, third.verifier, lambda body: _post(node, third, body))
    except (OSError, http.client.HTTPException) as error:
        node.logger.warning("%s did not cosign: %s", third.name, type(error).__name__)
    return False


def ask_all(node: Node, peer: Identity) -> None:
    """After a run: the partner and all third witnesses. Raises as `ask`."""
    for third in node.config.witnesses:
        ask_third(node, third)
    ask(node, peer)


def answer(node: Node, peer: Identity, body: bytes) -> Answer:
    """Cosign a partner's checkpoint if it extends the last one. Only its own log's."""
    ours = witness.Witness(
        node.witness_key.name, node.witness_signing_key, [VerifierKey.parse(peer.log_key)]
    )
    with node.writing() as conn:
        given = ours.add_checkpoint(conn, body, node.now())
        forked = given.status == 409 and given.content_type != witness.TREE_SIZE
        if forked or given.status == 422:
            _enter_dispute(node, conn, peer, witness.Request.parse(body).checkpoint)
        return given


def _enter_dispute(node: Node, conn: Connection, peer: Identity, shown: Checkpoint) -> None:
    """Keeps, once, that a partner's log has signed a tree that does not continue its own."""
    node.logger.warning("%s shows a log that does not continue what it showed before", peer.name)
    body = {"log": shown.origin, "size": shown.size, "root": shown.root.hex()}
    query = select(log_entries.c.leaf).where(log_entries.c.type == DISPUTED).limit(_MAX_DISPUTES)
    known = [parse(leaf) for leaf in conn.execute(query).scalars()]
    if len(known) < _MAX_DISPUTES and not any(body.items() <= one.items() for one in known):
        node.log.append(conn, DISPUTED, body, time=node.now())
        node.log.checkpoint(conn)


def _ask(node: Node, key: VerifierKey, submit: Callable[[bytes], Answer]) -> bool:
    with node.reading() as conn:
        seen = witness.cosigned_size(conn, key)
    try:
        for _ in range(_TRIES):
            with node.reading() as conn:
                request = witness.request(conn, node.log, seen)
            received = submit(request.encode())
            with node.writing() as conn:
                size = witness.receive(conn, node.log, key, request, received)
            if size is None:
                return True
            seen = size
    except (WitnessRefused, MalformedNote, UnverifiedNote) as error:
        node.logger.warning("%s did not cosign: %s", key.name, error.message)
    return False


def _post(node: Node, third: ThirdWitness, body: bytes) -> Answer:
    """One request to a third witness; redirects are not followed. Raises OSError, HTTPException."""
    url = urlsplit(third.url)
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        authority = node.home.path / third.authority if third.authority else None
        context = ssl.create_default_context(cafile=authority)
        connection = http.client.HTTPSConnection(url.netloc, timeout=_SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection(url.netloc, timeout=_SECONDS)
    deadline = time.monotonic() + _SECONDS
    try:
        headers = {"Content-Type": witness.TEXT, "Connection": "close"}
        connection.request("POST", f"{url.path.rstrip('/')}/add-checkpoint", body, headers)
        response = connection.getresponse()
        text = b""
        while chunk := response.read1(_MAX_ANSWER):
            text += chunk
            if len(text) > _MAX_ANSWER or time.monotonic() > deadline:
                raise http.client.HTTPException("an answer that is too long")
    finally:
        connection.close()
    return Answer(response.status, text, response.headers.get("Content-Type", ""))


# What an agreement requires


def pin(node: Node, third: ThirdWitness) -> None:
    """Enters whose cosignatures the name stands for, on first use and whenever that changes."""
    if node.pinned_witnesses.get(third.name) == third.key:
        return
    with node.writing() as conn:
        if pinned(conn).get(third.name, [])[-1:] != [third.verifier]:
            body = {"name": third.name, "key": third.key}
            node.log.append(conn, PINNED, body, time=node.now())
            node.log.checkpoint(conn)
    node.pinned_witnesses[third.name] = third.key


def pinned(conn: Connection) -> dict[str, list[VerifierKey]]:
    """The keys that each third witness has had, as the log has them, the last one last.

    What is damaged is left out; the log's own verdict names it.
    """
    query = select(log_entries.c.leaf).where(log_entries.c.type == PINNED)
    found: dict[str, list[VerifierKey]] = {}
    for leaf in conn.execute(query.order_by(log_entries.c.index)).scalars():
        with suppress(ConcordatError, AttributeError, KeyError, TypeError):
            body = parse(leaf)
            found.setdefault(body["name"], []).append(VerifierKey.parse(body["key"]))
    return found


def required(node: Node, agreement: Agreement) -> list[ThirdWitness]:
    """The third witnesses an agreement names. Raises WitnessNotConfigured (E650)."""
    known = {third.name: third for third in node.config.witnesses}
    for name in agreement.witnesses:
        if name not in known:
            raise WitnessNotConfigured(
                f"The agreement requires the witness {name}, which this node does not know.",
                f"Add it under `witnesses` in {node.home.config_file} and start the node again.",
            )
    return [known[name] for name in agreement.witnesses]


def cosigned(node: Node, agreement: Agreement) -> bytes:
    """A checkpoint of all that is logged now, with the cosignatures an agreement requires.

    Nothing if it requires none. Raises WitnessMissing (E651).
    """
    thirds = required(node, agreement)
    if not thirds:
        return b""
    with node.reading() as conn:
        size = tree_size(conn)
    for third in thirds:
        if not ask_third(node, third):
            raise _missing(third.name)
    with node.reading() as conn:
        keys = [third.verifier for third in thirds]
        found = witness.cosigned_by_all(conn, node.log, keys, size - 1)
    if found is None:  # something else was logged meanwhile
        raise _missing(thirds[0].name)
    return found.encode()


def check_cosigned(
    node: Node, agreement: Agreement, peer: Identity, note: bytes, after: int
) -> None:
    """Raises ProtocolViolation unless the peer's checkpoint bears what the agreement requires.

    note: as `cosigned` makes it. after: a size of its log that it must be beyond.
    """
    keys: Sequence[VerifierKey] = [third.verifier for third in required(node, agreement)]
    if not keys:
        return
    try:
        checkpoint = Checkpoint.parse(note)
        checkpoint.verify(VerifierKey.parse(peer.log_key), *keys)
    except (MalformedNote, UnverifiedNote) as error:
        raise ProtocolViolation(
            f"{peer.name}'s log lacks the cosignature of {' or '.join(agreement.witnesses)}."
        ) from error
    if checkpoint.size <= after:
        raise ProtocolViolation(f"{peer.name}'s cosigned checkpoint is older than the run.")


def _missing(name: str) -> WitnessMissing:
    return WitnessMissing(
        f"The witness {name} has not cosigned the log, which the agreement requires.",
        "Nothing was released. Run the job again once the witness answers; the node's log says "
        "what came of asking it.",
    )
