"""Invertible 1x1 convolutions (Kingma & Dhariwal 2018, section 3.2)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.scipy.linalg import lu

from glow_jax.kernels.products import PRECISION
from glow_jax.kernels.triangular import inverse_of_lower
from glow_jax.layers.bijection import Bijection, Buffer, constant_logdet, sum_dtype
from glow_jax.layers.convolution import conv1x1


# Stacked steps factorise one matrix after the other. On a CPU jaxlib's batched kernels wait in a
# thread for other threads: if as many of them run at once as there are threads, they deadlock.
@jax.custom_batching.sequential_vmap
def _rotation(matrix: jax.Array) -> jax.Array:
    return jnp.linalg.qr(matrix)[0]


@jax.custom_batching.sequential_vmap
def _lu(matrix: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    return lu(matrix)


def _inverse_of_product(permutation: jax.Array, lower: jax.Array, upper: jax.Array) -> jax.Array:
    """U^-1 L^-1 P^T, the inverse of P L U: three (C, C) -> (C, C)."""
    lower, upper = inverse_of_lower(jnp.stack([lower, upper.T]))
    return jnp.linalg.multi_dot([upper.T, lower, permutation.T], precision=PRECISION)


# Both have derivatives of their own: those of the LU factorisation would call LAPACK's solver.
@jax.custom_jvp
def _inverse(matrix: jax.Array) -> jax.Array:
    """W^-1: (C, C) -> (C, C)."""
    return _inverse_of_product(*_lu(matrix))


@_inverse.defjvp
def _inverse_tangent(
    matrices: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (matrix,), (tangent,) = matrices, tangents
    inverse = _inverse(matrix)
    return inverse, -jnp.linalg.multi_dot([inverse, tangent, inverse], precision=PRECISION)


@jax.custom_jvp
def _log_abs_det(matrix: jax.Array) -> jax.Array:
    """log|det W|: (C, C) -> ()."""
    return jnp.sum(jnp.log(jnp.abs(jnp.diagonal(_lu(matrix)[2]))))


@_log_abs_det.defjvp
def _log_abs_det_tangent(
    matrices: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (matrix,), (tangent,) = matrices, tangents
    gradient = _inverse(matrix).T
    return _log_abs_det(matrix), jnp.sum(gradient * tangent)


def _random_rotation(key: jax.Array, channels: int) -> jax.Array:
    return _rotation(jax.random.normal(key, (channels, channels)))


class _Linear(Bijection):
    """The inverse, which both 1x1 convolutions share."""

    def _weight(self) -> jax.Array:
        """W, (C out, C in)."""
        raise NotImplementedError

    def _inverse_weight(self) -> jax.Array:
        """W^-1, (C in, C out)."""
        raise NotImplementedError

    def prepare_inverse(self) -> Bijection:
        """Invert the matrix; this costs less before the products than between them."""
        return _Inverted(self, self._weight(), self._inverse_weight())

    def inverse(self, y: jax.Array) -> jax.Array:
        """(B, H, W, C) -> (B, H, W, C)."""
        return self.prepare_inverse().inverse(y)


class _Inverted(Bijection):
    """A linear map of the channels whose matrix is already inverted.

    Inverse:   x[b, h, w] = V y[b, h, w] + V (y[b, h, w] - W V y[b, h, w]),  V = W^-1

    The second term corrects the rounding error of V. Without it, the inverse of a badly conditioned
    map is ten times less exact than solving for x, which is slower.
    """

    def __init__(self, linear: _Linear, weight: jax.Array, inverse: jax.Array):
        self.linear = linear
        self.weight = Buffer(weight)  # (C out, C in)
        self.inverse_weight = Buffer(inverse)  # (C in, C out)

    def forward(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(B, H, W, C) -> (B, H, W, C), (B,)."""
        return self.linear.forward(x)

    def inverse(self, y: jax.Array) -> jax.Array:
        """(B, H, W, C) -> (B, H, W, C)."""
        weight, inverse = self.weight[...].T, self.inverse_weight[...].T
        x = conv1x1(y, inverse)
        return x + conv1x1(y - conv1x1(x, weight), inverse)

    def gradient(
        self, x: jax.Array, y_gradient: jax.Array, logdet_gradient: jax.Array
    ) -> tuple[jax.Array, nnx.State]:
        """The gradient of the linear map."""
        return self.linear.gradient(x, y_gradient, logdet_gradient)


