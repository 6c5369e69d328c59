"""Consents: what a person allowed, for whom, from when, until when.

A consent is known by what it says: its person, terms and dates. A refusal says no to a purpose and
a recipient at a time, and ends every consent for them that was granted until then, whichever of the
two is entered first. Importing can add consents and withdraw them, earlier if need be; it never
undoes a withdrawal or a refusal. Times are microseconds since 1970 in UTC.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from secrets import token_bytes
from typing import Any, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    String,
    Table,
    UniqueConstraint,
    bindparam,
    func,
    select,
    update,
)

from compliance.batch import I64, U8, add, as_bytes, fetch, fetch_in, joined, next_id
from compliance.canonical import canonical
from compliance.errors import ConsentInvalid, ConsentTable
from compliance.log import Log, commit_subtree
from compliance.notice import notices
from compliance.store import Integer64, metadata
from compliance.vault import VaultKeys, enrol, erased_at, subjects
from federated import _native

KINDS = ("general", "separate", "written", "guardian")

# States of the W3C Data Privacy Vocabulary (dpv:ConsentStatus). What has expired is not stored.
GIVEN = "ConsentGiven"
RENEWED = "RenewedConsentGiven"
WITHDRAWN = "ConsentWithdrawn"
REVOKED = "ConsentRevoked"  # by the institution
INVALIDATED = "ConsentInvalidated"  # by an authority or a court
REFUSED = "ConsentRefused"
EXPIRED = "ConsentExpired"

GRANTED = (GIVEN, RENEWED)
ENDED = (WITHDRAWN, REVOKED, INVALIDATED)

NEVER = np.iinfo(np.int64).max

TERMS = ["purpose", "recipient", "categories", "kind"]
IDENTITY = ["subject", "terms", "granted_at", "expires_at"]
KNOWN_BY = ["subject", *TERMS, "granted_at", "expires_at"]

# What many consents share is stored once.
terms = Table(
    "terms",
    metadata,
    Column("id", Integer64, primary_key=True),
    Column("purpose", String(64), nullable=False),
    Column("recipient", String(64), nullable=False),
    Column("categories", String, nullable=False),  # sorted, separated by semicolons
    Column("kind", String(16), nullable=False),
    UniqueConstraint("purpose", "recipient", "categories", "kind"),
)

consents = Table(
    "consents",
    metadata,
    Column("id", Integer64, primary_key=True),
    Column("subject", ForeignKey("subjects.id"), nullable=False),
    Column("terms", ForeignKey("terms.id"), nullable=False),
    Column("granted_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("state", String(32), nullable=False),
    Column("withdrawn_at", BigInteger, nullable=False),  # NEVER: not withdrawn
    Column("notice", ForeignKey("notices.id"), nullable=True),
    UniqueConstraint("subject", "terms", "granted_at", "expires_at"),
)

# A person's no to a purpose and a recipient, or somebody's for them; `entry` is where the log
# speaks of it.
refusals = Table(
    "refusals",
    metadata,
    Column("entry", ForeignKey("log_entries.index"), primary_key=True),
    Column("subject", ForeignKey("subjects.id"), nullable=False, index=True),
    Column("purpose", String(64), nullable=False),
    Column("recipient", String(64), nullable=False),
    Column("state", String(32), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("reason", String(64), nullable=False),  # a short name, or empty
)

# Where the log speaks of a consent, for each change of its record: a leaf of an import's sub-tree,
# or an entry of its own (position 0). A refusal that ends it changes nothing here.
consent_leaves = Table(
    "consent_leaves",
    metadata,
    Column("entry", ForeignKey("log_entries.index"), primary_key=True),
    Column("position", Integer64, primary_key=True),
    Column("consent", ForeignKey("consents.id"), nullable=False, index=True),
    Column("state", String(32), nullable=False),
    Column("withdrawn_at", BigInteger, nullable=False),  # NEVER: not withdrawn
    Column("notice", ForeignKey("notices.id"), nullable=True),
)

# That a person was put into `restricted`, or taken out of it (until 0).
restrictions = Table(
    "restrictions",
    metadata,
    Column("entry", ForeignKey("log_entries.index"), primary_key=True),
    Column("subject", ForeignKey("subjects.id"), nullable=False, index=True),
    Column("until", BigInteger, nullable=False),
    Column("reason", String(64), nullable=False),
)

# The digest of a consent's notice, or nothing, where `notices` is joined.
DIGEST = func.coalesce(notices.c.digest, "").label("notice")


# Reading a table

_NAME = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}"
_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?"
_OFFSET = r"(?:Z|[+-][0-9]{2}(?::?[0-9]{2})?)"
_LATEST = np.datetime64("9999-12-31T23:59:59", "us").astype(np.int64)

Checked = tuple[NDArray[Any], NDArray[Any]]  # values, and for each what is wrong with it or ""


def read(
    rows: pd.DataFrame, known: Mapping[str, str] | None = None
) -> tuple[pd.DataFrame, pd.Series]:
    """The consents a table of text holds, and the reason why each other row is refused.

    rows: columns subject (`kind:` and canonical id), purpose, recipient, categories (separated by
    semicolons), kind, granted_at, expires_at (ISO 8601 with an offset), withdrawn_at (the same, or
    empty) and perhaps notice. known: digests of notices, by what a row may call them. Both results
    keep the index of `rows`; in the first, categories are sorted, times int64 microseconds, NEVER
    for a consent not withdrawn, and notice a digest or empty. Raises ConsentTable (E403).
    """
    missing = [name for name in _CHECKS if name not in rows]
    if missing:
        raise ConsentTable(
            f"The table of consents lacks the columns {', '.join(missing)}.",
            "Name the columns as in the reference and import the table again.",
        )
    columns = {}
    reasons = np.full(len(rows), "", object)

    def refuse(where: NDArray[Any], why: Any) -> None:
        reasons[:] = np.where((reasons == "") & where, why, reasons)

    def _notices(text: pd.Series) -> Checked:
        digests = text.map({"": "", **(known or {})})
        return digests.to_numpy(object), np.where(digests.isna(), "is not known here", "")

    if "notice" not in rows:
        rows = rows.assign(notice="")
    for name, check in {**_CHECKS, "notice": _notices}.items():
        codes, distinct = pd.factorize(rows[name].fillna("").astype(str).str.strip())
        values, problems = check(pd.Series(distinct, dtype=str))
        columns[name] = values[codes]
        if (problems != "").any():
            refuse((problems != "")[codes], (f"{name} " + problems.astype(object))[codes])
    refuse(columns["expires_at"] <= columns["granted_at"], "expires_at is not after granted_at")

    reason = pd.Series(reasons, rows.index, dtype=str)
    return pd.DataFrame(columns, rows.index)[reasons == ""], reason[reasons != ""]


def _subjects(text: pd.Series) -> Checked:
    return text.to_numpy(object), np.where(text.str.fullmatch(r"[a-z_]+:.+"), "", "is missing")


def _tokens(text: pd.Series) -> Checked:
    problems = np.select(
        [text == "", ~text.str.fullmatch(_NAME)], ["is missing", "is no short name"], ""
    )
    return text.to_numpy(object), problems


def _categories(text: pd.Series) -> Checked:
    pieces = [sorted({piece.strip() for piece in cell.split(";")} - {""}) for cell in text]
    joined = pd.Series([";".join(names) for names in pieces], dtype=str)
    known = joined.str.fullmatch(f"{_NAME}(?:;{_NAME})*")
    return joined.to_numpy(object), np.select(
        [joined == "", ~known], ["is missing", "is no list of short names"], ""
    )


def _kinds(text: pd.Series) -> Checked:
    return text.to_numpy(object), np.where(text.isin(KINDS), "", f"is none of {', '.join(KINDS)}")


def _times(text: pd.Series) -> Checked:
    local, full = text.str.fullmatch(_TIME), text.str.fullmatch(_TIME + _OFFSET)
    times = pd.to_datetime(text.where(full), format="ISO8601", utc=True, errors="coerce")
    values = times.dt.tz_localize(None).to_numpy("datetime64[us]").astype(np.int64)
    problems = np.select(
        [text == "", local, ~full | times.isna() | (values > _LATEST)],
        ["is missing", "has no offset from UTC", "is no ISO 8601 time"],
        "",
    )
    return values, problems


def _withdrawals(text: pd.Series) -> Checked:
    values, problems = _times(text)
    return np.where(text == "", NEVER, values), np.where(text == "", "", problems)


_CHECKS = {
    "subject": _subjects,
    "purpose": _tokens,
    "recipient": _tokens,
    "categories": _categories,
    "kind": _kinds,
    "granted_at": _times,
    "expires_at": _times,
    "withdrawn_at": _withdrawals,
}


def value(name: str, text: str) -> Any:
    """One value as a table of consents would hold it. Raises ConsentInvalid (E405)."""
    checks = {**_CHECKS, "at": _times, "until": _times, "reason": _tokens}
    values, problems = checks[name](pd.Series([text.strip()], dtype=str))
    if problems[0]:
        raise invalid(f"{name} {problems[0]}")
    return values[0].item() if isinstance(values[0], np.generic) else values[0]


def invalid(problem: str) -> ConsentInvalid:
    return ConsentInvalid(
        f"The consent cannot be recorded: {problem}.",
        "Correct it as docs/reference/consents.md says; nothing was changed.",
    )


def microseconds(time: datetime) -> int:
    """Since 1970, of a time with a zone."""
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


# Importing


@dataclass(frozen=True)
class Imported:
    """What became of an import's rows, and its entry in the log if it changed anything."""

    new: int
    withdrawn: int  # known consents that are now withdrawn, or withdrawn earlier than before
    noticed: int  # known consents of which the notice is known only now
    known: int  # rows that changed nothing
    erased: int  # rows older than the erasure of their person, which change nothing either
    rejected: pd.Series  # the reason of each refused row, under that row's index
    entry: int | None
    ended: list[int]  # whose consents those `withdrawn` were: row ids of the vault, each once


