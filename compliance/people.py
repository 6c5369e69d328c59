"""Who acts at a node: users with a role and a key of their own, and what takes two of them.

While a node has no users, whoever may open its home acts for the institution. From the first user
on every act is signed by the user whose it is: the signature lies in the entry, over all that the
entry says, so that the log itself shows who did what. What may not be one person's decision is a
proposal first: the entry that is to be written, which another officer approves or refuses. An
approved one is written once, in the transaction of its approval (docs/adr/0060).
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from secrets import token_bytes, token_hex
from typing import Any, Protocol

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    LargeBinary,
    Row,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    update,
)

from compliance.canonical import canonical, from_base64, parse, timestamp, to_base64
from compliance.choices import ROLES
from compliance.errors import (
    InvalidSignature,
    LastOfficer,
    MustSign,
    NotAllowed,
    ProposalDecided,
    ProposalUnfit,
    ProposalUnknown,
    TwoPeople,
    UserConflict,
    UserUnknown,
    WrongUserKey,
)
from compliance.log import Log
from compliance.signing import PUBLIC_KEY_BYTES, keyid, pae, verify
from compliance.store import metadata

PAYLOAD_TYPE = "application/vnd.concordat.entry+json"
MAX_REASON = 256  # characters
ONCE_BYTES = 16  # random, in what a user signs

# Who may write which entries; of every other type, whoever is no auditor.
_OFFICER = frozenset({"officer"})
_STAFF = frozenset({"engineer", "officer"})
_MAY: dict[str, frozenset[str]] = {
    "user.added": _OFFICER,
    "user.changed": _OFFICER,
    "user.removed": _OFFICER,
    "proposal.made": _STAFF,
    "proposal.approved": _OFFICER,
    "proposal.refused": _STAFF,
    "agreement.proposed": _STAFF,
    "agreement.suspended": _OFFICER,
    "agreement.signed": _STAFF,  # these as proposals; it is an officer who approves
    "agreement.resumed": _STAFF,
    "agreement.terminated": _STAFF,
    "consent.import": _STAFF,
    "consent.given": _STAFF,
    "consent.renewed": _STAFF,
    "consent.refused": _STAFF,
    "consent.withdrawn": _STAFF,
    "consent.revoked": _STAFF,  # these as proposals, too
    "consent.invalidated": _STAFF,
    "consent.restricted": _STAFF,
    "consent.lifted": _STAFF,
    "consent.erased": _STAFF,
    "notice.added": _STAFF,
    "job.asked": frozenset({"engineer"}),
    "audit.read": frozenset(ROLES),
}

# What takes two people; for changes of users, once there are two officers. A person's own
# withdrawal does not: it has to be as easy as consenting was.
_BETWEEN_PARTIES = frozenset({"agreement.signed", "agreement.resumed", "agreement.terminated"})
ABOUT_PEOPLE = frozenset(
    {
        *("consent.revoked", "consent.invalidated"),
        *("consent.restricted", "consent.lifted", "consent.erased"),
    }
)
FOUR_EYES = _BETWEEN_PARTIES | ABOUT_PEOPLE
USER_CHANGES = frozenset({"user.added", "user.changed", "user.removed"})

OPEN, APPROVED, REFUSED = "open", "approved", "refused"

users = Table(
    "users",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("key", LargeBinary(PUBLIC_KEY_BYTES), nullable=False),
)

# `detail` is what the log may not hold, such as a person; it goes once the proposal is decided.
proposals = Table(
    "proposals",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("act", String(64), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("state", String(16), nullable=False),
    Column("proposed_by", String(64), nullable=False),
    Column("entry", ForeignKey("log_entries.index"), nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("detail", LargeBinary, nullable=False),
)


@dataclass(frozen=True)
class User:
    name: str
    role: str
    key: bytes  # Ed25519 public key (32 bytes)


class Signer(Protocol):
    """A user's key, here or elsewhere."""

    @property
    def public(self) -> bytes: ...
    def sign(self, message: bytes) -> bytes: ...