class _Multiplied(Bijection):
    """A linear map of the channels whose factors are already multiplied."""

    def __init__(self, linear: _Linear, weight: jax.Array, log_s: jax.Array):
        self.linear = linear
        self.weight = Buffer(weight)  # (C out, C in)
        self.log_s = Buffer(log_s)  # (C,)

    def forward(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(B, H, W, C) -> (B, H, W, C), (B,)."""
        log_s = jnp.sum(self.log_s[...], dtype=sum_dtype(x.dtype))
        return conv1x1(x, self.weight[...].T), constant_logdet(log_s, x)

    def prepare_inverse(self) -> Bijection:
        """Invert the matrix of the linear map."""
        return self.linear.prepare_inverse()

    def inverse(self, y: jax.Array) -> jax.Array:
        """(B, H, W, C) -> (B, H, W, C)."""
        return self.linear.inverse(y)

    def gradient(
        self, x: jax.Array, y_gradient: jax.Array, logdet_gradient: jax.Array
    ) -> tuple[jax.Array, nnx.State]:
        """The gradient of the linear map."""
        return self.linear.gradient(x, y_gradient, logdet_gradient)


class Conv1x1(_Linear):
    """An invertible linear map of the channels that stores its matrix directly.

    Forward:   y[b, h, w] = W x[b, h, w]
    log|det|:  H * W * log|det W|
    Inverse:   x[b, h, w] = W^-1 y[b, h, w]
    """

    def __init__(self, channels: int, *, key: jax.Array):
        """Start with a random rotation of the `channels`, drawn from `key`."""
        self.weight = nnx.Param(_random_rotation(key, channels))  # (C out, C in)

    def forward(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(B, H, W, C) -> (B, H, W, C), (B,)."""
        weight = self._weight()
        return conv1x1(x, weight.T), constant_logdet(_log_abs_det(weight), x)

    def _weight(self) -> jax.Array:
        return self.weight[...]

    def _inverse_weight(self) -> jax.Array:
        return _inverse(self._weight())


class Conv1x1LU(_Linear):
    """An invertible linear map of the channels that stores its matrix as a product.

    W = P (tril(L, -1) + I) (triu(U, 1) + diag(sign * exp(log_s)))

    Forward:   y[b, h, w] = W x[b, h, w]
    log|det|:  H * W * sum(log_s)
    Inverse:   x[b, h, w] = W^-1 y[b, h, w]

    P and the signs keep their initial values. L and U are stored in full and masked when used, so
    weight decay changes the masked entries too, as in Glow-PyTorch.
    """

    def __init__(self, channels: int, *, key: jax.Array):
        """Start with a random rotation of the `channels`, drawn from `key`."""
        permutation, lower, upper = _lu(_random_rotation(key, channels))
        diagonal = jnp.diagonal(upper)
        self.permutation = Buffer(permutation)  # (C, C)
        self.sign = Buffer(jnp.sign(diagonal))  # (C,)
        self.lower = nnx.Param(lower)  # (C, C)
        self.upper = nnx.Param(jnp.triu(upper, 1))  # (C, C)
        self.log_s = nnx.Param(jnp.log(jnp.abs(diagonal)))  # (C,)

    def _factors(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        permutation, lower, upper = self.permutation[...], self.lower[...], self.upper[...]
        lower = jnp.tril(lower, -1) + jnp.eye(lower.shape[0], dtype=lower.dtype)
        upper = jnp.triu(upper, 1) + jnp.diag(self.sign[...] * jnp.exp(self.log_s[...]))
        return permutation, lower, upper

    def prepare_forward(self) -> Bijection:
        """Multiply the factors: of K stacked maps at once, not of one after the other in a scan."""
        return _Multiplied(self, self._weight(), self.log_s[...])

    def forward(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(B, H, W, C) -> (B, H, W, C), (B,)."""
        return self.prepare_forward().forward(x)

    def _weight(self) -> jax.Array:
        return jnp.linalg.multi_dot(self._factors(), precision=PRECISION)

    def _inverse_weight(self) -> jax.Array:
        return _inverse_of_product(*self._factors())
