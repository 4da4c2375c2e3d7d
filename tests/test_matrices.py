"""Factors of normal matrices, against products of what they return."""

import numpy as np
import pytest
import torch

from ase_mlelec.matrices import cholesky


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_cholesky(dtype, tolerance):
    rows = torch.as_tensor(np.random.default_rng(0).normal(size=(50, 40))).to(dtype)
    matrix = rows.T @ rows
    factor = cholesky(matrix.clone())
    assert factor.dtype == dtype and not factor.triu(1).any()
    assert float((factor @ factor.T - matrix).abs().max()) < tolerance * float(matrix.abs().max())
    for wrong in (-1.0, torch.nan, torch.inf):
        matrix[7, 7] = wrong
        assert cholesky(matrix.clone()) is None


def test_cholesky_takes_no_memory_of_its_own():
    matrix = torch.eye(30, dtype=torch.float64) + 0.1
    assert cholesky(matrix).data_ptr() == matrix.data_ptr()
