"""A forked process in which inputs are tried one after another, with limits that the kernel enforces."""

import multiprocessing
import os
import resource
import signal
import sys
import time
import warnings
from pathlib import Path

from judge import Verdict, largest

SECONDS = 5  # of the processor, for one input
PATIENCE = 120  # seconds by the clock, for one input that waits for something
MEMORY = 1 << 30  # bytes beyond what the process has at its beginning


class Worker:
    """Calls ``judge(input)``, which returns a Verdict, in another process; begins a new one where that has died."""

    def __init__(self, judge):
        self._judge, self._process = judge, None

    def __call__(self, value):
        if self._process is None:
            self._start()
        self._pipe.send(value)
        end = time.monotonic() + PATIENCE
        while not self._pipe.poll(0.2):
            if not self._process.is_alive() or time.monotonic() > end:
                return self._dead()
        try:
            return self._pipe.recv()
        except EOFError:
            return self._dead()

    def close(self):
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None

    def _start(self):
        self._pipe, theirs = multiprocessing.Pipe()
        fork = multiprocessing.get_context("fork")
        self._process = fork.Process(target=_serve, args=(theirs, self._judge), daemon=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
            self._process.start()
        theirs.close()

    def _dead(self):
        self._process.join(1)  # one that dies closes its pipe before it is gone
        waits = self._process.is_alive()
        code = self._process.exitcode
        self.close()
        if waits:
            return Verdict(f"waits for more than {PATIENCE} s", "hangs", PATIENCE, 0)
        if code == -signal.SIGXCPU:
            return Verdict(f"takes more than {SECONDS} s of the processor", "hangs", SECONDS, 0)
        return Verdict(f"the process ends with {signal.Signals(-code).name if code < 0 else code}", "dies", 0, 0)


def _serve(pipe, judge):
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if sys.platform.startswith("linux"):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, resource.RLIM_INFINITY))
    first = largest()
    while True:
        try:
            value = pipe.recv()
        except EOFError:
            os._exit(0)
        used = int(time.process_time())
        resource.setrlimit(resource.RLIMIT_CPU, (used + SECONDS + 1, resource.RLIM_INFINITY))
        verdict = judge(value)
        pipe.send(verdict._replace(kib=verdict.kib - first))
