"""Stores as earlier versions wrote them: schema, rows, and the keys that an audit needs.

Run as a program before a step is added to `compliance.migrations`, this writes what the version
before it stores to stores/version-N.json, for tests/compliance/test_migrations.py.
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from institutions import NOW, Institution, Run, person, sign_agreement
from sqlalchemy import Connection, Engine, create_engine, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from compliance import audit, migrations, witness
from compliance.evidence import Source
from compliance.log import Log
from compliance.note import COSIGNATURE, VerifierKey, cosign
from compliance.signing import SigningKey
from compliance.store import metadata, read, write
from compliance.vault import VaultKeys
from compliance.witness import Witness
from parties import peers, runs
from parties.config import Home
from parties.node import Node

FOLDER = Path(__file__).with_name("stores")
PEOPLE = [person(number) for number in range(6)]


def load(version: int, url: str) -> Engine:
    """Put what a version stored into the empty database at a URL."""
    stored = json.loads(_path(version).read_text("utf-8"))
    engine = create_engine(url)
    with engine.begin() as conn:
        for statement in stored["schema"][engine.dialect.name]:
            conn.exec_driver_sql(statement)
        mark = "?" if engine.dialect.name == "sqlite" else "%s"
        for table, (names, *rows) in stored["rows"].items():
            quoted = ", ".join(f'"{name}"' for name in names)
            values = ", ".join([mark] * len(names))
            if rows:
                conn.exec_driver_sql(
                    f"INSERT INTO {table} ({quoted}) VALUES ({values})",  # noqa: S608
                    [tuple(map(_from_json, row)) for row in rows],
                )
    engine.dispose()
    return engine


def verify(version: int, conn: Connection) -> audit.Verdict:
    """Audit a store that was loaded from a version, with the keys of its institution."""
    known = json.loads(_path(version).read_text("utf-8"))["keys"]
    return audit.verify(
        conn,
        VerifierKey.parse(known["log"]),
        keys={name: bytes.fromhex(key) for name, key in known["parties"].items()},
        vault=VaultKeys(*map(bytes.fromhex, known["vault"])),
        witnesses=[VerifierKey.parse(known["witness"])],
        partners=[VerifierKey.parse(known["partner"])],
    )


def source(version: int, conn: Connection) -> tuple[Source, VaultKeys]:
    """What evidence is made of. The keys that signed are not stored; another signs the manifest."""
    known = json.loads(_path(version).read_text("utf-8"))["keys"]
    log, partner, witness_key = (
        VerifierKey.parse(known[name]) for name in ("log", "partner", "witness")
    )
    key = SigningKey.generate()
    made = Source(
        conn,
        Log(log.name, key),
        "bank",
        key,
        {name: [bytes.fromhex(public)] for name, public in known["parties"].items()},
        {"bank": [log], "partner": [partner]},
        {"partner": [witness_key]},
    )
    return made, VaultKeys(*map(bytes.fromhex, known["vault"]))


def rows(conn: Connection) -> dict[str, list[Any]]:
    """Every table: the names of its columns, and its rows."""
    found = {}
    for table in metadata.sorted_tables:
        stored = conn.execute(select(table).order_by(*table.primary_key)).all()
        found[table.name] = [table.c.keys(), *([*map(_to_json, row)] for row in stored)]
    return found


def versions() -> list[int]:
    return sorted(int(path.stem.removeprefix("version-")) for path in FOLDER.glob("version-*.json"))


def _path(version: int) -> Path:
    return FOLDER / f"version-{version}.json"


def _to_json(value: Any) -> Any:
    return [value.hex()] if isinstance(value, bytes) else value


def _from_json(value: Any) -> Any:
    return bytes.fromhex(value[0]) if isinstance(value, list) else value


def _schema(dialect: Any) -> list[str]:
    statements = []
    for table in metadata.sorted_tables:
        statements.append(str(CreateTable(table).compile(dialect=dialect)))
        statements += [str(CreateIndex(index).compile(dialect=dialect)) for index in table.indexes]
    return statements


def _write(folder: Path) -> None:
    """A bank's store with something in every table."""
    bank, partner = (Institution.create(folder, name) for name in ("bank", "partner"))
    sign_agreement(bank, partner)
    bank.take(*({"subject": subject} for subject in PEOPLE))
    bank.take({"subject": PEOPLE[5], "withdrawn_at": "2026-10-15T12:00:00+08:00"})
    run = Run(bank, partner, bank.decide(*PEOPLE))
    run.begin()
    run.release()
    run.complete()
    with write(partner.engine) as conn:
        partner.log.checkpoint(conn)
        request = witness.request(conn, partner.log, 0)
    own = Node.create(Home(folder / "own"), "bank", "bank", None)
    node = Node.create(Home(folder / "home"), "partner", "other", None)
    key = SigningKey.generate()
    witness_key = VerifierKey("partner.example/witness", key.public, COSIGNATURE)
    with write(bank.engine) as conn:
        ours = Witness("bank.example/witness", SigningKey.generate(), [partner.log.verifier])
        assert ours.add_checkpoint(conn, request.encode(), NOW).status == 200
        head = bank.log.checkpoint(conn)
        line = cosign(head.text, witness_key.name, key, NOW)
        bank.log.add_cosignature(conn, head.size, line)
        peers.pin(conn, node.identity, own.identity, NOW)
        peers.record_invitation(conn, 0x1234, NOW)
        start = {"job": "insight", "agreement": "credit-2026", "role": "bank", "peer": "partner"}
        runs.record_start(conn, run.run, **start, now=NOW)
        runs.record_end(conn, run.run, runs.COMPLETED, {"rows": 6}, NOW)
    with read(bank.engine) as conn:
        stored = {
            "keys": {
                "log": str(bank.log.verifier),
                "parties": {name: key.hex() for name, key in run.keys.items()},
                "vault": [bank.vault.lookup.hex(), bank.vault.wrapping.hex()],
                "witness": str(witness_key),
                "partner": str(partner.log.verifier),
            },
            "schema": {
                "sqlite": _schema(sqlite.dialect()),
                "postgresql": _schema(postgresql.dialect()),
            },
            "rows": rows(conn),
        }
    _path(migrations.VERSION).write_text(json.dumps(stored, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    if _path(migrations.VERSION).exists():
        sys.exit(f"{_path(migrations.VERSION)} exists: a version's store is written once.")
    with TemporaryDirectory() as name:
        _write(Path(name))
