import multiprocessing
import resource
import signal
import sqlite3
import stat
import sys

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from compliance import store
from compliance.errors import (
    NotAStore,
    StoreDamaged,
    StoreFull,
    StoreLocked,
    StoreMissing,
    StoreReadOnly,
    StoreTooNew,
    StoreUnavailable,
    UnsupportedStore,
)
from compliance.log import log_nodes
from compliance.store import SCHEMA_VERSION, open_store, read, write


def node(index):
    return insert(log_nodes).values(level=1, index=index, hash=bytes(32))


def indexes(conn):
    return list(conn.execute(select(log_nodes.c.index)).scalars())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "node.db"


@pytest.fixture
def engine(path):
    return open_store(f"sqlite:///{path}?timeout=0.1", create=True)


def test_a_new_store_is_private_durable_and_forgets_what_is_deleted(engine, path):
    with read(engine) as conn:
        settings = {
            pragma: conn.exec_driver_sql(f"PRAGMA {pragma}").scalar()
            for pragma in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        }
    assert settings == {
        "journal_mode": "wal",
        "synchronous": 2,  # FULL
        "foreign_keys": 1,
        "secure_delete": 1,
    }
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_is_written_stays(engine, path):
    with write(engine) as conn:
        conn.execute(node(0))
    with read(open_store(f"sqlite:///{path}")) as conn:
        assert indexes(conn) == [0]


def test_an_exception_rolls_a_write_back(engine):
    def write_and_fail():
        with write(engine) as conn:
            conn.execute(node(0))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    with read(engine) as conn:
        assert indexes(conn) == []


def test_a_reader_keeps_its_snapshot_and_blocks_nobody(engine):
    with read(engine) as reader:
        assert indexes(reader) == []
        with write(engine) as writer:
            writer.execute(node(0))
        assert indexes(reader) == []
    with read(engine) as reader:
        assert indexes(reader) == [0]


def test_a_second_writer_waits_and_is_told(engine):
    with write(engine), pytest.raises(StoreLocked), write(engine):
        pass


def test_nothing_is_written_through_a_reader(engine):
    with pytest.raises(StoreReadOnly), read(engine) as conn:
        conn.execute(node(0))
    with write(engine) as conn:
        conn.execute(node(0))


def test_a_full_disk_is_reported_and_nothing_half_written(engine):
    with pytest.raises(StoreFull), write(engine) as conn:
        conn.exec_driver_sql("PRAGMA max_page_count = 20")
        for index in range(10_000):
            conn.execute(node(index))
    with read(engine) as conn:
        assert indexes(conn) == []


def test_a_read_only_file(engine, path):
    with write(engine) as conn:
        conn.execute(node(7))
    engine.dispose()
    read_only = open_store(f"sqlite:///file:{path}?mode=ro&uri=true")
    with pytest.raises(StoreReadOnly), write(read_only) as conn:
        conn.execute(node(0))
    with read(read_only) as conn:
        assert indexes(conn) == [7]


def _write_into_a_short_file(path, room):
    """In a process of its own: files may not grow beyond what the store has, and a little."""
    engine = store.open_store(f"sqlite:///{path}")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    try:
        with write(engine) as conn:
            for index in range(100, 20_000):
                conn.execute(node(index))
    except (StoreUnavailable, StoreFull):
        sys.exit(7)


def test_a_file_that_may_not_grow(engine, path):
    """RLIMIT_FSIZE, as a quota or a full disk: root is not exempt from it."""
    with write(engine) as conn:
        conn.execute(node(7))
    context = multiprocessing.get_context("spawn")
    room = 64 << 10
    writing = context.Process(target=_write_into_a_short_file, args=(path, room))
    writing.start()
    writing.join()
    assert writing.exitcode == 7
    with write(engine) as conn:
        assert indexes(conn) == [7]
        conn.execute(node(8))


def test_programming_errors_are_not_disguised_and_show_no_values(engine):
    with write(engine) as conn:
        conn.execute(node(7))
    with pytest.raises(IntegrityError) as caught, write(engine) as conn:
        conn.execute(insert(log_nodes).values(level=1, index=7, hash=b"a person's data"))
    assert "person" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "nonsense", "sqlite://", "sqlite:///:memory:", "postgresql://localhost/node"]
)
def test_other_urls_are_refused(url):
    with pytest.raises(UnsupportedStore):
        open_store(url, create=True)


def test_a_missing_store_is_not_replaced_by_an_empty_one(path):
    for url in (f"sqlite:///{path}", f"sqlite:///file:{path}?mode=rwc&uri=true"):
        with pytest.raises(StoreMissing):
            open_store(url)
        assert not path.exists()
    path.touch()
    with pytest.raises(StoreMissing):
        open_store(f"sqlite:///{path}")


def test_a_missing_folder(tmp_path):
    with pytest.raises(StoreUnavailable):
        open_store(f"sqlite:///{tmp_path}/missing/node.db", create=True)


def test_a_file_that_is_no_database(path):
    path.write_bytes(b"not a database, but longer than the header of one" * 10)
    with pytest.raises(NotAStore):
        open_store(f"sqlite:///{path}", create=True)


def test_another_programs_database(path):
    with sqlite3.connect(path) as conn:
        conn.execute("CREATE TABLE songs (title)")
    with pytest.raises(NotAStore, match="another program"):
        open_store(f"sqlite:///{path}", create=True)
    with sqlite3.connect(path) as conn:
        assert conn.execute("SELECT name FROM sqlite_master").fetchall() == [("songs",)]


def test_a_newer_store(engine, path):
    with sqlite3.connect(path) as conn:
        conn.execute("UPDATE schema_version SET version = ?", (SCHEMA_VERSION + 1,))
    with pytest.raises(StoreTooNew):
        open_store(f"sqlite:///{path}")


@pytest.mark.parametrize(
    "change", ["DELETE FROM schema_version", "INSERT INTO schema_version VALUES (7)"]
)
def test_a_store_that_does_not_say_one_version(engine, path, change):
    with sqlite3.connect(path) as conn:
        conn.execute(change)
    with pytest.raises(StoreDamaged):
        open_store(f"sqlite:///{path}")


def test_a_truncated_file(engine, path):
    with write(engine) as conn:
        for index in range(2000):
            conn.execute(node(index))
    engine.dispose()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(StoreDamaged), read(open_store(f"sqlite:///{path}")) as conn:
        indexes(conn)


def _open(path, index):
    with write(store.open_store(f"sqlite:///{path}", create=True)) as conn:
        conn.execute(node(index))


def test_processes_may_open_a_new_store_at_once(path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_open, args=(path, index)) for index in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    with read(open_store(f"sqlite:///{path}")) as conn:
        assert sorted(indexes(conn)) == [0, 1, 2, 3]
