"""``mlelec convert``"""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ase_mlelec_entry_points.cli import convert_centers, convert_grids, convert_mala, convert_spectra
from ase_mlelec_entry_points.cli.options import (
    add_force,
    add_keys,
    add_out,
    check_new,
    check_writable,
    keys_of,
    refuse_existing,
)

if TYPE_CHECKING:
    from ase_mlelec.data.data_set import Frames

HELP = (
    "Convert labeled structures, runs of DFT programs or MALA's snapshots to a data set (TARGET ends in .h5), or a "
    "model of deepmd-kit in its .dp container to ours (TARGET ends in .safetensors)."
)
EXAMPLE = "mlelec convert run.xyz OUTCAR --out data.h5"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s [-h] [options] SOURCE [SOURCE ...]"  # the options, listed below, are many
    parser.add_argument(
        "sources",
        metavar="SOURCE",
        nargs="+",
        help="data sets: .h5, deepmd npy folders, pw.x's output or .save, folders of runs (pw.x with projwfc.x, pp.x or "
        "Wannier90; VASP), CP2K's Wannier centers, files that ASE reads; or MALA's X.info.json with X.out.npy, or a folder "
        "of them; or one .dp model",
    )
    add_out(parser, "name of the result, .h5 or .safetensors; without it the last SOURCE is that", metavar="TARGET")
    add_force(parser)
    parser.add_argument(
        "--grid",
        metavar=("FIRST", "LAST"),
        type=float,
        nargs=2,
        help="first and last energy of spectra, eV; data of deepmd-kit and MALA need it (default: the levels of runs)",
    )
    parser.add_argument(
        "--to", metavar="KIND", choices=["deepmd", "deepmd-mixed"], help="deepmd, deepmd-mixed: data in a folder TARGET"
    )
    convert_spectra.add_arguments(parser)
    convert_grids.add_arguments(parser)
    convert_centers.add_arguments(parser)
    convert_mala.add_arguments(parser)
    add_keys(parser)


def target_of(arguments: argparse.Namespace) -> tuple[list[str], str]:
    """(sources, target): without --out the last source is the target; ValueError where it cannot be written."""
    from pathlib import Path

    sources, target = arguments.sources, arguments.out
    if target is None:
        *sources, target = sources
        if not sources:
            raise ValueError(f"got {target} alone; give the result a name with --out")
        check_writable("TARGET", target)
    for source in sources:
        if Path(target).exists() and Path(source).exists() and Path(target).samefile(source):
            raise ValueError(f"got {source} as SOURCE and as TARGET; give the result another name")
    if arguments.out is None:
        check_new(target)
    elif not arguments.to:  # folders are never written over
        refuse_existing(target, arguments.force)
    return sources, target


def run(arguments: argparse.Namespace) -> None:
    from ase_mlelec.data.runs.find import once

    named, target = target_of(arguments)
    sources = [each for source in named for each in convert_mala.snapshots_of(source)]
    suffix = f".{target.rpartition('.')[2]}"
    if suffix != ".safetensors":
        sources = once(sources)
    mala = [source for source in sources if source.endswith(convert_mala.INFO)]
    if arguments.key and (mala or suffix == ".safetensors"):
        raise ValueError("got --key, which is for labels in files that ASE reads; leave it out")
    if mala and (suffix not in (".h5", ".hdf5") or len(mala) < len(sources)):
        raise ValueError(
            f"got {mala[0]} beside something else, or TARGET '{target}'; convert MALA's "
            "snapshots by themselves to a name ending in .h5"
        )
    if arguments.to and (mala or suffix in (".h5", ".hdf5", ".safetensors")):
        raise ValueError(f"got --to {arguments.to} and TARGET '{target}'; give labeled structures and a new folder")
    if arguments.ldos_unit and not mala:
        raise ValueError(f"got --ldos-unit for {sources[0]}; leave it out, it belongs to MALA's X.info.json")
    if mala:
        convert_spectra.refuse_options(arguments, mala[0])
        convert_grids.refuse_options(arguments, mala[0])
        upf = arguments.upf or convert_mala.pseudopotentials_of(named)
        convert_mala.convert_mala(mala, target, arguments.grid, upf, arguments.ldos_unit)
    elif suffix in (".h5", ".hdf5") or arguments.to:
        convert_data(sources, target, arguments)
    elif suffix == ".safetensors":
        convert_spectra.refuse_options(arguments, sources[0], "upf")
        convert_model(sources, target, arguments.grid)
    else:
        raise ValueError(f"got TARGET '{target}', need a name ending in .h5 (data) or .safetensors (model), or --to")


