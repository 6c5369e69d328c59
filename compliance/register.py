"""The register of agreements: proposed here or offered by the partner, then signed by both.

Every step is an entry in the log. An agreement counts only while both signatures verify with the
keys pinned at pairing, and that is checked each time it is used.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    LargeBinary,
    Row,
    String,
    Table,
    func,
    insert,
    select,
    update,
)

from compliance.agreement import Agreement
from compliance.errors import (
    AgreementAmbiguous,
    AgreementBroken,
    AgreementConflict,
    AgreementInvalid,
    AgreementUnknown,
    AgreementUnsigned,
    InvalidSignature,
    OffersWaiting,
)
from compliance.log import Log
from compliance.signing import Envelope, SigningKey, keyid
from compliance.store import metadata
from compliance.succession import ever
from protos.errors import ConcordatError

PAYLOAD_TYPE = "application/vnd.concordat.agreement+json"

MAX_OFFERS = 100  # of one partner, not signed here

PROPOSED = "proposed"  # written here
OFFERED = "offered"  # received from the partner
SIGNED = "signed"  # by both

agreements = Table(
    "agreements",
    metadata,
    Column("agreement", String(64), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("digest", LargeBinary(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("proposed_by", String(128), nullable=False),  # a person here, or the partner's name
    Column("envelope", LargeBinary, nullable=False),
)

Keys = Mapping[str, bytes]
"""The pinned public key (32 bytes) of each party, by its name; a `KeyRing` has past ones too."""


@dataclass(frozen=True)
class Registered:
    """An agreement as the register holds it. Its signatures are not verified; see `check`."""

    agreement: Agreement
    state: str
    proposed_by: str
    envelope: Envelope

    @property
    def parties(self) -> tuple[str, str]:
        return self.agreement.parties.bank, self.agreement.parties.partner

    def __str__(self) -> str:
        return f"agreement {self.agreement.agreement}, version {self.agreement.version}"


@dataclass(frozen=True)
class Register:
    """The writing side of a node's register: the institution's name, its log, pinned keys."""

    name: str
    log: Log
    keys: Keys

    def propose(
        self, conn: Connection, agreement: Agreement, *, by: str, time: datetime
    ) -> Registered:
        """Enters an agreement that a person here has written. Raises E301, E303."""
        envelope = Envelope(PAYLOAD_TYPE, agreement.document)
        offer = Registered(agreement, PROPOSED, by, envelope)
        _check_party(offer, self.name)
        return self._enter(conn, offer, time)

    def receive(
        self, conn: Connection, envelope: Envelope, *, sender: str, time: datetime
    ) -> Registered:
        """Takes in an agreement that a partner offers, or its signature under one known here.

        It is between the sender and this institution, and the sender's signature must hold.
        Raises AgreementInvalid (E301), AgreementConflict (E303), OffersWaiting (E308),
        InvalidSignature (E503).
        """
        if envelope.payload_type != PAYLOAD_TYPE:
            raise AgreementInvalid("This is no agreement.", "Ask the partner to offer it again.")
        agreement = Agreement.from_document(envelope.payload)
        bare = Envelope(PAYLOAD_TYPE, envelope.payload)
        offer = Registered(agreement, OFFERED, sender, bare)
        _check_party(offer, self.name)
        _check_party(offer, sender)
        key = self.keys[sender]
        envelope.verify({keyid(key): key})
        held = self._enter(conn, offer, time)
        self._check_waiting(conn, sender)
        return self._add(conn, held, key, envelope.signatures[keyid(key)], by=sender, time=time)

    def sign(
        self, conn: Connection, held: Registered, key: SigningKey, *, by: str, time: datetime
    ) -> Registered:
        """Adds this institution's signature, by its pinned key, at the wish of a person."""
        if key.public != self.keys[self.name]:
            raise ValueError("this key is not the one the institution is known by")
        signature = held.envelope.sign(key).signatures[key.keyid]
        return self._add(conn, held, key.public, signature, by=by, time=time)

    def _enter(self, conn: Connection, offer: Registered, time: datetime) -> Registered:
        """Adds an agreement that is not known; another document of its name is a conflict."""
        agreement = offer.agreement
        named = {"agreement": agreement.agreement, "version": agreement.version}
        row = conn.execute(select(agreements).filter_by(**named)).one_or_none()
        if row is None:
            _check_succeeds(conn, offer)
            columns = {
                **named,
                "digest": agreement.digest,
                "state": offer.state,
                "proposed_by": offer.proposed_by,
                "envelope": offer.envelope.to_json(),
            }
            conn.execute(insert(agreements).values(columns))
            self._log(conn, offer.state, offer, time, by=offer.proposed_by)
            return offer
        held = registered(row)
        if held.agreement.document != agreement.document:
            raise AgreementConflict(
                f"Another document is already known as {held}.",
                "Give the changed document a new version.",
            )
        return held

    def _check_waiting(self, conn: Connection, sender: str) -> None:
        """A register only grows, so a partner may not fill it by itself."""
        offered = {"proposed_by": sender, "state": OFFERED}
        query = select(func.count()).select_from(agreements).filter_by(**offered)
        if conn.execute(query).scalar_one() > MAX_OFFERS:
            raise OffersWaiting(
                f"{MAX_OFFERS} agreements that {sender} has offered wait for a signature.",
                "Sign those that are meant first; the last offer was not taken in.",
            )

    def _add(
        self,
        conn: Connection,
        held: Registered,
        key: bytes,
        signature: bytes,
        *,
        by: str,
        time: datetime,
    ) -> Registered:
        """Adds a signature that is known to hold, unless it is there already."""
        if keyid(key) in held.envelope.signatures:
            return held
        signatures = {**held.envelope.signatures, keyid(key): signature}
        held = replace(held, envelope=replace(held.envelope, signatures=signatures))
        if not unsigned(held, self.keys):
            held = replace(held, state=SIGNED)
        named = {"agreement": held.agreement.agreement, "version": held.agreement.version}
        conn.execute(
            update(agreements)
            .filter_by(**named)
            .values(state=held.state, envelope=held.envelope.to_json())
        )
        self._log(conn, SIGNED, held, time, by=by, key=keyid(key))
        return held

    def _log(
        self, conn: Connection, step: str, held: Registered, time: datetime, **more: str
    ) -> None:
        body = {
            "agreement": held.agreement.agreement,
            "version": held.agreement.version,
            "digest": held.agreement.digest.hex(),
            **more,
        }
        self.log.append(conn, f"agreement.{step}", body, time=time)


