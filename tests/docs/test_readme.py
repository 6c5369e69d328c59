"""What README and docs say is so: commands work, links lead somewhere, words are the program's."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cli_reference
import console
import made_up
import pytest
from made_up import REFERENCE, ROOT
from typer.testing import CliRunner

from compliance.agreement import Agreement, Job
from compliance.disclosure import disclosure
from parties import admin
from parties.cli import app
from parties.config import Home
from parties.node import Node

README = (ROOT / "README.md").read_text("utf-8")
TABLES = {"bank": "customers", "shop": "shoppers"}


# Commands


def test_the_commands_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the README's, in order, as one user would give them."""
    made_up.write(tmp_path)
    shutil.copy(REFERENCE / "job.yaml", tmp_path)
    agreement = (REFERENCE / "agreement.yaml").read_text("utf-8")
    assert "key_bits: 3072" in agreement  # a shorter key is found sooner
    (tmp_path / "agreement.yaml").write_text(agreement.replace("key_bits: 3072", "key_bits: 2048"))
    monkeypatch.chdir(tmp_path)
    played = []
    with ExitStack() as serving:
        for command in console.commands(README):
            program, *words = shlex.split(command, comments=True)
            match program, *words:
                case "make", target:
                    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
                case "concordat", "serve", home:
                    name_table(Path(home))
                    serving.enter_context(serve(Path(home)))
                case "concordat", *_:
                    fingerprint = known_fingerprint(words)
                    done = CliRunner().invoke(
                        app, [word.replace("…", fingerprint) for word in words]
                    )
                    assert done.exit_code == 0, f"{command}: {done.output}"
                case "python3", *_:
                    done = subprocess.run(
                        [sys.executable, *words], capture_output=True, text=True, check=False
                    )
                    assert done.returncode == 0, done.stdout + done.stderr
                case _:
                    assert (ROOT / program).stat().st_mode & 0o100, command
            played.append(" ".join([program, *words[:2]]))
    assert {"make demo", "make test", "concordat job run", "concordat audit verify"} <= {
        " ".join(one.split()[:3]) for one in played
    }
    assert (tmp_path / "insight.csv").read_text().startswith("age,city,feature,count,")


def known_fingerprint(words: list[str]) -> str:
    """What the inviting side would read over the phone."""
    return Node.open(Home(Path("bank"))).identity.fingerprint if "…" in words else ""


