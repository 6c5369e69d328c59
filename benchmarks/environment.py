"""Where the peers are installed: an environment of its own, because they pin old parts."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.measure import Absent, Contender, Failed
from benchmarks.worker import Worker

FOLDER = Path(__file__).parent / ".peers"
PINNED = {
    "cryptography": "50.0.2",
    "gmpy2": "2.3.2",  # makes phe an order of magnitude faster
    "openmined-psi": "2.0.6",
    "phe": "1.5.0",
    "sf-heu": "0.5.2b0",
    "spu": "0.9.5",
}
_SECONDS = 900


class Environment:
    """The peers' Python, and which of them it has."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.python = folder / "bin" / "python"
        self._record = folder / "installed.json"

    def install(self) -> None:
        """What is not yet there, one by one: a peer that cannot be had keeps no other away."""
        wheels = shutil.which("python3.11")  # the one version that all of them have wheels for
        if wheels is None:
            self._missing = dict.fromkeys(PINNED, "there is no python3.11 here")
            return
        if self._record.exists() and json.loads(self._record.read_text())["pinned"] == PINNED:
            self._missing = json.loads(self._record.read_text())["missing"]
            return
        print("Installing the peers ...", flush=True)
        _run([wheels, "-m", "venv", "--clear", str(self.python.parents[1])])
        self._missing = {}
        for name, version in PINNED.items():
            command = [str(self.python), "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
            failure = _run([*command, f"{name}=={version}"])
            if failure:
                self._missing[name] = failure
        record = {"pinned": PINNED, "missing": self._missing}
        self._record.write_text(json.dumps(record, indent=1) + "\n")

    def versions(self) -> dict[str, str]:
        """Of the peers that are there."""
        return {
            f"peer {name}": pinned for name, pinned in PINNED.items() if name not in self._missing
        }

    def contender(
        self, name: str, package: str, module: str, function: str, **arguments: Any
    ) -> Contender | Absent:
        """A worker that uses this package, or why there is none."""
        if package in self._missing:
            return Absent(name, f"{package} could not be installed: {self._missing[package]}")
        try:
            return Worker(name, module, function, python=self.python, **arguments)
        except Failed as failure:
            return Absent(name, str(failure))


def _run(command: list[str]) -> str:
    """Why it failed, in a line; empty if it did not."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {_SECONDS} s"
    if done.returncode == 0:
        return ""
    return (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1][:200]