@dataclass(frozen=True)
class Actor:
    """Who is at the keyboard. Without a key: whoever may open the home of a node without users."""

    name: str
    key: Signer | None = None


@dataclass(frozen=True)
class Proposal:
    """An entry that is to be written once another officer approves: its type and members."""

    id: str
    act: str
    body: dict[str, Any]
    state: str
    proposed_by: str
    entry: int
    detail: bytes = b""

    def __str__(self) -> str:
        return f"proposal {self.id[:8]} ({self.act})"


# Acting


@dataclass(frozen=True)
class ActingLog(Log):
    """The log as one user writes to it: signs each entry, and enters only what the role allows.

    Under an approved proposal it enters just what was proposed. See `acting`.
    """

    actor: Actor = field(default=Actor(""))
    user: User = field(default=User("", "", b""))
    officers: int = 0
    approved: Proposal | None = None

    def append_many(
        self, conn: Connection, entries: Sequence[tuple[str, Mapping[str, Any]]], *, time: datetime
    ) -> range:
        """As `Log.append_many`. Raises NotAllowed (E322), TwoPeople (E323)."""
        signed = [(type_, self._signed(type_, body, time)) for type_, body in entries]
        return super().append_many(conn, signed, time=time)

    def _signed(self, type_: str, body: Mapping[str, Any], time: datetime) -> dict[str, Any]:
        key = self.actor.key
        if key is None or body.get("by", self.user.name) != self.user.name:
            raise ValueError("an entry is signed by the user whose act it is")
        if "once" in body:
            raise ValueError("a body may not hold once")
        check_role(self.user, type_)
        said = {**body, "by": self.user.name}
        if self.approved is not None:
            if not _fulfils(self.approved.act, self.approved.body, type_, body):
                raise ProposalUnfit(
                    f"{str(self.approved).capitalize()} no longer fits: things have changed since.",
                    "Nothing was done. Refuse it, and propose anew what is still wanted.",
                )
            said["proposal"] = self.approved.id
        elif takes_two(type_, self.officers):
            raise _two_people(type_)
        # The same act within the same second is another, and a copy of this entry is none.
        said["once"] = token_hex(ONCE_BYTES)
        entry = {**said, "type": type_, "time": timestamp(time)}
        signature = key.sign(signed_bytes(self.origin, entry))
        return {**said, "signature": to_base64(signature)}


def acting(conn: Connection, log: Log, actor: Actor) -> Log:
    """The log as this person may write to it, in this transaction.

    Raises MustSign (E320) if the node has users and nobody was named, UserUnknown (E321),
    WrongUserKey (E324).
    """
    if not any_users(conn):
        if actor.key is not None:
            raise UserUnknown(
                f"There is no user {actor.name} here; this node has no users yet.",
                "Add the first one, an officer, with `concordat user add`, or leave --as out.",
            )
        return log
    user = check_actor(conn, actor)
    return ActingLog(log.origin, log.key, actor, user, count_officers(conn))


def check_actor(conn: Connection, actor: Actor) -> User:
    """The user this person is, by the key. Raises E320, E321, E324."""
    if actor.key is None:
        raise MustSign(
            "This node has users, and it was not said who acts.",
            "Say who you are with --as NAME and --key FILE, or CONCORDAT_USER and CONCORDAT_KEY.",
        )
    user = find(conn, actor.name)
    if actor.key.public != user.key:
        raise WrongUserKey(
            f"The key is not that of {actor.name}.",
            "Name the file of the private key whose public part was entered for this user.",
        )
    return user


def check_role(user: User, type_: str) -> None:
    """Raises NotAllowed (E322) unless the user's role may write entries of this type."""
    if user.role not in allowed(type_):
        raise NotAllowed(
            f"{user.name} is {_article(user.role)}; this is for {_roles(type_)}.",
            "Ask one of them to do it; docs/roles.md says who may do what.",
        )


