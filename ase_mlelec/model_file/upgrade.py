"""Upgrades of former formats of a model file, one step for every version."""

import re
from itertools import combinations_with_replacement

import numpy as np
import torch

from ase_mlelec.descriptors.ace.former import present_arguments

FORMAT_VERSION = 10
LARGE = 1e4  # deviation of the energy of a species, relative to the least of all shifts, that tells of no data


def _from_version_1(header, state):
    """Files had no checksum, and at first neither core nor ranges."""
    return {"core": None, "ranges": {}, **header, "format_version": 2}, state


def _from_version_2(header, state):
    """The arrays of on-site blocks belonged to the head itself, with the species in their names."""
    classes = {name: dict(_items(described)).get("class") for name, described in _items(header.get("heads"))}

    def renamed(key):
        found = re.fullmatch(r"heads\.(.+)\.(?:(linear|turned|third_turned)_(\d+)|onsite\.(\d+)\.(weight|bias))", key)
        if not found or classes.get(found[1]) != "PairHead":
            return key
        return f"heads.{found[1]}.onsite." + (f"{found[3]}.{found[2]}" if found[2] else f"{found[4]}.net.{found[5]}")

    return {**header, "format_version": 3}, {renamed(key): tensor for key, tensor in state.items()}


def _items(value):
    """Items of a dict; no items for any other value."""
    return value.items() if isinstance(value, dict) else ()


def _from_version_3(header, state):
    """ACE invariants up to three-body terms, with more for near neighbors, were called PowerSpectrum."""

    def present(described):
        if dict(_items(described)).get("class") == "PowerSpectrum":
            return {"class": "ACE", "arguments": present_arguments(**described["arguments"])}
        return described

    def present_head(described):
        spectrum = dict(_items(dict(_items(described)).get("arguments"))).get("spectrum")
        if not spectrum or described["class"] != "PairHead":
            return described
        return {**described, "arguments": described["arguments"] | {"spectrum": present_arguments(**spectrum)}}

    changed = {name: present(header.get(name)) for name in ("descriptor", "electronic") if name in header}
    if isinstance(header.get("heads"), dict):
        changed["heads"] = {name: present_head(described) for name, described in header["heads"].items()}
    return {**header, **changed, "format_version": 4}, state


def _from_version_4(header, state):
    """The ranges of atoms, structures and numbers of neighbors were arrays side by side."""
    former = re.compile(r"^(ranges\.\w+)\.(atoms|structures|neighbors)_(middle|inverse)$")
    state = {former.sub(r"\1.of_\2.\3", key): tensor for key, tensor in state.items()}
    return {**header, "format_version": 5}, state


def _from_version_5(header, state):
    """Heads of Hamiltonians described the layers themselves, with arguments of a LocalFrame and of ACE."""
    heads, described = dict(_items(header.get("heads"))), None
    renamed = {name: name for name in state}
    for name, head in heads.items():
        if dict(_items(head)).get("class") == "PairHead":
            prefix = f"heads.{name}."
            described = _layer_moments(head["arguments"], f"{prefix}third_inverse" in state)
            heads[name] = {"class": "HamiltonianHead", "arguments": _hamiltonian_head(head["arguments"], prefix, state)}
            renamed |= {
                key: prefix + _of_parts(key.removeprefix(prefix), len(described["arguments"]["species"]))
                for key in state
                if key.startswith(prefix)
            }
    changed = {"pairs": described, "heads": heads}
    if described and header["descriptor"]["class"] == "LocalFrame":
        changed |= {"descriptor": described, "pairs": None}
    return {**header, **changed, "format_version": 6}, {renamed[key]: tensor for key, tensor in state.items()}


def _layer_moments(arguments, third_moments):
    frame = arguments["frame"]
    return {
        "class": "LayerMoments",
        "arguments": {
            "species": frame["species"],
            "cutoff": arguments.get("cutoff", 12.0),
            "environment": frame.get("cutoff", 6.0),
            "smooth": frame.get("smooth"),
            "symmetry": frame.get("fold", 3),
            "n_radial": frame.get("n_radial", 6),
            "third": arguments.get("third", 0.0),
            "third_moments": third_moments,
            "ace": arguments.get("spectrum"),
            "reference_areas": arguments.get("reference_areas") or {},
        },
    }


def _hamiltonian_head(arguments, prefix, state):
    """Arguments of a HamiltonianHead, with sizes from its arrays."""
    arrays = {"n_features": "shift", "n_ace": "spectrum_shift", "n_third": "third_inverse"}
    sizes = {key: state[prefix + name].shape[1] if prefix + name in state else 0 for key, name in arrays.items()}
    kept = ("functions", "cutoff", "widths", "n_hidden", "n_reduced", "n_directed", "reference_areas", "third")
    own = {name: arguments[name] for name in kept if name in arguments}
    n_channels = state[f"{prefix}moment_inverse"].shape[1] // 2
    frame = arguments["frame"]
    return own | sizes | {"species": frame["species"], "symmetry": frame.get("fold", 3), "n_channels": n_channels}


def _of_parts(key, n_species):
    """Present name of an array of a Hamiltonian's head."""
    first, *rest = key.split(".", 2)
    standardized = {"": "features", "spectrum_": "ace"}
    if first.endswith(("shift", "inverse")) and first.removesuffix("shift").removesuffix("inverse") in standardized:
        part = first.removesuffix("shift").removesuffix("inverse")
        return f"{standardized[part]}.{first.removeprefix(part)}"
    if first == "pairs":
        kind, a, b, reach = rest[0].split("_")
        pairs = list(combinations_with_replacement(range(n_species), 2))
        place = pairs.index((int(a), int(b))) + len(pairs) * (kind == "inter")
        return f"hopping.{place}.nets.{reach}.{rest[1]}"
    return re.sub("^dipole$", "interface_dipole", key)


def _from_version_6(header, state):
    """Files had no posteriors of the last layers."""
    return {"posteriors": {}, **header, "format_version": 7}, state


def _from_version_7(header, state):
    """Energies had no long range."""
    return {"long_range": None, **header, "format_version": 8}, state


def _from_version_8(header, state):
    """Energies belonged to one temperature of the electrons."""
    return {"hot": None, **header, "format_version": 9}, state


def _from_version_9(header, state):
    """Posteriors did not know which shifts of the energies of species are a gauge, and no array was in bfloat16.

    They are found by their size: no data determine a shift so much worse than another one.
    """
    found = {}
    for key, inputs in state.items():
        if key.startswith("posteriors.") and key.endswith(".inputs"):
            constants = inputs[:, -1].double().numpy()
            vectors, sizes, _ = np.linalg.svd(constants, full_matrices=False)
            shifts = vectors[:, sizes > LARGE * sizes[-1]] if key == "posteriors.energy.inputs" else vectors[:, :0]
            found[key.removesuffix("inputs") + "gauge"] = torch.as_tensor(shifts @ shifts.T @ constants).to(inputs)
    return {**header, "format_version": 10}, state | found


UPGRADES = {
    1: _from_version_1,
    2: _from_version_2,
    3: _from_version_3,
    4: _from_version_4,
    5: _from_version_5,
    6: _from_version_6,
    7: _from_version_7,
    8: _from_version_8,
    9: _from_version_9,
}
