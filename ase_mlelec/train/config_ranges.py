"""Which numbers and texts make sense for every key of a configuration."""

from dataclasses import dataclass

LARGEST_WEIGHT = 1e12  # of a term of a loss
LONGEST = 30.0  # Å, of cutoffs: thousands of neighbours
MOST_FILES, LONGEST_TEXT = 10_000, 4096


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, without the ends that are open; in lists ``entries``, (fewest, most)."""

    low: float
    high: float
    open_low: bool = False
    open_high: bool = False
    entries: tuple = (0, 16)

    def __contains__(self, value):
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self):
        return (
            f"{'more than' if self.open_low else 'at least'} {self.low:.12g} and "
            f"{'less than' if self.open_high else 'at most'} {self.high:.12g}"
        )


def _positive(high, **options):
    return Range(0, high, open_low=True, **options)


WEIGHT, LENGTH, WIDTHS, RATE = Range(0, LARGEST_WEIGHT), Range(0, LONGEST), Range(1, 4096), _positive(1000.0)
TRAINING = {"steps": Range(1, 10**8), "learning_rate": RATE, "batch_size": Range(1, 10**6)}
DESCRIPTOR = {
    "cutoff": _positive(LONGEST),
    "smooth": LENGTH,
    "widths": Range(1, 4096, entries=(1, 8)),
    "n_axis": Range(1, 4096),
    "l_max": Range(1, 3),
    "n_basis": Range(0, 256),
    "sel": Range(1, 100_000, entries=(0, 118)),
    "n_products": Range(0, 4096),
}
CENTRES = {"widths": WIDTHS, "atomic": WEIGHT, "total": WEIGHT, **TRAINING}
# section -> key -> Range; "" has the keys before the first section
RANGES = {
    "": {"seed": Range(0, 2**32 - 1), "committee": Range(1, 1000)},
    "data": {"validation_fraction": Range(0, 1, open_high=True)},
    "descriptor": DESCRIPTOR,
    "electronic": DESCRIPTOR,
    "power_spectrum": {
        "cutoff": _positive(LONGEST),
        "inner": LENGTH,
        "n_pair": Range(1, 100),
        "n_radial": Range(1, 50),
        "l_max": Range(0, 20),
        "near": LENGTH,
        "roughest": Range(0, 30),
        "roughest_5": Range(0, 30),
    },
    "energy": {
        "widths": WIDTHS,
        "energy": WEIGHT,
        "forces": WEIGHT,
        "virial": WEIGHT,
        "strong_force": _positive(1e6),
        **dict.fromkeys(("ridge", "coarse_ridge", "far_weight"), _positive(1e12)),
        "relevance": Range(0, 1000),
        **TRAINING,
    },
    "dos": {"widths": WIDTHS, "atomic": WEIGHT, "total": WEIGHT, "cumulative": WEIGHT, **TRAINING},
    "dipole": CENTRES,
    "polarizability": CENTRES,
    "bispectrum": {"twojmax": Range(1, 16), "cutoff": _positive(LONGEST), "rmin0": LENGTH, "n_radial": Range(0, 200)},
    "ldos": {
        "widths": WIDTHS,
        "epochs": Range(1, 10**8),
        "patience": Range(1, 10**8),
        "batch_points": Range(0, 10**9),
        "learning_rate": RATE,
        "batch_size": TRAINING["batch_size"],
        **dict.fromkeys(
            ("ldos", "density", "dos", "band_energy", "dos_weight", "hold", "force_weight", "energy_weight"), WEIGHT
        ),
    },
    "hamiltonian": {
        "cutoff": Range(11, LONGEST, open_low=True),
        "environment": _positive(LONGEST),
        "n_radial": Range(1, 50),
        "spectrum": LENGTH,
        "third": LENGTH,
        "widths": WIDTHS,
        **TRAINING,
        **dict.fromkeys(("onsite", "intra_near", "intra_long", "inter_near", "inter_long", "levels"), WEIGHT),
    },
}


def check_numbers(section, key, value):
    """Raise ValueError for a number out of range, and a list of numbers that is too short or too long.

    value : a number or a tuple of them; others are left alone
    """
    name, allowed = f"{section}.{key}" if section else key, RANGES.get(section, {}).get(key)
    if allowed is None or value is None:
        return
    several = isinstance(value, tuple)
    fewest, most = allowed.entries
    if several and not fewest <= len(value) <= most:
        raise ValueError(f"{name}: got {len(value)} entries, need {fewest} to {most}")
    for k, entry in enumerate(value if several else (value,)):
        if entry not in allowed:
            raise ValueError(
                f"{name}{f'[{k}]' * several}: got {entry if isinstance(entry, int) else f'{entry:.12g}'}, "
                f"need {allowed}"
            )


def check_texts(name, value):
    """Raise ValueError for a text, or one of a tuple, that no name of a file or group can be, and for too many."""
    several = isinstance(value, tuple)
    if several and len(value) > MOST_FILES:
        raise ValueError(f"{name}: got {len(value)} entries, need at most {MOST_FILES}")
    for k, text in enumerate(value if several else (value,)):
        if not isinstance(text, str):
            continue
        place = f"{name}{f'[{k}]' * several}"
        if not text.strip() and (several or text):
            raise ValueError(f"{place}: got {text!r}, need a text that is not empty")
        if len(text) > LONGEST_TEXT or not text.isprintable():
            raise ValueError(
                f"{place}: got {text[:40]!r}{'...' * (len(text) > 40)}, need at most {LONGEST_TEXT} "
                "printable characters"
            )
