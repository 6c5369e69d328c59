"""Agreements between this node and a partner: propose, sign, receive, suspend, show."""

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection

from compliance import budget, differencing, lifecycle, people, register
from compliance.agreement import Agreement
from compliance.document import MAX_CHARACTERS
from compliance.errors import AgreementUnknown
from compliance.lifecycle import Notice, Step
from compliance.log import Log
from compliance.people import Proposal
from compliance.register import Register, Registered
from compliance.signing import Envelope, keyid
from parties import catalogue
from parties.errors import JobError, NotDelivered, PeerRefused, PeerUnreachable
from parties.identity import Identity
from parties.node import Node
from parties.wire import PeerClient


def propose(node: Node, path: Path) -> Agreement:
    """`propose_document` of a file. Raises JobError, too."""
    return propose_document(node, read_document(path))


def propose_document(node: Node, text: str) -> Agreement:
    """Sign an agreement and offer it to the partner it names; again, if it was not delivered.

    On a node with users it waits for another officer first: see `waiting`. Raises
    AgreementInvalid, AgreementConflict, NoticeRefused, UnknownPeer, NotDelivered, PeerRefused,
    E32x.
    """
    agreement = Agreement.from_yaml(text)
    peer = node.peer(other_party(node, agreement))
    with node.writing() as conn:
        log = people.acting(conn, node.log, node.actor)
        lifecycle.check_open(conn, agreement.agreement)
        ours = _register(node, log)
        held = ours.propose(conn, agreement, by=node.actor.name, time=node.now())
        held = _sign(node, conn, ours, held)
        log.checkpoint(conn)
    if _signed_here(node, held):
        _offer(node, peer, held)
    return agreement


def sign(node: Node, name: str, version: int | None = None) -> Registered:
    """Sign what the partner has offered, and tell it; again, if it was not delivered.

    On a node with users it waits for another officer first: see `waiting`. Raises
    AgreementUnknown, AgreementAmbiguous, NoticeRefused, NotDelivered, PeerRefused, E32x.
    """
    with node.writing() as conn:
        log = people.acting(conn, node.log, node.actor)
        lifecycle.check_open(conn, name)
        held = register.one(conn, name, version)
        held = _sign(node, conn, _register(node, log), held)
        log.checkpoint(conn)
    if _signed_here(node, held):
        _offer(node, node.peer(other_party(node, held.agreement)), held)
    return find(node, name, held.agreement.version)


def _sign(node: Node, conn: Connection, ours: Register, held: Registered) -> Registered:
    """Signs, or on a node with users proposes to."""
    catalogue.check(held.agreement)
    if _signed_here(node, held):
        return held
    if not isinstance(ours.log, people.ActingLog):
        return ours.sign(conn, held, node.signing_key, by=node.actor.name, time=node.now())
    body = {
        "agreement": held.agreement.agreement,
        "version": held.agreement.version,
        "digest": held.agreement.digest.hex(),
        "key": node.signing_key.keyid,
    }
    people.propose(conn, ours.log, "agreement.signed", body, time=node.now())
    return held


def _signed_here(node: Node, held: Registered) -> bool:
    return node.signing_key.keyid in held.envelope.signatures


def carry_out_signing(
    node: Node, conn: Connection, log: Log, approved: Proposal
) -> Callable[[], None]:
    """Gives the institution's signature that another officer has approved; then it is offered."""
    name, version = approved.body["agreement"], approved.body["version"]
    lifecycle.check_open(conn, name)
    held = register.find(conn, name, version)
    peer = node.peer(other_party(node, held.agreement))
    ours = _register(node, log)
    held = ours.sign(conn, held, node.signing_key, by=node.actor.name, time=node.now())
    return lambda: _offer(node, peer, held, again=f"concordat agreement sign HOME {name}")


def waiting(node: Node, name: str, version: int | None = None) -> list[Proposal]:
    """What waits for another officer's approval about an agreement, oldest first."""
    with node.reading() as conn:
        return [
            proposal
            for proposal in people.pending(conn)
            if proposal.body.get("agreement") == name
            and version in {None, proposal.body.get("version")}
        ]


# Suspending, resuming, terminating


