"""``mlelec ir``"""

import argparse
from os import PathLike
from typing import TYPE_CHECKING

from ase_mlelec.quantities import DIPOLE
from ase_mlelec_entry_points.cli.options import add_out, add_plot, write_columns, write_figure

if TYPE_CHECKING:
    from numpy.typing import NDArray

HELP = "Infrared spectrum of a trajectory with dipoles: alpha(omega) n(omega) as a table and a picture."
EXAMPLE = "mlelec ir run.h5 --temperature 300 --plot ir.png --out ir.csv"
BLOCKS = 5  # number of blocks of the trajectory, for the standard error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE",
        help="HDF5 file of an ElectronicRecorder with the quantities dipole "
        "and cell, or a trajectory that ASE reads, with dipoles",
    )
    parser.add_argument(
        "--timestep",
        type=float,
        metavar="FS",
        help="time between frames, fs; not needed where the file has the time: recorded, or as info['time'] in fs",
    )
    parser.add_argument("--temperature", type=float, metavar="K", help="default: the mean temperature in the file")
    parser.add_argument(
        "--resolution", type=float, default=20.0, metavar="WIDTH", help="width of a sharp line, cm^-1 (%(default)s)"
    )
    parser.add_argument(
        "--max-wavenumber", type=float, default=4000.0, metavar="END", help="end of the spectrum, cm^-1 (%(default)s)"
    )
    add_plot(parser, "draw the spectrum with its standard error")
    meaning = "write wavenumbers, alpha n and its standard error, cm^-1"
    add_out(parser, meaning, metavar="FILE.csv", former=["--csv"])


def run(arguments: argparse.Namespace) -> None:
    import numpy as np

    from ase_mlelec.physics import dipole, spectra

    read = read_recorded if arguments.file.endswith((".h5", ".hdf5")) else read_trajectory
    times, dipoles, cells, temperatures = read(arguments.file)
    if arguments.timestep is not None:
        times = arguments.timestep * np.arange(len(dipoles))
    temperature = float(np.mean(temperatures)) if arguments.temperature is None else arguments.temperature
    for name, missing in ("timestep", times is None), ("temperature", not temperature > 0):
        if missing:
            raise ValueError(f"{arguments.file}: got no {name.replace('step', '')} of the frames; give --{name}")
    step, dipoles, cells = spectra.in_order(times, dipoles, cells)
    dipoles = dipole.in_mean_cell(dipole.unwrap(dipoles, cells), cells)
    volume = float(np.abs(np.linalg.det(cells)).mean())

    def absorption(part):
        return spectra.infrared(
            part, step, temperature, volume, max_wavenumber=arguments.max_wavenumber, resolution=arguments.resolution
        )

    wavenumbers, alpha_n = absorption(dipoles)
    error = None
    if spectra.finest_resolution((len(dipoles) // BLOCKS - 1) * step) <= arguments.resolution:
        error = spectra.block_error(lambda part: absorption(part)[1], dipoles, BLOCKS)[1]
    print(
        f"{len(dipoles)} frames every {step:g} fs, {temperature:.0f} K, {volume:.1f} Å^3: largest at "
        f"{wavenumbers[alpha_n.argmax()]:.0f} cm^-1, alpha n = {alpha_n.max():.4g} cm^-1"
        + ("; too short for error bars" if error is None else "")
    )
    if arguments.out:
        columns = {"wavenumber_per_cm": wavenumbers, "alpha_n_per_cm": alpha_n}
        write_columns(arguments.out, columns | ({} if error is None else {"standard_error_per_cm": error}))
    if arguments.plot:
        plot(arguments.plot, wavenumbers, alpha_n, error)


def read_recorded(path: str) -> tuple:
    """Times fs (or None), dipoles, cells and temperatures (or nan) of the frames of an ElectronicRecorder."""
    from ase_mlelec.analysis.trajectory import ResultFile

    rows = ResultFile(path)
    for name in (DIPOLE, "cell"):
        if name not in rows:
            raise ValueError(
                f"{path}: got the quantities {', '.join(rows)}, need {name}; record "
                "quantities=('dipole', 'cell', 'temperature')"
            )
    return (
        rows["time"] if "time" in rows else None,
        rows[DIPOLE],
        rows["cell"],
        rows["temperature"] if "temperature" in rows else float("nan"),
    )


def read_trajectory(path: str) -> tuple:
    """As read_recorded, of a trajectory: dipoles of its calculators, times in info, temperatures of its momenta."""
    import numpy as np

    from ase_mlelec.data.structures import structures

    times, dipoles, cells, temperatures = [], [], [], []
    for frame, atoms in enumerate(structures(path)):
        found = None if atoms.calc is None else atoms.calc.results.get(DIPOLE)
        if found is None:
            raise ValueError(
                f"{path}: got no dipole in frame {frame}, need one in every frame; run it with a "
                "calculator that has dipoles, or record them with ElectronicRecorder"
            )
        dipoles.append(found)
        cells.append(atoms.cell.array)
        times.append(atoms.info.get("time"))
        temperatures.append(atoms.get_temperature() if atoms.has("momenta") else float("nan"))
    return None if None in times else times, np.array(dipoles), np.array(cells), temperatures


def plot(path: str | PathLike, wavenumbers: "NDArray", alpha_n: "NDArray", error: "NDArray | None") -> None:
    from matplotlib.figure import Figure

    from ase_mlelec.analysis.plots import COLORS, plot_spectrum

    figure = Figure(figsize=(6, 4), layout="constrained")
    plot_spectrum(
        figure.add_subplot(), wavenumbers, alpha_n / 1000, None if error is None else error / 1000, color=COLORS[0]
    )
    write_figure(path, figure)
