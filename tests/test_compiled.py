"""Whether compiled loops are used, and that nothing about numba can break a program."""

import sys

import pytest

from ase_mlelec import compiled


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.delenv(compiled.SWITCH, raising=False)
    compiled._works.cache_clear()
    yield
    compiled._works.cache_clear()


def test_switch(monkeypatch):
    monkeypatch.setenv(compiled.SWITCH, "0")
    assert not compiled.is_wanted()


def test_without_numba(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    assert not compiled.is_wanted()


def test_numba_that_does_not_work(monkeypatch, tmp_path):
    """As numba refuses a version of NumPy that it does not know: one warning, no error."""
    (tmp_path / "numba.py").write_text("raise ImportError('Numba needs NumPy 2.4 or less. Got NumPy 9.9.')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    with pytest.warns(
        UserWarning, match=r"numba does not work here \(Numba needs NumPy 2\.4.*\): results are the same"
    ):
        assert not compiled.is_wanted()
    assert not compiled.is_wanted()


def test_no_place_for_machine_code():
    """A function without a file has none; so have installations that nobody may write to."""
    numba = pytest.importorskip("numba")
    assert compiled.is_wanted()
    made = {}
    exec("def twice(x):\n    return 2 * x\n", made)
    with pytest.raises(RuntimeError):
        numba.njit(cache=True)(made["twice"])
    assert compiled.compiled(made["twice"])(21) == 42
