"""Two nodes that rotate every key between runs, and the evidence an outsider verifies."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ready import SHARED, agree, consent_table, import_consents, make_ready, phones, run, until
from typer.testing import CliRunner

from compliance import offline, receipt
from compliance.canonical import canonical, parse, to_base64
from compliance.signing import Envelope, SigningKey
from compliance.succession import KINDS, Succession
from parties import audits, courier, rotation, server
from parties.cli import app
from parties.config import Home
from parties.node import Node

FIRST, LAST = SHARED[7], SHARED[9]  # who withdraws before the rotations, and after


def concordat(*words: object) -> str:
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == 0, done.output
    return done.output


class Told(NamedTuple):
    bank: Node
    shop: Node
    runs: list[str]  # before the rotations, between them, and after

    def evidence(self, folder: Path, *scope: object) -> list[Path]:
        """Of both, the bank's first."""
        made = []
        for node in (self.bank, self.shop):
            made.append(folder / node.config.name)
            concordat("audit", "export", node.home.path, "-o", made[-1], *scope)
        return made


def withdraw(shop: Node, phone: str) -> None:
    """At the shop, whose rows the bank was shown; until the bank has proved that it deleted."""
    about = ("--phone", phone, "--purpose", "credit-offer", "--recipient", "bank")
    concordat("consent", "withdraw", shop.home.path, *about)

    def acknowledged() -> bool:
        listed = json.loads(concordat("consent", "withdrawals", shop.home.path, "--json"))
        return bool(listed) and all(one["state"] == "acknowledged" for one in listed)

    until(acknowledged, 20)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def told(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    paillier_key: bytes,
) -> Iterator[Told]:
    """Runs, rotations, an import and withdrawals, in turn."""
    new: Callable[[], str | None] = lambda: None  # noqa: E731
    if request.param == "postgresql":
        new = request.getfixturevalue("postgresql_server").new_store
    folder = tmp_path_factory.mktemp(request.param)
    bank = Node.create(Home(folder / "bank"), "bank", "bank", None, new())
    shop = Node.create(Home(folder / "shop"), "shop", "ecommerce", None, new())
    with pytest.MonkeyPatch.context() as swift, server.serving(bank), server.serving(shop):
        swift.setattr(courier, "LOOK_SECONDS", 0.05)
        make_ready(bank, shop, paillier_key)
        runs = [run(bank, "intersect")["run"]]
        withdraw(shop, FIRST)
        for kinds in (KINDS, KINDS[::-1]):
            for node in (bank, shop):
                for kind in kinds:
                    rotation.rotate(node, kind)
                assert rotation.announce_to_all(node) == []
            one = phones(len(runs), len(runs) + 1)
            import_consents(bank, consent_table(one, "shop", "profile"))
            agree(bank, shop, version=len(runs) + 1)
            runs.append(run(bank, "intersect")["run"])
            for node in (bank, shop):
                until(lambda node=node: audits.show_receipt(node, runs[-1])[0]["witnessed"])
        withdraw(shop, LAST)
        for node in (bank, shop):
            verdict, silent = audits.verify(node)
            assert (verdict.report.findings, silent) == ([], [])
        yield Told(bank, shop, runs)


def verified(*folders: Path, trust: Path | None = None) -> str:
    command = [sys.executable, "-I", folders[0] / "verify.py", *folders]
    command += [] if trust is None else ["--trust", trust]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


def test_what_any_key_signed_in_its_time_holds(told: Told, tmp_path: Path) -> None:
    folders = told.evidence(tmp_path)
    said = verified(*folders)
    assert "under an agreement valid then: 3;" in said
    for owner in ("bank", "shop"):
        for kind in KINDS:
            assert said.count(f"{owner}'s {kind} key") == 4  # two steps, in each log
    for folder in folders:
        assert said.count("has cosigned the first") >= 2
        assert verified(*folders, trust=folder / "keys.json").count("WRONG") == 0


def test_one_key_of_a_succession_is_trust_enough(told: Told, tmp_path: Path) -> None:
    folder, _ = told.evidence(tmp_path)
    known = json.loads((folder / "keys.json").read_bytes())["keys"]
    for place in (0, 1, 2):
        trusted = {
            kind: {owner: [line[place]] for owner, line in owners.items()}
            for kind, owners in known.items()
        }
        assert offline.verify([folder], {"keys": trusted})[0].fails == []
    trusted["signing"]["shop"] = [known["signing"]["shop"][0], SigningKey.generate().public.hex()]
    (one,) = offline.verify([folder], {"keys": trusted})
    assert "keys.json names other signing keys of shop than you trust." in one.fails


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_run_under_any_keys_holds_by_itself(told: Told, tmp_path: Path, at: int) -> None:
    folders = told.evidence(tmp_path, "--run", told.runs[at][:8])
    assert "under an agreement valid then: 1;" in verified(*folders)
    for node in (told.bank, told.shop):
        ours, theirs = (node, told.shop if node is told.bank else told.bank)
        with theirs.reading() as conn:
            shown = receipt.find(conn, told.runs[at], "completion")
        assert shown is not None
        (tmp_path / f"{ours.config.name}.json").write_bytes(shown.to_json())
        said = ("audit", "compare", ours.home.path, tmp_path / f"{ours.config.name}.json")
        assert "say the same, signed by both" in concordat(*said)
        assert "The completion is signed by" in concordat(
            "audit", "receipt", ours.home.path, told.runs[at]
        )


