"""The frame of `make bench`, on kernels small enough for a test; no peer is installed here."""

import json
from pathlib import Path

import pytest

from benchmarks.environment import Environment
from benchmarks.measure import Absent, Bench, Cost, Failed
from benchmarks.plot import curves, draw
from benchmarks.subjects import curve
from benchmarks.worker import Worker, last_core


class Fixed:
    """A contender whose runs cost what is said."""

    def __init__(self, name: str, *seconds: float) -> None:
        self.name = name
        self.seconds = list(seconds)
        self.closed = False

    def run(self) -> Cost:
        return Cost(elements=1000, seconds=1.0, cpu_seconds=self.seconds.pop(0))

    def close(self) -> None:
        self.closed = True


def test_the_median_of_runs_in_turn_is_compared(tmp_path: Path) -> None:
    ours, theirs = Fixed("ours", 9, 1, 2), Fixed("theirs", 8, 4, 6)
    bench = Bench(quick=True)
    with bench.subject("sums"):
        found = bench.compare(
            "add", [ours, theirs, Absent("third", "no wheel")], element="sum", rounds=3
        )
        assert not ours.closed
    assert ours.closed
    assert theirs.closed
    assert [figure.us for figure in found.figures] == [2000, 6000]
    written = json.loads(bench.write(tmp_path, "sums").read_text())
    (comparison,) = written["comparisons"]
    assert comparison["ratios"] == {"theirs": 3}
    assert comparison["absent"] == [{"name": "third", "why": "no wheel"}]
    assert written["machine"]["processor"]
    assert "concordat" in written["versions"]
    assert "absent  no wheel" in "\n".join(found.lines())


def test_a_peer_that_fails_is_absent_and_ours_may_not() -> None:
    class Broken(Fixed):
        def run(self) -> Cost:
            raise Failed("out of memory")

    bench = Bench(quick=True)
    found = bench.compare("add", [Fixed("ours", 1, 2), Broken("theirs")], element="sum", rounds=2)
    assert found.absent == (Absent("theirs", "out of memory"),)
    with pytest.raises(Failed):
        bench.compare("add", [Broken("ours"), Fixed("theirs", 1)], element="sum", rounds=1)


def test_a_worker_runs_in_a_process_of_its_own() -> None:
    worker = Worker("ours", "concordat", "multiply", core=last_core(), count=64)
    costs = [worker.run(), worker.run()]
    worker.close()
    for cost in costs:
        assert cost.elements == 64
        assert 0 < cost.cpu_seconds < 10
        assert cost.peak_bytes is not None
        assert 1 << 20 < cost.peak_bytes < 1 << 30


def test_a_contender_that_cannot_start_says_so() -> None:
    with pytest.raises(Failed):
        Worker("nobody", "no_such_module", "multiply")


def test_what_cannot_be_installed_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    peers = Environment(tmp_path / "peers")
    peers.install()
    absent = peers.contender("HEU", "sf-heu", "heu", "encrypt", bits=2048, count=1)
    assert isinstance(absent, Absent)
    assert "python3.11" in absent.why
    assert peers.versions() == {}


def test_a_subject_runs_without_peers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    peers = Environment(tmp_path / "peers")
    peers.install()
    bench = Bench(quick=True)
    with bench.subject("curve25519"):
        curve.run(bench, peers, count=256)
    assert [one.what for one in bench.comparisons] == ["multiplication", "hash to the curve"]
    assert all(one.ours.us > 0 for one in bench.comparisons)
    assert "absent" in capsys.readouterr().out


def test_growth_is_drawn_where_there_are_several_sizes(tmp_path: Path) -> None:
    class Job(Fixed):
        def run(self) -> Cost:
            return Cost(1000, 1.0, self.seconds.pop(0), more={"beside kernels µs": 5.0})

    bench = Bench(quick=True)
    with bench.subject("intersect"):
        for people in ("1,024", "2,048"):
            bench.compare(
                f"intersect, {people} x {people}",
                [Job("ours", 1), Fixed("theirs", 2)],
                element="person",
                rounds=1,
            )
    result = bench.write(tmp_path, "intersect")
    assert curves(json.loads(result.read_text())) == {
        "ours": [(1024, 1000), (2048, 1000)],
        "ours, beside kernels": [(1024, 5), (2048, 5)],
        "theirs": [(1024, 2000), (2048, 2000)],
    }
    picture = draw(result)
    assert picture is not None
    assert "people on each side" in picture.read_text()
