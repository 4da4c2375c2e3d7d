"""``mlelec calibrate``"""

import argparse
import copy
from typing import TYPE_CHECKING

from ase_mlelec_entry_points.cli.options import add_keys, add_model, add_out, keys_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ase_mlelec.data.data_set import Frames
    from ase_mlelec.model import Model

HELP = (
    "Give a model calibrated error bars, from the data that it was trained on and from validation data. What "
    "'mlelec train' writes has them, and gets the same from the data of its training; the weights do not change. With "
    "further models before the data they are a committee, "
    "whose first model gets the scales of the spread."
)
SUFFIX = ".safetensors"
EXAMPLE = "mlelec calibrate si examples/data/silicon.h5 --validation validation --out si.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "data",
        metavar="DATA",
        nargs="+",
        help="labeled data sets: .h5, deepmd npy folders, files that ASE reads; before them further models of a committee",
    )
    add_out(parser, "the model with error bars", metavar=f"FILE{SUFFIX}", suffixes=[SUFFIX], required=True)
    parser.add_argument(
        "--group",
        metavar="NAME",
        action="append",
        help="structures that the model was trained on; may be repeated (default: those of its training, or else all "
        "that are neither for validation nor for tests)",
    )
    parser.add_argument(
        "--validation",
        metavar="NAME",
        action="append",
        help="structures that the model was not trained on, by which the scales are chosen; may be repeated (default: "
        "those of its training, or else 'validation'). Without any, the errors of the training structures count",
    )
    parser.add_argument(
        "--like",
        metavar="MODEL",
        help="make the bars as large as those of this model, trained in the same way without the validation data; for a "
        "model that was trained on all data",
    )
    parser.add_argument(
        "--hot",
        metavar="FILE",
        action="append",
        help="validation structures with energies at another temperature of the electrons that the model has learned, by "
        "which the bars there are scaled; may be repeated. Without one, they are those at the temperature of the model",
    )
    add_keys(parser)


def run(arguments: argparse.Namespace) -> None:
    from ase_mlelec.data.hamiltonians import is_hamiltonians
    from ase_mlelec.data.snapshots import is_snapshots

    data = [path for path in arguments.data if not path.endswith(SUFFIX)]
    if not data:
        raise ValueError(f"got the models {', '.join(arguments.data)} and no data; name a labeled data set behind them")
    of_one_model = len(data) == len(arguments.data) and not any(
        is_snapshots(each) or is_hamiltonians(each) for each in data
    )
    if arguments.hot and not of_one_model:
        raise ValueError(
            f"got --hot, which is for one model and labeled structures, and {', '.join(arguments.data)}; leave it out"
        )
    if len(data) < len(arguments.data):
        of_committee(arguments, [path for path in arguments.data if path.endswith(SUFFIX)], data)
    elif is_snapshots(data[0]):
        of_snapshots(arguments, data)
    elif any(is_hamiltonians(path) for path in data):
        of_hamiltonians(arguments, data)
    else:
        of_frames(arguments, data)


def of_frames(arguments: argparse.Namespace, data: "list[str]") -> None:
    from ase_mlelec import load_model
    from ase_mlelec.data.frames import read_all
    from ase_mlelec.train.error_bars import add_error_bars
    from ase_mlelec.train.hot_bars import add_hot_error_bars
    from ase_mlelec.train.recipes.again import add_error_bars_again, parts_of_training

    model = load_model(arguments.model)
    hot = hot_parts(model, arguments)
    frames = read_all(data, keys=keys_of(arguments))
    trained = None if arguments.like else parts_of_training(model, frames)
    if trained and not (arguments.group or arguments.validation):
        train, validation = trained["train"], trained["validation"]
    else:
        train, validation = parts(frames, model, arguments)
    if trained and train.fingerprint() == trained["train"].fingerprint():
        report = add_error_bars_again(model, trained | {"validation": validation}, progress=True)
    else:
        like = arguments.like and load_model(arguments.like)
        report = add_error_bars(model, train, validation, like=like, progress=True)
    if not report:
        raise ValueError(
            f"{', '.join(data)}: no labels of {', '.join(model.heads)}, from which error bars could be made "
            "(for the energy, stress alone does not do); give data with such labels"
        )
    known = {temperature: (model.at_temperature(temperature), frames) for temperature, frames in hot.items()}
    report |= add_hot_error_bars(model, known, progress=True)
    model.save(arguments.out)
    tell(f"{arguments.out}: {len(train)} structures of the training, {len(validation)} to calibrate on", report)


def hot_parts(model: "Model", arguments: argparse.Namespace) -> "dict[float, Frames]":
    """Structures to calibrate on at other temperatures of the electrons, by temperature, K.

    Raises ValueError for temperatures that the model has not learned, and files without such structures.
    """
    from ase_mlelec.data.data_set import temperature_of
    from ase_mlelec.data.frames import read_all

    found, known = {}, () if model.hot is None else model.hot.temperatures
    if arguments.hot and arguments.like:
        raise ValueError("got --hot and --like; give one of them")
    for path in arguments.hot or ():
        frames = read_all([path], keys=keys_of(arguments))
        temperature = temperature_of(frames.attributes)
        if temperature is None or temperature not in known:
            learned = ", ".join(f"{each:g} K" for each in known) or "none"
            at = "an unknown temperature" if temperature is None else f"{temperature:g} K"
            raise ValueError(
                f"{path}: got energies at {at}, the model has learned {learned} beside its own; leave the file out"
            )
        if temperature in found:
            raise ValueError(f"{path}: got a second file with energies at {temperature:g} K; join the two")
        own = argparse.Namespace(**vars(arguments) | {"data": [path]})
        found[temperature] = parts(frames, model, own, both=False)[1]
    return found


