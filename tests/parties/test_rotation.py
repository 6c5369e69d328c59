"""Keys that sign are rotated between runs: what was signed before holds, and what comes after."""

import json
from pathlib import Path

import pytest
from conftest import make
from ready import agree, make_ready, pair, phones, run, until, withdraw
from sqlalchemy import text
from test_audits import findings, tamper
from typer.testing import CliRunner

from compliance import audit, lifecycle, receipt, withdrawal
from compliance.canonical import parse, to_base64
from compliance.errors import LogKeyReplaced, SuccessionRefused
from compliance.note import Checkpoint, VerifierKey, sign
from compliance.signing import SigningKey, keyid
from compliance.succession import KINDS, KeyRing, Past, Succession
from parties import audits, courier, rotation, server
from parties.cli import app
from parties.errors import Busy
from parties.node import Node


def receipts(node: Node, run_id: str) -> list[receipt.Envelope]:
    with node.reading() as conn:
        found = [receipt.find(conn, run_id, kind) for kind in ("intent", "completion")]
    return [one for one in found if one is not None]


def entries(node: Node, type_: str) -> list[dict[str, object]]:
    with node.reading() as conn:
        return [parse(entry.leaf) for entry in node.log.entries(conn) if entry.type == type_]


def test_runs_before_and_after_a_rotation_of_every_key(ready: tuple[Node, Node]) -> None:
    bank, shop = ready
    before = run(bank, "overlap")["run"]
    old = {node.config.name: node.identity for node in ready}
    for node in ready:
        for kind in KINDS:
            rotation.rotate(node, kind)
        assert rotation.announce_to_all(node) == []
    for node, partner in ((bank, shop), (shop, bank)):
        name = node.config.name
        assert not old[name].public_keys & node.identity.public_keys
        assert partner.peer(name) == node.identity
        assert [said["kind"] for said in entries(node, "key.announced")] == [*KINDS]
    after = run(bank, "overlap")["run"]
    agree(bank, shop, version=2)

    for one, signers in ((before, old), (after, {n.config.name: n.identity for n in ready})):
        ids = {keyid(identity.signing_key) for identity in signers.values()}
        for ours, theirs in zip(receipts(bank, one), receipts(shop, one), strict=True):
            assert ours.signatures.keys() == ids
            assert receipt.differences(ours, theirs, bank.signing_keys()) == []
            assert receipt.differences(theirs, ours, shop.signing_keys()) == []
            broken = receipt.Envelope(theirs.payload_type, theirs.payload)
            assert len(receipt.differences(ours, broken, bank.signing_keys())) == 2
    for node in ready:
        verdict, silent = audits.verify(node)
        assert verdict.report.findings == []
        assert silent == []
        assert audits.show_receipt(node, before)[0]["run"] == before
        again, _ = audits.verify(Node.open(node.home), offline=True)
        assert again.report.findings == []


def test_where_the_logs_key_changes_both_sign(paired: tuple[Node, Node]) -> None:
    bank, _ = paired
    old = bank.log
    entry = rotation.rotate(bank, "log")
    with bank.reading() as conn:
        checkpoint = bank.log.checkpoint_at(conn, entry + 1)
    checkpoint.verify(old.verifier)
    checkpoint.verify(bank.log.verifier)
    rotation.announce_to_all(bank)
    with bank.reading() as conn:
        last = bank.log.head(conn)
    assert last is not None
    last.verify(bank.log.verifier)
    assert not last.signed_by(old.verifier)
    with pytest.raises(LogKeyReplaced), bank.writing() as conn:
        old.append(conn, "test", {}, time=bank.now())
        old.checkpoint(conn)


def test_what_an_old_log_key_signs_later_is_found(paired: tuple[Node, Node]) -> None:
    bank, _ = paired
    old = bank.log
    rotation.rotate(bank, "log")
    with bank.writing() as conn:
        bank.log.append(conn, "test", {}, time=bank.now())
        head = bank.log.checkpoint(conn)
        forged = Checkpoint(head.origin, head.size, head.root)
        note = forged.signed(sign(forged.text, old.origin, old.key)).encode()
        conn.execute(
            text("UPDATE checkpoints SET note = :note WHERE size = :size"),
            {"note": note, "size": head.size},
        )
    assert findings(bank) == [f"checkpoint {head.size}: not signed by the log"]


