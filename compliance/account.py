"""A run as its receipts tell it, for whoever has to answer for it."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, func, select

from compliance import receipt, register
from compliance.canonical import timestamp
from compliance.errors import NotInLog, UnverifiedNote
from compliance.log import Log, cosignatures, log_entries, tree_size
from compliance.note import VerifierKey
from compliance.register import Keys

Account = dict[str, Any]

_LATEST = 253_402_300_799  # seconds since 1970 of the last time that has four digits for a year


def of_run(
    conn: Connection, log: Log, run: str, keys: Keys, witnesses: Iterable[VerifierKey] = ()
) -> Account:
    """What both have signed about a run, and where it lies in this log.

    keys: the pinned public key of each party, by name. witnesses: the keys of this log's
    witnesses. Raises NotInLog (E521) if the log knows no such run, and as `receipt.check` and
    `register.check`.
    """
    envelopes = {kind: receipt.find(conn, run, kind) for kind in receipt.PREDICATES}
    intent = envelopes["intent"]
    if intent is None:
        raise NotInLog(
            f"The log has no receipt of run {run}.",
            "It ended before both had signed for it; `concordat job show` says how.",
        )
    said = {kind: receipt.check(one, intent, keys) for kind, one in envelopes.items() if one}
    started, completed = said["intent"], said.get("completion", {})
    named = started["agreement"]
    held = register.find(conn, named["id"], named["version"])
    register.check(held, keys)
    agreement = held.agreement
    parties = {role: started[role]["party"] for role in ("bank", "partner")}
    entries = _entries(conn, run)
    return {
        "run": run,
        "job": started["job"],
        "parties": parties,
        "purpose": started["purpose"],
        "legal_basis": agreement.legal_basis,
        "agreement": {**named, "signed_by": list(held.parties)},
        "impact_assessment": agreement.impact_assessment.reference,
        "retention_days": agreement.retention_days,
        "provided": {
            parties[role]: {
                "people": started[role]["inputs"]["size"],
                "categories": list(getattr(agreement.data, role).categories),
            }
            for role in parties
        },
        "learned": started["disclosure"],
        "started": started["started"],
        "finished": completed.get("finished"),
        "signed_by": {kind: [*parties.values()] for kind in said},
        "commitment": completed.get("commitment"),
        "transcript": completed.get("transcript"),
        "versions": completed.get("versions"),
        "log": {"origin": log.origin, "size": tree_size(conn), "entries": entries},
        "witnessed": list(_witnessed(conn, log, max(entries.values()), witnesses)),
    }


def in_words(account: Account, excluded: Mapping[str, int] | None = None) -> Iterator[str]:
    """The account a line at a time, for people. excluded: whom this side left out, by reason."""
    parties, log = account["parties"], account["log"]
    bank, partner = parties["bank"], parties["partner"]
    job, agreement = account["job"], account["agreement"]
    yield f"Run {account['run']}: {job['job']}, asked for by {bank} and run with {partner}."
    yield f"Purpose: {account['purpose']}. Legal basis: {account['legal_basis']}."
    yield (
        f"Under agreement {agreement['id']}, version {agreement['version']}, signed by "
        f"{' and '.join(agreement['signed_by'])}; impact assessment "
        f"{account['impact_assessment']}; to be kept for {account['retention_days']} days."
    )
    for party, given in account["provided"].items():
        yield f"{party} put in {given['people']:,} people ({', '.join(given['categories'])})."
    if excluded is not None:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in excluded.items())
        yield f"Left out here by the gate: {reasons or 'nobody'}."
    for party, learned in account["learned"].items():
        # Until it is complete, that is what it would have been.
        yield f"{party} {'learned' if account['finished'] else 'was to learn'}:"
        yield from (f"  - {item}" for item in learned)
    yield f"Started {account['started']}; " + (
        f"finished {account['finished']}." if account["finished"] else "not finished."
    )
    for kind, names in account["signed_by"].items():
        yield f"The {kind} is signed by {' and '.join(names)}."
    places = ", ".join(f"{kind} is entry {index}" for kind, index in log["entries"].items())
    yield f"In the log {log['origin']} of {log['size']:,} entries: {places}."
    for one in account["witnessed"]:
        yield f"{one['witness']} cosigned it at {one['time']}, with the first {one['size']:,}."
    if not account["witnessed"]:
        yield "No witness has cosigned it yet."
    if account["commitment"]:
        yield f"The result, with a salt that {bank} keeps, has SHA-256 {account['commitment']}."


def _entries(conn: Connection, run: str) -> dict[str, int]:
    """The entries about a run, by what each says of it; of several, the last."""
    entry = log_entries.c
    query = select(entry.type, entry.index).where(entry.run == run, entry.type.startswith("run."))
    rows = conn.execute(query.order_by(entry.index))
    return {type_.removeprefix("run."): index for type_, index in rows}


def _witnessed(
    conn: Connection, log: Log, entry: int, witnesses: Iterable[VerifierKey]
) -> Iterator[dict[str, Any]]:
    """The first checkpoint that covers an entry and that each witness has cosigned."""
    for key in witnesses:
        query = select(func.min(cosignatures.c.size)).where(
            cosignatures.c.witness == key.name, cosignatures.c.size > entry
        )
        size = conn.execute(query).scalar()
        if size is None:
            continue
        checkpoint = log.checkpoint_at(conn, size)
        try:
            checkpoint.verify(log.verifier, key)
        except UnverifiedNote:  # by a key that the witness no longer has
            continue
        line = next(line for line in checkpoint.signatures if line.by(key))
        seconds = min(int.from_bytes(line.value[:8]), _LATEST)
        time = timestamp(datetime.fromtimestamp(seconds, UTC))
        yield {"witness": key.name, "size": size, "time": time}