def of_committee(arguments: argparse.Namespace, others: "list[str]", data: "list[str]") -> None:
    from ase_mlelec import load_model
    from ase_mlelec.data.frames import read_all
    from ase_mlelec.train.committee import calibrate_committee

    models = [load_model(path) for path in (arguments.model, *others)]
    _, validation = parts(read_all(data, keys=keys_of(arguments)), models[0], arguments, both=False)
    report = calibrate_committee(models, validation)
    models[0].save(arguments.out)
    tell(
        f"{arguments.out}: first of a committee of {len(models)}, {len(validation)} structures to calibrate on", report
    )


def of_snapshots(arguments: argparse.Namespace, data: "list[str]") -> None:
    import tempfile
    from pathlib import Path

    from ase_mlelec import load_model
    from ase_mlelec.data.grid_points import GridData
    from ase_mlelec.data.snapshots import Snapshots
    from ase_mlelec.train.ldos.error_bars import add_ldos_error_bars

    model = load_model(arguments.model)
    if "ldos" not in model.heads:
        raise ValueError(f"{data[0]} holds LDOS snapshots, {arguments.model} predicts {', '.join(model.heads)}")
    snapshots = Snapshots(*data)
    own, held = groups_of(model, arguments)
    with tempfile.TemporaryDirectory() as folder:
        descriptor, zero = copy.deepcopy(model.descriptor).double(), model.heads["ldos"].zero
        points = [
            GridData(snapshots.select(*names), descriptor, Path(folder) / "points.h5", zero=zero)
            for names in (own, held)
        ]
        report = add_ldos_error_bars(model, *points, progress=True)
    model.save(arguments.out)
    tell(f"{arguments.out}: {len(points[0])} snapshots of the training, {len(points[1])} to calibrate on", report)


def of_hamiltonians(arguments: argparse.Namespace, data: "list[str]") -> None:
    """Error bars of the Hamiltonian, and of the energy where further files have labels of it."""
    from ase_mlelec import load_model
    from ase_mlelec.data.frames import read_all
    from ase_mlelec.data.hamiltonians import Hamiltonians, is_hamiltonians
    from ase_mlelec.train.error_bars import add_error_bars
    from ase_mlelec.train.hamiltonian.error_bars import add_hamiltonian_error_bars

    model = load_model(arguments.model)
    if "hamiltonian" not in model.heads:
        raise ValueError(f"{data[0]} holds Hamiltonians, {arguments.model} predicts {', '.join(model.heads)}")
    own = Hamiltonians(*(path for path in data if is_hamiltonians(path)))
    groups = groups_of(model, arguments)
    train, held = (list(own.select(*names)) for names in groups)
    report: dict[str, dict[str, Any]] = {}
    others = [path for path in data if not is_hamiltonians(path)]
    if others and "energy" in model.heads:
        frames = read_all(others, keys=keys_of(arguments))
        report |= add_error_bars(model, *(frames.select(*names) for names in groups), names=["energy"], progress=True)
    report |= add_hamiltonian_error_bars(model, train, held, progress=True)
    model.save(arguments.out)
    tell(f"{arguments.out}: {len(train)} Hamiltonians of the training, {len(held)} to calibrate on", report)


def groups_of(model: "Model", arguments: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Groups of the training and of the validation, by the options or by the configuration of the model's training."""
    trained = model.metadata.get("training", {}).get("configuration", {}).get("data", {})
    own = arguments.group or ["", *(trained.get("train") or ["train"])]
    return own, arguments.validation or trained.get("validation") or ["validation"]


def tell(title: str, report: "Mapping[str, Mapping[str, Any]]") -> None:
    """Print how often errors are within one and two standard deviations."""
    print(title)
    print(f"{'':24}{'scale':>10}{'errors':>10}{'within 1':>10}{'within 2':>10}{'rank':>8}")
    for label, found in report.items():
        shares = "".join(f"{100 * found[name]:8.1f} %" for name in ("within_one", "within_two"))
        size = f"{found['scale']:10.3g}{found['errors']:10d}"
        print(f"{label:24}{size}{shares}{found['rank_correlation']:8.2f}  ({found['calibrated_on']})")


def parts(
    frames: "Frames", model: "Model", arguments: argparse.Namespace, both: bool = True
) -> "tuple[Frames, Frames]":
    """(training, validation) frames, by the options or by the configuration of the model's training.

    Raises ValueError where there are no training frames, if ``both`` are needed, or no validation frames otherwise.
    """
    trained = model.metadata.get("training", {}).get("configuration", {}).get("data", {})
    held = arguments.validation or trained.get("validation") or ["validation"]
    own = arguments.group or trained.get("train") or []
    apart = {*held, *trained.get("test", ["test"]), *trained.get("support", ["support"])}
    train = frames.where(lambda frame: frame.group in own if own and frame.group else frame.group not in apart)
    apart_from = () if arguments.like else own
    validation = frames.where(lambda frame: bool(frame.group) and frame.group in held and frame.group not in apart_from)
    if not both and not any(frame.group for frame in frames):
        validation = frames  # without groups, all are for validation
    if not len(train if both else validation):
        groups = ", ".join(sorted(set(frames.groups)))
        raise ValueError(
            f"{', '.join(arguments.data)}: no structures {'of the training' if both else 'to calibrate on'}; they are of "
            f"the groups {groups or 'none'}, name some with {'--group' if both else '--validation'}"
        )
    return train, validation
