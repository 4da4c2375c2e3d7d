"""The documentation: its examples, and that what it names exists."""

import csv
import doctest
import re
import sys
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk, graphene

import ase_mlelec
from ase_mlelec.compiled import SWITCH
from ase_mlelec.structures import commensurate, twisted_bilayer

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.rst") if ">>> " in path.read_text())
MODULES = sorted(path for path in (ROOT / "ase_mlelec").rglob("*.py") if ">>> " in path.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_examples_of_the_pages(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    result = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_examples_of_the_docstrings(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    module = __import__(name, fromlist=["_"])
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed


def test_there_are_twenty_examples():
    sources = [path.read_text() for path in PAGES + MODULES]
    assert sum(len(doctest.DocTestParser().get_examples(source)) for source in sources) >= 20


def table_of_quantities():
    """Rows of the table on the page on capabilities."""
    text = (DOCS / "capabilities.rst").read_text()
    lines = text[text.index(":widths:") :].split("\n\n")[1].splitlines()
    return [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter="|")]


def test_methods_of_the_table_exist():
    rows = table_of_quantities()
    assert len(rows) > 25
    for _, role, method, _, _ in rows:
        calculator = getattr(ase_mlelec, re.search(r"`\.(\w+)`", role)[1])
        assert hasattr(calculator, method.strip("`")), f"{calculator.__name__} has no {method}"


def test_every_calculator_is_in_the_table():
    in_table = {re.search(r"`\.(\w+)`", role)[1] for _, role, *_ in table_of_quantities()}
    calculators = {name for name in ase_mlelec.__all__ if name.endswith("Calculator")}
    assert in_table == calculators - {"CombinedCalculator"}


def test_every_shipped_model_has_a_page():
    pages = {path.stem for path in (DOCS / "models").glob("*.rst")}
    assert pages == set(ase_mlelec.list_models())
    index = (DOCS / "index.rst").read_text()
    assert all(f"models/{name}" in index for name in pages)


def test_public_names_are_in_the_reference():
    text = (DOCS / "reference.rst").read_text()
    assert re.findall(r"^   ~([\w.]+)$", text, re.M) == [
        f"{module}.{name}" for name, module in ase_mlelec._PUBLIC.items()
    ]


def test_pictures_are_shown_and_small():
    text = "".join(path.read_text() for path in DOCS.rglob("*.rst"))
    shown = set(re.findall(r"/pictures/(\w+\.png)", text))
    assert shown == {path.name for path in (DOCS / "pictures").glob("*.png")}
    assert all((DOCS / "pictures" / name).stat().st_size < 150_000 for name in shown)


def test_files_that_pages_name_exist():
    count = 0
    for page in (ROOT / "README.rst", *DOCS.rglob("*.rst"), *(ROOT / "ase_mlelec" / "pretrained").glob("*.rst")):
        for name in re.findall(r"(?<![\w/])((?:examples|benchmarks|tests)/[\w/.-]+\.\w+)", page.read_text()):
            if not name.endswith(".safetensors"):  # made by a command
                assert (ROOT / name).exists(), f"{page.name} names {name}"
                count += 1
    assert count > 50


def test_benchmarks_of_the_readme():
    """The table of benchmarks names each once, and none that is not there."""
    text = (ROOT / "README.rst").read_text()
    named = re.findall(r"``([A-Z0-9_]+\.md)``", text[text.index("Accuracy and speed") :])
    assert len(named) == len({*named}) > 30
    assert {*named} <= {path.name for path in (ROOT / "benchmarks").glob("*.md")}


def paths():
    """(calculator, "use" or "training", files) of every list on the page of the architecture."""
    text = (DOCS / "architecture.rst").read_text()
    sections = re.findall(r"``(\w+Calculator)``\n~+\n(.*?)(?=\n[^\n]+\n[~-]{5,}\n)", text, re.S)
    return [
        (calculator, kind, re.findall(r"^    ([\w/]+\.py) ", block, re.M))
        for calculator, section in sections
        for kind, block in zip(("use", "training"), section.split("model file::"), strict=True)
    ]


@pytest.mark.parametrize("calculator, kind, files", paths())
def test_paths_pass_no_file_twice(calculator, kind, files):
    assert len(files) > 10
    assert len(files) == len(set(files))
    assert not [file for file in files if not (ROOT / "ase_mlelec" / file).exists()]


def test_every_calculator_has_paths():
    calculators = {name for name in ase_mlelec.__all__ if name.endswith("Calculator")}
    assert {calculator for calculator, *_ in paths()} == calculators - {"CombinedCalculator"}


def files_that_run(function):
    """Files of the package of which something is called by ``function()``."""
    package, found = str(Path(ase_mlelec.__file__).parent) + "/", set()

    def look(frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(package):
            found.add(frame.f_code.co_filename.removeprefix(package))

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        function()
    finally:
        sys.setprofile(before)
    return found


def small_ice():
    """Ice X, two molecules."""
    scaled = [[0, 0, 0], [0.5, 0.5, 0.5], *([x, y, z] for x, y, z in [(0.25,) * 3, (0.75, 0.75, 0.25)])]
    scaled += [[0.75, 0.25, 0.75], [0.25, 0.75, 0.75]]
    return Atoms("O2H4", scaled_positions=scaled, cell=[2.65] * 3, pbc=True)


def twisted():
    layer = graphene(a=2.46)
    return twisted_bilayer(layer, layer, commensurate(1, 1), 3.35)[0]


@pytest.mark.parametrize(
    "calculator, model, make_atoms, methods",
    [
        ("DeepPotCalculator", "si", lambda: bulk("Si", a=5.407), ["get_forces"]),
        ("DeepDOSCalculator", "si", lambda: bulk("Si", a=5.407), ["get_fermi_level"]),
        ("MLDFTCalculator", "al", lambda: bulk("Al", a=4.05), ["get_potential_energy"]),
        ("DeepWannierCalculator", "ice", small_ice, ["get_dipole_moment", "get_born_charges"]),
        ("WannierTBCalculator", "graphene", twisted, ["get_eigenvalues", "get_fermi_level"]),
    ],
)
def test_paths_are_those_of_data(calculator, model, make_atoms, methods, monkeypatch):
    monkeypatch.setenv(SWITCH, "0")  # the lists are those of PyTorch; compiled loops have a section of their own
    atoms = make_atoms()
    calc = atoms.calc = getattr(ase_mlelec, calculator)(model, on_extrapolation="ignore")
    passed = files_that_run(lambda: [getattr(calc, method)(atoms=atoms) for method in methods])
    (named,) = [files for name, kind, files in paths() if (name, kind) == (calculator, "use")]
    assert set(named) <= passed
