"""What a training tells while it runs: a block at the start, a line every few seconds, and a bar at a terminal."""

import functools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self, TypeVar

from tqdm import tqdm

from ase_mlelec import processes

clock = time.monotonic
Item = TypeVar("Item")
FIRST_LINE, LINE, LARGEST_LINE = 2.0, 5.0, 30.0  # s: until the first line, between lines at first, and later
LINES = 100  # lines after which the time between them grows

# name of an error in a learning curve -> name, unit and factor as users read it
READABLE = {
    "energy_eV_per_atom": ("energy", "meV/atom", 1000.0),
    "forces_eV_per_A": ("forces", "meV/Å", 1000.0),
    "virial_eV_per_atom": ("virial", "meV/atom", 1000.0),
    "ados_per_eV": ("ADOS", "states/eV", 1.0),
    "dos_per_atom_eV": ("DOS", "states/eV/atom", 1.0),
    "root_of_ados": ("root of the ADOS", "(states/eV)^1/2", 1.0),
    "atomic_A": ("atomic vectors", "mÅ", 1000.0),
    "total_A_per_center": ("sums of vectors", "mÅ/center", 1000.0),
    "atomic_A3": ("atomic tensors", "Å^3", 1.0),
    "total_A3_per_center": ("sums of tensors", "Å^3/center", 1.0),
    "ldos": ("LDOS", "of its scale", 1.0),
    "density_relative": ("density", "%", 100.0),
    "band_energy_eV_per_atom": ("band energy", "meV/atom", 1000.0),
    "onsite": ("on-site", "meV", 1000.0),
    "intra_near": ("within layers", "meV", 1000.0),
    "intra_long": ("within layers, far", "meV", 1000.0),
    "inter_near": ("between layers", "meV", 1000.0),
    "inter_long": ("between layers, far", "meV", 1000.0),
    "relative": ("relative to the spread", "%", 100.0),
    "levels": ("levels", "meV", 1000.0),
}
PREFIXES = {"training_": 0, "validation_": 1}


class Log:
    """Lines on standard error, and a progress bar where that is a terminal.

    Parameters
    ----------
    show : bool
        Whether anything is told.
    """

    def __init__(self, show: bool = True):
        self.show, self.bar = show and processes.rank() == 0, None
        self.about: dict[str, str] = {}  # rows of the next block, from the recipe
        self.begun = self.last = clock()
        self.lines = 0

    @classmethod
    def of(cls, progress: "bool | Log") -> Self:
        """A Log as it is, or a new one that shows its lines or not."""
        return progress if isinstance(progress, Log) else cls(progress)  # type: ignore[return-value]

    def tell(self, text: str) -> None:
        """Print a line, above the bar."""
        if self.show:
            tqdm.write(text, file=sys.stderr)
            sys.stderr.flush()

    def block(self, title: str, rows: Mapping[str, str]) -> None:
        """Print a title, and below it the rows that are not empty, each with its name."""
        rows = {name: text for name, text in rows.items() if text}
        width = max(map(len, rows), default=0)
        self.tell("\n".join([title, *(f"  {name:<{width}}  {text}" for name, text in rows.items())]))

    @contextmanager
    def progress(self, *, total: int | None, done: int, unit: str) -> Iterator[Self]:
        """Context with a bar of ``total`` units, ``done`` of them before, in which ``advance`` counts."""
        self.begun = self.last = clock()
        self.lines, self.start = 0, done
        hidden = None if self.show else True
        with tqdm(total=total, initial=done, disable=hidden, unit=f" {unit}", mininterval=1, leave=False) as self.bar:
            yield self
        self.bar = None

    def each(
        self, items: Iterable[Item], total: int, title: str, *, size: Callable[[Item], int] = lambda item: 1
    ) -> Iterator[Item]:
        """Iterate over ``items`` of ``total`` structures, with a bar and lines that begin with ``title``.

        ``size(item)`` is the number of structures of an item.
        """
        done = 0
        with self.progress(total=total, done=0, unit="structures"):
            for item in items:
                yield item
                done += size(item)
                self.advance(total, size(item))
                if self.due:
                    self.line(f"{title} {done}/{total} structures, {duration(self.left(done, total))} left")

    def advance(self, total: int | None = None, n: int = 1) -> None:
        """Move the bar on; ``total`` is its length, which may become known later."""
        if self.bar is not None:
            if total != self.bar.total:
                self.bar.total = total
            self.bar.update(n)

    @property
    def due(self) -> bool:
        """Whether the time has come for a line."""
        if not self.show:
            return False
        now = clock()
        wait = FIRST_LINE if not self.lines else min(LINE * max(self.lines / LINES, 1), LARGEST_LINE)
        return now - self.last >= wait

    def line(self, text: str) -> None:
        self.last = clock()
        self.lines += 1
        self.tell(text)

    def left(self, done: int, total: int) -> float:
        """Seconds left, from the speed since the bar began."""
        return (clock() - self.begun) / max(done - self.start, 1) * (total - done)


def duration(seconds: float) -> str:
    """A time as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def readable_errors(row: Mapping[str, float]) -> str:
    """Errors of a row of a learning curve in the units that users read, as training/validation where there are both."""
    found: dict[str, list] = {}
    for key, value in row.items():
        prefix = next((prefix for prefix in PREFIXES if key.startswith(prefix)), "")
        base = key.removeprefix(prefix)
        # without a prefix it is of the training where there is an error of the validation, and else of held-out data
        place = PREFIXES.get(prefix, 1 if f"training_{base}" in row else 0)
        found.setdefault(base, [None, None])[place] = value
    return "  ".join(_readable(base, *pair) for base, pair in found.items())


def _readable(base: str, training: float | None, validation: float | None) -> str:
    name, unit, factor = READABLE.get(base, (base, "", 1.0))
    shown = "/".join(f"{factor * value:.3g}" for value in (training, validation) if value is not None)
    return f"{name} {shown} {unit}".rstrip()


def counted(numbers: Iterable[tuple[Any, str]]) -> str:
    """Numbers with what they count, joined by commas; zeros are left out."""
    return ", ".join(f"{number} {what}" for number, what in numbers if number)


def shown(progress: bool | Log) -> bool:
    """Whether something is to be told."""
    return progress.show if isinstance(progress, Log) else progress


@functools.cache
def say_once(text: str) -> None:
    """Print a line to the standard error, unless it was printed before."""
    print(text, file=sys.stderr)
