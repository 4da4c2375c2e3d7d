"""``mlelec calibrate``"""

import argparse
from typing import TYPE_CHECKING

from ase_mlelec_entry_points.cli.options import add_keys, add_model, add_out, keys_of

if TYPE_CHECKING:
    from ase_mlelec.data.data_set import Frames
    from ase_mlelec.model import Model

HELP = (
    "Give a model calibrated error bars, from the data that it was trained on and from validation data. What "
    "'mlelec train' writes has them; the weights do not change."
)
EXAMPLE = "mlelec calibrate si examples/data/silicon.h5 --validation validation --out si.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "data", metavar="DATA", nargs="+", help="labeled data sets: .h5, deepmd npy folders, files that ASE reads"
    )
    suffix = ".safetensors"
    add_out(parser, "the model with error bars", metavar=f"FILE{suffix}", suffixes=[suffix], required=True)
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
        help="take the scales of this model, trained in the same way without the validation data; for a model that was "
        "trained on all data",
    )
    add_keys(parser)


def run(arguments: argparse.Namespace) -> None:
    from ase_mlelec import load_model
    from ase_mlelec.data.frames import read_all
    from ase_mlelec.train.error_bars import add_error_bars

    model = load_model(arguments.model)
    frames = read_all(arguments.data, keys=keys_of(arguments))
    train, validation = parts(frames, model, arguments)
    report = add_error_bars(model, train, validation, like=arguments.like and load_model(arguments.like))
    if not report:
        raise ValueError(
            f"{', '.join(arguments.data)}: no labels of {', '.join(model.heads)}, from which error bars could be made; "
            "give data with such labels"
        )
    model.save(arguments.out)
    print(f"{arguments.out}: {len(train)} structures of the training, {len(validation)} to calibrate on")
    print(f"{'':24}{'scale':>10}{'errors':>10}{'within 1':>10}{'within 2':>10}{'rank':>8}")
    for label, found in report.items():
        shares = "".join(f"{100 * found[name]:8.1f} %" for name in ("within_one", "within_two"))
        size = f"{found['scale']:10.3g}{found['errors']:10d}"
        print(f"{label:24}{size}{shares}{found['rank_correlation']:8.2f}  ({found['calibrated_on']})")


def parts(frames: "Frames", model: "Model", arguments: argparse.Namespace) -> "tuple[Frames, Frames]":
    """(training, validation) frames, by the options or by the configuration of the model's training.

    Raises ValueError where there are no training frames.
    """
    trained = model.metadata.get("training", {}).get("configuration", {}).get("data", {})
    held = arguments.validation or trained.get("validation") or ["validation"]
    own = arguments.group or trained.get("train") or []
    apart = {*held, *trained.get("test", ["test"]), *trained.get("support", ["support"])}
    train = frames.where(lambda frame: frame.group in own if own and frame.group else frame.group not in apart)
    if not len(train):
        groups = ", ".join(sorted(set(frames.groups)))
        raise ValueError(
            f"{', '.join(arguments.data)}: no structures of the training; they are of the groups {groups or 'none'}, "
            "name some with --group"
        )
    return train, frames.where(lambda frame: bool(frame.group) and frame.group in held and frame.group not in own)
