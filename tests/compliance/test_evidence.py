"""Evidence as an outsider verifies it: what holds, and what is found when something was changed."""

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from institutions import CONSENT, NOW, Institution, Run, person, sign_agreement
from sqlalchemy import insert

from compliance import erasure, evidence, lifecycle, notice, offline, people, timeline, witness
from compliance.canonical import canonical, parse, timestamp, to_base64
from compliance.erasure import Files
from compliance.errors import EvidenceUnwritable, NotInLog, PersonUnknown
from compliance.evidence import Scope, Source
from compliance.note import COSIGNATURE, VerifierKey, cosign
from compliance.notice import Notice
from compliance.people import Actor
from compliance.person import Changes
from compliance.proof import Proof
from compliance.signing import Envelope, SigningKey
from compliance.store import read, write
from compliance.witness import Witness

NOTICE = (Path(__file__).parents[2] / "docs/reference/notice.yaml").read_text("utf-8")
PEOPLE = [person(number) for number in range(6)]
BUSY, ABSENT, GONE = PEOPLE[4], person(8), person(9)


class Story:
    """A bank's store after imports, single changes, an agreement, two runs, one unfinished."""

    def __init__(self, folder: Path) -> None:
        self.bank, partner = (Institution.create(folder, name) for name in ("bank", "partner"))
        bank, self.folder, self.partner = self.bank, folder, partner
        sign_agreement(bank, partner)
        bank.take(*({"subject": subject} for subject in PEOPLE))
        bank.take({"subject": PEOPLE[5], "withdrawn_at": "2026-10-15T12:00:00+08:00"})
        self.run = Run(bank, partner, bank.decide(*PEOPLE))
        self.run.begin()
        self.run.release()
        self.run.complete()
        self.unfinished = Run(bank, partner, bank.decide(*PEOPLE[:3]))
        self.unfinished.begin()
        with write(bank.engine) as conn:
            body = {"run": self.unfinished.run, "state": "failed", "error": "E208"}
            bank.log.append(conn, "run.ended", body, time=NOW)
        self.files = Files(folder / "lookup", folder / "wrapping", folder / "erased")
        keys = ((self.files.lookup, bank.vault.lookup), (self.files.wrapping, bank.vault.wrapping))
        for path, key in keys:
            path.write_bytes(key)
            path.chmod(0o600)
        with write(bank.engine) as conn:
            notice.add(conn, bank.log, Notice.from_yaml(NOTICE), time=NOW)
            changes = Changes(conn, bank.log, bank.vault, NOW)
            changes.refuse(BUSY, {**CONSENT, "at": "2026-11-01T00:00:00Z", "reason": "by-letter"})
            again = {**CONSENT, "granted_at": "2026-11-03T00:00:00Z", "notice": "privacy-2026-01"}
            changes.grant(BUSY, again)
            changes.restrict(BUSY, {"until": "2027-01-01T00:00:00Z", "reason": "tax-law"})
            changes.grant(ABSENT, {**CONSENT, "granted_at": "2026-11-03T00:00:00Z"})
            changes.grant(GONE, CONSENT)
            erasure.erase(conn, bank.log, self.files, GONE, now=NOW)
            said = {"agreement": "credit-2026", "number": 1, "party": "partner", "reason": "why"}
            said |= {"step": "suspended", "time": "2026-11-23T12:00:00Z"}
            step = Envelope(lifecycle.PAYLOAD_TYPE, canonical(said)).sign(partner.key)
            ours = bank.register(partner)
            lifecycle.receive(conn, ours, step, bank.key, sender="partner", time=NOW)
        bank.vault = self.files.keys()
        self.witness = SigningKey.generate()
        self.witness_key = VerifierKey("partner/witness", self.witness.public, COSIGNATURE)
        with write(bank.engine) as conn:
            head = bank.log.checkpoint(conn)
            line = cosign(head.text, self.witness_key.name, self.witness, NOW)
            bank.log.add_cosignature(conn, head.size, line)
            bank.log.append(conn, "vault.rewrapped", {}, time=NOW)
            bank.log.checkpoint(conn)
        with write(partner.engine) as conn:
            partner.log.checkpoint(conn)
            request = witness.request(conn, partner.log, 0)
        with write(bank.engine) as conn:
            self.own_witness = SigningKey.generate()
            ours = Witness("bank/witness", self.own_witness, [partner.log.verifier])
            assert ours.add_checkpoint(conn, request.encode(), NOW).status == 200

    def source(self, conn) -> Source:
        bank, partner = self.bank, self.partner
        own = VerifierKey("bank/witness", self.own_witness.public, COSIGNATURE)
        return Source(
            conn,
            bank.log,
            "bank",
            bank.key,
            {side.name: [side.key.public] for side in (bank, partner)},
            {side.name: [side.log.verifier] for side in (bank, partner)},
            {"bank": [own], "partner": [self.witness_key]},
        )

    def export(self, path: Path, scope: Scope | None = None) -> Path:
        with read(self.bank.engine) as conn:
            evidence.export(self.source(conn), path, scope or Scope(), time=NOW)
        return path

    def person(self, path: Path, subject: str, run: str | None = None) -> Path:
        with read(self.bank.engine) as conn, evidence.folder(path) as made:
            log, keys = self.bank.log, self.bank.vault
            told = timeline.of_person(conn, log, keys, subject, now=NOW, run=run)
            timeline.write(self.source(conn), made, told)
            made.close(self.source(conn), {"person": "one"}, NOW)
        return path

    def seal(self, folder: Path) -> Path:
        """The manifest anew, as the institution itself could make it after a change."""
        envelope = Envelope.from_json((folder / "manifest.json").read_bytes())
        said = parse(envelope.payload)
        files = [path for path in folder.rglob("*") if path.is_file()]
        names = {path.relative_to(folder).as_posix(): path for path in files}
        said["files"] = {
            name: hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in names.items()
            if name not in {"manifest.json", "verify.py"}
        }
        signed = Envelope(offline.EVIDENCE, canonical(said)).sign(self.bank.key)
        (folder / "manifest.json").write_bytes(signed.to_json())
        return folder


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return Story(tmp_path_factory.mktemp("story"))


