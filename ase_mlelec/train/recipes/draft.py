"""The model file while training runs: complete, except for the ranges of the training data, and marked as unfinished."""

import copy
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ase_mlelec.atomic_write import replacing
from ase_mlelec.model import Model
from ase_mlelec.shipped import HEADER
from ase_mlelec.train.config import Config

UNFINISHED = "unfinished"  # entry of the metadata


class Draft:
    """Writes the model file of a training that still runs; ``mlelec test`` and calculators can use it.

    A finished model of the same name is kept as NAME.former.safetensors.

    Parameters
    ----------
    described : dict
        Metadata.
    protect : callable(Model)
        Gives a model its core and its shortest distances; it is called once.
    complete : callable(Model)
        Adds parts that are not in the model while it is trained.
    """

    def __init__(
        self,
        config: Config,
        model: Model,
        described: Mapping[str, Any],
        protect: Callable[[Model], Any],
        tell: Callable[[str], None],
        *,
        complete: Callable[[Model], Any] = lambda model: None,
    ):
        self.complete = complete
        self.model, self.path, self.protect, self.tell = model, config.folder / config.output.model, protect, tell
        self.described: dict[str, Any] = dict(described)
        self.core: Any = None
        self.begun = False

    def stage(self, name: str) -> Callable[[dict, dict], None]:
        """Function that writes the model in a stage of the training, see ``keep`` of ase_mlelec.train.loop.run_loop."""
        return lambda state, place: self.write(state, {"stage": name, **place})

    def write(self, state: Mapping[str, Any], place: Mapping[str, Any]) -> None:
        """Write the model with the arrays ``state``; ``place`` says where the training is."""
        model = copy.deepcopy(self.model)
        model.load_state_dict(state)
        model.cpu()
        if not self.begun:
            model.metadata = dict(self.described)
            self.protect(model)
            self.described, self.core = model.metadata, model.core
            self._keep_former()
            self.tell(f"{self.path}: a model that can be used, of the training so far")
            self.begun = True
        model.core, model.metadata = self.core, self.described | {UNFINISHED: dict(place)}
        self.complete(model)
        model.save(self.path)

    def _keep_former(self):
        """Copy a finished model, which the file of the new one would replace."""
        if not self.path.exists() or is_unfinished(self.path):
            return
        former = self.path.with_suffix(f".former{self.path.suffix}")
        with replacing(former) as partial:
            shutil.copyfile(self.path, partial)
        self.tell(f"{former}: the model that {self.path.name} was before")


def is_unfinished(path: Path) -> bool:
    """Whether a file is the model of a training that had not ended."""
    try:
        with safe_open(path, framework="pt") as stored:
            return UNFINISHED in json.loads((stored.metadata() or {})[HEADER])["metadata"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return False
