"""Every store that an earlier version wrote opens with everything in it."""

import json
from datetime import timedelta

import pytest
import stored
from institutions import NOW
from sqlalchemy import Column, ForeignKey, Integer, String, UniqueConstraint, inspect, text
from sqlalchemy.exc import IntegrityError

from compliance import evidence, migrations, offline, postgresql, sqlite, timeline
from compliance.errors import StoreDamaged, StoreTooNew
from compliance.evidence import Scope
from compliance.store import open_store, read, write

VERSIONS = stored.versions()
BACKENDS = {"sqlite": sqlite, "postgresql": postgresql}


def migrating(engine):
    return BACKENDS[engine.dialect.name].migrating(engine)


def schema(engine):
    """Everything that could differ between a new store and one that was brought up to date."""
    looked_at = inspect(engine)
    return {
        table: {
            "columns": {
                column["name"]: (column["type"].python_type, column["nullable"])
                for column in looked_at.get_columns(table)
            },
            "key": set(looked_at.get_pk_constraint(table)["constrained_columns"]),
            "unique": {
                frozenset(item["column_names"]) for item in looked_at.get_unique_constraints(table)
            },
            "references": {
                (tuple(key["constrained_columns"]), key["referred_table"])
                for key in looked_at.get_foreign_keys(table)
            },
            "indexes": {
                (index["name"], *index["column_names"], "where" in str(index["dialect_options"]))
                for index in looked_at.get_indexes(table)
            },
        }
        for table in looked_at.get_table_names()
    }


def test_there_is_a_store_of_every_earlier_version():
    assert set(range(1, migrations.VERSION)) <= set(VERSIONS)


@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_is_lost(version, store_url):
    stored.load(version, store_url)
    engine = open_store(store_url)
    before = json.loads((stored.FOLDER / f"version-{version}.json").read_text())["rows"]
    del before["schema_version"]
    del before["log_nodes"]  # made of what else is there; the audit compares
    with read(engine) as conn:
        verdict = stored.verify(version, conn)
        after = stored.rows(conn)
    for table, (names, *rows) in before.items():
        kept = [after[table][0].index(name) for name in names]
        assert [[row[at] for at in kept] for row in after[table][1:]] == rows, table
    assert verdict.ok, verdict.report.findings
    assert (verdict.agreements, verdict.receipts, verdict.consents) == (1, 2, 6)
    assert verdict.report.size == 8


@pytest.mark.parametrize("version", VERSIONS)
def test_evidence_of_it_holds(version, store_url, tmp_path):
    """Of all, of a part, and of each person; only the manifest is by a key made for the test."""
    stored.load(version, store_url)
    with read(open_store(store_url)) as conn:
        source, keys = stored.source(version, conn)
        run = conn.execute(text("SELECT run FROM receipts")).scalars().first()
        scopes = [Scope(), Scope(run=run), Scope(since=NOW), Scope(until=NOW + timedelta(days=1))]
        for number, scope in enumerate(scopes):
            evidence.export(source, tmp_path / str(number), scope, time=NOW)
        for number, subject in enumerate(stored.PEOPLE):
            with evidence.folder(tmp_path / f"person-{number}") as made:
                told = timeline.of_person(conn, source.log, keys, subject, now=NOW, run=run)
                assert len(told["timeline"]) == 1 + (number == 5)  # who has withdrawn
                timeline.write(source, made, told)
                made.close(source, {"person": "one"}, NOW)
    for folder in tmp_path.glob("[0-9p]*"):
        if folder.is_dir():
            (one,) = offline.verify([folder], None)
            assert one.fails == ["manifest.json lacks the signature of bank."], folder


@pytest.mark.parametrize("version", VERSIONS)
def test_its_schema_is_that_of_a_new_store(version, new_store):
    old = new_store("old")
    stored.load(version, old)
    assert schema(open_store(old)) == schema(open_store(new_store("new"), create=True))


@pytest.fixture
def engine(store_url):
    """A store with two tables as a step might find them."""
    engine = open_store(store_url, create=True)
    with write(engine) as conn:
        migrations.create(
            conn, "people", Column("id", Integer, primary_key=True), Column("name", String)
        )
        migrations.create(
            conn, "pets", Column("owner", ForeignKey("people.id"), nullable=False, index=True)
        )
        conn.execute(text("INSERT INTO people VALUES (1, 'wang'), (2, 'li')"))
        conn.execute(text("INSERT INTO pets VALUES (2)"))
    return engine


def test_a_step_can_add_columns(engine):
    with migrating(engine) as conn:
        migrations.add_column(conn, "people", Column("age", Integer))
        column = Column("kind", String(8), nullable=False, server_default="staff")
        migrations.add_column(conn, "people", column)
    with read(engine) as conn:
        rows = conn.execute(text("SELECT * FROM people ORDER BY id")).all()
    assert rows == [(1, "wang", None, "staff"), (2, "li", None, "staff")]


def test_a_step_can_rebuild_a_table_that_others_refer_to(engine):
    with migrating(engine) as conn:
        migrations.rebuild(
            conn,
            "people",
            Column("id", Integer, primary_key=True),
            Column("name", String(16), nullable=False),
            Column("initial", String(1), nullable=False),
            UniqueConstraint("name", "initial"),
            initial="substr(name, 1, 1)",
        )
    with read(engine) as conn:
        rows = conn.execute(text("SELECT * FROM people ORDER BY id")).all()
    assert rows == [(1, "wang", "w"), (2, "li", "l")]
    found = schema(engine)
    assert found["people"]["unique"] == {frozenset({"name", "initial"})}
    assert found["pets"]["references"] == {(("owner",), "people")}
    with pytest.raises(IntegrityError), write(engine) as conn:
        conn.execute(text("INSERT INTO pets VALUES (3)"))


def test_a_step_cannot_break_a_reference(engine):
    with pytest.raises((StoreDamaged, IntegrityError)), migrating(engine) as conn:
        conn.execute(text("DELETE FROM people"))
    with read(engine) as conn:
        assert conn.execute(text("SELECT count(*) FROM people")).scalar() == 2


def with_one_more(monkeypatch, step):
    """The program as its next version might be."""
    monkeypatch.setattr(migrations, "STEPS", [*migrations.STEPS, step])
    monkeypatch.setattr(migrations, "VERSION", migrations.VERSION + 1)


def add_a_table(conn):
    migrations.create(conn, "more", Column("id", Integer, primary_key=True))


def add_a_table_and_fail(conn):
    add_a_table(conn)
    raise RuntimeError


def test_a_step_that_fails_leaves_the_store_as_it_was(store_url, monkeypatch):
    old = schema(open_store(store_url, create=True))
    with monkeypatch.context() as later:
        with_one_more(later, add_a_table_and_fail)
        with pytest.raises(RuntimeError):
            open_store(store_url)
    engine = open_store(store_url)
    assert schema(engine) == old
    with write(engine) as conn:
        version = conn.execute(text("SELECT version FROM schema_version")).scalar()
    assert version == migrations.VERSION


def test_a_step_is_taken_once_and_an_older_program_then_writes_no_more(store_url, monkeypatch):
    running = open_store(store_url, create=True)
    with monkeypatch.context() as later:
        with_one_more(later, add_a_table)
        open_store(store_url)
        with write(open_store(store_url)) as conn:
            conn.execute(text("INSERT INTO more VALUES (1)"))
    with pytest.raises(StoreTooNew), write(running):
        pass
    with pytest.raises(StoreTooNew):
        open_store(store_url)
