"""The layout of rosinality/glow-pytorch: other keys, halves instead of pairs, padding with ones."""

import re
from collections.abc import Mapping

import numpy as np

from glow_jax.bridge.layouts import common, hparams, limits
from glow_jax.bridge.layouts.common import Found, Given, Shape, StepTensor
from glow_jax.bridge.mapping import layout_shapes, step_layer
from glow_jax.config import ModelConfig
from glow_jax.errors import GlowError

NAME = "rosinality/glow-pytorch"

_STEP = re.compile(r"blocks\.(\d+)\.flows\.(\d+)\.(.+)")
_INITIALISED = "actnorm.initialized"
_MIXINGS = {"p": "w_p", "sign_s": "s_sign", "log_s": "w_s"}
_N_BITS = 5  # the default of its train.py
_CONSTANTS = ("w_p", "u_mask", "l_mask", "s_sign", "l_eye")
BUFFERS = (_INITIALISED, *(f".invconv.{name}" for name in _CONSTANTS))


def matches(keys: set[str]) -> bool:
    """Whether a state dict is in this layout."""
    return any(_STEP.fullmatch(key) for key in keys)


def translate(arrays: Mapping[str, np.ndarray], given: Given) -> Found:
    """Infer the architecture, check every key against it, and rewrite the weights.

    Args:
        arrays: the state dict.
        given: what the user and `hparams.json` say about it.

    Raises:
        GlowError: a key is missing or wrong, `given` contradicts the weights, or the image size is
            not given.
    """
    config = _infer({key: array.shape for key, array in arrays.items()}, given)
    common.check_arrays(arrays, _expected_shapes(config), integers=(_INITIALISED,))
    _check_constants(arrays)
    hparams.check_hparams(config, given, permutation_stored=True)
    values = _rewrite(arrays, config)
    limits.check_mixings(values, config, lambda key: _spell(key, config))
    return Found(config, values, parameters=None)


def _spell(key: str, config: ModelConfig) -> str:
    """A 1x1 convolution's key in Glow-PyTorch's layout, as it is in this one."""
    layer, name = key.split(".")[2::2]
    level, step = divmod(int(layer), config.K + 2)
    return f"blocks.{level}.flows.{step - 1}.invconv.{_MIXINGS.get(name, name)}"


def _infer(shapes: Mapping[str, Shape], given: Given) -> ModelConfig:
    """The architecture by keys and shapes."""
    matches = [match for match in map(_STEP.fullmatch, shapes) if match]
    tensors, steps = [], set()
    for match in matches:
        level, step = (limits.check_layer(number, match[0]) for number in match.groups()[:2])
        tensors.append(StepTensor(level, match[3], shapes[match[0]]))
        steps.add((level, step))
    limits.check_counts(1 + max(level for level, _ in steps), len(steps))
    K, L = common.count_steps(steps, "blocks.{}.flows")
    channels = common.image_channels(
        (level, shape[1])
        for level, name, shape in tensors
        if name in ("actnorm.loc", "actnorm.scale", "invconv.weight", "invconv.w_l", "invconv.w_u")
        and len(shape) > 1
    )
    hidden = common.vote(
        shape[0] for _, name, shape in tensors if re.match(r"coupling\.net\.[02]\.", name) and shape
    )
    LU_decomposed, plain_levels = common.lu_levels(tensors, L)
    if given.image_size is None:
        raise GlowError(
            f"Files of {NAME} do not tell the size of the images: give --image_size, for example "
            "--image_size 64."
        )
    sides = (given.image_size, given.image_size)
    limits.check_size(sides, channels, hidden or 1, 0, K, L, given)
    return ModelConfig(
        K=K,
        L=L,
        hidden_channels=hidden or 1,
        flow_coupling=common.coupling_kind(tensors, "coupling.net.4.conv.", channels),
        LU_decomposed=LU_decomposed,
        n_bits=hparams.n_bits_of(given, _N_BITS),
        image_shape=(*sides, channels),
        padding="ones",
        plain_levels=plain_levels,
    )


def _level_channels(config: ModelConfig, level: int) -> int:
    return 4 * config.image_shape[2] * 2**level


