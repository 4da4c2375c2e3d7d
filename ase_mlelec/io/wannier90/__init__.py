"""Read and write the files of Wannier90: centres and spreads, Hamiltonians, the input file.

Every reader takes files that are compressed with gzip as well (``seed_hr.dat.gz``), and whatever Wannier90 itself
takes: text behind numbers, D exponents, any case.  Every reader raises Wannier90Error and nothing else.

Source: Wannier90 3.1, its output, its user guide, chapter "Files", and what it accepts when it is run.
"""

from ase_mlelec.io.wannier90.centres import Centres, assign_centres, nearest_atoms, read_centres
from ase_mlelec.io.wannier90.files import FOLDED, LENGTHS, Wannier90Error, read_text
from ase_mlelec.io.wannier90.hamiltonians import RealSpace, read_hr, read_tb
from ase_mlelec.io.wannier90.run import Run, read_run
from ase_mlelec.io.wannier90.win import Win, read_win
from ase_mlelec.io.wannier90.write import write_hr, write_tb

__all__ = [
    "FOLDED",
    "LENGTHS",
    "Centres",
    "RealSpace",
    "Run",
    "Wannier90Error",
    "Win",
    "assign_centres",
    "nearest_atoms",
    "read_centres",
    "read_hr",
    "read_run",
    "read_tb",
    "read_text",
    "read_win",
    "write_hr",
    "write_tb",
]
