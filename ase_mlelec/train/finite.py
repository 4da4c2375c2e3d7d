"""Stop of a training at the first NaN or infinity, with a message that names step, frame and likely cause."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ase_mlelec import processes
from ase_mlelec.data.batches import Batch, Batches
from ase_mlelec.edges import connect
from ase_mlelec.model import Model

CLOSE = 0.4  # Å; with nearer atoms a structure is invalid, and descriptors diverge
UNUSUAL = 1e4  # labels are likely wrong beyond this times their median over the frames


class Diverged(ValueError):
    """Training met NaN or infinity; files that were saved before do not change."""


class NotFinite(ArithmeticError):
    """NaN or infinity in ``what``: "loss", "gradient", "parameters" or "error NAME"; ``places`` of the data, if known."""

    def __init__(self, what: str, places: Sequence[int] | None = None):
        super().__init__(f"the {what} is NaN or infinite")
        self.what, self.places = what, places


def require_finite(what: str, *tensors: Tensor) -> None:
    """Raise NotFinite unless all numbers are finite."""
    # one sum is quick to find and tells nearly always
    if not all(bool(torch.isfinite(tensor.sum()) or torch.isfinite(tensor).all()) for tensor in tensors):
        raise NotFinite(what)


def take_step(
    values: Iterable[Tensor],
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[Tensor],
    largest_gradient: float,
    *,
    shared: bool = False,
) -> None:
    """Take one optimizer step for the sum of ``values``, iterable of Tensor; the gradient is cut to ``largest_gradient``.

    With ``shared`` the values of all processes are added.

    Raises
    ------
    NotFinite
        For loss and gradient, before a parameter changes.
    """
    optimizer.zero_grad()
    total = torch.zeros(())
    for value in values:  # one graph at a time
        if shared:
            total = total + value.detach().cpu()
        else:
            require_finite("loss", value)
        value.backward(inputs=parameters)
    if shared:  # all processes find NaN in the same step, or the others would wait for one that has stopped
        require_finite("loss", _add_gradients(parameters, total))
    require_finite("gradient", torch.nn.utils.clip_grad_norm_(parameters, largest_gradient))
    optimizer.step()
    require_finite("parameters", *parameters)


def _add_gradients(parameters, loss):
    """Replace the gradients by their sums over all processes; returns the sum of the losses."""
    flat = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters]
    flat = torch.cat([*flat, loss.reshape(1).to(flat[0])])
    processes.sum_up(flat)
    for p, part in zip(parameters, flat[:-1].split([p.numel() for p in parameters])):
        p.grad = part.reshape(p.shape).clone()
    return flat[-1]


def refuse_model(model: torch.nn.Module, what: str) -> None:
    """Raise Diverged where a parameter or a constant of a model is not finite."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise Diverged(
                f"{what}: '{name}' of the model is NaN or infinite; lower the learning rate, check the "
                "labels, or give closed forms a larger ridge. Nothing was saved"
            )


@contextmanager
def closed_form(what: str, remedy: str) -> Iterator[None]:
    """Context in which linear equations without a solution raise Diverged."""
    try:
        yield
    except torch.linalg.LinAlgError:
        raise Diverged(f"{what} is singular; {remedy}") from None


