"""The demo: a bank and a shop on generated customers, through the same commands a user types."""

import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape

from parties.config import Home
from parties.errors import HomeExists, InternalError
from parties.node import Node

PEOPLE = 6_000
SEED = 20  # the demo shows the same figures everywhere; protocols draw their own secrets

AGREEMENT = """\
agreement: {name}
version: 1
parties: {{bank: bank, partner: shop}}
purpose: {purpose}
legal_basis: consent
valid: {{from: 2025-01-01T00:00:00+08:00, until: 2035-01-01T00:00:00+08:00}}
retention_days: 365
impact_assessment: demo, none made
data:
  bank: {{dataset: customers, identifier: phone, categories: [customer-profile]}}
  partner:
    dataset: shoppers
    identifier: phone
    categories: [purchase-history]
    features:
      spend_12m: {{unit: CNY, lower: 0, upper: 50000, decimals: 2}}
      days_between_orders:
        unit: days
        lower: 0
        upper: 365
        decimals: 0
        bins: [7, 30, 90]
        share: {{up_to: 30}}
segmentation:
  - label: age
    column: age
    bands:
      - {{label: "-29", upper: 29}}
      - {{label: "30-44", upper: 44}}
      - {{label: "45-64", upper: 64}}
      - {{label: "65-"}}
jobs:
  overlap: {{}}
  intersect: {{partner_learns: size}}
  insight:
    minimum_group: 50
    release: exact
    key_bits: 2048
    exponents: full
    statistics: [count, sum, mean, variance, share, histogram]
limits: {{runs_per_day: 50}}
"""

JOB = """\
job: {job}
agreement: {agreement}
purpose: {purpose}
"""

FEATURES = """\
features:
  spend_12m: [mean, variance]
  days_between_orders: [mean, share, histogram]
"""

DATASET = """\
datasets:
  {name}:
    path: "{path}"
    identifier: {{column: phone, kind: phone, region: CN}}
"""


def generate(folder: Path) -> None:
    """Two tables and two files of consents in `folder`, of people who do not exist."""
    random = np.random.default_rng(SEED)
    # Drawn at random: a likeness to anybody's number is chance.
    phones = 13_900_000_000 + random.choice(100_000_000, PEOPLE, replace=False)
    written = pd.Series(phones).astype(str)
    spaced = written.str.replace(r"(\d{3})(\d{4})(\d{4})", r"+86 \1 \2 \3", regex=True)
    written = written.where(random.random(PEOPLE) < 0.7, spaced)
    age = np.clip(random.normal(38, 11, PEOPLE), 18, 90).astype(int)
    spend = np.round(np.minimum(random.lognormal(7.5 + age / 100, 0.8), 60_000), 2)
    gap = np.clip(random.gamma(2.0, 18.0, PEOPLE), 1, 365).astype(int)

    banked, shops = slice(0, 4_000), slice(1_500, PEOPLE)
    people = pd.DataFrame(
        {"phone": written, "age": age, "spend_12m": spend, "days_between_orders": gap}
    )
    people[banked][["phone", "age"]].to_csv(folder / "customers.csv", index=False)
    shoppers = people[shops][["phone", "spend_12m", "days_between_orders"]].astype(str)
    shoppers.loc[shoppers.index[::97], "days_between_orders"] = ""  # ordered only once
    shoppers.to_csv(folder / "shoppers.csv", index=False)
    _consents(people[banked], "shop", "customer-profile", random).to_csv(
        folder / "bank_consents.csv", index=False
    )
    _consents(people[shops], "bank", "purchase-history", random).to_csv(
        folder / "shop_consents.csv", index=False
    )


def _consents(
    people: pd.DataFrame, recipient: str, category: str, random: np.random.Generator
) -> pd.DataFrame:
    """Most gave theirs; some never were asked, some let it expire, some took it back."""
    asked = people[random.random(len(people)) < 0.95]
    fate = random.random(len(asked))
    return pd.DataFrame(
        {
            "phone": asked["phone"],
            "purpose": "credit-offer",
            "recipient": recipient,
            "categories": category,
            "kind": "separate",
            "granted_at": "2025-06-01T09:00:00+08:00",
            "expires_at": np.where(
                fate < 0.05, "2026-01-01T00:00:00+08:00", "2035-01-01T00:00:00+08:00"
            ),
            "withdrawn_at": np.where(fate > 0.96, "2025-12-01T12:00:00+08:00", ""),
        }
    )


# The story


Command = Callable[[list[str]], int]


