"""How long the stages of gradient descent take, and what their log begins with."""

from collections.abc import Mapping
from typing import Any

from ase_mlelec.data.frames import Frames
from ase_mlelec.data.hdf5 import StoredDataSet
from ase_mlelec.train.config import Config
from ase_mlelec.train.log import Log, counted


def begin_log(parts: Mapping[str, Frames | StoredDataSet], config: Config, progress: bool | Log) -> Log:
    """Log with the rows that all stages share: frames by part, and the model file."""
    log = Log.of(progress)
    log.about = {
        "data": counted((len(part), name) for name, part in parts.items()),
        "model": str(config.folder / config.output.model),
    }
    if config.minutes is not None and not shares_time(config):
        log.tell(
            "minutes: without effect, as nothing is left to gradient descent; closed forms take the time they need"
        )
    return log


def duration_of(options: Any, config: Config) -> dict[str, Any]:
    """Number of steps of a stage that is trained by gradient descent, or its share of ``config.minutes``.

    A number of steps that the configuration gives takes precedence.
    """
    name = "epochs" if hasattr(options, "epochs") else "steps"
    if config.minutes is None or name in options.given:
        return {name: getattr(options, name)}
    return {name: None, "seconds": 60 * config.minutes / len(shares_time(config))}


def shares_time(config: Config) -> list[Any]:
    """Sections whose heads share ``config.minutes``: those of gradient descent without a given number of steps."""
    stages: list[Any] = [*(config.section(row.name) for row in config.wanted), config.ldos, config.hamiltonian]
    solved = [stage for stage in stages if getattr(stage, "closed_form", False) and not config.start]
    left = [stage for stage in stages if stage and stage not in solved and len(stage.widths)]
    return [stage for stage in left if ("epochs" if hasattr(stage, "epochs") else "steps") not in stage.given]
