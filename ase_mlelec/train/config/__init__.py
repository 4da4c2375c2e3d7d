"""The configuration of a training in TOML, with strict keys.

``docs/settings.rst`` lists all settings. A file needs only the settings that differ from the defaults::

    [data]
    files = ["silicon.h5"]          # relative to the configuration file

    [energy]                        # one section for each head; an empty section has the defaults
    forces = [100, 10]

    [dos]

    [output]
    model = "si.safetensors"
"""

from ase_mlelec.train.config.files import parse_config, read_config
from ase_mlelec.train.config.heads import (
    AtomicConfig,
    DipoleConfig,
    DOSConfig,
    EnergyConfig,
    HamiltonianConfig,
    LDOSConfig,
    PolarizabilityConfig,
)
from ase_mlelec.train.config.long_range import LongRangeConfig
from ase_mlelec.train.config.schema import json_schema
from ase_mlelec.train.config.whole import (
    BispectrumConfig,
    Config,
    DataConfig,
    DescriptorConfig,
    KeysConfig,
    OutputConfig,
    PowerSpectrumConfig,
)

__all__ = [
    "AtomicConfig",
    "BispectrumConfig",
    "Config",
    "DOSConfig",
    "DataConfig",
    "DescriptorConfig",
    "DipoleConfig",
    "EnergyConfig",
    "HamiltonianConfig",
    "KeysConfig",
    "LDOSConfig",
    "LongRangeConfig",
    "OutputConfig",
    "PolarizabilityConfig",
    "PowerSpectrumConfig",
    "json_schema",
    "parse_config",
    "read_config",
]
