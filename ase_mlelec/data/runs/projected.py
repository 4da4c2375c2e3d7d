"""One calculation whose bands are projected on atoms, of any program."""

from dataclasses import dataclass, field

from ase import Atoms

from ase_mlelec.io.projections import Projections


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
