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
        counts = sorted({_count(stage) for stage in _descending(config)})
        why = (
            f"beside the numbers of {' and '.join(counts)} that the configuration gives; take them out"
            if counts
            else ("as nothing is left to gradient descent; closed forms take the time they need")
        )
        log.tell(f"minutes: without effect, {why}")
    return log


def duration_of(options: Any, config: Config) -> dict[str, Any]:
    """Number of steps of a stage that is trained by gradient descent, or its share of ``config.minutes``.

    A number of steps that the configuration gives takes precedence.
    """
    name = _count(options)
    if config.minutes is None or name in options.given:
        return {name: getattr(options, name)}
    return {name: None, "seconds": 60 * config.minutes / len(shares_time(config))}


def shares_time(config: Config) -> list[Any]:
    """Sections whose heads share ``config.minutes``: those of gradient descent without a given number of steps."""
    return [stage for stage in _descending(config) if _count(stage) not in stage.given]


def _descending(config):
    """Sections whose heads are trained by gradient descent."""
    stages: list[Any] = [*(config.section(row.name) for row in config.wanted), config.ldos, config.hamiltonian]
    solved = [stage for stage in stages if getattr(stage, "closed_form", False) and not config.start]
    return [stage for stage in stages if stage and stage not in solved and len(stage.widths)]


def _count(options):
    """Name of the setting that bounds gradient descent."""
    return "epochs" if hasattr(options, "epochs") else "steps"
