"""Work on several cores: threads take chunks of atoms or grid points, and every operation inside has one thread.

PyTorch itself splits each large operation among threads, which wait for each other at its end. Beside another program
each of these waits lasts until the operating system runs the late thread again, and a step has hundreds of them. A
thread that takes whole chunks, one after the other, waits for nobody; if it is late, it takes fewer of them.
"""

import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import threadpoolctl
import torch

MOST = 8  # threads; more would wait for each other in Python, which runs one at a time

Item = TypeVar("Item")
Result = TypeVar("Result")

_given = threading.local()  # threads: how many the outermost ``one_thread_each`` of this thread may use


def available() -> int:
    """Tell how many threads may take chunks.

    They are as many as ``torch.get_num_threads()``, which ``torch.set_num_threads`` and the environment variable
    OMP_NUM_THREADS set, but not more than the cores that this process may use, and at most MOST.

    Returns
    -------
    int
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(torch.get_num_threads(), cores, MOST))


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Context in which an operation of PyTorch has one thread, and ``map_chunks`` as many as are ``available`` outside.

    PyTorch's number of threads is restored at the end.
    """
    if getattr(_given, "threads", 0):
        yield
        return
    before, _given.threads = torch.get_num_threads(), available()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _given.threads = 0
        torch.set_num_threads(before)


def one_blas_thread() -> AbstractContextManager:
    """Context in which products and decompositions of NumPy and SciPy have one thread.

    Their library of linear algebra (OpenBLAS, say) divides even small ones among all cores, and its threads wait for each
    other as PyTorch's do, at their end; its number of threads belongs to the whole process and is restored at the end.
    """
    return threadpoolctl.threadpool_limits(1, user_api="blas")


def map_chunks(
    function: Callable[[Item], Result], chunks: Iterable[Item], *, device: str | torch.device = "cpu"
) -> Iterator[Result]:
    """Iterate over the results of a function of chunks, in the order of the chunks.

    Inside ``one_thread_each`` several threads take the chunks. Results do not depend on their number, because every
    chunk is evaluated as it would be alone, and the caller sees the results in one order.

    Parameters
    ----------
    function : callable
        Function of a chunk; it sets ``torch.no_grad`` itself where it needs it, as such modes belong to a thread.
    chunks : iterable
        They are taken from it as needed: few of them exist at a time.
    device : torch device
        Of the work; a device other than the CPU gets one chunk after the other.
    """
    threads = getattr(_given, "threads", 0) if torch.device(device).type == "cpu" else 1
    if threads > 1:
        yield from _in_threads(function, chunks, threads)
    else:
        yield from map(function, chunks)


def _in_threads(function, chunks, threads):
    chunks, waiting = iter(chunks), deque[Future]()
    first = list(_up_to(chunks, 2))
    if len(first) < 2:  # a single chunk needs no other thread
        yield from map(function, first)
        return
    try:
        pool = _pool(threads, os.getpid())
        waiting.extend(pool.submit(function, chunk) for chunk in first)
        while waiting:
            waiting.extend(pool.submit(function, chunk) for chunk in _up_to(chunks, 2 * threads - len(waiting)))
            yield waiting.popleft().result()
    finally:  # after an error, or where the caller leaves the loop
        for each in waiting:
            each.cancel()


def _up_to(chunks, n):
    return (chunk for _, chunk in zip(range(n), chunks))


@functools.lru_cache
def _pool(threads, process):
    """The threads of a process; after a fork, the new process has none of its parent's."""
    return ThreadPoolExecutor(threads, "ase-mlelec", initializer=torch.set_num_threads, initargs=(1,))
