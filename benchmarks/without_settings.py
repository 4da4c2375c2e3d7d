"""The shipped models beside models that ``mlelec init`` and ``mlelec train`` make of the same data without a setting.

    python benchmarks/without_settings.py [NAME ...] [--out benchmarks/WITHOUT_SETTINGS.md]

Errors on the group test of each data set, which neither training sees. Results are kept in WITHOUT_SETTINGS.json, to
which every finished data set is added. Hamiltonians and the LDOS are trained by gradient descent, an hour and more.
"""

import argparse
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import public

HERE = Path(__file__).parent
DATA, SHIPPED = HERE.parent / "examples" / "data", HERE.parent / "ase_mlelec" / "pretrained"
SETS = {
    "si": ["silicon.h5"],
    "ice": ["ice.h5"],
    "mgo": ["mgo.h5"],
    "al": ["aluminium.h5"],
    "mos2": ["mos2.h5"],
    "mos2, energies": ["mos2_converged_forces.h5", "mos2_far_forces.h5"],
    "graphene": ["graphene.h5"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SETS))
    parser.add_argument("--out", type=Path, default=HERE / "WITHOUT_SETTINGS.md")
    arguments = parser.parse_args()
    store = arguments.out.with_suffix(".json")
    found = json.loads(store.read_text()) if store.exists() else {}
    for name in arguments.names or SETS:
        found[name] = measured(name)
        store.write_text(json.dumps(found, indent=1) + "\n")
        arguments.out.write_text("\n".join(report(found)) + "\n")


def measured(name: str) -> dict:
    """Train by two commands in a new folder, and test both models; dict of JSON types."""
    files, model = [str(DATA / file) for file in SETS[name]], name.split(",")[0]
    with tempfile.TemporaryDirectory() as work:
        init = public.run(["init", *files, "-o", "model.toml"], work)
        train = public.run(["train", "model.toml"], work)
        shipped = SHIPPED / f"{model}.safetensors"
        own = Path(work, "model.safetensors")
        return {
            "cpu_s": round(init["cpu_s"] + train["cpu_s"]),
            "models": {"shipped": _digest(shipped) if shipped.exists() else "", "without settings": _digest(own)},
            "errors": {
                "shipped": _errors(model, files[0], work) if shipped.exists() else {},
                "without settings": _errors(str(own), files[0], work),
            },
        }


def _errors(model: str, data: str, work: str) -> dict[str, float]:
    """Errors on the group test."""
    public.run(["test", model, data, "--group", "test", "--out", "errors.json"], work)
    found = json.loads(Path(work, "errors.json").read_text())
    return {key: value for key, value in found.items() if isinstance(value, float)}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def report(found: dict) -> Iterator[str]:
    """Lines of the report."""
    yield "# The data of the shipped models, without a setting"
    yield ""
    yield "Written by `benchmarks/without_settings.py`. Errors on the group test; a dash: the model has no such quantity."
    for name in (key for key in SETS if key in found):
        row = found[name]
        models = ", ".join(f"{which} `{digest}`" for which, digest in row["models"].items() if digest)
        yield ""
        yield f"## {name}"
        yield ""
        yield f"{row['cpu_s']} CPU s without settings; {models}"
        yield ""
        yield "| error | shipped | without settings |"
        yield "|---|---|---|"
        before, after = (row["errors"][which] for which in ("shipped", "without settings"))
        for key in dict.fromkeys([*after, *before]):
            values = " | ".join(f"{own[key]:.4g}" if key in own else "-" for own in (before, after))
            yield f"| {key} | {values} |"


if __name__ == "__main__":
    main()
