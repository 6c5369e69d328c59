"""Everything in docs/reference is literal, complete, and works."""

import hashlib
import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import cli_reference
import console
import feature_reference
import made_up
import numpy as np
import pandas as pd
import pytest
import yaml
from cli_reference import Verb
from made_up import REFERENCE
from pydantic import BaseModel
from typer.testing import CliRunner

from compliance import agreement, notice, receipt
from compliance.agreement import Agreement, Job, Watch, permits
from compliance.canonical import parse
from compliance.errors import AgreementRefusal
from compliance.lifecycle import RESUMED, SUSPENDED, TERMINATED
from compliance.merkle import leaf_hash
from compliance.note import COSIGNATURE, Checkpoint, VerifierKey, sign
from compliance.signing import Envelope
from compliance.witness import Request
from federated.identifiers import Kind
from parties import agreements, audits, consents, rotation, session, withdrawals, witnessing
from parties import people as users
from parties.cli import app
from parties.config import Config, Home, ThirdWitness
from parties.errors import Cancelled
from parties.node import Node
from parties.sources import Dataset, FeatureSettings

NOW = datetime(2026, 12, 1, tzinfo=UTC)
JOBS = [
    "job-overlap.yaml",
    "job-intersect.yaml",
    "job.yaml",
    "job-lookup.yaml",
    "job-score.yaml",
    "job-early-warning.yaml",
    "job-evaluate.yaml",
    "job-stability.yaml",
    "job-populations.yaml",
]


def text(name: str) -> str:
    return (REFERENCE / name).read_text("utf-8")


# config.yaml


def test_a_node_loads_the_configuration(tmp_path: Path) -> None:
    home = Node.create(Home(tmp_path / "bank"), "bank", "bank", None).home
    home.config_file.write_text(text("config.yaml"), "utf-8")
    node = Node.open(home)
    assert node.dataset("customers", "phone").identifier.column == "phone"


def test_the_configuration_shows_every_setting_and_its_default() -> None:
    written = yaml.safe_load(text("config.yaml"))

    def compare(model: type[BaseModel], values: dict[str, Any], *, own: set[str]) -> None:
        assert values.keys() == model.model_fields.keys()
        for name, field in model.model_fields.items():
            if isinstance(field.default, BaseModel):
                compare(type(field.default), values[name], own=set())
            elif name not in own:
                assert values[name] == field.default, name

    own = {"name", "sector", "listen", "address", "metrics", "datasets"}
    compare(Config, written, own=own)
    table, raw = written["datasets"].values()
    dataset = table | {"features": raw["features"]}
    compare(Dataset, dataset, own={"path", "sql", "identifier", "features"})
    compare(FeatureSettings, dataset["features"], own={"library", "as_of"})
    identifier = Dataset.model_fields["identifier"].annotation
    assert identifier
    compare(identifier, dataset["identifier"], own={"column", "kind"})


def test_init_writes_the_settings_above_the_empty_line(tmp_path: Path) -> None:
    home = Node.create(Home(tmp_path / "bank"), "bank", "bank", None).home
    above, _, _ = text("config.yaml").partition("\n\n")
    made = yaml.safe_load(home.config_file.read_text("utf-8"))
    assert list(yaml.safe_load(above)) == list(made)


# agreement.yaml and the jobs


@pytest.mark.parametrize("name", JOBS)
def test_the_agreement_permits_the_jobs(name: str) -> None:
    job = Job.from_yaml(text(name))
    permits(Agreement.from_yaml(text("agreement.yaml")), job, now=NOW, runs=lambda _: 0)
    others = {"job.yaml", "job-early-warning.yaml", "job-populations.yaml"}
    assert name in {*others, f"job-{job.job}.yaml"}


def test_there_is_a_job_of_each_kind() -> None:
    assert {Job.from_yaml(text(name)).job for name in JOBS} == Agreement.model_fields[
        "jobs"
    ].annotation.model_fields.keys()


def test_the_agreement_shows_every_setting() -> None:
    """Every field of the models occurs in the page; `kind` has one value only."""
    names = {
        field.alias or name
        for model in vars(agreement).values()
        if isinstance(model, type) and issubclass(model, BaseModel) and model not in {Job, Watch}
        for name, field in model.model_fields.items()
    }
    missing = {name for name in names if not re.search(rf"\b{name}\b", text("agreement.yaml"))}
    assert missing <= {"kind"}


# A run


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node]]:
    with made_up.two_nodes(tmp_path_factory.mktemp("nodes")) as both:
        yield both


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> made_up.People:
    return made_up.write(tmp_path_factory.mktemp("people"))


