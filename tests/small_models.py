"""Small random models, the same for the same seed, with statistics that reach every branch of the code."""

import functools
from contextlib import contextmanager

import numpy as np
import torch

from ase_mlelec.descriptors import DeepPotSE
from ase_mlelec.edges import Edges
from ase_mlelec.heads import ScalarHead, SpectrumHead, TensorHead, VectorHead
from ase_mlelec.model import Model
from ase_mlelec.system import System
from ase_mlelec.testing import random_atoms

ENERGIES = np.linspace(-8.0, 6.0, 57)  # eV
WANNIER = {"valence_charges": {"Si": 4.0, "O": 6.0}, "electrons_per_centre": {"O": 8.0}}  # SiO2 is neutral


@contextmanager
def seeded(seed):
    """Random numbers of torch that depend on nothing but ``seed``, and disturb no others."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)


def random_descriptor(seed=0, species=("Si", "O"), cutoff=4.0, smooth=1.0, mean=True, **options):
    """DeepPotSE in float64 with a mean (so that empty slots count) and a scale that differ by species.

    A Chebyshev series in the distance has no empty slots: its mean stays zero.
    """
    with seeded(seed):
        options = {"widths": (4, 8), "n_axis": 3, "sel": (6,) * len(species), **options}
        descriptor = DeepPotSE(species, cutoff, smooth, **options).double()
        with torch.no_grad():
            if mean and descriptor.n_basis is None:
                descriptor.mean.uniform_(0.05, 0.15)
            descriptor.scale.uniform_(0.5, 0.9)
    return descriptor


def randomize_nets(nets, level, spread, features=None, species=None):
    """Statistics of the fitting nets as data would give them: standardized features, a level and a spread."""
    with torch.no_grad():
        nets.bias.copy_(level * (0.9 + 0.2 * torch.rand_like(nets.bias)))
        nets.scale.fill_(spread)
        for k in range(len(nets.bias) if features is not None else 0):
            own = features[species == k]
            nets.shift[k] = own.mean(dim=0)
            nets.inverse[k] = 1 / (own.std(dim=0) + 0.1 * own.std())


@functools.cache
def sample(species):
    return random_atoms("".join(f"{symbol}6" for symbol in species), [6, 6, 6], seed=9)


def rooted(model):
    """The model, whose DOS is the square of what the nets give, about as large as before; some roots are negative."""
    nets = model.heads["dos"].nets
    model.heads["dos"].square_root = True
    with torch.no_grad():
        nets.bias.sqrt_()
        nets.bias[0].neg_()
    return model


def random_model(seed=0, heads=("energy",), cutoff=4.0, dtype=torch.float64, metadata=None, centers=(1,), **options):
    """Model with energy, DOS, dipole and polarizability heads, those named, over ``random_descriptor``.

    centers : indices of the species that have dipoles and polarizabilities

    The DOS is positive everywhere; 4 electrons of the first species and 6 of the second fill about half of it.
    """
    descriptor = random_descriptor(seed, cutoff=cutoff, **options)
    system = System.from_atoms(sample(descriptor.species))
    with torch.no_grad():
        seen = descriptor(system, Edges.build(system, cutoff))
    n_species, made = len(descriptor.species), {}
    with seeded(1000 + seed):
        if "energy" in heads:
            made["energy"] = ScalarHead(n_species, descriptor.n_features, (12, 12), timestep=True).double()
            randomize_nets(made["energy"].nets, -3.0, 0.5, seen.features, seen.species)
        if "dos" in heads:
            made["dos"] = SpectrumHead(n_species, descriptor.n_features, ENERGIES, (12, 12)).double()
            randomize_nets(made["dos"].nets, 0.7, 0.05, seen.features, seen.species)
        for kind in (VectorHead, TensorHead):
            if kind.quantity in heads:
                head = kind(n_species, descriptor.n_features, descriptor.widths[-1], centers, (12, 12)).double()
                randomize_nets(head.nets, 0.2, 0.3, seen.features, head.place[seen.species])
                made[kind.quantity] = head
    counts = dict(zip(descriptor.species, (4.0, 6.0)))
    return (
        Model(descriptor, made, {"electrons_in_dos": counts, "electronic_temperature_K": 300.0, **(metadata or {})})
        .to(dtype)
        .eval()
    )
