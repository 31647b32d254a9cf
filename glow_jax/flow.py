"""One step of flow, also given an image; and a level: a squeeze, then K steps run as one scan."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from glow_jax import reversible, stack
from glow_jax.layers import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Bijection,
    Conv1x1,
    Conv1x1LU,
    Reverse,
    Shuffle,
    Squeeze,
)
from glow_jax.layers.bijection import join_gradients
from glow_jax.layers.convolution import Padding

GradientMemory = Literal["fast", "remat", "reversible"]


class Step(Bijection):
    """Actnorm, then a permutation or 1x1 convolution, then a coupling (paper, figure 2a).

    Forward:   y = coupling(permutation(actnorm(x)))
    log|det|:  the sum over the three layers
    Inverse:   x = actnorm^-1(permutation^-1(coupling^-1(y)))
    """

    def __init__(
        self,
        channels: int,
        *,
        hidden_channels: int,
        flow_permutation: str,
        flow_coupling: str,
        LU_decomposed: bool,
        actnorm_scale: float,
        padding: Padding,
        actnorm_logs_factor: float,
        rngs: nnx.Rngs,
    ):
        """Build one step on `channels` channels; the other arguments are as in `ModelConfig`."""
        self.actnorm = ActNorm(channels, scale=actnorm_scale, factor=actnorm_logs_factor)
        self.permutation: Bijection
        if flow_permutation == "invconv":
            self.permutation = (Conv1x1LU if LU_decomposed else Conv1x1)(
                channels, key=rngs.params()
            )
        elif flow_permutation == "shuffle":
            self.permutation = Shuffle(channels, key=rngs.params())
        else:
            self.permutation = Reverse()
        self.coupling = (AffineCoupling if flow_coupling == "affine" else AdditiveCoupling)(
            channels,
            hidden_channels=hidden_channels,
            padding=padding,
            logs_factor=actnorm_logs_factor,
            rngs=rngs,
        )

    def forward(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(B, H, W, C) -> (B, H, W, C), (B,)."""
        x, linear_logdet = _linear(self.actnorm, self.permutation, x)
        y, coupling_logdet = self.coupling.forward(x)
        return y, linear_logdet + coupling_logdet

    def inverse(self, y: jax.Array) -> jax.Array:
        """(B, H, W, C) -> (B, H, W, C)."""
        x = self.coupling.inverse(y)
        return self.actnorm.inverse(self.permutation.inverse(x))

    def prepare_inverse(self) -> "Step":
        """The same step, with the matrix of its 1x1 convolution already inverted."""
        prepared = nnx.clone(self)
        prepared.permutation = self.permutation.prepare_inverse()
        return prepared

    def inverse_and_gradient(
        self, y: jax.Array, y_gradient: jax.Array, logdet_gradient: jax.Array
    ) -> tuple[jax.Array, jax.Array, nnx.State]:
        """Chain the three layers' own inverses and gradients, last layer first."""
        gradients: dict[str, nnx.State] = {}
        for name in ("coupling", "permutation", "actnorm"):
            layer: Bijection = getattr(self, name)
            y, y_gradient, gradients[name] = layer.inverse_and_gradient(
                y, y_gradient, logdet_gradient
            )
        return y, y_gradient, join_gradients(gradients)

    def initialise(self, x: jax.Array) -> jax.Array:
        """Initialise every actnorm in order, each from its own input; return the output."""
        x = self.actnorm.initialise(x)
        x, _ = self.permutation.forward(x)
        return self.coupling.initialise(x)


