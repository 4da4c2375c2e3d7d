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

# Area (a module or a folder of ase_mlelec; the deeper one counts) -> the areas that stand directly below it.  A file
# may import its own area and all that is below: what the areas below it may import as well.
BELOW = {
    "__init__": {"former_names"},
    "former_names": set(),
    "deprecated": set(),
    "units": set(),
    "atomic_write": {"processes"},
    "shipped": set(),
    "nets": set(),
    "processes": set(),
    "progress": {"processes"},
    "threads": set(),
    "structures": set(),
    "checks": set(),
    "compiled": set(),
    "lanes": {"compiled"},
    "physics": {"threads", "units"},
    "matrices": set(),
    "measures": set(),
    "quantities": {"measures", "units"},
    "system": {"checks", "units"},
    "edges": {"compiled", "system"},
    "descriptors": {"compiled", "edges", "lanes", "nets", "structures", "threads"},
    "heads": {"descriptors", "physics", "quantities"},
    "electrons": {"physics"},
    "safety": {"descriptors", "physics"},
    "model_file": {"atomic_write", "checks", "descriptors", "quantities", "shipped"},
    "uncertainty": {"descriptors", "matrices", "physics"},
    "long_range": {"heads", "threads"},
    "hot_energies": {"uncertainty"},
    "linear_energy": {"uncertainty"},
    "model": {
        "electrons",
        "heads",
        "hot_energies",
        "linear_energy",
        "long_range",
        "model_file",
        "safety",
        "uncertainty",
    },
    "io": {"atomic_write", "checks", "units"},
    "io.deepmd": {"io", "model"},
    "bundle": {"io.deepmd"},
    "bands": {"io", "physics"},
    "data": {"bands", "io.deepmd", "progress", "quantities"},
    "train": {"bundle", "data", "processes"},
    "survey": {"train"},
    "analysis": {"bundle", "data", "processes"},
    "calculators": {"bands", "bundle", "processes"},
    "active": {"calculators", "train"},
    "testing": {"calculators"},
}
EVERYWHERE = {"deprecated"}  # former names may be anywhere

PEERS = {"deepmd", "lammps", "mala", "wannierberri"}
UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib"}  # loading executes code
PHYSICS_MAY_USE = sys.stdlib_module_names | {"ase_mlelec", "numpy", "scipy", "spglib", "torch"}


def source_files(folder):
    found = sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)
    assert found, f"no modules in {folder}"
    return found


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


def module_of(path):
    """Dotted name below ase_mlelec: 'io.cube' for ase_mlelec/io/cube.py, 'io' for ase_mlelec/io/__init__.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and parts[:-1] else parts)


FILES = {module_of(path): path for path in source_files(PACKAGE)}
PACKAGES = {module for module, path in FILES.items() if path.name == "__init__.py"}


def area(module):
    """The area of a module; None where the table has none."""
    while module and module not in BELOW:
        module = module.rpartition(".")[0]
    return module or None


def all_below(name):
    return BELOW[name].union(*(all_below(other) for other in BELOW[name]))


def imported_files(module):
    """Modules of the package that a file imports anywhere, in functions too, and the packages that are run for them."""
    for name in imports_of(FILES[module]):
        root, _, inside = name.partition(".")
        if root != "ase_mlelec" or inside == "__version__":
            continue
        target = inside
        while target and target not in FILES:  # a name in a module
            target = target.rpartition(".")[0]
        assert target, f"{module} imports {name}; import it from the module that defines it"
        packages = {package for package in PACKAGES if f"{target}.".startswith(f"{package}.")}
        yield from {target, *(package for package in packages if not f"{module}.".startswith(f"{package}."))} - {module}


@pytest.mark.parametrize("module", FILES)
def test_imports_point_one_way(module):
    here = area(module)
    assert here, f"{module} is new: give it a line in BELOW and in the README's architecture section"
    allowed = all_below(here) | EVERYWHERE | {here}
    for target in imported_files(module):
        assert area(target) in allowed, f"{module} imports {target}, which is not below {here}"


def test_no_circle_of_files():
    remaining = {module: set(imported_files(module)) for module in FILES}
    while remaining:
        free = [module for module, needs in remaining.items() if not needs & remaining.keys()]
        assert free, f"a circle among {sorted(_in_circles(remaining))}"
        for module in free:
            del remaining[module]


def _in_circles(graph):
    """Those of the modules that are not merely above a circle."""
    while above := graph.keys() - {target for needs in graph.values() for target in needs}:
        graph = {module: needs for module, needs in graph.items() if module not in above}
    return graph


@pytest.mark.parametrize("path", source_files(PACKAGE / "physics"), ids=lambda path: path.name)
def test_physics_knows_only_arrays(path):
    # ase.eos is closed forms of numbers, and no Atoms
    assert {name.split(".")[0] for name in imports_of(path) if name != "ase.eos"} <= PHYSICS_MAY_USE


def test_training_opens_no_data_files():
    for path in source_files(PACKAGE / "train"):
        assert not any(name.split(".")[0] == "h5py" for name in imports_of(path)), f"{path}: use ase_mlelec.data"


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


def test_help_imports_little():
    """Modules of the standard library that take longer than all the rest of ``mlelec --help``."""
    result = run_python(
        "import sys\nbefore = set(sys.modules)\nfrom ase_mlelec_entry_points.cli.main import main\n"
        "try:\n    main(['--help'])\nfinally:\n"
        "    print({'importlib.abc', 'importlib.metadata'} & (set(sys.modules) - before))"
    )
    assert "mlelec COMMAND --help" in result.stdout and result.stdout.endswith("set()\n"), result.stdout


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


@pytest.mark.slow
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
