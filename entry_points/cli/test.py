"""``mlelec test``"""

from ase_mlelec_entry_points.cli.convert import add_key_argument, keys_of

HELP = "Errors of a model on labelled structures, of everything that it predicts and they have labels of."


def add_arguments(parser):
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="+",
        help="name of a shipped model (see 'mlelec models') or a path; several models of the LDOS are a committee",
    )
    parser.add_argument("data", metavar="DATA", help="data set: .h5, deepmd npy folder, or a file that ASE reads")
    parser.add_argument("--group", help="only the frames of this group, such as test")
    add_key_argument(parser)
    parser.add_argument("--json", metavar="FILE", help="also write the errors as JSON")


def run(arguments):
    import json

    from ase_mlelec.atomic_write import replacing
    from ase_mlelec.data.hamiltonians import is_hamiltonians
    from ase_mlelec.data.snapshots import is_snapshots
    from ase_mlelec.train.evaluate import table

    if is_snapshots(arguments.data):
        frames, columns = errors_of_ldos(arguments)
    elif is_hamiltonians(arguments.data):
        frames, columns = errors_of_hamiltonians(arguments)
    else:
        frames, columns = errors_of_frames(arguments)
    print(f"{len(frames)} structures, {sum(len(frame.atoms) for frame in frames)} atoms")
    print(table(columns))
    if arguments.json:
        result = {"frames": len(frames), **list(columns.values())[-1]}
        with replacing(arguments.json) as partial:
            partial.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def errors_of_frames(arguments):
    from ase_mlelec import load_model
    from ase_mlelec.data.frames import read_frames
    from ase_mlelec.train.evaluate import errors

    if len(arguments.model) > 1:
        raise ValueError(
            f"{arguments.data}: got {len(arguments.model)} models, a committee, which is for LDOS "
            "snapshots alone; test the models one by one"
        )
    frames = read_frames(arguments.data, keys_of(arguments))
    if arguments.group is not None:
        groups = sorted({frame.group for frame in frames})
        frames = frames.select(lambda frame: frame.group == arguments.group)
        if not len(frames):
            raise ValueError(f"{arguments.data}: no frames of group '{arguments.group}'; it has {', '.join(groups)}")
    return frames, {arguments.group or "all": errors(load_model(arguments.model[0]), frames)}


def errors_of_hamiltonians(arguments):
    from ase_mlelec import load_model
    from ase_mlelec.data.hamiltonians import Hamiltonians
    from ase_mlelec.train.evaluate import errors
    from ase_mlelec.train.hamiltonian.errors import hamiltonian_errors

    frames = Hamiltonians(arguments.data)
    if arguments.group is not None:
        groups = sorted(set(frames.groups))
        frames = frames.select(arguments.group)
        if not len(frames):
            raise ValueError(f"{arguments.data}: no frames of group '{arguments.group}'; it has {', '.join(groups)}")
    columns = {}
    for name in arguments.model:
        model = load_model(name)
        if "hamiltonian" not in model.heads:
            raise ValueError(
                f"{arguments.data} holds Hamiltonians, {name} predicts {', '.join(model.heads)}; give a "
                "model of the Hamiltonian"
            )
        columns[name if len(arguments.model) > 1 else arguments.group or "all"] = hamiltonian_errors(model, frames) | (
            errors(model, frames.frames()) if "energy" in model.heads else {}
        )
    return frames, columns


def errors_of_ldos(arguments):
    import tempfile
    from pathlib import Path

    from ase_mlelec import load_model
    from ase_mlelec.data.grid_points import GridData
    from ase_mlelec.data.snapshots import Snapshots
    from ase_mlelec.train.ldos.errors import mean_ldos_errors

    models, snapshots = [load_model(name) for name in arguments.model], Snapshots(arguments.data)
    for model in models:
        if "ldos" not in model.heads:
            raise ValueError(
                f"{arguments.data} holds LDOS snapshots, the model predicts {', '.join(model.heads)}; "
                "give a model of the LDOS"
            )
    descriptor = models[0].descriptor.double()
    if any(model.descriptor.arguments() != descriptor.arguments() for model in models):
        raise ValueError(
            f"got models with different fingerprints, {' and '.join(arguments.model)}; test them one by one"
        )
    if arguments.group is not None:
        chosen = snapshots.select(arguments.group)
        if not len(chosen):
            raise ValueError(
                f"{arguments.data}: no frames of group '{arguments.group}'; it has "
                f"{', '.join(sorted(set(snapshots.groups)))}"
            )
        snapshots = chosen
    with tempfile.TemporaryDirectory() as folder:
        data = GridData(snapshots, descriptor, Path(folder) / "fingerprints.h5", zero=models[0].heads["ldos"].zero)
        if len(models) == 1:
            return snapshots, {arguments.group or "all": mean_ldos_errors(models[0], data)}
        columns = {f"member {k}": mean_ldos_errors(model, data) for k, model in enumerate(models)}
        return snapshots, columns | {"committee": mean_ldos_errors(models, data)}
