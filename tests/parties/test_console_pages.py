"""The console's pages on two real nodes: what they show, to whom, and what is signed by it."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from html import escape
from pathlib import Path

import pytest
from conftest import make
from consoles import PORT, Visitor, as_user, cheap_passwords, signed_in, staff
from httpx2 import Response
from pypdf import PdfReader
from ready import AGREEMENT, SHARED, make_ready, paused, run, until

from compliance.amendment import in_words
from parties import agreements, catalogue, consents, runs, server, withdrawals
from parties.config import Home
from parties.console import originals, words
from parties.console.pages import verify
from parties.console.visit import Console
from parties.node import Node

pytestmark = pytest.mark.filterwarnings("ignore:Setting per-request cookies")

MARKUP = "<script>alert(1)</script>&\"'"


@pytest.fixture(scope="module", autouse=True)
def cheap() -> Iterator[None]:
    with cheap_passwords():
        yield


@pytest.fixture(scope="module")
def nodes(lasting: tuple[Node, Node]) -> tuple[Node, Node]:
    """Bank and shop after a run each of them has a receipt of; the bank has users."""
    bank, shop = lasting
    run(bank, "overlap")
    staff(bank)
    return bank, shop


@pytest.fixture
def console(nodes: tuple[Node, Node]) -> Console:
    return Console(Node.open(nodes[0].home), PORT)


def entries(node: Node) -> list[dict]:
    with node.reading() as conn:
        return [json.loads(entry.leaf) for entry in node.log.entries(conn)]


def in_page(text: str, page: str) -> bool:
    return escape(text, quote=True).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in page


# Whoever is signed in, in either language


@pytest.mark.parametrize("language", list(words.LANGUAGES))
@pytest.mark.parametrize("name", ["li", "wang", "audra"])
def test_every_section_is_there_for_every_role(console: Console, name: str, language: str) -> None:
    visitor = signed_in(console, name)
    visitor.http.headers["accept-language"] = language
    page = visitor.see("/")
    sections = re.findall(r'<li><a href="(/\w*)"', page.partition("<nav")[2].partition("</nav")[0])
    assert "/verify" in sections
    for path in sections:
        assert f'<html lang="{language}">' in visitor.see(path)


# Agreements


def test_an_agreement_is_read_in_words(console: Console) -> None:
    page = signed_in(console, "audra").see("/agreements/offers/1")
    held = agreements.find(console.node, "offers", 1)
    for text in ("credit-offer", "shoppers", "spend", held.agreement.digest.hex()):
        assert in_page(text, page)
    assert in_page("how many customers it shares with shop", page)
    assert page.count(words.say("en", "agreements.signed")) >= 2


def test_all_that_an_agreement_says_is_there(console: Console, tmp_path: Path) -> None:
    """Whatever members it gets: of the reference's, with all that is optional."""
    text = (Path(__file__).parents[2] / "docs" / "reference" / "agreement.yaml").read_text("utf-8")
    text = text.replace(
        "parties: {bank: bank, partner: shop}", "parties: {bank: bank, partner: shop}"
    )
    optional = "noise:\n  epsilon: 1\n  delta: 1.0e-9\n  budget: {epsilon: 12, per: month}\n"
    text = text.replace("release: exact  ", "release: noised ", 1) + optional
    assert propose(signed_in(console, "wang"), text).status_code == 303
    page = in_chinese(signed_in(console, "li")).see("/agreements/credit-offers/1")
    agreement = agreements.find(console.node, "credit-offers").agreement
    for name in agreement.model_fields_set - {"agreement", "version", "parties", "jobs"}:
        placed = {"purpose", "valid", "data", "segmentation", "limits"}
        assert name in placed or words.say("zh", f"term.{name}") in page, name
    for told in ("ε 1", "分布", "除以 spend_12m", "标签", "repaid"):
        assert told in page, told
    (waiting,) = agreements.waiting(console.node, "credit-offers", 1)
    signed_in(console, "wang").do(f"/approvals/{waiting.id}/refuse", reason="only shown")


