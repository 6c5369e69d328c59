"""Many partners' connections at once, to a node in a process of its own."""

import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from parties import admin
from parties.config import Home
from parties.node import Node

AT_ONCE, EACH = 32, 15


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Node, subprocess.Popen[bytes]]]:
    node = Node.create(Home(tmp_path / "bank"), "bank", "bank", None)
    process = subprocess.Popen([sys.executable, "-m", "parties", "serve", node.home.path])
    try:
        admin.status(node.home, 60)
        yield node, process
    finally:
        process.terminate()
        process.wait(20)


def handshakes(node: Node, count: int) -> int:
    """How many of them came to an end: the node then waits for HTTP/2's first words."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=node.identity.authority_pem)
    context.load_cert_chain(node.home.certificate("node"), node.home.key("node"))
    context.set_alpn_protocols(["h2"])
    host, _, port = node.config.address.rpartition(":")
    done = 0
    for _ in range(count):
        with (
            socket.create_connection((host, int(port)), 20) as line,
            context.wrap_socket(line) as secure,
        ):
            done += bool(secure.recv(1))
    return done


def test_a_storm_of_handshakes(served: tuple[Node, subprocess.Popen[bytes]]) -> None:
    """None fails, before and after a renewal."""
    node, process = served
    with ThreadPoolExecutor(AT_ONCE) as threads:
        waiting = [threads.submit(handshakes, node, EACH) for _ in range(AT_ONCE)]
        time.sleep(0.5)
        assert process.poll() is None
        assert [one.result(60) for one in waiting] == [EACH] * AT_ONCE
        node.renew_certificate()
        waiting = [threads.submit(handshakes, node, 1) for _ in range(AT_ONCE)]
        assert [one.result(60) for one in waiting] == [1] * AT_ONCE
    assert process.poll() is None
    assert admin.ping(node.home)
