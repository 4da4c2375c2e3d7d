"""``mlelec test``"""
HELP = "Errors of a model on labelled structures, of everything that it predicts and they have labels of."


def add_arguments(parser):
    parser.add_argument("model", metavar="MODEL", help="name of a shipped model (see 'mlelec models') or a path")
    parser.add_argument("data", metavar="DATA", help="data set: .h5, deepmd npy folder, or a file that ASE reads")
    parser.add_argument("--group", help="only the frames of this group, such as test")
    parser.add_argument("--json", metavar="FILE", help="also write the errors as JSON")


def run(arguments):
    import json

    from ase_mlelec import load_model
    from ase_mlelec.io.atomic import replacing
    from ase_mlelec.io.frames import read_frames
    from ase_mlelec.train.evaluate import errors, table

    frames = read_frames(arguments.data)
    if arguments.group is not None:
        groups = sorted({frame.group for frame in frames})
        frames = frames.select(lambda frame: frame.group == arguments.group)
        if not len(frames):
            raise ValueError(f"{arguments.data}: no frames of group '{arguments.group}'; it has {', '.join(groups)}")
    result = errors(load_model(arguments.model), frames)
    print(f"{len(frames)} structures, {sum(len(frame.atoms) for frame in frames)} atoms")
    print(table({arguments.group or "all": result}))
    if arguments.json:
        with replacing(arguments.json) as partial:
            partial.write_text(json.dumps({"frames": len(frames), **result}, indent=2) + "\n", encoding="utf-8")
