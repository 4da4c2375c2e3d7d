"""From the former formats of a model file to the present one, a step for every version."""

import re

FORMAT_VERSION = 3


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


UPGRADES = {1: _from_version_1, 2: _from_version_2}
