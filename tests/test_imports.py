"""Who may import whom: the one-way rule of the README's architecture section, read from the source."""

import ast
import configparser
import subprocess
import sys
from pathlib import Path

import pytest

import ase_mlelec
import ase_mlelec_entry_points

PACKAGE = Path(ase_mlelec.__file__).parent
ENTRY_POINTS = Path(ase_mlelec_entry_points.__file__).parent
CHECKOUT = Path(__file__).parent.parent

# Module or subpackage -> what of ase_mlelec it may import besides itself.
MODEL_AND_BELOW = {
    "physics",
    "quantities",
    "model",
    "safety",
    "descriptors",
    "heads",
    "nets",
    "edges",
    "system",
    "units",
}
ALLOWED = {
    "__init__": {"former_names"},
    "units": set(),
    "quantities": {"units"},
    "former_names": set(),
    "deprecated": set(),
    "atomic_write": set(),
    "shipped": set(),
    "structures": set(),
    "nets": set(),
    "physics": {"units"},
    "system": {"units"},
    "edges": {"system", "units"},
    "descriptors": {"edges", "system", "units", "nets", "structures"},
    "heads": {"edges", "system", "units", "nets", "descriptors", "physics", "quantities", "structures"},
    "safety": {"descriptors", "edges", "system", "units", "physics"},
    "model": MODEL_AND_BELOW,
    "data_set": {"quantities"},  # ase_mlelec/data/data_set.py: what readers of data make
    "io": MODEL_AND_BELOW | {"atomic_write", "data_set"},
    "data": MODEL_AND_BELOW | {"atomic_write", "bands", "data_set", "io", "physics"},
    "bands": {"atomic_write", "io", "physics", "units"},
    "bundle": MODEL_AND_BELOW | {"atomic_write", "io", "shipped"},
    "train": MODEL_AND_BELOW | {"atomic_write", "bands", "bundle", "data", "io", "physics", "structures"},
    "analysis": MODEL_AND_BELOW | {"atomic_write", "bundle", "data", "io", "physics"},
    "calculators": MODEL_AND_BELOW | {"atomic_write", "bands", "bundle", "io", "physics", "structures"},
    "testing": MODEL_AND_BELOW | {"bundle", "calculators"},
}
# Against the arrows, and therefore inside a function: one line of convenience that users expect of a model.
EXCEPTIONS = {("model", "bundle")}  # Model.save(path)

PEERS = {"deepmd", "lammps", "mala", "wannierberri"}
UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib"}  # loading executes code
PHYSICS_MAY_USE = sys.stdlib_module_names | {"ase_mlelec", "numpy", "scipy", "spglib", "torch"}


def source_files(folder):
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def imported_modules(path, package):
    """Dotted names of everything that the file imports, ``from x import y`` as x.y; relative names resolved."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package[: len(package) - node.level + 1]
                base = ".".join([*parents, base]).rstrip(".")
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imports_of(path):
    inside = path.relative_to(PACKAGE)
    return list(imported_modules(path, ("ase_mlelec", *inside.parts[:-1])))


def area(path):
    """First part of a module's name below ase_mlelec: 'io' for ase_mlelec/io/espresso.py."""
    return of_module(path.relative_to(PACKAGE).with_suffix("").parts)


def of_module(parts):
    return "data_set" if tuple(parts[:2]) == ("data", "data_set") else parts[0]


