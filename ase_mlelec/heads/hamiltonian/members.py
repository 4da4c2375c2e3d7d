"""Hamiltonians with other last layers of the nets: what differs, for many of them at once."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ase_mlelec.descriptors.layer_moments import Geometry
from ase_mlelec.heads.hamiltonian.assemble import values_in_functions

AT_ONCE = 8  # members; bounds the memory
LINEAR = ("linear", "third", "turned", "third_turned")  # buffers of the linear parts


def last_layers(head: Any) -> dict[str, torch.nn.Linear]:
    """Last layers of the nets of a HamiltonianHead, by names such as "onsite_Mo" and "inter_S_S_long"."""
    found = {f"onsite_{symbol}": part.net for symbol, part in zip(head.species, head.onsite)}
    for kind, (inter, *ends) in zip(head.hopping, head.hopping.keys):
        symbols = "_".join(head.species[k] for k in ends)
        for reach, net in kind.nets.items():
            found[f"{'inter' if inter else 'intra'}_{symbols}_{reach}"] = net.last
    return found


def category(layer: str) -> str:
    """Category of matrix elements of a last layer, such as "inter_long"; see ase_mlelec.train.hamiltonian.items."""
    first, *_, last = layer.split("_")
    return first if first == "onsite" else f"{first}_{last}"


def bare(geometry: Geometry) -> Geometry:
    """Geometry without what only linear parts need."""
    return replace(geometry, neighbors=None, third_moments=None)


def changes_of_values(head: Any, geometry: Geometry, changes: Mapping[str, Tensor]) -> Tensor:
    """Changes [n, M], eV, of the matrix elements when the last layers change.

    Blocks are linear in the last layers. Hidden layers and linear parts are therefore shared by all members: the blocks
    are those of a head whose last layers are the changes, without linear parts.

    Parameters
    ----------
    head : HamiltonianHead
    geometry : Geometry
        Of one structure; ``bare`` is enough.
    changes : dict by name in ``last_layers`` of Tensor [n, H + 1, outputs]
        Changes of weights and constants.

    Returns
    -------
    Tensor [n, M]
        In the order of the values of ``assemble.elements``.
    """
    names = {id(parameter): name for name, parameter in head.named_parameters()}
    nothing = {name: torch.zeros_like(part) for name, part in head.named_buffers() if name.split(".")[-1] in LINEAR}
    layers = last_layers(head)
    own: dict[str, Tensor] = {}
    for name, layer in layers.items():
        weight, bias = names[id(layer.weight)], names[id(layer.bias)]
        if name in changes:
            change = changes[name].to(layer.weight)
            own |= {weight: change[:, :-1].mT, bias: change[:, -1]}
        else:
            nothing |= {weight: torch.zeros_like(layer.weight), bias: torch.zeros_like(layer.bias)}
    geometry = bare(geometry)

    def values(parameters):
        blocks = torch.func.functional_call(_Unshifted(head), _prefixed({**nothing, **parameters}), (geometry,))
        return values_in_functions(blocks, head.orbitals)

    with torch.no_grad():
        return torch.func.vmap(values, chunk_size=AT_ONCE)(own)


class _Unshifted(torch.nn.Module):
    """The blocks of a head without the shifts of layers, as a module that functional_call takes."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, geometry):
        return self.head.unshifted(geometry)


def _prefixed(parameters):
    return {f"head.{name}": value for name, value in parameters.items()}
