"""One-file models: what is written comes back, whatever is not a model is refused in one line."""

import json
import os
import re
import resource
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import CalculatorSetupError
from safetensors import safe_open
from safetensors.torch import save_file
from small_bilayers import graphene_bilayer, random_wannier_model
from small_models import random_model

from ase_mlelec import DeepDOSCalculator, WannierTBCalculator, bundle, shipped
from ase_mlelec.bundle import FORMAT_VERSION, list_models, load_model
from ase_mlelec.descriptors import ACE
from ase_mlelec.descriptors.ace import Order
from ase_mlelec.heads import ScalarHead
from ase_mlelec.model import Model
from ase_mlelec.model_file import read, write
from ase_mlelec.model_file.read import digest
from ase_mlelec.model_file.upgrade import UPGRADES
from ase_mlelec.testing import assert_same_model

DATA = Path(__file__).parent / "data"


@pytest.fixture
def path(tmp_path):
    """A good file."""
    random_model(0, ("energy", "dos"), metadata={"license": "CC0"}).save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def header_of(path):
    with safe_open(path, framework="pt") as stored:
        return json.loads(stored.metadata()["ase_mlelec"])


def rewrite(path, change):
    """Write the file again with a header that ``change`` has edited in place."""
    header = header_of(path)
    change(header)
    with safe_open(path, framework="pt") as stored:
        state = {key: stored.get_tensor(key) for key in stored.keys()}
    save_file(state, path, metadata={"ase_mlelec": json.dumps(header)})


# round trips -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{}, {"one_side": False, "l_max": 2}, {"n_basis": 8}], ids=str)
def test_round_trip(tmp_path, dtype, options):
    model = random_model(3, ("energy", "dos"), dtype=dtype, **options)
    model.save(tmp_path / "m.safetensors")
    again = load_model(str(tmp_path / "m.safetensors")).eval()
    assert_same_model(again, model)
    assert again.metadata == model.metadata
    assert again.descriptor.arguments() == model.descriptor.arguments()
    assert torch.equal(again.heads["dos"].energies, model.heads["dos"].energies)


def test_saving_again_gives_the_same_file(path, tmp_path):
    load_model(path).save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_header_says_what_it_is(path):
    header = header_of(path)
    assert header["format_version"] == FORMAT_VERSION
    assert header["species"] == ["Si", "O"]
    assert header["units"] == {"length": "Å", "energy": "eV", "dos": "states/eV including spin degeneracy"}
    assert header["descriptor"]["class"] == "DeepPotSE" and header["heads"]["dos"]["class"] == "SpectrumHead"
    assert header["metadata"]["license"] == "CC0"


def test_a_model_is_returned_as_it_is():
    model = random_model()
    assert load_model(model) is model


def test_shipped_models_by_name(path, monkeypatch):
    """Names need no path and no suffix; a file of that name elsewhere does not hide them."""
    monkeypatch.setattr(bundle, "PRETRAINED", path.parent)
    assert list_models() == ["model"]
    assert load_model("model").species == ("Si", "O")


def test_list_of_shipped_models():
    folder = files("ase_mlelec") / "pretrained"
    assert list_models() == sorted(
        file.name.removesuffix(".safetensors") for file in folder.iterdir() if file.name.endswith(".safetensors")
    )