def import_consents(
    conn: Connection, log: Log, keys: VaultKeys, rows: pd.DataFrame, *, time: datetime
) -> Imported:
    """Brings a table of consents, as `read` takes it, into the vault and commits it to the log.

    The import is one log entry; one that changes nothing leaves none. Raises E403, E404.
    """
    return import_parts(conn, log, keys, [rows], time=time)


def import_parts(
    conn: Connection,
    log: Log,
    keys: VaultKeys,
    parts: Iterable[pd.DataFrame],
    *,
    time: datetime,
    progress: Callable[[int], None] = lambda _: None,
) -> Imported:
    """Imports a table in parts: the memory it takes is that of a part, and 100 bytes a consent.

    All rows about a person have to lie in one part. progress is told after each part how many rows
    it had. Raises E403, E404.
    """
    before = next_id(conn, subjects), next_id(conn, consents)
    done = []
    for rows in parts:
        done.append(_import_part(conn, log, keys, rows, before))
        progress(len(rows))
    names = ("new", "withdrawn", "noticed", "known")
    counts = {name: sum(getattr(part, name) for part in done) for name in names}
    rejected = pd.concat([part.rejected for part in done]) if done else pd.Series(dtype=str)
    changed = [part for part in done if len(part.changed)]
    entry = None
    if changed:
        entry = _commit(conn, log, changed, {**counts, "rejected": len(rejected)}, time=time)
    erased = sum(part.erased for part in done)
    ended = sorted({person for part in done for person in part.ended})
    return Imported(**counts, erased=erased, rejected=rejected, entry=entry, ended=ended)