def find(conn: Connection, name: str, version: int | None = None) -> Registered:
    """A version of an agreement, by default the latest. Raises E304, or E306 if damaged."""
    table = agreements.c
    query = select(agreements).where(table.agreement == name).order_by(table.version.desc())
    if version is not None:
        query = query.where(table.version == version)
    row = conn.execute(query.limit(1)).one_or_none()
    if row is None:
        raise AgreementUnknown(
            f"There is no agreement {name}" + (f", version {version}." if version else "."),
            "List the agreements with `concordat agreement show`, or propose this one.",
        )
    return registered(row)


def one(conn: Connection, name: str, version: int | None = None) -> Registered:
    """The version named, or the only one there is: what is signed has to be what was read.

    Raises as `find`, and AgreementAmbiguous (E307) where a version has to be named.
    """
    table = agreements.c
    query = select(table.version).where(table.agreement == name).order_by(table.version)
    versions = conn.execute(query).scalars().all()
    if version is None and len(versions) > 1:
        raise AgreementAmbiguous(
            f"There are several versions of {name}: {', '.join(map(str, versions))}.",
            "Read the one you mean with `concordat agreement show --version N`, then sign that.",
        )
    return find(conn, name, version)


def every(conn: Connection) -> list[Registered]:
    """All agreements in all versions. Raises AgreementBroken (E306) if one is damaged."""
    query = select(agreements).order_by(agreements.c.agreement, agreements.c.version)
    return [registered(row) for row in conn.execute(query)]


