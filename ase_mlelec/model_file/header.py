"""The JSON header of a model file.

It is stored under the key ``ase_mlelec`` of the safetensors header. It holds format_version; class names and constructor
arguments of descriptors, heads, repulsive core and ranges of the training data; and the metadata of the model: units,
species, energy grid, electronic temperature, provenance of the training, license. It begins with the digest of its other
keys and of all arrays, with their names, types and shapes.
"""

import hashlib
import json
import math
import re

import torch
from ase.calculators.calculator import CalculatorSetupError

from ase_mlelec.model_file.upgrade import FORMAT_VERSION, UPGRADES

DIGEST = re.compile(r'\{"digest": "([0-9a-f]{32})", ')  # the beginning of a header


def read_header(path, text, state):
    """Read header and arrays, upgraded to the present format version: (dict, dict of arrays by name)."""
    try:
        header = json.loads(text)
        place = place_of_nan(header)
        if not isinstance(header, dict):
            raise ValueError(f"got a {type(header).__name__}, need a dict")
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from None
    if place is not None:
        raise damaged(path, f"{place} is NaN or infinity")
    check_version(path, header)
    for version in range(header["format_version"], FORMAT_VERSION):
        try:
            header, state = UPGRADES[version](header, state)
        except (TypeError, AttributeError, KeyError, ValueError, IndexError) as error:
            raise damaged(path, repr(error)) from None
    return header, state


def check_version(path, header):
    """Refuse files written by a later version of the format."""
    version = header.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= FORMAT_VERSION:
        raise CalculatorSetupError(
            f"{path} has model format {version}, this version reads up to {FORMAT_VERSION}; update ase-mlelec"
        )


def check_digest(path, text, state):
    """Raise CalculatorSetupError where the digest in the header ``text`` does not fit the header and the arrays."""
    begins = DIGEST.match(text)
    if begins is None and json.loads(text)["format_version"] == 1 and "digest" not in json.loads(text):
        return
    if begins is None or begins[1] != digest("{" + text[begins.end() :], state):
        raise CalculatorSetupError(
            f"{path} is damaged: its checksum is not that of its header and arrays; copy it "
            "again from where it is whole, or save the model again"
        )


def digest(text, state):
    """Digest of the header and of the arrays, str."""
    found = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(state):
        tensor = state[name]
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.flatten().view(torch.uint8).numpy() if tensor.numel() else b"")
    return found.hexdigest()


def place_of_nan(value, name=""):
    """The keys that lead to the first number that is not finite, or None."""
    if isinstance(value, float):
        return None if math.isfinite(value) else name
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    found = (place_of_nan(entry, f"{name}.{key}".lstrip(".")) for key, entry in items)
    return next((place for place in found if place is not None), None)


def damaged(path, cause):
    """CalculatorSetupError of a file whose header cannot be used."""
    return CalculatorSetupError(f"{path}: damaged header ({' '.join(str(cause).split())}); save the model again")
