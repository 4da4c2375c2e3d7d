"""Error bars of a trained Hamiltonian: posteriors of the last layers of its nets, calibrated on validation data.

The rows of a last layer are its inputs for all atoms or pairs of the training data, in units of the envelope of hopping
and of the spread of on-site elements, in which errors are about equal. Each kind of matrix element has a scale, under
which 68 % of its errors are within one standard deviation over members. Eigenvalues, to which many elements
add up, have a scale of their own, and a floor for what no change of the last layers explains. As validation structures are
few, training structures that are left out of the last layers (``left_out``) count beside them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ase_mlelec.bands.members import changes_of_levels
from ase_mlelec.bands.wannier_hamiltonian import WannierHamiltonian
from ase_mlelec.data.hamiltonians import HamiltonianFrame
from ase_mlelec.heads.hamiltonian.assemble import values_in_functions
from ase_mlelec.heads.hamiltonian.members import bare, category, changes_of_values, last_layers
from ase_mlelec.model import Model
from ase_mlelec.physics.kmesh import monkhorst_pack
from ase_mlelec.train.deviations import Deviations, floor_and_scale
from ase_mlelec.train.error_bars import rounded
from ase_mlelec.train.hamiltonian.eigenvalue_response import LARGEST, mesh
from ase_mlelec.train.hamiltonian.items import CATEGORIES, SHARP, prepare
from ase_mlelec.train.hamiltonian.left_out import Growth, Rows, evenly, growths
from ase_mlelec.train.log import Log
from ase_mlelec.uncertainty import Posterior, coverage, inverse_factor, scale_of
from ase_mlelec.uncertainty.posterior import drawn_layers
from ase_mlelec.uncertainty.scales import log_likelihood

RIDGES = (1e-4, 1e-2, 1.0)


def add_hamiltonian_error_bars(
    model: Model,
    train: Sequence[HamiltonianFrame],
    validation: Sequence[HamiltonianFrame],
    *,
    ridges: Sequence[float] = RIDGES,
    progress: bool | Log = False,
) -> dict[str, dict[str, Any]]:
    """Give the Hamiltonian of ``model`` calibrated posteriors, and its metadata a report in "error_bars".

    Parameters
    ----------
    model : Model
        Changed in place; its weights are not.
    train, validation : sequence of HamiltonianFrame
        Structures that the model was trained on, and others, by whose errors the ridge is chosen.
    ridges : sequence of float
        Ridges to choose from, in units of the mean diagonal element of the normal matrix.
    progress : bool or Log
        Whether to tell where the calculation is, or the Log that tells it.

    Returns
    -------
    dict by quantity of dict
        As for ase_mlelec.train.error_bars.add_error_bars: "hamiltonian" for the elements and "eigenvalues".

    Raises
    ------
    ValueError
        Where there are no training structures.
    """
    head, log = model.heads["hamiltonian"], Log.of(progress)

    def one_by_one(items, what):
        return log.each(items, len(items), f"error bars of the Hamiltonian: {what} of")

    chosen = evenly(range(len(train)))
    normals, rows = _normals((rows_of(head, prepare(model, frame)) for frame in one_by_one(train, "rows")), chosen)
    out = [Held(model, train[k]) for k in one_by_one(chosen, "errors")]
    held = [Held(model, frame) for frame in one_by_one(validation, "errors")] or out
    tried = []
    for ridge in ridges:
        posteriors = {
            name: Posterior.from_factors(
                inverse_factor(normal, ridge),
                torch.eye(last_layers(head)[name].out_features).double(),
                n_species=1,
                ridge=ridge,
            ).to(normal)
            for name, normal in normals.items()
        }
        likelihood, *_ = _scaled(posteriors, one_by_one(held, f"members with the ridge {ridge:g}"))
        tried.append((likelihood, ridge, posteriors))
    _, ridge, posteriors = max(tried, key=lambda each: each[0])
    for each, own in zip(out, rows):
        each.growths = growths(own, normals, ridge)
    held = [*(held if len(validation) else []), *out]
    _, errors, deviations = _scaled(posteriors, one_by_one(held, "members"))
    known = {name: part for name, part in model.posteriors.items() if not name.startswith("hamiltonian/")}
    model.posteriors = torch.nn.ModuleDict(known | {f"hamiltonian/{name}": each for name, each in posteriors.items()})
    pairs = {"hamiltonian": (errors, deviations)}
    small = [each for each in held if each.frame.hamiltonian.size <= LARGEST]
    levels = [each.levels(posteriors) for each in one_by_one(small, "levels")]
    first = next(iter(posteriors.values()))
    if levels:
        pairs["eigenvalues"] = _with_floor(first, *map(np.concatenate, zip(*levels)))
    return _reported(model, first, pairs, len(validation) > 0)


def _with_floor(first, errors, deviations):
    """(errors, deviations with a floor) of levels; ``first`` gets the floor, and the scale of the Fermi level.

    The Fermi level follows from members alone, so that its scale is that of deviations without the floor.
    """
    first.scales["fermi_level"] = float(f"{scale_of(errors, deviations) * first.scale('members'):.6g}")
    floor, _ = floor_and_scale(errors, Deviations(errors, deviations, np.ones_like(errors)))
    first.floors = {"eigenvalues": float(f"{floor:.6g}")} if floor else {}
    return errors, np.hypot(deviations, floor)


def _reported(model, first, pairs, validated):
    """Set the scales of elements and eigenvalues beside those of members; report of both."""
    report = {}
    for name, (errors, deviations) in pairs.items():
        scale = scale_of(errors, deviations)
        first.scales[name] = float(f"{scale * first.scale('members'):.6g}")
        report[name] = {
            "scale": scale,
            **coverage(errors, scale * deviations)._asdict(),
            "errors": int(errors.size),
            "calibrated_on": f"{'validation data and ' if validated else ''}training structures that were left out",
        }
    kept = model.metadata.get("error_bars", {})
    model.metadata["error_bars"] = kept | {name: rounded(found) for name, found in report.items()}
    return report


@torch.no_grad()
def rows_of(head: Any, item: Any) -> dict[str, Rows]:
    """Rows of every last layer that a structure needs, by name."""
    found: dict[str, Rows] = {}

    def see(name):
        def add(_, given):
            rows = torch.nn.functional.pad(given[0].detach().double(), (0, 1), value=1.0).flatten(0, -2)
            known = found.get(name, Rows(0.0, 0))
            found[name] = Rows(known.products + rows.T @ rows, known.number + len(rows))

        return add

    hooks = [layer.register_forward_pre_hook(see(name)) for name, layer in last_layers(head).items()]
    try:
        head.unshifted(bare(item.geometry))  # linear parts come after the last layers
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _normals(rows: Iterable[Mapping[str, Rows]], chosen: Sequence[int]) -> tuple[dict[str, Tensor], list]:
    """Sums [H + 1, H + 1] over all structures, by layer, and the rows of those with the numbers ``chosen``.

    The rows of all structures together may not fit into the memory.
    """
    found: dict[str, Tensor] = {}
    kept = []
    for k, each in enumerate(rows):
        for name, own in each.items():
            found[name] = found.get(name, torch.zeros_like(own.products)) + own.products
        kept += [each] if k in chosen else []
    if not found:
        raise ValueError("hamiltonian: no structures to make error bars from; give training data")
    return found, kept


class Held:
    """A structure with its true elements, by which scales are chosen."""

    def __init__(self, model: Model, frame: HamiltonianFrame):
        self.head, self.frame, item = model.heads["hamiltonian"], frame, prepare(model, frame)
        with torch.no_grad():
            blocks = self.head(item.geometry)
            truth = type(blocks)(item.geometry, item.onsite, item.hopping)
            self.own, true = (values_in_functions(each, self.head.orbitals).double() for each in (blocks, truth))
        self.geometry, self.errors = item.geometry, (self.own - true).numpy()
        self.codes, self.pattern = _codes(blocks), self.head.elements(blocks)
        self.growths: Mapping[str, Growth] = {}  # of a training structure that is left out

    def grown(self, errors: np.ndarray, deviations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Errors and standard deviations of the elements where the structure is left out."""
        factors = np.array([self.growths.get(kind, Growth(1.0, 1.0)) for kind in CATEGORIES])[self.codes]
        return factors[:, 0] * errors, factors[:, 1] * deviations

    def changes(self, posteriors: Mapping[str, Posterior]) -> np.ndarray:
        """Changes [n, M] of the elements in members, with the scales of the posteriors."""
        drawn = drawn_layers({f"hamiltonian/{name}": each for name, each in posteriors.items()})
        return changes_of_values(self.head, self.geometry, drawn).double().numpy()

    def levels(self, posteriors: Mapping[str, Posterior]) -> tuple[np.ndarray, np.ndarray]:
        """Errors and standard deviations of the eigenvalues on a mesh; both grow as those of the elements, on average."""
        kpts, own, of_elements = monkhorst_pack(mesh(self.frame.atoms)), self.own.numpy(), self.changes(posteriors)
        members = [self._hamiltonian(own + change) for change in of_elements]
        energies, changes = changes_of_levels(self._hamiltonian(own), members, kpts)
        before = self.errors, of_elements.std(axis=0)
        after = self.grown(*before)
        factors = [float(np.linalg.norm(after[k])) / max(float(np.linalg.norm(before[k])), 1e-300) for k in (0, 1)]
        errors = energies - self.frame.hamiltonian.eigenvalues(kpts)
        return factors[0] * errors.ravel(), factors[1] * changes.std(axis=0).ravel()

    def _hamiltonian(self, values):
        r_vectors, which, row, column, _, owners = self.pattern
        return WannierHamiltonian.from_elements(
            self.frame.atoms.cell.array,
            r_vectors=r_vectors,
            which=which,
            row=row,
            column=column,
            values=values,
            centers=self.frame.atoms.positions[owners],
        )