@pytest.mark.parametrize("name", list_models())
def test_summaries_of_shipped_models(name):
    """What is read without torch is what the model itself says."""
    summary, model = shipped.read_summary(name), load_model(name)
    assert summary == {"species": list(model.species), "cutoff": model.cutoff, "quantities": list(model.heads)}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 9,
        (2).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (9).to_bytes(8, "little") + b"[[[[[[[[[",
    ],
)
def test_summary_of_a_damaged_file(tmp_path, content):
    (tmp_path / "bad.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="bad.safetensors: damaged header .*; install the package again"):
        shipped.read_summary("bad", tmp_path)


@pytest.mark.parametrize(
    "name, args, kwargs",
    [
        ("zeros", (3, 4), {}),
        ("ones", ((3, 4),), {"dtype": bool}),
        ("full", ((2, 5), 1), {}),
        ("empty", (0, 3), {}),
        ("ones", ((),), {}),
        ("randn", (2, 3), {"dtype": torch.float32}),
        ("randint", (5, (2, 3)), {}),
        ("arange", (7,), {"dtype": torch.float32}),
        ("arange", (1, 8, 2), {}),
        ("linspace", (0, 1, 9), {}),
        ("eye", (4,), {}),
        ("eye", (4, 5), {}),
        ("randperm", (6,), {}),
        ("triu_indices", (4, 4), {}),
        ("zeros", (), {"size": (2, 2)}),
    ],
)
def test_bytes_of_arrays_to_come(name, args, kwargs):
    """Never fewer than the array takes, and at most some times as many."""
    array = getattr(torch, name)(*args, **kwargs)
    assert array.nbytes <= read.bytes_of(name, args, kwargs) <= 4 * array.nbytes


class WideHead(ScalarHead):
    """A class of another package."""


def test_classes_of_other_packages(tmp_path):
    model = random_model()
    Model(model.descriptor, {"energy": WideHead(2, model.descriptor.n_features, (4,)).double()}).save(tmp_path / "w")
    with pytest.raises(CalculatorSetupError, match=r"needs the class WideHead; pass it as load_model\(path, classes="):
        load_model(tmp_path / "w")
    assert isinstance(load_model(tmp_path / "w", classes=[WideHead]).heads["energy"], WideHead)


# atomic writing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["save_file", "os.replace", "metadata"])
def test_failure_leaves_nothing_behind(path, monkeypatch, broken):
    """Neither a part of the new file nor damage to the old one."""

    def fail(*_, **__):
        raise OSError("disk full")

    before, model = path.read_bytes(), random_model(1)
    if broken == "save_file":

        def half(state, target, metadata):
            Path(target).write_bytes(b"half of it")
            fail()

        monkeypatch.setattr(write, "save_file", half)
    elif broken == "os.replace":
        monkeypatch.setattr(os, "replace", fail)
    else:
        model.metadata["array"] = np.zeros(3)
    with pytest.raises(TypeError if broken == "metadata" else OSError):
        model.save(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before


@pytest.mark.parametrize("n_basis", [None, 8])
def test_copies_for_evaluation_are_not_models(tmp_path, n_basis):
    """They hold arrays rearranged for speed, not what was trained."""
    with pytest.raises(CalculatorSetupError, match="copy for evaluation.*save the model it was made from"):
        random_model(n_basis=n_basis).for_evaluation().save(tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


# what is refused ---------------------------------------------------------------------------------------------------


def refused(path, message):
    with pytest.raises(CalculatorSetupError, match=message) as caught:
        load_model(path)
    assert "\n" not in str(caught.value) and str(path.name) in str(caught.value)
    assert caught.value.__cause__ is None and (caught.value.__suppress_context__ or not caught.value.__context__)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    refused(path, "truncated or not a safetensors model .*; copy or save it again")


def test_not_safetensors(path):
    path.write_text("energy = -1.0 eV\n" * 20)
    refused(path, "truncated or not a safetensors model.*; copy or save it again")
    other = path.rename(path.with_name("data.extxyz"))
    refused(other, r"data.extxyz is truncated or not .* give a model that Model.save wrote.* take the model before")


def test_folder(tmp_path):
    refused(tmp_path, "is a folder; give the model file in it")


def test_without_permission(path, monkeypatch):
    """safetensors says that there is no such file."""
    monkeypatch.setattr(bundle.os, "access", lambda name, mode: False)
    refused(path, "you may not read it; ask its owner")


def test_of_another_program(path):
    save_file({"weight": torch.zeros(3)}, path, metadata={"format": "pt"})
    refused(path, "of another program .*; give a file written by Model.save")
    save_file({"weight": torch.zeros(3)}, path)
    refused(path, "of another program")


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, None, "1"])
def test_newer(path, version):
    rewrite(path, lambda header: header.update(format_version=version))
    refused(path, f"has model format {version}, this version reads up to {FORMAT_VERSION}; update ase-mlelec")


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.pop("descriptor"),
        lambda h: h["descriptor"].pop("class"),
        lambda h: h["descriptor"]["arguments"].update(color="red"),
        lambda h: h["descriptor"]["arguments"].update(smooth=9.0),
        lambda h: h["descriptor"]["arguments"].update(species=["Xx"]),
        lambda h: h.update(heads=["energy"]),
    ],
)
def test_damaged_header(path, change):
    rewrite(path, change)
    refused(path, "damaged header .*; save the model again")


