"""The same weights in two trees: state dicts in Glow-PyTorch's layout, and `glow_jax.Glow`.

Every tensor is only copied, transposed, reshaped or stacked, so the way there and back is exact.

| PyTorch | JAX |
|---|---|
| `flow.layers.i.*` of a level's K steps | one array with a leading axis of length K |
| convolution kernel (O, I, h, w) | (h, w, I, O) |
| linear weight (O, I) | (I, O) |
| 1x1 matrix and its factors, [out, in] | the same |
| vector with axes of length 1 | (C,) |
"""

import functools
from collections.abc import Hashable, Mapping
from types import MappingProxyType

import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from glow_jax.bridge import torch_glow
from glow_jax.config import ModelConfig
from glow_jax.model import Glow, abstract_glow

_STEP = {
    "actnorm.bias": "actnorm.bias",
    "actnorm.logs": "actnorm.logs",
    "permutation.weight": "invconv.weight",
    "permutation.permutation": "invconv.p",
    "permutation.sign": "invconv.sign_s",
    "permutation.lower": "invconv.lower",
    "permutation.upper": "invconv.upper",
    "permutation.log_s": "invconv.log_s",
    "permutation.indices": "invconv.indices",
    "coupling.network.conv_in.kernel": "block.0.conv.weight",
    "coupling.network.actnorm_in.bias": "block.0.actnorm.bias",
    "coupling.network.actnorm_in.logs": "block.0.actnorm.logs",
    "coupling.network.conv_hidden.kernel": "block.2.conv.weight",
    "coupling.network.actnorm_hidden.bias": "block.2.actnorm.bias",
    "coupling.network.actnorm_hidden.logs": "block.2.actnorm.logs",
    "coupling.network.conv_out.kernel": "block.4.conv.weight",
    "coupling.network.conv_out.bias": "block.4.conv.bias",
    "coupling.network.conv_out.logs": "block.4.logs",
}
_SPLIT = {
    "conv.kernel": "conv.conv.weight",
    "conv.bias": "conv.conv.bias",
    "conv.logs": "conv.logs",
}
_TOP = {
    "top_prior.learned.kernel": "learn_top_fn.conv.weight",
    "top_prior.learned.bias": "learn_top_fn.conv.bias",
    "top_prior.learned.logs": "learn_top_fn.logs",
    "top_prior.from_label.kernel": "project_ycond.linear.weight",
    "top_prior.from_label.bias": "project_ycond.linear.bias",
    "top_prior.from_label.logs": "project_ycond.logs",
    "classifier.kernel": "project_class.linear.weight",
    "classifier.bias": "project_class.linear.bias",
    "classifier.logs": "project_class.logs",
}

Shape = tuple[int, ...]


def step_layer(config: ModelConfig, level: int, step: int) -> int:
    """The number of a step in `flow.layers`, where a level is [squeeze, K steps, split]."""
    return level * (config.K + 2) + 1 + step


def _keys(path: tuple[Hashable, ...], config: ModelConfig) -> list[str]:
    """The PyTorch keys of a JAX array: K keys for an array of stacked steps, else one."""
    match path:
        case ("levels", int(level), "steps", *names):
            layers = [step_layer(config, level, step) for step in range(config.K)]
            return [f"flow.layers.{layer}.{_STEP[_dotted(names)]}" for layer in layers]
        case ("splits", int(level), *names):
            return [f"flow.layers.{step_layer(config, level, config.K)}.{_SPLIT[_dotted(names)]}"]
        case _:
            return [_TOP[_dotted(path)]]


def _dotted(names: list[Hashable] | tuple[Hashable, ...]) -> str:
    return ".".join(map(str, names))


def _from_torch(key: str, array: np.ndarray, shape: Shape) -> np.ndarray:
    """One PyTorch tensor as JAX's array of that shape."""
    if key.endswith(".conv.weight"):
        array = array.transpose(2, 3, 1, 0)
    elif key.endswith(".linear.weight"):
        array = array.T
    return array.reshape(shape)


def _to_torch(key: str, array: np.ndarray, shape: Shape) -> np.ndarray:
    """The inverse of `_from_torch`; `shape` is the tensor's."""
    if key.endswith(".conv.weight"):
        outputs, inputs, height, width = shape
        return array.reshape(height, width, inputs, outputs).transpose(3, 2, 0, 1)
    if key.endswith(".linear.weight"):
        return array.T
    return array.reshape(shape)