def _expected_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Keys and shapes of this layout for an architecture."""
    expected: dict[str, Shape] = {}
    hidden = config.hidden_channels
    for level in range(config.L):
        C = _level_channels(config, level)
        last = level == config.L - 1
        plain = not config.LU_decomposed or level in config.plain_levels
        outputs = C if config.flow_coupling == "affine" else C // 2
        matrices = ("w_l", "w_u", "w_p", "u_mask", "l_mask", "l_eye")
        step: dict[str, Shape] = {
            "actnorm.loc": (1, C, 1, 1),
            "actnorm.scale": (1, C, 1, 1),
            _INITIALISED: (),
            **({"invconv.weight": (C, C, 1, 1)} if plain else {}),
            **({} if plain else {f"invconv.{name}": (C, C) for name in matrices}),
            **({} if plain else {f"invconv.{name}": (C,) for name in ("w_s", "s_sign")}),
            "coupling.net.0.weight": (hidden, C // 2, 3, 3),
            "coupling.net.0.bias": (hidden,),
            "coupling.net.2.weight": (hidden, hidden, 1, 1),
            "coupling.net.2.bias": (hidden,),
            "coupling.net.4.scale": (1, outputs, 1, 1),
            "coupling.net.4.conv.weight": (outputs, hidden, 3, 3),
            "coupling.net.4.conv.bias": (outputs,),
        }
        for k in range(config.K):
            expected |= {f"blocks.{level}.flows.{k}.{name}": shape for name, shape in step.items()}
        inputs, outputs = (C, 2 * C) if last else (C // 2, C)
        expected |= {
            f"blocks.{level}.prior.scale": (1, outputs, 1, 1),
            f"blocks.{level}.prior.conv.weight": (outputs, inputs, 3, 3),
            f"blocks.{level}.prior.conv.bias": (outputs,),
        }
    return expected


def _check_constants(arrays: Mapping[str, np.ndarray]) -> None:
    """Check the values that the rewriting relies on."""
    for key, array in arrays.items():
        if key.endswith(_INITIALISED) and not array:
            raise GlowError(f"Key {key!r} is 0: this model has never seen an image.")
        if key.endswith("actnorm.scale") and not np.all(array):
            raise GlowError(f"Key {key!r} holds a zero: this actnorm cannot be inverted.")
        constants = {"u_mask": np.triu, "l_mask": np.tril, "l_eye": None}
        name = key.rpartition(".")[2]
        if name in constants:
            ones, triangle = np.ones_like(array), constants[name]
            diagonal = 1 if name == "u_mask" else -1
            wanted = np.eye(len(array)) if triangle is None else triangle(ones, diagonal)
            if not np.array_equal(array, wanted):
                raise GlowError(f"Key {key!r} is not the constant that it is in every Glow.")


def _rewrite(arrays: Mapping[str, np.ndarray], config: ModelConfig) -> dict[str, np.ndarray]:
    """The same model under Glow-PyTorch's keys."""
    shapes = layout_shapes(config)
    values: dict[str, np.ndarray] = {}
    for level in range(config.L):
        for k in range(config.K):
            old = f"blocks.{level}.flows.{k}."
            step = {key.removeprefix(old): arrays[key] for key in arrays if key.startswith(old)}
            new = f"flow.layers.{step_layer(config, level, k)}."
            affine = config.flow_coupling == "affine"
            values |= {new + key: array for key, array in _rewrite_step(step, affine).items()}
        prior = f"blocks.{level}.prior."
        kernel, bias, logs = (arrays[prior + n] for n in ("conv.weight", "conv.bias", "scale"))
        if level < config.L - 1:
            new = f"flow.layers.{step_layer(config, level, config.K)}.conv."
            order = _interleave(len(bias))  # means, then log-sds there; pairs of both here
            kernel, bias, logs = kernel[order], bias[order], logs[:, order]
        else:
            new = "learn_top_fn."
            # Glow-PyTorch's has twice as many inputs. They are zero everywhere but in the padding,
            # and weights of zero ignore that.
            kernel = np.concatenate([kernel, np.zeros_like(kernel)], axis=1)
        values |= {new + "conv.weight": kernel, new + "conv.bias": bias, new + "logs": logs}
    values["prior_h"] = np.zeros(shapes["prior_h"], np.float32)
    return {key: values[key].reshape(shape) for key, shape in shapes.items()}


def _interleave(outputs: int) -> np.ndarray:
    """Indices that pair the entries of two halves: 0, n/2, 1, n/2 + 1, ..."""
    return np.arange(outputs).reshape(2, -1).T.reshape(-1)


def _rewrite_step(step: Mapping[str, np.ndarray], affine: bool) -> dict[str, np.ndarray]:
    scale = step["actnorm.scale"].reshape(-1)
    # Scales may be negative: the logarithm keeps the size, and the next matrix takes the sign.
    signs = np.sign(scale)
    values = {
        "actnorm.bias": step["actnorm.loc"],
        "actnorm.logs": np.log(np.abs(step["actnorm.scale"])),
    }
    if "invconv.weight" in step:
        values["invconv.weight"] = step["invconv.weight"][:, :, 0, 0] * signs
    else:
        values |= {
            "invconv.p": step["invconv.w_p"],
            "invconv.lower": step["invconv.w_l"],
            "invconv.upper": step["invconv.w_u"] * signs,
            "invconv.log_s": step["invconv.w_s"],
            "invconv.sign_s": step["invconv.s_sign"] * signs,
        }
    for layer in (0, 2):
        bias = step[f"coupling.net.{layer}.bias"]
        values[f"block.{layer}.conv.weight"] = step[f"coupling.net.{layer}.weight"]
        values[f"block.{layer}.actnorm.bias"] = bias
        values[f"block.{layer}.actnorm.logs"] = np.zeros_like(bias)
    bias = step["coupling.net.4.conv.bias"]
    order = np.arange(len(bias))
    if affine:  # scales, then shifts there; pairs of shift and scale here
        order = np.roll(order, len(bias) // 2)[_interleave(len(bias))]
    return values | {
        "block.4.conv.weight": step["coupling.net.4.conv.weight"][order],
        "block.4.conv.bias": bias[order],
        "block.4.logs": step["coupling.net.4.scale"][:, order],
    }