def _codes(blocks):
    """Place [M] in CATEGORIES of every element, in the order of ``elements``."""
    codes = [np.zeros(block.numel(), dtype=int) for block in blocks.onsite.values()]
    groups = blocks.geometry.groups()
    for key, block in blocks.hopping.items():
        far = (blocks.geometry.r[groups[key]] >= SHARP).numpy().astype(int)
        codes += 2 * [np.repeat(1 + 2 * int(key[0]) + far, block[0].numel() if len(block) else 0)]
    return np.concatenate(codes)


def _scaled(posteriors, held):
    """Set a scale for each kind of element; (mean log likelihood of the kinds, errors, deviations)."""
    for posterior in posteriors.values():
        posterior.scales = {}
    found = []
    for each in held:
        errors, spreads = each.grown(each.errors, each.changes(posteriors).std(axis=0))
        found.append((spreads, errors, each.codes))
    spreads, errors, codes = map(np.concatenate, zip(*found))
    likelihoods, deviations = [], spreads.copy()
    for code, kind in enumerate(CATEGORIES):
        chosen = (codes == code) & (spreads > 0)
        if not chosen.any():
            continue
        scale = scale_of(errors[chosen], spreads[chosen])
        deviations[codes == code] *= scale
        likelihoods.append(log_likelihood(errors[chosen], scale * spreads[chosen]))
        for name, posterior in posteriors.items():
            if category(name) == kind:
                posterior.scales["members"] = float(f"{scale:.6g}")
    return float(np.mean(likelihoods)), errors, deviations
