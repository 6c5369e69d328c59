"""Single consents through the command and the admin service."""

import hmac
import json
import uuid
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest
from conftest import make
from sqlalchemy import text
from typer.testing import CliRunner

from compliance.canonical import canonical
from compliance.vault import subjects
from parties import admin, consents
from parties.cli import app
from parties.node import Node
from parties.watch import Watch
from protos.concordat.v1 import admin_pb2
from protos.errors import ConcordatError

PHONE = "139 0000 0001"
PAIR = ["--purpose", "credit-offer", "--recipient", "shop"]
GRANT = [
    *PAIR,
    *("--categories", "customer-profile", "--kind", "separate"),
    *("--granted-at", "2026-01-01T00:00:00Z", "--expires-at", "2035-01-01T00:00:00Z"),
]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return make(tmp_path, "bank")


def run(node: Node, verb: str, *options: str, stdin: str = "", code: int = 0) -> str:
    words = ["consent", verb, *options]
    if verb != "notice":
        words.insert(2, str(node.home.path))
    done = CliRunner().invoke(app, words, input=stdin)
    assert done.exit_code == code, done.output
    return done.output


def listed(node: Node) -> dict[str, int]:
    found = json.loads(run(node, "list", "--json"))
    return {group["state"]: group["consents"] for group in found}


def test_one_person_from_grant_to_refusal(node: Node) -> None:
    assert "1 consent, entry 1 of the log" in run(node, "grant", "--phone", PHONE, *GRANT)
    assert "known already" in run(node, "grant", "--phone", "+86 13900000001", *GRANT)
    assert listed(node) == {"ConsentGiven": 1}
    renewed = ["--granted-at", "2026-02-01T00:00:00Z", "--expires-at", "2036-01-01T00:00:00Z"]
    assert "RenewedConsentGiven" in run(node, "renew", "--phone", PHONE, *PAIR, *renewed)
    (done,) = json.loads(
        run(node, "withdraw", "--phone", PHONE, "--at", "2026-03-01T00:00:00Z", "--json")
    )
    assert done == {
        "state": "ConsentWithdrawn",
        "purpose": "credit-offer",
        "recipient": "shop",
        "at": "2026-03-01T00:00:00Z",
        "consents": 2,
        "entry": 3,
        "runs": [],
        "notices": [],
    }
    assert listed(node) == {"ConsentWithdrawn": 2}
    run(node, "refuse", "--email", "a@example.org", *PAIR, "--reason", "by-letter")
    assert listed(node) == {"ConsentWithdrawn": 2, "ConsentRefused": 1}
    assert CliRunner().invoke(app, ["audit", "verify", str(node.home.path)]).exit_code == 0


def test_an_identifier_can_come_from_standard_input(node: Node) -> None:
    run(node, "grant", "--phone", "-", *GRANT, stdin=f"{PHONE}\n")
    run(node, "withdraw", "--phone", "-", stdin="+8613900000001\n")
    assert listed(node) == {"ConsentWithdrawn": 1}


def test_an_expired_consent_is_listed_as_expired(node: Node) -> None:
    run(node, "grant", "--phone", PHONE, *GRANT[:-1], "2026-01-02T00:00:00Z")
    assert listed(node) == {"ConsentExpired": 1}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ([], "E640"),
        (["--phone", PHONE, "--email", "a@example.org"], "E640"),
        (["--phone", "12"], "E640"),
        (["--email", "a@example.org"], "E408"),
        (["--phone", PHONE, "--at", "2026-01-01"], "E405"),
        (["--phone", PHONE, "--by", "nobody"], "E405"),
        (["--phone", PHONE, "--recipient", "other"], "E407"),
    ],
)
def test_a_mistake_is_one_numbered_sentence_and_names_nobody(
    node: Node, options: list[str], error: str
) -> None:
    run(node, "grant", "--phone", PHONE, *GRANT)
    output = run(node, "withdraw", *options, "--json", code=1)
    said = json.loads(output)["error"]
    assert said["code"] == error
    assert "3900000001" not in output
    assert "a@example" not in output
    assert listed(node) == {"ConsentGiven": 1}


