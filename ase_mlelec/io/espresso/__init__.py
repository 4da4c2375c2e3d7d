"""Read Quantum ESPRESSO: pw.x results, projwfc.x projections, ph.x, and functions on a grid by pp.x (see io.filplot).

Two sources are understood for pw.x. ``data-file-schema.xml`` (in ``prefix.save``) holds full precision and is
preferred; the text output is what people keep, and has the one-electron term as well. A run that did not finish or did
not converge is refused by name: its numbers look like any others.

References: Quantum ESPRESSO 6.7 output; sign of the stress checked against finite differences (QE prints -dE/dε/V).
"""

from ase_mlelec.io.espresso.common import EspressoError
from ase_mlelec.io.espresso.filplot import plot_num_of, read_filplot, read_ldos
from ase_mlelec.io.espresso.phonons import read_ph
from ase_mlelec.io.espresso.projwfc import read_projections
from ase_mlelec.io.espresso.pw import PwResult, read_pw
from ase_mlelec.io.projections import Projections

__all__ = [
    "EspressoError",
    "Projections",
    "PwResult",
    "plot_num_of",
    "read_filplot",
    "read_ldos",
    "read_ph",
    "read_projections",
    "read_pw",
]
