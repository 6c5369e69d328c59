"""Whoever holds one institution's store and its keys cannot rewrite its history: attack by attack.

The attacker is thorough: every stored hash fits the entries again, and the log's own key signs.
What still stands against them is what the partner, as the witness, has cosigned.
"""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import make
from ready import consent_table, import_consents, pair, phones

from compliance import merkle
from compliance.canonical import canonical, parse
from compliance.log import TILE
from parties import audits, consents, server, witnessing
from parties.node import Node

Nodes = tuple[Node, Node]


@pytest.fixture
def nodes(shop: Node, tmp_path: Path) -> Nodes:
    """Paired, with consents, the bank's log cosigned by the shop, which goes on serving."""
    bank = make(tmp_path, "bank")
    with server.serving(bank):
        pair(bank, shop)
    import_consents(bank, consent_table(phones(0, 5), "shop", "profile"))
    assert witnessing.ask(bank, bank.peer("shop"))
    return bank, shop


def found(node: Node, *, offline: bool = False) -> str:
    """What an officer is told."""
    verdict, _ = audits.verify(Node.open(node.home), offline=offline)
    return "\n".join(verdict.report.findings)


def taken(node: Node, path: Path) -> Path:
    """A copy of the store as it is."""
    with sqlite3.connect(node.home.path / "concordat.db") as conn, sqlite3.connect(path) as copy:
        conn.backup(copy)
    conn.close()
    copy.close()
    return path


def put_back(node: Node, path: Path) -> None:
    """The copy in place of the store."""
    node.store.dispose()
    for left in node.home.path.glob("concordat.db*"):
        left.unlink()
    shutil.copy(path, node.home.path / "concordat.db")


def grow(node: Node, numbers: range) -> None:
    """Something more happens, and is signed for."""
    import_consents(
        Node.open(node.home), consent_table(phones(numbers[0], numbers[-1] + 1), "shop", "profile")
    )


def attack(node: Node, change: Callable[[sqlite3.Connection], None]) -> None:
    """Change the store behind the node's back, and make everything in it fit again."""
    node.store.dispose()
    with sqlite3.connect(node.home.path / "concordat.db") as conn:
        change(conn)
        rows = conn.execute('SELECT "index", leaf FROM log_entries ORDER BY "index"').fetchall()
        conn.execute("DELETE FROM log_nodes")
        frontier = merkle.Frontier()
        for index, leaf in rows:
            body = parse(leaf)
            said = (merkle.leaf_hash(leaf), body["type"], body["time"], body.get("run"))
            columns = "leaf_hash = ?, type = ?, time = ?, run = ?"
            change = f'UPDATE log_entries SET {columns} WHERE "index" = ?'  # noqa: S608
            conn.execute(change, (*said, index))
            for level, place, hashed in frontier.append(merkle.leaf_hash(leaf)):
                if level >= TILE:
                    conn.execute("INSERT INTO log_nodes VALUES (?, ?, ?)", (level, place, hashed))
        conn.execute("DELETE FROM checkpoints")
        conn.execute("DELETE FROM cosignatures")
    conn.close()
    opened = Node.open(node.home)
    with opened.writing() as conn:
        opened.log.checkpoint(conn)


def renewed(conn: sqlite3.Connection, index: int, **more: object) -> None:
    """Have an entry say something else."""
    select = 'SELECT leaf FROM log_entries WHERE "index" = ?'
    ((leaf,),) = conn.execute(select, (index,)).fetchall()
    changed = canonical({**parse(leaf), **more})
    conn.execute('UPDATE log_entries SET leaf = ? WHERE "index" = ?', (changed, index))


SPLIT = "has cosigned a log that ours does not continue"
ROLLED_BACK = "A witness has seen"


def test_a_split_view(nodes: Nodes, tmp_path: Path) -> None:
    """One history for the partner, another one for everybody else."""
    bank, _ = nodes
    fork = taken(bank, tmp_path / "fork.db")
    grow(bank, range(10, 12))
    assert found(bank) == ""
    put_back(bank, fork)
    for number in range(20, 24):
        grow(bank, range(number, number + 1))
    assert found(bank, offline=True) == "", "the fork fits by itself"
    assert SPLIT in found(bank)