@pytest.mark.parametrize("path", source_files(PACKAGE), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_one_way(path):
    here = area(path)
    assert here in ALLOWED, f"{here} is new: give it a line in ALLOWED and in the README's architecture section"
    for name in imports_of(path):
        root, *rest = name.split(".")
        if root != "ase_mlelec":
            continue
        target = of_module(rest)
        if target in ("__version__", "deprecated"):  # which everything may use
            continue
        if target not in ALLOWED:  # a public name, taken from the package itself
            pytest.fail(f"{path.name} imports {name}; import it from the module that defines it")
        assert target == here or target in ALLOWED[here] or (here, target) in EXCEPTIONS, f"{here} imports {name}"


def test_arrows_have_no_cycle():
    remaining = dict(ALLOWED)
    while remaining:
        free = [name for name, needs in remaining.items() if not (needs - {name}) & remaining.keys()]
        assert free, f"a cycle among {sorted(remaining)}"
        for name in free:
            del remaining[name]


@pytest.mark.parametrize("path", source_files(PACKAGE / "physics"), ids=lambda path: path.name)
def test_physics_knows_only_arrays(path):
    # ase.eos is closed forms of numbers, and no Atoms
    assert {name.split(".")[0] for name in imports_of(path) if name != "ase.eos"} <= PHYSICS_MAY_USE


@pytest.mark.parametrize("folder", [PACKAGE, ENTRY_POINTS], ids=["ase_mlelec", "entry_points"])
def test_neither_peers_nor_unsafe_loaders(folder):
    for path in source_files(folder):
        roots = {name.split(".")[0] for name in imported_modules(path, (folder.name,))}
        assert not roots & (PEERS | UNSAFE), path


def test_entry_points_are_above_everything():
    for path in source_files(PACKAGE):
        assert not any(name.startswith("ase_mlelec_entry_points") for name in imports_of(path)), path


def test_relative_imports_are_resolved(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("from . import a\nfrom .b import c\nfrom ..units import KB\nimport ase.io\n")
    assert list(imported_modules(path, ("ase_mlelec", "io"))) == [
        "ase_mlelec.io.a",
        "ase_mlelec.io.b.c",
        "ase_mlelec.units.KB",
        "ase.io",
    ]


def run_python(code):
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=300)


def test_importing_the_package_imports_no_torch():
    result = run_python("import sys, ase_mlelec; print({'torch', 'ase', 'pydantic'} & set(sys.modules))")
    assert result.stdout.split() == ["set()"], result.stderr


@pytest.mark.parametrize("arguments", [["models"], ["models", "--names"]], ids=" ".join)
def test_models_are_listed_without_torch(arguments):
    result = run_python(
        "import sys\nfrom ase_mlelec_entry_points.cli.main import main\n"
        f"code = main({arguments})\n"
        "print(code, *(name in sys.modules for name in ('torch', 'ase', 'numpy')))"
    )
    *models, last = result.stdout.splitlines()
    assert last.split() == ["0", "False", "False", "False"], result.stderr
    assert len(models) == len(ase_mlelec.list_models())


def test_an_evaluation_imports_no_compiler():
    """torch's tracing compiler and sympy take 2 s; functions as harmless as torch.arange on the meta device want them."""
    result = run_python(
        "import sys, ase.build\nfrom ase_mlelec import DeepDOSCalculator\n"
        "atoms = ase.build.bulk('Si')\natoms.rattle(0.01)\natoms.calc = DeepDOSCalculator('si')\n"
        "atoms.get_forces(), atoms.calc.get_fermi_level()\n"
        "print('torch._dynamo' in sys.modules, 'sympy' in sys.modules)"
    )
    assert result.stdout.split() == ["False", "False"], result.stderr


@pytest.mark.parametrize("name", ase_mlelec.__all__)
def test_public_names(name):
    assert name in dir(ase_mlelec)
    value = getattr(ase_mlelec, name)
    assert name == "__version__" or value.__name__ == name


def test_foreign_name():
    with pytest.raises(AttributeError, match="no attribute 'DeepMagicCalculator'"):
        ase_mlelec.DeepMagicCalculator


needs_checkout = pytest.mark.skipif(not (CHECKOUT / "setup.cfg").exists(), reason="reads the files of the checkout")


@needs_checkout
def test_every_package_is_installed():
    """setup.cfg lists the packages by hand, so that a new one is easily forgotten."""
    config = configparser.ConfigParser()
    config.read(CHECKOUT / "setup.cfg", encoding="utf-8")
    listed = config["options"]["packages"].split()
    found = set()
    for folder, name in ("ase_mlelec", "ase_mlelec"), ("entry_points", "ase_mlelec_entry_points"):
        for path in source_files(CHECKOUT / folder):
            found.add(".".join([name, *path.relative_to(CHECKOUT / folder).parts[:-1]]))
    assert sorted(listed) == sorted(found)


@needs_checkout
def test_readme_shows_the_tree():
    readme = (CHECKOUT / "README.rst").read_text(encoding="utf-8")
    inside = [path.relative_to(CHECKOUT / "ase_mlelec").parts for path in source_files(CHECKOUT / "ase_mlelec")]
    names = {first + "/" if deeper else first for first, *deeper in inside}
    missing = [name for name in sorted(names) if f"\n      {name} " not in readme]
    assert not missing
