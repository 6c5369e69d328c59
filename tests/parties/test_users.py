"""Users, four eyes and reads at a node, and how an agreement ends, between two that serve."""

import json
import queue
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import make
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from ready import (
    AGREEMENT,
    agree,
    consent_table,
    import_consents,
    job,
    pair,
    paused,
    phones,
)
from rich.console import Console
from typer.testing import CliRunner

from compliance import erasure, offline
from compliance import people as compliance_people
from compliance.errors import (
    AgreementRefusal,
    AgreementUnsigned,
    KeyFileError,
    MustSign,
    NotAllowed,
    NoticeRefused,
    ProposalDecided,
    ProposalUnfit,
    RetentionRuns,
    TwoPeople,
    UserConflict,
    WrongUserKey,
)
from compliance.evidence import Scope
from compliance.people import Proposal
from compliance.signing import SigningKey
from parties import admin, agreements, audits, consents, evidence, people, server, session
from parties.cli import app
from parties.errors import NotDelivered
from parties.node import Node
from protos.concordat.v1 import admin_pb2
from protos.errors import ConcordatError

PASSPHRASE = "correct horse battery"


@pytest.fixture
def lone(tmp_path: Path) -> Node:
    return make(tmp_path, "lone")


def as_user(node: Node, name: str) -> Node:
    """The node as a command of that user opens it."""
    opened = Node.open(node.home)
    opened.actor = people.actor(node.home, name, None, None)
    return opened


def staff(node: Node) -> None:
    people.add(node, "li", "officer")
    li = as_user(node, "li")
    people.add(li, "wang", "engineer")
    people.add(li, "audra", "auditor")
    people.add(li, "he", "officer")


def document(folder: Path, version: int = 1) -> Path:
    path = folder / f"agreement-{version}.yaml"
    path.write_text(AGREEMENT.format(version=version, partner_learns="size"))
    return path


def entries(node: Node) -> list[dict]:
    with node.reading() as conn:
        return [json.loads(entry.leaf) for entry in node.log.entries(conn)]


def refused_by(node: Node) -> str:
    with pytest.raises(AgreementRefusal) as error:
        agreements.in_force(node, "offers")
    return error.value.clause


def test_the_institutions_signature_takes_two_on_either_side(
    paired: tuple[Node, Node], tmp_path: Path
) -> None:
    bank, shop = paired
    for node in paired:
        staff(node)
    with pytest.raises(MustSign):
        agreements.propose(bank, document(tmp_path))
    with pytest.raises(NotAllowed):
        agreements.propose(as_user(bank, "audra"), document(tmp_path))
    agreements.propose(as_user(bank, "wang"), document(tmp_path))
    assert agreements.every(shop) == [], "nothing was offered yet"
    (waiting,) = agreements.waiting(bank, "offers")
    for name, error in (("wang", TwoPeople), ("audra", NotAllowed)):
        with pytest.raises(error):
            people.approve(as_user(bank, name), waiting.id)
    people.approve(as_user(bank, "li"), waiting.id)
    assert agreements.unsigned(bank, agreements.find(bank, "offers")) == ["shop"]

    agreements.sign(as_user(shop, "li"), "offers")
    with pytest.raises(AgreementUnsigned):
        agreements.in_force(bank, "offers")
    (theirs,) = agreements.waiting(shop, "offers")
    with pytest.raises(TwoPeople):
        people.approve(as_user(shop, "li"), theirs.id)
    people.approve(as_user(shop, "he"), theirs.id)
    assert agreements.in_force(bank, "offers") == agreements.in_force(shop, "offers")
    for node in paired:
        verdict, _ = audits.verify(as_user(node, "audra"))
        assert verdict.ok, verdict.report.findings


def test_what_was_refused_is_not_signed(paired: tuple[Node, Node], tmp_path: Path) -> None:
    bank, _ = paired
    staff(bank)
    agreements.propose(as_user(bank, "li"), document(tmp_path))
    (waiting,) = agreements.waiting(bank, "offers")
    people.refuse(as_user(bank, "he"), waiting.id, "too wide")
    assert agreements.waiting(bank, "offers") == []
    assert len(agreements.unsigned(bank, agreements.find(bank, "offers"))) == 2
    refused = entries(bank)[-1]
    assert (refused["type"], refused["by"], refused["reason"]) == (
        *("proposal.refused", "he", "too wide"),
    )


