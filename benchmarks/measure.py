"""What a run costs; contenders measured in turn; the table and the file that come out."""

import json
import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Protocol

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Cost:
    """One run: of `elements` things, in all the processes that took part."""

    elements: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int | None = None  # resident, of the largest process
    bytes_sent: int | None = None  # by all sides together
    more: dict[str, float] = field(default_factory=dict)  # a subject's own figures


class Contender(Protocol):
    """Something that can be run again and again."""

    name: str

    def run(self) -> Cost: ...

    def close(self) -> None: ...


class Failed(Exception):
    """A contender could not start, or ended in a run."""


@dataclass(frozen=True)
class Absent:
    """A contender that could not be had here. It is reported, not left out."""

    name: str
    why: str


By = Literal["cpu_seconds", "seconds"]


@dataclass(frozen=True)
class Figure:
    """The median of one contender's runs. us: microseconds an element, of what is compared."""

    name: str
    us: float
    cost: Cost
    runs: int


@dataclass(frozen=True)
class Comparison:
    """`us` of the peers divided by ours is the ratio: above 1, ours costs less.

    budget: what ours may cost at most by the design, in microseconds an element, on AVX-512 IFMA.
    """

    subject: str
    what: str
    element: str
    by: By
    figures: tuple[Figure, ...]  # ours first
    absent: tuple[Absent, ...] = ()
    budget: float | None = None
    note: str = ""

    @property
    def ours(self) -> Figure:
        return self.figures[0]

    def ratio(self, figure: Figure) -> float:
        return figure.us / self.ours.us

    def lines(self) -> Iterator[str]:
        """The comparison as text."""
        unit = f"{'CPU' if self.by == 'cpu_seconds' else 'wall-clock'} µs a {self.element}"
        budget = "" if self.budget is None else f"; budget with IFMA {self.budget:g}"
        yield f"{self.what} ({unit}{budget})"
        for figure in self.figures:
            ratio = "" if figure is self.ours else f"{self.ratio(figure):.2f}x ours"
            yield f"  {figure.name:28} {figure.us:12.3f}  {ratio:14} {_costs(figure.cost)}"
        for absent in self.absent:
            yield f"  {absent.name:28} {'absent':>12}  {absent.why}"
        if self.note:
            yield f"  {self.note}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "ratios": {figure.name: self.ratio(figure) for figure in self.figures[1:]}
        }


def _costs(cost: Cost) -> str:
    parts = [f"{cost.elements} in {cost.seconds:.2f} s, CPU {cost.cpu_seconds:.2f} s"]
    if cost.bytes_sent is not None:
        parts.append(f"{cost.bytes_sent / 1e6:.1f} MB sent")
    if cost.peak_bytes is not None:
        parts.append(f"peak {cost.peak_bytes / 2**20:.0f} MiB")
    parts += [f"{name} {value:.2f}" for name, value in cost.more.items()]
    return ", ".join(parts)


class Bench:
    """One invocation: collects comparisons, prints each as it is made.

    quick: small inputs and few rounds. sizes: how many people jobs are measured with, if not the
    subject's own choice.
    """

    def __init__(
        self,
        *,
        quick: bool,
        versions: dict[str, str] | None = None,
        sizes: Sequence[int] | None = None,
    ) -> None:
        self.quick = quick
        self.sizes = sizes
        self.versions = _versions() | (versions or {})
        self.comparisons: list[Comparison] = []
        self._subject = ""
        self._open: list[Contender] = []

    @contextmanager
    def subject(self, name: str) -> Iterator[None]:
        """What is compared within belongs to this subject; in the end its contenders are closed."""
        self._subject = name
        print(f"\n== {name}", flush=True)
        try:
            yield
        finally:
            for contender in self._open:
                contender.close()
            self._open.clear()

    def compare(
        self,
        what: str,
        contenders: Sequence[Contender | Absent],
        *,
        element: str,
        by: By = "cpu_seconds",
        rounds: int | None = None,
        budget: float | None = None,
        note: str = "",
    ) -> Comparison:
        """Runs them in turn, ours first, so many rounds. Keeps and prints the medians.

        A peer that fails is absent. A contender may be compared again within its subject.
        """
        present = [one for one in contenders if not isinstance(one, Absent)]
        absent = [one for one in contenders if isinstance(one, Absent)]
        self._open += [one for one in present if one not in self._open]
        costs: dict[str, list[Cost]] = {one.name: [] for one in present}
        for _ in range(rounds or (3 if self.quick else 7)):
            for one in list(present):
                try:
                    costs[one.name].append(one.run())
                except Failed as failure:
                    if one is contenders[0]:
                        raise
                    present.remove(one)
                    del costs[one.name]
                    absent.append(Absent(one.name, str(failure)))
        found = Comparison(
            self._subject,
            what,
            element,
            by,
            tuple(_figure(name, runs, by) for name, runs in costs.items()),
            tuple(absent),
            budget,
            note,
        )
        self.comparisons.append(found)
        print(*found.lines(), sep="\n", flush=True)
        return found

    def write(self, folder: Path, subject: str) -> Path:
        """A subject's comparisons as JSON, named after the subject and the processor."""
        path = folder / f"{subject}-{_slug(processor())}{'-quick' if self.quick else ''}.json"
        folder.mkdir(parents=True, exist_ok=True)
        document = {
            "subject": subject,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "quick": self.quick,
            "machine": machine(),
            "versions": self.versions,
            "comparisons": [one.as_json() for one in self.comparisons if one.subject == subject],
        }
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
        return path


def _figure(name: str, runs: list[Cost], by: By) -> Figure:
    """The run in the middle, by what is compared."""
    middle = sorted(runs, key=lambda cost: float(getattr(cost, by)))[(len(runs) - 1) // 2]
    us = statistics.median(1e6 * float(getattr(cost, by)) / cost.elements for cost in runs)
    return Figure(name, us, middle, len(runs))


# The machine


def processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    flags = set(_cpuinfo("flags").split())
    return {
        "processor": processor(),
        "cpus": len(os.sched_getaffinity(0)),
        "avx512_ifma": "avx512ifma" in flags,
        "avx2": "avx2" in flags,
        "system": platform.platform(),
    }


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return ""
    fields = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in fields if name.strip() == key), "")


def _versions() -> dict[str, str]:
    ours = ("concordat", "cryptography", "grpcio", "numpy", "phe", "pyarrow")
    return {"python": platform.python_version()} | {name: version(name) for name in ours}


def _slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
