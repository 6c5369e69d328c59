"""The demo: a bank, a shop and a telecom operator, through the same commands a user types."""

import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape

from federated.identifiers import Ids, normalise
from parties import curious
from parties.config import Home
from parties.errors import HomeExists, InternalError
from parties.node import Node
from parties.recipes import library
from parties.reports import page

PEOPLE = 6_000
SEED = 20  # the demo shows the same figures everywhere; protocols draw their own secrets
FIRST_PHONE = 13_900_000_000
GUESSES = 10_000  # phone numbers that a curious partner tries

AGREEMENT = """\
agreement: {name}
version: 1
parties: {{bank: bank, partner: {partner}}}
purpose: {purpose}
legal_basis: consent
valid: {{from: 2025-01-01T00:00:00+08:00, until: 2035-01-01T00:00:00+08:00}}
retention_days: 365
impact_assessment: demo, none made
data:
  bank:
    dataset: customers
    identifier: phone
    categories: [customer-profile]
    label: {{column: repaid, bad: ["no"]}}
  partner:
    dataset: {dataset}
    identifier: phone
    categories: [{category}]
    features:
{features}
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
  evaluate:
    features: [{evaluated}]
    binning: quantile
    bins: 5
    minimum_group: 50
    minimum_cell: 10
    release: exact
    key_bits: 2048
    exponents: full
  stability:
    features: [{evaluated}]
    binning: quantile
    bins: 5
    minimum_group: 50
    minimum_cell: 10
    release: exact
    key_bits: 2048
    exponents: full
    populations: {{axis: age, expected: "30-44", actual: "45-64"}}
{by_name}period: {{per: month, cells: 2000}}
limits: {{runs_per_day: 50}}
"""

BY_NAME = """\
  lookup: {features: [spend_12m], people_per_day: 1000, epoch_hours: 24}
  score:
    features: [days_between_orders]
    people_per_day: 1000
    epoch_hours: 24
    key_bits: 2048
"""

SCORECARD = """\
scorecard: ordering-habits
version: 1
scaling: {pdo: 20, base_score: 600, base_odds: 50}
base: 580
features:
  days_between_orders:
    bins: [{upper: 7, points: 35}, {upper: 90, points: 10}, {points: -25}]
    missing: -5
    unseen: 0
"""

SHOP_FEATURES = """\
      spend_12m: {unit: CNY, lower: 0, upper: 50000, decimals: 2}
      days_between_orders:
        unit: days
        lower: 0
        upper: 365
        decimals: 0
        bins: [7, 30, 90]
        share: {up_to: 30}"""

TELCO_FEATURES = """\
      contacts: {unit: people a month, lower: 0, upper: 500, decimals: 0}
      night_calls: {unit: share of calls, lower: 0, upper: 1, decimals: 3}"""


SHOP = (SHOP_FEATURES, "spend_12m, days_between_orders")
TELCO = (TELCO_FEATURES, "contacts, night_calls")


class Deal(NamedTuple):
    """What differs between the demo's agreements."""

    name: str
    purpose: str
    partner: str
    dataset: str
    category: str
    features: str
    evaluated: str
    by_name: str = ""


DEALS = (
    Deal("offers", "credit-offer", "shop", "shoppers", "purchase-history", *SHOP, BY_NAME),
    Deal("lending", "credit-assessment", "telco", "subscribers", "ties", *TELCO),
    Deal("adverts", "advertising", "shop", "shoppers", "purchase-history", *SHOP),
)

JOB = """\
job: {job}
agreement: {agreement}
purpose: {purpose}
"""

ASKED = {
    ("lookup", "offers"): "people: applicants.csv\n",
    ("score", "offers"): "people: applicants.csv\nscorecard: scorecard.yaml\n",
    ("stability", "lending"): "between: populations\n",
    ("insight", "offers"): """\
features:
  spend_12m: [mean, variance]
  days_between_orders: [mean, share, histogram]
""",
    ("insight", "lending"): """\
features:
  contacts: [mean]
  night_calls: [mean, variance]
""",
}

