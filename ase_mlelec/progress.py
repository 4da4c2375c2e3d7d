"""Progress of long work: a bar at a terminal, elsewhere a line every now and then."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from ase_mlelec import processes

PERIOD = 20.0  # s until the first line, and between lines
LINE = "{n_fmt} of {total_fmt}{unit}, {remaining} left"


class Bar(tqdm):
    """A bar of tqdm, in the first of processes that work together; lines on standard error where that is no terminal.

    Parameters
    ----------
    show : bool
        Whether to show anything.
    **options
        As of tqdm.
    """

    def __init__(self, iterable: Iterable | None = None, *, show: bool = True, **options: Any) -> None:
        self._lines = not sys.stderr.isatty()
        if self._lines:
            title = "{desc}: " if options.get("desc") else ""
            options |= {"bar_format": title + LINE, "mininterval": PERIOD, "delay": PERIOD, "leave": False}
            options["miniters"] = 0  # else tqdm counts iterations instead, and its monitor adds lines meanwhile
        super().__init__(iterable, disable=not show or processes.rank() > 0, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Show the state, or ``msg`` at a terminal."""
        if not self._lines:
            return super().display(msg, pos)
        if msg is None:
            self.fp.write(f"{self}\n")
            self.fp.flush()
        return False
