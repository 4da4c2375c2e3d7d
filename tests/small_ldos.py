"""Small models and snapshots of the local density of states, the same for the same seed."""

import functools

import numpy as np
import torch
from ase.build import bulk
from small_models import seeded

from ase_mlelec.data.grid_points import fingerprints
from ase_mlelec.data.snapshots import Snapshot
from ase_mlelec.descriptors import Bispectrum
from ase_mlelec.heads import EnergyZero, LDOSHead
from ase_mlelec.model import Model
from ase_mlelec.physics import fermi
from ase_mlelec.testing import random_atoms

ENERGIES = np.linspace(-6.0, 9.0, 31)  # eV
VALENCE = {"Al": 3, "O": 6}
SPACING = 0.6  # Å
TEMPERATURE = 3000.0  # K
# a pseudo-atom's core charge, electrons/Å^3, wide enough for the grid
RADII = np.linspace(0, 3.0, 121)
CORE = {"r": RADII.tolist(), "rab": [0.025] * 121, "charge": (0.6 * np.exp(-((RADII / 0.7) ** 2))).tolist()}


@functools.cache
def sample(species, twojmax, cutoff):
    """Fingerprints of some grid, for the normalization."""
    atoms = random_atoms("".join(f"{symbol}6" for symbol in species), [6, 6, 6], seed=9)
    return fingerprints(Bispectrum(species, twojmax, cutoff).double(), atoms, (8, 8, 8)).double()


def random_ldos_model(
    seed=0,
    species=("Al", "O"),
    twojmax=3,
    cutoff=3.2,
    dtype=torch.float64,
    widths=(6, 6),
    zero=EnergyZero(),
    **metadata,
):
    """Model with an LDOS that is positive and varies by tens of per cent; electrons fill about half of it."""
    descriptor = Bispectrum(species, twojmax, cutoff).double()
    features = sample(species, twojmax, cutoff)
    with seeded(2000 + seed):
        head = LDOSHead(descriptor.n_features, ENERGIES, widths, zero=zero).double()
        with torch.no_grad():
            head.shift.copy_(features.mean(dim=0))
            head.inverse.copy_(torch.diag(1 / features.std(dim=0)))
            head.scale.fill_(0.05)
            head.last.weight.mul_(2)
            head.last.bias.copy_(1 + 0.1 * torch.sin(torch.arange(len(ENERGIES))))
    header = {
        "valence_electrons": {symbol: VALENCE[symbol] for symbol in species},
        "grid_spacing_A": SPACING,
        "xc": "lda_pz",
        "electronic_temperature_K": TEMPERATURE,
        **metadata,
    }
    return Model(descriptor, {"ldos": head}, header).to(dtype).eval()


ATTRIBUTES = {
    "dos_width_eV": 0.4,
    "energy_reference": "made up",
    "valence_electrons": {"Al": 3},
    "xc": "lda_pz",
    "grid_spacing_A": 4.05 / 6,
    "settings": {"program": "made up"},
}


def make_snapshot(seed, group="train", n_points=None, truth=None):
    """Rattled aluminium whose LDOS a random model made; with ``n_points``, at a random choice of grid points."""
    rng, shape = np.random.default_rng(seed), (6, 6, 6)
    truth = truth or random_ldos_model(77, ("Al",))
    atoms = bulk("Al", cubic=True)
    atoms.positions += rng.normal(0, 0.15, atoms.positions.shape)
    with torch.no_grad():
        features = fingerprints(truth.descriptor, atoms, shape)
        ldos = truth.heads["ldos"].spectrum(features.double()).numpy()
    dos = ldos.mean(axis=0) * atoms.get_volume()
    level = fermi.fermi_level(ENERGIES, dos, 12.0, TEMPERATURE)
    density = (ldos @ fermi.integration_weights(ENERGIES, level, TEMPERATURE)[0]).reshape(shape)
    points = None if n_points is None else np.sort(rng.choice(len(ldos), n_points, replace=False))
    return Snapshot(
        atoms,
        shape,
        TEMPERATURE,
        ldos if points is None else ldos[points],
        dos,
        points,
        density,
        fermi_level=float(level),
        name=f"al-{seed}",
        group=group,
    )