def convert_data(sources: Sequence[str], target: str, arguments: argparse.Namespace) -> None:
    import numpy as np

    from ase_mlelec.data.frames import checked, has_spectra, read_all, write_hdf5
    from ase_mlelec.data.runs.spectra import described as described_spectra
    from ase_mlelec.quantities import LABELS

    if not arguments.to and convert_centers.convert_centers(sources, target, arguments):
        return
    if not arguments.to and convert_grids.convert_folders(sources, target, arguments):
        return
    keys, of_runs = keys_of(arguments), any(has_spectra(source) for source in sources)
    if not of_runs:
        convert_spectra.refuse_options(arguments, sources[0], "upf")
    spectra = convert_spectra.spectra_of(arguments) if of_runs else None
    frames = read_all(sources, keys=keys, check=checked, spectra=spectra)
    grid: tuple[float, float] | None = None if of_runs else arguments.grid
    if grid is not None:
        if not -1e6 < grid[0] < grid[1] < 1e6:
            raise ValueError(f"got --grid {grid[0]:g} {grid[1]:g}, need two energies in eV, the lower first")
        lengths = {
            np.shape(label)[-1] for frame in frames for name, label in frame.labels.items() if LABELS[name].on_grid
        }
        if len(lengths) != 1:
            raise ValueError(
                f"got --grid, and spectra with {sorted(lengths) or 'no'} energies; need spectra of one "
                "length; convert the others by themselves"
            )
        frames.energies = np.linspace(*grid, lengths.pop())
    if arguments.to:
        write_deepmd(target, frames, mixed=arguments.to == "deepmd-mixed")
        return
    write_hdf5(target, frames)
    print(f"{target}: {len(frames)} structures with {described(frames)}")
    for line in described_spectra(frames):
        print(f"  {line}")


def described(frames: "Frames") -> str:
    """str, the labels, with the number of frames where not all have one"""
    return ", ".join(name if count == len(frames) else f"{name} ({count})" for name, count in frames.counts.items())


def write_deepmd(target: str, frames: "Frames", *, mixed: bool) -> None:
    """Write folders of deepmd-kit, and tell what does not go into them."""
    from ase_mlelec.io.deepmd import write_data
    from ase_mlelec.quantities import LABELS

    frames.check()
    known = [(frame.atoms, {k: v for k, v in frame.labels.items() if LABELS[k].deepmd}) for frame in frames]
    systems = write_data(target, known, groups=frames.groups, mixed=mixed)
    kept = {name: count for name, count in frames.counts.items() if LABELS[name].deepmd}
    print(f"{target}: {len(frames)} structures in {len(systems)} systems, with {', '.join(kept) or 'no labels'}")
    left_out = [name for name in frames.counts if name not in kept]
    if any(frame.weight != 1 or frame.label_weights for frame in frames):
        left_out.append("weights")
    if left_out:
        print(f"  deepmd-kit's data have no {', '.join(left_out)}")
    if frames.energies is not None:
        first, last = frames.energies[[0, -1]]
        print(f"  the energies of spectra are not in them; reading needs --grid {first:g} {last:g}")


def convert_model(sources: Sequence[str], target: str, grid: tuple[float, float] | None) -> None:
    import torch

    from ase_mlelec import load_model

    if len(sources) != 1:
        raise ValueError(f"got {len(sources)} models for one TARGET; convert them one by one")
    model = load_model(sources[0])
    if grid is not None:
        if "dos" not in model.heads:
            raise ValueError(f"got --grid for a model of {', '.join(model.heads)}; leave it out")
        energies = model.heads["dos"].energies
        energies.copy_(torch.linspace(*grid, len(energies), dtype=energies.dtype))
        model.metadata["energy_grid_known"] = True
    model.save(target)
    print(f"{target}: {', '.join(model.heads)} of {', '.join(model.species)}")
