"""Metadata of a model: what follows from its data (charges, temperature, electrons in spectra), and its provenance."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from ase_mlelec.data.data_set import Frames, temperature_of
from ase_mlelec.data.hdf5 import StoredDataSet
from ase_mlelec.physics import fermi
from ase_mlelec.train.config import Config

COPIED = (
    "dos_width_eV",
    "energy_reference",
    "valence_electrons",
    "valence_charges",
    "electrons_per_centre",
    "functions_per_vector",
    "settings",
    "bands_complete_below_eV",
)  # attributes of the data that go into the provenance
PACKAGES = ("ase-mlelec", "torch", "numpy", "ase")


def describe(frames: Frames, config: Config) -> dict[str, Any]:
    """Metadata of a model that is trained on ``frames``, dict of JSON types."""
    described = {name: frames.attributes[name] for name in COPIED if name in frames.attributes}
    temperature = temperature_of(frames.attributes)
    if temperature is not None:
        described["electronic_temperature_K"] = temperature
    valence = frames.attributes.get("valence_electrons")
    if config.dipole:
        found = wannier_charges(frames, config.dipole.centers, config.dipole.ions)
        given = {"valence_charges": config.dipole.ions, "electrons_per_centre": config.dipole.electrons}
        described |= found | {key: dict(charges) for key, charges in given.items() if charges}
    both = frames.where(lambda frame: {"ados", "dos"} <= set(frame.labels))
    if config.dos and valence and frames.energies is not None and len(both):
        described["electrons_in_dos"] = electrons_in_dos(both, valence, temperature or 0.0)
    return described


def wannier_charges(
    frames: Frames, centers: Sequence[str], ions: Mapping[str, float] | None = None
) -> dict[str, dict[str, float]]:
    """valence_charges and electrons_per_centre, dict of dict by symbol in e, as far as the data or ``ions`` have them.

    Structures are neutral: with one species of centers, every center has an equal share of all electrons.
    """
    known = frames.attributes
    charges = ions or known.get("valence_charges") or known.get("valence_electrons")
    if not charges:
        return {}
    found = {"valence_charges": dict(charges)}
    symbols = [frame.atoms.get_chemical_symbols() for frame in frames]
    complete = {symbol for each in symbols for symbol in each} <= {*charges}
    if "electrons_per_centre" not in known and len(centers) == 1 and complete:
        shares = {sum(charges[s] for s in each) / each.count(centers[0]) for each in symbols if centers[0] in each}
        if len(shares) == 1:
            found["electrons_per_centre"] = {centers[0]: float(shares.pop())}
    return found


def electrons_in_dos(frames: Frames, valence_electrons: Mapping[str, float], temperature: float) -> dict[str, float]:
    r"""Electrons per atom of each species that the atomic DOS hold below the Fermi level, mean over ``frames``.

    Projections miss a little of every state, so that the sum of the atomic DOS reaches the number of valence electrons
    only above the true Fermi level. The level is found from the total DOS, which misses nothing:

    .. math::

        n = \int f(e - \mu) \sum_i D_i(e) \, de, \qquad \mu \text{ from } D(e) \text{ and the valence electrons}

    The valence electrons of all species are scaled by the common ratio of n to their number.

    Parameters
    ----------
    valence_electrons : dict
        By symbol.
    temperature : float, K

    Returns
    -------
    dict of float
        By symbol.
    """
    ratios = []
    for frame in frames:
        n_valence = sum(valence_electrons[symbol] for symbol in frame.atoms.get_chemical_symbols())
        level = fermi.fermi_level(frames.energies, frame.labels["dos"], n_valence, temperature)  # type: ignore[arg-type]
        weights = fermi.integration_weights(frames.energies, level, temperature)[0]
        ratios.append(weights @ frame.labels["ados"].sum(axis=0) / n_valence)
    return {symbol: count * float(np.mean(ratios)) for symbol, count in valence_electrons.items()}


def provenance(parts: Mapping[str, Frames | StoredDataSet], config: Config) -> dict[str, Any]:
    """Provenance of a model, dict of JSON types: data of ``parts``, configuration, versions of packages."""
    return {
        "frames": {name: len(part) for name, part in parts.items()},
        "labels": {name: part.counts for name, part in parts.items() if isinstance(part, Frames)},
        "fingerprints": {name: part.fingerprint() for name, part in parts.items() if len(part)},
        "configuration": config.model_dump(),
        "versions": {name: version(name) for name in PACKAGES},
    }