def test_what_a_signing_key_signs_after_its_time_is_found(ready: tuple[Node, Node]) -> None:
    """The same store, looked at as if the key had been followed before it signed anything."""
    bank, _ = ready
    run_id = run(bank, "overlap")["run"]
    old = bank.signing_key.public

    def looked_at(until: int) -> list[str]:
        keys = {**bank.signing_keys(), "bank": SigningKey.generate().public}
        with bank.reading() as conn:
            verdict = audit.verify(
                conn,
                bank.log.verifier,
                keys=KeyRing(keys, {"bank": [Past(old, until)]}),
                vault=bank.vault_keys,
                name="bank",
                witnesses=audits.witness_keys(conn, bank),
                partners=[VerifierKey.parse(peer.log_key) for peer in bank.peers()],
            )
        return verdict.report.findings

    assert looked_at(until=1000) == []
    pinned = "E551 A receipt names a key that is not the party's pinned one."
    late = f"key {keyid(old)[:16]} signed it when another had followed it"
    assert looked_at(until=1) == [
        f"agreement offers, version 1: {late}",
        f"intent of run {run_id}: {pinned}",
        f"completion of run {run_id}: {pinned}",
    ]


def test_a_partner_that_was_away_is_told_by_the_next_run(bank: Node, tmp_path: Path) -> None:
    shop = make(tmp_path, "shop", "ecommerce")
    with server.serving(shop):
        pair(bank, shop)
    rotation.rotate(bank, "witness")
    assert rotation.announce_to_all(bank) == ["shop"]
    result = CliRunner().invoke(app, ["node", "announce", str(bank.home.path)])
    assert result.exit_code == 0
    assert "Not told yet: shop" in result.stderr
    assert shop.peer("bank") != bank.identity
    with server.serving(shop):
        rotation.announce(bank, bank.peer("shop"))
        assert shop.peer("bank") == bank.identity
        rotation.announce(bank, bank.peer("shop"))  # nothing waits any more
    assert len(entries(shop, "peer.rotated")) == 1


def test_a_rotation_that_was_interrupted(bank: Node) -> None:
    key = bank.signing_key.public
    SigningKey.generate().save(bank.successor("signing"))  # the log never told of it
    again = Node.open(bank.home)
    assert again.signing_key.public == key
    assert not again.successor("signing").exists()

    entry = rotation.rotate(bank, "signing")
    fresh = bank.home.key("signing").read_bytes()
    bank.successor("signing").write_bytes(fresh)  # the log has, and the file was not yet renamed
    bank.successor("signing").chmod(0o600)
    bank.home.key("signing").unlink()
    SigningKey.generate().save(bank.home.key("signing"))
    again = Node.open(bank.home)
    assert again.home.key("signing").read_bytes() == fresh
    assert findings(again) == []
    assert entry == 1


