"""Inverses of triangular matrices, beside those that NumPy computes in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glow_jax.kernels.triangular import inverse_of_lower


def lower_matrices(*shape: int) -> np.ndarray:
    """Lower triangular matrices, (..., C, C), in float64."""
    rng = np.random.default_rng(0)
    channels = shape[-1]
    below = np.tril(rng.standard_normal((*shape, channels)), -1) / np.sqrt(channels)
    return below + np.exp(rng.standard_normal((*shape, 1))) * np.eye(channels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 12, 31, 48, 77])
def test_inverses_of_triangular_matrices(channels: int) -> None:
    matrices = lower_matrices(2, 3, channels)
    exact = np.linalg.inv(matrices)
    with jax.enable_x64(True):
        found = inverse_of_lower(jnp.asarray(matrices))
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-13 * np.abs(exact).max())
    rounded = inverse_of_lower(jnp.asarray(matrices, jnp.float32))
    np.testing.assert_allclose(rounded, exact, rtol=0, atol=2e-6 * np.abs(exact).max())


@pytest.mark.parametrize("channels", [24, 48, 96])
@pytest.mark.parametrize("condition", [1e2, 1e4])
def test_factors_of_a_badly_conditioned_matrix_are_inverted_as_by_substitution(
    channels: int, condition: float
) -> None:
    rng = np.random.default_rng(0)
    left, right = np.linalg.qr(rng.standard_normal((2, 8, channels, channels)))[0]
    scaled = left * np.geomspace(1, 1 / condition, channels) @ right
    uppers = [jax.scipy.linalg.lu(matrix.astype(np.float32))[2] for matrix in scaled]
    factors = np.stack(uppers).mT
    exact = np.linalg.inv(factors.astype(np.float64))

    def error(found: jax.Array) -> float:
        return float(np.abs(np.asarray(found) - exact).max() / np.abs(exact).max())

    identity = jnp.broadcast_to(jnp.eye(channels), factors.shape)
    solved = jax.lax.linalg.triangular_solve(factors, identity, left_side=True, lower=True)
    assert error(inverse_of_lower(jnp.asarray(factors))) < 10 * error(solved)


def test_what_is_above_the_diagonal_is_not_read() -> None:
    matrices = lower_matrices(2, 40).astype(np.float32)
    above = np.triu(np.full((40, 40), np.nan, np.float32), 1)
    found = inverse_of_lower(jnp.asarray(matrices + np.nan_to_num(above)))
    np.testing.assert_array_equal(inverse_of_lower(jnp.where(above == 0, matrices, above)), found)


def test_a_matrix_without_an_inverse_gives_no_finite_one() -> None:
    assert not np.isfinite(inverse_of_lower(jnp.zeros((3, 3)))).all()