def test_a_rollback(nodes: Nodes, tmp_path: Path) -> None:
    bank, _ = nodes
    old = taken(bank, tmp_path / "old.db")
    grow(bank, range(10, 12))
    assert found(bank) == ""
    put_back(bank, old)
    assert ROLLED_BACK in found(bank)


def test_a_truncation(nodes: Nodes) -> None:
    bank, _ = nodes
    bank.renew_certificate()  # an entry that nothing else rests on
    assert found(bank) == ""
    last = '(SELECT max("index") FROM log_entries)'

    def cut(conn: sqlite3.Connection) -> None:
        conn.execute(f'DELETE FROM log_entries WHERE "index" = {last}')  # noqa: S608

    attack(bank, cut)
    assert ROLLED_BACK in _witness_says(bank)


def test_reordered_entries(nodes: Nodes) -> None:
    bank, _ = nodes

    def swap(conn: sqlite3.Connection) -> None:
        for old, new in ((0, 999), (1, 0), (999, 1)):
            change = 'UPDATE log_entries SET "index" = ? WHERE "index" = ?'
            conn.execute(change, (new, old))

    attack(bank, swap)
    assert SPLIT in _witness_says(bank)


def test_replaced_entries(nodes: Nodes) -> None:
    bank, _ = nodes
    attack(bank, lambda conn: renewed(conn, 1, peer="telecom"))
    assert SPLIT in _witness_says(bank)


def _witness_says(node: Node) -> str:
    """What the partner's witness says of the log, whatever else is amiss."""
    opened = Node.open(node.home)
    try:
        witnessing.ask(opened, opened.peer("shop"))
    except Exception as error:
        assert found(node), "the officer is told, too"
        return str(error)
    return ""


def test_a_stolen_old_store_put_back_forgets_again_and_is_found(
    nodes: Nodes, tmp_path: Path
) -> None:
    """With whoever was erased since, and a consent that was withdrawn since."""
    bank, _ = nodes
    gone, withdrawn = (f"phone:{phones(at, at + 1)[0]}" for at in (0, 1))
    stolen = taken(bank, tmp_path / "stolen.db")
    wrapping = bank.home.key("wrapping").read_bytes()
    consents.erase(bank, gone, {})
    consents.withdraw(bank, withdrawn, {})
    assert found(bank) == ""
    put_back(bank, stolen)
    bank.home.key("wrapping").write_bytes(wrapping)
    opened = Node.open(bank.home)
    with pytest.raises(Exception, match="knows nobody"):
        consents.show(opened, gone, {})
    assert [one["state"] for one in consents.show(opened, withdrawn, {})["consents"]] == [
        "ConsentGiven"
    ], "which is why it has to be found:"
    assert found(bank), "the witness has seen another log"


def test_a_partner_that_rewrites_history(tmp_path: Path) -> None:
    """The bank finds it as the shop's witness, and its own log keeps what the shop had signed."""
    bank, shop = make(tmp_path, "bank"), make(tmp_path, "shop", "ecommerce")
    with server.serving(bank), server.serving(shop):
        pair(bank, shop)
        import_consents(shop, consent_table(phones(0, 5), "bank", "purchases"))
        assert witnessing.ask(shop, shop.peer("bank"))
    attack(shop, lambda conn: renewed(conn, 1, peer="telecom"))
    with server.serving(bank), server.serving(Node.open(shop.home)):
        for _ in range(2):
            with pytest.raises(Exception, match="does not continue"):
                witnessing.ask(Node.open(shop.home), shop.peer("bank"))
    with bank.reading() as conn:
        said = [parse(entry.leaf) for entry in bank.log.entries(conn)]
        (disputed,) = [one for one in said if one["type"] == "witness.disputed"]
    with Node.open(shop.home).reading() as conn:
        head = shop.log.head(conn)
    assert head is not None
    assert (disputed["log"], disputed["size"], disputed["root"]) == (
        *(head.origin, head.size, head.root.hex()),
    )
    assert found(bank, offline=True) == ""