def check_may(log: Log, type_: str) -> None:
    """Raises NotAllowed (E322) or TwoPeople (E323) at once, for what has effects before its entry
    is written.
    """
    if isinstance(log, ActingLog):
        check_role(log.user, type_)
        if log.approved is None and takes_two(type_, log.officers):
            raise _two_people(type_)


def allowed(type_: str) -> frozenset[str]:
    """The roles that may write entries of a type."""
    return _MAY.get(type_, _STAFF)


def takes_two(type_: str, officers: int) -> bool:
    """Whether such an entry needs a proposal that another officer has approved."""
    return type_ in FOUR_EYES or (type_ in USER_CHANGES and officers > 1)


def signed_bytes(origin: str, entry: Mapping[str, Any]) -> bytes:
    """What a user signs of an entry: all it says but nonce and signature, and in which log."""
    said = {name: entry[name] for name in entry if name not in {"nonce", "signature"}}
    return pae(PAYLOAD_TYPE, canonical({**said, "log": origin}))


def read(
    conn: Connection, log: Log, actor: Actor, what: str, *, time: datetime, **more: Any
) -> None:
    """Enters that a user looked at something; nothing while there are no users.

    In a write transaction, before anything is shown. Raises as `acting`.
    """
    theirs = acting(conn, log, actor)
    if isinstance(theirs, ActingLog):
        theirs.append(conn, "audit.read", {"read": what, **more}, time=time)
        theirs.checkpoint(conn)


# Users


def any_users(conn: Connection) -> bool:
    return conn.execute(select(users.c.name).limit(1)).first() is not None


def count_officers(conn: Connection) -> int:
    query = select(func.count()).select_from(users).where(users.c.role == "officer")
    return int(conn.execute(query).scalar_one())


def everyone(conn: Connection) -> list[User]:
    """By name."""
    return [User(*row) for row in conn.execute(select(users).order_by(users.c.name))]


def find(conn: Connection, name: str) -> User:
    """Raises UserUnknown (E321)."""
    row = conn.execute(select(users).where(users.c.name == name)).one_or_none()
    if row is None:
        raise UserUnknown(
            f"There is no user {name} here.", "`concordat user list HOME` shows who there is."
        )
    return User(*row)


def change(
    conn: Connection, log: Log, type_: str, body: Mapping[str, Any], *, by: str, time: datetime
) -> Proposal | None:
    """Adds, changes or removes a user: at once, or as a proposal once there are two officers.

    type_ is one of USER_CHANGES; body holds `user`, and as it needs `role` and `key` in hex. log:
    as `acting` gave it; by: who acts, where nobody signs. Raises UserConflict (E325), UserUnknown
    (E321), LastOfficer (E326), and as `propose`.
    """
    check_change(conn, type_, body)
    if isinstance(log, ActingLog) and log.approved is None and takes_two(type_, log.officers):
        return propose(conn, log, type_, body, time=time)
    said = body if isinstance(log, ActingLog) else {**body, "by": by}
    log.append(conn, type_, said, time=time)
    name = body["user"]
    if type_ == "user.removed":
        conn.execute(delete(users).where(users.c.name == name))
    elif type_ == "user.changed":
        conn.execute(update(users).where(users.c.name == name).values(role=body["role"]))
    else:
        row = {"name": name, "role": body["role"], "key": bytes.fromhex(body["key"])}
        conn.execute(insert(users).values(row))
    return None


def check_change(conn: Connection, type_: str, body: Mapping[str, Any]) -> None:
    """Raises UserConflict (E325), UserUnknown (E321) or LastOfficer (E326) for what cannot be."""
    known = everyone(conn)
    if type_ == "user.added":
        if not known and body["role"] != "officer":
            raise LastOfficer(
                "The first user has to be an officer: nobody else could approve anything.",
                "Add an officer first.",
            )
        if any(body["user"] == user.name for user in known):
            raise UserConflict(
                f"There is a user {body['user']} already.",
                "Choose another name, or remove that user first.",
            )
        if any(bytes.fromhex(body["key"]) == user.key for user in known):
            raise UserConflict(
                "Another user has this key: the two could not be told apart.",
                "Give each user a key of their own.",
            )
        return
    user = find(conn, body["user"])
    stays = type_ == "user.changed" and body["role"] == "officer"
    if user.role == "officer" and not stays and count_officers(conn) == 1:
        raise LastOfficer(
            f"{user.name} is the only officer; without one nothing could be approved.",
            "Add another officer first.",
        )