def test_suspending_is_one_officers_resuming_takes_two(
    paired: tuple[Node, Node], tmp_path: Path
) -> None:
    bank, shop = paired
    agree(bank, shop)
    staff(bank)
    with pytest.raises(NotAllowed):
        agreements.declare(as_user(bank, "wang"), "offers", "suspended", "a complaint")
    agreements.declare(as_user(bank, "li"), "offers", "suspended", "a complaint")
    assert [refused_by(node) for node in paired] == ["suspended", "suspended"]
    waiting = agreements.declare(as_user(bank, "li"), "offers", "resumed", "settled")
    assert isinstance(waiting, Proposal)
    assert refused_by(shop) == "suspended"
    people.approve(as_user(bank, "he"), waiting.id)
    for node in paired:
        assert agreements.in_force(node, "offers").version == 1
        assert all(len(one.envelope.signatures) == 2 for one in agreements.notices(node, "offers"))


def test_what_is_terminated_takes_no_new_version(paired: tuple[Node, Node], tmp_path: Path) -> None:
    bank, shop = paired
    agree(bank, shop)
    agreements.declare(shop, "offers", "terminated", "over")
    assert [refused_by(node) for node in paired] == ["terminated", "terminated"]
    with pytest.raises(NoticeRefused):
        agreements.propose(bank, document(tmp_path, 2))


def test_a_suspension_during_a_run_is_honoured_at_release(ready: tuple[Node, Node]) -> None:
    bank, shop = ready
    with paused(bank, "overlap", "sign intent") as (running, _):
        agreements.declare(shop, "offers", "suspended", "a complaint")
    assert running.error is not None
    assert running.report is None
    assert "suspended" in running.error.message


def test_what_was_approved_holds_though_the_partner_does_not_answer(
    bank: Node, tmp_path: Path
) -> None:
    shop = make(tmp_path, "shop", "ecommerce")
    with server.serving(shop):
        pair(bank, shop)
        agree(bank, shop)
    staff(bank)
    li, he = as_user(bank, "li"), as_user(bank, "he")
    with pytest.raises(NotDelivered, match="has not been told"):
        agreements.declare(li, "offers", "suspended", "a complaint")
    waiting = agreements.declare(li, "offers", "resumed", "settled")
    with pytest.raises(NotDelivered) as error:
        people.approve(he, waiting.id)
    assert "`concordat agreement resume HOME offers`" in error.value.next_step
    assert agreements.in_force(bank, "offers").version == 1
    with server.serving(shop):
        agreements.declare(li, "offers", "resumed", "")
    told = agreements.notices(shop, "offers")
    assert [one.step for one in told] == ["suspended", "resumed"], "in order, the missed one too"
    for node in (bank, shop):
        assert all(len(one.envelope.signatures) == 2 for one in agreements.notices(node, "offers"))


def test_what_an_auditor_looks_at_is_an_entry(paired: tuple[Node, Node]) -> None:
    bank, _ = paired
    staff(bank)
    with pytest.raises(MustSign):
        audits.verify(bank)
    people.read(as_user(bank, "audra"), "person", run="7")
    last = entries(bank)[-1]
    assert (last["type"], last["read"], last["by"], last["run"]) == (
        *("audit.read", "person", "audra", "7"),
    )


def test_consents_and_jobs_are_for_whom_the_role_allows(lone: Node, tmp_path: Path) -> None:
    staff(lone)
    with pytest.raises(MustSign):
        import_consents(lone, consent_table(phones(0, 3), "shop", "profile"))
    table = consent_table(phones(0, 3), "shop", "profile")
    path = tmp_path / "consents.csv"
    table.to_csv(path, index=False)
    with pytest.raises(NotAllowed):
        consents.import_file(as_user(lone, "audra"), path)
    consents.import_file(as_user(lone, "wang"), path)
    assert entries(lone)[-1]["by"] == "wang"

    text = job("overlap")
    assert people.ask_job(as_user(lone, "wang"), text) is not None
    for name in ("li", "audra"):
        with pytest.raises(NotAllowed):
            people.ask_job(as_user(lone, name), text)


def test_a_job_that_was_asked_for_runs_once(lone: Node) -> None:
    text = job("overlap")
    people.check_asked(lone, text, None)
    staff(lone)
    for index in (None, 0, 10_000):
        with pytest.raises(MustSign, match="no engineer has signed"):
            people.check_asked(lone, text, index)
    index = people.ask_job(as_user(lone, "wang"), text)
    with pytest.raises(MustSign):
        people.check_asked(lone, job("intersect"), index)
    people.check_asked(lone, text, index)
    with pytest.raises(MustSign):
        people.check_asked(lone, text, index)