def declare(node: Node, name: str, step: Step, reason: str) -> Notice | Proposal:
    """Suspend, resume or terminate an agreement: it holds at once, and the partner is told.

    On a node with users, resuming and terminating waits for another officer: the proposal. The
    same again tells a partner that did not answer. Raises AgreementUnknown, AgreementUnsigned,
    NoticeRefused, NotDelivered, E32x.
    """
    with node.writing() as conn:
        log = people.acting(conn, node.log, node.actor)
        stands = lifecycle.standing(conn, name).get(node.config.name)
        two = isinstance(log, people.ActingLog) and people.takes_two(f"agreement.{step}", 2)
        if two and (stands is None or stands.step != step):
            lifecycle.check_step(conn, _register(node, log), name, step)
            body = {"agreement": name, "reason": reason, "key": node.signing_key.keyid}
            proposal = people.propose(conn, log, f"agreement.{step}", body, time=node.now())
            log.checkpoint(conn)
            return proposal
        notice, peer = _declare(node, conn, log, name, step, reason=reason)
        log.checkpoint(conn)
    return _tell(node, peer, notice)


def carry_out_step(
    node: Node, conn: Connection, log: Log, approved: Proposal
) -> Callable[[], object]:
    """Declares what another officer has approved; then the partner is told."""
    step: Step = "resumed" if approved.act == "agreement.resumed" else "terminated"
    name, reason = approved.body["agreement"], approved.body["reason"]
    notice, peer = _declare(node, conn, log, name, step, reason=reason)
    verb = {"resumed": "resume", "terminated": "terminate"}[step]
    again = f"concordat agreement {verb} HOME {name}"
    return lambda: _tell(node, peer, notice, again=again)


def _declare(
    node: Node, conn: Connection, log: Log, name: str, step: Step, *, reason: str
) -> tuple[Notice, Identity]:
    ours = _register(node, log)
    by, now, key = node.actor.name, node.now(), node.signing_key
    notice = lifecycle.declare(conn, ours, name, step, key, reason=reason, by=by, time=now)
    agreement = register.latest_signed(conn, name, ours.keys)
    return notice, node.peer(other_party(node, agreement))


def _tell(node: Node, peer: Identity, notice: Notice, *, again: str = "") -> Notice:
    """Send a notice, after those the partner has missed; keep what acknowledges each.

    again: the command that sends it again, if it is another than was given. Raises NotDelivered,
    PeerRefused.
    """
    with node.reading() as conn:
        missed = lifecycle.unacknowledged(conn, notice.agreement)
    own = [one for one in missed if one.party == notice.party]
    try:
        with node.dial(peer) as client:
            for one in own:
                notice = tell(node, client, peer, one)
    except PeerUnreachable as error:
        raise NotDelivered(
            f"It holds here, but {peer.name}'s node did not answer and has not been told.",
            _told_later(again),
        ) from error
    return notice


def tell(node: Node, client: PeerClient, peer: Identity, notice: Notice) -> Notice:
    """Sends one notice; as its acknowledgement has left it. Raises E612, E613."""
    # By the key that the partner knows now: it may be another than when the notice was made.
    signed = notice.envelope.sign(node.signing_key)
    answer = Envelope.from_json(client.offer_agreement(signed.to_json()))
    return _acknowledged(node, peer, notice, answer)


def recipient(node: Node, notice: Notice) -> str:
    """The partner that a notice of this node's is for. Raises E304, E306."""
    return other_party(node, find(node, notice.agreement).agreement)


def _acknowledged(node: Node, peer: Identity, notice: Notice, answer: Envelope) -> Notice:
    signature = answer.signatures.get(keyid(peer.signing_key))
    if answer.payload != notice.envelope.payload or signature is None:
        raise PeerRefused(
            f"{peer.name} did not acknowledge the notice.", "Ask the partner to look into it."
        )
    ours, now = _register(node, node.log), node.now()
    with node.writing() as conn:
        notice = lifecycle.acknowledge(
            conn, ours, notice, peer.signing_key, signature, by=peer.name, time=now
        )
        node.log.checkpoint(conn)
    return notice


def notices(node: Node, name: str) -> list[Notice]:
    """What either party has declared about an agreement, oldest first."""
    with node.reading() as conn:
        return lifecycle.every(conn, name)


