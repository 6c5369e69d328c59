"""Two nodes as processes, their evidence carried away, and an outsider who has nothing else."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from ready import AGREEMENT, consent_table, customers, phones, shoppers
from typer.testing import CliRunner

from parties.cli import app

TABLES = {"bank": ("customers", customers()), "shop": ("shoppers", shoppers())}
CONSENTS = {
    "bank": consent_table(phones(5, 120), "shop", "profile"),
    "shop": consent_table(phones(65, 180), "bank", "purchases"),
}


def concordat(*words: object) -> str:
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == 0, done.output
    return done.output


@contextmanager
def serving(home: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "parties", "serve", str(home)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as node:
        try:
            concordat("node", "status", home, "--wait", 60)
            yield
        finally:
            node.terminate()


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything exported; nothing else of the nodes is left."""
    folder, out = tmp_path_factory.mktemp("nodes"), tmp_path_factory.mktemp("carried")
    homes = {name: folder / name for name in TABLES}
    with ExitStack() as stack:
        for name, (dataset, table) in TABLES.items():
            home = homes[name]
            sector = "bank" if name == "bank" else "ecommerce"
            concordat("init", home, "--name", name, "--sector", sector)
            table.to_csv(home / f"{dataset}.csv", index=False)
            with (home / "config.yaml").open("a", encoding="utf-8") as config:
                config.write(
                    f"datasets:\n  {dataset}:\n    path: {dataset}.csv\n"
                    "    identifier: {column: phone, kind: phone, region: CN}\n"
                )
            stack.enter_context(serving(home))
            CONSENTS[name].to_csv(folder / f"{name}.csv", index=False)
            concordat("consent", "import", home, folder / f"{name}.csv")
        bank, shop = homes["bank"], homes["shop"]
        concordat("pair", "invite", bank, "-o", folder / "invitation")
        mark = concordat("node", "fingerprint", bank).strip()
        concordat("pair", "accept", shop, folder / "invitation", "--fingerprint", mark)
        (folder / "agreement.yaml").write_text(AGREEMENT.format(version=1, partner_learns="size"))
        concordat("agreement", "propose", bank, folder / "agreement.yaml")
        concordat("agreement", "sign", shop, "offers")
        for kind in ("overlap", "intersect"):
            job = f"job: {kind}\nagreement: offers\npurpose: credit-offer\n"
            (folder / "job.yaml").write_text(job)
            concordat("job", "run", bank, folder / "job.yaml")
        (run, _) = json.loads(concordat("job", "list", bank, "--json"))
        for name, home in homes.items():
            concordat("audit", "verify", home)  # the other side cosigns
            concordat("audit", "export", home, "-o", out / name)
            concordat("audit", "export", home, "-o", out / f"{name}-run", "--run", run["id"][:8])
            for kind in ("gdpr-30", "pipl-23"):
                concordat(
                    "audit", "register", home, "--kind", kind, "-o", out / f"{name}-{kind}.csv"
                )
        concordat("audit", "person", bank, "--phone", "13900000070", "-o", out / "present")
        said = concordat(
            *("consent", "grant", bank, "--phone", "13900000001", "--purpose", "credit-offer"),
            *("--recipient", "shop", "--categories", "profile", "--kind", "written"),
            *("--expires-at", "2034-01-01T00:00:00Z"),
        )
        assert "ConsentGiven" in said
        absent = ("--phone", "13900000001", "--run", run["id"], "-o", out / "absent")
        assert "was NOT among the 115 put in" in concordat("audit", "person", bank, *absent)
    shutil.rmtree(folder)
    return out


def verify(carried: Path, tmp_path: Path, *folders: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", carried / folders[0] / "verify.py", *(carried / f for f in folders)],
        cwd=tmp_path,
        env={},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(
    "folders", [("bank", "shop"), ("shop-run", "bank"), ("present",), ("absent",)], ids="+".join
)
def test_the_evidence_holds(carried: Path, tmp_path: Path, folders: tuple[str, ...]) -> None:
    done = verify(carried, tmp_path, *folders)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "Everything that was checked holds." in done.stdout
    assert "has cosigned the first" in done.stdout


def test_the_keys_of_one_are_a_check_of_the_other(carried: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-I", carried / "bank" / "verify.py", carried / "shop", "--trust"]
    for trusted in ("bank", "shop"):
        done = subprocess.run(
            [*command, carried / trusted / "keys.json"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


def test_what_one_of_them_changed_is_found(carried: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(carried / "bank", changed)
    path = changed / "receipts.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"keyid":"', b'"keyid":"0', 1))
    done = verify(carried, tmp_path, "shop", str(changed))
    assert (done.returncode, done.stderr) == (1, "")
    assert "WRONG  receipts.jsonl is not the file that the manifest names." in done.stdout
    assert "WRONG  receipts.jsonl, line 1, lacks the signature of" in done.stdout


def test_no_identifier_is_carried_away(carried: Path) -> None:
    """Not even in a person's evidence, which says who it is about to nobody who does not know."""
    for path in carried.rglob("*"):
        if path.is_file():
            assert b"139000" not in path.read_bytes(), path


def test_the_registers_speak_of_the_runs(carried: Path) -> None:
    for name in ("bank", "shop"):
        for kind in ("gdpr-30", "pipl-23"):
            text = (carried / f"{name}-{kind}.csv").read_text("utf-8")
            assert text == (carried / name / "registers" / f"{kind}.csv").read_text("utf-8")
            assert "offers, version 1" in text