def test_an_auditor_is_offered_no_act_and_may_do_none(console: Console) -> None:
    visitor = signed_in(console, "audra")
    page = visitor.see("/agreements/offers/1")
    assert "/suspend" not in page
    before = len(entries(console.node))
    for path in ("suspend", "terminate", "resume", "sign"):
        answer = visitor.post(f"/agreements/offers/1/{path}", reason="x")
        assert answer.status_code in {303, 400, 403}, path
    assert [one["type"] for one in entries(console.node)[before:]] == []
    assert visitor.post("/approvals/00/approve").status_code == 404


def test_an_engineer_may_not_suspend(console: Console) -> None:
    answer = signed_in(console, "wang").post("/agreements/offers/1/suspend", reason="x")
    assert answer.status_code == 403
    assert "E322" in answer.text


def test_a_new_version_takes_two_and_is_compared(
    console: Console, nodes: tuple[Node, Node]
) -> None:
    bank, shop = nodes
    text = AGREEMENT.format(version=2, partner_learns="ids").replace("none made", "PIA-2")
    made = propose(signed_in(console, "wang"), text)
    assert made.headers["location"] == "/agreements/offers/2"
    visitor = signed_in(console, "li")
    assert "offers" in visitor.see("/approvals")
    (waiting,) = agreements.waiting(bank, "offers", 2)
    own = signed_in(console, "wang")
    assert own.post(f"/approvals/{waiting.id}/approve").status_code == 403
    assert "approve" not in own.see("/agreements/offers/2").partition("<main")[2].lower().replace(
        words.say("en", "approvals.own").lower(), ""
    )
    back = {"back": "/agreements/offers/2", "reason": "as agreed"}
    page = visitor.do(f"/approvals/{waiting.id}/approve", **back)
    assert words.say("en", "approvals.was_approved") in page
    agreements.sign(shop, "offers", 2)
    page = visitor.see("/agreements/offers/compare?old=1&new=2")
    for change in in_words(*agreements.versions(bank, "offers", 1, 2)):
        assert in_page(change, page)
    signed = [one for one in entries(bank) if one["type"] == "agreement.signed"]
    assert "li" in [one["by"] for one in signed if one["version"] == 2]


def propose(visitor: Visitor, text: str | bytes) -> Response:
    data = {"form_token": visitor.token()}
    return visitor.http.post("/agreements/propose", data=data, files={"file": ("a.yaml", text)})


def test_what_is_no_agreement_is_not_proposed(console: Console, nodes: tuple[Node, Node]) -> None:
    known = len(agreements.every(nodes[0]))
    text = AGREEMENT.format(version=9, partner_learns="ids")
    engineer = signed_in(console, "wang")
    for bad, code in ((b"\xff", "E664"), (b"", "E301"), ("agreement: " + MARKUP, "E301")):
        answer = propose(engineer, bad)
        assert answer.status_code == 400 and code in answer.text and MARKUP not in answer.text
    assert "E611" in propose(engineer, text.replace("shop", "stranger")).text
    assert propose(signed_in(console, "audra"), text).status_code == 403
    assert len(agreements.every(nodes[0])) == known


def test_suspending_resuming_and_refusing(console: Console, nodes: tuple[Node, Node]) -> None:
    bank, _ = nodes
    li, he = signed_in(console, "li"), signed_in(console, "he")
    page = li.do("/agreements/offers/1/suspend", reason=MARKUP)
    assert words.say("en", "agreements.told") in page
    assert "<script>alert" not in page
    assert in_page(MARKUP, page)
    assert words.say("en", "agreements.waits") in li.do("/agreements/offers/1/resume", reason="")
    (waiting,) = agreements.waiting(bank, "offers")
    assert he.post(f"/approvals/{waiting.id}/refuse", reason=" ").status_code == 400
    assert he.post(f"/approvals/{waiting.id}/refuse", reason="x" * 257).status_code == 400
    assert words.say("en", "approvals.was_refused") in he.do(
        f"/approvals/{waiting.id}/refuse", reason=MARKUP
    )
    li.do("/agreements/offers/1/resume")
    (waiting,) = agreements.waiting(bank, "offers")
    he.do(f"/approvals/{waiting.id}/approve", back="//evil.example")
    assert agreements.in_force(bank, "offers").version == 2
    page = li.see("/approvals")
    assert "<script>alert" not in page


