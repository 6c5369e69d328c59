"""Features of raw tables: every one of a library, from a Parquet file to a row a person."""

from benchmarks.environment import Environment
from benchmarks.measure import Bench
from benchmarks.worker import Worker

NOTE = "no peer makes these; asked for is a minute for ten million: 6 µs an event"
EVENTS, QUICK = 10_000_000, 1_000_000
EVENTS_A_PERSON = 20


def run(bench: Bench, _: Environment) -> None:
    events = QUICK if bench.quick else EVENTS
    for library, function in (("ecommerce", "shop"), ("telecom", "operator")):
        worker = Worker(
            f"concordat {library}",
            "features",
            function,
            events=events,
            people=events // EVENTS_A_PERSON,
        )
        bench.compare(
            f"all features of {library}, {events:,} events in Parquet",
            [worker],
            element="event",
            rounds=3 if bench.quick else 1,
            note=NOTE,
        )
