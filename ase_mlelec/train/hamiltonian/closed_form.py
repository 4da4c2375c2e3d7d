"""Normalization of a Hamiltonian head, and ridge regression of the linear parts of its on-site and hopping blocks.

Gradient descent (``ase_mlelec.train.hamiltonian.descent``) starts from the result.
"""

from collections.abc import Sequence
from typing import cast

import torch

from ase_mlelec.descriptors.layer_moments import LayerMoments
from ase_mlelec.descriptors.layer_moments.third_atoms import reflected_signs
from ase_mlelec.descriptors.radial import switch
from ase_mlelec.heads.hamiltonian.blocks import HamiltonianHead
from ase_mlelec.heads.hamiltonian.hopping import FADE, NEAR, REFLECTIONS
from ase_mlelec.heads.hamiltonian.orbitals import reflected_block
from ase_mlelec.model import Model
from ase_mlelec.train.hamiltonian.descent import category_scales
from ase_mlelec.train.hamiltonian.items import Item, join, without_third_atoms
from ase_mlelec.train.linear import RIDGE, RidgeRegression, own_sizes
from ase_mlelec.train.standardize import mean_and_inverse

PAIRS = 5000  # at a time
# ridges, in units of the mean diagonal element of the features of each family; families in UNSCALED have functions
# without a common scale, and their ridges are in units of the single diagonal elements
STIFFNESS = {"onsite": 1e-2, "third_onsite": 1e-2, "third_inter": 1e-2, "third_intra": 1e-5}
UNSCALED = ("third_inter", "third_intra")
REFIT = 10.0  # factor of these ridges in fine-tuning, which keeps the result nearer to the first training


@torch.no_grad()
def standardize_hamiltonian(model: Model, items: Sequence[Item]) -> None:
    """Normalize inputs and outputs of a Hamiltonian head, and fit its linear parts by ridge regression."""
    head, descriptor = model.heads["hamiltonian"], cast(LayerMoments, model.descriptor_of("hamiltonian"))
    geometry, onsite, hopping = join(head, items)
    for k in range(len(head.species)):
        features = geometry.features[geometry.species == k]
        if not len(features):
            raise ValueError(f"got no atoms of {head.species[k]} to train on; add some or leave it out")
        parity = geometry.signs.features
        even = (parity > 0).all(dim=0)
        mean = torch.where(even, features.mean(dim=0), 0.0)  # odd features must change sign with the frame
        spread = (features - mean).square().mean(dim=0).sqrt()
        head.features.shift[k], head.features.inverse[k] = mean, 1 / (spread + 0.1 * spread.mean() + 1e-12)
        if head.ace is not None:
            invariants = geometry.ace[geometry.species == k]
            prior = descriptor.ace.feature_weights()  # type: ignore[union-attr]  # as in the head
            head.ace.shift[k], head.ace.inverse[k] = mean_and_inverse(invariants, prior)
    for q in range(head.n_turning):
        moments = torch.cat([geometry.moments[:, 3 + 2 * q], geometry.moments[:, 4 + 2 * q]], dim=1)
        size = moments.abs().square().mean(dim=0).sqrt()
        head.moment_inverse[q] = 1 / (size + 0.1 * size.mean() + 1e-3)
    if head.n_third:
        for q, moments in enumerate(geometry.third_moments.permute(2, 0, 1)):
            size = moments.abs().square().mean(dim=0).sqrt()
            head.third_inverse[q] = 1 / (size + 0.05 * size.square().mean().sqrt() + 1e-12)
    for k in range(len(head.species)):
        _fit_onsite(head, k, geometry, onsite[k])
    for key, rows in geometry.groups().items():
        for name in ("near", "long"):
            pairs, blocks = _reached(name, geometry.pairs(rows), hopping[key])
            if len(blocks):
                net = head.hopping.kind(key).nets[name]
                net.envelope.copy_(_envelope(pairs.r, blocks))
                for part in net.linear_parts():
                    part.zero_()
                _add_linear_hopping(head, key, name, pairs, blocks)
    _scale_nets(head, category_scales(head, without_third_atoms(head, items)))


def _fit_onsite(head, k, geometry, truth):
    """Set scale, mean and linear parts of the on-site blocks of one species."""
    mean = _reflected_onsite(head, k, geometry, truth)[1].mean(dim=0)
    scale = max(float((truth.flatten(1) - mean).square().mean().sqrt()), 1e-6)
    head.onsite_scale[k] = scale
    head.onsite[k].net.bias.zero_()
    head.onsite[k].net.bias[: len(mean)] = mean / scale
    for part in head.onsite[k].linear_parts():
        part.zero_()
    _add_linear_onsite(head, k, geometry, truth, mean)


