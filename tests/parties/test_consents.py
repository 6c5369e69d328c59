"""Single consents through the command and the admin service."""

import json
from pathlib import Path

import pytest
from conftest import make
from typer.testing import CliRunner

from parties import admin
from parties.cli import app
from parties.node import Node
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
    words = ["consent", verb, str(node.home.path), *options]
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
        (given,) = json.loads(stub.GrantConsent(asked).changes_json)
        assert (given["state"], given["consents"]) == ("ConsentGiven", 1)
        until["granted_at"] = "2026-02-01T00:00:00Z"
        asked = admin_pb2.ConsentRequest(**person, **pair, **until)
        assert "RenewedConsentGiven" in stub.RenewConsent(asked).changes_json
        asked = admin_pb2.ConsentRequest(**person, by="institution")
        assert "ConsentRevoked" in stub.WithdrawConsent(asked).changes_json
        asked = admin_pb2.ConsentRequest(**person, **pair)
        assert "ConsentRefused" in stub.RefuseConsent(asked).changes_json
    with (
        pytest.raises(ConcordatError, match="expires_at is missing"),
        admin._stub(bank.home) as stub,
    ):
        stub.GrantConsent(
            admin_pb2.ConsentRequest(**person, **pair, categories="a", kind="general")
        )
    assert listed(bank) == {"ConsentRevoked": 2, "ConsentRefused": 1}
