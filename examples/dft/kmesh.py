"""Bands between the points of a k mesh."""

import numpy as np

from ase_mlelec.io.espresso import Projections


def refined(bands, mesh, factor):
    """Projections on a mesh of ``factor`` times as many points along each axis, by interpolation between the points.

    bands : Projections on a mesh with Γ without symmetry but that of time reversal, in the order of pw.x
    mesh : tuple of int

    Energies are those of cubic polynomials through four points along each axis, weights on atoms are linear.  Bands are
    followed by their order: where two of them cross, both are smoothed over one step of the mesh.
    """
    if factor == 1:
        return bands
    points = unfold(mesh, bands.kpoint_weights)
    energies, weights = bands.eigenvalues[points], bands.site_weights[points]
    for axis in range(3):
        energies, weights = _between(energies, axis, factor, _cubic), _between(weights, axis, factor, _linear)
    n_points, n_bands = factor**3 * points.size, energies.shape[-1]
    return Projections(
        energies.reshape(n_points, n_bands),
        np.full(n_points, bands.kpoint_weights.sum() / n_points),
        weights.reshape(n_points, n_bands, -1),
    )


def unfold(mesh, weights):
    """Array of int [n1, n2, n3], the place of every point in the list of pw.x, where one of k and -k stands for both.

    ValueError where the weights of the list are others.
    """
    place = np.arange(np.prod(mesh)).reshape(mesh)
    opposite = place[np.ix_(*(-np.arange(n) % n for n in mesh))]
    _, points, counts = np.unique(np.minimum(place, opposite), return_inverse=True, return_counts=True)
    if len(counts) != len(weights) or not np.allclose(counts / counts.sum(), weights / np.sum(weights), atol=1e-6):
        raise ValueError(
            f"got {len(weights)} k points with weights from {min(weights):.4g} to {max(weights):.4g}, "
            f"need the {len(counts)} of a mesh {mesh} with Γ, reduced by time reversal alone (nosym)"
        )
    return points.reshape(mesh)


def _between(values, axis, factor, rule):
    """Values at the points of a periodic axis and factor - 1 ones after each."""
    steps = [
        sum(share * np.roll(values, 1 - k, axis) for k, share in enumerate(rule(step / factor)) if share)
        for step in range(factor)
    ]
    stacked = np.stack(steps, axis=axis + 1)
    return stacked.reshape(*values.shape[:axis], factor * values.shape[axis], *values.shape[axis + 1 :])


def _cubic(t):
    """Shares of the points at -1, 0, 1 and 2."""
    before, after = t * (t - 1), (t + 1) * (t - 2)
    return -before * (t - 2) / 6, after * (t - 1) / 2, -after * t / 2, (t + 1) * before / 6


def _linear(t):
    return 0, 1 - t, t, 0