# What the story asks of whom with the recipes.
RECIPES = {"right-moment": "shop", "credit-assessment": "telco", "campaign": "shop"}

DATASET = """\
datasets:
  {name}:
    path: "{path}"
    identifier: {{column: phone, kind: phone, region: CN}}
"""


def generate(folder: Path) -> None:
    """Three tables and their consents in `folder`, of people who do not exist."""
    random = np.random.default_rng(SEED)
    # Drawn at random: a likeness to anybody's number is chance.
    phones = FIRST_PHONE + random.choice(3 * GUESSES, PEOPLE, replace=False)
    written = pd.Series(phones).astype(str)
    spaced = written.str.replace(r"(\d{3})(\d{4})(\d{4})", r"+86 \1 \2 \3", regex=True)
    age = np.clip(random.normal(38, 11, PEOPLE), 18, 90).astype(int)
    people = pd.DataFrame(
        {
            "phone": written.where(random.random(PEOPLE) < 0.7, spaced),
            "age": age,
            "spend_12m": np.round(np.minimum(random.lognormal(7.5 + age / 100, 0.8), 60_000), 2),
            "days_between_orders": np.clip(random.gamma(2.0, 18.0, PEOPLE), 1, 365).astype(int),
            "contacts": random.poisson(60 - age / 2),
            "night_calls": np.round(random.beta(2, 20 + age / 4), 3),
        }
    ).astype(str)
    people.loc[people.index[::97], "days_between_orders"] = ""  # ordered only once

    risk = 0.05 + people["night_calls"].astype(float)
    people["repaid"] = np.where(random.random(PEOPLE) < risk, "no", "yes")

    bank, shop, telco = people[:4_000], people[1_500:5_000], people[2_500:]
    bank[["phone", "age", "repaid"]].to_csv(folder / "customers.csv", index=False)
    bank[["phone"]].tail(40).to_csv(folder / "applicants.csv", index=False)
    shop[["phone", "spend_12m", "days_between_orders"]].to_csv(folder / "shoppers.csv", index=False)
    telco[["phone", "contacts", "night_calls"]].to_csv(folder / "subscribers.csv", index=False)
    given = {
        "bank": [
            _consents(bank, "credit-offer", "shop", "customer-profile", random),
            _consents(bank, "credit-assessment", "telco", "customer-profile", random),
        ],
        "shop": [_consents(shop, "credit-offer", "bank", "purchase-history", random)],
        "telco": [_consents(telco, "credit-assessment", "bank", "ties", random)],
    }
    for name, consents in given.items():
        pd.concat(consents).to_csv(folder / f"{name}_consents.csv", index=False)


