"""``mlelec convert``"""

from ase_mlelec_entry_points.cli import convert_mala

HELP = (
    "Convert labelled structures to a data set, or MALA's snapshots to ours (TARGET ends in .h5), or a model of "
    "deepmd-kit in its .dp container to ours (TARGET ends in .safetensors)."
)


def add_arguments(parser):
    parser.add_argument(
        "sources",
        metavar="SOURCE",
        nargs="+",
        help="data sets: .h5, deepmd npy folders, pw.x's output or .save, files that ASE reads with "
        "labels; or MALA's X.info.json with X.out.npy beside them; or one .dp model",
    )
    parser.add_argument("target", metavar="TARGET", help=".h5 or .safetensors")
    parser.add_argument(
        "--grid",
        metavar=("FIRST", "LAST"),
        type=float,
        nargs=2,
        help="energies of the first and the last point of spectra, eV; deepmd-kit and MALA do not keep them",
    )
    convert_mala.add_arguments(parser)
    add_key_argument(parser)


def add_key_argument(parser):
    parser.add_argument(
        "--key",
        metavar="LABEL=NAME",
        action="append",
        default=[],
        help="what a label is called in files that ASE reads, such as energy=REF_energy; also "
        "group=NAME, for what tells the groups of structures",
    )


def keys_of(arguments):
    """dict, label -> name, of the options --key."""
    pairs = [pair.partition("=") for pair in arguments.key]
    for label, equals, name in pairs:
        if not (label and equals and name):
            raise ValueError(f"got --key {label}{equals}{name}, need LABEL=NAME, such as energy=REF_energy")
    return {label: name for label, _, name in pairs}


def check_target(sources, target):
    """Raise ValueError where a result cannot be written, before the work is done."""
    from pathlib import Path

    target = Path(target)
    if target.is_dir() or not target.parent.is_dir():
        raise ValueError(
            f"{target}: "
            + (
                "a folder, need the name of a file"
                if target.is_dir()
                else f"there is no folder {target.parent}; make it first"
            )
        )
    for source in sources:
        if target.exists() and Path(source).exists() and target.samefile(source):
            raise ValueError(f"got {source} as SOURCE and as TARGET; give the result another name")


def run(arguments):
    from pathlib import Path

    check_target(arguments.sources, arguments.target)
    suffix = Path(arguments.target).suffix
    mala = [source for source in arguments.sources if source.endswith(".info.json")]
    if arguments.key and (mala or suffix == ".safetensors"):
        raise ValueError("got --key, which is for labels in files that ASE reads; leave it out")
    if mala and (suffix not in (".h5", ".hdf5") or len(mala) < len(arguments.sources)):
        raise ValueError(
            f"got {mala[0]} beside something else, or TARGET '{arguments.target}'; convert MALA's "
            "snapshots by themselves to a name ending in .h5"
        )
    if mala:
        convert_mala.convert_mala(mala, arguments.target, arguments.grid, arguments.upf, arguments.ldos_unit)
    elif arguments.upf or arguments.ldos_unit:
        option = "--upf" if arguments.upf else "--ldos-unit"
        raise ValueError(f"got {option} for {arguments.sources[0]}; leave it out, it belongs to MALA's X.info.json")
    elif suffix in (".h5", ".hdf5"):
        convert_data(arguments.sources, arguments.target, arguments.grid, keys_of(arguments))
    elif suffix == ".safetensors":
        convert_model(arguments.sources, arguments.target, arguments.grid)
    else:
        raise ValueError(f"got TARGET '{arguments.target}', need a name ending in .h5 (data) or .safetensors (model)")


def convert_data(sources, target, grid, keys):
    import numpy as np

    from ase_mlelec.data.frames import read_all, write_hdf5

    frames = read_all(sources, keys)
    if grid is not None:
        if not -1e6 < grid[0] < grid[1] < 1e6:
            raise ValueError(f"got --grid {grid[0]:g} {grid[1]:g}, need two energies in eV, the lower first")
        lengths = {
            np.shape(frame.labels[name])[-1] for frame in frames for name in ("ados", "dos") if name in frame.labels
        }
        if len(lengths) != 1:
            raise ValueError(
                f"got --grid, and spectra with {sorted(lengths) or 'no'} energies; need spectra of one "
                "length; convert the others by themselves"
            )
        frames.energies = np.linspace(*grid, lengths.pop())
    write_hdf5(target, frames)
    print(f"{target}: {len(frames)} structures with {described(frames)}")


def described(frames):
    """str, the labels, with the number of frames where not all have one"""
    return ", ".join(name if count == len(frames) else f"{name} ({count})" for name, count in frames.counts.items())


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
