"""projwfc.x: bands and their weights on atoms."""

import re
from os import PathLike

import numpy as np

from ase_mlelec import units
from ase_mlelec.deprecated import formerly_positional
from ase_mlelec.io.espresso.common import EspressoError, find_file, floats, parse_xml, whole_number
from ase_mlelec.io.projections import Projections
from ase_mlelec.io.text import read_text

WHAT_TO_GIVE = (
    "give projwfc.x's atomic_proj.xml or prefix.save, and its text output; where one is missing or "
    "truncated, run projwfc.x again"
)


@formerly_positional("output")
def read_projections(path: str | PathLike, *, output: str | PathLike) -> Projections:
    """Read projwfc.x: ``atomic_proj.xml`` (path: the file, prefix.save or the folder that holds one) and its text
    ``output`` (which atom owns which atomic function; the XML does not say), in the format of Quantum ESPRESSO 6.4 and
    later. The k-points of a spin-polarized run come twice, those of spin up first; a band then holds one electron.

    The weights are those of the k-points as they stand in the file, which are not symmetrized; where symmetry reduced
    the mesh, ``Projections.averaged`` over equivalent atoms (``read_setup``) makes them so.

    Returns
    -------
    Projections

    Raises
    ------
    EspressoError
        For missing and damaged files, and files of other runs.
    """
    path = find_file(path, "atomic_proj.xml", WHAT_TO_GIVE)
    text, listing = read_text(path, WHAT_TO_GIVE, EspressoError), read_text(output, WHAT_TO_GIVE, EspressoError)
    root = parse_xml(path, text, "projwfc.x", "a part is missing or truncated or it is not XML")
    header, states = root.find("HEADER"), root.find("EIGENSTATES")
    if header is not None and header.find("NUMBER_OF_BANDS") is not None:
        raise EspressoError(
            f"{path}: in the format of Quantum ESPRESSO before 6.4 (iotk), which is not read; run "
            "projwfc.x of 6.4 or later"
        )
    if header is None or states is None:
        raise EspressoError(f"{path}: no <HEADER> or <EIGENSTATES>; give projwfc.x's atomic_proj.xml")
    keys = "NUMBER_OF_BANDS", "NUMBER_OF_K-POINTS", "NUMBER_OF_ATOMIC_WFC"
    n_bands, n_kpoints, n_functions = (whole_number(path, key, header.get(key)) for key in keys)
    n_spins = whole_number(path, "NUMBER_OF_SPIN_COMPONENTS", header.get("NUMBER_OF_SPIN_COMPONENTS", "1"))
    if n_spins not in (1, 2, 4):
        raise EspressoError(f"{path}: got {n_spins} spin components, need 1, 2 or 4; the file is damaged")
    n_kpoints *= 2 if n_spins == 2 else 1  # the header counts those of one spin
    owners, is_spinor = _owners(path, output, listing, n_functions)
    weights, eigenvalues = _levels(path, states, n_kpoints, n_bands)
    site = _site_weights(path, states, n_kpoints, n_bands, owners)
    # a band holds two electrons, a band of spinors one; both spins together have a sum of weights of two as well
    return Projections(eigenvalues, (1 if is_spinor or n_spins == 4 else 2) * weights / weights.sum(), site)


def _owners(path, output, listing, n_functions):
    """Index of the atom [A] that owns each atomic function, and whether the functions are spinors (with s_z or j)."""
    rows = re.findall(r"state #\s*(\S+?): atom\s*(\S+)(.*)", listing)
    if len(rows) != n_functions or not rows:
        raise EspressoError(
            f"{output}: lists {len(rows)} atomic functions, {path} holds {n_functions}; give the "
            "text output of the same projwfc.x run"
        )
    owners = []
    for k, (number, atom, _) in enumerate(rows):
        if number != str(k + 1) and "*" not in number:
            raise EspressoError(f"{output}: got state # {number[:18]}, need {k + 1}; give the text output of one run")
        # atoms without functions are counted too, but are not many times more
        if not re.fullmatch(r"\d{1,9}", atom) or not 1 <= int(atom) <= 10 * n_functions + 100:
            raise EspressoError(
                f"{output}: state # {k + 1} is of atom {atom[:18]!r}, which cannot be with "
                f"{n_functions} atomic functions; the output is damaged, or has stars for 10,000 "
                "atoms and more"
            )
        owners.append(int(atom) - 1)
    return np.array(owners), any(re.search(r"s_z|\bj\s*=|m_j", kind) for _, _, kind in rows)


def _levels(path, states, n_kpoints, n_bands):
    """Weights [K] of the k-points as in the file, and band energies [K, M], eV."""
    points, energies = states.findall("K-POINT"), states.findall("E")
    if not n_kpoints == len(points) == len(energies) or n_kpoints * n_bands == 0:
        raise EspressoError(
            f"{path}: got {len(points)} k points with weights and {len(energies)} with energies, the "
            f"header says {n_kpoints} with {n_bands} bands; the file is damaged: run projwfc.x again"
        )
    weights = np.array(
        [floats(path, f"Weight of k point {k + 1}", point.get("Weight"), 1)[0] for k, point in enumerate(points)]
    )
    if weights.min() < 0 or weights.sum() <= 0:
        raise EspressoError(
            f"{path}: the weights of the k points are {weights.min():g} and more, their sum is "
            f"{weights.sum():g}, need positive ones; the file is damaged: run projwfc.x again"
        )
    eigenvalues = np.array([floats(path, f"<E> of k point {k + 1}", e.text, n_bands) for k, e in enumerate(energies)])
    return weights, eigenvalues * units.RYDBERG


def _site_weights(path, states, n_kpoints, n_bands, owners):
    """Share of each band on each atom [K, M, N]."""
    blocks = states.findall("PROJS")
    functions = [block.findall("ATOMIC_WFC") for block in blocks]
    if len(blocks) != n_kpoints or any(len(each) != len(owners) for each in functions):
        raise EspressoError(
            f"{path}: got projections at {len(blocks)} k points on "
            f"{sorted({len(f) for f in functions})} atomic functions, the header says {n_kpoints} "
            f"and {len(owners)}; the file is damaged: run projwfc.x again"
        )
    site = np.zeros((n_kpoints, n_bands, owners.max() + 1))
    for k, each in enumerate(functions):
        for owner, function in zip(owners, each):
            amplitudes = floats(path, f"<ATOMIC_WFC> at k point {k + 1}", function.text, 2 * n_bands)
            site[k, :, owner] += (amplitudes.reshape(n_bands, 2) ** 2).sum(axis=1)
    return site
