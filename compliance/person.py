"""One person at a time: grant, renew, refuse, withdraw, restrict, lift.

Each is one entry of the log, or one for each purpose and recipient. It holds two HMACs under the
person's secret, of what is recorded and of what it is for, beside the entry's own random nonce.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd
from sqlalchemy import Connection, insert, select, update

from compliance.batch import U8, as_bytes, fetch
from compliance.consent import (
    DIGEST,
    ENDED,
    GIVEN,
    GRANTED,
    INVALIDATED,
    NEVER,
    REFUSED,
    RENEWED,
    REVOKED,
    TERMS,
    WITHDRAWN,
    consent_leaves,
    consents,
    end,
    ended,
    enter,
    invalid,
    microseconds,
    notice_names,
    read,
    record_macs,
    reference_macs,
    refusal_macs,
    refusals,
    restriction_macs,
    restriction_references,
    restrictions,
    terms,
    value,
    when,
)
from compliance.errors import ConsentSuperseded, NothingToChange, PersonUnknown
from compliance.log import Log
from compliance.notice import notices
from compliance.vault import VaultKeys, enrol, erased_at, subjects

RESTRICTED = "consent.restricted"
LIFTED = "consent.lifted"

# What the log calls each change, by the state it leads to.
ENTRY_TYPES = {
    GIVEN: "consent.given",
    RENEWED: "consent.renewed",
    REFUSED: "consent.refused",
    WITHDRAWN: "consent.withdrawn",
    REVOKED: "consent.revoked",
    INVALIDATED: "consent.invalidated",
}

Said = Mapping[str, str]  # the fields of a consent, as a table of consents would hold them


@dataclass(frozen=True)
class Change:
    """What was changed for one purpose and recipient, and where the log speaks of it."""

    state: str
    purpose: str
    recipient: str
    at: int  # microseconds since 1970
    consents: int  # how many were given or ended
    entry: int | None  # none where nothing was new

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"at": when(self.at)}


@dataclass(frozen=True)
class Restriction:
    """That a person was put into `restricted`, or taken out of it, and where the log says so."""

    restricted: bool
    until: int  # microseconds since 1970; 0 if not restricted
    entry: int

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"until": when(self.until) if self.restricted else None}


@dataclass(frozen=True)
class Person:
    """Somebody the vault knows: row id, and secret, uint8 (1, 32)."""

    id: int
    secret: U8


@dataclass(frozen=True)
class Changes:
    """What can be changed for one person, inside the caller's write transaction.

    subject: `kind:` and canonical id of the person.
    """

    conn: Connection
    log: Log
    keys: VaultKeys
    now: datetime

    def grant(self, subject: str, said: Said) -> Change:
        """Records a consent; one that is known already changes nothing.

        said: purpose, recipient, categories, kind, granted_at, expires_at.
        Raises ConsentInvalid (E405), ConsentSuperseded (E406).
        """
        return self._give(subject, said, GIVEN)

    def renew(self, subject: str, said: Said) -> Change:
        """Records that a consent was reaffirmed until a later time, as a consent of its own.

        said: purpose, recipient, granted_at, expires_at; categories and kind, if not said, are
        those of the latest consent for these, which may have expired. Raises ConsentInvalid (E405),
        ConsentSuperseded (E406), NothingToChange (E407), PersonUnknown (E408).
        """
        held = self.consents(self.find(subject))
        held = held[held["state"].isin(GRANTED)]
        for name in ("purpose", "recipient"):
            held = held[held[name] == said[name]]
        if held.empty:
            raise NothingToChange(
                "This person has no consent to renew for that purpose and recipient.",
                "See `concordat consent show`; whoever has withdrawn consents anew: "
                "`concordat consent grant`.",
            )
        latest = held.sort_values("granted_at", kind="stable").iloc[-1]
        kept = {name: latest[name] for name in ("categories", "kind") if not said.get(name)}
        return self._give(subject, {**said, **kept}, RENEWED)

    def refuse(self, subject: str, said: Said) -> Change:
        """Records a no, asked for or not; it ends what was granted for the same until then.

        said: purpose, recipient, at, and perhaps reason. Raises ConsentInvalid (E405).
        """
        row = {name: value(name, said[name]) for name in ("purpose", "recipient")}
        row |= {"state": REFUSED, **self._when_and_why(said)}
        return self._refuse(self._enrol(subject, row["at"]), row)

    def withdraw(self, subject: str, said: Said, state: str = WITHDRAWN) -> list[Change]:
        """Ends consents: all of a person's, or those for a purpose, a recipient, or both.

        said: at, and perhaps purpose, recipient, reason. state: one of ENDED, says who ended them.
        Raises ConsentInvalid (E405), NothingToChange (E407), PersonUnknown (E408).
        """
        if state not in ENDED:
            raise ValueError("a consent ends by being withdrawn, revoked or invalidated")
        row = {"state": state, **self._when_and_why(said)}
        person = self.find(subject)
        held = self.consents(person)
        held = held[(held["granted_at"] <= row["at"]) & (held["withdrawn_at"] > row["at"])]
        for name in ("purpose", "recipient"):
            if said.get(name):
                held = held[held[name] == said[name]]
        if held.empty:
            raise NothingToChange(
                "This person had no such consent then that had not ended already.",
                "See `concordat consent show`. If one may yet be imported, record a refusal: "
                "`concordat consent refuse`.",
            )
        pairs = sorted(set(zip(held["purpose"], held["recipient"], strict=True)))
        return [
            self._refuse(person, {"purpose": purpose, "recipient": recipient, **row})
            for purpose, recipient in pairs
        ]

    def restrict(self, subject: str, said: Said) -> Restriction:
        """Keeps a person out of every run, and from being erased until the law allows it.

        said: until, and perhaps reason. Raises ConsentInvalid (E405), PersonUnknown (E408).
        """
        until, reason = value("until", said["until"]), self._reason(said)
        if until <= microseconds(self.now):
            raise invalid("until lies in the past")
        return self._restrict(self.find(subject), until, reason)

    def lift(self, subject: str, said: Said) -> Restriction:
        """Ends a restriction. said: perhaps reason. Raises E405, E407, E408."""
        reason, person = self._reason(said), self.find(subject)
        if not self.restricted_until(person):
            raise NothingToChange("This person is not restricted.", "See `concordat consent show`.")
        return self._restrict(person, 0, reason)

    def restricted_until(self, person: Person) -> int:
        """Until when at least; 0 if the person is not restricted."""
        query = select(restrictions.c.until).where(restrictions.c.subject == person.id)
        return self.conn.execute(query.order_by(restrictions.c.entry.desc()).limit(1)).scalar() or 0

    def find(self, subject: str) -> Person:
        """Raises PersonUnknown (E408), VaultKey (E404)."""
        (name,) = as_bytes(self.keys.subjects_of([subject]))
        row = fetch(self.conn, select(subjects).where(subjects.c.subject == name))
        if row.empty:
            raise PersonUnknown(
                "The vault knows nobody by this identifier.",
                "Check the identifier and its kind; whoever was erased is unknown, too.",
            )
        return Person(int(row["id"].iloc[0]), self.keys.unwrap(row))

    def consents(self, person: Person) -> pd.DataFrame:
        """A person's consents with terms and the digests of notices, as they are now."""
        apart = (consents.c.terms, consents.c.notice)
        columns = [column for column in consents.c if column not in apart]
        query = (
            select(*columns, *(terms.c[name] for name in TERMS), DIGEST)
            .join_from(consents, terms)
            .join(notices, consents.c.notice == notices.c.id, isouter=True)
        )
        return fetch(self.conn, query.where(consents.c.subject == person.id))

    def refusals(self, person: Person) -> pd.DataFrame:
        """What a person said no to, and how they withdrew."""
        return fetch(self.conn, select(refusals).where(refusals.c.subject == person.id))

    # Recording

    def _enrol(self, subject: str, at: int) -> Person:
        """Whoever says something at a time. Raises ConsentSuperseded (E406)."""
        (erased,) = erased_at(self.conn, self.keys, [subject]).tolist()
        if at <= erased:
            raise ConsentSuperseded(
                f"This person was erased later, at {when(erased)}.",
                "Nothing was recorded: only what was said after that counts.",
            )
        ids, secret = enrol(self.conn, self.keys, self.keys.subjects_of([subject]))
        return Person(int(ids[0]), secret)

    def _give(self, subject: str, said: Said, state: str) -> Change:
        rows = pd.DataFrame([{"withdrawn_at": "", **said, "subject": subject}], dtype=str)
        found, refused = read(rows, notice_names(self.conn))
        for reason in refused:
            raise invalid(reason)
        at = int(found["granted_at"].iloc[0])
        person = self._enrol(subject, at)
        purpose, recipient = (str(found[name].iloc[0]) for name in ("purpose", "recipient"))
        last = self._last_no(person, purpose, recipient)
        if at <= last:
            raise ConsentSuperseded(
                f"This person said no to it later, at {when(last)}.",
                "Nothing was changed: only a consent granted after that counts.",
            )
        changed = enter(self.conn, found.assign(subject=person.id, state=state))
        entry = None
        if len(changed):
            record = record_macs(person.secret, changed)
            entry = self._append(ENTRY_TYPES[state], person, changed, record)
            leaf = {"entry": entry, "position": 0, "consent": int(changed["id"].iloc[0])}
            (now,) = changed[["state", "withdrawn_at", "notice_id"]].to_dict("records")
            row = {**leaf, "state": now["state"], "withdrawn_at": now["withdrawn_at"]}
            row["notice"] = now["notice_id"]
            self.conn.execute(insert(consent_leaves).values(row))
        return Change(state, purpose, recipient, at, len(changed), entry)

    def _refuse(self, person: Person, row: dict[str, Any]) -> Change:
        no = pd.DataFrame([{"subject": person.id, **row}])
        record = refusal_macs(person.secret, no)
        entry = self._append(ENTRY_TYPES[row["state"]], person, no, record)
        self.conn.execute(insert(refusals).values(entry=entry, subject=person.id, **row))
        held = self.consents(person)
        after = ended(held, no)
        changed = after[after["withdrawn_at"] < held["withdrawn_at"]]
        end(self.conn, changed)
        where = row["purpose"], row["recipient"]
        return Change(row["state"], *where, row["at"], len(changed), entry)

    def _restrict(self, person: Person, until: int, reason: str) -> Restriction:
        row = {"until": until, "reason": reason}
        record = restriction_macs(person.secret, pd.DataFrame([row]))
        reference = restriction_references(person.secret, self.log.origin)
        body = {"record": record.tobytes().hex(), "reference": reference.tobytes().hex()}
        entry = self.log.append(self.conn, RESTRICTED if until else LIFTED, body, time=self.now)
        self.conn.execute(insert(restrictions).values(entry=entry, subject=person.id, **row))
        self.conn.execute(
            update(subjects).where(subjects.c.id == person.id).values(restricted=until > 0)
        )
        return Restriction(until > 0, until, entry)

    def _append(self, type_: str, person: Person, row: pd.DataFrame, record: U8) -> int:
        """One entry on a consent or refusal; its index."""
        reference = reference_macs(person.secret, row, self.log.origin)
        body = {"record": record.tobytes().hex(), "reference": reference.tobytes().hex()}
        return self.log.append(self.conn, type_, body, time=self.now)

    def _last_no(self, person: Person, purpose: str, recipient: str) -> int:
        """When this person last said no to it or withdrew; -1 if never."""
        said, held = self.refusals(person), self.consents(person)
        held = held[held["withdrawn_at"] < NEVER].rename(columns={"withdrawn_at": "at"})
        both = pd.concat([frame[["purpose", "recipient", "at"]] for frame in (said, held)])
        both = both[(both["purpose"] == purpose) & (both["recipient"] == recipient)]
        return max(both["at"], default=-1)

    def _when_and_why(self, said: Said) -> dict[str, Any]:
        at = value("at", said["at"])
        if at > microseconds(self.now):
            raise invalid("at lies in the future")
        return {"at": at, "reason": self._reason(said)}

    def _reason(self, said: Said) -> str:
        reason = said.get("reason", "")
        return str(value("reason", reason)) if reason else ""
