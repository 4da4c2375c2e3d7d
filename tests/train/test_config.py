"""The TOML configuration: strict keys, named types, and defaults that are enough."""

import re

import pytest

from ase_mlelec.train import config as sections
from ase_mlelec.train.config import Config, DescriptorConfig, EnergyConfig, parse_config, read_config

SHORTEST = """
[data]
files = ["silicon.h5"]
[energy]
[dos]
[output]
model = "si.safetensors"
"""


def test_defaults(tmp_path):
    (tmp_path / "config.toml").write_text(SHORTEST)
    config = read_config(tmp_path / "config.toml")
    assert isinstance(config, Config) and config.folder == tmp_path and config.seed == 0
    assert config.data.files == ("silicon.h5",) and config.data.validation == ("validation",)
    assert config.descriptor == DescriptorConfig(cutoff=6.0, smooth=1.8, widths=(24,), n_axis=8, l_max=3, n_basis=16)
    energy = config.energy
    assert energy.widths == (64, 64) and energy.learning_rate == (5e-3, 5e-6)
    assert (energy.energy, energy.forces, energy.virial, energy.batch_size, energy.steps) == (None,) * 5
    chosen = EnergyConfig(forces=(1.0, 2.0)).completed(energy=(7.0, 7.0), steps=3)
    assert (chosen.energy, chosen.forces, chosen.virial) == ((0.1, 10), (1, 2), (1, 5)) and chosen.steps == 3
    assert chosen.given == ("forces",)
    assert EnergyConfig().completed(energy=(7.0, 7.0)).energy == (7.0, 7.0)
    assert config.dos.widths == (128, 128)


def table(**sections):
    return {"data": {"files": ["a.h5"]}, "energy": {}, "output": {"model": "m.safetensors"}, **sections}


def test_values():
    config = parse_config(table(seed=3, descriptor={"cutoff": 5, "sel": [40]}, energy={"forces": [10, 1.5]}))
    assert config.seed == 3 and config.dos is None
    assert config.descriptor.cutoff == 5.0 and type(config.descriptor.cutoff) is float
    assert config.descriptor.sel == (40,) and config.energy.forces == (10.0, 1.5)


@pytest.mark.parametrize(
    "sections, message",
    [
        ({"enrgy": {}}, "unknown key 'enrgy'; did you mean 'energy'"),
        ({"energy": {"learning_rates": [1, 1]}}, "unknown key 'energy.learning_rates'; did you mean 'learning_rate'"),
        ({"descriptor": {"qwertz": 1}}, "unknown key 'descriptor.qwertz'; known are cutoff, smooth"),
        ({"folder": "x"}, "unknown key 'folder'"),
        ({"data": {}}, "key 'data.files' is missing"),
        ({"data": {"files": ["a.h5"], "weights": {"a.h5": -1.0}}}, "data.weights.a.h5: got -1, need at least 0"),
        ({"data": {"files": "a.h5"}}, r"data.files: got 'a.h5', need a list of texts in quotes"),
        ({"data": {"files": []}}, "data.files: got an empty list"),
        ({"data": {"files": ["a"], "validation_fraction": 1.0}}, "validation_fraction: got 1, need 0 <= fraction < 1"),
        ({"descriptor": {"cutoff": "6"}}, "descriptor.cutoff: got '6', need a number"),
        ({"descriptor": {"n_axis": 8.0}}, "descriptor.n_axis: got 8.0, need an integer"),
        ({"descriptor": {"one_side": 1}}, "descriptor.one_side: got 1, need true or false"),
        ({"energy": {"steps": True}}, "energy.steps: got True, need an integer"),
        ({"energy": {"widths": [64, 6.4]}}, r"energy.widths\[1\]: got 6.4, need an integer"),
        ({"energy": {"forces": [1, 2, 3]}}, r"energy.forces: got \[1, 2, 3\], need a list of 2 numbers"),
        ({"energy": {"forces": [-1, 2]}}, "energy: got the loss weights .*need none below 0"),
        ({"energy": {"learning_rate": [1e-3, 0]}}, "energy.learning_rate: .*need two numbers above 0"),
        ({"energy": {"batch_size": 0}}, "energy.batch_size: got 0, need at least 1"),
        ({"energy": 1}, r"energy: got 1, need a section \[energy\]"),
        ({"dos": {"atomic": 0}}, "dos: got the loss weights 0, 0, 0"),
        ({"dipole": {"drawn": 64, "steps": 9}}, "dipole.drawn: got 64 beside steps, a setting of gradient descent"),
        ({"polarizability": {"centers": ["O"], "atomic": 0}}, "polarizability: got the loss weights 0, 0, need none"),
        ({"ldos": {}}, r"got \[ldos\] beside \[energy\]; train them apart"),
        ({"electronic": {}}, r"got \[electronic\] without \[energy\] and a head beside it"),
        ({"output": {"model": "m.pt"}}, "output.model: got 'm.pt', need a name that ends in .safetensors"),
        ({"seed": "a"}, "seed: got 'a', need an integer"),
    ],
    ids=str,
)
def test_mistakes(sections, message):
    with pytest.raises(ValueError, match=message):
        parse_config(table(**sections))


