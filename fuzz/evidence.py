"""A folder of evidence, as whoever shows it may have made it: each of its files is an input."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_bytes

import pandas as pd
from sqlalchemy import Connection

from compliance import evidence, gate, offline, receipt, timeline
from compliance.agreement import Agreement, Job
from compliance.consent import import_consents
from compliance.evidence import Scope, Source
from compliance.log import Log
from compliance.note import COSIGNATURE, VerifierKey, cosign
from compliance.receipt import Section
from compliance.register import Register
from compliance.signing import SigningKey
from compliance.store import open_store, write
from compliance.vault import VaultKeys
from fuzz.documents import AGREEMENT, INSIGHT
from fuzz.target import Setup, Target

_NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
_BANK, _PARTNER, _WITNESS, _OURS = (SigningKey.generate() for _ in range(4))
_OWN = VerifierKey("bank.example/witness", _OURS.public, COSIGNATURE)
_RUN = "0123456789abcdef" * 2


@contextmanager
def _story(folder: Path) -> Iterator[tuple[Connection, Source, VaultKeys, list[str]]]:
    """A bank's store after an import, an agreement and a run, and who was in the run."""
    agreement, job = Agreement.from_yaml(AGREEMENT.decode()), Job.from_yaml(INSIGHT.decode())
    bank, partner = agreement.parties.bank, agreement.parties.partner
    keys = {bank: _BANK.public, partner: _PARTNER.public}
    vault = VaultKeys(token_bytes(32), token_bytes(32))
    log = Log(f"{bank}.example/log", SigningKey.generate())
    scope = gate.Scope.of(agreement, "bank")
    people = [f"phone:+86139{number:08d}" for number in range(5)]
    row = {
        "purpose": scope.purpose,
        "recipient": scope.recipient,
        "categories": ";".join(scope.categories),
        "kind": "separate",
        "granted_at": "2025-06-15T09:00:00Z",
        "expires_at": "2028-12-31T00:00:00Z",
        "withdrawn_at": "",
    }
    with write(open_store(f"sqlite:///{folder}/store.db", create=True)) as conn:
        table = pd.DataFrame([{"subject": person, **row} for person in people], dtype=str)
        import_consents(conn, log, vault, table, time=_NOW)
        register = Register(bank, log, keys)
        held = register.propose(conn, agreement, by="wang", time=_NOW)
        held = register.sign(conn, held, _BANK, by="li", time=_NOW)
        both = held.envelope.sign(_PARTNER)
        register.receive(conn, both, sender=partner, time=_NOW)
        decision = gate.decide(conn, log, vault, people[:4], scope, now=_NOW)
        zeros = Section(partner, _PARTNER.public, bytes(32), 1, "other/log", 0, bytes(32))
        started = receipt.intent(
            _RUN,
            agreement,
            job,
            suite="C25519-SHA512",
            bank=Section.of(bank, _BANK.public, decision),
            partner=zeros,
            started=_NOW,
        )
        done = receipt.completion(
            started, transcript=bytes(32), commitment=bytes(32), versions={}, finished=_NOW
        )
        intent, completion = (receipt.signed(one, _BANK).sign(_PARTNER) for one in (started, done))
        receipt.begin(conn, log, intent, decision, keys, time=_NOW)
        gate.release(conn, log, _RUN, decision, now=_NOW)
        receipt.complete(conn, log, completion, keys, time=_NOW)
        head, name = log.checkpoint(conn), "partner.example/witness"
        log.add_cosignature(conn, head.size, cosign(head.text, name, _WITNESS, _NOW))
        witness = VerifierKey(name, _WITNESS.public, COSIGNATURE)
        lines = {name: [key] for name, key in keys.items()}
        logs, witnesses = {bank: [log.verifier]}, {bank: [_OWN], partner: [witness]}
        yield conn, Source(conn, log, bank, _BANK, lines, logs, witnesses), vault, people


def _files(made: Path) -> list[str]:
    paths = (path for path in made.rglob("*") if path.is_file() and path.name != offline.ITSELF)
    return sorted(path.relative_to(made).as_posix() for path in paths)


def _target(made: Path) -> Target:
    """The first byte of an input says which file it is."""
    names = _files(made)
    seeds = [bytes([at]) + (made / name).read_bytes() for at, name in enumerate(names)]

    def check(data: bytes) -> None:
        name = names[data[0] % len(names)] if data else names[0]
        path = made / name
        before = path.read_bytes()
        path.write_bytes(data[1:])
        try:
            (found,) = offline.verify([made], None)
            "\n".join(map(offline.printable, (*found.holds, *found.fails, *found.open)))
            assert bool(found.fails) == (data[1:] != before), name
        finally:
            path.write_bytes(before)

    return Target(check, seeds)


def _log(folder: Path) -> Target:
    with _story(folder) as (_, source, _, _):
        evidence.export(source, folder / "made", Scope(), time=_NOW)
    return _target(folder / "made")


def _part(folder: Path) -> Target:
    with _story(folder) as (_, source, _, _):
        evidence.export(source, folder / "made", Scope(run=_RUN), time=_NOW)
    return _target(folder / "made")


def _person(which: int) -> Setup:
    def setup(folder: Path) -> Target:
        with (
            _story(folder) as (conn, source, vault, people),
            evidence.folder(folder / "made") as made,
        ):
            log, who = source.log, people[which]
            told = timeline.of_person(conn, log, vault, who, now=_NOW, run=_RUN)
            timeline.write(source, made, told)
            made.close(source, {"person": "one"}, _NOW)
        return _target(folder / "made")

    return setup


TARGETS: dict[str, Setup] = {
    "evidence-log": _log,
    "evidence-part": _part,
    "evidence-present": _person(0),
    "evidence-absent": _person(4),
}
