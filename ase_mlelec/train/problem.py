"""What a recipe supplies for the training loop."""

from collections.abc import Iterable
from typing import Any, Protocol

from torch import Tensor

from ase_mlelec.train.finite import NotFinite

LARGEST_GRADIENT = 10.0  # norm to which longer gradients are cut


class Problem(Protocol):
    """Protocol of a training problem: batches, losses and errors for the loop.

    Attributes
    ----------
    model : Module
        Model whose whole state goes into the checkpoint.
    parameters : list of Tensor
        Parameters to train.
    identity : dict
        Texts and numbers that must agree with a checkpoint.
    watched : str
        Name of the error that decides about plateaus, best weights and early stopping; "" for none.
    largest_gradient : float
        Norm to which longer gradients are cut.
    squares : dict, optional
        Mean squared errors of the last batch, whose means become training errors of the learning curve.
    shared : bool, optional
        Whether ``loss`` gives the addends of this process to the loss of a batch, so that gradients are to be added.
    validation_cost : float, optional
        Time of ``errors`` over the time of a step, about.
    """

    model: Any
    parameters: list
    identity: dict
    watched: str
    largest_gradient: float

    def batches(self, step: int) -> Iterable[Any]:
        """Batches of a step of the loop, one for each step of the optimizer; several where the step is an epoch."""

    def loss(self, batch: Any, ratio: float) -> Iterable[Tensor]:
        """Parts of the loss of a batch; ``ratio`` is the learning rate relative to the first learning rate."""

    def errors(self) -> dict:
        """Errors for the learning curve, of held-out data where there are any."""

    def explained(self, failure: NotFinite, batch: Any, step: int, ratio: float, rate: float) -> Exception:
        """Diverged error for step ``step`` (from 1) that met NaN or infinity; ``batch`` is None in the validation."""