def test_no_head():
    with pytest.raises(ValueError, match=r"none of the sections \[energy\], \[dos\], \[dipole\], .*add at least one"):
        parse_config({"data": {"files": ["a.h5"]}, "output": {"model": "m.safetensors"}})


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "No such file"),
        (b"[data", "config.toml: "),
        (b"\xff", "config.toml: "),
        (b"sed = 1", "config.toml: unknown key 'sed'; did you mean 'seed'"),
    ],
)
def test_mistakes_name_the_file(content, message, tmp_path):
    path = tmp_path / "config.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_config(path)


def test_names_of_labels():
    data = {"files": ["a.xyz"], "keys": {"energy": "REF_energy", "group": "config_type"}}
    table = {"data": data, "energy": {}, "output": {"model": "a.safetensors"}}
    assert parse_config(table).data.keys.given == {"energy": "REF_energy", "group": "config_type"}
    data["keys"] = {"enrgy": "E"}
    with pytest.raises(ValueError, match="unknown key 'data.keys.enrgy'; did you mean 'energy'"):
        parse_config(table)


@pytest.mark.parametrize(
    "name, remedy",
    [
        ("coarse", "[data.weights]"),
        ("far", "[data.weights]"),
        ("far_weight", "[data.weights]"),
        ("coarse_ridge", "leave it out"),
        ("relevance", "leave it out"),
    ],
)
def test_settings_of_former_versions(name, remedy):
    with pytest.raises(ValueError, match=f"^energy.{name}: got a setting of former versions; .*{re.escape(remedy)}"):
        parse_config(table(energy={name: 1}))
    with pytest.raises(ValueError, match=f"^{name}: got a setting of former versions; "):
        EnergyConfig(**{name: 1})


@pytest.mark.parametrize("name", [name for name in sections.__all__ if name[0].isupper()])
def test_mistakes_in_python_are_one_line(name):
    section = getattr(sections, name)
    every = tuple(section.model_fields)
    mistakes = [{"qwertz": 1}, *({key: value} for key in every for value in (object(), -1, "x", (1.0,)))]
    for settings in [*mistakes, *(dict.fromkeys(every, value) for value in (object(), -1, "x"))]:
        try:
            section(**settings)
        except ValueError as error:
            assert type(error) is ValueError and "\n" not in str(error), error
        else:
            assert "qwertz" not in settings


def test_settings_cannot_be_changed():
    config = parse_config(table())
    with pytest.raises(ValueError, match="^seed: settings are frozen; give it when the Config is made$"):
        config.seed = 3
    with pytest.raises(ValueError, match="^data: got 'x', need a section"):
        Config(data="x", output=config.output, energy=config.energy)
    assert Config(data=config.data, output=config.output, energy=config.energy) == config
