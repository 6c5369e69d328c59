"""Consents: a table of them, or one person's. Identifiers are normalised here, the rest is the
consent room's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
from sqlalchemy import Connection, case, func, literal, select

from compliance import consent, erasure, notice, people, record, register
from compliance.canonical import canonical, parse
from compliance.consent import (
    GRANTED,
    INVALIDATED,
    REFUSED,
    REVOKED,
    WITHDRAWN,
    consents,
    invalid,
    microseconds,
    refusals,
    terms,
    when,
)
from compliance.errors import ProposalUnfit
from compliance.log import Log
from compliance.notice import Notice
from compliance.people import Proposal
from compliance.person import ENTRY_TYPES, LIFTED, RESTRICTED, Change, Changes
from compliance.withdrawal import Notice as WithdrawalNotice
from compliance.withdrawal import Presence
from federated import _native
from federated.identifiers import Kind, normalise, with_kind
from parties import withdrawals
from parties.agreements import read_document
from parties.errors import NoConsentIdentifier, PersonUnclear
from parties.files import write_private
from parties.node import Node
from parties.reading import read as note_read
from parties.sources import Identifier, header, read_columns

_COLUMNS = [
    "purpose",
    "recipient",
    "categories",
    "kind",
    "granted_at",
    "expires_at",
    "withdrawn_at",
]
_OPTIONAL = ["notice"]


PART = 50_000  # rows at a time, about

Progress = Callable[[str, int, int], None]  # stage, rows done, rows in all


def import_file(node: Node, path: Path, progress: Progress = lambda *_: None) -> dict[str, Any]:
    """Bring in a CSV or Parquet table of consents; what became of its rows.

    The identifier's column is named after its kind. Rows that are refused go to a file of their
    own in the home. Raises E11x for the table, NoConsentIdentifier, VaultKey.
    """
    names = header(path)
    kind = _identifier(names, path)
    identifier = Identifier(column=kind, kind=kind, region=node.config.region)
    columns = [*_COLUMNS, *(name for name in _OPTIONAL if name in names)]
    progress("reading", 0, 0)
    table = read_columns(path, None, identifier, columns)
    found = normalise(table.column(0), kind, region=identifier.region)
    values, rows = table.column(0), table.remove_column(0).rename_columns(columns)
    rows = rows.append_column("subject", with_kind(kind, found.ids))
    identified, done = found.ids.is_valid().to_numpy(zero_copy_only=False), 0

    def count(part: int) -> None:
        nonlocal done
        done += part
        progress("entering", done, int(identified.sum()))

    count(0)
    with node.writing() as conn:
        log = people.acting(conn, node.log, node.actor)
        parts = _parts(rows, found.ids)
        result = consent.import_parts(
            conn, log, node.vault_keys, parts, time=node.now(), progress=count
        )
        progress("committing", 0, 0)
        met, sent = withdrawals.announce(node, conn, result.ended)
        log.checkpoint(conn)
    unnamed = np.flatnonzero(~identified)
    why = found.reasons.take(pa.array(unnamed, pa.int64())).to_pandas()
    reasons = pd.Series(why.to_numpy(), unnamed, dtype=str)
    rejected = pd.concat([reasons, result.rejected]).sort_index()
    return {
        "read": len(identified),
        "new": result.new,
        "withdrawn": result.withdrawn,
        "noticed": result.noticed,
        "known": result.known,
        "erased": result.erased,
        "rejected": {str(reason): int(n) for reason, n in rejected.value_counts().items()},
        "rejects_file": _write_rejects(node, path, rejected, values),
        **_told(met, sent),
    }


def _parts(rows: pa.Table, ids: pa.LargeStringArray) -> Iterator[pd.DataFrame]:
    """The rows with an id, a part at a time, under their numbers: all rows of a person in one.

    Who is in which part is left to chance.
    """
    encoded = ids.dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    count = len(rows) // PART + 1
    part = _native.permutation(len(encoded.dictionary)) % count
    where = np.where(codes < 0, count, part[codes] if len(part) else count)
    order = np.argsort(where, kind="stable")
    ends = np.searchsorted(where[order], np.arange(count + 1))
    for start, stop in pairwise(ends.tolist()):
        at = order[start:stop]
        yield rows.take(pa.array(at, pa.int64())).to_pandas().set_axis(at)


def summary(node: Node) -> list[dict[str, Any]]:
    """How many consents there are now, by their terms and state; and refusals."""
    now = microseconds(node.now())
    gone = consents.c.state.in_(GRANTED) & (consents.c.expires_at <= now)
    state = case((gone, consent.EXPIRED), else_=consents.c.state).label("state")
    columns = (terms.c.purpose, terms.c.recipient, terms.c.categories, state)
    query = (
        select(*columns, func.count().label("consents"))
        .join_from(consents, terms)
        .group_by(*columns)
        .order_by(*columns)
    )
    said = (refusals.c.purpose, refusals.c.recipient)
    refused = (
        select(*said, literal("").label("categories"), literal(REFUSED).label("state"))
        .add_columns(func.count().label("consents"))
        .where(refusals.c.state == REFUSED)
        .group_by(*said)
        .order_by(*said)
    )
    with node.reading() as conn:
        return [dict(row) for part in (query, refused) for row in conn.execute(part).mappings()]


def expiring(node: Node, until: datetime) -> list[dict[str, Any]]:
    """How many live consents expire before a time, by purpose and recipient, and when the first."""
    now, soon = microseconds(node.now()), microseconds(until)
    said = (terms.c.purpose, terms.c.recipient)
    at = consents.c.expires_at
    query = (
        select(*said, func.count().label("consents"), func.min(at).label("first"))
        .join_from(consents, terms)
        .where(consents.c.state.in_(GRANTED), consents.c.withdrawn_at > now, at > now, at <= soon)
        .group_by(*said)
        .order_by(func.min(at))
    )
    with node.reading() as conn:
        rows = [dict(row) for row in conn.execute(query).mappings()]
    return [row | {"first": when(row["first"])} for row in rows]


# One person

BY = {"person": WITHDRAWN, "institution": REVOKED, "authority": INVALIDATED}

Said = Mapping[str, str]  # what is said of a consent, by field; an empty text says nothing


def subject_of(node: Node, kind: str, identifier: str) -> str:
    """How the vault knows a person: `kind:` and canonical id. Raises PersonUnclear."""
    if kind not in get_args(Kind):
        raise PersonUnclear(
            "The kind of identifier is not one that Concordat knows.",
            f"It is one of {', '.join(get_args(Kind))}.",
        )
    found = normalise(pd.Series([identifier], dtype=str), kind, region=node.config.region)
    (reason,), (name,) = found.reasons.to_pylist(), with_kind(kind, found.ids).to_pylist()
    if name is None:
        raise PersonUnclear(
            f"The {kind.replace('_', ' ')} cannot be read: {reason}.",
            "Correct it; nothing was changed.",
        )
    return str(name)


def grant(node: Node, subject: str, said: Said) -> list[dict[str, Any]]:
    """Raises ConsentInvalid, ConsentSuperseded."""
    return _change(
        node, lambda changes: changes.grant(subject, _from_now(changes, said, "granted_at"))
    )


def renew(node: Node, subject: str, said: Said) -> list[dict[str, Any]]:
    """Raises ConsentInvalid, ConsentSuperseded, NothingToChange, PersonUnknown."""
    return _change(
        node, lambda changes: changes.renew(subject, _from_now(changes, said, "granted_at"))
    )


def _change(node: Node, change: Callable[[Changes], Change]) -> list[dict[str, Any]]:
    with node.writing() as conn:
        log = people.acting(conn, node.log, node.actor)
        done = change(_changes(node, conn, log))
        log.checkpoint(conn)
    return [done.to_json()]


def refuse(node: Node, subject: str, said: Said) -> list[dict[str, Any]]:
    """What was changed, the runs the person was in, and the notices to partners.

    Raises ConsentInvalid.
    """
    with node.writing() as conn:
        log = people.acting(conn, node.log, node.actor)
        changes = _changes(node, conn, log)
        done = changes.refuse(subject, _from_now(changes, said, "at"))
        told = _ended(node, conn, changes, subject, [done])
        log.checkpoint(conn)
    return told


def withdraw(node: Node, subject: str, said: Said, by: str = "") -> list[dict[str, Any]]:
    """As `refuse`. Where not the person ends them, on a node with users, the proposals that wait.

    Raises ConsentInvalid, NothingToChange, PersonUnknown, E32x.
    """
    if by and by not in BY:
        raise invalid(f"by is none of {', '.join(BY)}")
    act = ENTRY_TYPES[BY[by or "person"]]
    return _once_or_proposed(node, act, subject, said)


def restrict(node: Node, subject: str, said: Said) -> dict[str, Any]:
    """As `withdraw`, of one. Raises ConsentInvalid, PersonUnknown, E32x."""
    (done,) = _once_or_proposed(node, RESTRICTED, subject, said)
    return done


def lift(node: Node, subject: str, said: Said) -> dict[str, Any]:
    """As `withdraw`, of one. Raises ConsentInvalid, NothingToChange, PersonUnknown, E32x."""
    (done,) = _once_or_proposed(node, LIFTED, subject, said)
    return done


def erase(node: Node, subject: str, _: Said) -> dict[str, Any]:
    """Also takes the person's rows out of results and rejects in the home.

    On a node with users the proposal that waits. Raises PersonUnknown, RetentionRuns, E32x.
    """
    (done,) = _once_or_proposed(node, ERASED, subject, {})
    return done if "proposal" in done else _settled(node, subject, done)


# What may take two people. Each is done in the caller's transaction.

ERASED = "consent.erased"

Done = list[dict[str, Any]]


def _withdraw(changes: Changes, node: Node, subject: str, said: Said, state: str) -> Done:
    done = changes.withdraw(subject, _from_now(changes, said, "at"), state)
    return _ended(node, changes.conn, changes, subject, done)


def _restrict(changes: Changes, node: Node, subject: str, said: Said) -> Done:
    done = changes.restrict(subject, said)
    person = changes.find(subject).id
    return [done.to_json() | _told(*withdrawals.announce(node, changes.conn, [person]))]


def _lift(changes: Changes, node: Node, subject: str, said: Said) -> Done:
    return [changes.lift(subject, said).to_json()]


def _erase(changes: Changes, node: Node, subject: str, _: Said) -> Done:
    """`_settled` has to follow once that is committed."""
    conn, person = changes.conn, changes.find(subject).id
    told = withdrawals.announce(node, conn, [person], erasing=True)
    done = erasure.erase(conn, changes.log, node.vault_files, subject, now=changes.now)
    gone = {"entry": done.entry, "leaves": done.leaves, "erased_at": when(done.erased_at)}
    return [gone | _told(*told)]


ACTS: dict[str, Callable[[Changes, Node, str, Said], Done]] = {
    **{ENTRY_TYPES[state]: partial(_withdraw, state=state) for state in BY.values()},
    RESTRICTED: _restrict,
    LIFTED: _lift,
    ERASED: _erase,
}


def _once_or_proposed(node: Node, act: str, subject: str, said: Said) -> Done:
    """Does it, or proposes it if it takes another officer: the proposals."""
    with node.writing() as conn:
        log = people.acting(conn, node.log, node.actor)
        two = isinstance(log, people.ActingLog) and people.takes_two(act, log.officers)
        if not two:
            done = ACTS[act](_changes(node, conn, log), node, subject, said)
            log.checkpoint(conn)
            return done
        changes = _changes(node, conn, log)
        found, now = changes.find(subject), changes.now
        if act == ERASED:
            erasure.check_retention(changes, found)
    planned = _rehearsed(node, act, subject, said, now)
    waiting = []
    with node.writing() as conn:
        log = people.acting(conn, node.log, node.actor)
        for body, detail in planned:
            about = canonical({"person": found.id, "said": detail})
            proposal = people.propose(conn, log, act, body, time=now, detail=about)
            waiting.append({"proposal": proposal.id, "act": act})
        log.checkpoint(conn)
    return waiting


class _Rehearsed(Exception):
    """Ends a transaction in which something was tried only."""


def _rehearsed(
    node: Node, act: str, subject: str, said: Said, now: datetime
) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """What each entry would say, and what is to be said for it when it is carried out.

    An erasure has effects outside the store and is not tried; its entry does not name the person
    in any way.
    """
    said = {name: str(value) for name, value in said.items() if name in _SAID[act] and value}
    if act == ERASED:
        return [({}, {})]
    rehearsal = people.Rehearsal(node.log.origin, node.log.key)
    done: Done = []
    with suppress(_Rehearsed), node.writing() as conn:
        changes = Changes(conn, rehearsal, node.vault_keys, now)
        done = ACTS[act](changes, node, subject, said)
        raise _Rehearsed
    if act in {RESTRICTED, LIFTED}:
        ((_, body),) = rehearsal.written
        return [(body, said)]
    apart = [
        {**said, "at": one["at"], **{name: one[name] for name in ("purpose", "recipient")}}
        for one in done
    ]
    return [(body, own) for (_, body), own in zip(rehearsal.written, apart, strict=True)]


_SAID = {
    **{ENTRY_TYPES[state]: ("purpose", "recipient", "at", "reason") for state in BY.values()},
    RESTRICTED: ("until", "reason"),
    LIFTED: ("reason",),
    ERASED: (),
}


def carry_out(
    node: Node, conn: Connection, log: Log, approved: Proposal, subject: str | None
) -> Callable[[], dict[str, Any]]:
    """Does what another officer has approved, for the person that both have named.

    Raises ProposalUnfit, and as the act itself.
    """
    if subject is None:
        raise ProposalUnfit(
            "The proposal is about a person, and whoever approves it names them, too.",
            "Give one of --phone, --email, --resident-id and --company-code.",
        )
    changes, planned = _changes(node, conn, log), parse(approved.detail)
    if changes.find(subject).id != planned["person"]:
        raise ProposalUnfit(
            "The proposal is about another person.", "Ask whoever made it whom they meant."
        )
    (done,) = ACTS[approved.act](changes, node, subject, planned["said"])
    return lambda: _settled(node, subject, done) if approved.act == ERASED else done


def _ended(
    node: Node, conn: Connection, changes: Changes, subject: str, done: Sequence[Change]
) -> Done:
    """Changes that may have ended consents, each with its runs and notices."""
    if not any(one.consents for one in done):
        return [one.to_json() | _told([], []) for one in done]
    found, sent = withdrawals.announce(node, conn, [changes.find(subject).id])
    return [
        one.to_json()
        | _told(
            [run for run in found if (run.purpose, run.recipient) == (one.purpose, one.recipient)],
            [notice for notice in sent if notice.recipient == one.recipient],
        )
        for one in done
    ]


def _told(found: Sequence[Presence], sent: Sequence[WithdrawalNotice]) -> dict[str, Any]:
    """The runs a person was in, and the notices that tell partners of it."""
    return {
        "runs": [one.run for one in found],
        "notices": [{"notice": one.notice, "to": one.recipient} for one in sent],
    }


def _settled(node: Node, subject: str, done: dict[str, Any]) -> dict[str, Any]:
    """After an erasure is committed: keys and rows that would open or show what was erased."""
    node.destroy_old_keys()
    files, unread = _forget_in_files(node, subject)
    return {
        **done,
        "files": [str(path) for path in files],
        "unread": [str(path) for path in unread],
    }


# Where rows about people lie in clear, and how many lines there are above the header.
_IN_CLEAR = {"runs/*/*.csv": 0, "rejects/*.csv": 0, "watch/*": 1}


def _forget_in_files(node: Node, subject: str) -> tuple[list[Path], list[Path]]:
    """Takes the rows about a person out of the files of the home that are in clear.

    Which files they were in, and which cannot be read as tables.
    """
    kind, _, _ = subject.partition(":")
    changed, unread = [], []
    for pattern, above in _IN_CLEAR.items():
        for path in node.home.path.glob(pattern):
            try:
                *first, text = path.read_text("utf-8").split("\n", above)
                table = pd.read_csv(StringIO(text), dtype=str, keep_default_na=False)
            except (OSError, ValueError):
                unread.append(path)
                continue
            theirs = np.zeros(len(table), np.bool_)
            for name in table:
                ids = with_kind(kind, normalise(table[name], kind, region=node.config.region).ids)
                theirs |= (ids.to_pandas() == subject).to_numpy()
            if theirs.any():
                kept = "\n".join([*first, table[~theirs].to_csv(index=False)])
                write_private(path, kept.encode(), overwrite=True)
                changed.append(path)
    return changed, unread


def show(node: Node, subject: str, _: Said) -> dict[str, Any]:
    """Everything the vault holds of a person. Raises PersonUnknown, E32x."""
    note_read(node, "consent.show")
    with node.reading() as conn:
        signed = [held.agreement for held in register.every(conn) if held.state == register.SIGNED]
        return record.of_person(
            _changes(node, conn, node.log), subject, institution=node.config.name, agreements=signed
        )


def _changes(node: Node, conn: Connection, log: Log) -> Changes:
    return Changes(conn, log, node.vault_keys, node.now())


# Notices


def add_notice(node: Node, path: Path) -> dict[str, Any]:
    """Raises NoticeInvalid, NoticeConflict, JobError."""
    given = Notice.from_yaml(read_document(path))
    with node.writing() as conn:
        log = people.acting(conn, node.log, node.actor)
        entry = notice.add(conn, log, given, time=node.now())
        log.checkpoint(conn)
    return {"notice": given.notice, "digest": given.digest, "entry": entry}


def notices(node: Node) -> list[Notice]:
    with node.reading() as conn:
        return notice.every(conn)


def find_notice(node: Node, name: str) -> Notice:
    """Raises NoticeUnknown."""
    with node.reading() as conn:
        return notice.find(conn, name)


# Keys


def rotate(node: Node, key: str) -> int:
    """Rotates the vault's `lookup` or `wrapping` keys; the entry's index."""
    turn = {"lookup": erasure.rotate_lookup, "wrapping": erasure.rotate_wrapping}[key]
    with node.writing() as conn:
        entry = turn(conn, node.log, node.vault_files, now=node.now())
        node.log.checkpoint(conn)
    node.destroy_old_keys()
    return entry


_FIELDS = (
    *("purpose", "recipient", "categories", "kind", "granted_at", "expires_at"),
    *("at", "reason", "notice"),
)


def _from_now(changes: Changes, said: Said, when: str) -> Said:
    """Every field, with the present time where none is said."""
    fields = {name: said.get(name, "") for name in _FIELDS}
    return {**fields, when: fields[when] or changes.now.isoformat()}


# A table


def _identifier(names: list[str], path: Path) -> Kind:
    """The kind of identifier that one of the columns is named after."""
    kinds: list[Kind] = [kind for kind in get_args(Kind) if kind in names]
    if len(kinds) != 1:
        raise NoConsentIdentifier(
            f"The table {path.name} should have one column named {', '.join(get_args(Kind))}; "
            f"it has {len(kinds)}.",
            "Name the identifier's column after its kind; nothing was imported.",
        )
    return kinds[0]


def _write_rejects(node: Node, path: Path, rejected: pd.Series, values: Any) -> str | None:
    """CSV row (the first data row is 1), reason and identifier as it stood, mode 0600."""
    if rejected.empty:
        return None
    rejects = pd.DataFrame(
        {
            "row": rejected.index + 1,
            "reason": rejected,
            "value": values.take(
                pa.array(rejected.index.to_numpy(np.int64), pa.int64())
            ).to_pylist(),
        }
    )
    file = node.home.path / "rejects" / f"{path.stem}.csv"
    file.parent.mkdir(mode=0o700, exist_ok=True)
    write_private(file, rejects.to_csv(index=False).encode(), overwrite=True)
    return str(file)