def test_no_identifier_is_in_what_the_node_keeps(node: Node) -> None:
    run(node, "grant", "--phone", PHONE, *GRANT)
    run(node, "withdraw", "--phone", PHONE)
    for path in node.home.path.rglob("*"):
        if path.is_file():
            assert b"13900000001" not in path.read_bytes(), path


def test_the_admin_service_does_what_the_commands_do(bank: Node) -> None:
    person = {"identifier_kind": "phone", "identifier": PHONE}
    pair = {"purpose": "credit-offer", "recipient": "shop"}
    until = {"granted_at": "2026-01-01T00:00:00Z", "expires_at": "2035-01-01T00:00:00Z"}
    with admin._stub(bank.home) as stub:
        asked = admin_pb2.ConsentRequest(
            **person, **pair, **until, categories="customer-profile", kind="general"
        )
        (given,) = json.loads(stub.GrantConsent(asked).json)
        assert (given["state"], given["consents"]) == ("ConsentGiven", 1)
        until["granted_at"] = "2026-02-01T00:00:00Z"
        asked = admin_pb2.ConsentRequest(**person, **pair, **until)
        assert "RenewedConsentGiven" in stub.RenewConsent(asked).json
        asked = admin_pb2.ConsentRequest(**person, by="institution")
        assert "ConsentRevoked" in stub.WithdrawConsent(asked).json
        asked = admin_pb2.ConsentRequest(**person, **pair)
        assert "ConsentRefused" in stub.RefuseConsent(asked).json
    with (
        pytest.raises(ConcordatError, match="expires_at is missing"),
        admin._stub(bank.home) as stub,
    ):
        stub.GrantConsent(
            admin_pb2.ConsentRequest(**person, **pair, categories="a", kind="general")
        )
    assert listed(bank) == {"ConsentRevoked": 2, "ConsentRefused": 1}


def person(number: int) -> str:
    return f"+86139{number:08d}"


def table(path: Path, *people: str, **changes: str) -> Path:
    """A table of consents, one for each of these people."""
    row = {
        **{"purpose": "credit-offer", "recipient": "shop", "categories": "customer-profile"},
        **{"kind": "separate", "granted_at": "2026-01-01T00:00:00Z"},
        **{"expires_at": "2035-01-01T00:00:00Z", "withdrawn_at": ""},
    }
    pd.DataFrame([{"phone": one, **row, **changes} for one in people]).to_csv(path, index=False)
    return path


def subject(node: Node, phone: str) -> bytes:
    return node.vault_keys.subjects_of([f"phone:{phone}"])[0].tobytes()


def test_a_person_is_restricted_and_then_erased(node: Node) -> None:
    run(node, "grant", "--phone", PHONE, *GRANT)
    until = ["--until", "2035-01-01T00:00:00Z", "--reason", "tax-law"]
    assert "Restricted until 2035-01-01" in run(node, "restrict", "--phone", PHONE, *until)
    assert "Restricted until 2035-01-01" in run(node, "show", "--phone", PHONE)
    refused = json.loads(run(node, "erase", "--phone", PHONE, "--json", code=1))["error"]
    assert refused["code"] == "E409"
    assert "No longer" in run(node, "lift", "--phone", PHONE, "--reason", "by-mistake")
    assert json.loads(run(node, "erase", "--phone", PHONE, "--json"))["leaves"] == 3
    run(node, "show", "--phone", PHONE, code=1)
    run(node, "grant", "--phone", PHONE, *GRANT, code=1)
    assert listed(node) == {}
    assert CliRunner().invoke(app, ["audit", "verify", str(node.home.path)]).exit_code == 0


