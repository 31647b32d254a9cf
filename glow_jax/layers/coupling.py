"""Coupling layers: one half of the channels transforms the other (Kingma & Dhariwal 2018, 3.3)."""

import jax
import jax.numpy as jnp
from flax import nnx

from glow_jax.layers.bijection import Bijection, sum_dtype, sum_per_image
from glow_jax.layers.convolution import Padding
from glow_jax.layers.network import CouplingNetwork


class Coupling(Bijection):
    """The base of both couplings: the first half of the channels transforms the second.

    In a conditional one, further channels in front belong to the first part, and stay as they are.

    Forward:   y1 = x1;  y2 = move(network(x1), x2)
    log|det|:  that of `move`
    Inverse:   x1 = y1;  x2 = move_back(network(y1), y2)

    All parameters belong to the network: `move` and `move_back` have none.
    """

    def __init__(
        self,
        channels: int,
        *,
        given: int = 0,
        hidden_channels: int,
        padding: Padding = "zeros",
        logs_factor: float = 1.0,
        rngs: nnx.Rngs,
    ):
        """Start as a fixed scaling of the second half, or as the identity if it only shifts.

        Args:
            channels: C, without those that are given.
            given: the number of channels in front of them.
            hidden_channels: as for `CouplingNetwork`, like the arguments below.
            padding: what surrounds the input of its 3x3 convolutions.
            logs_factor: the factor of its actnorms.
            rngs: random keys of its kernels.
        """
        self.kept = given + channels // 2
        self.network = CouplingNetwork(
            self.kept,
            self.outputs(channels),
            hidden_channels=hidden_channels,
            padding=padding,
            logs_factor=logs_factor,
            rngs=rngs,
        )

    def outputs(self, channels: int) -> int:
        """O, the number of outputs that the network has for C channels."""
        raise NotImplementedError

    def move(self, out: jax.Array, x2: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Transform x2, given `out`: (B, H, W, O), (B, H, W, C/2) -> (B, H, W, C/2), (B,)."""
        raise NotImplementedError

    def move_back(self, out: jax.Array, y2: jax.Array) -> jax.Array:
        """The inverse of `move`: (B, H, W, O), (B, H, W, C/2) -> (B, H, W, C/2)."""
        raise NotImplementedError

    def forward(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(B, H, W, C) -> (B, H, W, C), (B,)."""
        x1, x2 = self._parts(x)
        y2, logdet = self.move(self.network(x1), x2)
        return jnp.concatenate([x1, y2], axis=-1), logdet

    def inverse(self, y: jax.Array) -> jax.Array:
        """(B, H, W, C) -> (B, H, W, C)."""
        y1, y2 = self._parts(y)
        return jnp.concatenate([y1, self.move_back(self.network(y1), y2)], axis=-1)

    def inverse_and_gradient(
        self, y: jax.Array, y_gradient: jax.Array, logdet_gradient: jax.Array
    ) -> tuple[jax.Array, jax.Array, nnx.State]:
        """As in `Bijection`, but the network runs once for both directions."""
        graph, params, buffers = nnx.split(self, nnx.Param, ...)
        y1, y2 = self._parts(y)
        y1_gradient, y2_gradient = self._parts(y_gradient)
        out, through_network = jax.vjp(
            lambda params, x1: nnx.merge(graph, params, buffers).network(x1), params, y1
        )
        x2 = self.move_back(out, y2)
        _, through_move = jax.vjp(self.move, out, x2)
        out_gradient, x2_gradient = through_move((y2_gradient, logdet_gradient))
        gradient, from_network = through_network(out_gradient)
        x = jnp.concatenate([y1, x2], axis=-1)
        x_gradient = jnp.concatenate([y1_gradient + from_network, x2_gradient], axis=-1)
        return x, x_gradient, gradient

    def initialise(self, x: jax.Array) -> jax.Array:
        """Initialise the network's actnorms from `x`, (B, H, W, C); return the layer's output."""
        self.network.initialise(self._parts(x)[0])
        at_a_time = self.network.at_a_time(x)
        if len(x) <= at_a_time:
            return self.forward(x)[0]
        return jax.lax.map(lambda x: self.forward(x[None])[0][0], x, batch_size=at_a_time)

    def _parts(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The channels that stay, and those that are transformed."""
        return x[..., : self.kept], x[..., self.kept :]


class AdditiveCoupling(Coupling):
    """The first half of the channels shifts the second.

    Forward:   y1 = x1;  y2 = x2 + network(x1)
    log|det|:  0
    Inverse:   x1 = y1;  x2 = y2 - network(y1)
    """

    def outputs(self, channels: int) -> int:
        """A shift for each channel of the second half."""
        return channels // 2

    def move(self, out: jax.Array, x2: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Shift: (B, H, W, C/2), (B, H, W, C/2) -> (B, H, W, C/2), (B,)."""
        return x2 + out, jnp.zeros(x2.shape[0], sum_dtype(x2.dtype))

    def move_back(self, out: jax.Array, y2: jax.Array) -> jax.Array:
        """Shift back: (B, H, W, C/2), (B, H, W, C/2) -> (B, H, W, C/2)."""
        return y2 - out


class AffineCoupling(Coupling):
    """The first half of the channels shifts and scales the second.

    Forward:   y1 = x1;  y2 = (x2 + shift) * sigmoid(s + 2)
    log|det|:  sum(log(sigmoid(s + 2)))
    Inverse:   x1 = y1;  x2 = y2 / sigmoid(s + 2) - shift

    where shift and s are the even and the odd output channels of network(x1).
    """

    def outputs(self, channels: int) -> int:
        """A shift and a scale for each channel of the second half."""
        return channels

    def move(self, out: jax.Array, x2: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Shift and scale: (B, H, W, C), (B, H, W, C/2) -> (B, H, W, C/2), (B,)."""
        shift, s = _shift_and_s(out)
        log_scale = jax.nn.log_sigmoid(s + 2)
        return (x2 + shift) * jnp.exp(log_scale), sum_per_image(log_scale)

    def move_back(self, out: jax.Array, y2: jax.Array) -> jax.Array:
        """Scale and shift back: (B, H, W, C), (B, H, W, C/2) -> (B, H, W, C/2)."""
        shift, s = _shift_and_s(out)
        return y2 * (1 + jnp.exp(-(s + 2))) - shift


def _shift_and_s(out: jax.Array) -> tuple[jax.Array, jax.Array]:
    return out[..., 0::2], out[..., 1::2]