def test_a_key_may_be_kept_elsewhere_under_a_passphrase(lone: Node, tmp_path: Path) -> None:
    path = tmp_path / "li.pem"
    with pytest.raises(KeyFileError, match="at least 12"):
        people.add(lone, "li", "officer", new_key=path, passphrase="short")
    assert people.everyone(lone) == []
    people.add(lone, "li", "officer", new_key=path, passphrase=PASSPHRASE)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(MustSign):
        people.actor(lone.home, "li", None, None)
    for passphrase in (None, "wrong passphrase"):
        with pytest.raises(KeyFileError):
            people.actor(lone.home, "li", path, passphrase)
    lone.actor = people.actor(lone.home, "li", path, PASSPHRASE)
    people.add(lone, "wang", "engineer")
    for name in ("", "../li", "li wang", "x" * 64, "é"):
        with pytest.raises(UserConflict):
            people.add(lone, name, "engineer")


def test_only_the_public_part_may_be_given(lone: Node, tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    path = tmp_path / "public.pem"
    path.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert people.add(lone, "li", "officer", public_key=path) == (None, None)
    SigningKey(key).save(tmp_path / "li.pem")
    SigningKey.generate().save(tmp_path / "other.pem")
    lone.actor = people.actor(lone.home, "li", tmp_path / "li.pem", None)
    people.read(lone, "audit.log")
    lone.actor = people.actor(lone.home, "li", tmp_path / "other.pem", None)
    with pytest.raises(WrongUserKey):
        people.read(lone, "audit.log")
    path.write_text("no key")
    with pytest.raises(KeyFileError, match="no public key"):
        people.add(lone, "he", "officer", public_key=path)


# The commands


def command(*words: object, env: dict[str, str] | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words], env=env)
    return result.exit_code, result.output


def test_the_commands_name_who_acts_by_option_or_environment(lone: Node, tmp_path: Path) -> None:
    home, key = lone.home.path, tmp_path / "li.pem"
    assert "first user has to be" in command("user", "add", home, "wang", "--role", "engineer")[1]
    assert command("user", "add", home, "li", "--role", "officer", "--new-key", key)[0] == 0
    status, said = command("user", "add", home, "he", "--role", "officer")
    assert (status, "E320" in said) == (1, True)
    assert (
        command("user", "add", home, "he", "--role", "officer", "--as", "li", "--key", key)[0] == 0
    )
    env = {"CONCORDAT_USER": "li", "CONCORDAT_KEY": str(key)}
    status, said = command("user", "add", home, "audra", "--role", "auditor", env=env)
    assert (status, "It waits for another officer" in said) == (0, True)
    listed = json.loads(command("proposal", "list", home, "--json")[1])
    assert [(one["act"], one["proposed_by"]) for one in listed] == [("user.added", "li")]
    assert "E323" in command("proposal", "approve", home, listed[0]["id"], env=env)[1]
    assert command("proposal", "approve", home, listed[0]["id"][:8], "--as", "he")[0] == 0
    users = json.loads(command("user", "list", home, "--json")[1])
    assert [user["name"] for user in users] == ["audra", "he", "li"]
    assert command("audit", "verify", home, "--offline")[0] == 1
    assert command("audit", "verify", home, "--offline", "--as", "audra")[0] == 0
    assert "audit.verify" in command("audit", "log", home, "--as", "audra")[1]


def test_versions_are_compared_in_words(paired: tuple[Node, Node], tmp_path: Path) -> None:
    bank, shop = paired
    agree(bank, shop)
    home = bank.home.path
    assert "no version of offers before" in command("agreement", "diff", home, "offers")[1]
    path = document(tmp_path, 2)
    path.write_text(path.read_text().replace("runs_per_day: 1000", "runs_per_day: 10"))
    agreements.propose(bank, path)
    status, said = command("agreement", "diff", home, "offers")
    assert status == 0
    assert "from version 1 to 2" in said
    assert "runs a day at most: was 1000, is now 10" in said


