import multiprocessing
import resource
import signal
import stat
import sys
import threading

import pytest
from sqlalchemy import (
    LargeBinary,
    create_engine,
    delete,
    insert,
    inspect,
    make_url,
    select,
    text,
    true,
    type_coerce,
)
from sqlalchemy.exc import IntegrityError

from compliance import migrations, store
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
from compliance.log import log_entries, log_nodes
from compliance.store import insert_columns, mistyped, open_store, packed, read, write


def node(index):
    return insert(log_nodes).values(level=1, index=index, hash=bytes(32))


def indexes(conn):
    return list(conn.execute(select(log_nodes.c.index)).scalars())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "node.db"


@pytest.fixture
def engine(store_url):
    return open_store(impatient(store_url), create=True)


def impatient(url):
    """The same store, by a process that waits a tenth of a second for another to write."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        parsed = parsed.update_query_dict({"timeout": "0.1"})
    else:
        options = parsed.query["options"] + " -clock_timeout=100"
        parsed = parsed.update_query_dict({"options": options})
    return parsed.render_as_string(hide_password=False)


def test_a_new_file_is_private_durable_and_forgets_what_is_deleted(path):
    with read(open_store(f"sqlite:///{path}", create=True)) as conn:
        settings = {
            pragma: conn.exec_driver_sql(f"PRAGMA {pragma}").scalar()
            for pragma in (
                "journal_mode",
                "synchronous",
                "foreign_keys",
                "secure_delete",
                "temp_store",
            )
        }
    assert settings == {
        "journal_mode": "wal",
        "synchronous": 2,  # FULL
        "foreign_keys": 1,
        "secure_delete": 1,
        "temp_store": 2,  # MEMORY: no copies outside the file
    }
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_postgresql_is_durable(postgresql_server):
    url = postgresql_server.new_store()
    with read(open_store(url, create=True)) as conn:
        settings = [
            conn.exec_driver_sql(f"SHOW {name}").scalar()
            for name in ("fsync", "synchronous_commit", "transaction_isolation")
        ]
    assert settings == ["on", "on", "repeatable read"]
    forgetful = make_url(url)
    options = forgetful.query["options"] + " -csynchronous_commit=off"
    forgetful = forgetful.update_query_dict({"options": options})
    with write(open_store(forgetful.render_as_string(hide_password=False))) as conn:
        assert conn.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"


def test_what_is_written_stays(engine, store_url):
    with write(engine) as conn:
        conn.execute(node(0))
    with read(open_store(store_url)) as conn:
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


def test_a_second_writer_that_waits_sees_what_the_first_has_written(store_url):
    engine = open_store(store_url, create=True)
    began = threading.Event()
    seen = []

    def second():
        began.set()
        with write(engine) as conn:
            seen.extend(indexes(conn))

    waiting = threading.Thread(target=second)
    with write(engine) as conn:
        waiting.start()
        began.wait()
        waiting.join(0.3)
        assert waiting.is_alive()
        conn.execute(node(0))
    waiting.join()
    assert seen == [0]


def test_nothing_is_written_through_a_reader(engine):
    with pytest.raises(StoreReadOnly), read(engine) as conn:
        conn.execute(node(0))
    with write(engine) as conn:
        conn.execute(node(0))


def test_a_full_disk_is_reported_and_nothing_half_written(path):
    engine = open_store(f"sqlite:///{path}", create=True)
    with pytest.raises(StoreFull), write(engine) as conn:
        conn.exec_driver_sql("PRAGMA max_page_count = 20")
        for index in range(10_000):
            conn.execute(node(index))
    with read(engine) as conn:
        assert indexes(conn) == []


def test_a_read_only_file(path):
    engine = open_store(f"sqlite:///{path}", create=True)
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


def test_a_file_that_may_not_grow(path):
    """RLIMIT_FSIZE, as a quota or a full disk: root is not exempt from it."""
    engine = open_store(f"sqlite:///{path}", create=True)
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
    "url",
    [
        "",
        "nonsense",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite+pysqlcipher:///file.db",
        "postgresql+psycopg://localhost",
        "postgresql+psycopg2://localhost/node",
        "mysql://localhost/node",
    ],
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


def test_a_missing_store_in_a_database_is_not_replaced_either(postgresql_server):
    with pytest.raises(StoreMissing):
        open_store(postgresql_server.new_store())


def test_a_missing_folder(tmp_path):
    with pytest.raises(StoreUnavailable):
        open_store(f"sqlite:///{tmp_path}/missing/node.db", create=True)


def test_a_server_that_does_not_answer_or_lets_nobody_in(postgresql_server):
    with pytest.raises(StoreUnavailable) as caught:
        open_store("postgresql+psycopg://wang:secret@127.0.0.1:9/node?connect_timeout=2")
    assert "secret" not in f"{caught.value}{caught.value.__cause__}"
    url = make_url(postgresql_server.new_store())
    for wrong in (url.set(database="missing"), url.set(username="nobody")):
        with pytest.raises(StoreUnavailable):
            open_store(wrong.render_as_string(hide_password=False))


def test_a_user_who_may_not_write(postgresql_server):
    url = make_url(postgresql_server.new_store())
    owner = open_store(url.render_as_string(hide_password=False), create=True)
    with create_engine(url).begin() as conn:
        conn.execute(text("CREATE ROLE reader LOGIN"))
        schema = conn.execute(text("SELECT current_schema()")).scalar()
        conn.execute(text(f"GRANT USAGE ON SCHEMA {schema} TO reader"))
        conn.execute(text(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO reader"))
    reader = open_store(url.set(username="reader").render_as_string(hide_password=False))
    with pytest.raises(StoreReadOnly), write(reader) as conn:
        conn.execute(node(0))
    with read(owner) as conn:
        assert indexes(conn) == []


def test_a_server_that_is_restarted_interrupts_nothing_but_the_moment(postgresql_server):
    engine = open_store(postgresql_server.new_store(), create=True)
    with write(engine) as conn:
        conn.execute(node(0))
    with pytest.raises(StoreUnavailable), write(engine) as conn:
        conn.execute(node(1))
        postgresql_server.restart()
        conn.execute(node(2))
    with read(engine) as conn:
        assert indexes(conn) == [0]


def test_a_file_that_is_no_database(path):
    path.write_bytes(b"not a database, but longer than the header of one" * 10)
    with pytest.raises(NotAStore):
        open_store(f"sqlite:///{path}", create=True)


def change(url, statement):
    with create_engine(url).begin() as conn:
        conn.execute(text(statement))


def test_another_programs_database(store_url):
    change(store_url, "CREATE TABLE songs (title VARCHAR)")
    with pytest.raises(NotAStore, match="another program"):
        open_store(store_url)
    assert inspect(create_engine(store_url)).get_table_names() == ["songs"]


def test_a_newer_store(engine, store_url):
    change(store_url, f"UPDATE schema_version SET version = {migrations.VERSION + 1}")  # noqa: S608
    with pytest.raises(StoreTooNew):
        open_store(store_url)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM schema_version",
        "INSERT INTO schema_version VALUES (7)",
        "UPDATE schema_version SET version = 0",
    ],
)
def test_a_store_that_does_not_say_one_version(engine, store_url, statement):
    change(store_url, statement)
    with pytest.raises(StoreDamaged):
        open_store(store_url)


def test_a_truncated_file(path):
    engine = open_store(f"sqlite:///{path}", create=True)
    with write(engine) as conn:
        for index in range(2000):
            conn.execute(node(index))
    engine.dispose()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(StoreDamaged), read(open_store(f"sqlite:///{path}")) as conn:
        indexes(conn)


def _open(url, index):
    with write(store.open_store(url, create=True)) as conn:
        conn.execute(node(index))


def test_processes_may_open_a_new_store_at_once(store_url):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_open, args=(store_url, index)) for index in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    with read(open_store(store_url)) as conn:
        assert sorted(indexes(conn)) == [0, 1, 2, 3]


@pytest.mark.parametrize("rows", [0, 1, 9, 50, 103])
@pytest.mark.parametrize("run", [None, "r1"])
def test_columns_are_inserted_as_they_are(engine, rows, run):
    columns = {
        "index": [*range(rows)],
        "leaf": [b"\0\xff%d" % n for n in range(rows)],
        "leaf_hash": [bytes([n]) * 32 for n in range(rows)],
        "type": ["é"] * rows,
        "time": [""] * rows,
        "run": [run, None] * (rows // 2) + [None] * (rows % 2),
    }
    with write(engine) as conn:
        insert_columns(conn, log_entries, columns)
        found = conn.execute(select(log_entries).order_by(log_entries.c.index)).all()
        assert [*map(tuple, found)] == [*zip(*columns.values(), strict=True)]
        assert not [*mistyped(conn)]


def test_many_values_at_once(engine):
    hashes = [bytes([index]) * 32 for index in range(5)]
    with write(engine) as conn:
        for index in (4, 0, 3, 1, 2):
            conn.execute(insert(log_nodes).values(level=1, index=index, hash=hashes[index]))
    nodes = log_nodes.c
    with read(engine) as conn:
        where = nodes.index.between(1, 3)
        columns = [nodes.hash, nodes.index, nodes.index * 10 + nodes.level]
        assert packed(conn, columns, where, [nodes.index]) == (
            3,
            [b"".join(hashes[1:4]), b"1\n2\n3", b"11\n21\n31"],
        )
        assert packed(conn, columns, nodes.index > 9) == (0, [b"", b"", b""])
        assert packed(conn, [type_coerce(nodes.hash, LargeBinary(31))], where) is None


def test_values_of_another_type_are_not_read_at_once(path):
    engine = open_store(f"sqlite:///{path}", create=True)
    longer = "hash = '" + "é" * 32 + "'"  # as many letters as there should be bytes
    for change in ("hash = 'text'", "hash = 5", "hash = x'00'", longer, "\"index\" = 'text'"):
        with write(engine) as conn:
            conn.execute(node(0))
            conn.exec_driver_sql(f"UPDATE log_nodes SET {change}")  # noqa: S608
            assert packed(conn, [log_nodes.c.hash, log_nodes.c.index], true()) is None
            conn.execute(delete(log_nodes))