def name_table(home: Path) -> None:
    """As the README shows it, and puts the table where it says it starts."""
    (shown,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    table = TABLES[home.name]
    with (home / "config.yaml").open("a", encoding="utf-8") as config:
        config.write(shown.replace("customers", table))
    shutil.move(f"{table}.csv", home)


@contextmanager
def serve(home: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "parties", "serve", str(home)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            admin.status(Home(home), wait=60)
            yield
        finally:
            process.terminate()


# Links


def pages() -> list[Path]:
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def anchors(page: str) -> set[str]:
    """The fragments of a page's headings, as they are made where the project is read."""
    titles = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, fragment = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), f"{page}: {link}"
        assert not fragment or fragment in anchors(target.read_text("utf-8")), f"{page}: {link}"


# For compliance officers


OFFICERS = (ROOT / "docs" / "compliance.md").read_text("utf-8")


def test_the_officers_page_names_commands_that_there_are() -> None:
    verbs = {verb.words: verb.usage for verb in cli_reference.verbs()}
    named = re.findall(r"`(?:concordat )?((?:audit|consent|agreement) [a-z]+)([^`]*)`", OFFICERS)
    assert len({verb for verb, _ in named}) > 7
    for verb, rest in named:
        usage = verbs[f"concordat {verb}"]
        for option in re.findall(r"--?[a-z]+", rest):
            assert re.search(rf"{option}\b", usage) or option == "-o", (verb, option)


@pytest.mark.parametrize(
    ("law", "articles"),
    [
        ("GDPR", [5, 6, 7, 9, 15, 17, 18, 19, 25, 26, 28, 30, 32, 35]),
        ("PIPL", [13, 14, 15, 16, 23, 24, 28, 29, 44, 45, 46, 47, 51, 54, 55, 56]),
    ],
)
def test_every_row_of_the_officers_page_cites_its_article(law: str, articles: list[int]) -> None:
    _, _, rest = OFFICERS.partition(f"\n## {law}\n")
    section = rest.partition("\n## ")[0] if law == "GDPR" else rest
    rows = [line for line in section.splitlines() if re.match(r"\| [A-Z]", line)]
    cited = " ".join(row.split("|")[1] for row in rows)
    for row in rows:
        assert re.search(r"Articles? \d", row.split("|")[1]) or "asked" in row, row
    for article in articles:
        assert re.search(rf"\b{article}\b", cited), article


# What each job reveals

# What the agreement's own words say, and how the table says it; every item of a disclosure is
# named by at least one line.
WORDS = {
    ("overlap", "bank"): [
        ("how many customers it shares with", "how many customers are shared"),
        ("the size of shop's set", "the size of the partner's set"),
    ],
    ("overlap", "shop"): [("the size of bank's set", "the size of the bank's set")],
    ("intersect", "bank"): [
        ("which of its own customers are also shop's", "which of its own customers are shared"),
        ("the size of shop's set", "the size of the partner's set"),
    ],
    ("intersect", "shop"): [
        ("the size of bank's set", "the size of the bank's set"),
        (
            "which of its own customers are also bank's",
            "its own shared customers too, only if the agreement says `partner_learns: ids`",
        ),
    ],
    ("insight", "bank"): [
        ("the size of shop's set", "the size of the partner's set"),
        (
            "the shared count of every segment of at least 50 customers, suppressed ones too",
            "the shared count of every segment it sent, suppressed ones too",
        ),
        ("for each segment with at least 50 shared", "for segments that reach the minimum"),
        (
            "how many of them have each feature",
            "how many of the shared customers have each feature",
        ),
        (
            "spend_12m (sum, mean, variance)",
            "count, sum, mean, variance, share, histogram as asked",
        ),
    ],
    ("insight", "shop"): [
        ("the sizes and shared counts of segments", "sizes and shared counts of nameless segments"),
        (
            "how many values of each feature are missing",
            "how many values of each feature are missing",
        ),
        ("without the segments' names", "nameless"),
        ("never who", "never who"),
        (
            "which of these nameless customers are the same in all runs of a month",
            "which of these nameless customers are the same in all its runs",
        ),
    ],
    ("lookup", "bank"): [
        ("the size of shop's set", "the size of the partner's set"),
        ("who is in shop's set", "which of the people it asks for are in it"),
        ("and of those spend_12m", "their values of the agreed features"),
    ],
    ("lookup", "shop"): [
        ("how many people bank asks for", "how many people the bank asks for"),
        ("never who", "never who"),
    ],
    ("score", "bank"): [
        ("the size of shop's set", "the size of the partner's set"),
        ("who is in shop's set", "which of the people it asks for are in it"),
        ("the score", "their scores"),
        ("with points chosen for it, also which bins", "with points chosen for it, also which"),
    ],
    ("score", "shop"): [
        ("how many people bank asks for", "how many people the bank asks for"),
        ("never who", "never who"),
        ("neither points nor which bins have any", "neither points nor which bins have any"),
    ],
    ("evaluate", "bank"): [
        ("the size of shop's set", "the size of the partner's set"),
        (
            "how many of its good and of its bad customers are shared",
            "how many of its good and of its bad customers are shared",
        ),
        ("if at least 50 of both are", "if both reach the minimum"),
        (
            "how many good and bad are in each bin of spend_12m",
            "how many good and bad are in each bin of the partner's features",
        ),
        ("where these bins meet", "where these bins meet"),
        ("bins that hold fewer than 10 are not shown", "`minimum_cell` are not shown"),
    ],
    ("evaluate", "shop"): [
        ("the size of bank's set", "the size of the bank's set"),
        (
            "the sizes and shared counts of two nameless groups, of which the smaller is visibly "
            "the bad one",
            "sizes and shared counts of two nameless groups, of which the smaller is visibly the "
            "bad one",
        ),
        ("never who", "never who"),
        (
            "which of these nameless customers are the same in all runs of a month",
            "which of these nameless customers are the same in all its runs",
        ),
    ],
    ("stability", "bank"): [
        ("the size of shop's set", "the size of the partner's set"),
        ("how many customers are shared", "how many customers are shared"),
        ("if at least 50 are", "if that reaches the minimum"),
        (
            "how many of them are in each bin of days_between_orders",
            "how many of them are in each bin of the partner's features",
        ),
        ("where these bins meet", "where these bins meet"),
        ("bins that hold fewer than 10 are not shown", "`minimum_cell` are not shown"),
    ],
    ("stability", "shop"): [
        ("the size of bank's set", "the size of the bank's set"),
        ("how many customers are shared", "how many customers are shared"),
        (
            "which of these nameless customers are the same in all runs of a month",
            "which of these nameless customers are the same in all its runs",
        ),
    ],
    ("populations", "bank"): [
        ("the size of shop's set", "the size of the partner's set"),
        (
            "how many of its customers with city north and of those with city south are shared",
            "how many customers of both populations are shared",
        ),
        ("if at least 50 of both are", "if both reach the minimum"),
        (
            "how many of both are in each bin of days_between_orders",
            "how many of both are in each bin of the partner's features",
        ),
        ("where these bins meet", "where these bins meet"),
        ("bins that hold fewer than 10 are not shown", "`minimum_cell` are not shown"),
    ],
    ("populations", "shop"): [
        ("the size of bank's set", "the size of the bank's set"),
        (
            "the sizes and shared counts of two nameless groups",
            "sizes and shared counts of two nameless groups",
        ),
        ("never who", "never who"),
        (
            "which of these nameless customers are the same in all runs of a month",
            "which of these nameless customers are the same in all its runs",
        ),
    ],
}


@pytest.mark.parametrize(("kind", "party"), WORDS)
def test_the_table_agrees_with_what_agreements_disclose(kind: str, party: str) -> None:
    text = (REFERENCE / "agreement.yaml").read_text("utf-8")
    agreement = Agreement.from_yaml(text.replace("partner_learns: size", "partner_learns: ids"))
    name = "job.yaml" if kind == "insight" else f"job-{kind}.yaml"
    told = disclosure(agreement, Job.from_yaml((REFERENCE / name).read_text("utf-8")))[party]
    job = "`stability` of two populations" if kind == "populations" else f"`{kind}`"
    row = re.search(rf"^\| {job} \| (?P<bank>.+) \| (?P<shop>.+) \|$", README, re.MULTILINE)
    assert row
    for words, shown in WORDS[kind, party]:
        assert any(words in item for item in told), words
        assert shown in row[party]
    for item in told:
        assert any(words in item for words, _ in WORDS[kind, party]), f"not in the table: {item}"


def test_the_table_has_every_job() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)
    assert set(rows) == Agreement.model_fields["jobs"].annotation.model_fields.keys()
