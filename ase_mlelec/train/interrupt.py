"""Ctrl-C and the signal that ends a job: a training ends its step, saves, and says how to go on."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ase_mlelec import processes

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A training was interrupted, after it had saved what it had; the text says how to go on.

    Attributes
    ----------
    code : int
        Exit code of a program that ends by it: 128 and the number of the signal.
    """

    def __init__(self, message: str, code: int = 128 + signal.SIGINT):
        super().__init__(message)
        self.code = code


class Stop:
    """Whether a signal has asked to stop; ``number`` is the signal, or 0."""

    number = 0

    def __bool__(self):
        return bool(self.number)

    def agreed(self) -> bool:
        """Whether one of the processes that work together has the signal; then all of them have it."""
        found = processes.largest(self.number)
        if found:  # else a signal that came meanwhile stays
            self.number = found
        return bool(found)


@contextmanager
def explained(how: Callable[[], str]) -> Iterator[None]:
    """Context in which an interruption outside of all loops becomes Interrupted, whose text ends in ``how()``."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if str(stop):
            raise
        raise Interrupted(f"interrupted; {how()}", getattr(stop, "code", Interrupted("").code)) from None


@contextmanager
def stopping() -> Iterator[Stop]:
    """Context in which the first signal sets a Stop, and a second one interrupts at once.

    Signals that the program ignores, as in the background of a shell, stay ignored. In threads other than the main
    thread nothing changes, because Python gives signals to the main thread alone.
    """
    stop, former = Stop(), {}

    def ask(number, frame):
        if stop:
            raise KeyboardInterrupt
        stop.number = number

    if threading.current_thread() is threading.main_thread():
        former = {number: signal.getsignal(number) for number in SIGNALS}
        former = {number: known for number, known in former.items() if known not in (signal.SIG_IGN, None)}
    for number in former:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, known in former.items():
            signal.signal(number, known)
    if stop:  # it came when nothing looked at it any more
        raise Interrupted("", 128 + stop.number)
