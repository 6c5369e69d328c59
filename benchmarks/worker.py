"""A contender in a process of its own, pinned to one core if it is a kernel.

As a program (`python -m benchmarks.worker MODULE FUNCTION ARGUMENTS CORE`) it imports the module,
which only that interpreter may have, and calls the function with the arguments; that prepares, and
returns what is to be measured: a callable that returns how many elements it did, and may add
figures that it knows better. It then runs whenever a line comes in, and answers with the cost.
"""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import Cost, Failed

ROOT = Path(__file__).parents[1]

# What a contender's module provides: prepared and ready to be measured.
Job = Callable[[], "int | Cost"]

_ONE_THREAD = dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"], "1")


class Worker:
    """A contender in a process of its own.

    module: of benchmarks.contenders. core: pinned to it, with one thread; None is free to use all.
    """

    def __init__(
        self,
        name: str,
        module: str,
        function: str,
        *,
        python: Path | str = sys.executable,
        core: int | None = None,
        **arguments: Any,
    ) -> None:
        self.name = name
        command = [python, "-m", "benchmarks.worker", module, function, json.dumps(arguments)]
        self._process = subprocess.Popen(
            [*map(str, command), str(core)],
            cwd=ROOT,
            env=os.environ | (_ONE_THREAD if core is not None else {}) | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()  # it is prepared

    def run(self) -> Cost:
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Cost(**self._answer())

    def close(self) -> None:
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101
        line = self._process.stdout.readline()
        if not line:
            raise Failed(f"{self.name} ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def measured(job: Job) -> Cost:
    """What one run costs this process, unless the job knows better."""
    wall, cpu = time.perf_counter(), time.process_time()
    done = job()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return done if isinstance(done, Cost) else Cost(done, wall, cpu, peak())


def last_core() -> int:
    """The core that kernels are pinned to: the system keeps busier with the first."""
    return max(os.sched_getaffinity(0))


def peak() -> int:
    """The most memory that this process had resident, in bytes.

    Not getrusage's: that counts what the process was before it became this program.
    """
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))


def _serve(module: str, function: str, arguments: str, core: str) -> None:
    if core != "None":
        os.sched_setaffinity(0, {int(core)})
    # Peers' logs go elsewhere than our answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(fields: dict[str, Any]) -> None:
        print(json.dumps(fields), file=answers, flush=True)

    prepare = getattr(importlib.import_module(f"benchmarks.contenders.{module}"), function)
    job: Job = prepare(**json.loads(arguments))
    answer({})
    for _ in sys.stdin:
        answer(vars(measured(job)))


if __name__ == "__main__":
    _serve(*sys.argv[1:])