def test_arrays_that_do_not_fit(path):
    rewrite(path, lambda header: header["descriptor"]["arguments"].update(widths=[4, 4]))
    refused(path, "arrays do not fit the architecture in the header .*; save the model again")


def test_missing():
    with pytest.raises(CalculatorSetupError, match="no model 'unobtainium': neither a file nor one of the shipped"):
        load_model("unobtainium")


@pytest.mark.parametrize("suffix", [".pth", ".pb"])
def test_containers_with_code(tmp_path, suffix):
    """They are not opened; the one command that converts them is named."""
    path = tmp_path / f"water{suffix}"
    path.write_bytes(b"\x80\x02")
    refused(path, rf"water{suffix} holds code and is not loaded; .*: dp convert-backend water{suffix} water.dp")


# old files ---------------------------------------------------------------------------------------------------------

FORMAT_1_ATOMS = Atoms("Si2O", [[0.1, 0.2, 0.3], [2.2, 0.4, 0.1], [0.9, 1.7, 0.8]], cell=[4.0, 4.5, 5.0], pbc=True)
FORMAT_1_NUMBERS = {
    "energy": -9.227857612689961,
    "forces": [
        [0.4135059095494111, 0.2942292468219625, -0.2727385593023193],
        [-0.2430514011840513, -0.4661998945197711, 0.12564748665469802],
        [-0.1704545083653597, 0.17197064769780873, 0.1470910726476212],
    ],
    "fermi_level": -1.1611896347542598,
    "ados": [0.701362061511431, 0.6915502322397571, 0.696846466954553],
}


@pytest.mark.parametrize("version", [1, 9])
def test_frozen_file(version):
    """Files of former versions give what they gave when they were written: one model in two formats, the first made with

    model = random_model(11, ("energy", "dos"), one_side=False, l_max=2)
    model.save("data/format_1.safetensors")
    calculator = DeepDOSCalculator(model)
    print(calculator.get_property("energy", FORMAT_1_ATOMS), calculator.get_property("forces", FORMAT_1_ATOMS),
          calculator.get_property("fermi_level", FORMAT_1_ATOMS), calculator.get_ados()[:, 10])
    """
    path = DATA / f"format_{version}.safetensors"
    assert header_of(path).get("format_version") == version
    calculator = DeepDOSCalculator(path)
    found = {name: calculator.get_property(name, FORMAT_1_ATOMS) for name in ("energy", "forces", "fermi_level")}
    found["ados"] = calculator.get_ados()[:, 10]
    for name, wanted in FORMAT_1_NUMBERS.items():
        # 1e-10: the evaluation may change to the truncation of a compressed embedding, the meaning of the file may not
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=1e-10)


def test_format_2():
    """The same model saved in format 2, which has a checksum."""
    one, two = (load_model(DATA / f"format_{k}.safetensors") for k in (1, 2))
    assert header_of(DATA / "format_2.safetensors")["format_version"] == 2
    assert_same_model(one, two)
    assert one.metadata == two.metadata


FORMAT_3_BANDS = [
    [-8.7749048487312, -6.03783909445106, -5.87442195985212, -5.02041730835845],
    [-4.80030498050476, -4.50896348260839, -4.15247824931281, -2.49187307607539],
]