@torch.no_grad()
def refit_onsite(head: HamiltonianHead, items: Sequence[Item]) -> None:
    """Fine-tune on-site blocks: fit their errors on new structures by ridge regression of the linear parts.

    The ridge favors the former coefficients. The nets of the on-site blocks are switched off and not trained any
    more, because on unfamiliar environments they have larger errors than the linear parts alone.
    """
    for part in head.onsite:
        part.net.weight.zero_()
        part.net.bias[part.functions.size**2 :] = 0
        part.net.requires_grad_(False)
    geometry, onsite, _ = join(head, items)
    blocks = head.unshifted(geometry.pairs(slice(0, 0)))
    for k, truth in onsite.items():
        _add_linear_onsite(head, k, geometry, truth - blocks.onsite[k], 0.0, REFIT)


def _add_linear_onsite(head, k, geometry, blocks, mean, stiffer=1.0):
    """Add a ridge regression of ``blocks`` to the linear parts, over all reflections of the frames.

    Elements that do not turn with the frame are fitted to the features, and each element that turns is fitted to the
    moments that turn alike.
    """
    rows, values, turning = _reflected_onsite(head, k, geometry, blocks)
    own, scale = head.onsite[k], head.onsite_scale[k]
    vectors = own.functions.circular(torch.complex128)
    regression = RidgeRegression()
    regression.add(rows, values - mean)
    local = slice(head.n_features)
    own.linear.add_(regression.solve(ridge=_ridge(regression, stiffer, onsite=local)) / scale)
    generators, matrix = (torch.cat(parts) for parts in zip(*turning))
    found = torch.zeros(generators.shape[1:], dtype=vectors.dtype)
    n_moments = len(own.turned) - 1
    for i, j in (~own.fixed()).nonzero().tolist():
        regression = RidgeRegression()
        regression.add(generators[:, :, i, j].to(vectors.dtype), matrix[:, i, j])
        ridge = _ridge(regression, stiffer, onsite=slice(n_moments), third_onsite=slice(n_moments, None))
        found[:, i, j] = regression.solve(ridge=ridge)
    found = (vectors.T @ found @ vectors.conj()).real / scale
    own.turned[1:] += found[:n_moments]
    if own.third_turned is not None:
        own.third_turned[1:] += found[n_moments:]


def _reflected_onsite(head, k, geometry, blocks):
    """Inputs and targets of the on-site regression, in all reflections of the frames.

    Returns (standardized features, elements that do not turn [n, W^2], list by reflection of (generators, blocks)).
    """
    kind, functions, atoms = head.onsite[k], head.orbitals[k], geometry.species == k
    vectors, rows, values, turning = functions.circular(torch.complex128), [], [], []
    for up, across in REFLECTIONS:
        seen = geometry.reflected(up, across)
        rows.append(head.standardized(seen)[atoms])
        block = reflected_block(blocks, functions, functions, up, across)
        matrix = vectors.conj() @ block.to(vectors.dtype) @ vectors.T
        values.append((vectors.T @ (matrix * kind.fixed()) @ vectors.conj()).real.flatten(1))
        moments = [
            part[atoms] for part in (head.scaled_moments(seen), head.scaled_third_moments(seen)) if part is not None
        ]
        turning.append((torch.cat([kind.generators(part)[:, 1:] for part in moments], dim=1), matrix))
    return torch.cat(rows).double(), torch.cat(values), turning


@torch.no_grad()
def refit_hopping(head: HamiltonianHead, items: Sequence[Item]) -> None:
    """Fine-tune hopping: fit its errors on new structures by ridge regression of the linear parts.

    The ridge favors the former coefficients.
    """
    geometry, _, hopping = join(head, items)
    groups = geometry.groups()
    for key, found in head.unshifted(geometry).hopping.items():
        for name in ("near", "long"):
            pairs, blocks = _reached(name, geometry.pairs(groups[key]), hopping[key] - found)
            if len(blocks):
                _add_linear_hopping(head, key, name, pairs, blocks, REFIT)


def _reached(name, pairs, blocks):
    """The pairs, and their blocks, to which the near or the long net contributes."""
    rows = ((pairs.r < NEAR[1]) if name == "near" else (pairs.r > NEAR[0])).nonzero()[:, 0]
    return pairs.pairs(rows), blocks[rows]


