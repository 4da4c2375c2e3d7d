"""Does a model that has seen only the crystal know the liquid, and is half of each as good as all of one?

    python 04_aluminium_hybrid.py       # two to three minutes on two cores; writes output/04_aluminium_hybrid.png

Trains three small models on eight snapshots each, crystal, liquid or four of both, and compares band and total free
energy of unseen snapshots with DFT.  The boxes tell why one direction is harder: how much the local density of states
varies within a snapshot, along its two principal components.  benchmarks/ALUMINIUM.md has the models trained on all.

Source: after Ellis et al. 2021, Figs. 5-7.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from ase_mlelec.analysis import ados
from ase_mlelec.analysis.plots import plot_parity_groups, plot_variances
from ase_mlelec.data.grid_points import GridData
from ase_mlelec.data.snapshots import Snapshots
from ase_mlelec.descriptors import Bispectrum
from ase_mlelec.heads import LDOSHead
from ase_mlelec.model import Model
from ase_mlelec.train.ldos.descent import fit_ldos
from ase_mlelec.train.ldos.errors import free_energy, ldos_errors
from ase_mlelec.train.ldos.standardize import standardize_ldos

HERE = Path(__file__).parent
PHASES = ("solid-4-298K", "solid-4-933K", "liquid-4-933K")  # how names of snapshots begin
POINTS = 300  # of the LDOS of each snapshot, for the principal components: all that the file has
TRAININGS = {"crystal": (8, 0), "liquid": (0, 8), "both": (4, 4)}  # snapshots of solid and liquid at 933 K


def train(snapshots, cache, epochs):
    torch.manual_seed(0)
    descriptor = Bispectrum(["Al"]).double()
    model = Model(descriptor, {"ldos": LDOSHead(descriptor.n_features, snapshots.energies)})
    data = GridData(snapshots, descriptor, cache)
    standardize_ldos(model.heads["ldos"], data)
    fit_ldos(model, data, epochs=epochs, batch_size=2, dos_weight=100.0)
    return model


def draw_variances(axes, snapshots):
    """Variance within each snapshot of the scores of its LDOS along the principal components of all."""
    names, spectra = zip(
        *((snapshot.name, snapshot.ldos[:: len(snapshot.ldos) // POINTS][:POINTS]) for snapshot in snapshots)
    )
    parts = ados.principal_components(spectra)
    for k, values in enumerate(parts.scores(spectra).var(axis=1).T):
        boxes = {
            kind.replace("-4-", "\n"): [v for v, name in zip(values, names) if name.startswith(kind)] for kind in PHASES
        }
        plot_variances(axes[k], boxes, f"variance of component {k + 1} (eV$^{{-2}}$ Å$^{{-6}}$)")
        axes[k].set_title(f"{100 * parts.explained_variance[k]:.0f} % of the variance of the LDOS", fontsize="medium")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE / "data" / "aluminium.h5")
    parser.add_argument("--epochs", type=int, default=60, help="passes through the training data (%(default)s)")
    parser.add_argument("--output", type=Path, default=HERE / "output")
    arguments = parser.parse_args()
    arguments.output.mkdir(exist_ok=True)
    snapshots, cache = Snapshots(arguments.data), arguments.output / "04_fingerprints.h5"
    names, groups = [snapshot.name for snapshot in snapshots], snapshots.groups
    solid, liquid = (
        [k for k, name in enumerate(names) if name.startswith(kind) and groups[k] != "test"] for kind in PHASES[1:]
    )
    tests = snapshots.take([k for k, name in enumerate(names) if name.startswith(PHASES[1:]) and groups[k] == "test"])
    phases = [snapshot.name.split("-")[0] for snapshot in tests]
    terms = [free_energy(tests, snapshot, snapshot.dos)[0] for snapshot in tests]
    figure = Figure(figsize=(15, 7.2), layout="constrained")
    axes = figure.subplots(2, 4)
    for column, (name, (n_solid, n_liquid)) in zip(axes.T, TRAININGS.items()):
        model = train(snapshots.take(solid[:n_solid] + liquid[:n_liquid]), cache, arguments.epochs)
        found = ldos_errors(model, GridData(tests, model.descriptor.double(), cache))
        for ax, term, key in zip(column, ("band", "total"), ("band_energy", "free_energy")):
            true = np.array([float(row[term]) for row in terms]) / 4
            plot_parity_groups(ax, true, true + found[key], phases, "eV/atom")
            ax.set_title(f"{key.replace('_', ' ')}, trained on {name}", fontsize="medium")
    draw_variances(axes[:, 3], snapshots.take([k for k, name in enumerate(names) if name.startswith(PHASES)]))
    figure.savefig(arguments.output / "04_aluminium_hybrid.png", dpi=110)


if __name__ == "__main__":
    main()
