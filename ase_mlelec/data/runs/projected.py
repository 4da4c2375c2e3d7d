"""One calculation whose bands are projected on atoms, of any program."""

from dataclasses import dataclass, field

from ase import Atoms

from ase_mlelec.io.projections import Projections

SAME_MAGNETIZATION, SAME_SHARE = 0.05, 0.005  # electrons, and a share of all electrons


@dataclass(frozen=True)
class ProjectedRun:
    """A structure with its labels, levels and electrons.

    Attributes
    ----------
    source : str
        File or folder, for messages.
    labels : dict
        Energy, forces and virial, as far as there are any; see ase_mlelec.data.data_set.Frame.
    n_electrons : float
    valence : dict of float by symbol
        Valence electrons of the elements whose pseudopotential was found.
    temperature : float, K, or None
        Of the Fermi-Dirac smearing; None with any other occupations.
    energy_reference : str
        Zero of the levels.
    settings : dict of JSON types
    more_bands : str
        How to ask the program for more bands.
    normalize : bool
        Whether shares of atoms are scaled to the sum 1 unless the user says otherwise.
    """

    source: str
    name: str
    atoms: Atoms
    labels: dict
    levels: Projections
    n_electrons: float
    valence: dict
    temperature: float | None
    energy_reference: str
    more_bands: str
    settings: dict = field(default_factory=dict)
    normalize: bool = False


def other_magnetization(levels: Projections, n_electrons: float, fixed: float, temperature: float | None) -> str | None:
    """Why a fixed magnetization does not fit a density of states of both spins, which has one Fermi level, or None.

    Parameters
    ----------
    levels : Projections
        The k-points of spin up, then those of spin down.
    n_electrons : float
    fixed : float
        Electrons of spin up less those of spin down in the calculation.
    temperature : float, K, or None
        Of the Fermi-Dirac smearing.
    """
    try:
        level = levels.fermi_level(n_electrons, temperature=temperature or 0.0)
    except ValueError:  # too few bands, which is told where the spectra are made
        return None
    up, down = (part.n_electrons(level, temperature=temperature or 0.0) for part in levels.halves())
    if abs(up - down - fixed) <= max(SAME_MAGNETIZATION, SAME_SHARE * n_electrons):
        return None
    return f"gives each spin its own Fermi level, and spectra of both have one, with a magnetization of {up - down:.3g}"
