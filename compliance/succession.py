"""The succession of an institution's keys: who signed before, and up to where that counts.

A new key is introduced by a statement that the old key and the new one sign (a DSSE envelope),
kept in an entry of the log: `key.rotated` for a node's own, `peer.rotated` for a partner's. What
the old key has signed up to that entry goes on to hold; what it signs afterwards counts for
nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import Connection, select

from compliance.canonical import canonical, from_base64, parse, timestamp, to_base64
from compliance.errors import SuccessionRefused
from compliance.log import log_entries
from compliance.note import COSIGNATURE, ED25519, VerifierKey
from compliance.signing import PUBLIC_KEY_BYTES, Envelope, SigningKey, keyid
from protos.errors import ConcordatError

Kind = Literal["signing", "log", "witness"]
KINDS: tuple[Kind, ...] = get_args(Kind)

OWN, PEERS, TOLD = "key.rotated", "peer.rotated", "key.announced"
PAYLOAD_TYPE = "application/vnd.concordat.succession+json"

_MEMBERS = {"party", "kind", "old", "new", "time"}


@dataclass(frozen=True)
class Succession:
    """That a party's key of a kind is followed by another; `old` and `new` are 32 bytes each."""

    party: str
    kind: Kind
    old: bytes
    new: bytes
    envelope: Envelope

    @classmethod
    def make(
        cls, party: str, kind: Kind, old: SigningKey, new: SigningKey, time: datetime
    ) -> "Succession":
        members = {
            "party": party,
            "kind": kind,
            "old": old.public.hex(),
            "new": new.public.hex(),
            "time": timestamp(time),
        }
        envelope = Envelope(PAYLOAD_TYPE, canonical(members)).sign(old).sign(new)
        return cls(party, kind, old.public, new.public, envelope)

    @classmethod
    def parse(cls, data: bytes) -> "Succession":
        """Reads what `data` writes, signed by both keys. Raises SuccessionRefused (E525)."""
        try:
            envelope = Envelope.from_json(data)
            said = parse(envelope.payload)
            old, new = bytes.fromhex(said["old"]), bytes.fromhex(said["new"])
            sound = (
                envelope.payload_type == PAYLOAD_TYPE
                and said.keys() == _MEMBERS
                and all(isinstance(value, str) for value in said.values())
                and said["kind"] in KINDS
                and (said["old"], said["new"]) == (old.hex(), new.hex())  # not in capitals, too
                and len(old) == len(new) == PUBLIC_KEY_BYTES
                and old != new
                and envelope.signatures.keys() == {keyid(old), keyid(new)}
            )
            if sound:
                envelope.verify({keyid(old): old, keyid(new): new})
                return cls(said["party"], said["kind"], old, new, envelope)
        except (AttributeError, ConcordatError, KeyError, TypeError, ValueError):
            pass
        raise refused("it is malformed, or not signed by both keys")

    @property
    def data(self) -> bytes:
        return self.envelope.to_json()

    def entry(self) -> dict[str, Any]:
        """What an entry of the log says of it."""
        return {
            "party": self.party,
            "kind": self.kind,
            "old": self.old.hex(),
            "new": self.new.hex(),
            "succession": to_base64(self.data),
        }


@dataclass(frozen=True)
class Past:
    """A key (32 bytes) that counts for what was entered in the log before entry `until`."""

    public: bytes
    until: int


class KeyRing(dict[str, bytes]):
    """The public key that each party signs with now; and those before it, oldest first."""

    def __init__(self, keys: Mapping[str, bytes], past: Mapping[str, Sequence[Past]]) -> None:
        super().__init__(keys)
        self.past = past

    def at(self, entry: int) -> dict[str, bytes]:
        """The key of each party that counted when an entry was written."""
        found = dict(self)
        for party, keys in self.past.items():
            for past in reversed(keys):
                if entry <= past.until:
                    found[party] = past.public
        return found


def ever(keys: Mapping[str, bytes], party: str) -> list[bytes]:
    """Every key that a party signs or has signed with, the present one first."""
    past = keys.past.get(party, ()) if isinstance(keys, KeyRing) else ()
    present = [keys[party]] if party in keys else []
    return present + [key.public for key in reversed(past)]


def at(keys: Mapping[str, bytes], entry: int) -> Mapping[str, bytes]:
    """The keys that counted when an entry was written."""
    return keys.at(entry) if isinstance(keys, KeyRing) else keys


@dataclass(frozen=True)
class Entered:
    """What an entry says of a succession; None if that is damaged."""

    index: int
    type: str
    party: str
    kind: str
    succession: Succession | None


def entered(conn: Connection, start: int = 0) -> list[Entered]:
    """The successions that the log tells of from an entry on, in order."""
    columns = (log_entries.c.index, log_entries.c.type, log_entries.c.leaf)
    query = select(*columns).where(
        log_entries.c.type.in_([OWN, PEERS]), log_entries.c.index >= start
    )
    return [_read(*row) for row in conn.execute(query.order_by(log_entries.c.index))]


def _read(index: int, type_: str, leaf: bytes) -> Entered:
    body: Any = {}
    try:
        body = parse(leaf)
        found = Succession.parse(from_base64(body["succession"]))
        if found.entry().items() <= body.items():
            return Entered(index, type_, found.party, found.kind, found)
    except (AttributeError, ConcordatError, KeyError, TypeError, ValueError):
        pass
    said = body if isinstance(body, dict) else {}
    return Entered(index, type_, str(said.get("party")), str(said.get("kind")), None)


def history(
    entries: Sequence[Entered], type_: str, party: str, kind: Kind, now: bytes
) -> tuple[list[Past], list[tuple[str, str]]]:
    """The keys of a kind that a party had before the present one, oldest first; and findings.

    type_: OWN or PEERS. now: the present key (32 bytes). A chain that does not lead to it, or that
    no old key has signed, is a finding, and gives no key.
    """
    past: list[Past] = []
    last: bytes | None = None
    for one in entries:
        if (one.type, one.party, one.kind) != (type_, party, kind):
            continue
        found = one.succession
        if found is None or (last is not None and found.old != last):
            return [], [(f"entry {one.index}", "the succession of a key does not hold")]
        past.append(Past(found.old, one.index))
        last = found.new
    if last is not None and last != now:
        return [], [(f"the {kind} key of {party}", "it is not the one that the log introduces")]
    return past, []


def log_keys(name: str, past: Sequence[Past]) -> list[tuple[VerifierKey, int]]:
    """Earlier verifier keys of a log, each with the size of the checkpoint it signed last."""
    return [(VerifierKey(name, key.public, ED25519), key.until + 1) for key in past]


def witness_keys(name: str, past: Sequence[Past]) -> list[VerifierKey]:
    """Earlier verifier keys of a witness."""
    return [VerifierKey(name, key.public, COSIGNATURE) for key in past]


def refused(problem: str) -> SuccessionRefused:
    return SuccessionRefused(
        f"A partner's new key is refused: {problem}.",
        "Call the partner. If they have not rotated it, somebody else has their certificate.",
    )
