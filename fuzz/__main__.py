"""Runs targets under atheris, each for some seconds, or says again what an input did."""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzz.target import MAX_INPUT
from fuzz.targets import TARGETS

CRASHES = Path(__file__).parent / "crashes"

_HANGS = 10  # seconds after which an input that has not come back is a crash
_RESIDENT = 2048  # MiB
_NOISE = re.compile(r"^(#|INFO|nanobind| - (leaked|\.\.\.)|MERGE|NEW_FUNC).*\n", re.MULTILINE)
_GRACE = 240  # seconds for what is not fuzzing: making keys, a last slow input, a busy machine


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=int, default=20, help="for each target")
    parser.add_argument("--again", type=Path, metavar="FILE", help="an input from fuzz/crashes")
    options = parser.parse_args()
    if options.again:
        _again(options.again)
        return
    unknown = set(options.names) - set(TARGETS)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    CRASHES.mkdir(exist_ok=True)
    failed = [name for name in options.names or TARGETS if not _fuzz(name, options.seconds)]
    if failed:
        sys.exit(f"Crashed: {', '.join(failed)}. The inputs are in {CRASHES}.")


def _fuzz(name: str, seconds: int) -> bool:
    """One line about a target; its output too if it crashed."""
    command = [sys.executable, "-m", "fuzz.worker", name]
    limits = [
        f"-max_total_time={seconds}",
        f"-max_len={MAX_INPUT}",
        f"-timeout={_HANGS}",
        f"-rss_limit_mb={_RESIDENT}",
        f"-artifact_prefix={CRASHES}/{name}-",
    ]
    start = time.monotonic()
    with TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [*command, folder, *limits],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=seconds + _GRACE,
                check=False,
            )
            output, crashed = done.stdout, done.returncode != 0
        except subprocess.TimeoutExpired as expired:
            output, crashed = expired.stdout or b"", True
    text = output.decode(errors="replace")
    runs = re.findall(r"^#(\d+)\t", text, re.MULTILINE)
    took = time.monotonic() - start
    print(f"{name:20} {runs[-1] if runs else 0:>9} runs {took:5.0f} s  {int(crashed)} crashes")
    if crashed:
        print(_NOISE.sub("", text), file=sys.stderr)
    sys.stdout.flush()
    return not crashed


def _again(path: Path) -> None:
    name = re.sub(r"-(crash|oom|timeout|slow-unit)-[0-9a-f]+$", "", path.name)
    with TemporaryDirectory() as folder:
        TARGETS[name](Path(folder))(path.read_bytes())
    print(f"{name} stands this input.")


if __name__ == "__main__":
    main()