# Proposals


@dataclass(frozen=True)
class Rehearsal(Log):
    """The log in a transaction that is rolled back: keeps what would have been entered."""

    written: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def append_many(
        self, conn: Connection, entries: Sequence[tuple[str, Mapping[str, Any]]], *, time: datetime
    ) -> range:
        self.written.extend((type_, dict(body)) for type_, body in entries)
        return super().append_many(conn, entries, time=time)


def propose(
    conn: Connection,
    log: Log,
    act: str,
    body: Mapping[str, Any],
    *,
    time: datetime,
    detail: bytes = b"",
) -> Proposal:
    """Proposes an entry: its type and members. One that waits already is not proposed again.

    log: as `acting` gave it. detail: what the log may not hold, kept until it is decided. Raises
    NotAllowed (E322).
    """
    if not isinstance(log, ActingLog):
        raise TypeError("a proposal is a user's")
    check_role(log.user, act)
    for waiting in pending(conn):
        if (waiting.act, waiting.body, waiting.detail) == (act, dict(body), detail):
            return waiting
    salt = token_bytes(32) if detail else b""
    proposal = token_hex(16)
    said: dict[str, Any] = {"proposal": proposal, "act": act, "body": dict(body)}
    if detail:
        said["detail"] = sha256(salt + detail).hexdigest()
    entry = log.append(conn, "proposal.made", said, time=time)
    row = {
        "id": proposal,
        "act": act,
        "body": canonical(dict(body)),
        "state": OPEN,
        "proposed_by": log.user.name,
        "entry": entry,
        "salt": salt,
        "detail": detail,
    }
    conn.execute(insert(proposals).values(row))
    return Proposal(proposal, act, dict(body), OPEN, log.user.name, entry, detail)


Execute = Callable[[Log, Proposal], None]


def approve(
    conn: Connection,
    log: Log,
    proposal: Proposal,
    execute: Execute,
    *,
    time: datetime,
    reason: str = "",
) -> None:
    """Approves a proposal as another officer, and has it carried out, in one transaction.

    execute: writes the proposed entry to the log it is given, with what goes with it. Raises
    NotAllowed (E322), TwoPeople (E323), ProposalDecided (E328).
    """
    approver = _decide(conn, log, proposal, APPROVED, reason=reason, time=time)
    execute(replace(approver, approved=proposal), proposal)


def refuse(conn: Connection, log: Log, proposal: Proposal, *, reason: str, time: datetime) -> None:
    """Refuses a proposal; its proposer may, too. Raises NotAllowed (E322), ProposalDecided."""
    _decide(conn, log, proposal, REFUSED, reason=reason, time=time)


def _decide(
    conn: Connection, log: Log, proposal: Proposal, state: str, *, reason: str, time: datetime
) -> ActingLog:
    if not isinstance(log, ActingLog):
        raise TypeError("a proposal is decided by a user")
    own = proposal.proposed_by == log.user.name
    if state == APPROVED and own:
        raise TwoPeople(
            f"{log.user.name} has proposed it, and whoever proposes cannot approve.",
            "Have another officer approve it.",
        )
    if state == REFUSED and not own and log.user.role != "officer":
        raise NotAllowed(
            f"{log.user.name} is {_article(log.user.role)}; a proposal is refused by an officer "
            "or by whoever made it.",
            "Ask one of them.",
        )
    if find_proposal(conn, proposal.id).state != OPEN:
        raise ProposalDecided(
            f"{str(proposal).capitalize()} is decided already.",
            "`concordat proposal list HOME --all` shows how.",
        )
    body = {"proposal": proposal.id} | ({"reason": reason[:MAX_REASON]} if reason else {})
    log.append(conn, f"proposal.{state}", body, time=time)
    where = proposals.c.id == proposal.id
    conn.execute(update(proposals).where(where).values(state=state, salt=b"", detail=b""))
    return log