def test_an_engineer_signs_for_a_job_that_the_serving_node_runs(
    ready: tuple[Node, Node], tmp_path: Path
) -> None:
    bank, _ = ready
    staff(bank)
    path, quiet = tmp_path / "job.yaml", Console(quiet=True)
    path.write_text(job("overlap"))
    with pytest.raises(ConcordatError) as refused:
        admin.run_job(bank.home, path, None, quiet)
    assert refused.value.code == MustSign.code
    with pytest.raises(NotAllowed):
        admin.run_job(bank.home, path, None, quiet, partial(people.ask_job, as_user(bank, "li")))
    ask = partial(people.ask_job, as_user(bank, "wang"))
    assert admin.run_job(bank.home, path, None, quiet, ask)["state"] == "completed"
    asked = [entry for entry in entries(bank) if entry["type"] == "job.asked"]
    assert [entry["by"] for entry in asked] == ["wang"]
    verdict, _ = audits.verify(as_user(bank, "audra"))
    assert verdict.ok, verdict.report.findings


def test_looking_a_person_up_is_an_entry_without_the_person(lone: Node) -> None:
    import_consents(lone, consent_table(phones(0, 3), "shop", "profile"))
    whom = consents.subject_of(lone, "phone", phones(0, 1)[0])
    staff(lone)
    with pytest.raises(MustSign):
        consents.show(lone, whom, {})
    assert consents.show(as_user(lone, "audra"), whom, {})["consents"]
    last = entries(lone)[-1]
    assert (last["type"], last["read"], last["by"]) == ("audit.read", "consent.show", "audra")
    assert phones(0, 1)[0][-8:] not in json.dumps(last)


# Acts on people


@pytest.fixture
def person(lone: Node) -> str:
    """Somebody at a node with staff, by whom they are."""
    import_consents(lone, consent_table(phones(0, 3), "shop", "profile"))
    staff(lone)
    return consents.subject_of(lone, "phone", phones(0, 1)[0])


ACTS = {
    "restrict": ("consent.restricted", partial(consents.restrict), {"until": "2040-01-01T00:00Z"}),
    "revoke": ("consent.revoked", partial(consents.withdraw, by="institution"), {"reason": "x"}),
    "invalidate": ("consent.invalidated", partial(consents.withdraw, by="authority"), {}),
    "erase": ("consent.erased", partial(consents.erase), {}),
}


def proposed(done: object) -> str:
    (one,) = done if isinstance(done, list) else [done]
    return str(one["proposal"])


@pytest.mark.parametrize("act", ACTS)
def test_what_is_done_to_a_person_takes_two_who_name_them(
    lone: Node, person: str, act: str
) -> None:
    type_, do, said = ACTS[act]
    with pytest.raises(MustSign):
        do(lone, person, said)
    with pytest.raises(NotAllowed):
        do(as_user(lone, "audra"), person, said)
    before = consents.show(as_user(lone, "li"), person, {})
    waiting = proposed(do(as_user(lone, "wang"), person, said))
    assert consents.show(as_user(lone, "li"), person, {}) == before, "nothing is done yet"
    other = consents.subject_of(lone, "phone", phones(1, 2)[0])
    for user, subject, error in (
        ("wang", person, TwoPeople),
        ("audra", person, NotAllowed),
        ("li", None, ProposalUnfit),
        ("li", other, ProposalUnfit),
    ):
        with pytest.raises(error):
            people.approve(as_user(lone, user), waiting, subject=subject)
    assert people.proposals(lone)[0].state == "open"
    _, done = people.approve(as_user(lone, "li"), waiting, "in order", subject=person)
    assert done["entry"] == len(entries(lone)) - 1
    with pytest.raises(ProposalDecided):
        people.approve(as_user(lone, "he"), waiting, subject=person)
    made, approved, carried = [entry for entry in entries(lone) if entry.get("proposal") == waiting]
    assert [made["type"], approved["type"], carried["type"]] == [
        *("proposal.made", "proposal.approved", type_),
    ]
    assert [made["by"], approved["by"], carried["by"]] == ["wang", "li", "li"]
    digits = phones(0, 1)[0][-8:]
    assert digits not in json.dumps(entries(lone))
    with lone.reading() as conn:
        held = conn.exec_driver_sql("SELECT detail, salt, body FROM proposals").all()
    assert digits.encode() not in b"".join(part for row in held for part in row)
    verdict, _ = audits.verify(as_user(lone, "audra"))
    assert verdict.ok, verdict.report.findings


def test_a_restriction_is_lifted_by_two_and_what_was_refused_is_not_done(
    lone: Node, person: str
) -> None:
    li, he = as_user(lone, "li"), as_user(lone, "he")
    until = {"until": "2040-01-01T00:00:00Z"}
    people.approve(he, proposed(consents.restrict(li, person, until)), subject=person)
    lifting = proposed(consents.lift(li, person, {}))
    people.refuse(he, lifting, "not yet")
    assert consents.show(li, person, {})["restricted_until"] == until["until"]
    with pytest.raises(ProposalDecided):
        people.approve(he, lifting, subject=person)
    with pytest.raises(RetentionRuns):
        consents.erase(li, person, {})
    people.approve(he, proposed(consents.lift(li, person, {})), subject=person)
    assert consents.show(li, person, {})["restricted_until"] is None
    verdict, _ = audits.verify(as_user(lone, "audra"))
    assert verdict.ok, verdict.report.findings


