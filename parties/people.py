"""Users, what they have proposed, and who acts: the verbs around `compliance.people`."""

import hashlib
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from compliance import people
from compliance.canonical import parse, timestamp
from compliance.choices import Role
from compliance.errors import MustSign, ProposalUnknown, UserConflict
from compliance.log import Log
from compliance.people import Actor, Proposal, User
from compliance.signing import SigningKey, load_public
from parties import agreements, consents, reading
from parties.config import Home
from parties.node import Node

read = reading.read
_ASKED_WITHIN = timedelta(minutes=10)  # of a job, until the node starts it


def actor(home: Home, name: str, key_file: Path | None, passphrase: str | None) -> Actor:
    """The user of that name, with their key.

    A key that is not named is looked for in the home. Raises MustSign (E320), KeyFileError.
    """
    path = key_file or user_key(home, name)
    if key_file is None and not path.exists():
        raise MustSign(
            f"It was not said which key is {name}'s.",
            "Name the file of the private key with --key FILE or CONCORDAT_KEY.",
        )
    return Actor(name, SigningKey.load(path, passphrase))


def user_key(home: Home, name: str) -> Path:
    """Where a user's key lies that is kept in the home. Raises UserConflict."""
    check_name(name)
    return home.key("users") / f"{name}.pem"


def check_name(name: str) -> None:
    """Raises UserConflict unless it can be a user's name."""
    if not name.isascii() or not name.replace("-", "").replace(".", "").isalnum() or len(name) > 63:
        raise UserConflict(
            f"{name!r} cannot be a user's name.", "Use letters, digits, hyphens and dots."
        )


def signing(node: Node) -> tuple[str, SigningKey]:
    """The user who uses this node, and their key. Raises E320, E321, E324."""
    with node.reading() as conn:
        user = people.check_actor(conn, node.actor)
    if not isinstance(node.actor.key, SigningKey):
        raise TypeError("a user who seals their key has it here")
    return user.name, node.actor.key


# Users


def everyone(node: Node) -> list[User]:
    with node.reading() as conn:
        return people.everyone(conn)


def add(
    node: Node,
    name: str,
    role: Role,
    *,
    public_key: Path | None = None,
    new_key: Path | None = None,
    passphrase: str | None = None,
) -> tuple[Path | None, Proposal | None]:
    """Adds a user with the public key in a file, or with a new key, whose file is returned.

    The proposal that waits now, if it takes another officer. Raises E32x, KeyFileError.
    """
    check_name(name)
    path = None
    if public_key is not None:
        public = load_public(public_key)
    else:
        key = SigningKey.generate()
        public = key.public
        path = new_key or user_key(node.home, name)
    body = {"user": name, "role": role, "key": public.hex()}
    with node.reading() as conn:  # before a file is written
        people.acting(conn, node.log, node.actor)
        people.check_change(conn, "user.added", body)
    if path is not None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        key.save(path, passphrase)
    return path, _change(node, "user.added", body)


def set_role(node: Node, name: str, role: Role) -> Proposal | None:
    """The proposal that waits now, if it takes another officer. Raises E32x."""
    return _change(node, "user.changed", {"user": name, "role": role})


def remove(node: Node, name: str) -> Proposal | None:
    """The proposal that waits now, if it takes another officer. Raises E32x."""
    return _change(node, "user.removed", {"user": name})


def _change(node: Node, type_: str, body: Mapping[str, Any]) -> Proposal | None:
    with node.writing() as conn:
        log = people.acting(conn, node.log, node.actor)
        waiting = people.change(conn, log, type_, body, by=node.actor.name, time=node.now())
        log.checkpoint(conn)
    return waiting


# Proposals


def proposals(node: Node, *, decided: bool = False) -> list[Proposal]:
    """What waits for approval; with `decided` also what was approved or refused. Oldest first."""
    with node.reading() as conn:
        return people.every_proposal(conn) if decided else people.pending(conn)