def pending(conn: Connection) -> list[Proposal]:
    """What waits for a decision, oldest first."""
    return [one for one in every_proposal(conn) if one.state == OPEN]


def every_proposal(conn: Connection) -> list[Proposal]:
    """Oldest first."""
    return [_proposal(row) for row in conn.execute(select(proposals).order_by(proposals.c.entry))]


def find_proposal(conn: Connection, name: str) -> Proposal:
    """By its id or the first digits. Raises ProposalUnknown (E327)."""
    known = conn.execute(
        select(proposals).where(proposals.c.id.startswith(name, autoescape=True)).limit(2)
    ).all()
    if len(known) != 1 or not name:
        raise ProposalUnknown(
            f"{'No proposal' if not known else 'More than one'} has an id starting with {name!r}.",
            "`concordat proposal list HOME` shows what waits.",
        )
    return _proposal(known[0])


def _proposal(row: Row[Any]) -> Proposal:
    body = parse(row.body)
    return Proposal(row.id, row.act, body, row.state, row.proposed_by, row.entry, row.detail)


def _fulfils(act: str, body: Mapping[str, Any], type_: Any, entry: Mapping[str, Any]) -> bool:
    """Whether an entry is what was proposed: of that type, and saying all that the proposal did."""
    return type_ == act and all(entry.get(name) == value for name, value in body.items())


def _two_people(type_: str) -> TwoPeople:
    return TwoPeople(
        f"This ({type_}) takes two people: one who proposes and an officer who approves.",
        "Propose it; another officer approves it with `concordat proposal approve`.",
    )


def _article(role: str) -> str:
    return f"{'a' if role[0] not in 'aeiou' else 'an'} {role}"


def _roles(type_: str) -> str:
    return " or ".join(_article(role) for role in ROLES if role in allowed(type_))


# Auditing

# What only users write once there are any. Entries of a partner's doing carry its name; a node
# whose store was restored repeats erasures by itself.
_BY_EITHER = _BETWEEN_PARTIES | {"agreement.suspended"}
_OURS = frozenset(_MAY) - _BY_EITHER - {"consent.erased"}


def problems(
    conn: Connection,
    origin: str,
    entries: Mapping[int, Mapping[str, Any]],
    own_keys: Iterable[bytes],
) -> Iterator[tuple[str, str]]:
    """What is wrong with who did what: of the log's entries by themselves, and of the two tables.

    entries: what each says, by index, in order. own_keys: the public keys that the institution
    signs and has signed with.
    """
    replay = _Replay(origin, {keyid(key) for key in own_keys})
    for index, entry in entries.items():
        if "signature" in entry or entry.get("type") in _MAY:  # of many others there is nothing
            for problem in replay.enter(index, entry):
                yield f"entry {index}", problem
    held = {row.name: (row.role, row.key) for row in conn.execute(select(users))}
    for name in sorted(held.keys() | replay.users.keys()):
        if held.get(name) != replay.users.get(name):
            yield f"user {name}", "role and key are not what the log says"
    rows = {row.id: row for row in conn.execute(select(proposals))}
    for id_ in sorted(rows.keys() | replay.proposals.keys()):
        for problem in _row_problems(rows.get(id_), replay.proposals.get(id_)):
            yield f"proposal {id_[:8]}", problem


@dataclass
class _Made:
    """A proposal as the log tells of it."""

    entry: int
    act: str
    body: dict[str, Any]
    by: str
    detail: str | None
    state: str = OPEN
    done: bool = False


