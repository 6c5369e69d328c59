"""A consent record with the fields of ISO/IEC TS 27560:2023 (6.3), under the standard's names.

What the consent itself does not say comes from its notice and from the agreements under which the
data is used; what nobody has said stays out, and `missing` names it.
"""

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select

from compliance import notice as notices
from compliance.agreement import Agreement
from compliance.batch import as_bytes, fetch, joined
from compliance.canonical import canonical
from compliance.consent import (
    EXPIRED,
    GIVEN,
    GRANTED,
    INVALIDATED,
    KNOWN_BY,
    NEVER,
    REVOKED,
    consent_leaves,
    microseconds,
    when,
)
from compliance.notice import Notice
from compliance.person import Changes
from federated import _native

SCHEMA = "ISO/IEC TS 27560:2023"

MANDATORY = {
    "header": ("schema_version", "record_id", "pii_principal_id"),
    "pii_processing": ("privacy_notice", "language"),
    "purposes": (
        *("purpose", "pii_information", "pii_controllers", "storage_locations"),
        *("retention_period", "jurisdiction", "recipient_third_parties", "withdrawal_method"),
    ),
    "pii_information": ("pii_type",),
    "party_identification": (
        *("party_id", "party_name", "party_address", "party_contact", "party_type"),
    ),
    "event": ("event_time", "validity_duration", "entity_id", "event_type", "event_state"),
}


def of_person(
    changes: Changes, subject: str, *, institution: str, agreements: Iterable[Agreement]
) -> dict[str, Any]:
    """Everything the vault holds of a person, without the identifier.

    subject: `kind:` and canonical id. agreements: all that are signed. Raises PersonUnknown (E408).
    """
    person, conn, now = changes.find(subject), changes.conn, changes.now
    until = changes.restricted_until(person)

    def mac(*parts: Any) -> str:
        """What stands for the person, or for one of their records, in this institution only."""
        text = canonical([*parts, changes.log.origin]).decode()
        return as_bytes(_native.hmac_sha256_each(person.secret, *joined([text])))[0].hex()

    principal = mac("concordat.person")
    held = changes.consents(person).sort_values(["granted_at", "id"])
    leaf = consent_leaves.c
    query = select(leaf.consent, leaf.entry, leaf.position, leaf.state).order_by(leaf.entry)
    leaves = fetch(conn, query.where(leaf.consent.in_(held["id"].tolist())))
    known = {one.digest: one for one in notices.every(conn)}
    signed = list(agreements)
    records = []
    for row in held.to_dict("records"):
        consent: dict[str, Any] = {str(name): value for name, value in row.items()}
        own = leaves[leaves["consent"] == consent["id"]]
        first = own["state"].iloc[0] if len(own) else GIVEN
        consent["given_as"] = first if first in GRANTED else GIVEN
        consent["principal"] = principal
        digits = mac("concordat.record", *(consent[name] for name in KNOWN_BY[1:]))
        consent["record_id"] = str(uuid.UUID(digits[:32], version=4))
        found = record(
            consent,
            institution=institution,
            notice=known.get(consent["notice"]),
            agreements=[one for one in signed if _covers(one, consent)],
            now=now,
        )
        places = own[["entry", "position"]].to_dict("records")
        ended = consent["withdrawn_at"]
        records.append(
            {
                "state": state_of(consent, now),
                **{name: consent[name] for name in ("purpose", "recipient", "categories", "kind")},
                "granted_at": when(consent["granted_at"]),
                "expires_at": when(consent["expires_at"]),
                "withdrawn_at": when(ended) if ended < NEVER else None,
                "log": places,
                "missing": missing(found),
                "record": found,
            }
        )
    said = changes.refusals(person).drop(columns="subject").sort_values("entry")
    return {
        "pii_principal_id": principal,
        "restricted_until": when(until) if until else None,
        "consents": records,
        "refusals": [one | {"at": when(one["at"])} for one in said.to_dict("records")],
    }


def _covers(agreement: Agreement, consent: Mapping[str, Any]) -> bool:
    parties = (agreement.parties.bank, agreement.parties.partner)
    return agreement.purpose == consent["purpose"] and consent["recipient"] in parties


def record(
    consent: Mapping[str, Any],
    *,
    institution: str,
    notice: Notice | None,
    agreements: Iterable[Agreement],
    now: datetime,
) -> dict[str, Any]:
    """The record of one consent at a time.

    consent: record_id, principal (a pseudonym), and the columns of a consent and its terms.
    institution: the name of the node. agreements: those signed for its purpose and recipient.
    """
    found: dict[str, Any] = {
        "header": {
            "schema_version": SCHEMA,
            "record_id": consent["record_id"],
            "pii_principal_id": consent["principal"],
        },
        "pii_processing": {
            "privacy_notice": notice and notice.privacy_notice,
            "language": notice and notice.language,
            "purposes": [_purpose(consent, notice, tuple(agreements))],
        },
        "party_identification": _parties(notice),
        "event": list(_events(consent, institution, notice, now)),
    }
    if notice:
        found["pii_processing"]["notice"] = {"id": notice.notice, "digest": notice.digest}
    bare: dict[str, Any] = _bare(found)
    return bare