def receive(node: Node, peer: Identity, envelope: bytes) -> bytes:
    """What a partner offers, signs or declares; the answer bears our signature if there is one."""
    offer = Envelope.from_json(envelope)
    ours, now = _register(node, node.log), node.now()
    with node.writing() as conn:
        if offer.payload_type == lifecycle.PAYLOAD_TYPE:
            key = node.signing_key
            answer = lifecycle.receive(conn, ours, offer, key, sender=peer.name, time=now).envelope
        else:
            answer = ours.receive(conn, offer, sender=peer.name, time=now).envelope
        node.log.checkpoint(conn)
    return answer.to_json()


def in_force(node: Node, name: str) -> Agreement:
    """The agreement that both have signed, signatures verified, not suspended or terminated.

    Raises E304, E305, E306, E310.
    """
    with node.reading() as conn:
        return lifecycle.in_force(conn, name, node.signing_keys())


def every(node: Node) -> list[Registered]:
    with node.reading() as conn:
        return register.every(conn)


def find(node: Node, name: str, version: int | None = None) -> Registered:
    """A version, by default the latest. Raises AgreementUnknown, AgreementBroken."""
    with node.reading() as conn:
        return register.find(conn, name, version)


def signed_here(node: Node) -> list[tuple[str, int]]:
    """The agreements that this node has signed with its present key, and that may come to matter.

    By name and version: no terminated ones, and none that a newer one has replaced.
    """
    with node.reading() as conn:
        signed = register.signed_by(conn, node.signing_key.keyid)
        return [
            (name, version)
            for name, version in signed
            if all(one.step != "terminated" for one in lifecycle.standing(conn, name).values())
        ]


def versions(
    node: Node, name: str, old: int | None, new: int | None
) -> tuple[Agreement, Agreement]:
    """Two versions to compare, by default the last two. Raises AgreementUnknown."""
    after = find(node, name, new).agreement
    if old is None:
        known = [held.agreement.version for held in every(node) if held.agreement.agreement == name]
        earlier = [version for version in known if version < after.version]
        if not earlier:
            raise AgreementUnknown(
                f"There is no version of {name} before version {after.version}.",
                "Name the two versions with --old and --new.",
            )
        old = max(earlier)
    return find(node, name, old).agreement, after


def unsigned(node: Node, held: Registered) -> list[str]:
    """The parties whose signature is missing."""
    return register.unsigned(held, node.signing_keys())


def budget_left(node: Node, agreement: Agreement) -> str | None:
    """What is left of its privacy budget, in words; None if it has none."""
    terms = agreement.noise
    with node.reading() as conn:
        left = budget.remaining(conn, agreement, now=node.now())
    if terms is None or left is None:
        return None
    return (
        f"epsilon {left} of {terms.budget.epsilon} is left this {terms.budget.per}; "
        f"a run with noise spends {terms.epsilon}"
    )


def cells_left(node: Node, agreement: Agreement) -> str | None:
    """How many figures without noise its period may still have, in words; None if it has none."""
    with node.reading() as conn:
        left = differencing.cells_left(conn, agreement, now=node.now())
    if agreement.period is None or left is None:
        return None
    return (
        f"{left:,} of {agreement.period.cells:,} without noise are left this {agreement.period.per}"
    )


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


def _told_later(command: str) -> str:
    what = f"`{command}`" if command else "the same command again"
    return f"This node tells it by itself while it serves; {what} does so at once."


def _offer(node: Node, peer: Identity, held: Registered, *, again: str = "") -> None:
    """`offer` at once. again: as for `_tell`. Raises NotDelivered, PeerRefused."""
    try:
        with node.dial(peer) as client:
            offer(node, client, peer, held)
    except PeerUnreachable as error:
        raise NotDelivered(
            f"It is signed here, but {peer.name}'s node did not answer and has not been told.",
            _told_later(again),
        ) from error


def offer(node: Node, client: PeerClient, peer: Identity, held: Registered) -> None:
    """Sends our signature; takes in the partner's, if it has given one. Raises E612, E613."""
    answer = Envelope.from_json(client.offer_agreement(held.envelope.to_json()))
    if keyid(peer.signing_key) in answer.signatures:
        with node.writing() as conn:
            _register(node, node.log).receive(conn, answer, sender=peer.name, time=node.now())
            node.log.checkpoint(conn)
    elif answer.payload != held.envelope.payload:
        raise PeerRefused(
            f"{peer.name} answered with another agreement.", "Ask the partner to look into it."
        )


def _register(node: Node, log: Log) -> Register:
    return Register(node.config.name, log, node.signing_keys())