class _Replay:
    """Users and proposals as the entries so far have left them."""

    def __init__(self, origin: str, own_keyids: Container[object]) -> None:
        self.origin, self.own_keyids = origin, own_keyids
        self.users: dict[str, tuple[str, bytes]] = {}
        self.proposals: dict[str, _Made] = {}
        self.signatures: set[str] = set()

    def enter(self, index: int, entry: Mapping[str, Any]) -> Iterator[str]:
        """Takes in an entry and says what is wrong with it."""
        type_ = str(entry.get("type"))
        if "signature" in entry:
            yield from self._check_signed(type_, entry)
        elif self.users and self._ours(type_, entry):
            yield "no user has signed it"
        officers = sum(role == "officer" for role, _ in self.users.values())
        ours = "signature" in entry or self._ours(type_, entry)
        if ours and self.users and takes_two(type_, officers):
            yield from self._check_approved(type_, entry)
        try:
            if type_ in USER_CHANGES:
                self._change(type_, entry)
            elif type_.startswith("proposal."):
                yield from self._propose_or_decide(index, type_, entry)
        except (KeyError, TypeError, ValueError):
            yield "it lacks what it needs to say"

    def _ours(self, type_: str, entry: Mapping[str, Any]) -> bool:
        """Whether it is the act of somebody here, rather than of a partner."""
        if type_ in _BY_EITHER:
            return entry.get("key") in self.own_keyids
        return type_ in _OURS

    def _check_signed(self, type_: str, entry: Mapping[str, Any]) -> Iterator[str]:
        user = self.users.get(str(entry.get("by")))
        if user is None:
            yield "whoever signed it was no user then"
            return
        role, key = user
        try:
            signature = from_base64(str(entry["signature"]))
            verify(key, signature, signed_bytes(self.origin, entry))
        except (InvalidSignature, ValueError):
            yield f"the signature of {entry['by']} does not hold"
        if str(entry["signature"]) in self.signatures:
            yield "its signature is that of another entry"
        self.signatures.add(str(entry["signature"]))
        if role not in allowed(type_):
            yield f"{entry['by']} was {_article(role)}, who may not do this"

    def _check_approved(self, type_: str, entry: Mapping[str, Any]) -> Iterator[str]:
        made = self.proposals.get(str(entry.get("proposal")))
        if made is None or made.state != APPROVED:
            yield "no second person has approved it"
        elif made.done:
            yield "what was approved was carried out before"
        elif not _fulfils(made.act, made.body, type_, entry):
            yield "it is not what was approved"
        else:
            made.done = True

    def _change(self, type_: str, entry: Mapping[str, Any]) -> None:
        name = entry["user"]
        if type_ == "user.removed":
            del self.users[name]
        elif type_ == "user.changed":
            self.users[name] = (entry["role"], self.users[name][1])
        else:
            self.users[name] = (entry["role"], bytes.fromhex(entry["key"]))

    def _propose_or_decide(self, index: int, type_: str, entry: Mapping[str, Any]) -> Iterator[str]:
        id_, by = entry["proposal"], entry["by"]
        if type_ == "proposal.made":
            detail = entry.get("detail")
            self.proposals[id_] = _Made(index, entry["act"], dict(entry["body"]), by, detail)
            return
        made = self.proposals[id_]
        if made.state != OPEN:
            yield "the proposal was decided before"
        if type_ == "proposal.approved" and made.by == by:
            yield f"{by} approved what {by} had proposed"
        made.state = type_.removeprefix("proposal.")


def _row_problems(row: Row[Any] | None, made: _Made | None) -> Iterator[str]:
    if row is None or made is None:
        yield "it is missing" if row is None else "no entry speaks of it"
        return
    said = (made.act, canonical(made.body), made.state, made.by, made.entry)
    if said != (row.act, row.body, row.state, row.proposed_by, row.entry):
        yield "it is not what the log says"
    wanted = made.detail if made.state == OPEN else None
    held = sha256(row.salt + row.detail).hexdigest() if row.salt or row.detail else None
    if held != wanted:
        yield "its detail is not what was proposed"
