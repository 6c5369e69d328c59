"""Agreements between this node and a partner: propose, receive, sign, show."""

import getpass
import os
from pathlib import Path

from compliance import register
from compliance.agreement import Agreement
from compliance.document import MAX_CHARACTERS
from compliance.register import Register, Registered
from compliance.signing import Envelope, keyid
from parties.errors import JobError, NotDelivered, PeerRefused, PeerUnreachable
from parties.identity import Identity
from parties.node import Node


def propose(node: Node, path: Path) -> Agreement:
    """Sign an agreement and offer it to the partner it names; again, if it was not delivered.

    Raises AgreementInvalid, AgreementConflict, UnknownPeer, NotDelivered, PeerRefused.
    """
    agreement = Agreement.from_yaml(read_document(path))
    peer = node.peer(other_party(node, agreement))
    ours, person, now = _register(node), _person(), node.now()
    with node.writing() as conn:
        held = ours.propose(conn, agreement, by=person, time=now)
        held = ours.sign(conn, held, node.signing_key, by=person, time=now)
        node.log.checkpoint(conn)
    _offer(node, peer, held)
    return agreement


def sign(node: Node, name: str, version: int | None = None) -> Registered:
    """Sign what the partner has offered, and tell it; again, if it was not delivered.

    Raises AgreementUnknown, AgreementAmbiguous, NotDelivered, PeerRefused.
    """
    ours, person = _register(node), _person()
    with node.writing() as conn:
        held = register.one(conn, name, version)
        held = ours.sign(conn, held, node.signing_key, by=person, time=node.now())
        node.log.checkpoint(conn)
    _offer(node, node.peer(other_party(node, held.agreement)), held)
    return find(node, name, held.agreement.version)


def receive(node: Node, peer: Identity, envelope: bytes) -> bytes:
    """What a partner offers or has signed; the answer carries our signature if there is one."""
    offer = Envelope.from_json(envelope)
    with node.writing() as conn:
        held = _register(node).receive(conn, offer, sender=peer.name, time=node.now())
        node.log.checkpoint(conn)
    return held.envelope.to_json()


def in_force(node: Node, name: str) -> Agreement:
    """The agreement that both have signed, signatures verified. Raises E304, E305, E306."""
    with node.reading() as conn:
        return register.in_force(conn, name, node.signing_keys())


def every(node: Node) -> list[Registered]:
    with node.reading() as conn:
        return register.every(conn)


def find(node: Node, name: str, version: int | None = None) -> Registered:
    """A version, by default the latest. Raises AgreementUnknown, AgreementBroken."""
    with node.reading() as conn:
        return register.find(conn, name, version)


def unsigned(node: Node, held: Registered) -> list[str]:
    """The parties whose signature is missing."""
    return register.unsigned(held, node.signing_keys())


def other_party(node: Node, agreement: Agreement) -> str:
    """The partner's name. Raises JobError if this node is no party."""
    parties = agreement.parties
    others = {parties.bank: parties.partner, parties.partner: parties.bank}
    if node.config.name not in others:
        raise JobError(
            f"{agreement.agreement} is between {parties.bank} and {parties.partner}; "
            f"this node is {node.config.name}.",
            "Correct `parties`, or use the node of one of them.",
        )
    return others[node.config.name]


def read_document(path: Path) -> str:
    """The text of a YAML file. Raises JobError."""
    try:
        with path.open("rb") as file:
            return file.read(4 * MAX_CHARACTERS + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise JobError(f"{path} cannot be read: {reason}.", "Name a YAML file in UTF-8.") from error


def _offer(node: Node, peer: Identity, held: Registered) -> None:
    """Send our signature; take in the partner's, if it has given one."""
    try:
        with node.dial(peer) as client:
            reply = client.offer_agreement(held.envelope.to_json())
    except PeerUnreachable as error:
        raise NotDelivered(
            f"It is signed here, but {peer.name}'s node did not answer.",
            "Give the same command again once it serves; nothing is lost.",
        ) from error
    answer = Envelope.from_json(reply)
    if keyid(peer.signing_key) in answer.signatures:
        with node.writing() as conn:
            _register(node).receive(conn, answer, sender=peer.name, time=node.now())
            node.log.checkpoint(conn)
    elif answer.payload != held.envelope.payload:
        raise PeerRefused(
            f"{peer.name} answered with another agreement.", "Ask the partner to look into it."
        )


def _person() -> str:
    """Who is at the keyboard, for the log."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container a user may have no name
        return f"user {os.getuid()}"


def _register(node: Node) -> Register:
    return Register(node.config.name, node.log, node.signing_keys())
