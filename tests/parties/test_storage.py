"""Stores that fail while a run is under way: a full disk, a full database, one that is locked."""

import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import make
from ready import Pause, Running, Watch, consent_table, import_consents, job, phones, run
from sqlalchemy import event

from parties import audits
from parties.node import Node
from protos.errors import ConcordatError

Nodes = tuple[Node, Node]
Failure = Callable[[Node], Any]


@contextmanager
def files_may_not_grow(node: Node) -> Iterator[None]:
    """RLIMIT_FSIZE, as on a full disk: root is not exempt from it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def database_is_full(node: Node) -> Iterator[None]:
    def limit(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # SQLite makes that what there is

    event.listen(node.store, "connect", limit)
    node.store.dispose()
    try:
        yield
    finally:
        event.remove(node.store, "connect", limit)
        node.store.dispose()


@contextmanager
def another_process_writes(node: Node) -> Iterator[None]:
    other = sqlite3.connect(node.home.path / "concordat.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


FAILURES = {
    "full disk": (files_may_not_grow, {"E631", "E703", "E706"}),
    "full database": (database_is_full, {"E703"}),
    "locked database": (another_process_writes, {"E701"}),
}


def impatient(node: Node) -> None:
    """Waits for other writers no longer than a test can."""

    def limit(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA busy_timeout = 100")

    event.listen(node.store, "connect", limit)
    node.store.dispose()


STAGES = {
    "full disk": ["gate", "sign intent", "hash ids", "sign completion"],
    "full database": ["gate", "sign intent"],  # for what comes later there may be room
    "locked database": ["gate", "sign intent", "hash ids", "sign completion"],
}


@pytest.mark.parametrize(
    ("name", "stage"), [(name, stage) for name in STAGES for stage in STAGES[name]]
)
def test_a_store_that_fails_in_a_run(lasting: Nodes, name: str, stage: str) -> None:
    """The run ends with a number on both sides; nothing is released; the next one works."""
    bank, shop = lasting
    impatient(bank)
    failure, codes = FAILURES[name]
    ours, theirs = Watch(bank), Watch(shop)
    pause = Pause(stage)
    running = Running(bank, job("intersect"), pause)
    assert pause.reached.wait(20)
    with failure(bank):
        pause.go.set()
        running.join(40)
    assert running.error is not None
    assert running.error.code in codes
    assert running.error.next_step

    assert run(bank, "overlap")["state"] == "completed"
    for node, watch in ((bank, ours), (shop, theirs)):
        failed, _ = watch.ended(2)
        if node is shop and stage == "sign completion" and failed["state"] == "completed":
            continue  # it had the bank's signature before the bank's store failed
        assert failed["state"] in {"failed", "interrupted"}
        assert failed["report"]["error"]["code"] in {"E208", "E209", "E625", *codes}
        assert not list(node.home.run_folder(failed["id"]).iterdir())
        verdict, not_asked = audits.verify(node)
        assert verdict.ok, verdict.report.findings
        assert not not_asked


@pytest.mark.parametrize("name", FAILURES)
def test_a_store_that_fails_in_an_import(tmp_path: Path, name: str) -> None:
    """All of it or nothing, and it can be done again."""
    node = make(tmp_path, "bank")
    impatient(node)
    failure, codes = FAILURES[name]
    table = consent_table(phones(0, 5000), "shop", "profile")
    table.to_csv(node.home.path / "table.csv", index=False)
    with failure(node), pytest.raises(ConcordatError) as failed:
        import_consents(node, table.head(20))
    assert failed.value.code in codes | {"E631"}
    assert audits.verify(node)[0].consents == 0
    import_consents(node, table)
    verdict, _ = audits.verify(node)
    assert verdict.ok, verdict.report.findings
    assert verdict.consents == 5000


def read_only(node: Node) -> Node:
    """The same node, its store opened by a URI that allows no writing."""
    text = node.home.config_file.read_text()
    uri = f'"sqlite:///file:{node.home.path}/concordat.db?mode=ro&uri=true"'
    node.home.config_file.write_text(text.replace("sqlite:///concordat.db", uri))
    return Node.open(node.home)


def test_a_node_whose_store_is_read_only(lasting: Nodes) -> None:
    """It can be looked at; a job ends before anything is sent."""
    bank, shop = lasting
    theirs = Watch(shop)
    node = read_only(bank)
    for kind in ("overlap", "insight"):
        with pytest.raises(ConcordatError) as failed:
            run(node, kind)
        assert failed.value.code == "E702"
    assert audits.verify(node, offline=True)[0].ok
    assert node.runs() == bank.runs()
    assert run(bank, "overlap")["state"] == "completed"
    assert [row["state"] for row in theirs.ended()] == ["completed"]
