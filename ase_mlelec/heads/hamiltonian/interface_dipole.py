r"""Shifts of whole layers by the dipoles of the interfaces between them.

An interface raises all layers above it by D/2 and lowers those below by as much,

.. math::

    D = c_1 (\varepsilon_\text{below} - \varepsilon_\text{above}) + c_2 \ln(N_\text{below}/N_\text{above}),
    \qquad \varepsilon = \tfrac12 \ln(\text{area per atom} / \text{that in the training data}).

References: Qi et al. 2024, section II C.
"""

import torch


def interface_features(layers, reference_areas):
    """Tensor [L - 1, 2]: strain difference and logarithm of the ratio of atoms of the Layers, lower layer first.

    Parameters
    ----------
    reference_areas : dict of float, Å^2 per atom
        By formula; layers of other formulas count as unstrained.
    """
    strain = torch.stack(
        [
            0.5 * (area / reference_areas[formula]).log() if formula in reference_areas else torch.zeros_like(area)
            for area, formula in zip(layers.areas, layers.formulas)
        ]
    )
    count = torch.tensor(layers.n_atoms, dtype=torch.float64).log()
    return torch.stack([strain[:-1] - strain[1:], count[:-1] - count[1:]], dim=1)


def layer_shifts(steps):
    """Tensor [L], eV, from the steps D [L - 1] of the interfaces."""
    shifts = torch.zeros(len(steps) + 1, dtype=torch.float64)
    for place, step in enumerate(steps):
        above = torch.arange(len(shifts)) > place
        shifts = shifts + torch.where(above, step / 2, -step / 2)
    return shifts
