"""The JSON schema of a configuration, for editors, and the page of settings that is made from it."""

import importlib.util
import json
import tomllib
from pathlib import Path

import pytest

from ase_mlelec.train.config import Config, EnergyConfig, json_schema, parse_config
from ase_mlelec_entry_points.cli.main import main

DOCS = Path(__file__).parents[2] / "docs"
needs_checkout = pytest.mark.skipif(not (DOCS / "conf.py").exists(), reason="reads the files of the checkout")


def test_command(capsys):
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()


def test_keys_and_ranges():
    schema = json_schema()
    energy = schema["$defs"]["EnergyConfig"]
    assert schema["required"] == ["data", "output"] and not schema["additionalProperties"]
    assert not energy["additionalProperties"] and "given" not in energy["properties"]
    assert "folder" not in schema["properties"]
    rates = energy["properties"]["learning_rate"]
    assert rates["minItems"] == rates["maxItems"] == 2 and rates["default"] == [5e-3, 5e-6]
    assert rates["prefixItems"] == 2 * [{"type": "number", "exclusiveMinimum": 0, "maximum": 1000}]
    assert schema["$defs"]["LDOSConfig"]["properties"]["schedule"]["enum"] == ["plateau", "cosine"]
    assert schema["$defs"]["DescriptorConfig"]["properties"]["cutoff"]["description"].endswith("Å.")


def test_models_are_frozen_and_compared_by_value():
    table = tomllib.loads('[data]\nfiles = ["a.h5"]\n[energy]\ncore = true\n[output]\nmodel = "a.safetensors"\n')
    config = parse_config(table, "folder")
    assert config.energy == EnergyConfig() and hash(config.energy) == hash(EnergyConfig())
    with pytest.raises(ValueError, match="frozen"):
        config.energy.core = False
    other = config.model_copy(update={"seed": 1})
    assert (other.seed, other.folder, other.energy) == (1, Path("folder"), config.energy) and config.seed == 0
    assert isinstance(other, Config) and other != config and parse_config(table, "folder") == config


@needs_checkout
def test_page_of_settings_is_up_to_date():
    spec = importlib.util.spec_from_file_location("make_settings", DOCS / "make_settings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run python docs/make_settings.py"
