"""``mlelec test``"""

import argparse
from typing import TYPE_CHECKING, Any

from ase_mlelec_entry_points.cli.options import add_keys, add_out, add_plot, check_species, keys_of, write_figure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ase_mlelec.data.data_set import Frames
    from ase_mlelec.data.hamiltonians import Hamiltonians
    from ase_mlelec.data.snapshots import Snapshots
    from ase_mlelec.model import Model

HELP = "Errors of a model on labeled structures, of everything that it predicts and they have labels of."
EXAMPLE = "mlelec test si examples/data/silicon.h5 --group test --plot parity.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="+",
        help="name of a shipped model (see 'mlelec models') or a path; several models of the LDOS are a committee",
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        help="data set: .h5, deepmd npy folder, runs, or a file that ASE reads; several are tested as one",
    )
    parser.add_argument("--group", metavar="NAME", help="only the structures of this group or kind, such as test")
    add_keys(parser)
    parser.add_argument(
        "--bars",
        action="store_true",
        help="tell how many errors are within one and two of the model's standard deviations",
    )
    add_plot(parser, "draw predictions against labels")
    add_out(parser, "write the errors as well", metavar="FILE.json", former=["--json"])


def run(arguments: argparse.Namespace) -> None:
    import json

    from ase_mlelec import load_model
    from ase_mlelec.atomic_write import replacing
    from ase_mlelec.data.data_set import Frames
    from ase_mlelec.data.hamiltonians import is_hamiltonians
    from ase_mlelec.data.snapshots import is_snapshots
    from ase_mlelec.train.evaluate import table, told_of_zero

    arguments.model, data = models_and_data([*arguments.model, arguments.data])
    if len(data) > 1 and (of_one := [each for each in data if is_snapshots(each) or is_hamiltonians(each)]):
        raise ValueError(
            f"{of_one[0]}: got {len(data)} data sets, which can be labels of structures alone; test one by one"
        )
    arguments.sources, arguments.data = data, ", ".join(data)
    if arguments.bars and (is_snapshots(arguments.data) or is_hamiltonians(arguments.data)):
        raise ValueError(f"got --bars for {arguments.data}, which are for labels of structures alone; leave it out")
    warn_unfinished(arguments.model)
    if is_snapshots(arguments.data):
        frames, columns, compared = errors_of_ldos(arguments)
    elif is_hamiltonians(arguments.data):
        frames, columns, compared = errors_of_hamiltonians(arguments)
    else:
        frames, columns, compared = errors_of_frames(arguments)
    print(f"{len(frames)} structure{'s' * (len(frames) != 1)}, {sum(len(frame.atoms) for frame in frames)} atoms")
    print(table(columns))
    if isinstance(frames, Frames) and (zero := told_of_zero(load_model(arguments.model[0]), frames)):
        print(f"note: {zero}")
    if arguments.bars:
        print_bars(arguments.model[0], frames)
    kinds = {} if arguments.group else by_kind(arguments, frames)
    if arguments.plot:
        plot(arguments.plot, compared)
    if arguments.out:
        result = {"frames": len(frames), **list(columns.values())[-1], **({"kinds": kinds} if kinds else {})}
        with replacing(arguments.out) as partial:
            partial.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def models_and_data(names: list[str]) -> tuple[list[str], list[str]]:
    """Models, of which there is one at least, and data sets, which begin where an argument is no model."""
    from pathlib import Path

    from ase_mlelec import list_models

    known, n = list_models(), 1
    while n < len(names) - 1 and (names[n] in known or Path(names[n]).suffix in (".safetensors", ".dp")):
        n += 1
    return names[:n], names[n:]


def warn_unfinished(names: list[str]) -> None:
    """Say which models are those of trainings that have not ended."""
    import warnings

    from ase_mlelec import load_model

    for name in names:
        place = load_model(name).metadata.get("unfinished", {})
        if place:
            done = ", ".join(f"{value} {key}" for key, value in place.items() if key not in ("stage", "of"))
            warnings.warn(
                f"{name}: its training has not ended ({place.get('stage', '')}: {done} of {place.get('of', '?')}); the same "
                "'mlelec train' goes on",
                stacklevel=2,
            )