def test_a_reason_is_needed_to_suspend(console: Console) -> None:
    for reason in ("", "  ", "x" * 257):
        answer = signed_in(console, "li").post("/agreements/offers/1/suspend", reason=reason)
        assert answer.status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        "/agreements/offers/9",
        "/agreements/none/1",
        "/agreements/offers/x",
        f"/agreements/{MARKUP.replace('/', '')}/1",
        "/agreements/offers/compare?old=1&new=9",
        "/agreements/offers/compare",
        "/runs/ffff",
        "/runs/x/intent.json",
        f"/runs/{MARKUP.replace('/', '')}",
        "/nothing",
        "/%00",
    ],
)
def test_what_is_not_there_is_said_without_markup(console: Console, path: str) -> None:
    answer = signed_in(console, "li").get(path)
    assert answer.status_code in {400, 404}
    assert "<script>alert" not in answer.text
    assert "Traceback" not in answer.text


# Runs


def the_run(node: Node) -> str:
    return next(one["id"] for one in node.runs() if one["state"] == runs.COMPLETED)


def test_a_run_shows_who_learned_what_and_both_signatures(
    console: Console, nodes: tuple[Node, Node]
) -> None:
    bank, _ = nodes
    run_id = the_run(bank)
    visitor = signed_in(console, "audra")
    assert run_id[:8] in visitor.see("/runs")
    assert run_id[:8] in visitor.see("/runs?days=30")
    page = visitor.see(f"/runs/{run_id}")
    for text in (
        "how many customers it shares with shop",
        words.say("en", "runs.signed_intent", first="bank", second="shop"),
        words.say("en", "runs.signed_completion", first="bank", second="shop"),
        words.say("en", "runs.people", n=115, categories="profile"),
        words.say("en", "entry.run.release"),
    ):
        assert in_page(text, page)
    *_, entry = entries(bank)
    assert (entry["type"], entry["run"], entry["by"]) == ("audit.read", run_id, "audra")


def in_chinese(visitor: Visitor) -> Visitor:
    visitor.http.headers["accept-language"] = "zh"
    return visitor


def test_what_is_signed_stands_in_chinese_and_as_it_was_signed(
    console: Console, nodes: tuple[Node, Node]
) -> None:
    visitor = in_chinese(signed_in(console, "audra"))
    for path in (f"/runs/{the_run(nodes[0])}", "/agreements/offers/1"):
        page = visitor.see(path)
        shown, _, original = page.partition(words.say("zh", "base.original"))
        assert "<li>与 shop 有多少共同客户</li>" in shown
        assert "how many customers it shares with shop" not in shown
        assert "<li>how many customers it shares with shop</li>" in original


def test_a_report_is_saved_in_the_readers_language(
    console: Console, nodes: tuple[Node, Node]
) -> None:
    bank, _ = nodes
    run_id = the_run(bank)
    visitor = in_chinese(signed_in(console, "audra"))
    assert f'href="/runs/{run_id}/report.html"' in visitor.see(f"/runs/{run_id}")
    saved = visitor.get(f"/runs/{run_id}/report.html")
    assert saved.headers["content-disposition"].startswith("attachment")
    assert words.say("zh", "report.sets") in saved.text and '<html lang="zh">' in saved.text
    *_, entry = entries(bank)
    assert (entry["read"], entry["run"], entry["by"]) == ("report", run_id, "audra")
    assert visitor.get("/runs/ffff/report.html").status_code == 404


def test_the_partners_receipt_is_compared_with_ours(
    console: Console, nodes: tuple[Node, Node]
) -> None:
    bank, shop = nodes
    run_id = the_run(bank)
    visitor = signed_in(console, "audra")
    path = shop.home.run_folder(run_id) / "receipt.json"

    def compared(receipt: bytes) -> object:
        data = {"form_token": visitor.token()}
        files = {"file": ("receipt.json", receipt)}
        return visitor.http.post(f"/runs/{run_id}/compare", data=data, files=files)

    same = compared(path.read_bytes())
    assert in_page(words.say("en", "runs.same"), same.text)
    ours = visitor.get(f"/runs/{run_id}/receipt.json")
    assert ours.headers["content-disposition"].startswith("attachment")
    assert json.loads(ours.text)["payload"] == json.loads(path.read_bytes())["payload"]
    intent = visitor.get(f"/runs/{run_id}/intent.json")
    assert intent.content == (bank.home.run_folder(run_id) / "intent.json").read_bytes()
    evidence = visitor.post("/exports/evidence", run=run_id)
    assert evidence.content.startswith(b"PK")
    assert f'name="run" value="{run_id}"' in visitor.see(f"/runs/{run_id}")
    theirs = json.loads(path.read_bytes())
    theirs["signatures"][0]["sig"] = theirs["signatures"][1]["sig"]
    changed = compared(json.dumps(theirs, separators=(",", ":")).encode())
    assert in_page(words.say("en", "runs.differ"), changed.text)
    assert "signature of" in changed.text
    for nonsense in (b"", b"{}", b"\xff" * 100, MARKUP.encode()):
        assert compared(nonsense).status_code == 400


