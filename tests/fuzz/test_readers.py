"""Every reader with thousands of damaged files: finite numbers, or the one error that names the file.

``pytest tests/fuzz --fuzz N`` tries N files of every line of the table; the inputs are the same in every run.
"""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from damage import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judge import judged, read_files, write_files
from readers import PARTS, READERS
from worker import Worker

import ase_mlelec

NUMBER = st.integers(0, 2**24 - 1)
EDITS = st.lists(st.tuples(NUMBER, NUMBER, NUMBER), min_size=1, max_size=3)  # which file, what is done, seed


@pytest.fixture(params=READERS)
def reader(request):
    if request.param == "born":
        pytest.importorskip("phonopy", reason="phonopy reads its own file (extra phonons)")
    return READERS[request.param]


@pytest.fixture
def whole(reader, tmp_path):
    """dict name -> bytes of the files of a reader."""
    (tmp_path / "whole").mkdir()
    reader.write(tmp_path / "whole")
    return read_files(tmp_path / "whole")


@pytest.fixture
def attempt(reader, tmp_path):
    """Function from files to the Verdict of the reader, in a process of its own."""
    folder = tmp_path / "case"

    def judge(files):
        write_files(folder, files)
        names = {part for name in files for part in Path(name).parts}
        return judged(lambda: reader.read(folder), names, reader.errors, reader.check)

    worker = Worker(judge)
    yield worker
    worker.close()


def test_damaged_files(whole, attempt, fuzz):
    verdict = attempt(whole)
    assert verdict.finding is None and verdict.outcome == "read", verdict

    @settings(
        max_examples=fuzz.inputs,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(EDITS)
    def test(edits):
        fuzz.take(attempt(damaged(whole, edits)), edits)

    test()
    fuzz.check()


def test_every_reader_is_in_the_table():
    found = set()
    for module in pkgutil.walk_packages(ase_mlelec.__path__, "ase_mlelec."):
        names = module.name.split(".")[1:]
        if names[0] == "testing" or any(name.startswith("_") for name in names):
            continue
        try:
            contents = vars(importlib.import_module(module.name))
        except ModuleNotFoundError as error:
            assert error.name in ("numba", "llvmlite", "torch_sim")  # loops and a model of others read nothing
            continue
        own = {
            name: value
            for name, value in contents.items()
            if getattr(value, "__module__", None) == module.name
            and not (name.startswith("_") or hasattr(value, "py_func"))  # compiled loops read no files
        }
        here = ".".join(names).removeprefix("io.")
        found |= {f"{here}.{name}" for name, value in own.items() if re.match(r"(read|load)_|map_npy", name)}
        found |= {
            f"{here}.{name}.read" for name, value in own.items() if isinstance(value, type) and "read" in vars(value)
        }
    listed = {name for reader in READERS.values() for name in reader.functions.split()} | PARTS
    assert found - listed == set(), "give them a line in tests/fuzz/readers.py"
    for name in listed:
        module, _, attribute = name.removesuffix(".read").rpartition(".")
        holder = next(
            iter(
                importlib.import_module(f"ase_mlelec.{place}{module}")
                for place in ("", "io.")
                if _exists(f"ase_mlelec.{place}{module}")
            )
        )
        assert hasattr(holder, attribute), f"{name} is no more"


def _exists(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