def fails(*folders: Path, trusted=None) -> list[str]:
    return [line for one in offline.verify([*folders], trusted) for line in one.fails]


def holds(folder: Path) -> str:
    (one,) = offline.verify([folder], None)
    assert one.fails == []
    return "\n".join([*one.holds, *one.open])


# What is exported holds


def test_it_verifies_with_the_standard_library_alone(story: Story, tmp_path: Path) -> None:
    """As a process of its own, in another folder; the oldest Python it is for, if it is here."""
    story.export(tmp_path / "all")
    story.person(tmp_path / "busy", BUSY)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "json.py").write_text("raise ImportError")  # -I does not see it
    oldest = os.environ.get("PYTHON39", "python3.9")
    pythons = [sys.executable, *([oldest] if _works(oldest) else [])]
    for python in pythons:
        for name in ("all", "busy"):
            folder = tmp_path / name
            command = [python, "-I", folder / "verify.py"]
            done = subprocess.run(
                command, cwd=tmp_path / "empty", capture_output=True, text=True, check=False
            )
            assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
            assert "Everything that was checked holds." in done.stdout
            assert "What this cannot show" in done.stdout
        trust = [*command, "--trust", tmp_path / "busy" / "keys.json"]
        assert subprocess.run(trust, capture_output=True, check=False).returncode == 0
    edit(tmp_path / "all", "log.jsonl", lambda data: data[1:])
    done = subprocess.run(
        [sys.executable, "-I", tmp_path / "all" / "verify.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "WRONG  log.jsonl is not the file that the manifest names." in done.stdout


def _works(python: str) -> bool:
    try:
        return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def test_only_the_standard_library_is_imported() -> None:
    tree = ast.parse(Path(offline.__file__).read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = (
                [node.module]
                if isinstance(node, ast.ImportFrom)
                else [name.name for name in node.names]
            )
            assert {str(name).split(".")[0] for name in names} <= sys.stdlib_module_names


def test_the_whole_log_holds(story: Story, tmp_path: Path) -> None:
    said = holds(story.export(tmp_path / "all"))
    with read(story.bank.engine) as conn:
        size = story.bank.log.head(conn).size
    assert f"has {size} entries; {size} of them are shown" in said
    assert f"partner/witness has cosigned the first {size - 1} entries" in said
    assert "agreement credit-2026, version 1" in said
    assert "under an agreement valid then: 2;" in said
    assert "released by the gate: 1." in said
    assert f"Run {story.unfinished.run} was started and is not complete." in said


def test_one_run_holds_and_shows_no_other(story: Story, tmp_path: Path) -> None:
    folder = story.export(tmp_path / "run", Scope(run=story.run.run))
    assert "under an agreement valid then: 1;" in holds(folder)
    text = b"".join(path.read_bytes() for path in folder.rglob("*.jsonl")).decode()
    assert story.run.run in text
    assert story.unfinished.run not in text
    assert "consent.import" not in text
    stranger = SigningKey.generate()
    with read(story.bank.engine) as conn:
        source = story.source(conn)
        signing = {**source.signing, "stranger": [stranger.public]}
        logs = {**source.logs, "stranger": [VerifierKey("stranger/log", b"\2" * 32)]}
        source = replace(source, signing=signing, logs=logs)
        evidence.export(source, tmp_path / "part", Scope(run=story.run.run), time=NOW)
        evidence.export(source, tmp_path / "all", Scope(), time=NOW)
    assert b"stranger" not in (tmp_path / "part" / "keys.json").read_bytes()
    assert b"stranger" in (tmp_path / "all" / "keys.json").read_bytes()
    assert fails(tmp_path / "part") == []


@pytest.mark.parametrize(("since", "until"), [(0, None), (None, 1), (-1, 1)])
def test_a_time_holds(story: Story, tmp_path: Path, since: int | None, until: int | None) -> None:
    hours = {
        name: None if number is None else NOW + timedelta(hours=number)
        for name, number in (("since", since), ("until", until))
    }
    assert "under an agreement valid then: 2;" in holds(
        story.export(tmp_path / "time", Scope(**hours))
    )


def test_what_is_not_in_the_log_is_a_numbered_error(story: Story, tmp_path: Path) -> None:
    for scope in (Scope(run="ff" * 16), Scope(since=NOW + timedelta(days=1))):
        with pytest.raises(NotInLog):
            story.export(tmp_path / "none", scope)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(EvidenceUnwritable):
        story.export(tmp_path / "file" / "folder")
    story.export(tmp_path / "twice")
    with pytest.raises(EvidenceUnwritable):
        story.export(tmp_path / "twice")


def test_nothing_in_it_points_to_a_person(story: Story, tmp_path: Path) -> None:
    folder = story.export(tmp_path / "all")
    with read(story.bank.engine) as conn:
        rows = conn.exec_driver_sql("SELECT subject, secret FROM subjects").all()
        salts = conn.exec_driver_sql("SELECT salt, leaves FROM run_inputs").all()
    secrets = story.bank.vault.lookup, story.bank.vault.wrapping
    closed = {value for row in rows for value in row} | {*secrets}
    closed |= {salt for salt, _ in salts}
    closed |= {leaves[at : at + 32] for _, leaves in salts for at in range(0, len(leaves), 32)}
    data = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    for value in closed:
        assert value not in data
        assert value.hex().encode() not in data
    for subject in (*PEOPLE, ABSENT, GONE):
        assert subject.removeprefix("phone:+86").encode() not in data


def test_trusted_keys_are_held_against_those_in_the_folder(story: Story, tmp_path: Path) -> None:
    folder = story.export(tmp_path / "all")
    keys = json.loads((folder / "keys.json").read_bytes())
    assert fails(folder, trusted=keys) == []
    stranger = SigningKey.generate().public.hex()
    for change in (
        {"signing": {**keys["keys"]["signing"], "partner": [stranger]}},
        {"witness": {}},
        {"log": keys["keys"]["witness"]},
        {"signing": []},
        {},
    ):
        trusted = {"keys": {**keys["keys"], **change}} if change else {}
        assert any(line.startswith("keys.json ") for line in fails(folder, trusted=trusted))


# What was changed is found


def mutated(random: Random, data: bytes) -> bytes:
    at = random.randrange(len(data) + 1)
    match random.randrange(3):
        case 0 if data:
            at = min(at, len(data) - 1)
            return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]
        case 1 if data:
            return data[: min(at, len(data) - 1)] + data[min(at, len(data) - 1) + 1 :]
        case _:
            return data[:at] + random.randbytes(1) + data[at:]


def test_a_change_of_any_file_is_found_and_named(story: Story, tmp_path: Path) -> None:
    random = Random(5)
    for made in (
        story.export(tmp_path / "all"),
        story.export(tmp_path / "run", Scope(run=story.run.run)),
        story.person(tmp_path / "busy", BUSY),
        story.person(tmp_path / "absent", ABSENT, story.run.run),
    ):
        names = sorted(
            path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()
        )
        assert "keys.json" in names
        for name in names:
            if name == "verify.py":  # whoever verifies has it from elsewhere
                continue
            data = (made / name).read_bytes()
            for _ in range(1 if name.startswith("entries/") else 3):
                (made / name).write_bytes(mutated(random, data))
                found = fails(made)
                assert any(line.startswith(name) for line in found), (name, found)
            if not name.startswith("entries/"):
                (made / name).unlink()
                assert any(line.startswith(name) for line in fails(made)), name
            (made / name).write_bytes(data)
        assert fails(made) == []
        (made / "more.json").write_bytes(b"{}")
        assert fails(made) == ["more.json is in the folder, and the manifest does not name it."]


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def edit(folder: Path, name: str, change) -> None:
    path = folder / name
    path.write_bytes(change(path.read_bytes()))


def resign(story: Story, data: bytes, change, *keys: SigningKey) -> bytes:
    """The first envelope of a file with another payload, signed again."""
    first, _, rest = data.partition(b"\n")
    envelope = Envelope.from_json(first)
    said = parse(envelope.payload)
    change(said)
    made = Envelope(envelope.payload_type, canonical(said))
    for key in keys or (story.bank.key, story.partner.key):
        made = made.sign(key)
    return made.to_json() + b"\n" + rest


def without_signature(data: bytes, keyid: str) -> bytes:
    first, _, rest = data.partition(b"\n")
    envelope = Envelope.from_json(first)
    kept = {name: one for name, one in envelope.signatures.items() if name != keyid}
    return replace(envelope, signatures=kept).to_json() + b"\n" + rest


CHANGES = {
    "an entry changed": (
        lambda s, f: edit(f, "log.jsonl", lambda d: d.replace(b'"new":6', b'"new":7')),
        "log.jsonl does not make the root",
    ),
    "an entry left out": (
        lambda s, f: edit(f, "log.jsonl", lambda d: d.partition(b"\n")[2]),
        "log.jsonl does not make the root",
    ),
    "an entry hidden": (
        lambda s, f: edit(
            f,
            "log.jsonl",
            lambda d: (
                b'[0,"%s"]\n' % hashlib.sha256(b"\0" + d.partition(b"\n")[0]).hexdigest().encode()
                + d.partition(b"\n")[2]
            ),
        ),
        "log.jsonl hides entries",
    ),
    "entries in another order": (
        lambda s, f: edit(
            f, "log.jsonl", lambda d: b"".join(reversed(d.splitlines(keepends=True)))
        ),
        "log.jsonl does not make the root",
    ),
    "the end cut off": (
        lambda s, f: edit(f, "log.jsonl", lambda d: b"".join(d.splitlines(keepends=True)[:-1])),
        "log.jsonl does not make the root",
    ),
    "no head": (
        lambda s, f: shutil.rmtree(f / "checkpoints"),
        "log.jsonl does not make the root",
    ),
    "a receipt gone": (
        lambda s, f: edit(f, "receipts.jsonl", lambda d: d.partition(b"\n")[2]),
        "speaks of the intent of run {run}, which is not here",
    ),
    "a completion gone": (
        lambda s, f: edit(
            f, "receipts.jsonl", lambda d: b"".join(d.splitlines(keepends=True)[::2])
        ),
        "speaks of the completion of run {run}, which is not here",
    ),
    "a receipt that both have signed again": (
        lambda s, f: edit(
            f,
            "receipts.jsonl",
            lambda d: resign(s, d, lambda said: said["predicate"].update(suite="other")),
        ),
        "speaks of another intent of run {run}",
    ),
    "a receipt outside its agreement's time": (
        lambda s, f: edit(
            f,
            "receipts.jsonl",
            lambda d: resign(
                s, d, lambda said: said["predicate"].update(started="2029-01-01T00:00:00Z")
            ),
        ),
        "receipts.jsonl, line 1, is outside the time of its agreement",
    ),
    "a receipt for another purpose": (
        lambda s, f: edit(
            f,
            "receipts.jsonl",
            lambda d: resign(s, d, lambda said: said["predicate"].update(purpose="advertising")),
        ),
        "receipts.jsonl, line 1, is for what its agreement does not allow",
    ),
    "a receipt the partner has not signed": (
        lambda s, f: edit(f, "receipts.jsonl", lambda d: without_signature(d, s.partner.key.keyid)),
        "receipts.jsonl, line 1, lacks the signature of partner",
    ),
    "an agreement changed": (
        lambda s, f: edit(
            f, "agreements.jsonl", lambda d: resign(s, d, lambda said: said.update(version=2))
        ),
        "receipts.jsonl, line 1, names an agreement that is not here",
    ),
    "an agreement the partner has not signed": (
        lambda s, f: edit(
            f, "agreements.jsonl", lambda d: without_signature(d, s.partner.key.keyid)
        ),
        "agreements.jsonl, line 1, lacks the signature of partner",
    ),
    "a suspension gone": (
        lambda s, f: edit(f, "steps.jsonl", lambda d: b""),
        "speaks of a notice that is not here",
    ),
    "a suspension by nobody": (
        lambda s, f: edit(f, "steps.jsonl", lambda d: resign(s, d, lambda said: None, s.bank.key)),
        "steps.jsonl, line 1, lacks the signature of partner",
    ),
    "another notice": (
        lambda s, f: edit(f, "notices.jsonl", lambda d: d.replace(b"privacy", b"secrecy")),
        "speaks of a notice that is not here",
    ),
    "another log's key": (
        lambda s, f: edit(
            f,
            "keys.json",
            lambda d: d.replace(
                str(s.bank.log.verifier).encode(),
                str(replace(s.bank.log.verifier, public=s.witness.public)).encode(),
            ),
        ),
        "checkpoints/",
    ),
    "a key that fits any message": (
        lambda s, f: edit(
            f,
            "keys.json",
            lambda d: d.replace(s.partner.key.public.hex().encode(), b"01" + b"00" * 31),
        ),
        "agreements.jsonl, line 1,",
    ),
    "one key for two": (
        lambda s, f: edit(
            f,
            "keys.json",
            lambda d: d.replace(
                s.partner.key.public.hex().encode(), s.bank.key.public.hex().encode()
            ),
        ),
        "keys.json gives two institutions one key",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_that_the_institution_signs_for_is_found(
    story: Story, tmp_path: Path, name: str
) -> None:
    """The manifest is made anew: what finds these is the log, the partner and the witnesses."""
    change, finding = CHANGES[name]
    folder = story.export(tmp_path / "all")
    change(story, folder)
    found = fails(story.seal(folder))
    finding = finding.format(run=story.run.run)
    assert any(finding in line for line in found), found


def test_a_checkpoint_of_another_history_is_found(story: Story, tmp_path: Path) -> None:
    """As the log's own key can sign it."""
    folder = story.export(tmp_path / "all")
    (path, *_) = sorted((folder / "checkpoints").iterdir())
    with read(story.bank.engine) as conn:
        head = story.bank.log.head(conn)
    size = int(path.stem)
    forged = replace(head, size=size, root=bytes(32), signatures=())
    line = witness_line(story, forged)
    path.write_bytes(forged.signed(line).encode())
    found = fails(story.seal(folder))
    assert any(f"the checkpoint {size} speaks of another log" in line for line in found) or any(
        "log.jsonl does not make the root" in line for line in found
    )


def witness_line(story: Story, checkpoint):
    from compliance.note import sign

    return sign(checkpoint.text, checkpoint.origin, story.bank.log.key)


def test_two_institutions_are_compared(story: Story, tmp_path: Path) -> None:
    """The partner's store here has no runs; of its log the bank has witnessed what is there.

    The runs' intents give its log of no entries the root 0.
    """
    ours = story.export(tmp_path / "ours")
    partner = story.partner
    theirs = tmp_path / "theirs"
    with read(partner.engine) as conn:
        source = story.source(conn)
        source = replace(source, conn=conn, log=partner.log, name="partner", key=partner.key)
        evidence.export(source, theirs, Scope(), time=NOW)
    found = fails(ours, theirs)
    missing = {
        f"partner shows no {kind} of run {run.run}; bank does."
        for run, kind in (
            (story.run, "intent"),
            (story.run, "completion"),
            (story.unfinished, "intent"),
        )
    }
    other = {
        f"At bank, the intent of run {run.run} speaks of another log of partner with 0 entries "
        "than partner shows."
        for run in (story.run, story.unfinished)
    }
    assert {*found} == missing | other
    assert "1 heads of its log" in offline.verify([ours, theirs], None)[0].holds[-1]


# One person


def test_whoever_is_a_stranger_to_the_log_cannot_be_shown_to_be_absent(
    story: Story, tmp_path: Path
) -> None:
    """A secret made up for it would be in no run."""
    folder = story.person(tmp_path / "absent", ABSENT, story.run.run)
    lie(folder, lambda told: told.update(timeline=[], secret=None))
    found = fails(story.seal(folder))
    assert found == ["person.json shows runs of somebody of whom the log says nothing."]


def test_the_timeline_of_a_person_holds(story: Story, tmp_path: Path) -> None:
    folder = story.person(tmp_path / "busy", BUSY)
    said = holds(folder)
    for words in (
        "state ConsentGiven",
        "reason by-letter, state ConsentRefused",
        "reason tax-law",
        f"run {story.run.run}: this person's data was put in",
    ):
        assert words in said
    assert story.unfinished.run not in said
    told = json.loads((folder / "person.json").read_bytes())
    assert [one["type"] for one in told["timeline"]] == [
        "consent.import",
        "consent.refused",
        "consent.given",
        "consent.restricted",
    ]
    assert "privacy-2026-01" in (folder / "notices.jsonl").read_text()


def test_every_proof_is_one_that_others_read(story: Story, tmp_path: Path) -> None:
    folder = story.person(tmp_path / "busy", BUSY)
    proofs = list(folder.rglob("*.tlog-proof"))
    assert len(proofs) > 5
    for path in proofs:
        proof = Proof.parse(path.read_bytes())
        leaf = path.with_suffix(".json").read_bytes()
        proof.verify(leaf, story.bank.log.verifier, story.witness_key)


def test_absence_from_a_run_holds(story: Story, tmp_path: Path) -> None:
    folder = story.person(tmp_path / "absent", ABSENT, story.run.run)
    assert f"run {story.run.run}: this person's data was not put in" in holds(folder)
    (item,) = json.loads((folder / "person.json").read_bytes())["runs"]
    assert not item["present"]
    assert 1 <= len(item["neighbours"]) <= 2


def test_of_an_erased_person_only_the_tombstone_is_left(story: Story, tmp_path: Path) -> None:
    folder = story.person(tmp_path / "gone", GONE)
    assert "the person was erased" in holds(folder)
    told = json.loads((folder / "person.json").read_bytes())
    assert (told["secret"], told["timeline"], told["runs"]) == (None, [], [])
    with pytest.raises(PersonUnknown):
        story.person(tmp_path / "nobody", person(77))
    with pytest.raises(NotInLog):
        story.person(tmp_path / "unrun", BUSY, "ff" * 16)


def lie(folder: Path, change) -> None:
    def told(data: bytes) -> bytes:
        said = json.loads(data)
        change(said)
        return canonical(said)

    edit(folder, "person.json", told)


LIES = {
    "another secret": (lambda t: t.update(secret="00" * 32), "person.json: entry"),
    "another record": (
        lambda t: t["timeline"][0].update(
            record=t["timeline"][0]["record"].replace("separate", "written")
        ),
        "commits to another record",
    ),
    "another leaf of the import": (
        lambda t: t["timeline"][0].update(position=t["timeline"][0]["position"] ^ 1),
        "does not lead to the root",
    ),
    "a proof too long": (
        lambda t: t["timeline"][0]["proof"].append(t["timeline"][0]["proof"][0]),
        "a proof is too long",
    ),
    "another place in the run": (
        lambda t: t["runs"][0].update(index=(t["runs"][0]["index"] + 1) % 5),
        "a proof ",
    ),
    "another salt": (lambda t: t["runs"][0].update(salt="00" * 32), "has another salt"),
    "nothing in the log": (
        lambda t: t.update(timeline=[]),
        "shows runs of somebody of whom the log says nothing",
    ),
    "absence": (lambda t: t["runs"][0].update(present=False, neighbours={}), "person.json: run"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_about_a_person_is_found(story: Story, tmp_path: Path, name: str) -> None:
    change, finding = LIES[name]
    folder = story.person(tmp_path / "busy", BUSY)
    lie(folder, change)
    found = fails(story.seal(folder))
    assert any(finding in line for line in found), found


def test_a_lie_about_absence_is_found(story: Story, tmp_path: Path) -> None:
    """Whoever was in the run cannot be shown to be absent by leaving out a leaf, or by disorder."""
    for number, change in enumerate(
        (
            lambda d: d[:32] + d[64:],
            lambda d: d[32:64] + d[:32] + d[64:],
            lambda d: d[:-1],
            lambda d: b"",
        )
    ):
        folder = story.person(tmp_path / str(number), ABSENT, story.run.run)
        edit(folder, f"inputs/{story.run.run}.leaves", change)
        found = fails(story.seal(folder))
        assert any(f"run {story.run.run} is not shown" in line for line in found), found


def test_a_tombstone_of_another_time_is_found(story: Story, tmp_path: Path) -> None:
    folder = story.person(tmp_path / "gone", GONE)
    lie(folder, lambda told: told["erased"][0].update(erased_at="2020-01-01T00:00:00Z"))
    assert any("is about another erasure" in line for line in fails(story.seal(folder)))


# What users have signed

USERS = {name: SigningKey.generate() for name in ("li", "he", "wang", "audra")}


class Staff:
    """A bank's users and what they did, an hour each: he is removed, and comes back by wang."""

    def __init__(self, folder: Path) -> None:
        self.bank = Institution.create(folder, "staffed")
        self.hours = 0
        self.enter("root", "user.added", user="li", role="officer", key=USERS["li"].public.hex())
        for name, role in {"he": "officer", "wang": "engineer", "audra": "auditor"}.items():
            key = USERS[name].public.hex()
            self.sign("li", "user.added", user=name, role=role, key=key)
        self.sign("he", "user.changed", user="audra", role="engineer")
        self.sign("li", "user.removed", user="he")
        self.sign("audra", "consent.import", new=1)

    def enter(self, by: str, type_: str, **body: object) -> int:
        """As the institution writes it, whoever it says that it was."""
        self.hours += 1
        with write(self.bank.engine) as conn:
            said = {**body, "by": by}
            index = self.bank.log.append(conn, type_, said, time=self.now)
            self.bank.log.checkpoint(conn)
        return index

    @property
    def now(self) -> datetime:
        return NOW + timedelta(hours=self.hours)

    def sign(self, by: str, type_: str, other: SigningKey | None = None, **body: object) -> int:
        said = {
            **body,
            "by": by,
            "type": type_,
            "time": timestamp(NOW + timedelta(hours=self.hours + 1)),
        }
        message = people.signed_bytes(self.bank.log.origin, said)
        signature = to_base64((other or USERS[by]).sign(message))
        return self.enter(by, type_, **body, signature=signature)

    def export(self, path: Path, scope: Scope | None = None) -> Path:
        bank = self.bank
        keys = {"staffed": [bank.key.public]}, {"staffed": [bank.log.verifier]}, {}
        with read(bank.engine) as conn:
            source = Source(conn, bank.log, "staffed", bank.key, *keys)
            evidence.export(source, path, scope or Scope(), time=NOW)
        return path


def test_what_users_have_signed_holds(tmp_path: Path) -> None:
    staff = Staff(tmp_path)
    said = holds(staff.export(tmp_path / "all"))
    assert "Entries that users have signed as their acts: 6 (audra, he, li)." in said


def test_a_part_of_the_log_shows_the_users_who_signed_it_and_who_added_them(tmp_path: Path) -> None:
    staff = Staff(tmp_path)
    staff.sign("wang", "consent.import", new=2)
    last = NOW + timedelta(hours=7)
    folder = staff.export(tmp_path / "part", Scope(since=last, until=last + timedelta(hours=1)))
    said = holds(folder)
    assert "Entries that users have signed as their acts: 5 (audra, he, li)." in said
    shown = [json.loads(line) for line in (folder / "log.jsonl").read_bytes().splitlines()]
    told = [one.get("user") for one in shown if isinstance(one, dict)]
    assert told == ["li", "he", "audra", "audra", "he", None]  # of wang, nothing


@pytest.mark.parametrize(
    ("forge", "finding"),
    [
        (lambda s: s.sign("wang", "consent.import", USERS["li"]), "is not signed by wang"),
        (lambda s: s.sign("he", "consent.import"), "by anybody who is known as a user"),
        (lambda s: s.enter("li", "consent.import", signature=to_base64(bytes(64))), "by li"),
        (lambda s: s.enter("li", "consent.import", signature=5), "what is not Base64"),
        (lambda s: s.enter("li", "user.removed", user="wang"), "by anybody who is known as a user"),
        (lambda s: s.sign("wang", "user.removed", user="li"), "wang was no officer"),
    ],
)
def test_what_its_user_has_not_signed_is_found(tmp_path: Path, forge, finding: str) -> None:
    staff = Staff(tmp_path)
    index = forge(staff)
    staff.sign("li", "consent.import", new=3)
    (found,) = fails(staff.export(tmp_path / "all"))
    assert found.startswith(f"Entry {index} ")
    assert finding in found


def test_a_copy_of_what_a_user_has_signed_is_found(tmp_path: Path) -> None:
    staff = Staff(tmp_path)
    index = staff.sign("wang", "consent.import", new=3)
    with read(staff.bank.engine) as conn:
        (entry,) = staff.bank.log.entries(conn, index)
    said = parse(entry.leaf)
    with write(staff.bank.engine) as conn:
        body = {name: said[name] for name in said if name not in {"type", "time", "nonce"}}
        copy = staff.bank.log.append(conn, said["type"], body, time=staff.now)
        staff.bank.log.checkpoint(conn)
    found = fails(staff.export(tmp_path / "all"))
    assert found == [f"Entry {copy} bears the signature of wang under another entry."]


def test_a_person_is_shown_with_the_users_who_entered_what_is_shown(tmp_path: Path) -> None:
    staff = Staff(tmp_path)
    bank = staff.bank
    with write(bank.engine) as conn:
        li = {"name": "li", "role": "officer", "key": USERS["li"].public}
        conn.execute(insert(people.users).values(li))
        acting = people.acting(conn, bank.log, Actor("li", USERS["li"]))
        Changes(conn, acting, bank.vault, NOW).grant(BUSY, CONSENT)
        bank.log.checkpoint(conn)
    keys = {"staffed": [bank.key.public]}, {"staffed": [bank.log.verifier]}, {}
    with read(bank.engine) as conn, evidence.folder(tmp_path / "busy") as made:
        source = Source(conn, bank.log, "staffed", bank.key, *keys)
        told = timeline.of_person(conn, bank.log, bank.vault, BUSY, now=NOW, run=None)
        timeline.write(source, made, told)
        made.close(source, {"person": "one"}, NOW)
    assert "Entries that users have signed as their acts: 1 (li)." in holds(tmp_path / "busy")
