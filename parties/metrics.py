"""Prometheus metrics, read from the node's own records when they are asked for.

No label holds an identifier: only the kinds of jobs, states, stages and directions there are, and
the names of partners.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from compliance.log import tree_size
from parties import runs
from parties.errors import PortBusy
from parties.node import Node

Families = Iterator[CounterMetricFamily | GaugeMetricFamily]


class NodeCollector(Collector):
    """Runs by outcome, what their stages cost, rows at the gate, the log, certificates."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Families:
        node = self._node
        with node.reading() as conn:
            size, head = tree_size(conn), node.log.head(conn)
            reports = runs.outcomes(conn)
        yield GaugeMetricFamily("concordat_log_entries", "Entries in the log.", size)
        yield GaugeMetricFamily(
            "concordat_log_checkpoint_entries",
            "Entries under the latest checkpoint.",
            head.size if head else 0,
        )
        yield GaugeMetricFamily(
            "concordat_log_cosignatures",
            "Witnesses that cosigned the latest checkpoint.",
            len(head.signatures) - 1 if head else 0,
        )
        yield GaugeMetricFamily(
            "concordat_certificate_seconds_left",
            "Until the node's certificate expires.",
            (node.certificate().not_valid_after_utc - node.now()).total_seconds(),
        )
        yield GaugeMetricFamily("concordat_peers", "Paired partners.", len(node.peers()))
        yield from _of_runs(reports)


def _of_runs(reports: list[runs.Outcome]) -> Families:
    ended = CounterMetricFamily(
        "concordat_runs", "Runs by what became of them.", labels=["job", "role", "state"]
    )
    for key, count in Counter((run.job, run.role, run.state) for run in reports).items():
        ended.add_metric(key, count)
    yield ended

    seconds: dict[tuple[str, str], float] = defaultdict(float)
    cpu: dict[tuple[str, str], float] = defaultdict(float)
    traffic: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    for run in reports:
        for stage, cost in run.report.get("stages", {}).items():
            seconds[run.job, stage] += cost["seconds"]
            cpu[run.job, stage] += cost["cpu_seconds"]
            traffic["sent"] += cost["bytes_sent"]
            traffic["received"] += cost["bytes_received"]
        gate = run.report.get("gate", {})
        rows["eligible"] += gate.get("eligible", 0)
        rows.update(gate.get("excluded", {}))
    for name, text, values in (
        ("concordat_stage_seconds", "Time spent in a stage of a job.", seconds),
        ("concordat_stage_cpu_seconds", "CPU time spent in a stage of a job.", cpu),
    ):
        family = CounterMetricFamily(name, text, labels=["job", "stage"])
        for labels, spent in values.items():
            family.add_metric(labels, spent)
        yield family
    for name, text, label, counts in (
        ("concordat_bytes", "Bytes of frames.", "direction", traffic),
        ("concordat_gate_rows", "Rows at the gate, by what it decided.", "decision", rows),
    ):
        family = CounterMetricFamily(name, text, labels=[label])
        for value, count in counts.items():
            family.add_metric([value], count)
        yield family


@contextmanager
def serving(node: Node) -> Iterator[None]:
    """Answer scrapes at the address of the setting `metrics`, if there is one. Raises PortBusy."""
    if node.config.metrics is None:
        yield
        return
    registry = CollectorRegistry()
    registry.register(NodeCollector(node))
    host, _, port = node.config.metrics.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host, registry)
    except (OSError, OverflowError) as error:
        raise PortBusy(
            f"The node cannot offer its metrics at {node.config.metrics}.",
            f"Stop the program that has the port, or change `metrics` in {node.home.config_file}.",
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