def test_nothing_in_the_home_ties_the_log_to_whoever_was_erased(node: Node, tmp_path: Path) -> None:
    anna, others = person(1), [person(number) for number in range(2, 40)]
    consents.import_file(node, table(tmp_path / "consents.csv", anna, *others))
    run(node, "withdraw", "--phone", anna, "--reason", "by-letter")
    result = node.home.run_folder("0" * 32) / "intersection.csv"
    result.write_text("\n".join(["phone", others[0], anna, others[1]]) + "\n")
    consents.import_file(node, table(tmp_path / "wrong.csv", anna, others[0], kind="verbal"))
    (result.parent / "empty.csv").touch()
    watch = Watch(node.home.path / "watch" / "agreement.card", "card", Decimal(1))
    watch.keep(pd.DataFrame({"phone": [anna, others[0]], "score": ["600", "700"]}))

    keys, name = node.vault_keys, subject(node, anna)
    with node.reading() as conn:
        rows = pd.DataFrame(conn.execute(subjects.select()).mappings())
        row = rows[rows["subject"] == name]
        leaves = conn.execute(text("SELECT leaf FROM subtree_leaves")).scalars().all()
    secret = keys.unwrap(row)[0].tobytes()
    wrapping = keys.by_id[row["wrapping_key"].iloc[0]]
    asked = ["concordat.consent", node.log.origin, "shop", "credit-offer"]
    reference = hmac.digest(secret, canonical(asked), "sha256").hex()
    assert sum(reference in leaf.decode() for leaf in leaves) == 1

    traces = (anna[3:].encode(), name, secret, row["secret"].iloc[0], wrapping)
    hidden = [part for trace in traces[1:] for part in (trace, trace.hex().encode())]

    def found(*parts: bytes) -> set[str]:
        files = [path for path in node.home.path.rglob("*") if path.is_file()]
        return {path.name for path in files if any(part in path.read_bytes() for part in parts)}

    assert found(traces[0]) == {"intersection.csv", "wrong.csv", "agreement.card"}
    assert found(name) & {"concordat.db", "concordat.db-wal"}
    assert found(wrapping) == {"wrapping"}
    done = json.loads(run(node, "erase", "--phone", anna, "--json"))
    assert done["leaves"] == 2
    assert len(done["files"]) == 3
    assert [Path(path).name for path in done["unread"]] == ["empty.csv"]
    assert found(traces[0], *hidden) == set()
    assert pd.read_csv(result, dtype=str)["phone"].tolist() == others[:2]
    _, compared = watch.compare(pd.DataFrame({"phone": [anna, others[0]], "score": ["1", "2"]}))
    assert compared["compared"] == 1
    assert len(pd.read_csv(node.home.path / "rejects" / "wrong.csv")) == 1

    with node.reading() as conn:
        # The leaves are there, and nobody's.
        after = conn.execute(text("SELECT leaf FROM subtree_leaves")).scalars().all()
        places = text("SELECT count(*) FROM consent_leaves")
        assert conn.execute(places).scalar_one() == len(others)
        rest = pd.DataFrame(conn.execute(subjects.select()).mappings())
    assert after == leaves
    for one in node.vault_keys.unwrap(rest):
        assert hmac.digest(one.tobytes(), canonical(asked), "sha256").hex() != reference
    assert CliRunner().invoke(app, ["audit", "verify", str(node.home.path)]).exit_code == 0


def test_a_home_whose_store_was_restored_forgets_again(node: Node, tmp_path: Path) -> None:
    consents.import_file(node, table(tmp_path / "consents.csv", person(1), person(2)))
    node.store.dispose()
    database = node.home.path / "concordat.db"
    kept = database.read_bytes()
    wrapping = node.home.key("wrapping").read_bytes()
    run(node, "erase", "--phone", person(1))
    database.write_bytes(kept)
    node.home.key("wrapping").write_bytes(wrapping)
    run(node, "show", "--phone", person(1), code=1)
    assert listed(node) == {"ConsentGiven": 1}
    report = consents.import_file(Node.open(node.home), tmp_path / "consents.csv")
    assert (report["new"], report["known"], report["erased"]) == (0, 1, 1)


def test_keys_are_rotated_while_the_node_serves(bank: Node, tmp_path: Path) -> None:
    consents.import_file(bank, table(tmp_path / "consents.csv", person(1), person(2)))
    for key in ("lookup", "wrapping", "lookup"):
        done = CliRunner().invoke(app, ["node", "rotate", str(bank.home.path), key])
        assert done.exit_code == 0, done.output
        assert consents.import_file(bank, tmp_path / "consents.csv")["known"] == 2
    assert CliRunner().invoke(app, ["node", "rotate", str(bank.home.path), "x"]).exit_code == 1
    assert CliRunner().invoke(app, ["audit", "verify", str(bank.home.path)]).exit_code == 0


