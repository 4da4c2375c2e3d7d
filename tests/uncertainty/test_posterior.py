"""Posterior of linear weights against NumPy's linear algebra, and the calibration of standard deviations."""

import numpy as np
import pytest
import torch

from ase_mlelec.uncertainty import Posterior, coverage, inverse_factor, posterior_of, posterior_of_rows, scale_of
from ase_mlelec.uncertainty.scales import log_likelihood


def rows(n=40, n_weights=6, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, n_weights)) * generator.uniform(0.3, 2.0, n_weights)


def test_bayesian_linear_regression():
    """Variance of a prediction: x^T (A^T A + ridge)^-1 x, with the ridge in units of the mean diagonal element."""
    normal, x, ridge = rows().T @ rows(), rows(5, seed=1), 0.1
    covariance = np.linalg.inv(normal + ridge * np.trace(normal) / 6 * np.eye(6))
    factor = inverse_factor(torch.tensor(normal), ridge).numpy()
    np.testing.assert_allclose(factor @ factor.T, covariance, rtol=1e-10)
    np.testing.assert_allclose(np.linalg.norm(x @ factor, axis=1) ** 2, np.einsum("ij,jk,ik->i", x, covariance, x))


def test_ridge_in_units_of_a_prior():
    normal, prior = rows().T @ rows(), rows(9, seed=2).T @ rows(9, seed=2)
    found = inverse_factor(torch.tensor(normal), 0.5, prior=torch.tensor(prior)).numpy()
    wanted = np.linalg.inv(normal + 0.5 * np.trace(normal) / np.trace(prior) * prior)
    np.testing.assert_allclose(found @ found.T, wanted, rtol=1e-9, atol=1e-12)


def test_large_ridge_on_a_prior_of_few_directions():
    """A few atoms give a prior of low rank; the matrix stays positive definite in spite of rounding."""
    generator = torch.Generator().manual_seed(0)
    normal, prior = (rows.T @ rows for rows in (torch.randn(n, 300, generator=generator).double() for n in (100, 24)))
    found = inverse_factor(normal, 100.0, prior=prior)
    assert torch.isfinite(found).all()


def test_a_sketch_is_right_on_average():
    normal = torch.tensor(rows().T @ rows())
    factor, wanted = torch.linalg.cholesky(normal), torch.linalg.inv(normal)
    sketches = [posterior_of(factor, 64, seed=seed) for seed in range(300)]
    mean = torch.stack([sketch @ sketch.T for sketch in sketches]).mean(dim=0)
    size = wanted.diagonal().sqrt()
    # a product of 64 samples has a relative spread of 64^-1/2 (sqrt 2 of it on the diagonal); of 300 of them 0.01
    assert float(((mean - wanted) / (size[:, None] * size)).abs().max()) < 0.04
    assert torch.equal(posterior_of(factor, 64), sketches[0])
    assert inverse_factor(normal, 0.1, most=3).shape == (6, 64)


def test_matrix_that_is_not_positive_definite():
    with pytest.raises(ValueError, match="ridge 1e-06 is not positive definite; give a larger ridge"):
        inverse_factor(torch.diag(torch.tensor([1.0, -1.0])).double(), 1e-6)


@pytest.mark.parametrize("scale", [0.2, 5.0])
def test_coverage_of_normal_errors(scale):
    generator = np.random.default_rng(0)
    deviations = generator.lognormal(size=20000)
    errors = scale * deviations * generator.normal(size=20000)
    found = scale_of(errors[::2], deviations[::2])
    assert found == pytest.approx(scale, rel=0.03)
    held = coverage(errors[1::2], found * deviations[1::2])
    assert held.within_one == pytest.approx(0.683, abs=0.015)
    assert held.within_two == pytest.approx(0.954, abs=0.01)
    assert held.rank_correlation > 0.4
    assert abs(coverage(errors, deviations[::-1]).rank_correlation) < 0.03


def test_errors_without_deviations():
    with pytest.raises(ValueError, match="got 3 errors and 2 standard deviations, need equal numbers of both; give"):
        scale_of([1, 2, 3], [1, 2])


def test_the_right_deviation_is_most_likely():
    errors = np.random.default_rng(1).normal(size=5000)
    best = max((0.5, 0.8, 1.0, 1.3, 2.0), key=lambda scale: log_likelihood(errors, np.full(5000, scale)))
    assert best == 1.0
    assert log_likelihood([0.0], [1.0]) == pytest.approx(-0.5 * np.log(2 * np.pi))


def random_posterior():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2 * 4, 5, generator=generator, dtype=torch.float64)
    return Posterior.from_factors(inputs, torch.randn(3, 2, generator=generator, dtype=torch.float64), n_species=2)


def test_members_have_the_variance_of_the_posterior():
    posterior = random_posterior()
    z = posterior.coordinates(x := torch.randn(1, 3, dtype=torch.float64), torch.tensor([1]))
    own = torch.cat([x[0], torch.ones(1)])
    results = torch.stack([own @ change[1] for change in posterior.changes(2000, scale=2.0)])
    wanted = 4 * z.square().sum() * posterior.outputs @ posterior.outputs.T
    np.testing.assert_allclose(results.mean(dim=0), 0, atol=1e-12)
    np.testing.assert_allclose(results.T @ results / 2000, wanted, atol=0.1 * float(wanted.abs().max()))


def test_members_are_the_same_every_time():
    posterior = random_posterior()
    assert all(map(torch.equal, posterior.changes(3), posterior.changes(3)))
    assert not torch.equal(posterior.changes(3)[0], posterior.changes(3, seed=1)[0])


def test_deviations_of_zero_have_no_part_in_the_scale():
    """Forces that vanish by symmetry, of a crystal at rest, have neither error nor deviation."""
    errors, deviations = np.array([0.3, -0.1, 0.2, 0.4]), np.array([0.1, 0.2, 0.1, 0.3])
    rest = np.zeros(3)
    with_rest = scale_of(np.append(errors, rest), np.append(deviations, rest))
    assert with_rest == scale_of(errors, deviations)
    assert scale_of(rest, rest) == 1.0


def test_samples_by_few_rows(monkeypatch):
    """Of the covariance of all columns, without a matrix of their size; rows that say nothing new, or nothing."""
    monkeypatch.setattr("ase_mlelec.uncertainty.covariance.N_DIRECTIONS", 100_000)
    few, roots, ridge = torch.tensor(rows(5, 9)), torch.tensor([2.0, 0.5, 0.0, 1.0, 1.0]).double(), 0.3
    few[4] = few[0] - few[1]
    weighted = roots[:, None] * few
    found = posterior_of_rows(few, roots, weighted @ weighted.T, ridge)
    wanted = np.linalg.inv((weighted.T @ weighted).numpy() + ridge * np.eye(9))
    np.testing.assert_allclose(found @ found.T, wanted, atol=0.06)  # diagonal elements are up to 3.3
    order = [3, 1, 4, 2, 0]
    again = posterior_of_rows(few[order], roots[order], (weighted @ weighted.T)[order][:, order], ridge)
    np.testing.assert_allclose(again[:, :9], found[:, :9], atol=1e-9)
