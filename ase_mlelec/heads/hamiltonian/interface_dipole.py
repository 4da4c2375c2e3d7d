r"""Potential shifts of whole layers from the dipoles of the interfaces between layers.

An interface raises all layers above it by D/2 and lowers all layers below it by D/2,

.. math::

    D = c_1 (\varepsilon_\text{below} - \varepsilon_\text{above}) + c_2 \ln(N_\text{below}/N_\text{above}),
    \qquad \varepsilon = \tfrac12 \ln(\text{area per atom} / \text{area per atom of the unstrained layer}).

References: Qi et al. 2024, section II C.
"""

import torch
from torch import Tensor

from ase_mlelec.descriptors.layer_moments.geometry import Layers


def interface_features(layers: Layers, reference_areas) -> Tensor:
    """Features [L - 1, 2] of the interfaces: strain difference and logarithm of the ratio of atoms, below - above.

    Parameters
    ----------
    reference_areas : dict of float, Å^2 per atom
        Area of the unstrained layer of every formula; layers of other formulas count as unstrained.
    """
    strain = torch.stack(
        [
            0.5 * (area / reference_areas[formula]).log() if formula in reference_areas else torch.zeros_like(area)
            for area, formula in zip(layers.areas, layers.formulas)
        ]
    )
    count = torch.tensor(layers.n_atoms, dtype=torch.float64).log()
    return torch.stack([strain[:-1] - strain[1:], count[:-1] - count[1:]], dim=1)


def layer_shifts(steps: Tensor):
    """Potential shift [L] of every layer, eV, from the steps D [L - 1] at the interfaces."""
    shifts = torch.zeros(len(steps) + 1, dtype=torch.float64)
    for place, step in enumerate(steps):
        above = torch.arange(len(shifts)) > place
        shifts = shifts + torch.where(above, step / 2, -step / 2)
    return shifts