def missing(record: Mapping[str, Any]) -> list[str]:
    """The mandatory fields that a consent record does not have, by section."""
    purposes = record["pii_processing"]["purposes"]
    sections = {
        "header": [record["header"]],
        "pii_processing": [record["pii_processing"]],
        "purposes": purposes,
        "pii_information": [part for one in purposes for part in one["pii_information"]],
        "party_identification": record.get("party_identification", [{}]),
        "event": record["event"],
    }
    lacking = [
        f"{section}.{field}"
        for section, parts in sections.items()
        for part in parts
        for field in MANDATORY[section]
        if field not in part
    ]
    return list(dict.fromkeys(lacking))


def state_of(consent: Mapping[str, Any], now: datetime) -> str:
    """Its state at a time, in the words of the Data Privacy Vocabulary."""
    *_, (_, state) = _changes(consent, microseconds(now))
    return state


def _changes(consent: Mapping[str, Any], now: int) -> list[tuple[int, str]]:
    """When a consent changed its state until now, and to what."""
    first = consent["given_as"]
    changes = [(consent["granted_at"], first)]
    if consent["withdrawn_at"] <= now:
        changes.append((consent["withdrawn_at"], consent["state"]))
    elif consent["expires_at"] <= now:
        changes.append((consent["expires_at"], EXPIRED))
    return changes


def _purpose(
    consent: Mapping[str, Any], notice: Notice | None, agreements: tuple[Agreement, ...]
) -> dict[str, Any]:
    said = notice.purposes.get(consent["purpose"]) if notice else None
    recipients = dict.fromkeys([consent["recipient"], *(notice.recipients if notice else ())])
    agreement = agreements[-1] if agreements else None
    return {
        "purpose": consent["purpose"],
        "purpose_description": said and said.description,
        "purpose_type": said and said.type,
        "lawful_basis": (notice and notice.lawful_basis) or (agreement and agreement.legal_basis),
        "pii_information": [_category(name, notice) for name in consent["categories"].split(";")],
        "pii_controllers": notice and list(notice.controllers),
        "collection_method": notice and notice.collection_method,
        "processing_method": notice and notice.processing_method,
        "storage_locations": notice and list(notice.storage_locations),
        "retention_period": (notice and notice.retention_period)
        or (agreement and f"P{agreement.retention_days}D"),
        "processing_locations": notice and notice.processing_locations,
        "geographic_restrictions": notice and notice.geographic_restrictions,
        "services": notice and notice.services,
        "jurisdiction": notice and notice.jurisdiction,
        "recipient_third_parties": list(recipients),
        "withdrawal_method": notice and notice.withdrawal_method,
        "privacy_rights": notice and notice.privacy_rights,
        "codes_of_conduct": notice and notice.codes_of_conduct,
        "impact_assessment": (notice and notice.impact_assessment)
        or (agreement and agreement.impact_assessment.reference),
        "authority_party": notice and notice.authority,
        "agreements": [
            {"id": one.agreement, "version": one.version, "digest": one.digest.hex()}
            for one in agreements
        ],
    }


def _category(name: str, notice: Notice | None) -> dict[str, Any]:
    said = notice.categories.get(name) if notice else None
    return {
        "pii_type": said.type if said else name,
        "pii_category": name,
        "pii_attribute_id": said and said.attributes,
        "pii_optional": said and said.optional,
        "sensitive_pii_category": said and said.sensitive,
        "special_pii_category": said and said.special,
    }


def _parties(notice: Notice | None) -> list[dict[str, Any]]:
    return [
        {"party_id": name, **{f"party_{field}": value for field, value in party}}
        for name, party in (notice.parties.items() if notice else ())
    ]


def _events(
    consent: Mapping[str, Any], institution: str, notice: Notice | None, now: datetime
) -> Iterable[dict[str, Any]]:
    who = consent["principal"]
    if consent["kind"] == "guardian":
        who = f"guardian of {who}"
    authority = (notice and notice.authority) or "authority"
    valid = timedelta(microseconds=consent["expires_at"] - consent["granted_at"])
    by = {REVOKED: institution, INVALIDATED: authority, EXPIRED: institution}
    for at, state in _changes(consent, microseconds(now)):
        yield {
            "event_time": when(at),
            "validity_duration": _duration(valid if state in GRANTED else timedelta()),
            "entity_id": by.get(state, who),
            "event_type": consent["kind"],
            "event_state": state,
        }


def _duration(span: timedelta) -> str:
    """ISO 8601, in days and seconds."""
    seconds = f"T{span.seconds}S" if span.seconds or not span.days else ""
    return f"P{span.days}D{seconds}" if span.days else f"P{seconds}"


def _bare(value: Any) -> Any:
    """Without what nobody has said."""
    if isinstance(value, dict):
        return {
            name: bare
            for name, part in value.items()
            if (bare := _bare(part)) not in (None, [], {})
        }
    return [_bare(part) for part in value] if isinstance(value, list | tuple) else value