def print_bars(name: str, frames: "Frames") -> None:
    """Print the shares of errors within one and two standard deviations, and the rank correlation of both."""
    from ase_mlelec import load_model
    from ase_mlelec.train.error_bars import errors_and_deviations
    from ase_mlelec.uncertainty import coverage

    model = load_model(name)
    heads = [head for head in model.posteriors if head in model.heads and head != "ldos"]
    if not heads:
        raise ValueError(f"{name} has no error bars; add some with 'mlelec calibrate'")
    print(f"{'':24}{'within 1':>10}{'within 2':>10}{'rank':>8}")
    for head in heads:
        for label, pair in errors_and_deviations(model, head, frames).items():
            one, two, rank = coverage(*pair)
            print(f"{label:24}{100 * one:8.1f} %{100 * two:8.1f} %{rank:8.2f}")


def by_kind(arguments: argparse.Namespace, frames: "Frames | Hamiltonians | Snapshots") -> dict:
    """Errors by kind of structure, which are printed too; {} for data without kinds."""
    from ase_mlelec import load_model
    from ase_mlelec.data.data_set import Frames
    from ase_mlelec.train.evaluate import errors_by_kind, table_of_kinds

    found = errors_by_kind(load_model(arguments.model[0]), frames) if isinstance(frames, Frames) else {}
    if found:
        print(table_of_kinds(found))
    return found


MANY = 20_000  # points of a figure, from which their number is drawn by color


