"""Entries of a model's metadata on which results depend: their types and ranges."""

from collections.abc import Mapping
from typing import Any

# least and largest value
NUMBERS = {
    "electronic_temperature_K": (0.0, 1e8),
    "dos_width_eV": (0.0, 100.0),
    "bands_complete_below_eV": (-1e5, 1e5),
    "functions_per_vector": (1, 1000),
    "states_below_gap_error": (0.0, 1e3),
    "grid_spacing_A": (0.0, 100.0),
    "shortest_distance_A": (0.0, 1000.0),
}
OF_SPECIES = {  # numbers by symbol, or by pair of symbols
    "valence_electrons": (0.0, 1000.0),
    "valence_charges": (-1000.0, 1000.0),
    "electrons_per_centre": (-1000.0, 1000.0),
    "electrons_in_dos": (0.0, 1000.0),
    "electrons_per_atom": (0.0, 1000.0),
    "isolated_atoms_eV": (-1e7, 1e7),
}
OF_PAIRS = {"shortest_distances_A": (0.0, 1000.0)}


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Raise ValueError for an entry of the wrong type or out of range; None and missing entries are no error."""
    for name, limits in NUMBERS.items():
        if metadata.get(name) is not None:
            _check(name, metadata[name], limits)
    for name, limits in (OF_SPECIES | OF_PAIRS).items():
        values = metadata.get(name)
        if values is None:
            continue
        if not isinstance(values, Mapping):
            raise ValueError(f"metadata.{name}: got {str(values)[:40]!r}, need numbers by {_keys(name)}")
        for key, value in values.items():
            if name in OF_PAIRS and str(key).count("-") != 1:
                raise ValueError(f"metadata.{name}: got the key {key!r}, need one such as {_keys(name)}")
            _check(f"{name}.{key}", value, limits)


def _keys(name):
    return "Si-O, a pair" if name in OF_PAIRS else "symbol"


def _check(name, value, limits):
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not limits[0] <= value <= limits[1]:
        raise ValueError(f"metadata.{name}: got {str(value)[:40]!r}, need a number from {limits[0]:g} to {limits[1]:g}")
