"""Names and headers of the shipped models, without torch, so that ``mlelec models`` is quick."""

import json
import math
from importlib.resources import files

PRETRAINED = files("ase_mlelec") / "pretrained"
HEADER = "ase_mlelec"  # key of our header in the safetensors header
SUFFIX = ".safetensors"
LONGEST = 100_000_000  # bytes of a header, the limit of safetensors


def list_models(folder=PRETRAINED) -> list[str]:
    """Names of the models shipped with the package.

    Examples
    --------
    >>> list_models()
    ['al', 'graphene', 'ice', 'mgo', 'mos2', 'si', 'si_hot', 'water']
    """
    return sorted(path.name.removesuffix(SUFFIX) for path in folder.iterdir() if path.name.endswith(SUFFIX))


def read_summary(name: str, folder=PRETRAINED) -> dict:
    """Read species, cutoff (Å) and quantities of a shipped model from its header, dict; the arrays are not read.

    Raises
    ------
    ValueError
        For a file that is not a model.

    Examples
    --------
    >>> read_summary("si")["quantities"]
    ['energy', 'dos']
    """
    path = folder / f"{name}{SUFFIX}"
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > LONGEST:
                raise ValueError(f"got a header of {size} bytes")
            header = json.loads(json.loads(file.read(size))["__metadata__"][HEADER])
        descriptors = filter(None, (header["descriptor"], header.get("electronic"), header.get("pairs")))
        cutoff = max(map(_cutoff, [*descriptors, *header["heads"].values()]))
        if not 0 < cutoff < math.inf:
            raise ValueError(f"got a cutoff of {cutoff}")
        return {"species": list(header["species"]), "cutoff": cutoff, "quantities": list(header["heads"])}
    except (KeyError, TypeError, ValueError, RecursionError, OverflowError) as error:
        raise ValueError(f"{path}: damaged header ({repr(error)[:200]}); install the package again") from None


def _cutoff(described):
    """The longest cutoff, Å, that a descriptor or head of a header has, or 0."""
    arguments = described["arguments"]
    return max(float(part.get("cutoff", 0.0)) for part in (arguments, *arguments.get("orders", ())))