def test_hamiltonian_of_format_3():
    """A frozen file, random_wannier_model("graphene", seed=5) of version 0.1.0, gives the bands of that version."""
    path = DATA / "format_3_hamiltonian.safetensors"
    assert header_of(path)["format_version"] == 3
    hamiltonian = WannierTBCalculator(path).get_hamiltonian(graphene_bilayer((0.3, 0.1), noise=0.05, seed=1))
    np.testing.assert_allclose(hamiltonian.eigenvalues([[0, 0, 0], [0.2, 0.1, 0]]), FORMAT_3_BANDS, atol=1e-12)


def former_arguments(head, layers):
    """Arguments that the head of a Hamiltonian had up to format 5, from those of HamiltonianHead and LayerMoments."""
    frame = {"species": layers["species"], "cutoff": layers["environment"], "fold": layers["symmetry"]}
    frame |= {name: layers[name] for name in ("n_radial", "smooth")}
    kept = ("functions", "cutoff", "widths", "n_hidden", "n_reduced", "n_directed", "reference_areas", "third")
    # settings of orders had arguments of their own
    spectrum = {"cutoff": 4.5, "inner": 2.0, "n_pair": 3, "n_radial": 2, "l_max": 3} if layers["ace"] else None
    return {name: head[name] for name in kept} | {"frame": frame, "spectrum": spectrum}


def former_name(key, n_species):
    """Name of an array in format 2."""
    pairs = [(kind, a, b) for kind in ("intra", "inter") for a in range(n_species) for b in range(a, n_species)]
    key = re.sub(r"\.features\.(shift|inverse)$", r".\1", key)
    key = re.sub(r"\.ace\.(shift|inverse)$", r".spectrum_\1", key)
    key = re.sub(r"\.interface_dipole$", ".dipole", key)
    key = re.sub(r"\.onsite\.(\d)\.(linear|turned|third_turned)$", r".\2_\1", key)
    key = re.sub(r"\.onsite\.(\d)\.net\.(\w+)$", r".onsite.\1.\2", key)
    kind = re.search(r"\.hopping\.(\d+)\.nets\.(near|long)\.", key)
    if not kind:
        return key
    inter, a, b = pairs[int(kind[1])]
    return key.replace(kind[0], f".pairs.{inter}_{a}_{b}_{kind[2]}.")


@pytest.mark.parametrize("energy", [True, False])
@pytest.mark.parametrize("kind", ["mx2", "graphene"])
def test_hamiltonian_of_format_2(tmp_path, kind, energy):
    """The head described the layers itself; names of its arrays had species and kinds of pairs in them: linear_0,
    onsite.0.weight, pairs.inter_0_1_near."""
    model, path = random_wannier_model(kind, energy=energy), tmp_path / "model.safetensors"
    model.save(path)
    header = header_of(path)
    del header["digest"]
    layers = (header.pop("pairs") or header["descriptor"])["arguments"]
    former = former_arguments(header["heads"]["hamiltonian"]["arguments"], layers)
    header["heads"]["hamiltonian"] = {"class": "PairHead", "arguments": former}
    header["format_version"] = 2
    if not energy:
        header["descriptor"] = {"class": "LocalFrame", "arguments": former["frame"]}
    state = {former_name(key, len(model.species)): tensor for key, tensor in model.state_dict().items()}
    wanted = ("linear_0", "onsite.0.weight", "shift", "moment_inverse", "pairs.inter_0_0_near.envelope")
    assert {f"heads.hamiltonian.{name}" for name in wanted} <= state.keys()
    text = json.dumps(header)
    save_file(state, path, metadata={"ase_mlelec": f'{{"digest": "{digest(text, state)}", {text[1:]}'})
    again = load_model(path)
    assert_same_model(again, model.train())
    assert again.descriptor_of("hamiltonian").arguments() == model.descriptor_of("hamiltonian").arguments()
    assert again.heads["hamiltonian"].arguments() == model.heads["hamiltonian"].arguments()
    again.save(tmp_path / "again.safetensors")
    assert header_of(tmp_path / "again.safetensors")["format_version"] == FORMAT_VERSION
    assert_same_model(load_model(tmp_path / "again.safetensors"), model)