def test_a_time_holds_by_itself(told: Told, tmp_path: Path) -> None:
    with told.bank.reading() as conn:
        times = [entry.time for entry in told.bank.log.entries(conn)]
    for number, scope in enumerate((("--since", times[-1]), ("--until", times[len(times) // 2]))):
        verified(*told.evidence(tmp_path / str(number), *scope))


@pytest.mark.parametrize(("at", "phone"), [*enumerate([FIRST, LAST, str(phones(1, 2)[0])])])
def test_a_person_holds_across_the_rotations(
    told: Told, tmp_path: Path, at: int, phone: str
) -> None:
    node = told.bank if at == 2 else told.shop
    for number, one in enumerate(told.runs):
        folder = tmp_path / str(number)
        words = ("--phone", phone, "--run", one, "-o", folder)
        concordat("audit", "person", node.home.path, *words)
        said = verified(folder)
        assert f"run {one}: this person's data was" in said
        assert ("was told to delete" in said) == (at < 2)


def test_the_registers_are_written(told: Told, tmp_path: Path) -> None:
    for node in (told.bank, told.shop):
        for kind in ("gdpr-30", "pipl-23"):
            path = tmp_path / f"{node.config.name}-{kind}.csv"
            concordat("audit", "register", node.home.path, "--kind", kind, "-o", path)
            assert "offers, version 3" in path.read_text("utf-8")


# What does not follow is refused by name

Change = Callable[[Told, Path], None]


def edit_keys(change: Callable[[dict[str, dict[str, list[str]]]], Any]) -> Change:
    def edit(told: Told, folder: Path) -> None:
        said = json.loads((folder / "keys.json").read_bytes())
        change(said["keys"])
        (folder / "keys.json").write_bytes(canonical(said))

    return edit


def edit_entry(change: Callable[[dict[str, Any], Told], Any]) -> Change:
    """The entry that introduces the shop's second signing key, another."""

    def edit(told: Told, folder: Path) -> None:
        lines = (folder / "log.jsonl").read_bytes().splitlines()
        second = told_keys(folder)["signing"]["shop"][1]
        for at, line in enumerate(lines):
            body = parse(line)
            if (body["type"], body.get("new")) == ("peer.rotated", second):
                change(body, told)
                lines[at] = canonical(body)
        (folder / "log.jsonl").write_bytes(b"\n".join([*lines, b""]))

    return edit


def told_keys(folder: Path) -> Any:
    return json.loads((folder / "keys.json").read_bytes())["keys"]


def forge(body: dict[str, Any], told: Told) -> None:
    """Signed by a thief and the new key; not by the one before."""
    thief = SigningKey.generate()
    made = Succession.make("shop", "signing", thief, told.shop.signing_key, told.bank.now())
    said = parse(made.envelope.payload) | {"old": body["old"], "new": body["new"]}
    forged = Envelope(made.envelope.payload_type, canonical(said)).sign(thief)
    body["succession"] = to_base64(forged.to_json())


SWAPPED = "introduces a signing key of shop that keys.json does not name there"
CHANGES: dict[str, tuple[Change, str]] = {
    "a forged introduction": (edit_entry(forge), "lacks the signature of shop"),
    "an introduction of another key": (
        edit_entry(lambda body, _: body.update(new="00" * 32)),
        SWAPPED,
    ),
    "an introduction as one's own": (
        edit_entry(lambda body, _: body.update(type="key.rotated")),
        "introduces a key of another institution than it may",
    ),
    "no introduction": (
        edit_entry(lambda body, _: body.update(type="peer.other")),
        SWAPPED,
    ),
    "keys in another order": (
        edit_keys(lambda keys: keys["signing"]["shop"].reverse()),
        SWAPPED,
    ),
    "a key too many": (
        edit_keys(lambda keys: keys["signing"]["shop"].append("0" * 63 + "9")),
        "keys.json names a signing key of shop that no entry introduces after the one before it",
    ),
    "the last key kept back": (
        edit_keys(lambda keys: keys["signing"]["shop"].pop()),
        SWAPPED,
    ),
    "the first key kept back": (
        edit_keys(lambda keys: keys["log"]["bank"].pop(0)),
        "introduces a log key of bank that keys.json does not name there",
    ),
    "a log's last key only": (
        edit_keys(lambda keys: keys["log"].update(bank=keys["log"]["bank"][-1:])),
        "introduces a log key of bank that keys.json does not name there",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_key_that_is_not_introduced_is_refused(told: Told, tmp_path: Path, name: str) -> None:
    change, finding = CHANGES[name]
    folder, _ = told.evidence(tmp_path)
    change(told, folder)
    (one,) = offline.verify([folder], None)
    assert any(finding in line for line in one.fails), one.fails


def test_what_a_key_signs_after_its_time_is_refused(told: Told, tmp_path: Path) -> None:
    """The same evidence, had the first keys been followed at once, and the log's not at all."""
    folder, _ = told.evidence(tmp_path)
    one = offline.Evidence(folder)
    one.verify_documents(None)
    one.follow_log(one.claims)
    one.follow_keys()
    assert one.fails == []
    for (kind, _), ends in one.ends.items():
        ends[:] = [1 << 40, 1 << 41] if kind == "log" else [0, 1]
    one.check_heads()
    one.match()
    late = "signed with a key that did not count then."
    runs = [line for line in one.fails if line.startswith("Entry") and line.endswith(late)]
    assert len(runs) >= 4  # intents and completions of two runs
    late = "lacks the signature of the log key of bank of then."
    assert [line for line in one.fails if line.endswith(late)]
