"""Audit: is everything this node holds what its log says, and signed by whom it should be?

The log is verified first, from its stored bytes. What rests on it is then compared with it, both
ways: agreements, receipts, what went into each run, and every consent in the vault.
"""

import hashlib
import json
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, Table, func, literal, select

from compliance import lifecycle, people, withdrawal
from compliance.batch import U8, fetch, joined_bytes
from compliance.canonical import canonical, parse
from compliance.consent import (
    DIGEST,
    TERMS,
    consent_leaves,
    consents,
    ended,
    leaves,
    record_macs,
    reference_macs,
    refusal_macs,
    refusals,
    restriction_macs,
    restriction_references,
    restrictions,
    terms,
)
from compliance.erasure import Tombstone
from compliance.errors import LogDamaged
from compliance.gate import run_inputs, run_rows
from compliance.lifecycle import notices
from compliance.log import checkpoints, log_entries, log_nodes, subtree_leaves, tree_root
from compliance.note import Checkpoint, VerifierKey
from compliance.notice import notices as consent_notices
from compliance.people import proposals, users
from compliance.person import ENTRY_TYPES, LIFTED, RESTRICTED
from compliance.receipt import check, own_section, receipts, run_of
from compliance.register import SIGNED, Keys, agreements, find, registered, signers, unsigned
from compliance.signing import Envelope
from compliance.store import mistyped
from compliance.succession import OWN, at, entered, ever, history, log_keys
from compliance.vault import VaultKeys, subjects, tombstones
from compliance.vault import vault as vault_state
from compliance.verify import LogReport, Progress, silent, verify_log
from compliance.witness import witnessed
from federated import _native
from protos.errors import ConcordatError

# What a consent is known by: however it got there, no second row may say the same.
_SAME = ["subject", *TERMS, "granted_at", "expires_at"]
_NONCE_END = len('{"nonce":"') + 32  # of a consent's leaf; what follows is determined


