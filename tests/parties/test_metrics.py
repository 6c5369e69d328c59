import socket
import urllib.request
from pathlib import Path

import pytest
from conftest import make
from prometheus_client.parser import text_string_to_metric_families

from parties import metrics, runs
from parties.errors import PortBusy
from parties.node import Node


def scrape(node: Node) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    with urllib.request.urlopen(f"http://{node.config.metrics}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    return {
        family.name: {
            tuple(sorted(sample.labels.items())): sample.value for sample in family.samples
        }
        for family in text_string_to_metric_families(text)
    }


@pytest.fixture
def node(tmp_path: Path) -> Node:
    node = make(tmp_path, "bank")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    node.config.metrics = f"127.0.0.1:{port}"
    return node


def record(node: Node, run: str, state: str, eligible: int) -> None:
    report = {
        "stages": {
            "gate": {"seconds": 2.0, "cpu_seconds": 1.5, "bytes_sent": 10, "bytes_received": 20}
        },
        "gate": {"eligible": eligible, "excluded": {"expired": 3}},
    }
    with node.writing() as conn:
        runs.record_start(
            conn, run, job="overlap", agreement="a", role="bank", peer="shop", now=node.now()
        )
        runs.record_end(conn, run, state, report, node.now())


def test_metrics_say_what_the_records_say(node: Node) -> None:
    record(node, "1" * 32, "completed", 100)
    record(node, "2" * 32, "completed", 50)
    record(node, "3" * 32, "failed", 0)
    with metrics.serving(node):
        found = scrape(node)
    outcome = (("job", "overlap"), ("role", "bank"))
    assert found["concordat_runs"][*outcome, ("state", "completed")] == 2
    assert found["concordat_runs"][*outcome, ("state", "failed")] == 1
    stage = (("job", "overlap"), ("stage", "gate"))
    assert found["concordat_stage_seconds"][stage] == 6
    assert found["concordat_stage_cpu_seconds"][stage] == 4.5
    assert found["concordat_bytes"][(("direction", "received"),)] == 60
    assert found["concordat_gate_rows"][(("decision", "eligible"),)] == 150
    assert found["concordat_gate_rows"][(("decision", "expired"),)] == 9
    assert found["concordat_log_entries"][()] == 1
    assert 396 * 86400 < found["concordat_certificate_seconds_left"][()] < 398 * 86400


def test_metrics_are_off_unless_asked_for(tmp_path: Path) -> None:
    with metrics.serving(make(tmp_path, "bank")):
        pass


def test_a_busy_metrics_port_is_said_to_be_busy(node: Node) -> None:
    with metrics.serving(node), pytest.raises(PortBusy, match="metrics"), metrics.serving(node):
        pass