def test_a_run_without_a_receipt_is_shown_too(console: Console, nodes: tuple[Node, Node]) -> None:
    bank, _ = nodes
    with bank.writing() as conn:
        runs.record_start(
            conn, "ab" * 16, job="overlap", agreement="offers", role="bank", peer="shop",
            now=bank.now(),
        )  # fmt: skip
        runs.record_end(
            conn, "ab" * 16, runs.FAILED, {"error": {"code": "E612", "message": MARKUP}},
            bank.now(),
        )  # fmt: skip
    page = signed_in(console, "wang").see(f"/runs/{'ab' * 16}")
    assert words.say("en", "runs.no_receipt") in page
    assert "E612" in page
    assert in_page(MARKUP, page)


def test_a_run_says_what_was_held_back_and_who_waits(
    console: Console, nodes: tuple[Node, Node]
) -> None:
    bank, _ = nodes
    told = {
        "gate": {"eligible": 115, "excluded": {}, "waiting": 3},
        "warnings": [{"code": "E313", "message": "Held back: 1.", "next_step": "Wait."}],
        "held_back": 2,
    }
    with bank.writing() as conn:
        runs.record_start(
            conn, "cd" * 16, job="overlap", agreement="offers", role="bank", peer="shop",
            now=bank.now(),
        )  # fmt: skip
        runs.record_end(conn, "cd" * 16, runs.FAILED, told, bank.now())
    page = signed_in(console, "wang").see(f"/runs/{'cd' * 16}")
    for text in (
        words.say("en", "runs.waiting", n=3),
        words.say("en", "runs.in_spite"),
        words.say("en", "runs.held_back", n=2),
        "Held back: 1.",
    ):
        assert in_page(text, page)


# Verification


def verified(visitor: Visitor) -> str:
    visitor.do("/verify")
    last = visitor.http.app._app.state.verifications.last
    until(lambda: last.finished, 60)
    return visitor.see("/verify")


def test_a_good_log_verifies_and_is_cosigned(console: Console, nodes: tuple[Node, Node]) -> None:
    bank, _ = nodes
    page = verified(signed_in(console, "audra"))
    reads = [one.get("read") for one in entries(bank)]
    size = len(reads) - reads[::-1].index("audit.verify")
    assert words.say("en", "verify.passed", n=size) in page
    assert "shop.concordat/witness" in page
    assert 'http-equiv="refresh"' not in page
    assert words.say("en", "home.never") not in signed_in(console, "li").see("/")