def test_a_person_withdraws_by_one_and_at_once(lone: Node, person: str) -> None:
    """As easily as consent was given: GDPR 7(3), PIPL 15."""
    (done,) = consents.withdraw(as_user(lone, "wang"), person, {})
    assert done["state"] == "ConsentWithdrawn"
    assert people.proposals(lone) == []


def test_each_purpose_is_revoked_by_a_proposal_of_its_own(lone: Node, person: str) -> None:
    li = as_user(lone, "li")
    said = {"purpose": "marketing", "recipient": "shop", "categories": "profile"}
    consents.grant(li, person, {**said, "kind": "general", "expires_at": "2040-01-01T00:00:00Z"})
    waiting = consents.withdraw(li, person, {}, "institution")
    assert len(waiting) == 2
    people.approve(as_user(lone, "he"), waiting[0]["proposal"], subject=person)
    states = {one["purpose"]: one["state"] for one in consents.show(li, person, {})["consents"]}
    assert sorted(states.values()) == ["ConsentGiven", "ConsentRevoked"]
    verdict, _ = audits.verify(as_user(lone, "audra"))
    assert verdict.ok, verdict.report.findings


def test_an_erasure_that_one_person_forces_leaves_no_tombstone(lone: Node, person: str) -> None:
    """Nor does a restart then complete it."""
    li = as_user(lone, "li")
    with pytest.raises(TwoPeople), lone.writing() as conn:
        log = compliance_people.acting(conn, lone.log, li.actor)
        erasure.erase(conn, log, lone.vault_files, person, now=lone.now())
    assert not lone.vault_files.erased.exists()
    assert consents.show(as_user(Node.open(lone.home), "li"), person, {})["consents"]


def test_what_two_have_not_agreed_on_is_found_in_the_log(lone: Node, person: str) -> None:
    """Written past the rules, with the officer's own key."""
    li = as_user(lone, "li")
    with lone.writing() as conn, pytest.MonkeyPatch.context() as patch:
        patch.setattr(compliance_people, "FOUR_EYES", frozenset())
        log = compliance_people.acting(conn, lone.log, li.actor)
        erasure.erase(conn, log, lone.vault_files, person, now=lone.now())
        log.checkpoint(conn)
    lone.destroy_old_keys()
    verdict, _ = audits.verify(as_user(lone, "audra"), offline=True)
    assert [finding for finding in verdict.report.findings if "no second person" in finding]


def test_the_commands_propose_and_approve_what_is_done_to_a_person(
    lone: Node, person: str, capsys: pytest.CaptureFixture[str]
) -> None:
    home, whom = str(lone.home.path), ["--phone", phones(0, 1)[0]]

    def concordat(*words: str) -> str:
        done = CliRunner().invoke(app, list(words))
        assert done.exit_code == 0, done.output
        return " ".join(done.output.split())

    shown = concordat("consent", "erase", home, *whom, "--as", "wang")
    assert "waits for another officer" in shown
    (waiting,) = people.proposals(lone)
    assert f"{waiting.id[:8]} open wang consent erased" in concordat("proposal", "list", home)
    refused = CliRunner().invoke(app, ["proposal", "approve", home, waiting.id, "--as", "li"])
    assert (refused.exit_code, "E329" in refused.output) == (1, True)
    shown = concordat("proposal", "approve", home, waiting.id, *whom, "--as", "li")
    assert "Approved: consent erased. Erased at" in shown


# Calls on consents that a user signs


def consent_request(number: int = 0, **said: str) -> admin_pb2.ConsentRequest:
    return admin_pb2.ConsentRequest(
        identifier_kind="phone", identifier=phones(number, number + 1)[0], **said
    )


