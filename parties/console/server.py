"""The console served on loopback, in plain HTTP: nothing of it leaves the machine."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from parties.console import PORT, app
from parties.console.visit import Console
from parties.errors import PortBusy
from parties.node import Node

_CONNECTIONS = 64


def listen(port: int) -> socket.socket:
    """At a port of loopback, any free one for 0. Raises PortBusy."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        raise PortBusy(
            f"The console cannot listen at port {port} of this machine.",
            "Another program has it, perhaps a console already: name another one with --port.",
        ) from error


@contextmanager
def serving(node: Node, port: int = PORT) -> Iterator[Console]:
    """Serves in a thread until the block ends. Raises PortBusy."""
    with listen(port) as listening:
        console = Console(node, listening.getsockname()[1])
        settings = uvicorn.Config(
            app.make(console),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_CONNECTIONS,
            h11_max_incomplete_event_size=16 << 10,
            timeout_graceful_shutdown=5,
        )
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, args=([listening],), name="console")
        thread.start()
        try:
            yield console
        finally:
            server.should_exit = True
            thread.join()
