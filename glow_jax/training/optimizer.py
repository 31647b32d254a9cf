"""How a gradient becomes an update: as in PyTorch's Adamax with L2 weight decay."""

from typing import TypeVar

import jax
import jax.numpy as jnp
import optax

from glow_jax.config import OptimizerConfig

_T = TypeVar("_T")
# Added to the gradient before the moments, as in torch.optim; decoupled decay differs.
WEIGHT_DECAY = 5e-5


def learning_rate(config: OptimizerConfig, updates_per_epoch: int) -> optax.Schedule:
    """The published warm-up: lr * min(1, (epoch + 1) / warmup), constant within an epoch.

    Args:
        config: lr, and warmup in epochs.
        updates_per_epoch: converts the number of updates into an epoch, from 0.
    """

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        epoch = jnp.asarray(count) // updates_per_epoch
        return config.lr * jnp.minimum(1.0, (epoch + 1) / max(config.warmup, 1.0))

    return schedule


def make_optimizer(config: OptimizerConfig, updates_per_epoch: int) -> optax.GradientTransformation:
    """Clip by value, clip by norm, add weight decay, then apply Adamax or Adam.

    The state has the same structure whether clipping is on or off, so a run can continue with
    different clipping.
    """
    by_value, by_norm = config.max_grad_clip, config.max_grad_norm
    algorithm = {"adamax": optax.adamax, "adam": optax.adam}[config.optimizer]
    return optax.chain(
        optax.clip(by_value) if by_value else optax.identity(),
        optax.clip_by_global_norm(by_norm) if by_norm else optax.identity(),
        optax.add_decayed_weights(WEIGHT_DECAY),
        algorithm(learning_rate(config, updates_per_epoch)),
    )


def update_average(average: _T, params: _T, decay: float, updates: jax.Array) -> _T:
    """The exponential moving average of the parameters after `updates` updates.

    The decay is lower in early updates; otherwise the average would mostly hold initial values.
    """
    factor = jnp.minimum(decay, (1 + updates) / (10 + updates))

    def move(old: jax.Array, new: jax.Array) -> jax.Array:
        return (factor * old + (1 - factor) * new).astype(old.dtype)

    return jax.tree.map(move, average, params)
