"""Stores to test with, on every database there is."""

from collections.abc import Callable, Iterator
from pathlib import Path

import postgres
import pytest

NewStore = Callable[[str], str]


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[postgres.Server]:
    with postgres.serving() as server:
        if server is None:
            pytest.skip(postgres.MISSING)
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> NewStore:
    """Makes the URL of a new store of that name; the test runs once on each database."""
    if request.param == "sqlite":
        return lambda name: f"sqlite:///{tmp_path}/{name}.db"
    server = request.getfixturevalue("postgresql_server")
    return lambda name: server.new_store()


@pytest.fixture
def store_url(new_store: NewStore) -> str:
    return new_store("node")