def signed_by(conn: Connection, key: str) -> list[tuple[str, int]]:
    """The agreements under which a key's signature is said to be, by name and version.

    None that both have signed a newer version of. The key is named by its id.
    """
    columns = agreements.c.agreement, agreements.c.version, agreements.c.state
    signature = f'"keyid":"{key}"'.encode()
    rows = conn.execute(select(*columns, agreements.c.envelope).order_by(*columns[:2])).all()
    latest = {row.agreement: row.version for row in rows if row.state == SIGNED}
    return [
        (row.agreement, row.version)
        for row in rows
        if signature in row.envelope and row.version >= latest.get(row.agreement, 0)
    ]


def latest_signed(conn: Connection, name: str, keys: Keys) -> Agreement:
    """The latest version that both parties have signed, its signatures verified.

    Whether it is in force, `lifecycle.in_force` says.

    Raises AgreementUnknown (E304), AgreementUnsigned (E305), AgreementBroken (E306).
    """
    table = agreements.c
    signed = select(func.max(table.version)).where(table.agreement == name, table.state == SIGNED)
    held = find(conn, name, conn.execute(signed).scalar())
    check(held, keys)
    return held.agreement


def check(held: Registered, keys: Keys) -> None:
    """Raises AgreementUnsigned (E305) or AgreementBroken (E306) unless both have signed."""
    missing = unsigned(held, keys)
    if missing:
        raise AgreementUnsigned(
            f"The signature of {' and '.join(missing)} is missing under {held}.",
            "Have it signed there with `concordat agreement sign`.",
        )
    try:
        held.envelope.verify(signers(held, keys))
    except InvalidSignature:
        raise _broken(f"A signature under {held} does not hold.") from None


def unsigned(held: Registered, keys: Keys) -> list[str]:
    """The parties whose signature, by the pinned key or one before it, is missing."""
    signed = signers(held, keys).values()
    return [name for name in held.parties if not {*ever(keys, name)} & {*signed}]


def signers(held: Registered, keys: Keys) -> dict[str, bytes]:
    """The keys of the parties, past ones too, that are said to have signed, by their ids."""
    known = {keyid(key): key for name in held.parties for key in ever(keys, name)}
    return {name: key for name, key in known.items() if name in held.envelope.signatures}


def registered(row: Row[Any]) -> Registered:
    """A row of `agreements`. Raises AgreementBroken (E306) if it is not what it was."""
    try:
        envelope = Envelope.from_json(row.envelope)
        agreement = Agreement.from_document(envelope.payload)
    except ConcordatError:
        raise _broken(f"The stored agreement {row.agreement} is damaged.") from None
    columns = (row.agreement, row.version, row.digest)
    if columns != (agreement.agreement, agreement.version, agreement.digest):
        raise _broken(f"The stored agreement {row.agreement} is not what was signed.")
    return Registered(agreement, row.state, row.proposed_by, envelope)


def _check_succeeds(conn: Connection, offer: Registered) -> None:
    """A version is between the same parties as those before, and newer than what they signed."""
    named = agreements.c.agreement == offer.agreement.agreement
    for row in conn.execute(select(agreements).where(named)):
        held = registered(row)
        if held.agreement.parties != offer.agreement.parties:
            raise AgreementConflict(
                f"{held} is between {' and '.join(held.parties)}.",
                "Give an agreement between others another name.",
            )
        if held.state == SIGNED and held.agreement.version > offer.agreement.version:
            raise AgreementConflict(
                f"Both have signed {held}, which is newer.",
                "Give the changed document a higher version.",
            )


def _check_party(offer: Registered, name: str) -> None:
    if name not in offer.parties:
        raise AgreementInvalid(
            f"{name} is no party to {offer}.", "Write the parties by the names of their nodes."
        )


def _broken(problem: str) -> AgreementBroken:
    return AgreementBroken(
        problem, "Do not rely on it; run `concordat audit verify` and keep the store as evidence."
    )
