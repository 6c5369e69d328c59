"""Computing while sending or receiving: the one place where a protocol uses a second thread."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def pipelined(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """map(function, items), each call in a second thread.

    It runs while the caller gets the next item or uses the last result; no more than two items are
    under way. The kernels release the interpreter's lock, so that this gains time. A call's
    exception is raised where its result would have been.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="pipeline")
    running: Future[Result] | None = None
    try:
        for item in items:
            following = thread.submit(function, item)
            if running is not None:
                yield running.result()
            running = following
        if running is not None:
            yield running.result()
    finally:
        # If the run has failed, nobody waits for what is being computed.
        thread.shutdown(wait=False, cancel_futures=True)