@dataclass(frozen=True)
class _Part:
    """What became of a part's rows, and what the log is to hold of the consents that changed."""

    new: int
    withdrawn: int
    noticed: int
    known: int
    erased: int
    rejected: pd.Series
    ended: list[int]
    changed: pd.DataFrame  # consent, state, withdrawn_at, notice: of `consent_leaves`
    records: U8  # (n, 32)
    references: U8  # (n, 32)


def _import_part(
    conn: Connection,
    log: Log,
    keys: VaultKeys,
    rows: pd.DataFrame,
    before: tuple[int, int],
) -> _Part:
    """before: the people and consents of other parts have row ids from these on."""
    found, rejected = read(rows, notice_names(conn))
    codes, people = pd.factorize(found["subject"])
    erased = found["granted_at"].to_numpy() <= erased_at(conn, keys, people.tolist())[codes]
    if erased.any():
        found = found[~erased]
        codes, people = pd.factorize(found["subject"])
    ids, secrets = enrol(conn, keys, keys.subjects_of(people), before[0])
    found["subject"] = ids[codes]
    # Rows equal in all but the withdrawal are one consent: the one that lasts longest suffices,
    # and of those one that names a notice.
    found = found.assign(person=codes).sort_values(["withdrawn_at", "notice"], kind="stable")
    accepted, found = len(found), found.drop_duplicates(KNOWN_BY, keep="last")
    found = found.assign(state=np.where(found["withdrawn_at"] < NEVER, WITHDRAWN, GIVEN))
    changed = enter(conn, found, before[1])
    secrets = secrets[changed["person"]]
    leaf = changed[["id", "state", "withdrawn_at", "notice_id"]]
    return _Part(
        new=int(changed["new"].sum()),
        withdrawn=int(changed["earlier"].sum()),
        noticed=int((~changed["new"] & ~changed["earlier"]).sum()),
        known=accepted - len(changed),
        erased=int(erased.sum()),
        rejected=rejected,
        ended=changed.loc[changed["earlier"].astype(bool), "subject"].unique().tolist(),
        changed=leaf.set_axis(["consent", "state", "withdrawn_at", "notice"], axis=1).astype(
            {"consent": np.int64, "state": "category"}
        ),
        records=record_macs(secrets, changed),
        references=reference_macs(secrets, changed, log.origin),
    )


