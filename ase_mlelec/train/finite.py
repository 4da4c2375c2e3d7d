"""Training stops at the first NaN or infinity, and tells step, frame and the likely cause."""

from contextlib import contextmanager

import torch

from ase_mlelec.edges import connect

CLOSE = 0.4  # Å; nearer atoms are no structure, and descriptors grow beyond bounds
UNUSUAL = 1e4  # times the median over the frames: labels that are likely wrong


class Diverged(ValueError):
    """A training that met NaN or infinity. What it had saved before is as it was."""


class NotFinite(ArithmeticError):
    """``what`` is NaN or infinite: "loss", "gradient", "parameters" or "error NAME"; of the data ``places``, if known."""

    def __init__(self, what, places=None):
        super().__init__(f"the {what} is NaN or infinite")
        self.what, self.places = what, places


def require_finite(what, *tensors):
    """Raise NotFinite unless all numbers are finite."""
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        raise NotFinite(what)


def take_step(values, optimizer, parameters, largest_gradient):
    """One step down the gradient of the sum of ``values``, iterable of Tensor, which is cut to ``largest_gradient``.

    Raises
    ------
    NotFinite
        For loss and gradient before anything has changed.
    """
    optimizer.zero_grad()
    for value in values:  # one graph at a time
        require_finite("loss", value)
        value.backward(inputs=parameters)
    require_finite("gradient", torch.nn.utils.clip_grad_norm_(parameters, largest_gradient))
    optimizer.step()
    require_finite("parameters", *parameters)


def refuse_model(model, what):
    """Raise Diverged where a parameter or a constant of a model is not finite."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise Diverged(
                f"{what}: '{name}' of the model is NaN or infinite; lower the learning rate, check the "
                "labels, or give closed forms a larger ridge. Nothing was saved"
            )


@contextmanager
def closed_form(what, remedy):
    """Inside of the block equations that have no solution raise Diverged."""
    try:
        yield
    except torch.linalg.LinAlgError:
        raise Diverged(f"{what} is singular; {remedy}") from None


def explained(problem, model, batches, chosen, loss, ratio, step, rate, parameters):
    """Diverged, with the frame that a step of gradient descent failed on and the likely cause.

    Parameters
    ----------
    problem : NotFinite
    batches, chosen : Batches
        And which of its frames the step was made with, None in the validation.
    step : int
        From 1.
    ratio, rate
        Of the learning rate to the first one, and the rate itself.
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
    """list of the labels whose errors, or else the whole loss or its gradient, are not finite for this batch."""
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


def explained_rows(batches, chosen, rows_of, what="the equations of the closed form are"):
    """Diverged, with the frame whose rows of a closed form are not finite.

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


def unlikely_structure(batches, k):
    """str, what is wrong with the distances of a structure; "" where nothing is."""
    distances = connect(batches.systems[k], *batches.pairs[k], batches.cutoff).vec.norm(dim=1)
    shortest = float(distances.min()) if len(distances) else float("inf")
    if shortest >= CLOSE:
        return ""
    return f"its atoms are too close, {shortest:.3g} Å: correct the structure or remove it"


def unlikely_labels(batches, k):
    """str, which label of a frame is far beyond those of the others; "" where none is."""
    for name, value in batches.labels[k].items():
        sizes = torch.stack([labels[name].abs().max() for labels in batches.labels if name in labels])
        if float(value.abs().max()) > UNUSUAL * max(float(sizes.median()), 1e-12):
            return (
                f"its label '{name}' reaches {float(value.abs().max()):.3g}, the median of all frames is "
                f"{float(sizes.median()):.3g}: correct it or remove the frame"
            )
    return ""
