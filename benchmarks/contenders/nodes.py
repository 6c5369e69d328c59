"""Two serving nodes, paired, with tables of made-up people who all consented; jobs through them."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.csv
from rich.console import Console

from benchmarks.measure import Cost
from federated.paillier import keys
from parties import admin
from parties.config import Home

AGREEMENT = """\
agreement: {name}
version: 1
parties: {{bank: bank, partner: shop}}
purpose: benchmark
legal_basis: consent
valid: {{from: 2025-01-01T00:00:00+08:00, until: 2035-01-01T00:00:00+08:00}}
retention_days: 1
impact_assessment: none made
data:
  bank:
    dataset: people
    identifier: phone
    categories: [profile]
    label: {{column: repaid, bad: ["no"]}}
  partner:
    dataset: people
    identifier: phone
    categories: [purchases]
    features:
{features}
segmentation:
  - label: age
    column: age
    bands: [{{label: "-29", upper: 29}}, {{label: "30-44", upper: 44}}, {{label: "45-"}}]
jobs:
  overlap: {{}}
  intersect: {{partner_learns: size}}
  insight:
    minimum_group: 50
    release: exact
    key_bits: {key_bits}
    exponents: {exponents}
    statistics: [count, sum]
  evaluate:
    features: [{names}]
    binning: quantile
    bins: 10
    minimum_group: 50
    minimum_cell: 0
    release: exact
    key_bits: {key_bits}
    exponents: {exponents}
limits: {{runs_per_day: 1000}}
"""

FEATURE = "      f{}: {{unit: points, lower: 0, upper: 100000, decimals: 0{}}}"
HIGHEST = 100_000

DATASET = """\
threads: {threads}
datasets:
  people:
    path: people.csv
    identifier: {{column: phone, kind: phone, region: CN}}
"""

CONSENT = {
    "purpose": "benchmark",
    "kind": "separate",
    "granted_at": "2025-06-01T09:00:00+08:00",
    "expires_at": "2034-12-31T00:00:00+08:00",
    "withdrawn_at": "",
}


@dataclass(frozen=True)
class Deal:
    """One agreement. missing: whether the partner's features may be missing."""

    key_bits: int = 2048
    exponents: str = "full"
    missing: bool = False

    @property
    def name(self) -> str:
        return f"bench-{self.key_bits}-{self.exponents}{'-missing' if self.missing else ''}"


@dataclass(frozen=True)
class Spent:
    """What a process has spent so far, in CPU seconds; of that, in threads of the kernels' pool."""

    all: float
    kernels: float

    @classmethod
    def by(cls, process: int) -> "Spent":
        tasks = Path(f"/proc/{process}/task").iterdir()
        kernels = [cpu for name, cpu in map(_stat, tasks) if name.startswith("kernel ")]
        return cls(_stat(Path(f"/proc/{process}"))[1], sum(kernels))


