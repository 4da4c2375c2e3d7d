"""Figures of densities of states, of spectra and of runs.

Every ``plot_*`` function draws into the Axes it is given and returns it; titles, limits, legends and files are the
caller's. ``melting_figure`` and ``components_figure`` arrange some of them into
a page.
"""

from ase_mlelec.analysis.plots.components import (
    components_figure,
    plot_component_density,
    plot_component_path,
    plot_component_types,
    plot_components,
)
from ase_mlelec.analysis.plots.curves import (
    COLORS,
    melting_figure,
    plot_bands,
    plot_dos,
    plot_dos_comparison,
    plot_dos_map,
    plot_series,
    plot_spectrum,
    plot_stack,
)
from ase_mlelec.analysis.plots.parity import (
    plot_parity,
    plot_parity_counts,
    plot_parity_groups,
    plot_slice,
    plot_variances,
)
from ase_mlelec.deprecated import former_names

__all__ = [
    "COLORS",
    "components_figure",
    "melting_figure",
    "plot_bands",
    "plot_component_density",
    "plot_component_path",
    "plot_component_types",
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

__getattr__ = former_names(__name__, COLOURS="COLORS")
