"""From the former formats of a model file to the present one, a step for every version."""

import re

from ase_mlelec.descriptors.ace.former import present_arguments

FORMAT_VERSION = 5


def _from_version_1(header, state):
    """Files had no checksum, and at first neither core nor ranges."""
    return {"core": None, "ranges": {}, **header, "format_version": 2}, state


def _from_version_2(header, state):
    """The arrays of the on-site blocks of a Hamiltonian were those of the head, their species part of their names."""
    of_pairs = {
        name for name, described in _items(header.get("heads")) if dict(_items(described)).get("class") == "PairHead"
    }

    def renamed(key):
        found = re.fullmatch(r"heads\.(.+)\.(?:(linear|turned|third_turned)_(\d+)|onsite\.(\d+)\.(weight|bias))", key)
        if not found or found[1] not in of_pairs:
            return key
        return f"heads.{found[1]}.onsite." + (f"{found[3]}.{found[2]}" if found[2] else f"{found[4]}.net.{found[5]}")

    return {**header, "format_version": 3}, {renamed(key): tensor for key, tensor in state.items()}


def _items(value):
    """Items of what should be a dict, none of anything else."""
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
    return {**header, "format_version": 5}, {
        re.sub(r"^(ranges\.\w+)\.(atoms|structures|neighbors)_(middle|inverse)$", r"\1.of_\2.\3", key): tensor
        for key, tensor in state.items()
    }


UPGRADES = {1: _from_version_1, 2: _from_version_2, 3: _from_version_3, 4: _from_version_4}
