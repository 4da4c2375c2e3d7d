"""``mlelec convert``"""
HELP = ("Convert labelled structures to a data set (TARGET ends in .h5), or a model of deepmd-kit in its .dp container "
        "to ours (TARGET ends in .safetensors).")


def add_arguments(parser):
    parser.add_argument("sources", metavar="SOURCE", nargs="+",
                        help="data sets: .h5, deepmd npy folders, files that ASE reads with labels; or one .dp model")
    parser.add_argument("target", metavar="TARGET", help=".h5 or .safetensors")
    parser.add_argument("--grid", metavar=("FIRST", "LAST"), type=float, nargs=2,
                        help="energies of the first and the last point of spectra, eV; deepmd-kit does not keep them")


def run(arguments):
    from pathlib import Path

    suffix = Path(arguments.target).suffix
    if suffix in (".h5", ".hdf5"):
        convert_data(arguments.sources, arguments.target, arguments.grid)
    elif suffix == ".safetensors":
        convert_model(arguments.sources, arguments.target, arguments.grid)
    else:
        raise ValueError(f"got TARGET '{arguments.target}', need a name ending in .h5 (data) or .safetensors (model)")


def convert_data(sources, target, grid):
    import numpy as np

    from ase_mlelec.io.frames import join, read_frames, write_hdf5

    frames = join(read_frames(source) for source in sources)
    if grid is not None:
        lengths = {np.shape(frame.labels[name])[-1] for frame in frames for name in ("ados", "dos")
                   if name in frame.labels}
        if len(lengths) != 1:
            raise ValueError(f"got --grid, and spectra with {sorted(lengths) or 'no'} energies; need spectra of one "
                             "length; convert the others by themselves")
        frames.energies = np.linspace(*grid, lengths.pop())
    write_hdf5(target, frames)
    print(f"{target}: {len(frames)} structures with {', '.join(frames.labels)}")


def convert_model(sources, target, grid):
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
