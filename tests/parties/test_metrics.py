import json
import re
import socket
import urllib.request
from pathlib import Path

import pytest
from conftest import make
from prometheus_client.parser import text_string_to_metric_families

from parties import metrics, runs
from parties.errors import PortBusy
from parties.node import Node

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana" / "concordat.json"


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


# The dashboard


def samples(node: Node) -> dict[str, set[str]]:
    """The labels of every metric, by the names that Prometheus stores."""
    with urllib.request.urlopen(f"http://{node.config.metrics}/metrics", timeout=10) as reply:
        families = text_string_to_metric_families(reply.read().decode())
        return {one.name: {*one.labels} for family in families for one in family.samples}


def test_the_dashboard_shows_every_metric_there_is_and_no_other(node: Node) -> None:
    record(node, "1" * 32, "completed", 100)
    with metrics.serving(node):
        there = samples(node)
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    named = set()
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            metric_names = set(re.findall(r"\bconcordat_\w+", target["expr"]))
            assert metric_names, panel["title"]
            labels = set.union(*(there[name] for name in metric_names)) | {"instance"}
            text = target["expr"] + target["legendFormat"]
            used = re.findall(r"by \(([^)]*)\)|\{\{(\w+)\}\}", text)
            assert {one for found in used for one in re.findall(r"\w+", " ".join(found))} <= labels
            named |= metric_names
    assert named == {name for name in there if not name.endswith("_created")}
    for variable in dashboard["templating"]["list"]:
        asked = re.findall(r"\bconcordat_\w+", json.dumps(variable["query"]))
        assert set(asked) <= named


def test_the_dashboard_has_what_grafana_asks_of_one() -> None:
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    assert dashboard["title"] and dashboard["uid"] and dashboard["schemaVersion"] >= 36
    assert {"from", "to"} <= dashboard["time"].keys()
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        assert panel["type"] in {"stat", "timeseries"} and panel["title"]
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)
        for one in (panel, *panel["targets"]):
            assert one["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