def test_calls_on_consents_are_signed_by_the_user(bank: Node) -> None:
    import_consents(bank, consent_table(phones(0, 3), "shop", "profile"))
    staff(bank)

    def call(user: str, name: str, number: int = 0, **said: str) -> Any:
        key = SigningKey.load(people.user_key(bank.home, user))
        return admin.signed_consent(bank.home, user, key, name, consent_request(number, **said))

    with pytest.raises(ConcordatError) as unsigned, admin._stub(bank.home) as stub:
        stub.WithdrawConsent(consent_request())
    assert unsigned.value.code == "E320"
    (done,) = call("wang", "WithdrawConsent")
    assert done["state"] == "ConsentWithdrawn"
    assert (entries(bank)[-1]["type"], entries(bank)[-1]["by"]) == ("consent.withdrawn", "wang")
    assert call("audra", "ShowPerson")["consents"][0]["state"] == "ConsentWithdrawn"
    said = {"purpose": "credit-offer", "recipient": "shop"}
    more = {"categories": "profile", "kind": "general", "expires_at": "2040-01-01T00:00:00Z"}
    assert call("wang", "GrantConsent", 7, **said, **more)[0]["consents"] == 1
    assert call("wang", "RefuseConsent", 7, **said)[0]["consents"] == 1
    waiting = call("wang", "ErasePerson", 1)["proposal"]
    subject = consents.subject_of(bank, "phone", phones(1, 2)[0])
    people.approve(as_user(bank, "li"), waiting, subject=subject)
    for user, name, number, code in (
        ("audra", "WithdrawConsent", 2, "E322"),
        ("wang", "WithdrawConsent", 9, "E408"),
        ("wang", "Status", 0, "E620"),
    ):
        with pytest.raises(ConcordatError) as refused:
            call(user, name, number)
        assert refused.value.code == code
    verdict, _ = audits.verify(as_user(bank, "audra"))
    assert verdict.ok, verdict.report.findings


def test_a_call_that_another_key_signs_changes_nothing(bank: Node) -> None:
    import_consents(bank, consent_table(phones(0, 3), "shop", "profile"))
    staff(bank)
    before = len(entries(bank))
    keys = [SigningKey.generate(), SigningKey.load(people.user_key(bank.home, "li"))]
    for key in keys:
        with pytest.raises(ConcordatError) as refused:
            admin.signed_consent(bank.home, "wang", key, "WithdrawConsent", consent_request())
        assert refused.value.code == "E503"
    with pytest.raises(ConcordatError) as refused:
        admin.signed_consent(bank.home, "chen", keys[0], "WithdrawConsent", consent_request())
    assert refused.value.code == "E321"
    assert len(entries(bank)) == before


def test_a_caller_that_does_not_sign_is_cut_off_and_keeps_nobody(
    bank: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_consents(bank, consent_table(phones(0, 3), "shop", "profile"))
    staff(bank)
    monkeypatch.setattr(admin, "_SIGN_SECONDS", 0.3)
    call = admin_pb2.SignedCall(user="wang", call="WithdrawConsent", request=consent_request())
    steps = queue.Queue()
    steps.put(admin_pb2.SignedConsentRequest(call=call))
    before = len(entries(bank))
    with pytest.raises(ConcordatError), admin._stub(bank.home) as stub:
        for reply in stub.SignedConsent(iter(steps.get, None), timeout=30):
            assert reply.to_sign.startswith(b"DSSEv1")
    steps.put(None)
    assert len(entries(bank)) == before
    key = SigningKey.load(people.user_key(bank.home, "wang"))
    assert admin.signed_consent(bank.home, "wang", key, "WithdrawConsent", consent_request())


def test_whatever_evidence_shows_is_an_entry(lone: Node, tmp_path: Path) -> None:
    import_consents(lone, consent_table(phones(0, 3), "shop", "profile"))
    whom = consents.subject_of(lone, "phone", phones(0, 1)[0])
    staff(lone)
    looks = {
        "audit.export": lambda node: evidence.export(node, tmp_path / "all", Scope()),
        "audit.person": lambda node: evidence.person(node, whom, None, tmp_path / "one"),
        "audit.register.gdpr-30": lambda node: evidence.register(
            node, "gdpr-30", "csv", tmp_path / "register.csv"
        ),
    }
    for read, look in looks.items():
        with pytest.raises(MustSign):
            look(lone)
        look(as_user(lone, "audra"))
        last = entries(lone)[-1]
        assert (last["type"], last["read"], last["by"]) == ("audit.read", read, "audra")
    assert [one.fails for one in offline.verify([tmp_path / "all", tmp_path / "one"], None)] == [
        [],
        [],
    ]


def test_a_session_needs_no_user_where_there_are_none(ready: tuple[Node, Node]) -> None:
    bank, _ = ready
    report = session.run_job(bank, job("overlap"), lambda *_: None, session.Control())
    assert report["state"] == "completed"
