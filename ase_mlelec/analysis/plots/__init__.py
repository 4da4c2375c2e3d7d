"""Figures of densities of states, of spectra and of runs.

Every ``plot_*`` function draws into the Axes it is given and returns it; titles, limits, legends and files are the
caller's. ``melting_figure`` arranges some of them into a page.
"""

from ase_mlelec.analysis.plots.curves import plot_bands, plot_series, plot_spectrum, plot_stack
from ase_mlelec.analysis.plots.densities import plot_dos, plot_dos_comparison, plot_dos_map
from ase_mlelec.analysis.plots.fields import plot_components, plot_slice, plot_variances
from ase_mlelec.analysis.plots.melting import melting_figure
from ase_mlelec.analysis.plots.parity import plot_parity, plot_parity_counts, plot_parity_groups
from ase_mlelec.analysis.plots.style import COLORS

__all__ = [
    "COLORS",
    "melting_figure",
    "plot_bands",
    "plot_components",
    "plot_dos",
    "plot_dos_comparison",
    "plot_dos_map",
    "plot_parity",
    "plot_parity_counts",
    "plot_parity_groups",
    "plot_series",
    "plot_slice",
    "plot_spectrum",
    "plot_stack",
    "plot_variances",
]