def explained(
    problem: NotFinite,
    model: Model,
    batches: Batches,
    chosen: Sequence[int] | None,
    loss: Callable,
    ratio: float,
    step: int,
    rate: float,
    parameters: Sequence[Tensor],
) -> Diverged:
    """Diverged error that names the frame on which a step of gradient descent failed, and the likely cause.

    Parameters
    ----------
    problem : NotFinite
    batches : Batches
    chosen : array or None
        Frames of the failing step; None in the validation.
    step : int
        Number of the step, from 1.
    ratio, rate : float
        Learning rate relative to the first learning rate, and learning rate.
    """
    start = f"training stopped at step {step}: the {problem.what} is NaN or infinite"
    advice = f"the learning rate, {rate:.3g}, is likely too large: lower it"
    kept = "the last checkpoint is as it was"
    if chosen is None:
        part = "validation" if "validation" in problem.what else "training"
        return Diverged(f"{start}; {advice}, or check the labels and structures of the {part} frames; {kept}")
    if problem.what == "parameters":
        return Diverged(f"{start} after the step with {_named(batches, chosen)}; {advice}; {kept}")
    culprit = next(
        (
            (k, terms)
            for k in chosen
            if (terms := _failing(problem.what, model, batches.batch([k]), loss, ratio, parameters))
        ),
        None,
    )
    if culprit is None:
        return Diverged(
            f"{start} with {_named(batches, chosen)}, though that of none of them alone is; the weights of "
            f"the loss or the learning rate are likely too large: lower them; {kept}"
        )
    k, terms = culprit
    cause = (
        unlikely_structure(batches, k)
        or unlikely_labels(batches, k)
        or (
            advice
            if step > 1
            else "its structure or the model that training starts from is likely to blame: check both"
        )
    )
    return Diverged(f"{start}, by the {' and '.join(terms)} of {_named(batches, [k])}; {cause}; {kept}")


def _failing(what, model, batch, loss, ratio, parameters):
    """Labels whose errors are not finite for a batch, list of str; or else the whole loss, or its gradient."""
    value, squares = loss(model, batch, ratio)
    sources = getattr(loss, "sources", {})
    found = [
        " or ".join(sources.get(name, (name,))) for name, square in squares.items() if not bool(torch.isfinite(square))
    ]
    if found or not bool(torch.isfinite(value)):
        return found or ["loss"]
    if what != "gradient" or not value.requires_grad:
        return []
    gradients = torch.autograd.grad(value, parameters, allow_unused=True)
    finite = all(bool(torch.isfinite(gradient).all()) for gradient in gradients if gradient is not None)
    return [] if finite else ["gradient"]


def explained_rows(
    batches: Batches,
    chosen: Sequence[int],
    rows_of: Callable[[Batch], tuple[Tensor, ...]],
    what: str = "the equations of the closed form are",
) -> Diverged:
    """Diverged error that names the frame whose rows of a ridge regression are not finite.

    Parameters
    ----------
    rows_of : callable(batch) -> tuple of Tensor
    """
    for k in chosen:
        if not all(bool(torch.isfinite(part).all()) for part in rows_of(batches.batch([k]))):
            cause = (
                unlikely_structure(batches, k) or unlikely_labels(batches, k) or "check its structure and its labels"
            )
            return Diverged(f"{what} NaN or infinite by {_named(batches, [k])}; {cause}. Nothing was saved")
    return Diverged(
        f"{what} NaN or infinite with {_named(batches, chosen)}; check their structures and labels. Nothing was saved"
    )


def _named(batches, chosen):
    names = [f"{int(k)} ({batches.names[k] or 'unnamed'})" for k in chosen]
    return f"training frame{'s' * (len(names) > 1)} {', '.join(names)}"


def unlikely_structure(batches: Batches, k: int) -> str:
    """Description of an implausible distance in a structure; "" where there is none."""
    distances = connect(batches.systems[k], *batches.pairs[k], batches.cutoff).vec.norm(dim=1)
    shortest = float(distances.min()) if len(distances) else float("inf")
    if shortest >= CLOSE:
        return ""
    return f"its atoms are too close, {shortest:.3g} Å: correct the structure or remove it"


def unlikely_labels(batches: Batches, k: int) -> str:
    """Description of a label of a frame that is far beyond the labels of the other frames; "" where there is none."""
    for name, value in batches.labels[k].items():
        sizes = torch.stack([labels[name].abs().max() for labels in batches.labels if name in labels])
        if float(value.abs().max()) > UNUSUAL * max(float(sizes.median()), 1e-12):
            return (
                f"its label '{name}' reaches {float(value.abs().max()):.3g}, the median of all frames is "
                f"{float(sizes.median()):.3g}: correct it or remove the frame"
            )
    return ""
