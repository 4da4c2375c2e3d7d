"""Former names give what they are called now, say so, and nothing else changes."""

import inspect
import sys
import types
import typing
import warnings

import pytest

from ase_mlelec.deprecated import former_names, formerly_positional, renamed_arguments, renamed_attribute


class Thing:
    """Has an attribute, a property and a method under two names each."""

    centres = renamed_attribute("centres", "centers")
    colour = renamed_attribute("colour", "color")
    normalise = renamed_attribute("normalise", "normalize")

    @renamed_arguments(centres="centers")
    def __init__(self, centers=3):
        self.centers = centers

    @property
    def color(self):
        return "blue"

    def normalize(self, factor=1):
        return self.centers / factor


class Row(typing.NamedTuple):
    centers: int
    centres = renamed_attribute("centres", "centers")


def test_attributes_properties_and_methods():
    thing = Thing()
    with pytest.deprecated_call(match=r"Thing\.centres is now Thing\.centers"):
        assert thing.centres == 3
    with pytest.deprecated_call():
        thing.centres = 6
    assert thing.centers == 6
    with pytest.deprecated_call():
        assert thing.colour == "blue"
    with pytest.deprecated_call():
        assert thing.normalise(factor=2) == 3
    with pytest.deprecated_call():
        assert Thing.normalise is Thing.normalize


def test_named_tuples():
    with pytest.deprecated_call(match=r"Row\.centres is now Row\.centers"):
        assert Row(4).centres == 4
    assert Row._fields == ("centers",)


def test_keyword_arguments():
    with pytest.deprecated_call(match=r"centres=\) is now centers="):
        assert Thing(centres=5).centers == 5
    assert Thing(5).centers == Thing(centers=5).centers == 5  # without a warning, which would be an error here
    assert list(inspect.signature(Thing.__init__).parameters) == ["self", "centers"]
    with pytest.raises(TypeError, match="got 'centres' and 'centers'; give 'centers' alone"):
        Thing(centres=5, centers=5)


def test_names_in_modules(monkeypatch):
    module = types.ModuleType("with_former_names")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    module.read_centers = len
    module.__getattr__ = former_names(module.__name__, read_centres="read_centers")
    with pytest.deprecated_call(match="with_former_names.read_centres is now with_former_names.read_centers") as caught:
        from with_former_names import read_centres
    assert read_centres is len
    assert caught[0].filename == __file__, "the warning shows the line that uses the former name"
    with pytest.raises(AttributeError, match="module 'with_former_names' has no attribute 'read_nothing'"):
        module.read_nothing


def test_arguments_by_position():
    @formerly_positional("npoints", "width")
    def draw(path, *, npoints=100, width=0.1):
        return path, npoints, width

    assert draw("GK") == draw("GK", npoints=100) == ("GK", 100, 0.1)
    with pytest.deprecated_call(match=r"draw: pass npoints, width by name") as caught:
        assert draw("GK", 7, 0.2) == ("GK", 7, 0.2)
    assert caught[0].filename == __file__
    with pytest.deprecated_call():
        assert draw("GK", 7, width=0.3) == ("GK", 7, 0.3)
    for arguments, keywords in ((("GK", 7, 0.2, 1), {}), (("GK", 7), {"npoints": 7})):
        with pytest.raises(TypeError):
            draw_silently(draw, *arguments, **keywords)


def draw_silently(draw, *arguments, **keywords):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return draw(*arguments, **keywords)
