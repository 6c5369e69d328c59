"""A third witness as a process of its own, killed at any moment, and a node that asks it."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "parties"]


def concordat(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, words)], capture_output=True, text=True, check=False, timeout=120
    )


def said(*words: object) -> dict:
    done = concordat(*words, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@contextmanager
def serving(folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*COMMAND, "witness", "serve", str(folder)], stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(30)


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def test_a_witness_remembers_whatever_happens_to_it(tmp_path: Path, port: int) -> None:
    folder, home = tmp_path / "regulator", tmp_path / "bank"
    listen = f"127.0.0.1:{port}"
    made = concordat("witness", "init", folder, "--name", "regulator.example/w", "--listen", listen)
    assert made.returncode == 0, made.stderr
    assert concordat("init", home, "--name", "bank", "--sector", "bank").returncode == 0
    log = said("node", "keys", home)["log"]
    assert concordat("witness", "add-log", folder, log).returncode == 0
    key = said("witness", "show", folder)["key"]
    with (home / "config.yaml").open("a") as file:
        third = {"name": "regulator", "url": f"http://{listen}", "key": key}
        file.write(f"witnesses: {json.dumps([third])}\n")

    with serving(folder, port) as process:
        verdict = said("audit", "verify", home)
        assert verdict["cosigned"].keys() == {"regulator.example/w"}
        assert verdict["not_asked"] == []
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert said("audit", "verify", home)["not_asked"] == ["regulator"]
    size = said("witness", "show", folder)["logs"][log]
    assert size == 2, "the node's making, and that the witness was pinned"

    before = (home / "concordat.db").read_bytes()
    with serving(folder, port):
        assert concordat("node", "renew", home).returncode == 0
        assert said("audit", "verify", home)["passed"]
    for file in home.glob("concordat.db-*"):
        file.unlink()
    (home / "concordat.db").write_bytes(before)
    with serving(folder, port) as process:
        found = concordat("audit", "verify", home, "--json")
        assert found.returncode == 1
        assert "A witness has seen 3 entries" in json.loads(found.stdout)["findings"][0]
        process.terminate()
        lines = process.communicate(timeout=30)[1].splitlines()
        assert process.returncode == 0
    messages = [json.loads(line)["message"] for line in lines if line.startswith("{")]
    assert all("bank.concordat/log" in message for message in messages)