def test_power_spectrum_of_format_3():
    """ACE had another name, and an argument for each order."""
    arguments = {"species": ["Si"], "cutoff": 6.0, "inner": 1.9, "near": 4.5, "roughest": 5.0, "roughest_5": 2.0}
    described = {"class": "PowerSpectrum", "arguments": arguments}
    header, _ = UPGRADES[3]({"descriptor": described, "electronic": None, "heads": {}}, {})
    orders = [(6.0, 12, 0, None), (6.0, 5, 8, None), (4.5, 5, 8, 5.0), (4.5, 5, 8, 2.0)]
    assert header["descriptor"]["class"] == "ACE" and header["electronic"] is None
    made = ACE(**header["descriptor"]["arguments"])
    assert made.inner == 1.9 and made.orders == tuple(Order(*values) for values in orders)


def test_hamiltonians_of_version_1_are_upgraded():
    """A former file of the shipped model, whose arrays had other names."""
    path = Path(__file__).parent / "data" / "format_1_hamiltonian.safetensors"
    assert header_of(path)["format_version"] == 1
    old, now = load_model(path).state_dict(), load_model("graphene").state_dict()
    assert {"heads.hamiltonian.onsite.0.net.weight", "heads.hamiltonian.hopping.0.nets.near.linear"} <= old.keys()
    for name, value in old.items():
        assert torch.equal(value, now[name]), name


# damage and forgery ------------------------------------------------------------------------------------------------


def test_flipped_bits(path):
    """Wherever they are: header, arrays, or the checksum itself."""
    content, rng = path.read_bytes(), np.random.default_rng(0)
    head = 8 + int.from_bytes(content[:8], "little")
    for place in [*rng.integers(0, head, 60), *rng.integers(head, len(content), 20)]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        refused(path, str(path.name))


def test_other_numbers(path):
    with safe_open(path, framework="pt") as stored:
        header = stored.metadata()
        state = {key: stored.get_tensor(key) for key in stored.keys()}
    state["heads.energy.nets.bias"][0] += 1e-9
    save_file(state, path, metadata=header)
    refused(path, "is damaged: its checksum is not that of its header and arrays; copy it again")


def forge(path, place, value):
    """Change one entry of a header of format 1, which has no checksum: what has one is changed with it."""
    content = (DATA / "format_1.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    head = json.loads(content[8 : 8 + size])
    ours = json.loads(head["__metadata__"]["ase_mlelec"])
    entry = ours
    for key in place[:-1]:
        entry = entry[key]
    entry[place[-1]] = value
    head["__metadata__"]["ase_mlelec"] = json.dumps(ours)
    text = json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])


NUMBERS = [
    ("descriptor", "widths"),
    ("descriptor", "n_axis"),
    ("descriptor", "n_basis"),
    ("heads", "energy", "n_species"),
    ("heads", "energy", "n_features"),
    ("heads", "dos", "widths"),
    ("heads", "dos", "energies"),
    ("heads", "energy", "timestep"),
]


@pytest.mark.parametrize("place", NUMBERS, ids=".".join)
@pytest.mark.parametrize("value", [10**9, [60_000, 60_000], -4, [-4], 5, "x", [[]], 1e308], ids=str)
def test_forged_arguments(path, place, value):
    forge(path, (*place[:-1], "arguments", place[-1]), value)
    refused(path, "do not fit the architecture|damaged header")


@pytest.mark.parametrize(
    "cls, arguments",
    [
        ("ACE", {"species": ["Si"], "orders": [{"cutoff": 6.0, "n_radial": 10**6}]}),
        ("ACE", {"species": ["Si"], "orders": [{"cutoff": 6.0, "n_radial": 5, "l_max": 10**6}]}),
        ("ACE", {"species": ["Si"], "orders": [{"cutoff": 6.0, "n_radial": 5, "l_max": 8, "max_roughness": 1e9}] * 4}),
        ("ACE", {"species": ["Si"], "orders": [{"cutoff": 6.0}]}),
        ("ACE", {"species": ["Si"], "orders": 5}),
        ("Bispectrum", {"species": ["Si"], "twojmax": 10**6}),
        ("LayerMoments", {"species": ["Si"], "n_radial": -1}),
    ],
)
def test_forged_descriptors(path, cls, arguments):
    forge(path, ("descriptor",), {"class": cls, "arguments": arguments})
    refused(path, "do not fit the architecture|damaged header")


