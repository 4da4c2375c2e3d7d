"""The settings of the shipped models are those that ``mlelec init`` writes for their data."""

import tomllib
from pathlib import Path

import pytest

from ase_mlelec.survey import configuration, survey

EXAMPLES = Path(__file__).parents[2] / "examples"
# what an example changes: sections that it leaves out, and settings of its own
WITHOUT = {"graphene": {"energy", "power_spectrum"}}
OWN = {
    "al": {"ldos": {"force_weight": 0.03, "energy_weight": 100.0}},
    "ice": {"dipole": {"drawn": 2048}},
    "graphene": {"hamiltonian": {"levels": 0, "steps": 500, "batch_size": 8}},
    "mgo": {"data": {"train": ["train", "hot"], "weights": {"hot": 0.1}}},
    "si": {"data": {"support": ["support", "crystal"], "weights": {"crystal": 8}}},
}


@pytest.mark.parametrize("name", ["si", "si_hot", "mgo", "al", "al_hot", "ice", "graphene"])
@pytest.mark.slow
def test_as_init_writes_it(name, tmp_path):
    found = tomllib.loads((EXAMPLES / f"{name}.toml").read_text())
    files = found["data"].pop("files") + found["data"].get("hot", [])
    text = configuration(survey([str(EXAMPLES / file) for file in files]), tmp_path / f"{name}.toml")
    wanted = {key: part for key, part in tomllib.loads(text).items() if key not in WITHOUT.get(name, ())}
    wanted["data"].pop("files")
    if "hot" in wanted["data"]:
        wanted["data"]["hot"] = [f"data/{Path(each).name}" for each in wanted["data"]["hot"]]
    for section, settings in OWN.get(name, {}).items():
        assert len(settings) <= 3 and all(wanted[section].get(key) != value for key, value in settings.items())
        wanted[section] |= settings
    assert found == wanted
