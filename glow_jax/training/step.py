"""One training step as a pure function: pixels in, updated parameters out."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar, TypeVarTuple, cast

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.typing import ArrayLike

from glow_jax.config import Config
from glow_jax.data.augmentation import augment, mutate
from glow_jax.model import Glow
from glow_jax.pixels import bits_per_dim, dequantize, example_keys
from glow_jax.training.optimizer import update_average
from glow_jax.typing import Array

_T = TypeVar("_T")
_Batch = TypeVarTuple("_Batch")

Prepare = Callable[[Array, ArrayLike, ArrayLike, Array], jax.Array]
"""Turns pixels into the model's input: (images, seed, draw, indices) -> x, (B, H, W, C)."""


class TrainState(NamedTuple):
    """Everything that a step changes.

    Attributes:
        step: updates so far, applied or skipped, (); it determines a batch's order and noise.
        seed: the run's seed, (), constant; it is here so that one compiled step serves every seed.
        model: the model in training.
        average: the moving average of its parameters, a state of `nnx.Param`, or None.
        optimizer_state: optax's state.
        skipped: updates skipped because the loss or gradient was not finite, ().
        skipped_in_a_row: updates skipped since the last one that was applied, ().
    """

    step: jax.Array
    seed: jax.Array
    model: Glow
    average: nnx.State | None
    optimizer_state: optax.OptState
    skipped: jax.Array
    skipped_in_a_row: jax.Array


TrainStep = Callable[[TrainState, Array, Array, Array], tuple[TrainState, "Metrics"]]
"""(state, images, labels, indices) -> (state, metrics)."""

# Loss and bits/dim, and the gradient of the parameters.
_Gradient = tuple[tuple[jax.Array, jax.Array], nnx.State]
# What an update changes: the parameters, their average and the optimizer's state.
_Changing = tuple[nnx.State, nnx.State | None, optax.OptState]


class Metrics(NamedTuple):
    """What a step reports; each has shape ().

    Attributes:
        loss: bits/dim plus the weighted classification loss, mean over the update's images.
        bits_per_dim: mean over the same images.
        gradient_norm: norm of the gradient before clipping.
        skipped_in_a_row: 0 if this update was applied.
    """

    loss: jax.Array
    bits_per_dim: jax.Array
    gradient_norm: jax.Array
    skipped_in_a_row: jax.Array


def new_state(model: Glow, optimizer: optax.GradientTransformation, config: Config) -> TrainState:
    """The state before the first step."""
    params = nnx.state(model, nnx.Param)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        seed=jnp.asarray(config.training.seed, jnp.uint32),
        model=model,
        average=params if config.optimizer.ema_decay else None,
        optimizer_state=jax.jit(optimizer.init)(params),  # one program, not one per leaf
        skipped=jnp.zeros((), jnp.int32),
        skipped_in_a_row=jnp.zeros((), jnp.int32),
    )


def averaged_model(state: TrainState) -> Glow | None:
    """The model with averaged parameters; None if no average is kept."""
    if state.average is None:
        return None
    model = nnx.clone(state.model)
    nnx.update(model, state.average)
    return model


def loss_function(model: Glow, x: Array, y: Array, config: Config) -> tuple[jax.Array, jax.Array]:
    """Mean bits/dim, plus y_weight times the classification loss of models with a classifier.

    The classification loss, in nats, is the cross entropy. For multi-hot labels it is the sigmoid
    cross entropy, mean over batch and classes.

    Args:
        model: the model.
        x: continuous images, (B, H, W, C).
        y: one-hot or multi-hot labels, (B, classes); unused by unconditional models.
        config: provides y_condition, multi_class, y_weight and n_bits.

    Returns:
        The loss, and its bits/dim part, both means over the batch.
    """
    architecture = config.model
    x, logdet = model.redequantize(x)
    code = model.encode(x, y if architecture.y_condition else None)
    log_prob = code.log_prob + logdet
    bits = bits_per_dim(log_prob, architecture.image_shape, n_bits=architecture.n_bits).mean()
    if model.classifier is None:
        return bits, bits
    logits = model.classify(code.latents)
    cross_entropy = (
        optax.sigmoid_binary_cross_entropy(logits, y)
        if architecture.multi_class
        else optax.softmax_cross_entropy(logits, y)
    )
    return bits + config.training.y_weight * cross_entropy.mean(), bits