@pytest.mark.parametrize("cls", ["VectorHead", "TensorHead"])
def test_forged_heads(path, cls):
    arguments = {"n_species": 10**12, "n_features": 1, "n_rows": 10**6, "centers": [0], "widths": [], "full": True}
    forge(
        path,
        ("heads", "energy"),
        {
            "class": cls,
            "arguments": {key: value for key, value in arguments.items() if key != "full" or cls == "TensorHead"},
        },
    )
    refused(path, "do not fit the architecture|damaged header")


def test_numbers_of_the_header_are_finite(path):
    forge(path, ("heads", "dos", "arguments", "energies", 3), float("nan"))
    refused(path, "damaged header .heads.dos.arguments.energies.3 is NaN or infinity")


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("electrons_in_dos", -5, "metadata.electrons_in_dos: got '-5', need numbers by symbol"),
        ("valence_electrons", {"Si": "x"}, "metadata.valence_electrons.Si: got 'x', need a number from 0 to 1000"),
        ("electronic_temperature_K", "zzz", "metadata.electronic_temperature_K: got 'zzz', need a number"),
        ("electronic_temperature_K", 1e30, "metadata.electronic_temperature_K: got '1e.30'"),
        ("dos_width_eV", True, "metadata.dos_width_eV: got 'True', need a number"),
        ("dos_width_eV", -5, "metadata.dos_width_eV: got '-5', need a number from 0 to 100"),
        ("shortest_distances_A", {"Si": 2.0}, "metadata.shortest_distances_A: got the key 'Si'"),
    ],
)
def test_metadata_of_wrong_types(path, name, value, message):
    """They are refused when the file is read, not when they are needed, and not saved."""
    forge(path, ("metadata", name), value)
    refused(path, f"damaged header .*{message}")
    with pytest.raises(CalculatorSetupError, match=f"the model's {message}"):
        random_model(1, metadata={name: value}).save(path)


def test_parts_that_do_not_belong_together(path):
    """Their arrays do not show it."""
    forge(path, ("descriptor", "arguments", "n_axis"), 2)
    refused(path, "damaged header .*n_features 48, the descriptor has 32")
    forge(path, ("species",), ["Si", "C"])
    refused(path, "damaged header .*species")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop("heads.energy.nets.scale"), "missing: heads.energy.nets.scale"),
        (lambda s: s.update(more=torch.zeros(2)), "not in it: more"),
        (
            lambda s: s.update({"heads.energy.nets.bias": torch.zeros(3, 1)}),
            r"energy.nets.bias: got shape \(3, 1\), need",
        ),
        (lambda s: s.update({"heads.energy.nets.bias": torch.zeros(2, 1, dtype=torch.int64)}), "got torch.int64, need"),
        (lambda s: s.update({"heads.energy.nets.bias": torch.full((2, 1), torch.nan)}), "bias holds NaN or infinity"),
    ],
)
def test_arrays_are_named(path, change, message):
    with safe_open(path, framework="pt") as stored:
        header = stored.metadata()
        state = {key: stored.get_tensor(key) for key in stored.keys()}
    change(state)
    save_file(state, path, metadata=header)
    refused(path, message)


def test_nan_is_not_saved(path):
    before, model = path.read_bytes(), random_model(1)
    with torch.no_grad():
        model.heads["energy"].nets.last[0].weight[0, 0] = torch.inf
    with pytest.raises(CalculatorSetupError, match="heads.energy.nets.last.0.weight holds NaN or infinity, and is not"):
        model.save(path)
    model = random_model(1, metadata={"errors": [{"energy": float("nan")}]})
    with pytest.raises(CalculatorSetupError, match="metadata.errors.0.energy is NaN or infinity, and is not saved"):
        model.save(path)
    assert path.read_bytes() == before


def test_full_disk(path):
    before, (soft, hard) = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="model.safetensors: cannot be written"):
            random_model(1).save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1