def notice_names(conn: Connection) -> dict[str, str]:
    """The digests of all notices, by name and by digest."""
    known = conn.execute(select(notices.c.notice, notices.c.digest)).all()
    return {name: digest for row in known for name, digest in ((row[0], row[1]), (row[1], row[1]))}


def enter(conn: Connection, found: pd.DataFrame, before: int = NEVER) -> pd.DataFrame:
    """Enters consents that the vault lacks; ends those it has, earlier if need be.

    A known consent also gets its notice, if it had none. found: subject (row ids), TERMS,
    granted_at, expires_at, state, withdrawn_at and notice (digest or empty), one row for each
    consent. Returns the rows that changed something, with `id`, as they are now, and whether they
    are `new` or end `earlier`; the log has yet to speak of them. before: known ones have a row id
    below this.
    """
    found = found.assign(terms=_enrol_terms(conn, found[TERMS]))
    people = found["subject"].unique()
    found = ended(found, fetch_in(conn, select(refusals), refusals.c.subject, people.tolist()))
    found = found.merge(_known(conn, people, before), "left", on=IDENTITY, suffixes=("", "_known"))
    found["new"] = found["id"].isna()
    found["earlier"] = (found["withdrawn_at"] < found["withdrawn_at_known"]).fillna(False)
    noticed = found["notice_known"].eq("") & (found["notice"] != "")
    found.loc[found["new"], "id"] = next_id(conn, consents) + np.arange(found["new"].sum())
    kept = ~found["new"] & ~found["earlier"]
    for name in ("state", "withdrawn_at"):
        found[name] = found[name].mask(kept, found[f"{name}_known"])
    found["notice"] = found["notice"].mask(~found["new"] & ~noticed, found["notice_known"])
    found["withdrawn_at"] = found["withdrawn_at"].astype(np.int64)
    found["notice_id"] = _notice_ids(conn, found["notice"])
    stored = found.assign(notice=found["notice_id"])
    add(conn, consents, stored[found["new"]])
    _set(conn, stored[found["earlier"] | noticed], "state", "withdrawn_at", "notice")
    return found[found["new"] | found["earlier"] | noticed]


def _notice_ids(conn: Connection, digests: pd.Series) -> pd.Series:
    """Row ids of notices, None where there is none."""
    known = conn.execute(select(notices.c.digest, notices.c.id))
    ids = {row.digest: row.id for row in known}
    codes, distinct = pd.factorize(digests)
    found = np.array([ids.get(digest) for digest in distinct], object)
    return pd.Series(found[codes], digests.index, dtype=object)


def ended(held: pd.DataFrame, said: pd.DataFrame) -> pd.DataFrame:
    """Consents as refusals leave them: each ends with the first one not before its grant.

    held: subject, purpose, recipient, granted_at, state, withdrawn_at. said: rows of `refusals`.
    """
    if held.empty or said.empty:
        return held
    on = ["subject", "purpose", "recipient"]
    said = said[[*on, "at", "state"]].rename(columns={"state": "said"})
    pairs = held[[*on, "granted_at"]].reset_index().merge(said, on=on)
    pairs = pairs[pairs["at"] >= pairs["granted_at"]].sort_values("at", kind="stable")
    first = pairs.drop_duplicates("index").set_index("index").reindex(held.index)
    earlier = (first["at"] < held["withdrawn_at"]).to_numpy()
    return held.assign(
        state=held["state"].mask(earlier, first["said"].replace(REFUSED, WITHDRAWN)),
        withdrawn_at=held["withdrawn_at"].mask(earlier, first["at"].fillna(0)).astype(np.int64),
    )


