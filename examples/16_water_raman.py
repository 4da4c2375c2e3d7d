"""What does the Raman spectrum of liquid water look like, and how is the scattered light polarized?

    python ../benchmarks/water_response.py WATER_BULK.xyz.gz output/16_response    # a model of polarizabilities, minutes
    python 16_water_raman.py output/16_response/water.safetensors                  # 10 ps, a quarter of an hour

Molecular dynamics of 64 molecules by the model ``water``, with classical nuclei at 330 K, in which another model gives the
polarizability every 2 fs.  It is trained on polarizabilities of whole cells alone, published data of others.  Every
finished picosecond is kept in output/16_water; a longer run goes on from there.  Writes output/16_water_raman.png.

With the polarization of the laser, light is scattered by the isotropic part of the polarizability and 4/3 of the
anisotropic part, across it by the anisotropic part alone: stretching waves light up the first, turning molecules the second.

Source: Berne and Pecora, Dynamic Light Scattering, 1976, Sec. 3.3.
"""

import argparse
from pathlib import Path

import numpy as np
from ase import units
from ase.io import read
from ase.md.bussi import Bussi
from ase.md.velocitydistribution import thermalize_momenta
from matplotlib.figure import Figure
from trajectories import EVERY, strongest, trajectory

from ase_mlelec import DeepWannierCalculator
from ase_mlelec.analysis.plots import COLORS, plot_spectrum
from ase_mlelec.physics import spectra

HERE = Path(__file__).parent
TEMPERATURE, STEP = 330, 0.5  # K, fs
RESOLUTION, SHORTEST = 40.0, 5.0  # cm^-1; ps, whose fifth has that resolution
BANDS = {"libration": (300, 1000), "bend": (1400, 1900), "stretch": (2800, 4000)}


def run(model, response, picoseconds, folder, start=HERE / "data" / "water.extxyz"):
    """Trajectory of ``picoseconds``, with polarizabilities [n, 3, 3] Å^3, kept in the folder."""
    atoms = read(start)
    atoms.calc = DeepWannierCalculator(model, on_extrapolation="warn")
    tensors = DeepWannierCalculator(response, on_extrapolation="ignore")
    thermalize_momenta(atoms, temperature_K=TEMPERATURE, rng=np.random.default_rng(0))
    if not (folder / "H2O_0000.npz").exists():
        Bussi(atoms, STEP * units.fs, TEMPERATURE, 50 * units.fs, rng=np.random.default_rng(1)).run(500)
    often = {"polarizabilities": lambda atoms: tensors.get_polarizability(atoms=atoms)}
    return trajectory(atoms, folder / "H2O", picoseconds, STEP, TEMPERATURE, often=often)


def scattering(run):
    """Wavenumbers cm^-1 and spectra of both parts, Å^6 cm, each with its standard error from five blocks."""

    def spectrum(tensors):
        return spectra.raman(
            tensors, EVERY * STEP, run["temperature"].mean(), resolution=RESOLUTION, quantum_correction="harmonic"
        )

    tensors = run["polarizabilities"]
    blocks = [spectra.block_error(lambda part, k=k: spectrum(part)[k], tensors) for k in (1, 2)]
    return spectrum(tensors)[0], *blocks


def picture(wavenumbers, isotropic, anisotropic):
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    titles = ("isotropic part", "anisotropic part")
    for ax, (mean, error), color, title in zip(figure.subplots(1, 2), (isotropic, anisotropic), COLORS, titles):
        plot_spectrum(ax, wavenumbers, mean, error, color=color)
        shown = (mean + error)[wavenumbers > 250].max()  # below are the slow turns of molecules, far stronger
        ax.set(title=title, ylabel="Raman intensity (Å$^6$ cm)", xlim=(0, 4000), ylim=(0, 1.05 * shown))
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("response", help="model of polarizabilities")
    parser.add_argument("--model", default="water", help="of energies and dipoles")
    parser.add_argument("--time", type=int, default=10, help="ps (%(default)s)")
    parser.add_argument("--output", type=Path, default=HERE / "output")
    arguments = parser.parse_args()
    if arguments.time < SHORTEST:
        parser.error(
            f"--time: got {arguments.time} ps, need {SHORTEST:g} for spectra of {RESOLUTION:g} cm^-1 with errors"
        )
    found = run(arguments.model, arguments.response, arguments.time, arguments.output / "16_water")
    wavenumbers, isotropic, anisotropic = scattering(found)
    for name, part in ("isotropic", isotropic[0]), ("anisotropic", anisotropic[0]):
        bands = (f"{band} {strongest(wavenumbers, part, BANDS[band]):.0f} cm^-1" for band in BANDS)
        print(f"{name}: " + ", ".join(bands))
    for name, (low, high) in BANDS.items():
        band = (wavenumbers > low) & (wavenumbers < high)
        across, along = anisotropic[0][band].sum(), (isotropic[0] + 4 / 3 * anisotropic[0])[band].sum()
        print(f"depolarization ratio of the {name}: {across / along:.2f}")
    picture(wavenumbers, isotropic, anisotropic).savefig(arguments.output / "16_water_raman.png", dpi=120)


if __name__ == "__main__":
    main()