def _consents(
    people: pd.DataFrame,
    purpose: str,
    recipient: str,
    category: str,
    random: np.random.Generator,
) -> pd.DataFrame:
    """Most gave theirs; some never were asked, some let it expire, some took it back."""
    asked = people[random.random(len(people)) < 0.95]
    fate = random.random(len(asked))
    return pd.DataFrame(
        {
            "phone": asked["phone"],
            "purpose": purpose,
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


def run(command: Command, program: str, console: Console, keep: Path | None) -> None:
    """Play the whole of it; `command` runs one line of the CLI and returns its exit status.

    Raises HomeExists if `keep` is in use, InternalError if anything ends otherwise than told.
    """
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise HomeExists(f"{keep} exists and is not empty.", "Name a folder that does not exist.")
    folder = keep.absolute() if keep else Path(tempfile.mkdtemp(prefix="concordat-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    _Story(command, program, console, folder).tell()


class _Story:
    def __init__(self, command: Command, program: str, console: Console, folder: Path) -> None:
        self._command = command
        self._program = program
        self._console = console
        self._folder = folder
        self._homes = {name: str(folder / name) for name in ("bank", "shop", "telco")}
        self._insight = str(folder / "insight.csv")
        self._nodes: list[subprocess.Popen[bytes]] = []

    def tell(self) -> None:
        try:
            self._set_up()
            self._agree()
            self._compute()
            self._be_refused()
            self._cook()
            self._verify()
        finally:
            for node in self._nodes:
                node.terminate()
            for node in self._nodes:
                node.wait(timeout=20)
        self._look_over_the_shoulder()
        self._close()

    def _set_up(self) -> None:
        self._say("Three institutions, a node each, with tables of their own.")
        generate(self._folder)
        for name in RECIPES:
            library.write(name, self._folder / name, made_up=True)
        datasets = {"bank": "customers", "shop": "shoppers", "telco": "subscribers"}
        sectors = {"bank": "bank", "shop": "ecommerce", "telco": "telecom"}
        for name, home in self._homes.items():
            self._do("init", home, "--name", name, "--sector", sectors[name])
            path = self._folder / f"{datasets[name]}.csv"
            with (Path(home) / "config.yaml").open("a", encoding="utf-8") as file:
                file.write(DATASET.format(name=datasets[name], path=path) + self._further(name))
        for home in self._homes.values():
            self._serve(home)
        for home in self._homes.values():
            self._do("node", "status", home, "--wait", "60")
        self._say("They pair: an invitation, and a fingerprint read over the phone.")
        bank = self._homes["bank"]
        for name in ("shop", "telco"):
            invitation = str(self._folder / f"invitation-{name}")
            self._do("pair", "invite", bank, "-o", invitation)
            fingerprint = Node.open(Home(Path(bank))).identity.fingerprint
            self._do("pair", "accept", self._homes[name], invitation, "--fingerprint", fingerprint)

    def _further(self, name: str) -> str:
        """The datasets of the recipes, as they go under `datasets` in config.yaml."""
        files = [
            self._folder / recipe / (library.BANK if name == "bank" else library.PARTNER)
            for recipe, partner in RECIPES.items()
            if name in {"bank", partner}
        ]
        return "".join(textwrap.indent(file.read_text("utf-8"), "  ") for file in files)

    def _serve(self, home: str) -> None:
        self._console.print(f"\n[bold cyan]$ concordat serve {escape(home)} &[/]")
        with Path(home).with_suffix(".log").open("wb") as file:
            self._nodes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "parties", "serve", home],
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            )

    def _agree(self) -> None:
        self._say("Each imports the consents its customers gave.")
        for name, home in self._homes.items():
            self._do("consent", "import", home, str(self._folder / f"{name}_consents.csv"))
        self._say("Nothing runs without an agreement that both have signed; one for each pair.")
        for deal in DEALS:
            path = self._write(f"{deal.name}.yaml", AGREEMENT.format(**deal._asdict()))
            self._do("agreement", "propose", self._homes["bank"], path)
            self._do("agreement", "sign", self._homes[deal.partner], deal.name)

    def _compute(self) -> None:
        self._say("How many customers do bank and shop share? Which ones? What are they like?")
        for job in ("overlap", "intersect", "insight"):
            self._job(job, "offers", "credit-offer")
        self._say("The oldest segment is small, so its figures stay closed: by the threshold.")
        self._say(
            "Forty customers apply for credit. What does the shop know of each? And what does the "
            "bank's own scorecard say, which the shop must not see?"
        )
        self._write("scorecard.yaml", SCORECARD)
        self._job("lookup", "offers", "credit-offer")
        self._job("score", "offers", "credit-offer")
        self._say("The same bank with the telecom operator, under an agreement of their own.")
        self._job("insight", "lending", "credit-assessment")
        self._say("How much would the operator's figures say about who repays? (WOE and IV)")
        self._job("evaluate", "lending", "credit-assessment")
        self._say(
            "Would a scorecard made for customers of 30 to 44 fit those of 45 to 64? How far the "
            "operator's figures lie apart in the two (population stability index):"
        )
        self._job("stability", "lending", "credit-assessment")

    def _be_refused(self) -> None:
        self._say("Nobody consented to advertising: refused by the gate.")
        self._job("overlap", "adverts", "advertising", fails=1)
        self._say("The agreement is for credit offers, nothing else: refused by its purpose.")
        self._job("overlap", "offers", "advertising", fails=1)

    def _cook(self) -> None:
        self._say(
            "Three recipes, on raw tables: purchases, call records, repayments. When do customers "
            "next buy electronics, and for how much? What would ties and mobility say of who falls "
            "behind with a loan? What has a campaign sold, beside a hold-out?"
        )
        bank = self._homes["bank"]
        for name, partner in RECIPES.items():
            folder, other = self._folder / name, self._homes[partner]
            for home, file in zip((bank, other), library.CONSENTS, strict=True):
                self._do("consent", "import", home, str(folder / file))
            agreement, result = str(folder / library.AGREEMENT), str(folder / "result.csv")
            self._do("agreement", "propose", bank, agreement)
            self._do("agreement", "sign", other, name)
            self._do("job", "run", bank, str(folder / library.JOB), "--output", result)
            self._do("recipe", "report", name, agreement, result)

    def _verify(self) -> None:
        self._say("Everything is in the logs, and partners have witnessed each other's.")
        for home in self._homes.values():
            self._do("audit", "verify", home)

    def _look_over_the_shoulder(self) -> None:
        self._say(
            "What did the shop see of the bank's customers? Points like these, blinded with a key "
            "that never leaves the bank (here the protocol is played once more in this process):"
        )
        text = pd.read_csv(self._folder / "customers.csv", dtype=str)["phone"]
        customers = Ids.from_strings("phone", normalise(text, "phone").ids)
        numbers = pd.Series(range(FIRST_PHONE, FIRST_PHONE + GUESSES)).astype(str)
        guesses = Ids.from_strings("phone", normalise(numbers, "phone").ids)
        points = curious.on_points(customers, guesses)
        hashes = curious.on_hashes(customers, guesses)
        for point in points.seen[:3]:
            self._console.print(f"  {point}")
        self._say(f"A curious shop tries {GUESSES:,} phone numbers, against points and SHA-256:")
        for name, attack in (("blinded points", points), ("plain SHA-256", hashes)):
            self._console.print(
                f"  {name:15} {attack.named:>6,} of {len(attack.seen):,} customers named "
                f"in {attack.seconds:.2f} s"
            )
        every = 1e8 / GUESSES * hashes.seconds
        self._console.print(
            f"  At that rate all 100,000,000 numbers that start with 139 take {every:,.0f} s "
            "against SHA-256; against points there is nothing to compare a guess with."
        )

    def _close(self) -> None:
        bank, shop = self._homes["bank"], self._homes["shop"]
        self._say("That was the demo. The nodes are stopped; their homes are kept.")
        report = str(page.beside(Path(self._insight)))
        self._console.print(f"  Charts of the insight, for a browser: {escape(report)}")
        self._say("Try next:")
        for line in (
            f"{self._program} console {bank}",
            f"{self._program} job list {bank}",
            f"{self._program} audit log {shop}",
            f"{self._program} agreement show {shop} offers",
            "examples/credit/run.sh DATA_DIR OUT_DIR   (two tables of your own)",
        ):
            self._console.print(f"  {escape(line)}")

    def _job(self, job: str, agreement: str, purpose: str, *, fails: int = 0) -> None:
        text = JOB.format(job=job, agreement=agreement, purpose=purpose)
        text += ASKED.get((job, agreement), "")
        path = self._write(f"{job}-{agreement}-{purpose}.yaml", text)
        output = ["--output", self._insight] if (job, agreement) == ("insight", "offers") else []
        self._do("job", "run", self._homes["bank"], path, *output, fails=fails)

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