def test_what_waits_to_be_delivered_is_signed_anew(
    tmp_path: Path, paillier_key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(courier, "FIRST_SECONDS", 0.1)
    monkeypatch.setattr(courier, "MOST_SECONDS", 0.4)
    bank, shop = make(tmp_path, "bank"), make(tmp_path, "shop", "ecommerce")

    def waiting() -> list[object]:
        with shop.reading() as conn:
            return [*lifecycle.undelivered(conn, "shop"), *withdrawal.undelivered(conn, "shop")]

    with server.serving(shop):
        with server.serving(bank):
            make_ready(bank, shop, paillier_key)
            run(bank, "intersect")
        withdraw(shop, phones(70, 71), "bank", "purchases")
        home = str(shop.home.path)
        CliRunner().invoke(app, ["agreement", "suspend", home, "offers", "--reason", "to look"])
        assert len(waiting()) == 2
        rotation.rotate(shop, "signing")
        with server.serving(bank):
            assert rotation.announce_to_all(shop) == []
            until(lambda: not waiting(), 20)
            for node in (bank, shop):
                assert findings(node) == []


def test_no_key_is_rotated_during_a_run(ready: tuple[Node, Node]) -> None:
    bank, _ = ready
    run(bank, "overlap")
    tamper(bank, "UPDATE runs SET state = 'running'")
    with pytest.raises(Busy):
        rotation.rotate(bank, "signing")
    assert not bank.successor("signing").exists()


def test_a_new_key_that_the_old_one_did_not_introduce_is_refused(
    paired: tuple[Node, Node],
) -> None:
    bank, shop = paired
    pinned = shop.peer("bank")
    thief, fresh = SigningKey.generate(), SigningKey.generate()
    now = bank.now()
    made = Succession.make("bank", "signing", bank.signing_key, fresh, now)
    other = Succession.make("bank", "signing", bank.signing_key, SigningKey.generate(), now)
    signatures = other.envelope.signatures
    for data in (
        Succession.make("bank", "signing", thief, fresh, now).data,  # of another key
        Succession.make("shop", "signing", bank.signing_key, fresh, now).data,  # of another party
        Succession.make("bank", "log", bank.signing_key, fresh, now).data,  # of another kind
        Succession.make("bank", "signing", bank.signing_key, shop.signing_key, now).data,
        Succession.make("bank", "signing", bank.signing_key, shop.log.key, now).data,
        Succession.make("bank", "signing", bank.signing_key, bank.log.key, now).data,
        type(made.envelope)(
            made.envelope.payload_type, made.envelope.payload, signatures
        ).to_json(),
        type(made.envelope)(
            "text/plain", made.envelope.payload, made.envelope.signatures
        ).to_json(),
        made.data[:-1],
        b"",
    ):
        with pytest.raises(SuccessionRefused):
            rotation.receive(shop, pinned, data)
    assert shop.peer("bank") == pinned
    assert entries(shop, "peer.rotated") == []


@pytest.mark.parametrize("change", ["old", "new", "succession", "kind", "row"])
def test_a_changed_succession_is_found(paired: tuple[Node, Node], change: str) -> None:
    bank, shop = paired
    for kind in KINDS:
        rotation.rotate(bank, kind)
    rotation.announce_to_all(bank)
    assert findings(bank) == findings(shop) == []
    if change == "row":
        pinned = shop.peer("bank").followed("signing", SigningKey.generate().public)
        tamper(shop, "UPDATE peers SET identity = ?", json.dumps(pinned.to_json()))
        assert findings(shop)[0].startswith("partner bank: ")
        return
    for node, type_ in ((bank, "key.rotated"), (shop, "peer.rotated")):
        for body in entries(node, type_):
            said = dict(body)
            if change == "succession":
                made = SigningKey.generate(), SigningKey.generate()
                made_up = Succession.make("bank", body["kind"], *made, bank.now())  # type: ignore[arg-type]
                said["succession"] = to_base64(made_up.data)
            elif change == "kind":
                said["kind"] = "log" if body["kind"] != "log" else "witness"
            else:
                said[change] = SigningKey.generate().public.hex()
            leaf = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
            held = json.dumps(dict(body), sort_keys=True, separators=(",", ":")).encode()
            tamper(node, "UPDATE log_entries SET leaf = ? WHERE leaf = ?", leaf, held)
        assert findings(node)


def test_the_command(paired: tuple[Node, Node]) -> None:
    bank, shop = paired
    for kind in KINDS:
        before = bank.identity
        result = CliRunner().invoke(app, ["node", "rotate", str(bank.home.path), kind])
        assert result.exit_code == 0, result.output
        assert bank.identity != before  # a node that serves has the new key
        assert shop.peer("bank") == bank.identity
    result = CliRunner().invoke(app, ["node", "rotate", str(bank.home.path), "paper"])
    assert result.exit_code == 1
