"""How wide is the band gap of magnesium oxide inside a planet, and how far can the answer be trusted?

    python 17_magnesium_oxide.py                # five minutes on one core, with the extra fast
    python 17_magnesium_oxide.py --steps 2000   # longer molecular dynamics under each pressure

Writes to output/: 17_magnesium_oxide.png, densities of states, of all atoms and of single ones, beside those of DFT, and
band gaps of a model of few structures beside those of the shipped one, all of validation structures, to which the shipped
model was fitted in the end; 17_gap_under_pressure.png, gaps of tests, which no model has seen, and gaps along the isotherm
of 5,000 K: averages over the structures of each volume, by DFT and by the model, and over molecular dynamics of the model
under constant pressure.

The gaps of DFT are those of its levels, before the width of the density of states.

Source: after Zeng et al. 2022, Figs. 2 and 3.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from ase import units
from ase.build import bulk
from ase.md.nptberendsen import NPTBerendsen
from ase.md.velocitydistribution import thermalize_momenta
from matplotlib.figure import Figure

from ase_mlelec import DeepDOSCalculator
from ase_mlelec.analysis.plots import COLORS, plot_dos, plot_parity, plot_parity_counts
from ase_mlelec.data.frames import read_frames, write_hdf5
from ase_mlelec.train.config import read_config
from ase_mlelec.train.recipe import train

HERE = Path(__file__).parent
FEW = 8  # structures that train the model for comparison
SHOWN = 1e-3  # states/eV, the least density of states of a parity, whose errors are in percent
TEMPERATURE, TIMESTEP, EVERY = 5000, 1.0, 20  # K; fs; steps between the gaps of a run
LATTICE = {237: 3.56, 327: 3.455, 418: 3.38, 508: 3.32, 599: 3.27}  # GPa: Å, at the start
CONFIGURATION = """\
[data]
files = ["few.h5"]
[power_spectrum]
[dos]
[output]
model = "few.safetensors"
"""


def model_of_few(frames, folder):
    """Train on a few structures of all pressures."""
    chosen = np.random.default_rng(0).permutation(len(frames))[:FEW]
    write_hdf5(folder / "few.h5", frames.take(sorted(chosen.tolist())))
    (folder / "few.toml").write_text(CONFIGURATION)
    train(read_config(folder / "few.toml"))
    return folder / "few.safetensors"


def gaps_of(calc, frames):
    """Gap of DFT, gap of the model and its error bar, eV, and pressure of DFT, GPa: array [n, 4]."""
    known, rows = frames.attributes["electronic_levels"], []
    for frame in frames:
        levels = dict(zip(known["columns"], known[frame.name]))
        right = levels["conduction_band_minimum"] - levels["valence_band_maximum"]
        gap = calc.get_band_gap(frame.atoms)
        pressure = np.trace(frame.labels["virial"]) / 3 / frame.atoms.get_volume() / units.GPa
        rows.append([right, gap[0], gap.uncertainty[0], pressure])
    return np.array(rows)


def run(calc, pressure, steps):
    """Gaps of 64 atoms along a run under constant pressure: (gaps [n], error bars of the model [n]), eV."""
    atoms = bulk("MgO", "rocksalt", a=LATTICE[pressure], cubic=True) * 2
    atoms.calc = calc
    thermalize_momenta(atoms, temperature_K=2 * TEMPERATURE, rng=np.random.default_rng(pressure))
    options = {"temperature_K": TEMPERATURE, "taut": 30 * units.fs, "taup": 100 * units.fs}
    dyn = NPTBerendsen(
        atoms,
        TIMESTEP * units.fs,
        pressure_au=pressure * units.GPa,
        compressibility_au=1 / (4 * pressure * units.GPa),
        **options,
    )
    found = []
    for step, _ in enumerate(dyn.irun(steps)):
        if step > steps / 3 and step % EVERY == 0:
            gap = calc.get_band_gap(atoms)
            found.append((gap[0], gap.uncertainty[0]))
    return np.array(found).T


def draw_spectrum(ax, calc, right, found, deviation):
    """Density of states of DFT and of the model, with its error bar; energies from the Fermi level."""
    plot_dos(ax, calc.energies, right, color="black", lw=1.8, label="DFT")
    plot_dos(ax, calc.energies, found, color=COLORS[2], lw=1.4, ls=(0, (4, 2)), label="model")
    ax.fill_between(calc.energies, found - deviation, found + deviation, color=COLORS[2], alpha=0.3, lw=0)
    ax.set(xlabel=r"$E - E_\mathrm{F}$ (eV)", ylim=(0, None))
    ax.legend(frameon=False)


def spectra_figure(calc, frames, gaps):
    """Densities of states beside DFT; parity of those of all atoms, and of the gaps of two models."""
    figure = Figure(figsize=(12, 7), layout="constrained")
    (total, metal, oxygen), (counts, few, whole) = figure.subplots(2, 3)
    frame = next(iter(frames))
    ados, deviation, labels = calc.get_ados(atoms=frame.atoms), calc.uncertainty, frame.labels["ados"]
    draw_spectrum(total, calc, labels.mean(axis=0), ados.mean(axis=0), deviation["dos"] / len(frame.atoms))
    total.set(title="all atoms", ylabel="DOS (states/eV/atom)")
    for ax, symbol in ((metal, "Mg"), (oxygen, "O")):
        k = frame.atoms.symbols.search(symbol)[0]
        draw_spectrum(ax, calc, labels[k], ados[k], deviation["ados"][k])
        ax.set(title=f"one {symbol}", ylabel="DOS (states/eV)")
    right = np.concatenate([each.labels["ados"] for each in frames])
    found = np.concatenate([calc.get_ados(atoms=each.atoms) for each in frames])
    plot_parity_counts(counts, right[right > SHOWN], found[right > SHOWN], "states/eV")
    counts.set_title("all atoms and energies")
    for ax, (name, rows) in zip((few, whole), gaps.items()):
        plot_parity(ax, *rows.T[:2], "eV", deviation=rows.T[2])
        ax.set_title(f"band gap, {name}")
    limits = [min(few.get_xlim()[0], whole.get_xlim()[0]), max(few.get_xlim()[1], whole.get_xlim()[1])]
    for ax in (few, whole):
        ax.set(xlim=limits, ylim=limits)
    return figure


def statistics(rows):
    """Root mean square and mean absolute error and bias, eV, and the slope of the model's gaps against those of DFT."""
    right, found = rows.T[:2]
    error = found - right
    return {
        "RMSE": np.sqrt((error**2).mean()),
        "MAE": abs(error).mean(),
        "bias": error.mean(),
        "slope": np.polyfit(right, found, 1)[0],
    }