@dataclass(frozen=True)
class Verdict:
    """What an audit looked at and what it found, as places and problems in `report.findings`."""

    report: LogReport
    agreements: int
    receipts: int
    consents: int

    @property
    def ok(self) -> bool:
        return self.report.ok

    def __str__(self) -> str:
        """The verdict in one sentence."""
        if not self.ok:
            findings = _count(len(self.report.findings) + self.report.unlisted, "finding")
            first = self.report.findings[0]
            return f"This store is not what its log says: {findings}, the first at {first}."
        cosigned = " and ".join(
            f"up to {size} by {name}" for name, size in self.report.cosigned.items()
        )
        return (
            f"The log of {self.report.size} entries is whole and cosigned "
            f"{cosigned or 'by nobody yet'}; {_count(self.agreements, 'agreement')}, "
            f"{_count(self.receipts, 'receipt')} and {_count(self.consents, 'consent')} "
            "agree with it."
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def verify(
    conn: Connection,
    log: VerifierKey,
    *,
    keys: Keys,
    vault: VaultKeys,
    name: str = "",
    witnesses: Iterable[VerifierKey] = (),
    partners: Iterable[VerifierKey] = (),
    progress: Progress = silent,
) -> Verdict:
    """Audits a store as one snapshot shows it. Raises nothing for what it finds.

    log: the log's key. keys: the pinned public key (32 bytes) of every party, by name. name: this
    institution's among them. witnesses: keys of this log's witnesses. partners: keys of the logs
    that this node is a witness of, past ones too. progress: told of what is being checked.
    """
    past, broken = history(entered(conn), OWN, name, "log", log.public)
    report = verify_log(conn, log, witnesses, log_keys(log.name, past), progress)
    for where, problem in broken:
        report.add(where, problem)
    spoilt = _check_types(conn, report)
    entries = _entries(conn)

    def sound(*tables: Table) -> bool:
        return spoilt.isdisjoint(tables)

    if sound(checkpoints, log_entries):
        _check_signed(conn, report)
    if sound(witnessed):
        _check_witnessed(conn, report, tuple(partners))
    found = {"agreements": 0, "receipts": 0, "consents": 0}
    progress("agreements", 0, 0)
    if sound(agreements):
        found["agreements"] = _check_agreements(conn, report, keys, entries)
    rooms: list[tuple[tuple[Table, ...], Iterator[tuple[str, str]]]] = [
        ((notices,), lifecycle.problems(conn, keys, entries)),
        ((withdrawal.notices,), withdrawal.problems(conn, keys, entries)),
        ((users, proposals), people.problems(conn, log.name, entries, ever(keys, name))),
    ]
    for tables, problems in rooms:
        for where, problem in problems if sound(*tables) else ():
            report.add(where, problem)
    progress("receipts", 0, 0)
    if sound(receipts, run_inputs, run_rows, agreements, log_entries, log_nodes):
        found["receipts"] = _check_receipts(conn, report, keys, log.name, entries)
    if sound(consent_notices):
        _check_notices(conn, report, entries)
    if sound(vault_state):
        _check_vault(conn, report, vault, entries)
    progress("consents", 0, 0)
    if sound(*_PEOPLE):
        found["consents"] = _check_consents(conn, report, vault, log.name, entries)
    return Verdict(report, **found)


def _check_types(conn: Connection, report: LogReport) -> set[Table]:
    """The tables in which something is of another type; they are looked at no further."""
    spoilt = set()
    for column, count in mistyped(conn):
        problem = f"column {column.name} holds {_count(count, 'value')} of another type"
        report.add(f"table {column.table.name}", problem)
        spoilt.add(column.table)
    return spoilt


def _check_signed(conn: Connection, report: LogReport) -> None:
    """Whatever adds an entry signs a checkpoint with it."""
    signed = conn.execute(select(func.max(checkpoints.c.size))).scalar() or 0
    if signed < report.size:
        report.add(f"entries {signed} to {report.size - 1}", "no checkpoint signs for them")


def _check_witnessed(conn: Connection, report: LogReport, logs: Sequence[VerifierKey]) -> None:
    """What this node has cosigned for a partner was signed by the partner's log."""
    for origin, size, root, note in conn.execute(select(witnessed)):
        where = f"record of what was cosigned for {origin}"
        try:
            checkpoint = Checkpoint.parse(note)
            keys = [key for key in logs if key.name == origin]
            if keys:
                checkpoint.verify(next(filter(checkpoint.signed_by, keys), keys[0]))
        except ConcordatError as error:
            report.add(where, error.numbered)
            continue
        if not keys:
            report.add(where, "it is no partner's log")
        elif (checkpoint.size, checkpoint.root) != (size, root):
            report.add(where, "its columns differ from what is signed")


Entries = dict[int, dict[str, Any]]


def _entries(conn: Connection) -> Entries:
    """What each entry says, by index; those that are damaged are in the log's own report."""
    found = {}
    query = select(log_entries.c.index, log_entries.c.leaf).order_by(log_entries.c.index)
    for page in conn.execute(query.execution_options(yield_per=4096)).partitions():
        leaves = [leaf if isinstance(leaf, bytes) else b"" for _, leaf in page]
        plain = _native.plain_entries(*joined_bytes(leaves), [], "").tolist()
        for (index, _), leaf, sure in zip(page, leaves, plain, strict=True):
            try:
                # What is plainly canonical need not be written again to be compared.
                body = json.loads(leaf) if sure else parse(leaf)
            except ConcordatError:
                continue
            if isinstance(body, dict):
                found[index] = body
    return found


def _said(entries: Entries, types: Container[Any], *members: str) -> dict[tuple[str, ...], int]:
    """The index of each entry of some types, by what it says in these members, as text."""
    return {
        tuple(str(body.get(name)) for name in members): index
        for index, body in entries.items()
        if body.get("type") in types
    }


def _check_agreements(conn: Connection, report: LogReport, keys: Keys, entries: Entries) -> int:
    """Every agreement and signature has its entry, and every entry its agreement or signature."""
    named = ("agreement", "version", "digest")
    entered = _said(entries, ("agreement.proposed", "agreement.offered"), *named)
    signed = _said(entries, ("agreement.signed",), *named, "key")
    rows = conn.execute(select(agreements)).all()
    for row in rows:
        where = f"agreement {row.agreement}, version {row.version}"
        try:
            held = registered(row)
            known = signers(held, keys)
            if known:
                held.envelope.verify(known)
        except ConcordatError as error:
            report.add(where, error.numbered)
            continue
        name = (row.agreement, str(row.version), held.agreement.digest.hex())
        entry = entered.pop(name, None)
        origin = {} if entry is None else entries[entry]
        if entry is None:
            report.add(where, "no entry says where it came from")
        elif row.proposed_by != origin.get("by"):
            report.add(where, f"column proposed_by differs from entry {entry}")
        for key in held.envelope.signatures:
            when = signed.pop((*name, key), None)
            if when is None:
                report.add(where, f"no entry speaks of the signature by key {key[:16]}")
            elif key in known and known[key] not in at(keys, when).values():
                report.add(where, f"key {key[:16]} signed it when another had followed it")
        step = origin.get("type") if unsigned(held, keys) else "agreement.signed"
        if f"agreement.{held.state}" != step:
            report.add(where, f"its state is {held.state}, its signatures say otherwise")
    for index in entered.values():
        report.add(f"entry {index}", "the agreement it speaks of is not in the register")
    for index in signed.values():
        report.add(f"entry {index}", "the signature it speaks of is not in the register")
    return len(rows)


def _check_receipts(
    conn: Connection, report: LogReport, keys: Keys, origin: str, entries: Entries
) -> int:
    """Every receipt is signed by both and has its entry, and every such entry its receipt."""
    kinds = ("run.intent", "run.completion")
    logged = {index: body for index, body in entries.items() if body.get("type") in kinds}
    signed = conn.execute(select(agreements.c.digest).where(agreements.c.state == SIGNED)).scalars()
    in_force = {digest.hex() for digest in signed}
    released = _said(entries, ("run.release",), "run", "root", "size")
    rows = conn.execute(select(receipts).order_by(receipts.c.entry)).all()
    intents = {row.run: row.envelope for row in rows if row.kind == "intent"}
    for row in rows:
        where = f"{row.kind} of run {row.run}"
        entry = logged.pop(row.entry, {})
        for problem in _entry_problems(row, entry):
            report.add(where, problem)
        try:
            intent = Envelope.from_json(intents.get(row.run, b""))
            envelope = Envelope.from_json(row.envelope)
            predicate = check(envelope, intent, at(keys, row.entry))
            own = own_section(intent, origin)
        except ConcordatError as error:
            report.add(where, error.numbered)
            continue
        if run_of(envelope) != (row.run, row.kind):
            report.add(where, "its envelope is of another receipt")
            continue
        if row.kind == "completion":
            inputs = own["inputs"]
            if (row.run, inputs["root"], str(inputs["size"])) not in released:
                report.add(where, "no entry says that the gate released these inputs")
            continue
        if predicate["agreement"]["digest"] not in in_force:
            report.add(where, "it names no agreement that both have signed")
        for problem in _inputs_problems(conn, row.run, own, entry):
            report.add(where, problem)
    for index in logged:
        report.add(f"entry {index}", "the receipt it speaks of is missing")
    for run in conn.execute(select(run_inputs.c.run)).scalars():
        if run not in intents:
            report.add(f"inputs of run {run}", "no intent speaks of them")
    _check_rows(conn, report, entries)
    return len(rows)


def _check_rows(conn: Connection, report: LogReport, entries: Entries) -> None:
    """What people are called in runs is what was logged when they were released."""
    logged = _said(entries, ("run.release",), "run", "tokens")
    named = {run for run, tokens in logged if tokens != "None"}
    for run, tokens in conn.execute(select(run_rows)):
        named.discard(run)
        if (run, hashlib.sha256(tokens).hexdigest()) not in logged:
            report.add(f"tokens of run {run}", "they are not those that were logged")
    for run in sorted(named):
        report.add(f"tokens of run {run}", "they were logged and are missing")


def uncosigned(
    conn: Connection, thirds: Mapping[str, VerifierKey], cosigned: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    """Receipts that no third witness has cosigned though their agreements require it.

    Of a store that is in order. thirds: keys of third witnesses, as agreements name them. cosigned:
    up to where each witness has cosigned the log, by its key's name.
    """
    required: dict[str, tuple[str, tuple[str, ...]]] = {}  # agreement and witnesses, by run
    for row in conn.execute(select(receipts).order_by(receipts.c.entry)):
        if row.kind == "intent":
            named = parse(Envelope.from_json(row.envelope).payload)["predicate"]["agreement"]
            agreement = find(conn, named["id"], named["version"]).agreement
            required[row.run] = (agreement.agreement, agreement.witnesses)
        name, witnesses = required[row.run]
        for third in witnesses:
            if third in thirds and cosigned.get(thirds[third].name, 0) > row.entry:
                continue
            covers = select(func.min(checkpoints.c.size)).where(checkpoints.c.size > row.entry)
            yield (
                f"checkpoint {conn.execute(covers).scalar_one()}",
                f"it lacks the cosignature of {third}, which agreement {name} requires for the "
                f"{row.kind} of run {row.run}",
            )


def _entry_problems(row: Row[Any], entry: dict[str, Any]) -> Iterator[str]:
    """How a receipt's row differs from its entry in the log."""
    said = (f"run.{row.kind}", hashlib.sha256(row.envelope).hexdigest())
    if (entry.get("type"), entry.get("receipt")) != said:
        yield f"entry {row.entry} does not hold its digest"
    for column in ("run", "agreement", "time"):
        if entry and entry.get(column) != getattr(row, column):
            yield f"column {column} differs from entry {row.entry}"


def _inputs_problems(
    conn: Connection, run: str, own: dict[str, Any], entry: dict[str, Any]
) -> Iterator[str]:
    """What is wrong with what is kept of this side's inputs to a run."""
    kept = conn.execute(select(run_inputs).where(run_inputs.c.run == run)).one_or_none()
    if kept is None:
        yield "what went into it is not kept"
        return
    if entry.get("salt") != hashlib.sha256(kept.salt).hexdigest():
        yield "the salt of its inputs is not the one that was logged"
    size = len(kept.leaves) // 32
    root = _native.merkle_root(kept.leaves, np.arange(size + 1, dtype=np.uint64) * 32)
    if len(kept.leaves) % 32 or own["inputs"] != {"root": root.hex(), "size": size}:
        yield "what is kept of its inputs is not what was signed"
    try:
        gate = tree_root(conn, own["log"]["size"])
    except (LogDamaged, TypeError):
        gate = b""
    if gate.hex() != own["log"]["root"]:
        yield "the gate's checkpoint is not of this log"


def _check_consents(
    conn: Connection, report: LogReport, vault: VaultKeys, origin: str, entries: Entries
) -> int:
    """Every consent and refusal is what the log commits to, and the log speaks of no others."""
    for where, problem in _consent_findings(conn, entries, vault, origin):
        report.add(where, problem)
    return int(conn.execute(select(func.count()).select_from(consents)).scalar_one())


_PEOPLE = (
    *(consents, consent_leaves, refusals, restrictions, terms, subjects, consent_notices),
    *(tombstones, subtree_leaves),
)

_PERSON = (
    subjects.c.id.label("person"),
    *(subjects.c[name] for name in ("subject", "secret", "wrapping_key")),
)
_PERSON_NAMES = [column.name for column in _PERSON]

# Where the log speaks of a consent, the consent as it is now, and its person.
_HELD = (
    select(
        *(consent_leaves.c[name] for name in ("entry", "position", "consent")),
        *(consent_leaves.c[name] for name in ("state", "withdrawn_at")),
        DIGEST,
        consent_leaves.c.notice.label("notice_then"),
        *(consents.c[name].label(f"{name}_now") for name in ("state", "withdrawn_at", "notice")),
        *(consents.c[name] for name in ("granted_at", "expires_at")),
        *(terms.c[name] for name in TERMS),
        *_PERSON,
    )
    .join_from(consent_leaves, consents)
    .join(terms)
    .join(subjects)
    .join(consent_notices, consent_leaves.c.notice == consent_notices.c.id, isouter=True)
)

# Where it speaks of a refusal, and of a restriction.
_SAID, _KEPT = (
    select(
        *(column for column in table.c if column is not table.c.subject),
        literal(0).label("position"),
        subjects.c.restricted,
        *_PERSON,
    ).join_from(table, subjects)
    for table in (refusals, restrictions)
)

_PLACE = ["entry", "position"]
_LEAF = ("nonce", "record", "reference")


def _committed(conn: Connection, entries: Entries) -> pd.DataFrame:
    """What the log commits to about people: entry, position, leaf.

    A leaf of an import's sub-tree, or what an entry on one person holds, in the form of a leaf.
    """
    imports = {
        str(body["subtree"].get("root")): index
        for index, body in entries.items()
        if body.get("type") == "consent.import" and isinstance(body.get("subtree"), dict)
    }
    leaf = subtree_leaves.c
    stored = fetch(conn, select(leaf.root, leaf.index.label("position"), leaf.leaf))
    stored["entry"] = [imports.get(root.hex(), -1) for root in stored.pop("root")]
    single = [
        {"entry": index, "position": 0, "leaf": canonical({name: body.get(name) for name in _LEAF})}
        for index, body in entries.items()
        if body.get("type") in (*ENTRY_TYPES.values(), RESTRICTED, LIFTED)
    ]
    both = pd.concat([stored[stored["entry"] >= 0], pd.DataFrame(single, columns=stored.columns)])
    return both.reset_index(drop=True)


def _consent_findings(
    conn: Connection, entries: Entries, vault: VaultKeys, origin: str
) -> Iterator[tuple[str, str]]:
    known = fetch(conn, select(consents.c.id))["id"]
    held, said, kept = fetch(conn, _HELD), fetch(conn, _SAID), fetch(conn, _KEPT)
    stored = _committed(conn, entries)
    for consent in known[~known.isin(held["consent"])]:
        yield f"consent {consent}", "no leaf in the log commits to it"
    rows = held.drop_duplicates("consent")
    for consent in rows.loc[rows.duplicated(_SAME), "consent"]:
        yield f"consent {consent}", "the vault holds it twice"
    held, said, kept, stored = (  # an empty table has no types
        frame.astype(dict.fromkeys(_PLACE, np.int64)) for frame in (held, said, kept, stored)
    )
    vouched = pd.concat([frame[_PLACE] for frame in (held, said, kept)])
    orphans = stored[
        ~pd.MultiIndex.from_frame(stored[_PLACE]).isin(pd.MultiIndex.from_frame(vouched))
    ]
    erased = yield from _tombstone_findings(conn, entries)
    if len(orphans) != erased:
        if erased:
            problem = f"{erased} of what it commits to was erased; the vault lacks {len(orphans)}"
            yield "the log", problem
        for entry, position in orphans[_PLACE].itertuples(index=False):
            yield f"entry {entry}, leaf {position}", "the vault lacks the consent it commits to"

    people = pd.concat([frame[_PERSON_NAMES] for frame in (held, said, kept)])
    people = people.drop_duplicates("person").set_index("person")
    secrets, closed = _unwrap(vault, people)
    for person in people.index[closed]:
        yield f"person {person} of the vault", "the secret does not open"

    def differing(rows: pd.DataFrame, macs: Callable[[U8, pd.DataFrame], U8]) -> pd.DataFrame:
        """Those that are not what the log commits to in their place."""
        own = secrets[people.index.get_indexer(pd.Index(rows["person"]))]
        nonces = np.zeros((len(rows), 16), np.uint8)  # not determined, so not compared
        named = "purpose" in rows
        references = (
            reference_macs(own, rows, origin) if named else restriction_references(own, origin)
        )
        expected = leaves(nonces, macs(own, rows), references)
        found = rows[_PLACE].merge(stored, "left", on=_PLACE)["leaf"]
        differs = [
            not isinstance(leaf, bytes) or leaf[_NONCE_END:] != other[_NONCE_END:]
            for leaf, other in zip(found, expected, strict=True)
        ]
        return rows[differs]

    for row in differing(held, record_macs).itertuples():
        where = f"consent {row.consent} (entry {row.entry}, leaf {row.position})"
        yield where, "its record is not the one the log commits to"
    for row in differing(said, refusal_macs).itertuples():
        yield f"refusal of entry {row.entry}", "its record is not the one the log commits to"

    for row in differing(kept, restriction_macs).itertuples():
        yield f"restriction of entry {row.entry}", "its record is not the one the log commits to"
    last = kept.sort_values("entry").drop_duplicates("person", keep="last")
    marked = fetch(conn, select(subjects.c.id).where(subjects.c.restricted))["id"]
    restricted = last.loc[last["until"] > 0, "person"]
    for person in sorted({*marked} ^ {*restricted}):
        yield f"person {person} of the vault", "the log says otherwise of their restriction"

    latest = held.sort_values("entry").drop_duplicates("consent", keep="last")
    latest = ended(latest.assign(subject=latest["person"]), said.assign(subject=said["person"]))
    changed = (
        (latest["state"] != latest["state_now"])
        | (latest["withdrawn_at"] != latest["withdrawn_at_now"])
        | (latest["notice_then"].fillna(0) != latest["notice_now"].fillna(0))
    )
    for consent in latest.loc[changed, "consent"]:
        yield f"consent {consent}", "its state is not the latest that the log commits to"


def _tombstone_findings(
    conn: Connection, entries: Entries
) -> Generator[tuple[str, str], None, int]:
    """Every erasure has its tombstone, and the other way round; how much was erased in all."""
    logged = {i: body for i, body in entries.items() if body.get("type") == "consent.erased"}
    total = sum(int(body.get("leaves", 0)) for body in logged.values())
    for row in conn.execute(select(tombstones)):
        stone = Tombstone(row.tombstone, row.salt, row.lookup_keys, row.erased_at)
        said = logged.pop(row.entry, {}).get("record")
        if len(row.salt) != 32 or said != stone.record(row.above):
            yield f"tombstone of entry {row.entry}", "it is not the one the log commits to"
    for index in logged:
        yield f"entry {index}", "the tombstone it speaks of is missing"
    return total


def _check_vault(conn: Connection, report: LogReport, keys: VaultKeys, entries: Entries) -> None:
    """The vault has been taken through the lookup keys that the log speaks of."""
    logged = 1 + sum(body.get("type") == "vault.rekeyed" for body in entries.values())
    held = conn.execute(select(vault_state.c.lookup_keys)).scalars().all() or [1]
    if not held == [logged] == [len(keys.lookups)]:
        report.add("the vault", "its lookup keys are not those the log speaks of")


def _check_notices(conn: Connection, report: LogReport, entries: Entries) -> None:
    """Every notice is the one its entry names, and every entry has its notice."""
    logged = {i: body for i, body in entries.items() if body.get("type") == "notice.added"}
    for row in conn.execute(select(consent_notices)):
        said = logged.pop(row.entry, {})
        digest = hashlib.sha256(row.document).hexdigest()
        if (said.get("notice"), said.get("digest"), digest) != (row.notice, row.digest, row.digest):
            report.add(f"notice {row.notice}", f"entry {row.entry} speaks of another")
    for index in logged:
        report.add(f"entry {index}", "the notice it speaks of is missing")


def _unwrap(vault: VaultKeys, people: pd.DataFrame) -> tuple[U8, NDArray[np.bool_]]:
    """Secrets, uint8 (n, 32), and which of them do not open."""
    secrets, opened = vault.opened(people)
    return secrets, ~opened