def test_a_tampered_log_does_not(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    home = Home(tmp_path / "copy")
    shutil.copytree(nodes[0].home.path, home.path, ignore=shutil.ignore_patterns("running.json"))
    node = Node.open(home)
    with node.writing() as conn:
        leaf = conn.exec_driver_sql('SELECT leaf FROM log_entries WHERE "index" = 3').scalar_one()
        changed = leaf.replace(b'"time":"20', b'"time":"19')
        assert changed != leaf
        update = 'UPDATE log_entries SET leaf = ? WHERE "index" = 3'
        conn.exec_driver_sql(update, (changed,))
    visitor = signed_in(Console(node, PORT), "li")
    page = verified(visitor)
    assert "entry 3: leaf hash differs" in page
    assert words.say("en", "verify.what_now") in page
    assert "is whole" not in page
    page = in_chinese(visitor).see("/verify")
    assert "<li>第 3 条：叶哈希不符</li>" in page
    assert "entry 3: leaf hash differs" in page.partition(words.say("zh", "base.original_text"))[2]


def test_one_verification_at_a_time(console: Console) -> None:
    started = verify.Verifications()
    node = console.used_by(as_user(console.node, "audra").actor)
    started.start(node, "audra")
    first = started.last
    started.start(node, "li")
    assert started.last is first
    until(lambda: first.finished, 60)
    assert first.verdict.ok


def test_what_is_under_way_refreshes_itself_without_script(console: Console) -> None:
    visitor = signed_in(console, "audra")
    visitor.http.app._app.state.verifications.last = verify.Verification("li", console.node.now())
    page = visitor.see("/verify")
    assert '<noscript><meta http-equiv="refresh"' in page
    assert 'data-live="on"' in page
    assert "<button>" not in page.partition("<main")[2]


# People


PERSON = "+8613900000100"  # one of the bank's customers


def looked_up(visitor: Visitor, identifier: str = PERSON, kind: str = "phone") -> str:
    """Where the person's page is."""
    answer = visitor.post("/people", kind=kind, identifier=identifier)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def test_a_person_is_found_and_looking_is_an_entry(console: Console) -> None:
    visitor = signed_in(console, "audra")
    path = looked_up(visitor, "139 0000 0100")
    assert "139" not in path
    page = visitor.see(path)
    for text in ("credit-offer", "shop", "profile", words.say("en", "state.ConsentGiven")):
        assert in_page(text, page)
    assert "13900000100" not in page
    assert "<form" not in page.partition("<main")[2]  # an auditor changes nothing
    *_, entry = entries(console.node)
    assert (entry["type"], entry["read"], entry["by"]) == ("audit.read", "consent.show", "audra")
    assert "13900000100" not in json.dumps(entry)
    assert looked_up(visitor) == path
    other = signed_in(console, "li")
    assert other.get(path).status_code == 403


def test_the_search_is_refused_what_is_no_identifier_and_who_may_not(console: Console) -> None:
    visitor = signed_in(console, "li")
    for kind, identifier in (("phone", "12"), ("name", "x"), ("email", MARKUP)):
        answer = visitor.post("/people", kind=kind, identifier=identifier)
        assert answer.status_code == 400
        assert "<script>alert" not in answer.text
    nobody = visitor.see(looked_up(visitor)) and visitor.get(looked_up(visitor, "13811112222"))
    assert nobody.status_code == 404
    engineer = signed_in(console, "wang")
    assert 'href="/people"' not in engineer.see("/")
    for path in ("/people", "/people/x", "/people/x/runs", "/exports"):
        assert engineer.get(path).status_code == 403
    for path in ("/people", "/people/x/erase", "/people/x/proofs", "/exports/evidence"):
        answer = engineer.post(path, kind="phone", identifier=PERSON)
        assert answer.status_code == 403, path


def unzipped(answer: object, folder: Path) -> Path:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    assert "attachment" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        archive.extractall(folder)
    (made,) = folder.iterdir()
    return made


def check_offline(folder: Path) -> str:
    """What the Python file in the evidence prints, of this folder alone."""
    done = subprocess.run(
        [sys.executable, "-I", "verify.py"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_presence_and_absence_are_shown_and_proved(console: Console, tmp_path: Path) -> None:
    run_id = the_run(console.node)
    visitor = signed_in(console, "audra")
    path = looked_up(visitor)
    page = visitor.see(f"{path}/runs?run={run_id[:8]}")
    assert in_page(words.say("en", "people.was_in", n=115, run=run_id[:8]), page)
    assert run_id[:8] in check_offline(
        unzipped(visitor.post(f"{path}/proofs", run=run_id), tmp_path / "in")
    )
    before = {one.name for one in console.node.home.path.iterdir()}
    absent = consents.subject_of(console.node, "phone", "13900009999")
    as_wang = as_user(console.node, "wang")
    said = {"purpose": "credit-offer", "recipient": "shop", "categories": "profile"}
    more = {"kind": "separate", "expires_at": "2034-01-01T00:00:00Z"}
    consents.grant(as_wang, absent, said | more)
    other = looked_up(visitor, "13900009999")
    page = visitor.see(f"{other}/runs?run={run_id}")
    assert in_page(words.say("en", "people.was_not_in", n=115, run=run_id[:8]), page)
    folder = unzipped(visitor.post(f"{other}/proofs", run=run_id), tmp_path / "out")
    check_offline(folder)
    assert {one.name for one in console.node.home.path.iterdir()} == before  # nothing is left
    assert visitor.get(f"{other}/runs?run=ffffffff").status_code == 404


def proposal_of(page: str) -> str:
    """The one that waits on the page of approvals."""
    (found,) = set(re.findall(r'action="/approvals/([0-9a-f]{32})/approve"', page))
    return found


def test_restricting_and_erasing_take_two_who_both_name_the_person(console: Console) -> None:
    li, he = signed_in(console, "li"), signed_in(console, "he")
    whom = {"kind": "phone", "identifier": "13900000101"}
    path = looked_up(li, whom["identifier"])
    assert li.post(f"{path}/restrict", until="soon").status_code == 400
    page = li.do(f"{path}/restrict", until="2034-01-01", reason="litigation")
    assert in_page(words.say("en", "people.waits"), page)
    waiting = proposal_of(he.see("/approvals"))
    assert he.post(f"/approvals/{waiting}/approve").status_code == 400
    other = {"kind": "phone", "identifier": "13900000102"}
    assert "E329" in he.post(f"/approvals/{waiting}/approve", **other).text
    assert li.post(f"/approvals/{waiting}/approve", **whom).status_code == 403
    he.do(f"/approvals/{waiting}/approve", **whom)
    assert in_page(words.say("en", "people.restricted", time="2034-01-01 00:00 UTC"), li.see(path))
    assert "E409" in li.post(f"{path}/erase").text
    li.do(f"{path}/lift")
    he.do(f"/approvals/{proposal_of(he.see('/approvals'))}/approve", **whom)
    li.do(f"{path}/erase")
    he.do(f"/approvals/{proposal_of(he.see('/approvals'))}/approve", **whom)
    page = li.see(path)
    assert in_page(words.say("en", "people.nothing_left"), page)


def test_a_persons_own_withdrawal_is_recorded_at_once(console: Console) -> None:
    li = signed_in(console, "li")
    path = looked_up(li, "13900000103")
    page = li.do(f"{path}/withdraw", by="person", reason="asked", purpose="credit-offer")
    assert in_page(words.say("en", "people.done_withdraw"), page)
    assert in_page(words.say("en", "state.ConsentWithdrawn"), page)
    assert "E407" in li.post(f"{path}/withdraw", by="person").text
    assert li.post(f"{path}/nothing").status_code == 400


# Exports


def test_evidence_verifies_offline(console: Console, tmp_path: Path) -> None:
    visitor, run_id = signed_in(console, "audra"), the_run(console.node)
    for number, fields in enumerate(({}, {"run": run_id[:8]}, {"since": "2026-01-01"})):
        answer = visitor.post("/exports/evidence", **fields)
        check_offline(unzipped(answer, tmp_path / str(number)))
    assert visitor.post("/exports/evidence", since="x").status_code == 400
    assert visitor.post("/exports/evidence", run="ffffffff").status_code == 404
    read = [one["read"] for one in entries(console.node) if one.get("by") == "audra"]
    assert read.count("audit.export") >= 2


@pytest.mark.parametrize("language", list(words.LANGUAGES))
@pytest.mark.parametrize("kind", ["gdpr-30", "pipl-23"])
def test_registers_are_files_of_three_kinds(console: Console, kind: str, language: str) -> None:
    visitor = signed_in(console, "li")
    visitor.http.headers["accept-language"] = language
    files = {
        form: visitor.post("/exports/register", kind=kind, form=form).content
        for form in ("csv", "json", "pdf")
    }
    said = json.loads(files["json"])
    assert (said["register"], said["institution"]) == (kind, "bank")
    rows = list(csv.reader(io.StringIO(files["csv"].decode())))
    assert len(rows) == len(said["entries"]) + 1 > 1
    read = PdfReader(io.BytesIO(files["pdf"]))
    assert words.say(language, f"register.{kind}") == read.metadata.title
    text = "".join(page.extract_text() for page in read.pages)
    assert "credit-offer" in text
    named = {"en": ("offers, version 1", "valid until"), "zh": ("offers 第 1 版", "有效期至")}
    assert all(name in text for name in named[language])
    for bad in ({"kind": "x", "form": "csv"}, {"kind": kind, "form": "exe"}):
        assert visitor.post("/exports/register", **bad).status_code == 400


# The engineer's view


def test_a_job_under_way_is_followed_and_cancelled(
    console: Console, nodes: tuple[Node, Node]
) -> None:
    bank, _ = nodes
    wang, li = signed_in(console, "wang"), signed_in(console, "li")
    with paused(bank, "overlap", "gate") as (running, _pause):
        page = wang.see("/jobs")
        assert 'data-live="on"' in page
        assert "<progress" in page
        assert ">gate" in page
        (run_id,) = re.findall(r'action="/jobs/([0-9a-f]{32})/cancel"', page)
        assert f"/jobs/{run_id}/cancel" not in li.see("/jobs")
        assert li.post(f"/jobs/{run_id}/cancel").status_code == 403
        wang.do(f"/jobs/{run_id}/cancel")
    assert running.error.code == "E622"
    page = wang.see("/jobs")
    assert 'data-live="off"' in page
    assert '<a href="/errors/E622">' in page


@pytest.mark.parametrize("language", list(words.LANGUAGES))
def test_the_catalogue_of_features_is_shown(console: Console, language: str) -> None:
    visitor = signed_in(console, "wang")
    visitor.http.headers["accept-language"] = language
    assert 'href="/features"' in visitor.see("/jobs")
    page = visitor.see("/features")
    for one in catalogue.listed():
        assert in_page(one["name"], page)
        assert in_page(originals.feature(language, one)["definition"], page)


def test_an_errors_page_is_shown(console: Console) -> None:
    visitor = signed_in(console, "wang")
    page = visitor.see("/errors/E612")
    assert "<strong>What to do.</strong>" in page
    page = visitor.see("/errors/E404")
    assert "keys (docs/keys.md)" in page, "no link to what is no page here"
    page = in_chinese(visitor).see("/errors/E612")
    assert "<h1>E612: 合作方节点没有应答</h1>" in page
    assert "<strong>What to do.</strong>" in page.partition("<details>")[2]
    for code in ("E000", "../README", "README", "E612.md", "..%2f..%2fpyproject"):
        assert visitor.get(f"/errors/{code}").status_code == 404


def test_partners_are_shown_with_the_ends_of_certificates(
    console: Console, nodes: tuple[Node, Node]
) -> None:
    bank, shop = nodes
    page = signed_in(console, "wang").see("/peers")
    for text in (
        shop.identity.fingerprint,
        bank.identity.fingerprint,
        f"{bank.certificate().not_valid_after_utc:%Y-%m-%d}",
        f"{shop.authority_certificate.not_valid_after_utc:%Y-%m-%d}",
    ):
        assert in_page(text, page)


def test_a_withdrawal_that_nobody_acknowledges_is_late_on_the_overview(
    tmp_path: Path, paillier_key: bytes
) -> None:
    bank, shop = make(tmp_path, "bank"), make(tmp_path, "shop", "ecommerce")
    with server.serving(bank), server.serving(shop):
        make_ready(bank, shop, paillier_key)
        done = run(bank, "intersect")
        until(lambda: shop.find_run(done["run"])["ended_at"])
    staff(shop)
    console = Console(Node.open(shop.home), PORT)
    visitor = signed_in(console, "li")
    assert in_page(words.say("en", "home.all_told"), visitor.see("/"))
    li = as_user(shop, "li")
    (withdrawn,) = consents.withdraw(li, f"phone:{SHARED[7]}", {})
    assert [one["to"] for one in withdrawn["notices"]] == ["bank"]
    (sent,) = withdrawals.every(li)
    said = {"entry": sent["entry"], "recipient": "bank", "time": words.shown_time(sent["time"])}
    page = visitor.see("/")
    assert in_page(words.say("en", "home.withdrawal", **said), page)
    assert "late: it was due" not in page
    due = datetime.fromisoformat(sent["due"])
    console.node.now = lambda: due + timedelta(hours=1)
    page = visitor.see("/")
    assert in_page(words.say("en", "home.late", time=words.shown_time(due)), page)
    page = in_chinese(visitor).see("/")
    assert in_page(words.say("zh", "home.late", time=words.shown_time(due)), page)
    console.node.now = Node.open(shop.home).now
    with server.serving(bank), server.serving(Node.open(shop.home)):
        until(lambda: in_page(words.say("zh", "home.all_told"), visitor.see("/")))
