"""Errors of predicted Hamiltonians: matrix elements and bands."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_mlelec.bands.wannier_hamiltonian import WannierHamiltonian
from ase_mlelec.data.hamiltonians import HamiltonianFrame
from ase_mlelec.model import Model
from ase_mlelec.physics.kmesh import monkhorst_pack
from ase_mlelec.train.hamiltonian.eigenvalue_response import LARGEST, mesh
from ase_mlelec.train.hamiltonian.items import CATEGORIES, SHARP, prepare

ALIKE = 1e-4  # eV; of elements that vary by less, such as those of equivalent atoms, R2 says nothing


def hamiltonian_errors(model: Model, frames: Iterable[HamiltonianFrame]) -> dict[str, float]:
    """Errors of a model on HamiltonianFrames: all matrix elements, and bands of cells up to 300 functions.

    Parameters
    ----------
    frames : iterable of HamiltonianFrame

    Returns
    -------
    dict of float
        Mean absolute errors in meV, and R2, of every category; keys as in QUANTITIES of ase_mlelec.train.evaluate.
    """
    return _summary(*compared_elements(model, frames))


def compared_elements(
    model: Model, frames: Iterable[HamiltonianFrame]
) -> tuple[dict[str, tuple[Tensor, Tensor]], NDArray | None]:
    """Predicted and true matrix elements of HamiltonianFrames, and errors of eigenvalues.

    Returns
    -------
    elements : dict by category of (predicted, true)
        Elements between the functions of the data, Tensor [n] each, eV.
    differences : array or None
        Errors, eV, of the eigenvalues on a mesh of k-points, for cells up to 300 functions.
    """
    elements, bands = _elements_and_bands(model, frames)
    return elements, None if bands is None else bands[0] - bands[1]


SHOWN = {"onsite": "elements on site", "intra": "elements within a layer", "inter": "elements between layers"}


def compared_hamiltonians(model: Model, frames: Iterable[HamiltonianFrame]) -> dict[str, tuple[NDArray, NDArray, str]]:
    """Elements and eigenvalues behind ``hamiltonian_errors``, for figures.

    Returns
    -------
    dict of (true [n], predicted [n], unit)
    """
    elements, bands = _elements_and_bands(model, frames)
    found = {}
    for start, name in SHOWN.items():
        pairs = [pair for category, pair in elements.items() if category.startswith(start) and len(pair[0])]
        if pairs:
            mine, true = (torch.cat(column).numpy() for column in zip(*pairs))
            found[name] = true, mine, "eV"
    return found | ({} if bands is None else {"eigenvalues": (bands[1], bands[0], "eV")})


@torch.no_grad()
def _elements_and_bands(model, frames):
    """(predicted, true) elements by category, Tensor [n] each, and eigenvalues, array [n] each, or None."""
    head = model.heads["hamiltonian"]
    truths: dict[str, list[Tensor]]
    found: dict[str, list[Tensor]]
    truths, found = {name: [] for name in CATEGORIES}, {name: [] for name in CATEGORIES}
    bands = []
    for frame in frames:
        item = prepare(model, frame)
        blocks, groups = head(item.geometry), item.geometry.groups()
        turn = [torch.as_tensor(matrix) for matrix in item.transforms]
        for k, truth in item.onsite.items():
            left = torch.stack([turn[i] for i in blocks.atoms(k).tolist()])
            for store, value in ((truths, truth), (found, blocks.onsite[k])):
                store["onsite"].append((left @ value.double() @ left.mT).flatten())
        for key, truth in item.hopping.items():
            left, right = (torch.stack([turn[i] for i in index.tolist()]) for index in blocks.pairs(key)[:2])
            near = item.geometry.r[groups[key]] < SHARP
            for store, value in ((truths, truth), (found, blocks.hopping[key])):
                whole = left @ value.double() @ right.mT
                for name, mask in (("near", near), ("long", ~near)):
                    store[f"{'inter' if key[0] else 'intra'}_{name}"].append(whole[mask].flatten())
        if frame.hamiltonian.size <= LARGEST:
            bands.append(_eigenvalues(head, frame, blocks))
    elements = {name: (torch.cat(found[name]), torch.cat(truths[name])) for name in CATEGORIES if found[name]}
    return elements, tuple(map(np.concatenate, zip(*bands))) if bands else None


def _eigenvalues(head, frame, blocks):
    """(predicted, true) eigenvalues [n] on a mesh of k-points, eV."""
    kpts = monkhorst_pack(mesh(frame.atoms))
    r_vectors, which, row, column, values, owners = head.elements(blocks)
    own = WannierHamiltonian.from_elements(
        frame.atoms.cell.array,
        r_vectors=r_vectors,
        which=which,
        row=row,
        column=column,
        values=values,
        centers=frame.atoms.positions[owners],
    )
    return own.eigenvalues(kpts).ravel(), frame.hamiltonian.eigenvalues(kpts).ravel()


def _summary(columns, bands):
    result = {}
    every = [torch.cat([pair[i] for pair in columns.values()]) for i in (0, 1)]
    inter = [
        torch.cat([columns[name][i] for name in columns if name.startswith("inter")] or [every[i][:0]]) for i in (0, 1)
    ]
    for name, (mine, truth) in {"all": every, **columns, "inter": inter}.items():
        if not len(truth):
            continue
        result[f"hamiltonian_{name}_mae_meV"] = 1000 * float((mine - truth).abs().mean())
        spread = float((truth - truth.mean()).square().sum())
        if spread > len(truth) * ALIKE**2:
            result[f"hamiltonian_{name}_r2"] = 1 - float((mine - truth).square().sum()) / spread
        large = truth.abs() > 1e-3
        if name in ("all", "inter") and bool(large.any()):
            result[f"hamiltonian_{name}_large_mae_meV"] = 1000 * float((mine - truth)[large].abs().mean())
    if bands is not None:
        result["bands_mae_meV"] = 1000 * float(np.abs(bands).mean())
    return result