def test_a_notice_is_registered_once_and_named_by_consents(node: Node, tmp_path: Path) -> None:
    file = Path(__file__).parents[2] / "docs" / "reference" / "notice.yaml"
    for expected in (1, None):
        done = json.loads(run(node, "notice", "add", str(node.home.path), str(file), "--json"))
        assert done["entry"] == expected
    changed = tmp_path / "changed.yaml"
    changed.write_text(file.read_text("utf-8").replace("P730D", "P30D"), "utf-8")
    assert "E411" in run(node, "notice", "add", str(node.home.path), str(changed), code=1)
    changed.write_text("notice: other\n")
    assert "E410" in run(node, "notice", "add", str(node.home.path), str(changed), code=1)
    assert (
        json.loads(run(node, "notice", "list", str(node.home.path), "--json"))[0]["digest"]
        == done["digest"]
    )
    assert "credit-offer" in run(node, "notice", "show", str(node.home.path), "privacy-2026-01")
    assert "E412" in run(node, "notice", "show", str(node.home.path), "other", code=1)

    people = [person(1), person(2)]
    first = consents.import_file(node, table(tmp_path / "consents.csv", *people))
    assert (first["new"], first["noticed"]) == (2, 0)
    with_notice = table(tmp_path / "more.csv", *people, notice="privacy-2026-01")
    again = consents.import_file(node, with_notice)
    assert (again["new"], again["noticed"], again["known"]) == (0, 2, 0)
    assert consents.import_file(node, with_notice)["known"] == 2
    assert consents.import_file(node, tmp_path / "consents.csv")["known"] == 2
    wrong = consents.import_file(node, table(tmp_path / "wrong.csv", person(3), notice="other"))
    assert wrong["rejected"] == {"notice is not known here": 1}
    (shown,) = json.loads(run(node, "show", "--phone", person(1), "--json"))["consents"]
    assert shown["missing"] == []
    assert shown["record"]["pii_processing"]["notice"]["digest"] == done["digest"]
    assert CliRunner().invoke(app, ["audit", "verify", str(node.home.path)]).exit_code == 0


def test_a_record_tells_what_became_of_a_consent(node: Node) -> None:
    run(node, "grant", "--phone", PHONE, *GRANT)
    run(node, "withdraw", "--phone", PHONE, "--at", "2026-03-01T00:00:00Z", "--by", "institution")
    found = json.loads(run(node, "show", "--phone", PHONE, "--json"))
    assert PHONE not in json.dumps(found)
    (consent,) = found["consents"]
    (no,) = found["refusals"]
    assert consent["state"] == no["state"] == "ConsentRevoked"
    assert "pii_processing.privacy_notice" in consent["missing"]
    given, revoked = consent["record"]["event"]
    principal = found["pii_principal_id"]
    assert given == {
        "event_time": "2026-01-01T00:00:00Z",
        "validity_duration": "P3287D",
        "entity_id": principal,
        "event_type": "separate",
        "event_state": "ConsentGiven",
    }
    assert (revoked["entity_id"], revoked["event_state"]) == ("bank", "ConsentRevoked")
    assert consent["record"]["header"]["pii_principal_id"] == principal
    assert uuid.UUID(consent["record"]["header"]["record_id"]).version == 4


def test_the_admin_service_restricts_shows_and_erases(bank: Node) -> None:
    whom = {"identifier_kind": "phone", "identifier": PHONE}
    run(bank, "grant", "--phone", PHONE, *GRANT)
    with admin._stub(bank.home) as stub:
        until = admin_pb2.ConsentRequest(**whom, until="2035-01-01T00:00:00Z")
        assert json.loads(stub.RestrictPerson(until).json)["restricted"]
        shown = json.loads(stub.ShowPerson(admin_pb2.ConsentRequest(**whom)).json)
        assert shown["restricted_until"] == "2035-01-01T00:00:00Z"
        assert not json.loads(stub.LiftRestriction(admin_pb2.ConsentRequest(**whom)).json)["until"]
        assert json.loads(stub.ErasePerson(admin_pb2.ConsentRequest(**whom)).json)["leaves"] == 3
    assert listed(bank) == {}