def fill(state: nnx.State, values: Mapping[str, np.ndarray], config: ModelConfig) -> nnx.State:
    """Fill an NNX state with the tensors of a PyTorch state dict.

    Args:
        state: the state of a model or a part of it, or anything shaped like one (moments).
        values: arrays under PyTorch's keys; further keys are ignored.
        config: the model's architecture.

    Returns:
        A state of the same structure and shapes, in the dtype of the arrays.
    """
    filled = []
    for path, leaf in nnx.to_flat_state(state):
        keys, is_stacked = _keys(path, config), "steps" in path
        shape = leaf.shape[1:] if is_stacked else leaf.shape
        arrays = [_from_torch(key, values[key], shape) for key in keys]
        filled.append(
            (path, leaf.replace(jnp.array(np.stack(arrays) if is_stacked else arrays[0])))
        )
    return nnx.from_flat_state(filled)


def extract(state: nnx.State, config: ModelConfig) -> dict[str, np.ndarray]:
    """The inverse of `fill`: arrays under PyTorch's keys, in the shapes of its layout.

    The order of a shuffle and a dequantisation flow are left out: the layout has no place for them.
    """
    shapes, values = layout_shapes(config), {}
    for path, leaf in nnx.to_flat_state(state):
        if path[0] == "dequantizer":
            continue
        array = np.asarray(leaf[...])
        arrays = list(array) if "steps" in path else [array]
        for key, part in zip(_keys(path, config), arrays, strict=True):
            if key in shapes:
                values[key] = np.array(_to_torch(key, part, shapes[key]), order="C")
    return {key: values[key] for key in shapes if key in values}


def to_glow(values: Mapping[str, np.ndarray], config: ModelConfig) -> Glow:
    """Build the JAX model of a state dict in Glow-PyTorch's layout.

    A model with shuffle permutations needs their `invconv.indices` too, which no file holds.
    """
    model = abstract_glow(config)
    nnx.update(model, fill(nnx.state(model), values, config))
    return model


def from_glow(model: Glow) -> dict[str, np.ndarray]:
    """The state dict of a JAX model, in Glow-PyTorch's layout and order; see `extract`."""
    values = extract(nnx.state(model), model.config)
    dtype = next(iter(values.values())).dtype
    shapes = layout_shapes(model.config)
    return {key: values.get(key, np.zeros(shapes[key], dtype)) for key in shapes}


def build_reference(
    config: ModelConfig, values: Mapping[str, np.ndarray] | None = None
) -> torch_glow.Glow:
    """Build the PyTorch model of an architecture.

    Args:
        config: the architecture.
        values: the state dict to load; None leaves the initial values.
    """
    model = torch_glow.Glow(
        image_shape=config.image_shape,
        K=config.K,
        L=config.L,
        hidden_channels=config.hidden_channels,
        flow_permutation=config.flow_permutation,
        flow_coupling=config.flow_coupling,
        LU_decomposed=tuple(
            config.LU_decomposed and level not in config.plain_levels for level in range(config.L)
        ),
        learn_top=config.learn_top,
        y_condition=config.y_condition,
        y_classes=config.y_classes,
        classifier=config.classifier,
        actnorm_scale=config.actnorm_scale,
        actnorm_logs_factor=config.actnorm_logs_factor,
        padding=config.padding,
    )
    if values is not None:
        tensors = {key: torch.from_numpy(np.array(value)) for key, value in values.items()}
        model.load_state_dict(tensors, strict=True, assign=True)
    return model


@functools.lru_cache(maxsize=4)
def layout_shapes(config: ModelConfig) -> Mapping[str, Shape]:
    """Keys and shapes of Glow-PyTorch's layout for an architecture, in the layout's order."""
    with torch.device("meta"):
        state = build_reference(config).state_dict()
    # A conversion asks up to a dozen times, and building the model takes most of its time.
    return MappingProxyType({key: tuple(tensor.shape) for key, tensor in state.items()})


def parameter_keys(config: ModelConfig) -> list[str]:
    """Keys of the trained tensors, in the order in which PyTorch's optimizers number them."""
    with torch.device("meta"):
        return [key for key, _ in build_reference(config).named_parameters()]