def pressure_figure(gaps, frames, runs):
    """Gaps of unseen structures against DFT, and averages along the isotherm."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    parity, isotherm = figure.subplots(1, 2)
    plot_parity(parity, *gaps["test"].T[:2], "eV", deviation=gaps["test"].T[2])
    parity.set_title("band gap, structures that were not trained")
    for group, color in (("validation", COLORS[0]), ("test", COLORS[1])):
        averages = by_volume(frames.select(group), gaps[group])
        x, right, found, spread = averages.T
        isotherm.plot(x, right, "o", color="0.5", ms=9, mfc="none", label="DFT" if group == "test" else None)
        isotherm.errorbar(x, found, spread, fmt=".", color=color, capsize=2, label=f"model, {group}")
    x, mean, error = np.array([(p, *average(*rows)) for p, rows in runs.items()]).T
    isotherm.errorbar(
        x, mean, error, fmt="s-", ms=4, lw=0.8, color=COLORS[2], capsize=2, label="model, its own dynamics"
    )
    isotherm.set(xlabel="pressure (GPa)", ylabel="band gap (eV)", title="5,000 K")
    isotherm.legend(frameon=False)
    return figure


def by_volume(frames, rows):
    """Averages over structures of one volume: array [n, 4] of pressure, gaps of DFT and of the model, standard error."""
    names = np.array([frame.name.split("-")[2] for frame in frames])
    found = []
    for name in sorted(set(names)):
        right, gap, _, pressure = rows[names == name].T
        found.append([pressure.mean(), right.mean(), gap.mean(), gap.std(ddof=1) / np.sqrt(len(gap))])
    return np.array(found)


def average(gaps, bars):
    """Mean gap of a run and its uncertainty: that of the run, from five blocks, and the model's own."""
    blocks = np.array([block.mean() for block in np.array_split(gaps, 5)])
    return gaps.mean(), np.hypot(blocks.std(ddof=1) / np.sqrt(len(blocks)), bars.mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600, help="of each run, %(default)s fs")
    parser.add_argument("--output", type=Path, default=HERE / "output")
    arguments = parser.parse_args()
    arguments.output.mkdir(exist_ok=True)
    calc, frames = DeepDOSCalculator("mgo", on_extrapolation="warn"), read_frames(HERE / "data" / "mgo.h5")
    with tempfile.TemporaryDirectory() as folder:
        under_trained = DeepDOSCalculator(model_of_few(frames.select("train"), Path(folder)), on_extrapolation="ignore")
    gaps = {group: gaps_of(calc, frames.select(group)) for group in ("validation", "test")}
    validation = frames.select("validation")
    two = {f"{FEW} structures": gaps_of(under_trained, validation), "shipped model": gaps["validation"]}
    spectra_figure(calc, validation, two).savefig(arguments.output / "17_magnesium_oxide.png", dpi=150)
    for name, rows in (two | {"shipped model, unseen pressures": gaps["test"]}).items():
        print(f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in statistics(rows).items()), flush=True)
    runs = {pressure: run(calc, pressure, arguments.steps) for pressure in LATTICE}
    for pressure, rows in runs.items():
        mean, error = average(*rows)
        print(f"{pressure} GPa: gap {mean:.2f} ± {error:.2f} eV")
    pressure_figure(gaps, frames, runs).savefig(arguments.output / "17_gap_under_pressure.png", dpi=150)


if __name__ == "__main__":
    main()