def test_the_overlap_is_the_join(nodes: tuple[Node, Node], people: made_up.People) -> None:
    report = made_up.run(nodes[0], "job-overlap.yaml")
    count = {"count": len(people.shared()), "partner_size": len(people.shoppers)}
    assert json.loads(Path(report["result_file"]).read_bytes()) == count


def test_the_intersection_is_the_join(nodes: tuple[Node, Node], people: made_up.People) -> None:
    report = made_up.run(nodes[0], "job-intersect.yaml")
    found = pd.read_csv(report["result_file"], dtype=str)
    assert found["phone"].tolist() == sorted("+86" + people.shared()["phone"])


def test_the_lookup_and_the_scores_are_the_join(
    nodes: tuple[Node, Node], people: made_up.People
) -> None:
    """For every fifth customer."""
    bank, _ = nodes
    applicants = people.customers[::5]
    for name in ("applicants.csv", "borrowers.csv"):
        applicants[["phone"]].to_csv(bank.home.path / name, index=False)
    (bank.home.path / "scorecard.yaml").write_text(text("scorecard.yaml"))
    shared = applicants.merge(people.shoppers, on="phone").sort_values("phone")
    shared["phone"] = "+86" + shared["phone"]

    found = pd.read_csv(made_up.run(bank, "job-lookup.yaml")["result_file"], dtype=str)
    assert found["phone"].tolist() == shared["phone"].tolist()
    spent = shared["spend_12m"].clip(0, 50_000)
    assert found["spend_12m"].tolist() == [f"{one:.2f}" for one in spent]

    found = pd.read_csv(made_up.run(bank, "job-score.yaml")["result_file"], dtype=str)
    bins = pd.cut(shared["days_between_orders"], [-np.inf, 7, 90, np.inf], labels=False)
    assert found["phone"].tolist() == shared["phone"].tolist()
    assert found["score"].tolist() == [("615.5", "590.0", "555.0")[at] for at in bins]

    report = made_up.run(bank, "job-early-warning.yaml")
    assert Path(report["result_file"]).read_text() == "phone,before,now,fall\n"


def insight_of(people: made_up.People) -> pd.DataFrame:
    """What job.yaml should give under agreement.yaml, by a plain join."""
    shared = people.shared()
    bands = pd.cut(shared["age"], [-np.inf, 29, 44, np.inf], labels=["-29", "30-44", "45-"])
    rows = []
    for age in bands.cat.categories:
        for city in ("north", "south"):
            inside = shared[(bands == age) & (shared["city"] == city)]
            gaps, spend = inside["days_between_orders"], inside["spend_12m"].clip(0, 50_000)
            edges = pd.cut(gaps, [-np.inf, 7, 30, 90, np.inf]).value_counts(sort=False)
            sums = {"sum": spend.sum(), "mean": spend.mean(), "variance": spend.var(ddof=0)}
            parts = {"share": (gaps <= 30).mean(), "histogram": ";".join(map(str, edges))}
            for feature, values in (("spend_12m", sums), ("days_between_orders", parts)):
                row = {"age": age, "city": city, "feature": feature}
                small = len(inside) < 50
                released = {} if small else {"count": len(inside), **values}
                rows.append({**row, "suppressed": small, **released})
    return pd.DataFrame(rows)


def test_the_insight_is_the_join(nodes: tuple[Node, Node], people: made_up.People) -> None:
    report = made_up.run(nodes[0], "job.yaml")
    check_insight(Path(report["result_file"]), people)


def test_the_result_shown_is_the_join(people: made_up.People) -> None:
    check_insight(REFERENCE / "insight.csv", people)


def check_insight(path: Path, people: made_up.People) -> None:
    keys = ["age", "city", "feature"]
    found = pd.read_csv(path, dtype={"age": str}).sort_values(keys, ignore_index=True)
    wanted = insight_of(people).sort_values(keys, ignore_index=True)
    assert 0 < found["suppressed"].sum() < len(found) == 12
    pd.testing.assert_frame_equal(
        found, wanted[list(found)], check_dtype=False, rtol=1e-12, check_like=True
    )


