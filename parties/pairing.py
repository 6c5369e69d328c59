"""Pairing: an invitation, and a fingerprint read over the phone.

The fingerprint tells the accepting side whom it talks to; holding the invitation, a secret file
good once, tells the inviting side. Agreements, signed with the pinned keys, come after.
"""

import secrets
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError
from sqlalchemy import Connection

from parties.errors import HandshakeRefused, InvitationError
from parties.files import write_private
from parties.identity import (
    INVITATION,
    INVITATION_LIFETIME,
    Identity,
    certificate_pem,
    key_pem,
)
from parties.node import PAIRED, Node
from parties.peers import pin, record_invitation, use_invitation

_MAX_BYTES = 64 << 10


def invite(node: Node, path: Path) -> None:
    """Write an invitation. Raises InvitationError if the file exists or cannot be written."""
    now = node.now()
    certificate, key = node.authority().issue(INVITATION, now, INVITATION_LIFETIME)
    expires_at = now + INVITATION_LIFETIME
    invitation = _Invitation(
        inviter=node.identity.to_json(),
        expires_at=expires_at,
        certificate=certificate_pem(certificate).decode(),
        key=key_pem(key).decode(),
    )
    try:
        write_private(path, invitation.model_dump_json(indent=2).encode() + b"\n")
    except OSError as error:
        raise InvitationError(
            f"The invitation could not be written to {path}: {error.strerror or 'it exists'}.",
            "Choose another file name.",
        ) from error
    with node.writing() as conn:
        record_invitation(conn, certificate.serial_number, expires_at)


def accept(node: Node, path: Path, fingerprint: str) -> Identity:
    """Check an invitation against the fingerprint, pair with the inviter and pin it.

    Raises InvitationError, PeerUnreachable, PeerRefused.
    """
    inviter, key, certificate = _read(path, node.now())
    digits = "".join(fingerprint.lower().replace("-", " ").replace(":", " ").split())
    if not secrets.compare_digest(digits.encode(), inviter.fingerprint.encode()):
        raise InvitationError(
            "The fingerprint does not belong to this invitation; nothing was changed.",
            "Have the partner read it again. If it still differs, the file is not theirs.",
        )
    with node.dial(inviter, (key, certificate)) as client:
        if client.pair(node.identity) != inviter:
            raise InvitationError(
                "The node that answered is not the one that sent the invitation.",
                "Ask the partner for a new invitation.",
            )
    with node.writing() as conn:
        _pin(node, conn, inviter)
    return inviter


def answer(node: Node, invitation: str, identity: Identity) -> Identity:
    """The inviting node's half: spend the invitation and pin whoever held it."""
    with node.writing() as conn:
        use_invitation(conn, invitation, identity.name)
        _pin(node, conn, identity)
    return node.identity


def _pin(node: Node, conn: Connection, peer: Identity) -> None:
    if pin(conn, peer, node.identity, node.now()):
        body = {"peer": peer.name, "fingerprint": peer.fingerprint}
        node.log.append(conn, PAIRED, body, time=node.now())
        node.log.checkpoint(conn)


class _Invitation(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal["concordat invitation 1"] = "concordat invitation 1"
    inviter: dict[str, str]
    expires_at: AwareDatetime
    certificate: str
    key: str


def _read(path: Path, now: datetime) -> tuple[Identity, bytes, bytes]:
    """Who invites, and the key and certificate to answer with. Raises InvitationError."""
    try:
        with path.open("rb") as file:
            invitation = _Invitation.model_validate_json(file.read(_MAX_BYTES))
        inviter = Identity.from_json(invitation.inviter)
    except OSError as error:
        raise InvitationError(
            f"The invitation {path} cannot be read: {error.strerror}.", "Check the file's name."
        ) from error
    except (ValidationError, HandshakeRefused) as error:
        raise InvitationError(
            f"{path} is no invitation.", "Ask the partner to send it again, unchanged."
        ) from error
    if invitation.expires_at <= now:
        raise InvitationError(
            f"The invitation expired on {invitation.expires_at:%Y-%m-%d at %H:%M} UTC.",
            "Ask the partner for a new one.",
        )
    return inviter, invitation.key.encode(), invitation.certificate.encode()