# Tables


def held(node: Node) -> set[tuple[str, str, int]]:
    """Who has consented, from when, and until when it holds."""
    query = "SELECT subject, granted_at, withdrawn_at FROM consents"
    with node.reading() as conn:
        people = conn.execute(text("SELECT id, subject FROM subjects")).all()
        names = {row.id: row.subject for row in people}
        rows = conn.execute(text(query)).all()
    return {(names[subject].hex(), granted, ended) for subject, granted, ended in rows}


def many(path: Path) -> pd.DataFrame:
    """A table with persons in several rows, spellings and states, and some that are nobody."""
    rows = pd.read_csv(table(path, *[person(number % 40) for number in range(200)]), dtype=str)
    months = [f"2026-{1 + number % 3:02}-01T00:00:00Z" for number in range(200)]
    rows["granted_at"] = months
    rows["withdrawn_at"] = ["" if number % 5 else "2026-05-01T00:00:00Z" for number in range(200)]
    rows.loc[::7, "phone"] = rows.loc[::7, "phone"].str.replace("+86", "0086 ", regex=False)
    rows.loc[::31, "phone"] = "nobody"
    rows.loc[::43, "kind"] = "verbal"
    rows.to_csv(path, index=False)
    return rows


def test_a_table_taken_in_parts_says_the_same(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(tmp_path / "consents.csv")
    whole = consents.import_file(node, tmp_path / "consents.csv")
    rejects = Path(whole["rejects_file"]).read_text()
    expected = held(node)
    monkeypatch.setattr(consents, "PART", 7)
    other = make(tmp_path / "other", "bank")
    for key in ("lookup", "wrapping"):
        other.home.key(key).write_bytes(node.home.key(key).read_bytes())
    told: list[tuple[str, int, int]] = []
    parts = consents.import_file(
        other, tmp_path / "consents.csv", lambda *stage: told.append(stage)
    )
    assert held(other) == expected
    assert Path(parts.pop("rejects_file")).read_text() == rejects
    del whole["rejects_file"]
    assert parts == whole
    assert [entry for entry in told if entry[0] == "entering"][-1] == ("entering", 193, 193)
    assert len(told) > 25
    with other.reading() as conn:
        assert sum(entry.type == "consent.import" for entry in other.log.entries(conn)) == 1
    assert CliRunner().invoke(app, ["audit", "verify", str(other.home.path)]).exit_code == 0
    again = consents.import_file(other, tmp_path / "consents.csv")
    assert (again["new"], again["withdrawn"]) == (0, 0)


def test_a_parquet_table_says_what_its_csv_says(node: Node, tmp_path: Path) -> None:
    rows = many(tmp_path / "consents.csv")
    rows.to_parquet(tmp_path / "text.parquet", index=False)
    times = {name: pd.to_datetime(rows[name], utc=True) for name in rows if name.endswith("_at")}
    rows.assign(**times).to_parquet(tmp_path / "typed.parquet", index=False)
    first = consents.import_file(node, tmp_path / "consents.csv")
    for name in ("text", "typed"):
        again = consents.import_file(node, tmp_path / f"{name}.parquet")
        assert (again["new"], again["withdrawn"]) == (0, 0), again
        assert again["rejected"] == first["rejected"]


def test_a_file_that_is_no_parquet_has_a_number(node: Node, tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no, it is not")
    output = CliRunner().invoke(
        app, ["consent", "import", str(node.home.path), str(tmp_path / "x.parquet")]
    )
    assert output.exit_code == 1
    assert "E111" in output.output


def test_a_table_of_nobody_changes_nothing(node: Node, tmp_path: Path) -> None:
    report = consents.import_file(node, table(tmp_path / "consents.csv", "nobody", "no one"))
    assert (report["new"], report["read"]) == (0, 2)
    assert sum(report["rejected"].values()) == 2
