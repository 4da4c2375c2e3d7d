"""Choice of the ACE invariants for an energy that is linear in them: cutoffs and number of features, from the data."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike

import numpy as np
import torch

from ase_mlelec.data.frames import Frames
from ase_mlelec.descriptors.ace import ACE, Order
from ase_mlelec.descriptors.ace.couplings import coupling
from ase_mlelec.descriptors.ace.orders import next_roughness
from ase_mlelec.edges import Edges
from ase_mlelec.heads import ScalarHead
from ase_mlelec.model import Model
from ase_mlelec.system import System
from ase_mlelec.train.checkpoint import KeptScores
from ase_mlelec.train.energy_rows import n_rows
from ase_mlelec.train.linear_energy import FEW_ROWS, fit_by_choice
from ase_mlelec.train.losses import EnergyLoss
from ase_mlelec.train.standardize import standardize

FAR, NEAR = 42, 16  # neighbors within the cutoffs of orders 1 and 2, and of orders 3 and 4
SHORTEST, LONGEST = 3.2, 7.0  # Å, limits of the cutoffs
ALONE = 5.0  # Å, cutoff in molecules with fewer neighbors
LABELS_PER_WEIGHT = (
    3  # the smoothness prior allows for few: with 3 in place of 5, forces of MoS2 were better by an eighth
)
OF_TRIPLES = 3.0  # largest roughness of order 2, in units of that of order 3
FEWEST, MOST = 200, 5000  # weights
# weights where labels are many and there is one fold; sums of folds have as many matrices of their size as there are
# folds. From 4,503 to 7,836 weights, forces of ethanol were better by 22 %
LARGEST = 8000
FOLDS, ENOUGH = 5, 100  # folds of structures by whose errors settings are chosen; structures in them that suffice
MOST_DUAL = 16_000  # weights with few labels, whose matrix is smaller; MOST of them for each species at most
DEFAULTS = 6.0, 4.5  # cutoffs, Å, where structures are too few for trials
WORK = 2.2e8  # atoms times weights that the rows of a fit may have: some minutes
UNITS = {"energy": "meV/atom", "forces": "meV/Å", "virial": "meV/atom"}
RADIAL, ANGULAR = (6, 6, 5, 4), (8, 7, 6, 5)  # radial functions and largest l for 1, 2, 3 and more species
PAIR = 12  # radial functions of order 1
# of the structures to train on and of the held-out ones, in trials; with 1500, and so with fewer weights, shorter cutoffs
# won for acetylacetone, whose held-out forces were a quarter worse with them in the fit to all structures
TRIAL_ATOMS = 3000, 500
# of the final number of weights, in trials: a longer cutoff needs more features, and would lose with a few. A trial has no
# more weights for each label than the fit, where it would lose too; up to FULL weights of a species have trials with all
TRIAL_SHARE, FULL = 0.5, 400
FACTORS = {"near": (0.82, 1.25), "far": (1.22, 0.85)}  # of the cutoffs that are tried
# a larger number of weights is tried where it is by this factor larger, and taken where it gains so much in the logarithm of
# the errors that it pays for a slower model
GROWN, BETTER = 1.5, 0.1
# of the logarithm of the errors of energies in comparisons of cutoffs: there are few of them, and what differs is noise
OF_ENERGIES = 0.25


@dataclass(frozen=True)
class Basis:
    """Cutoffs and size of a set of ACE invariants.

    Attributes
    ----------
    far, near : float, Å
        Cutoffs of orders 1 and 2, and of orders 3 and 4.
    n_species : int
    max_roughness : float
        Largest roughness of order 3.
    """

    far: float
    near: float
    n_species: int
    max_roughness: float = 0.0

    @property
    def orders(self) -> tuple[Order, ...]:
        """Settings of the correlation orders."""
        k = min(self.n_species, len(RADIAL)) - 1
        n, l = RADIAL[k], ANGULAR[k]
        orders = [Order(self.far, PAIR), Order(self.far, n, l, max(OF_TRIPLES * self.max_roughness, OF_TRIPLES))]
        limits = (self.max_roughness, next_roughness(self.max_roughness))
        orders += [Order(self.near, n, l, limit, scalars=True) for limit in limits if limit]
        return tuple(orders)

    @property
    def n_weights(self) -> int:
        """Number of weights of a linear energy."""
        parts = (coupling(number, order, self.n_species) for number, order in enumerate(self.orders, 1))
        return self.n_species * (1 + sum(part.squares.shape[1] for part in parts))

    def sized(self, n_weights: int) -> "Basis":
        """The largest basis with the same cutoffs that has at most ``n_weights`` weights, or else the smallest."""
        low, high = 1.0, 26.0  # order 3 begins with a roughness of 1
        if replace(self, max_roughness=low).n_weights > n_weights:
            return replace(self, max_roughness=0.0)
        while high - low > 0.25:
            middle = (low + high) / 2
            try:
                fits = replace(self, max_roughness=middle).n_weights <= n_weights
            except ValueError:  # too many products to count
                fits = False
            low, high = (middle, high) if fits else (low, middle)
        return replace(self, max_roughness=low)


def radius_of(frames: Frames, count: float) -> float:
    """Radius, Å, within which an atom of ``frames`` has ``count`` neighbors on average, between SHORTEST and LONGEST."""
    distances, n_centers = [], 0
    for frame in list(frames)[:: math.ceil(len(frames) / 20)]:
        edges = Edges.build(System.from_atoms(frame.atoms), LONGEST)
        distances.append(edges.distances.numpy())
        n_centers += edges.n_centers
    ordered = np.sort(np.concatenate(distances))
    place = round(count * n_centers)
    if place >= len(ordered):
        return ALONE
    return float(np.clip(ordered[place], SHORTEST, LONGEST))


def first_basis(frames: Frames, n_species: int) -> Basis:
    """Cutoffs by the number of neighbors, from which trials begin."""
    return Basis(round(radius_of(frames, FAR), 2), round(radius_of(frames, NEAR), 2), n_species)


def basis_of_few(n_species: int, n_labels: float) -> Basis:
    """Basis where structures are too few for trials; infinite ``n_labels`` for a fit that solves for all weights."""
    return Basis(*DEFAULTS, n_species).sized(largest_basis(n_species, n_labels))


def largest_basis(n_species: int, n_labels: float, n_atoms: int = 1, n_structures: int = 1) -> int:
    """Largest number of weights, more where labels are so few that a matrix of their size is solved, or many."""
    most: float = MOST
    if n_labels < FEW_ROWS * MOST:
        most = min(MOST_DUAL, MOST * n_species)
    elif n_labels > LABELS_PER_WEIGHT * MOST:
        n_folds = min(FOLDS, math.ceil(ENOUGH * FOLDS / n_structures))
        most = max(MOST, LARGEST / n_folds**0.5)
    return int(min(most, WORK / n_atoms))


def linear_model(basis: Basis, frames: Frames, *, species: Sequence[str], inner: float) -> Model:
    """Model with a linear energy that is zero, standardized for ``frames``; ``inner`` as in ``choose_basis``."""
    model = Model(ACE(species, inner=inner, orders=basis.orders), {})
    head = ScalarHead(len(species), model.descriptor.n_features, widths=())
    model.heads["energy"] = head
    model.to(torch.float64)
    for layer in head.nets.last:
        torch.nn.init.zeros_(layer.weight)
    standardize(model, frames)
    return model


def choose_basis(
    frames: Frames,
    held: Frames,
    loss: EnergyLoss,
    *,
    species: Sequence[str],
    inner: float,
    checkpoint: str | PathLike | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Basis:
    """Choose cutoffs by trials with small bases on some of the structures, and the size from the number of labels.

    With few labels, bases of more weights are tried as well: thanks to the smoothness prior there may be more weights than
    labels, which is much better for molecules, and worse for strongly distorted crystals.

    Parameters
    ----------
    frames, held : Frames
        Structures to train on, and structures by whose errors the cutoffs are chosen.
    inner : float, Å
        Inner end of the radial functions.
    checkpoint : path, optional
        Keeps the scores of the trials, which are not made again.
    tell : callable
        Gets a line before the trials, and one for every trial.
    """
    n_labels, n_atoms = n_rows(frames, loss) + n_rows(held, loss), sum(len(frame.atoms) for frame in frames)
    n_atoms_in_all = n_atoms + sum(len(frame.atoms) for frame in held)
    limit = largest_basis(len(species), n_labels, n_atoms_in_all, len(frames) + len(held))
    wanted = int(max(min(n_labels / LABELS_PER_WEIGHT, limit), FEWEST * len(species)))
    start = first_basis(frames, len(species))
    some, few = (some_of(part, n) for part, n in zip((frames, held), TRIAL_ATOMS))
    few = _with_all_energies(few, held)
    identity = {
        "frames": [part.fingerprint() for part in (frames, held)],
        "loss": f"{type(loss).__name__} {vars(loss)}",
        "model": f"{list(species)} {inner:g}",
    }
    kept = KeptScores(checkpoint, identity)
    tell(f"choosing cutoffs by trials with small bases on {len(some)} of {len(frames)} structures")

    def score(basis, structures):
        trial = partial(_trial, basis, structures, few, loss, species, inner, tell)
        return kept.of(f"{basis.far:g} {basis.near:g} {basis.n_weights} {len(structures)}", trial)

    if limit > GROWN * wanted:
        part = min(1.0, FEW_ROWS * MOST / n_labels, TRIAL_ATOMS[0] / n_atoms)
        fewer = some_of(frames, int(part * n_atoms))
        tried = [score(start.sized(int(part * size)), fewer) for size in (wanted, limit)]
        wanted = limit if tried[1] < tried[0] - BETTER else wanted
    share = 1.0 if n_labels < FEW_ROWS * wanted else min(TRIAL_SHARE, TRIAL_ATOMS[0] / n_atoms)
    in_trials = max(int(share * wanted), min(wanted, FULL * len(species)))
    best = _with_best_cutoffs(start, lambda basis: score(basis.sized(in_trials), some)).sized(wanted)
    tell(
        f"cutoffs of {best.far:g} Å (pairs, triples) and {best.near:g} Å (more neighbors), {best.n_weights} weights for "
        f"{n_labels} labels"
    )
    return best


def _with_best_cutoffs(best, score):
    """The basis with cutoffs that have the smallest score, from those of ``best`` on."""
    for name, factors in FACTORS.items():
        for factor in factors:
            before = best
            while (other := _moved(best, name, factor)) != best and score(other) < score(best) - 0.01:
                best = other
            if best != before:
                break
    return best


def _moved(basis: Basis, name: str, factor: float) -> Basis:
    """The basis with a longer or shorter cutoff ``name``, within the limits and at most ``far`` for ``near``."""
    value = float(np.clip(round(factor * getattr(basis, name), 2), SHORTEST, LONGEST))
    if name == "near":
        return replace(basis, near=min(value, basis.far))
    return replace(basis, far=max(value, basis.near))


def some_of(frames: Frames, n_atoms: int) -> Frames:
    """Some of the frames, evenly over all of them, with about ``n_atoms`` atoms in all."""
    total = sum(len(frame.atoms) for frame in frames)
    step = max(1, total / n_atoms)
    chosen = np.unique((np.arange(0, len(frames), step)).astype(int))
    return replace(frames, frames=[list(frames)[k] for k in chosen])


def _with_all_energies(few, held):
    """The structures of ``few`` with all labels and the rest of ``held`` with their energies, which cost little."""
    chosen = {id(frame) for frame in few}
    rest = [frame for frame in held if id(frame) not in chosen and "energy" in frame.labels]
    alone = [replace(frame, labels={"energy": frame.labels["energy"]}) for frame in rest]
    return replace(few, frames=[*few, *alone])


def _trial(basis, frames, held, loss, species, inner, tell):
    """Score of a basis: logarithms of the errors of forces and energies, or of what there is."""
    model = linear_model(basis, frames, species=species, inner=inner)
    choice = fit_by_choice(model, frames, loss, held=[held], progress=False).choice
    shown = ", ".join(f"{name} {1000 * error:.3g} {UNITS[name]}" for name, error in choice.errors.items())
    tell(f"trial of cutoffs {basis.far:g} and {basis.near:g} Å, {basis.n_weights} weights: {shown}")
    return choice.score_with(OF_ENERGIES)