def prepare_images(
    images: Array,
    seed: ArrayLike,
    draw: ArrayLike,
    indices: Array,
    config: Config,
    *,
    flips: bool,
    shifts: bool,
) -> jax.Array:
    """Augment, mutate and dequantize: uint8 to float32, (B, H, W, C).

    The result for an image is a function of its pixels, the run's seed, the draw and its index.
    """
    keys = example_keys(seed, draw, indices)
    if config.data.augment:
        augment_keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
        images = augment(jnp.asarray(images), augment_keys, flips=flips, shifts=shifts)
    if config.data.mutation_rate:
        mutate_keys = jax.vmap(lambda key: jax.random.fold_in(key, 2))(keys)
        images = mutate(jnp.asarray(images), mutate_keys, config.data.mutation_rate)
    return dequantize(images, keys, n_bits=config.model.n_bits)


def make_train_step(
    optimizer: optax.GradientTransformation,
    config: Config,
    *,
    prepare: Prepare,
    mean: Callable[[_Gradient], _Gradient] = lambda gradient: gradient,
) -> TrainStep:
    """Build the step: augment, dequantize, loss, gradient, update.

    With `accumulate` the images are a device's part of several batches. Their gradients are
    computed one batch after the other and averaged.

    Args:
        optimizer: as `make_optimizer` returns it.
        config: the run.
        prepare: `prepare_images` with all but its first four arguments bound.
        mean: averages a tree over devices that each see an equal part of the batch.

    Returns:
        step(state, images, labels, indices) -> (state, metrics), where images are uint8,
        (B, H, W, C), labels are (B, classes), and indices, (B,), are the images' places in the
        data set. A loss or gradient that is not finite leaves the parameters unchanged.
    """

    def train_step(
        state: TrainState, images: Array, labels: Array, indices: Array
    ) -> tuple[TrainState, Metrics]:
        graph, params, buffers = nnx.split(state.model, nnx.Param, ...)

        def of_batch(images: Array, labels: Array, indices: Array) -> _Gradient:
            x = prepare(images, state.seed, state.step, indices)

            def loss_of(params: nnx.State) -> tuple[jax.Array, jax.Array]:
                return loss_function(nnx.merge(graph, params, buffers), x, labels, config)

            return jax.value_and_grad(loss_of, has_aux=True)(params)

        batches = config.training.accumulate
        (loss, bits), gradient = mean(_accumulated(of_batch, batches, images, labels, indices))
        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)

        changing = (params, state.average, state.optimizer_state)
        update = partial(_update, optimizer, config.optimizer.ema_decay, state.step)
        params, average, optimizer_state = _update_if(finite, update, changing, gradient)
        skipped_in_a_row = jnp.where(finite, 0, state.skipped_in_a_row + 1)
        state = TrainState(
            step=state.step + 1,
            seed=state.seed,
            model=nnx.merge(graph, params, buffers),
            average=average,
            optimizer_state=optimizer_state,
            skipped=state.skipped + (1 - finite.astype(jnp.int32)),
            skipped_in_a_row=skipped_in_a_row,
        )
        return state, Metrics(loss, bits, norm, skipped_in_a_row)

    return train_step


def _update(
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    step: jax.Array,
    changing: _Changing,
    gradient: nnx.State,
) -> _Changing:
    params, average, optimizer_state = changing
    updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
    params = cast(nnx.State, optax.apply_updates(params, updates))
    if average is not None:
        average = update_average(average, params, ema_decay, step)
    return params, average, optimizer_state


def _update_if(
    finite: jax.Array,
    update: Callable[[_Changing, nnx.State], _Changing],
    changing: _Changing,
    gradient: nnx.State,
) -> _Changing:
    """Return `update(changing, gradient)` if `finite`, else `changing`."""

    # On a CPU a select copies all arrays, while a branch changes them in place. On a GPU a branch
    # waits for the host.
    def branch(finite: jax.Array, changing: _Changing, gradient: nnx.State) -> _Changing:
        return jax.lax.cond(finite, update, lambda unchanged, _: unchanged, changing, gradient)

    def select(finite: jax.Array, changing: _Changing, gradient: nnx.State) -> _Changing:
        new = update(changing, gradient)
        return jax.tree.map(lambda a, b: jax.lax.select(finite, a, b), new, changing)

    return jax.lax.platform_dependent(finite, changing, gradient, cpu=branch, default=select)


def _accumulated(function: Callable[[*_Batch], _T], count: int, *batch: *_Batch) -> _T:
    """The mean of `function(*part)` over `count` equal parts of a batch, one after the other."""
    if count == 1:
        return function(*batch)
    # Labels of no classes have no elements, from which a -1 could not be told.
    parts = jax.tree.map(
        lambda array: array.reshape(count, len(array) // count, *array.shape[1:]), batch
    )
    first = jax.tree.map(lambda array: array[0], parts)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(function, *first))

    def add(total: _T, part: tuple[*_Batch]) -> tuple[_T, None]:
        return jax.tree.map(jnp.add, total, function(*part)), None

    total, _ = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda leaf: leaf / count, total)