def approve(
    node: Node, proposal: str, reason: str = "", *, subject: str | None = None
) -> tuple[Proposal, Any]:
    """Approves a proposal, by its id or the first digits, and carries it out; what came of that.

    subject: whom it is about, `kind:` and canonical id, if it is about a person. Raises E32x, what
    carrying it out raises, and NotDelivered where the partner did not hear of it.
    """
    afterwards: Callable[[], object] | None = None

    def execute(log: Log, approved: Proposal) -> None:
        nonlocal afterwards
        if approved.act in consents.ACTS:
            afterwards = consents.carry_out(node, conn, log, approved, subject)
            return
        if approved.act not in _EXECUTORS:
            raise ProposalUnknown(
                f"This version of Concordat does not know how to carry out {approved.act}.",
                "Approve it with the version it was proposed with, or refuse it.",
            )
        afterwards = _EXECUTORS[approved.act](node, conn, log, approved)

    with node.writing() as conn:
        found = people.find_proposal(conn, proposal)
        log = _users_log(node, conn)
        people.approve(conn, log, found, execute, time=node.now(), reason=reason)
        log.checkpoint(conn)
    return found, None if afterwards is None else afterwards()


def refuse(node: Node, proposal: str, reason: str) -> Proposal:
    """Refuses a proposal, by its id or the first digits. Raises E32x."""
    with node.writing() as conn:
        found = people.find_proposal(conn, proposal)
        log = _users_log(node, conn)
        people.refuse(conn, log, found, reason=reason, time=node.now())
        log.checkpoint(conn)
    return found


def _users_log(node: Node, conn: Connection) -> people.ActingLog:
    log = people.acting(conn, node.log, node.actor)
    if not isinstance(log, people.ActingLog):
        raise MustSign("This node has no users.", "Add the first one with `concordat user add`.")
    return log


Executor = Callable[[Node, Connection, Log, Proposal], Callable[[], object] | None]


def _change_user(node: Node, conn: Connection, log: Log, proposal: Proposal) -> None:
    people.change(conn, log, proposal.act, proposal.body, by=node.actor.name, time=node.now())


# What carries out an approved proposal, by the type of its entry; it may return what is to follow
# once that is committed.
_EXECUTORS: dict[str, Executor] = {
    **dict.fromkeys(people.USER_CHANGES, _change_user),
    "agreement.signed": agreements.carry_out_signing,
    "agreement.resumed": agreements.carry_out_step,
    "agreement.terminated": agreements.carry_out_step,
}


# Jobs


def ask_job(node: Node, job_yaml: str) -> int | None:
    """Enters that a user asks for a job; the entry's index, or None on a node without users.

    Raises E320, E321, E322, E324.
    """
    with node.writing() as conn:
        log = people.acting(conn, node.log, node.actor)
        if not isinstance(log, people.ActingLog):
            return None
        index = log.append(conn, "job.asked", {"job": _digest(job_yaml)}, time=node.now())
        log.checkpoint(conn)
    return index


def check_asked(node: Node, job_yaml: str, index: int | None) -> None:
    """Raises MustSign unless the entry is of a user who has just asked for this very job.

    Each entry is good for one run. On a node without users nothing is asked for.
    """
    with node.reading() as conn:
        if not people.any_users(conn):
            return
        index = -1 if index is None else index
        entries = list(node.log.entries(conn, index, index + 1))
    if entries and entries[0].type == "job.asked" and index not in node.jobs_asked:
        job = parse(entries[0].leaf).get("job")
        recent = timestamp(node.now() - _ASKED_WITHIN) <= entries[0].time
        if job == _digest(job_yaml) and recent:
            node.jobs_asked.add(index)
            return
    raise MustSign(
        "This node has users, and no engineer has signed for this job.",
        "Run it with `concordat job run` and --as NAME --key FILE.",
    )


def _digest(job_yaml: str) -> str:
    return hashlib.sha256(job_yaml.encode()).hexdigest()