def live_a_life(node: Node) -> None:
    """Whatever can be said of one person."""
    person = consents.subject_of(node, "phone", "15100000001")
    said = {"purpose": "credit-offer", "recipient": "bank", "expires_at": "2035-01-01T00:00:00Z"}
    consents.add_notice(node, REFERENCE / "notice.yaml")
    for by in ("person", "institution", "authority"):
        consents.grant(node, person, {**said, "categories": "purchase-history", "kind": "written"})
        consents.renew(node, person, said)
        consents.withdraw(node, person, {}, by)
    consents.refuse(node, person, said)
    consents.restrict(node, person, {"until": "2035-01-01T00:00:00Z"})
    consents.lift(node, person, {})
    consents.erase(node, person, {})
    for key in ("lookup", "wrapping"):
        consents.rotate(node, key)


def test_every_entry_is_of_a_type_that_is_described(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    """The table of types names the members that entries have."""
    described = {}
    for line in text("log-entry.md").splitlines():
        if row := re.match(r"\| `([a-z]+\.[a-z]+)` \| ([^|]*) \|", line):
            needed, perhaps = (
                set(re.findall(r"`(\w+)`", words))
                for words in (row[2] + "perhaps").split("perhaps")[:2]
            )
            if row[2].startswith("the same"):
                needed |= described["agreement.proposed"][0]
            described[row[1]] = (
                needed - {"root", "size"} if "subtree" in needed else needed,
                perhaps,
            )
    bank, shop = nodes
    bank.renew_certificate()
    rotation.rotate(bank, "witness")
    assert rotation.announce_to_all(bank) == []
    with pytest.raises(AgreementRefusal):
        session.plan(bank, text("job-overlap.yaml").replace("credit-offer\n", "advertising\n"))
    cancelled = session.Control()
    cancelled.cancel()
    with pytest.raises(Cancelled):
        session.run_job(bank, text("job-overlap.yaml"), lambda *_: None, cancelled)
    made_up.run(bank, "job-overlap.yaml")
    run_with_noise(bank, shop, tmp_path)
    end_another_agreement(bank, shop, tmp_path)
    withdraw(bank, shop, made_up.run(bank, "job-intersect.yaml"))
    rewrite_history(bank, shop)
    live_a_life(shop)
    seen = set()
    for node in (*nodes, staffed(tmp_path)):
        with node.reading() as conn:
            for entry in node.log.entries(conn):
                members = parse(entry.leaf).keys() - {"type", "time", "nonce"}
                needed, perhaps = described[entry.type]
                assert needed <= members, entry.type
                assert members <= needed | perhaps | {"by", "once", "signature", "proposal"}, (
                    entry.type
                )
                seen.add(entry.type)
    assert seen == described.keys()


def run_with_noise(bank: Node, shop: Node, tmp_path: Path) -> None:
    """Under the complete agreement as it says that noise is asked for."""
    noised = text("agreement.yaml").replace("version: 1", "version: 2")
    noised = noised.replace("release: exact   ", "release: noised   ", 1)
    before, clause = noised.split("# noise:", 1)
    clause, after = clause.split("period:", 1)
    path = tmp_path / "noised.yaml"
    path.write_text(f"{before}noise:{clause.replace(chr(10) + '#', chr(10))}period:{after}")
    agreements.propose(bank, path)
    agreements.sign(shop, "credit-offers", 2)
    made_up.run(bank, "job.yaml")


def withdraw(bank: Node, shop: Node, report: dict[str, Any]) -> None:
    """Somebody who is in a result of the bank's."""
    phone = Path(report["result_file"]).read_text().split()[1]
    consents.withdraw(shop, consents.subject_of(shop, "phone", phone), {})
    deadline = time.monotonic() + 60
    while any(one["state"] != "acknowledged" for one in withdrawals.every(shop)):
        assert time.monotonic() < deadline, "it is not acknowledged"
        time.sleep(0.1)


def rewrite_history(bank: Node, shop: Node) -> None:
    """The shop asks to have another tree cosigned than it showed before."""
    assert witnessing.ask(shop, shop.peer("bank"))
    with shop.reading() as conn:
        head = shop.log.head(conn)
    assert head is not None
    other = Checkpoint(head.origin, head.size, bytes(32))
    signed = other.signed(sign(other.text, head.origin, shop.log.key))
    answer = witnessing.answer(bank, bank.peer("shop"), Request(head.size, (), signed).encode())
    assert answer.status == 409


def end_another_agreement(bank: Node, shop: Node, folder: Path) -> None:
    """One that is suspended, resumed and terminated."""
    path = folder / "agreement.yaml"
    path.write_text(text("agreement.yaml").replace("credit-offers", "another"))
    agreements.propose(bank, path)
    agreements.sign(shop, "another")
    for step in (SUSPENDED, RESUMED, TERMINATED):
        agreements.declare(bank, "another", step, "an example")


def staffed(folder: Path) -> Node:
    """A node whose users have done what users do."""
    node = Node.create(Home(folder / "staffed"), "staffed", "other", None)

    def as_user(name: str) -> Node:
        node.actor = users.actor(node.home, name, None, None)
        return node

    users.add(node, "li", "officer")
    users.add(as_user("li"), "wang", "engineer")
    users.ask_job(as_user("wang"), text("job.yaml"))
    users.read(node, "audit.log")
    users.set_role(as_user("li"), "wang", "officer")
    removal, change = users.remove(node, "wang"), users.set_role(node, "wang", "engineer")
    assert removal is not None
    assert change is not None
    users.refuse(as_user("wang"), removal.id, "an example")
    users.approve(node, change.id)
    users.remove(as_user("li"), "wang")
    key = VerifierKey("regulator.example/witness", bytes.fromhex("01" + 31 * "00"), COSIGNATURE)
    third = ThirdWitness(name="regulator", url="http://127.0.0.1:1", key=str(key))
    assert not witnessing.ask_third(node, third)
    return node

    people.add(node, "li", "officer")
    people.add(as_user("li"), "wang", "engineer")
    people.set_role(as_user("li"), "wang", "officer")
    for change in (people.set_role(node, "wang", "engineer"), people.remove(node, "wang")):
        people.approve(as_user("wang"), change.id) if change.act == "user.changed" else (
            people.refuse(as_user("li"), change.id, "an example")
        )
        as_user("li")
    return node


def test_the_logs_of_the_run_verify(nodes: tuple[Node, Node]) -> None:
    for node in nodes:
        verdict, _ = audits.verify(node)
        assert verdict.ok, verdict


# log-entry.json, receipts


@pytest.mark.parametrize("name", ["receipt.md", "log-entry.md"])
def test_what_a_page_says_commands_print_is_what_they_print(name: str) -> None:
    assert console.played(text(name), REFERENCE) == text(name)


def test_the_entry_is_canonical_and_speaks_of_the_receipt() -> None:
    leaf = (REFERENCE / "log-entry.json").read_bytes()
    entry = parse(leaf)
    assert f"{leaf_hash(leaf).hex()}  -" in text("log-entry.md")
    envelope = (REFERENCE / "receipt-completion.json").read_bytes()
    assert entry["type"] == "run.completion"
    assert entry["receipt"] == hashlib.sha256(envelope).hexdigest()
    assert entry["run"] == statement("completion")["predicate"]["run"]


def envelope(kind: str) -> Envelope:
    return Envelope.from_json((REFERENCE / f"receipt-{kind}.json").read_bytes())


def statement(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = parse(envelope(kind).payload)
    return found


def test_the_receipts_are_signed_by_both() -> None:
    intent = envelope("intent")
    predicate = statement("intent")["predicate"]
    keys = {
        predicate[side]["party"]: bytes.fromhex(predicate[side]["key"])
        for side in ("bank", "partner")
    }
    assert keys.keys() == {"bank", "shop"}
    receipt.check(intent, intent, keys)
    receipt.check(envelope("completion"), intent, keys)


def test_the_intent_is_of_the_reference_agreement_and_job() -> None:
    found = statement("intent")["predicate"]

    def section(side: dict[str, Any]) -> receipt.Section:
        return receipt.Section(
            party=side["party"],
            key=bytes.fromhex(side["key"]),
            root=bytes.fromhex(side["inputs"]["root"]),
            size=side["inputs"]["size"],
            log_origin=side["log"]["origin"],
            log_size=side["log"]["size"],
            log_root=bytes.fromhex(side["log"]["root"]),
        )

    made = receipt.intent(
        found["run"],
        Agreement.from_yaml(text("agreement.yaml")),
        Job.from_yaml(text("job.yaml")),
        suite=found["suite"],
        bank=section(found["bank"]),
        partner=section(found["partner"]),
        started=datetime.fromisoformat(found["started"]),
        segmentation=found["segmentation"],
    )
    assert envelope("intent").payload == made, "run tests/docs/write_reference.py"


def test_the_completion_commits_to_the_result_shown() -> None:
    found = statement("completion")["predicate"]
    salt = bytes.fromhex(text("insight.salt"))
    result = (REFERENCE / "insight.csv").read_bytes()
    assert found["commitment"] == hashlib.sha256(salt + result).hexdigest()
    assert found["intent"] == hashlib.sha256(envelope("intent").payload).hexdigest()
    assert f"{found['commitment']}  -" in text("receipt.md")
    assert f"{found['intent']}  -" in text("receipt.md")


@pytest.mark.parametrize("kind", ["intent", "completion"])
def test_every_field_of_a_receipt_is_described(kind: str) -> None:
    _, _, section = text("receipt.md").partition(f"## {kind.title()}\n")
    described = set(re.findall(r"` ?\.?(\w+)`", section.partition("```console")[0]))
    predicate = statement(kind)["predicate"]
    assert predicate.keys() <= described
    assert predicate.get("bank", {}).keys() <= described


# consents.csv


def test_the_consents_are_imported_with_the_counts_the_page_says(tmp_path: Path) -> None:
    node = Node.create(Home(tmp_path / "bank"), "bank", "bank", None)
    page = text("consents.md")
    row = r"^\| (read|new|withdrawn|known|rejected: .+?) \| (\d+) \|$"
    rows = re.findall(row, page, re.MULTILINE)
    said: dict[str, Any] = {"rejected": {}}
    for name, count in rows:
        kind, _, reason = name.partition(": ")
        if reason:
            said[kind][reason] = int(count)
        else:
            said[kind] = int(count)
    first = consents.import_file(node, REFERENCE / "consents.csv")
    assert {name: first[name] for name in said} == said
    again = consents.import_file(node, REFERENCE / "consents.csv")
    assert "has 5 known rows and no new ones" in page
    assert (again["known"], again["new"], again["withdrawn"]) == (5, 0, 0)


def test_every_column_of_the_consents_is_described() -> None:
    described = set(
        re.findall(
            r"`(\w+)`", "".join(re.findall(r"^\| (.+?) \|", text("consents.md"), re.MULTILINE))
        )
    )
    (header, *_) = text("consents.csv").splitlines()
    assert described == {*header.split(","), *get_args(Kind), "notice"}


# notice.yaml


def test_the_notice_gives_a_record_with_every_field(tmp_path: Path) -> None:
    node = Node.create(Home(tmp_path / "bank"), "bank", "bank", None)
    consents.add_notice(node, REFERENCE / "notice.yaml")
    person = consents.subject_of(node, "phone", "13900000001")
    said = {
        "purpose": "credit-offer",
        "recipient": "shop",
        "categories": "customer-profile",
        "kind": "separate",
        "expires_at": "2035-01-01T00:00:00Z",
        "notice": "privacy-2026-01",
    }
    consents.grant(node, person, said)
    (found,) = consents.show(node, person, {})["consents"]
    assert found["missing"] == []
    (row,) = re.findall(r"^\| pii_processing \| .*$", text("consents.md"), re.MULTILINE)
    (purpose,) = found["record"]["pii_processing"]["purposes"]
    (category,) = purpose["pii_information"]
    for name in (*purpose, *category):
        if name not in {"purpose_description", "agreements", "pii_category"}:
            assert name in row


def test_the_notice_shows_every_setting() -> None:
    models = (notice.Notice, notice.Party, notice.Category, notice.Purpose)
    for name in {name for model in models for name in model.model_fields}:
        assert re.search(rf"\b{name}\b", text("notice.yaml")), name


# features.md


def test_the_page_on_features_is_current() -> None:
    assert text("features.md") == feature_reference.page(), "run tests/docs/write_reference.py"


def test_a_feature_is_proposed_as_the_page_says() -> None:
    page = text("features.md")
    (command,) = re.findall(r"^\$ concordat (features propose .*)$", page, re.MULTILINE)
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == 0
    assert f"{command}\n{done.output}```" in page


# cli.md


def test_the_page_on_commands_is_current() -> None:
    assert text("cli.md") == cli_reference.page(), "run tests/docs/write_reference.py"


@pytest.mark.parametrize("verb", list(cli_reference.verbs()), ids=lambda verb: verb.words)
def test_help_says_what_the_page_says(verb: Verb) -> None:
    done = CliRunner().invoke(app, [*verb.words.split()[1:], "--help"], env={"COLUMNS": "300"})
    assert done.exit_code == 0
    said = words(done.output)
    assert words(verb.text) in said
    assert verb.text
    for name, meaning in verb.parameters:
        assert meaning, f"{verb.words} {name} lacks a help"
        assert words(meaning) in said
        for option in re.findall(r"--?[a-z-]+", name.partition(" ")[0]):
            assert option in done.output


def words(output: str) -> str:
    """Letters and digits only: how a help text is laid out depends on typer's version."""
    return re.sub(r"\W+", "", output)
