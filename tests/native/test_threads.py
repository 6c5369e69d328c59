"""The thread pool, in processes of their own: once it runs, its size stays."""

import subprocess
import sys
from pathlib import Path

import pytest

COUNT = """
import os, sys
import numpy as np
from federated import _native

def threads() -> int:
    return len(os.listdir("/proc/self/task"))

before = threads()
_native.set_threads(int(sys.argv[1]))
_native.repeated(np.zeros((1, 32), np.uint8))
print(threads() - before, len(os.sched_getaffinity(0)))
_native.set_threads(int(sys.argv[1]))
_native.set_threads(0)
try:
    _native.set_threads(threads() - before + 1)
except ValueError as error:
    print(error)
"""

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="threads are counted in /proc"
)


def run(threads: int) -> tuple[int, int, str]:
    command = [sys.executable, "-c", COUNT, str(threads)]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    counts, _, refusal = found.partition("\n")
    started, cores = map(int, counts.split())
    return started, cores, refusal


@pytest.mark.parametrize("threads", [1, 3])
def test_the_pool_has_as_many_threads_as_it_is_told(threads: int) -> None:
    started, _, refusal = run(threads)
    assert started == threads
    assert refusal == f"the thread pool already runs with {threads} threads\n"


def test_unless_told_two_processes_fit_on_one_machine() -> None:
    started, cores, _ = run(0)
    assert started == max(1, cores // 2)