def run(command: Command, console: Console, keep: Path | None) -> None:
    """Play the whole of it; `command` runs one line of the CLI and returns its exit status.

    Raises HomeExists if `keep` is in use, InternalError if anything ends otherwise than told.
    """
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise HomeExists(f"{keep} exists and is not empty.", "Name a folder that does not exist.")
    folder = keep.absolute() if keep else Path(tempfile.mkdtemp(prefix="concordat-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    _Story(command, console, folder).tell()


class _Story:
    def __init__(self, command: Command, console: Console, folder: Path) -> None:
        self._command = command
        self._console = console
        self._folder = folder
        self._bank = str(folder / "bank")
        self._shop = str(folder / "shop")
        self._nodes: list[subprocess.Popen[bytes]] = []

    def tell(self) -> None:
        try:
            self._set_up()
            self._agree()
            self._compute()
            self._be_refused()
            self._verify()
        finally:
            for node in self._nodes:
                node.terminate()
            for node in self._nodes:
                node.wait(timeout=20)
        self._close()

    def _set_up(self) -> None:
        self._say("Two institutions, a node each, with tables of their own.")
        generate(self._folder)
        self._do("init", self._bank, "--name", "bank", "--sector", "bank")
        self._do("init", self._shop, "--name", "shop", "--sector", "ecommerce")
        for home, dataset in ((self._bank, "customers"), (self._shop, "shoppers")):
            text = DATASET.format(name=dataset, path=self._folder / f"{dataset}.csv")
            with (Path(home) / "config.yaml").open("a", encoding="utf-8") as file:
                file.write(text)
            self._serve(home)
        self._say("They pair: an invitation, and a fingerprint read over the phone.")
        invitation = str(self._folder / "invitation")
        self._do("pair", "invite", self._bank, "-o", invitation)
        fingerprint = Node.open(Home(Path(self._bank))).identity.fingerprint
        self._do("pair", "accept", self._shop, invitation, "--fingerprint", fingerprint)

    def _serve(self, home: str) -> None:
        log = Path(home).with_suffix(".log")
        self._console.print(f"\n[bold cyan]$ concordat serve {escape(home)} &[/]")
        with log.open("wb") as file:
            self._nodes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "parties", "serve", home],
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            )
        self._do("node", "status", home, "--wait", "60")

    def _agree(self) -> None:
        self._say("Each imports the consents its customers gave.")
        for name, home in (("bank", self._bank), ("shop", self._shop)):
            self._do("consent", "import", home, str(self._folder / f"{name}_consents.csv"))
        self._say("Nothing runs without an agreement that both have signed.")
        for name, purpose in (("offers", "credit-offer"), ("adverts", "advertising")):
            path = self._write(f"{name}.yaml", AGREEMENT.format(name=name, purpose=purpose))
            self._do("agreement", "propose", self._bank, path)
            self._do("agreement", "sign", self._shop, name)

    def _compute(self) -> None:
        self._say("How many customers do they share? Which ones? What are they like?")
        for job in ("overlap", "intersect", "insight"):
            self._do("job", "run", self._bank, self._job(job, "offers", "credit-offer"))
        self._say(
            "The oldest segment is small, so its figures stay closed: refused by the threshold."
        )

    def _be_refused(self) -> None:
        self._say("Nobody consented to advertising: refused by the gate.")
        self._do("job", "run", self._bank, self._job("overlap", "adverts", "advertising"), fails=1)
        self._say("The agreement is for credit offers, nothing else: refused by its purpose.")
        self._do("job", "run", self._bank, self._job("overlap", "offers", "advertising"), fails=1)

    def _verify(self) -> None:
        self._say("Everything is in both logs, and each has witnessed the other's.")
        for home in (self._bank, self._shop):
            self._do("audit", "verify", home)

    def _close(self) -> None:
        self._say("That was the demo. Both nodes are stopped; their homes are kept. Try next:")
        for line in (
            f"concordat job list {self._bank}",
            f"concordat audit log {self._shop}",
            f"concordat agreement show {self._shop} offers",
            "examples/credit/run.sh DATA_DIR OUT_DIR   (two tables of your own)",
        ):
            self._console.print(f"  {escape(line)}")

    def _job(self, job: str, agreement: str, purpose: str) -> str:
        text = JOB.format(job=job, agreement=agreement, purpose=purpose)
        return self._write(
            f"{job}-{agreement}-{purpose}.yaml", text + (FEATURES if job == "insight" else "")
        )

    def _write(self, name: str, text: str) -> str:
        path = self._folder / name
        path.write_text(text, "utf-8")
        return str(path)

    def _say(self, text: str) -> None:
        self._console.print("\n" + textwrap.fill(text, 96), style="bold")

    def _do(self, *words: str, fails: int = 0) -> None:
        self._console.print(f"\n[bold cyan]$ concordat {escape(' '.join(words))}[/]")
        if self._command(list(words)) != fails:
            raise InternalError(
                "The demo did not go as it should.",
                f"The nodes' own logs are in {self._folder}; please report what they say.",
            )
