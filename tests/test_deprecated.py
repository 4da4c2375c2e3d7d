"""Former names give what they are called now, say so, and nothing else changes."""

import importlib
import inspect
import sys
import types
import typing
import warnings

import pytest

from ase_mlelec.deprecated import former_names, formerly_positional, renamed_arguments, renamed_attribute
from ase_mlelec.descriptors.ace.former import from_power_spectrum


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
    module.__getattr__ = former_names(module.__name__, fit="train.fit:fit")
    with pytest.deprecated_call(match=r"with_former_names\.fit is now ase_mlelec\.train\.fit\.fit"):
        assert module.fit is sys.modules["ase_mlelec.train.fit"].fit
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


FORMER_PLACES = {
    "ase_mlelec.bilayers": "commensurate twisted_bilayer",
    "ase_mlelec.wannier_hamiltonian": "WannierHamiltonian",
    "ase_mlelec.analysis.plots": "COLOURS",
    "ase_mlelec.analysis.trajectory": "ElectronicRecorder evaluate heat set_atom_scalars",
    "ase_mlelec.calculators.bands": "NoBands",
    "ase_mlelec.descriptors": "LocalFrame PowerSpectrum",
    "ase_mlelec.heads": "PairHead",
    "ase_mlelec.heads.hamiltonian.pair_geometry": "Geometry",
    "ase_mlelec.heads.hamiltonian.two_centre": "PairNet",
    "ase_mlelec.io.atomic": "FileLock remove_leftovers replacing",
    "ase_mlelec.io.frames": "read_frames",
    "ase_mlelec.io.images": "from_images to_images",
    "ase_mlelec.io.keys": "check_keys",
    "ase_mlelec.io.runs": "is_run read_run",
    "ase_mlelec.io.snapshots": "Snapshot write_snapshots",
    "ase_mlelec.io.wannier90": "Centres assign_centres read_centres",
    "ase_mlelec.physics.interior": "",
    "ase_mlelec.physics.tight_binding": "",
    "ase_mlelec.train.config": "Config read_config",
    "ase_mlelec.train.fit": "fit standardise standardise_heads",
    "ase_mlelec.train.frames": "Batches Frame Frames join read_frames read_hdf5 write_hdf5",
    "ase_mlelec.train.hamiltonian": "compared_elements fit_hamiltonian frame_functions hamiltonian_errors",
    "ase_mlelec.train.hamiltonian_closed_form": "refit_hopping refit_onsite",
    "ase_mlelec.train.hamiltonian_data": "Hamiltonians",
    "ase_mlelec.train.ldos": "GridData LDOSLoss fingerprints fit_ldos fit_zero free_energy ldos_errors mean_ldos_errors "
    "refit_last_layer standardise_ldos",
    "ase_mlelec.train.ldos_forces": "ForceData refit_with_labels",
    "ase_mlelec.train.levels": "level_errors level_responses mesh",
    "ase_mlelec.train.linear": "fit_linear",
}


@pytest.mark.parametrize("module", FORMER_PLACES)
def test_former_places(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found = importlib.import_module(module)
        for name in FORMER_PLACES[module].split():
            assert getattr(found, name) is not None


def test_power_spectrum_by_position():
    with pytest.deprecated_call(match="pass cutoff, inner, n_pair by name"):
        former = from_power_spectrum(["Si"], 5.0, 1.0, 4)
    assert former.arguments() == from_power_spectrum(["Si"], cutoff=5.0, inner=1.0, n_pair=4).arguments()