def end(conn: Connection, found: pd.DataFrame) -> None:
    """Sets the state and withdrawn_at of consents in the vault, by their id."""
    _set(conn, found, "state", "withdrawn_at")


def _set(conn: Connection, found: pd.DataFrame, *names: str) -> None:
    if found.empty:
        return
    values: dict[str, Any] = {column: bindparam(f"new_{column}") for column in names}
    statement = update(consents).where(consents.c.id == bindparam("row")).values(values)
    keys = ["row", *(f"new_{column}" for column in names)]
    rows = zip(*(found[column].tolist() for column in ("id", *names)), strict=True)
    conn.execute(statement, [dict(zip(keys, row, strict=True)) for row in rows])


def _commit(
    conn: Connection, log: Log, parts: list[_Part], body: dict[str, int], *, time: datetime
) -> int:
    """Commits the consents that an import has changed as one entry; returns its index."""
    changed = pd.concat([part.changed.astype({"state": str}) for part in parts])
    records = np.vstack([part.records for part in parts])
    references = np.vstack([part.references for part in parts])
    # In random order, so that a leaf's place says nothing about the row's.
    order = _native.permutation(len(changed)).astype(np.int64)
    nonces = np.frombuffer(token_bytes(16 * len(changed)), np.uint8).reshape(-1, 16)
    root = commit_subtree(conn, _Leaves(nonces, records[order], references[order]))
    subtree = {"root": root.hex(), "size": len(changed)}
    entry = log.append(conn, "consent.import", {**body, "subtree": subtree}, time=time)
    # In the order of consents, as their table and its index are.
    add(conn, consent_leaves, changed.assign(entry=entry, position=np.argsort(order)))
    return entry


@dataclass(frozen=True)
class _Leaves(Sequence[bytes]):
    """Leaves that are written out when they are asked for."""

    nonces: U8
    records: U8
    references: U8

    def __len__(self) -> int:
        return len(self.nonces)

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> list[bytes]: ...
    def __getitem__(self, at: int | slice) -> bytes | list[bytes]:
        part = at if isinstance(at, slice) else slice(at, at + 1)
        found = leaves(self.nonces[part], self.records[part], self.references[part])
        return found if isinstance(at, slice) else found[0]


def _enrol_terms(conn: Connection, wanted: pd.DataFrame) -> I64:
    """The row id of each row's terms, int64 (n,); whatever terms are new are added."""
    known = fetch(conn, select(terms)).set_index(TERMS)["id"]
    keys = pd.MultiIndex.from_frame(wanted)
    new = keys[~keys.isin(known.index)].unique()
    fresh = pd.Series(next_id(conn, terms) + np.arange(len(new)), new, name="id")
    add(conn, terms, fresh.reset_index())
    ids: I64 = pd.concat([known, fresh]).reindex(keys).to_numpy(np.int64)
    return ids


def _known(conn: Connection, people: I64, before: int) -> pd.DataFrame:
    """The consents of these people: id, IDENTITY, state, withdrawn_at, and notice as a digest."""
    columns = [consents.c[name] for name in ("id", *IDENTITY, "state", "withdrawn_at")]
    query = select(*columns, DIGEST).join_from(consents, notices, isouter=True)
    query = query.where(consents.c.id < before)
    found = fetch_in(conn, query, consents.c.subject, people.tolist())
    return found.astype(dict.fromkeys(("id", *IDENTITY, "withdrawn_at"), "Int64"))


# What the log holds of a consent