def plot(path: str, compared: "dict[str, tuple[NDArray, NDArray, str]]") -> None:
    """Draw predictions against labels, dict by name of (labels, predictions, unit), an axis for each."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    from ase_mlelec.analysis.plots import plot_parity, plot_parity_counts

    # inches; axes of equal scales would push the titles to the edge
    figure = Figure(figsize=(4 * len(compared), 4), layout=ConstrainedLayoutEngine(h_pad=0.1))
    axes = figure.subplots(1, len(compared), squeeze=False)[0]
    for ax, (name, (labels, predictions, unit)) in zip(axes, compared.items()):
        if unit == "eV/atom":
            labels, predictions, zero = differences(labels, predictions)
            name, unit = name + zero, "meV/atom"
        draw = plot_parity_counts if len(labels) > MANY and labels.min() > 0 else plot_parity
        draw(ax, labels, predictions, unit).set_title(name)
    write_figure(path, figure)


def differences(labels: "NDArray", predictions: "NDArray") -> "tuple[NDArray, NDArray, str]":
    """Energies of atoms, eV, in meV, less a round number where they are all alike; words for the title."""
    mean, spread = float(labels.mean()), float(labels.max() - labels.min())
    zero = round(mean, 2) if abs(mean) > 10 * spread else 0.0
    words = f" {'+' if zero < 0 else '-'} {abs(zero):.2f} eV/atom" if zero else ""
    return 1000 * (labels - zero), 1000 * (predictions - zero), words


def selected(frames: "Frames | Hamiltonians | Snapshots", arguments: argparse.Namespace) -> Any:
    """The structures of the group that is asked for; ValueError where there are none."""
    if arguments.group is None:
        return frames
    kinds = getattr(frames, "kinds", [])
    if arguments.group in kinds and arguments.group not in frames.groups:
        return frames.take([k for k, kind in enumerate(kinds) if kind == arguments.group])
    if arguments.group not in frames.groups:
        known = ", ".join(sorted({*frames.groups, *kinds} - {""}))
        raise ValueError(f"{arguments.data}: no frames of group '{arguments.group}'; it has {known}")
    return frames.select(arguments.group)


def models_of(arguments: argparse.Namespace, head: str, kind: str, quantity: str) -> "dict[str, Model]":
    """Name -> Model; ValueError for one without the head that the data are of."""
    from ase_mlelec import load_model

    models = {name: load_model(name) for name in arguments.model}
    for name, model in models.items():
        if head not in model.heads:
            predicted = ", ".join(model.heads)
            raise ValueError(
                f"{arguments.data} holds {kind}, {name} predicts {predicted}; give a model of the {quantity}"
            )
    return models


def errors_of_frames(arguments: argparse.Namespace) -> tuple:
    from ase_mlelec import load_model
    from ase_mlelec.data.frames import checked, has_spectra, join, read_frames
    from ase_mlelec.data.runs.read import read_runs
    from ase_mlelec.train.dipoles import on_branch_of_model
    from ase_mlelec.train.evaluate import compared, errors

    if len(arguments.model) > 1:
        raise ValueError(
            f"{arguments.data}: got {len(arguments.model)} models, a committee, which is for LDOS "
            "snapshots alone; test the models one by one"
        )
    model = load_model(arguments.model[0])
    runs = [] if arguments.key else [path for path in arguments.sources if has_spectra(path)]
    others = [path for path in arguments.sources if path not in runs]
    parts = [checked(read_frames(path, keys=keys_of(arguments)), path) for path in others]
    if runs:
        parts.append(read_runs(runs, others=[spectra_of(model)]))
    frames = selected(parts[0] if len(parts) == 1 else join(parts), arguments)
    for k, frame in enumerate(frames):
        check_species(model, frame.atoms, f"{arguments.data}: {frame.name or f'frame {k}'}")
    frames = on_branch_of_model(model, frames)
    columns = {arguments.group or "all": errors(model, frames)}
    return frames, columns, compared(model, frames) if arguments.plot else {}


def spectra_of(model: "Model") -> "Frames":
    """Data without structures that have the width and the energies of the spectra of a model."""
    from ase_mlelec.data.data_set import Frames

    energies = model.heads["dos"].energies.cpu().numpy() if "dos" in model.heads else None
    return Frames([], energies, {"dos_width_eV": model.metadata.get("dos_width_eV")})


def errors_of_hamiltonians(arguments: argparse.Namespace) -> tuple:
    from ase_mlelec.data.hamiltonians import Hamiltonians
    from ase_mlelec.train.evaluate import compared, errors
    from ase_mlelec.train.hamiltonian.errors import compared_hamiltonians, hamiltonian_errors

    if arguments.plot and len(arguments.model) > 1:
        raise ValueError(f"got --plot for {len(arguments.model)} models; draw them one by one")
    frames, columns = selected(Hamiltonians(arguments.data), arguments), {}
    models, drawn = models_of(arguments, "hamiltonian", "Hamiltonians", "Hamiltonian"), {}
    for name, model in models.items():
        column = name if len(models) > 1 else arguments.group or "all"
        columns[column] = hamiltonian_errors(model, frames)
        if arguments.plot:
            drawn = compared_hamiltonians(model, frames)
        if "energy" in model.heads:
            columns[column] |= errors(model, frames.frames())
            drawn |= compared(model, frames.frames()) if arguments.plot else {}
    return frames, columns, drawn


def errors_of_ldos(arguments: argparse.Namespace) -> tuple:
    import tempfile
    from pathlib import Path

    from ase_mlelec.data.grid_points import GridData
    from ase_mlelec.data.snapshots import Snapshots
    from ase_mlelec.train.ldos.errors import compared_ldos, mean_ldos_errors

    snapshots = selected(Snapshots(arguments.data), arguments)
    models = list(models_of(arguments, "ldos", "LDOS snapshots", "LDOS").values())
    descriptor = models[0].descriptor.double()
    if any(model.descriptor.arguments() != descriptor.arguments() for model in models):
        names = " and ".join(arguments.model)
        raise ValueError(f"got models with different fingerprints, {names}; test them one by one")
    with tempfile.TemporaryDirectory() as folder:
        data = GridData(snapshots, descriptor, Path(folder) / "fingerprints.h5", zero=models[0].heads["ldos"].zero)
        if len(models) == 1:
            columns = {arguments.group or "all": mean_ldos_errors(models[0], data)}
        else:
            columns = {f"member {k}": mean_ldos_errors(model, data) for k, model in enumerate(models)}
            columns |= {"committee": mean_ldos_errors(models, data)}
        return snapshots, columns, compared_ldos(models, data) if arguments.plot else {}