# A gradient keeps x alone and computes the rest again: a GPU takes a kernel to store each of
# several small arrays. In a scan, forward and backward are two loops: XLA merges nothing in them.
@partial(jax.checkpoint, prevent_cse=False)
def _linear(actnorm: ActNorm, permutation: Bijection, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The linear layers of a step: (B, H, W, C) -> (B, H, W, C), (B,)."""
    x, actnorm_logdet = actnorm.forward(x)
    y, permutation_logdet = permutation.forward(x)
    return y, actnorm_logdet + permutation_logdet


class ConditionalStep(Bijection):
    """A step on some channels, given others, which stand in front and stay as they are.

    Forward:   y = (given, coupling(given, permutation(actnorm(x))))  for an input (given, x)
    log|det|:  the sum over the three layers
    Inverse:   x = actnorm^-1(permutation^-1(coupling^-1(given, y)))
    """

    def __init__(
        self,
        channels: int,
        *,
        given: int,
        hidden_channels: int,
        actnorm_scale: float,
        rngs: nnx.Rngs,
    ):
        """Build an affine step on `channels` channels with `given` others in front of them."""
        self.given = given
        self.actnorm = ActNorm(channels, scale=actnorm_scale)
        self.permutation: Bijection = Conv1x1LU(channels, key=rngs.params())
        self.coupling = AffineCoupling(
            channels, given=given, hidden_channels=hidden_channels, rngs=rngs
        )

    def forward(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(B, H, W, given + C) -> (B, H, W, given + C), (B,)."""
        given, x = self._parts(x)
        x, linear_logdet = _linear(self.actnorm, self.permutation, x)
        y, coupling_logdet = self.coupling.forward(jnp.concatenate([given, x], axis=-1))
        return y, linear_logdet + coupling_logdet

    def inverse(self, y: jax.Array) -> jax.Array:
        """(B, H, W, given + C) -> (B, H, W, given + C)."""
        given, x = self._parts(self.coupling.inverse(y))
        x = self.actnorm.inverse(self.permutation.inverse(x))
        return jnp.concatenate([given, x], axis=-1)

    def initialise(self, x: jax.Array) -> jax.Array:
        """Initialise every actnorm in order, each from its own input; return the output."""
        given, x = self._parts(x)
        x, _ = self.permutation.forward(self.actnorm.initialise(x))
        return self.coupling.initialise(jnp.concatenate([given, x], axis=-1))

    def _parts(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return x[..., : self.given], x[..., self.given :]


class Level(Bijection):
    """Squeeze and K steps.

    Forward:   y = step_K(... step_1(squeeze(x)))
    log|det|:  the sum over steps
    Inverse:   the inverse steps, last step first, then the inverse squeeze

    Attributes:
        squeeze: the squeeze.
        steps: the K steps, stacked.
        memory: what a gradient keeps of the forward pass. "fast": all that is slow to compute
            again. "remat": each step's input, from which the step is computed again. "reversible":
            only the level's output, from which each step's input is computed by inversion.
    """

    def __init__(
        self, build_step: Callable[[nnx.Rngs], Step | ConditionalStep], *, K: int, rngs: nnx.Rngs
    ):
        """Build a level of `K` steps; `build_step` makes each from random keys."""
        self.squeeze = Squeeze()
        self.K = K
        self.steps = nnx.vmap(build_step)(rngs.split(K))
        self.memory: GradientMemory = "remat"

    def forward(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(B, H, W, C) -> (B, H/2, W/2, 4C), (B,)."""
        x, _ = self.squeeze.forward(x)
        if self.memory == "reversible":
            return reversible.forward(self.steps, x)
        # The matrices are multiplied before the scan. No other layer has anything to prepare.
        steps = nnx.clone(self.steps)
        steps.permutation = stack.prepare_forwards(steps.permutation, self.K)
        return stack.forward(steps, x, remat=self.memory == "remat")

    def inverse(self, y: jax.Array) -> jax.Array:
        """(B, H/2, W/2, 4C) -> (B, H, W, C)."""
        # The matrices are inverted before the scan, not among its products.
        steps = nnx.clone(self.steps)
        steps.permutation = stack.prepare_inverses(steps.permutation, self.K)
        return self.squeeze.inverse(stack.inverse(steps, y))

    def initialise(self, x: jax.Array) -> jax.Array:
        """Initialise every actnorm of the steps from `x`, (B, H, W, C); return the output."""

        def run(
            x: jax.Array, step: Step | ConditionalStep
        ) -> tuple[jax.Array, Step | ConditionalStep]:
            return step.initialise(x), step

        x, _ = self.squeeze.forward(x)
        y, self.steps = jax.lax.scan(run, x, self.steps)
        return y