def leaves(nonces: U8, records: U8, references: U8) -> list[bytes]:
    """Canonical JSON of each leaf: nonce, HMAC of the record, HMAC as reference, in hex.

    nonces: uint8 (n, 16); records, references: uint8 (n, 32).
    """

    def text(constant: bytes) -> U8:
        return np.broadcast_to(np.frombuffer(constant, np.uint8), (len(nonces), len(constant)))

    def digits(values: U8) -> U8:
        return np.frombuffer(values.tobytes().hex().encode(), np.uint8).reshape(
            -1, 2 * values.shape[1]
        )

    return as_bytes(
        np.hstack(
            [
                text(b'{"nonce":"'),
                digits(nonces),
                text(b'","record":"'),
                digits(records),
                text(b'","reference":"'),
                digits(references),
                text(b'"}'),
            ]
        )
    )


def record_macs(secrets: U8, consents: pd.DataFrame) -> U8:
    """HMAC of each consent's record under its person's secret: uint8 (n, 32)."""
    return _native.hmac_sha256_each(secrets, *joined(records(consents)))


def refusal_macs(secrets: U8, refusals: pd.DataFrame) -> U8:
    """HMAC of each refusal's record under its person's secret: uint8 (n, 32)."""
    return _native.hmac_sha256_each(secrets, *joined(refusal_records(refusals)))


def reference_macs(secrets: U8, rows: pd.DataFrame, origin: str) -> U8:
    """HMAC of what a consent or a refusal is for under its person's secret: uint8 (n, 32)."""
    codes, distinct = pd.factorize(pd.MultiIndex.from_frame(rows[["recipient", "purpose"]]))
    texts = [canonical(["concordat.consent", origin, *pair]).decode() for pair in distinct]
    return _native.hmac_sha256_each(secrets, *joined(pd.Series(texts)[codes]))


def records(consents: pd.DataFrame) -> pd.Series:
    """The canonical JSON of each consent: times in UTC; notice, withdrawn_at where there is one."""
    digests = consents.get("notice", pd.Series("", consents.index))
    notice = ('","notice":"' + digests).where(digests != "", "")
    withdrawn = consents["withdrawn_at"] < NEVER
    ended = '","withdrawn_at":"' + iso(consents["withdrawn_at"].where(withdrawn, 0))
    return (
        '{"categories":["'
        + consents["categories"].str.replace(";", '","')
        + '"],"expires_at":"'
        + iso(consents["expires_at"])
        + '","granted_at":"'
        + iso(consents["granted_at"])
        + '","kind":"'
        + consents["kind"]
        + notice
        + '","purpose":"'
        + consents["purpose"]
        + '","recipient":"'
        + consents["recipient"]
        + '","state":"'
        + consents["state"]
        + ended.where(withdrawn, "")
        + '"}'
    )


def refusal_records(refusals: pd.DataFrame) -> pd.Series:
    """The canonical JSON of each refusal: at in UTC, reason only where there is one."""
    reason = '","reason":"' + refusals["reason"]
    return (
        '{"at":"'
        + iso(refusals["at"])
        + '","purpose":"'
        + refusals["purpose"]
        + reason.where(refusals["reason"] != "", "")
        + '","recipient":"'
        + refusals["recipient"]
        + '","state":"'
        + refusals["state"]
        + '"}'
    )


def restriction_macs(secrets: U8, restrictions: pd.DataFrame) -> U8:
    """HMAC of each restriction's record under its person's secret: uint8 (n, 32)."""
    return _native.hmac_sha256_each(secrets, *joined(restriction_records(restrictions)))


def restriction_records(restrictions: pd.DataFrame) -> pd.Series:
    """The canonical JSON of each restriction: until in UTC, only where there is one."""
    until = 'true,"until":"' + iso(restrictions["until"]) + '"}'
    return (
        '{"reason":"'
        + restrictions["reason"]
        + '","restricted":'
        + until.where(restrictions["until"] > 0, "false}")
    )


def restriction_references(secrets: U8, origin: str) -> U8:
    """HMAC of what restrictions are about under each person's secret: uint8 (n, 32)."""
    text = canonical(["concordat.restriction", origin]).decode()
    return _native.hmac_sha256_each(secrets, *joined([text] * len(secrets)))


def when(microseconds: int) -> str:
    """RFC 3339 in UTC."""
    return str(iso(pd.Series([microseconds]))[0])


def iso(times: pd.Series) -> pd.Series:
    """RFC 3339 in UTC, with microseconds only where there are some."""
    text = np.datetime_as_string(times.to_numpy(np.int64).astype("datetime64[us]"), timezone="UTC")
    return pd.Series(text, times.index, dtype=str).str.replace(".000000Z", "Z")
