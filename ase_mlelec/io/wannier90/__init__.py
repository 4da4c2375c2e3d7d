"""Read and write the files of Wannier90: centers and spreads, Hamiltonians, the input file.

Every reader takes files that are compressed with gzip as well (``seed_hr.dat.gz``), and whatever Wannier90 itself
takes: text behind numbers, D exponents, any case. Every reader raises Wannier90Error and nothing else.

References: Wannier90 3.1, its output, its user guide, chapter "Files", and what it accepts when it is run.
"""

from ase_mlelec.deprecated import former_names
from ase_mlelec.io.wannier90.centers import Centers, assign_centers, nearest_atoms, read_centers
from ase_mlelec.io.wannier90.files import FOLDED, LENGTHS, Wannier90Error, read_text
from ase_mlelec.io.wannier90.hamiltonians import RealSpace, read_hr, read_tb
from ase_mlelec.io.wannier90.projections import Projection, lower_excluded, projections_of
from ase_mlelec.io.wannier90.run import Run, read_run
from ase_mlelec.io.wannier90.win import Win, read_win
from ase_mlelec.io.wannier90.write import write_hr, write_tb

__all__ = [
    "FOLDED",
    "LENGTHS",
    "Centers",
    "Projection",
    "RealSpace",
    "Run",
    "Wannier90Error",
    "Win",
    "assign_centers",
    "lower_excluded",
    "nearest_atoms",
    "projections_of",
    "read_centers",
    "read_hr",
    "read_run",
    "read_tb",
    "read_text",
    "read_win",
    "write_hr",
    "write_tb",
]

__getattr__ = former_names(__name__, Centres="Centers", assign_centres="assign_centers", read_centres="read_centers")