def _add_linear_hopping(head, key, name, pairs, blocks, stiffer=1.0):
    """Add a ridge regression of ``blocks`` to the linear parts of one net.

    For every (λ, μ) it is weighted least squares over all reflections of the frames.
    """
    kind = head.hopping.kind(key)
    net, functions = kind.nets[name], kind.ends
    ends = [(pairs, blocks)] + ([(pairs.reversed(), blocks.mT)] if key[1] == key[2] else [])
    left, right = (own.circular(torch.complex128) for own in functions)
    windings = [own.winding.tolist() for own in functions]
    powers = sorted({abs(a - b) for a in windings[0] for b in windings[1]})
    signs = _signs(kind, net, name)
    normal, right_side = dict.fromkeys(powers, 0), 0
    for side, truth in ends:
        for part in torch.arange(len(truth)).split(PAIRS):
            seen = side.pairs(part)
            basis = _functions(kind, net, name, seen)
            size = net.size(seen.r)
            for power in powers:
                scaled = basis * (size**0.5 * seen.u.abs() ** power)[:, None]
                normal[power] = normal[power] + scaled.T @ scaled
            for up, across in REFLECTIONS:
                target = reflected_block(truth[part], *functions, up, across)
                value = (
                    kind.phases(_reflected_pairs(seen, up, across)).conj()
                    * (left.conj() @ target.to(left.dtype) @ right.T)
                ).flatten(1)
                turned = (basis * reflected_signs(signs, up, across)).T
                right_side = right_side + torch.complex(turned @ value.real, turned @ value.imag)
    found = torch.zeros_like(right_side)
    alike = (signs[:, :, None] == signs[:, None]).all(dim=0)  # functions of different parity are orthogonal
    difference = (torch.tensor(windings[0])[:, None] - torch.tensor(windings[1])).abs().flatten()
    third = slice(len(net.linear), None)
    for power in powers:
        columns = (difference == power).nonzero()[:, 0]
        regression = RidgeRegression(
            len(REFLECTIONS) * normal[power] * alike, torch.view_as_real(right_side[:, columns])
        )
        ridge = _ridge(regression, stiffer, **{f"third_{'inter' if key[0] else 'intra'}": third})
        found[:, columns] = torch.view_as_complex(regression.solve(ridge=ridge).contiguous())
    found = found.reshape(len(found), len(windings[0]), len(windings[1]))
    found = (left.T @ found @ right.conj()).real.reshape(len(found), -1)
    net.linear += found[: len(net.linear)]
    if kind.third_atoms:
        net.third += found[len(net.linear) :].reshape(net.third.shape)


def _functions(kind, net, name, pairs):
    """Functions [E, K] of pairs in which hopping divided by its envelope is linear: two-center, then three-center."""
    found = [net.two_center(pairs, kind.symmetry)]
    if kind.third_atoms:
        third, radial = kind.third_atoms[name](pairs), net.radial(pairs.r, len(net.third))
        found.append((radial[:, :, None] * third[:, None]).flatten(1))
    found = torch.cat(found, dim=1)
    return found if name == "near" else found * switch(pairs.r, FADE, kind.cutoff)[:, None]


def _signs(kind, net, name):
    """Parities [2, K] of the functions of _functions, see ThirdAtoms.signs."""
    if not kind.third_atoms:
        return net.signs()
    return torch.cat([net.signs(), kind.third_atoms[name].signs().repeat(1, len(net.third))], dim=1)


def _ridge(regression, stiffer, **families):
    """Ridge [P], one strength for each family of columns, in units of the mean diagonal element of all columns.

    Parameters
    ----------
    families : slice by name in STIFFNESS
        Columns of each family; the remaining columns have RIDGE.
    """
    diagonal = regression.normal.diagonal().real
    ridge, others = torch.zeros_like(diagonal), torch.ones_like(diagonal, dtype=torch.bool)
    for name, columns in families.items():
        sizes, others[columns] = diagonal[columns], False
        ridge[columns] = STIFFNESS[name] * (own_sizes(sizes) if name in UNSCALED else sizes.mean())
    ridge[others] = RIDGE * diagonal[others].mean()
    return stiffer * ridge / (regression.size + 1e-300)


def _reflected_pairs(pairs, up, across):
    u, turn = (pairs.u, pairs.turn) if across > 0 else (pairs.u.conj(), pairs.turn.conj())
    return pairs.__class__(**{**vars(pairs), "t": up * pairs.t, "u": u, "turn": turn})


def _envelope(r, blocks):
    """Coefficients (a, b) of the envelope exp(a + b r), b <= 0.

    It is fitted to the root mean squares of the elements in bins of the distance.
    """
    bins = ((r - r.min()) / 0.5).long()
    count = r.new_zeros(int(bins.max()) + 1).index_add(0, bins, torch.ones_like(r))
    square = torch.zeros_like(count).index_add(0, bins, blocks.square().mean(dim=(1, 2)))
    center = torch.zeros_like(count).index_add(0, bins, r)
    keep = count > 0
    x, y = center[keep] / count[keep], 0.5 * (square[keep] / count[keep] + 1e-12).log()
    if len(x) < 2:
        return torch.tensor([float(y.mean()), 0.0])
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    slope = slope.clamp(max=0.0)
    return torch.stack([y.mean() - slope * x.mean(), slope])


@torch.no_grad()
def _scale_nets(head, scales):
    """Scale the outputs of the pair nets to the errors of the linear parts, in units of the envelopes."""
    for kind in head.hopping:
        for reach, middle in (("near", 3.0), ("long", 8.0)):
            net, left = kind.nets[reach], scales.get(f"{'inter' if kind.inter else 'intra'}_{reach}", 1.0)
            net.net_scale.fill_(min(1.0, left / float(net.size(torch.tensor(middle)))))
