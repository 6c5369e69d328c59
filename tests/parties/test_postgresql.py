"""A node whose store is a PostgreSQL database, by one setting."""

from collections.abc import Callable
from pathlib import Path

import pytest
from ready import SHARED, make_ready, run

from parties import audits, pairing, server
from parties.config import Home
from parties.node import Node
from protos.errors import ConcordatError

Stores = Callable[[], str]


@pytest.fixture
def new_database(postgresql_server) -> Stores:  # type: ignore[no-untyped-def]
    return postgresql_server.new_store


def test_a_run_between_the_two_databases(
    tmp_path: Path, new_database: Stores, paillier_key: bytes
) -> None:
    bank = Node.create(Home(tmp_path / "bank"), "bank", "bank", None, new_database())
    shop = Node.create(Home(tmp_path / "shop"), "shop", "ecommerce", None)
    assert not list(bank.home.path.glob("*.db"))
    with server.serving(bank), server.serving(shop):
        make_ready(bank, shop, paillier_key)
        assert run(bank, "overlap")["result"]["count"] == len(SHARED)
        for node in (bank, shop):
            verdict, silent = audits.verify(node)
            assert verdict.ok, verdict.report.findings
            assert not silent
    again = Node.open(Home(tmp_path / "bank"))
    assert [row["state"] for row in again.runs()] == ["completed"]


def test_a_new_node_takes_no_other_nodes_store(tmp_path: Path, new_database: Stores) -> None:
    url = new_database()
    first = Node.create(Home(tmp_path / "first"), "first", "bank", None, url)
    with pytest.raises(ConcordatError, match="another node"):
        Node.create(Home(tmp_path / "second"), "second", "bank", None, url)
    assert not (tmp_path / "second").exists()
    with first.reading() as conn:
        assert [entry.type for entry in first.log.entries(conn)] == ["node.created"]


def test_an_invitation_is_kept_in_the_database(tmp_path: Path, new_database: Stores) -> None:
    url = new_database()
    node = Node.create(Home(tmp_path / "bank"), "bank", "bank", None, url)
    pairing.invite(node, tmp_path / "invitation")
    with node.reading() as conn:
        found = conn.exec_driver_sql("SELECT count(*) FROM invitations").scalar()
    assert found == 1
    text = node.home.config_file.read_text()
    assert f'store: "{url}"' in text