def _stat(folder: Path) -> tuple[str, float]:
    """Name, and user and system CPU seconds (proc(5))."""
    name, _, rest = (folder / "stat").read_text().partition(" (")[2].rpartition(") ")
    fields = rest.split()
    return name, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Nodes:
    """Made once, for any number of jobs.

    people: on each side; half of them are shared. threads: of each node's kernels; two at least,
    because the pool of one leaves some of its work to the calling thread.
    """

    def __init__(
        self,
        people: int,
        *,
        features: int = 20,
        deals: Sequence[Deal] = (Deal(),),
        threads: int = 2,
    ) -> None:
        self.people, self.features, self.threads = people, features, threads
        self.deals = deals
        self._undo = ExitStack()
        folder = Path(self._undo.enter_context(TemporaryDirectory(prefix="concordat-bench-")))
        self.homes = {name: Home(folder / name) for name in ("bank", "shop")}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        """As a user would, command by command."""
        for name, home in self.homes.items():
            _concordat("init", home, "--name", name, "--sector", "other")
            text = home.config_file.read_text("utf-8")
            kept = [line for line in text.splitlines() if not line.startswith("threads:")]
            kept.append(DATASET.format(threads=self.threads))
            home.config_file.write_text("\n".join(kept), "utf-8")
            self._people(name, home)
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "parties", "serve", str(home.path)],
                stdout=(home.path / "node.log").open("wb"),
                stderr=subprocess.STDOUT,
            )
        for home in self.homes.values():
            admin.status(home, 60)
        bank, shop = self.homes["bank"], self.homes["shop"]
        invitation = str(bank.path / "invitation")
        _concordat("pair", "invite", bank, "--output", invitation)
        fingerprint = _concordat("node", "fingerprint", bank).strip()
        _concordat("pair", "accept", shop, invitation, "--fingerprint", fingerprint)
        agreement = bank.path / "agreement.yaml"
        for deal in self.deals:
            missing = "" if deal.missing else ", may_be_missing: false"
            agreement.write_text(
                AGREEMENT.format(
                    name=deal.name,
                    features="\n".join(FEATURE.format(i, missing) for i in range(self.features)),
                    names=", ".join(f"f{i}" for i in range(self.features)),
                    key_bits=deal.key_bits,
                    exponents=deal.exponents,
                )
            )
            _concordat("agreement", "propose", bank, str(agreement))
            _concordat("agreement", "sign", shop, deal.name)
        for home in self.homes.values():
            _concordat("consent", "import", home, str(home.path / "consents.csv"))

    def add_key(self, bits: int) -> None:
        """The shop's Paillier key: a node makes it once, not in every run."""
        self.homes["shop"].key(f"paillier-{bits}").write_bytes(keys.dump(keys.generate(bits)))

    def _people(self, name: str, home: Home) -> None:
        """The table and its consents."""
        count = self.people
        draw = np.random.default_rng(20 if name == "bank" else 21)
        first = 13_900_000_000 + (0 if name == "bank" else count // 2)
        phone = pa.array(draw.permutation(np.arange(first, first + count))).cast(pa.string())
        columns = {"phone": phone}
        if name == "bank":
            columns["age"] = pa.array(draw.integers(18, 90, count))
            columns["repaid"] = pa.array(np.where(draw.random(count) < 0.2, "no", "yes"))
        else:
            for i in range(self.features):
                columns[f"f{i}"] = pa.array(draw.integers(0, HIGHEST + 1, count))
        pa.csv.write_csv(pa.table(columns), home.path / "people.csv")
        terms = CONSENT | (
            {"recipient": "shop", "categories": "profile"}
            if name == "bank"
            else {"recipient": "bank", "categories": "purchases"}
        )
        same = {key: pa.repeat(value, count) for key, value in terms.items()}
        pa.csv.write_csv(pa.table({"phone": phone} | same), home.path / "consents.csv")

    def run(self, job: str, deal: Deal) -> Cost:
        """One job, from files to files; CPU of both nodes."""
        text = f"job: {job}\nagreement: {deal.name}\npurpose: benchmark\n"
        if job == "insight":
            text += "features:\n" + "".join(f"  f{i}: [sum]\n" for i in range(self.features))
        bank, shop = self.homes["bank"], self.homes["shop"]
        file = bank.path / f"{job}.yaml"
        file.write_text(text)
        before = {name: Spent.by(process.pid) for name, process in self.processes.items()}
        for process in self.processes.values():
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the peak starts anew
        with Path(os.devnull).open("w") as nowhere:
            report = admin.run_job(bank, file, None, Console(file=nowhere))
        theirs = json.loads(_concordat("job", "show", shop, report["run"], "--json"))["report"]
        (bank.path / "last.json").write_text(json.dumps({"bank": report, "shop": theirs}))
        after = {name: Spent.by(process.pid) for name, process in self.processes.items()}
        spent = sum(after[name].all - before[name].all for name in after)
        kernels = sum(after[name].kernels - before[name].kernels for name in after)
        stages = [stage for one in (report, theirs) for stage in one["stages"].values()]
        people = self.people
        return Cost(
            elements=people,
            seconds=sum(stage["seconds"] for stage in report["stages"].values()),
            cpu_seconds=spent,
            peak_bytes=max(map(_peak, self.processes.values())),
            bytes_sent=sum(stage["bytes_sent"] for stage in stages),
            more={
                "kernels µs": 1e6 * kernels / people,
                "beside kernels µs": 1e6 * (spent - kernels) / people,
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait()
        self._undo.close()


def _concordat(*words: "str | Home") -> str:
    """What a command prints."""
    command = [str(word.path) if isinstance(word, Home) else word for word in words]
    done = subprocess.run(
        [sys.executable, "-m", "parties", *command], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"concordat {' '.join(command[:2])}: {done.stdout}{done.stderr}")
    return done.stdout


class NodesJob:
    """A contender: one kind of job through two nodes, which it leaves open."""

    name = "concordat"

    def __init__(self, nodes: Nodes, job: str, deal: Deal) -> None:
        self._nodes, self._job, self._deal = nodes, job, deal

    def run(self) -> Cost:
        return self._nodes.run(self._job, self._deal)

    def close(self) -> None:
        """Nothing: the nodes have other jobs."""


def _peak(process: "subprocess.Popen[bytes]") -> int:
    """Resident bytes at most, since it was last asked to start anew."""
    status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))
