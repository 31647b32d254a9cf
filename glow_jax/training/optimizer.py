"""How a gradient becomes an update: as in PyTorch with L2 weight decay, or as in openai/glow."""

from typing import TypeVar, cast

import jax
import jax.numpy as jnp
import optax

from glow_jax.config import OptimizerConfig

_T = TypeVar("_T")
# Added to the gradient before the moments, as in torch.optim; decoupled decay differs.
WEIGHT_DECAY = 5e-5
_OPENAI_BETA1, _OPENAI_EPSILON = 0.9, 1e-8


def learning_rate(config: OptimizerConfig, updates_per_epoch: int, epochs: int) -> optax.Schedule:
    """The published warm-up, lr * min(1, (epoch + 1) / warmup), constant within an epoch.

    That of openai_adamax is lr * min(1, updates done / updates in warmup), so the first update has
    a rate of 0. With the cosine schedule (Loshchilov & Hutter 2017, arXiv 1608.03983, without
    restarts), the rate after the warm-up is

        final_lr + (lr - final_lr) (1 + cos(pi (t - w) / (T - w))) / 2

    after t updates, with w updates in the warm-up and T in the whole run.

    Args:
        config: the algorithm, the schedule, its rates, and warmup in epochs.
        updates_per_epoch: converts the number of updates into an epoch, from 0.
        epochs: the length of the run; the constant schedule does not depend on it.
    """
    updates = config.warmup * updates_per_epoch
    decaying = max(epochs * updates_per_epoch - updates, 1)

    def by_epoch(count: jax.typing.ArrayLike) -> jax.Array:
        epoch = jnp.asarray(count) // updates_per_epoch
        return config.lr * jnp.minimum(1.0, (epoch + 1) / max(config.warmup, 1.0))

    def by_update(count: jax.typing.ArrayLike) -> jax.Array:
        return config.lr * jnp.minimum(1.0, jnp.asarray(count) / updates)

    warm_up = by_update if config.optimizer == "openai_adamax" and updates else by_epoch

    def cosine(count: jax.typing.ArrayLike) -> jax.Array:
        share = jnp.clip((jnp.asarray(count) - updates) / decaying, 0.0, 1.0)
        return warm_up(count) - (config.lr - config.final_lr) * (1 - jnp.cos(jnp.pi * share)) / 2

    return cosine if config.schedule == "cosine" else warm_up


def make_optimizer(
    config: OptimizerConfig, updates_per_epoch: int, epochs: int = 1
) -> optax.GradientTransformation:
    """Clip by value, clip by norm, add weight decay, then apply Adamax or Adam.

    openai_adamax has no weight decay. The state has the same structure whether clipping is on or
    off, so a run can continue with different clipping. It depends on neither `updates_per_epoch`
    nor `epochs`; see `learning_rate` for what does.
    """
    by_value, by_norm = config.max_grad_clip, config.max_grad_norm
    rate = learning_rate(config, updates_per_epoch, epochs)
    if config.optimizer == "openai_adamax":
        scaling = scale_by_openai_adamax(updates_per_epoch * config.polyak_epochs)
        decay = optax.identity()
        algorithm = optax.chain(scaling, optax.scale_by_learning_rate(rate))
    else:
        decay = optax.add_decayed_weights(WEIGHT_DECAY)
        algorithm = {"adamax": optax.adamax, "adam": optax.adam}[config.optimizer](rate)
    return optax.chain(
        optax.clip(by_value) if by_value else optax.identity(),
        optax.clip_by_global_norm(by_norm) if by_norm else optax.identity(),
        decay,
        algorithm,
    )


def scale_by_openai_adamax(memory: float) -> optax.GradientTransformation:
    """The Adamax of openai/glow (`adamax` in `optim.py`); `optax.scale_by_adamax` is the paper's.

    For a gradient g, with beta2 = 1 - 1 / memory and t counted from 1:

        mu <- 0.9 mu + 0.1 g,   nu <- max(beta2 nu, |g|),
        update = sqrt(1 - beta2^t) / (1 - 0.9^t) * mu / (nu + 1e-8)

    The state is an `optax.ScaleByAdamState`, whose count is the number of updates done.

    Args:
        memory: the number of updates over which the largest gradient is remembered, at least 1.
    """

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        del params
        before = cast(optax.ScaleByAdamState, state)
        count = optax.safe_increment(before.count)
        mu = optax.tree.update_moment(updates, before.mu, _OPENAI_BETA1, 1)
        nu = optax.tree.update_infinity_moment(updates, before.nu, 1 - 1 / memory, 0.0)
        # 1 - beta2^t; with a beta2 close to 1, float32 would lose its digits in the subtraction.
        known = -jnp.expm1(count * jnp.log1p(-1 / memory))
        scaled = jax.tree.map(
            lambda mean, largest: jnp.sqrt(known) * mean / (largest + _OPENAI_EPSILON),
            optax.tree.bias_correction(mu, _OPENAI_BETA1, count),
            nu,
        )
        return scaled, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(optax.scale_by_adamax().init, update)


def update_average(average: _T, params: _T, decay: float, updates: jax.Array) -> _T:
    """The exponential moving average of the parameters after `updates` updates.

    The decay is lower in early updates; otherwise the average would mostly hold initial values.
    """
    factor = jnp.minimum(decay, (1 + updates) / (10 + updates))

    def move(old: jax.Array, new: jax.Array) -> jax.Array:
        return (factor * old + (1 - factor) * new).astype(old.dtype)

    return jax.tree.map(move, average, params)
