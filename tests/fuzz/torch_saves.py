"""State dicts as PyTorch and safetensors save them, damaged before, while and after saving."""

import io
import json
import random
from collections.abc import Callable, Mapping

import numpy as np
import torch

from tests.torch_files import Values

from . import optimizers, zips
from .damage import ODD, damage_bytes, damage_json
from .pickles import forge, hostile
from .sample import Sample

Tensors = dict[str, object]
"""A state dict; after damage, anything may be in the place of a tensor."""


def build(
    rng: random.Random,
    values: Values,
    parameters: tuple[str, ...],
    hparams: Mapping[str, object],
    options: Mapping[str, object],
) -> Sample:
    """A checkpoint of weights, with settings and an optimizer's state at times.

    Args:
        rng: makes all choices.
        values: the weights.
        parameters: the keys of those that are trained, in the optimizer's order.
        hparams: the settings; none where there are no such files.
        options: further arguments of `convert`.
    """
    options, damage = dict(options), []
    tensors: Tensors = {key: torch.from_numpy(np.array(value)) for key, value in values.items()}
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2])):
        damage.append(_damage_tensors(tensors, rng))
    files: dict[str, bytes] = {}
    state = None
    if parameters and rng.random() < 0.3:
        state = optimizers.state_of([values[key].shape for key in parameters], rng)
        if rng.random() < 0.7:
            damage.append(optimizers.damage_state(state, rng))
        if rng.random() < 0.3:
            files["optimizer.pt"], how = _saved(state, rng)
            damage.append(how)
            options["optimizer"], state = "optimizer.pt", None
    are_tensors = all(isinstance(value, torch.Tensor) for value in tensors.values())
    if state is None and are_tensors and rng.random() < 0.12:
        files["glow.safetensors"], how = _safetensors(tensors, rng)
        return Sample(files, "glow.safetensors", options, [*damage, how])
    content, how = _wrapped(tensors, state, rng)
    files["glow.pt"], saved = _saved(content, rng)
    if hparams and rng.random() < 0.4:
        if rng.random() < 0.7:
            files["hparams.json"], name = damage_json(hparams, rng)
            damage.append(f"hparams.json {name}")
        else:
            files["hparams.json"] = json.dumps(hparams).encode()
    return Sample(files, "glow.pt", options, [*damage, how, saved])


_FILLS = [float("nan"), float("inf"), -float("inf"), 0.0, 1e38, -1e38, 1e-45, 1e4, -200.0, 200.0]
_DTYPES = [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool]
_DTYPES += [torch.complex64, torch.int8, torch.int16]


def _damage_tensors(tensors: Tensors, rng: random.Random) -> str:
    """Change a key or its tensor; say how."""
    key = rng.choice([*tensors, ""])
    value = tensors.get(key)
    if not isinstance(value, torch.Tensor):
        return "nothing"
    if rng.random() < 0.35:
        return _damage_key(tensors, key, rng)
    name, change = rng.choice(_TENSOR_DAMAGE)
    try:
        tensors[key] = change(value, rng)
    except (RuntimeError, IndexError, TypeError, ValueError):  # PyTorch has no such tensor
        return "nothing"
    return f"{name} {key}"


def _damage_key(tensors: Tensors, key: str, rng: random.Random) -> str:
    value = tensors[key]
    how = rng.choice(["drop", "rename", "double", "odd key", "level", "odd value", "part", "order"])
    if how in ("drop", "rename", "odd key", "level"):
        del tensors[key]
    digits = rng.choice(
        ["0", "1", "2", "63", "4096", "99999", "9" * 7, "-1", "007", "²", "9" * 5000]
    )
    parts = key.split(".")
    numbered = [place for place, part in enumerate(parts) if part.isdigit()]
    if numbered:
        parts[rng.choice(numbered)] = digits
    match how:
        case "rename" | "double":
            tensors[".".join(parts)] = value
        case "odd key":
            tensors[rng.choice(["", ".", "a\n\x1b[2J", "x" * 10_000, "\u202e", f"{key}.{key}"])] = (
                value
            )
        case "level":
            tensors[f"module.{key}" if rng.random() < 0.5 else f"flow.layers.{digits}.x"] = value
        case "odd value":
            tensors[key] = rng.choice(ODD[:-3])
        case "part":
            for other in [k for k in tensors if k.startswith(key.rpartition(".")[0])]:
                del tensors[other]
        case "order":
            items = list(tensors.items())
            rng.shuffle(items)
            tensors.clear()
            tensors.update(items)
    return f"{how} {key[:40]}"


_TENSOR_DAMAGE: list[tuple[str, Callable[[torch.Tensor, random.Random], object]]] = [
    ("fill", lambda t, rng: torch.full_like(t, rng.choice(_FILLS)) if t.is_floating_point() else t),
    ("poke", lambda t, rng: _poked(t, rng)),
    ("dtype", lambda t, rng: t.to(rng.choice(_DTYPES))),
    ("longer", lambda t, rng: torch.cat([t, t], rng.randrange(t.ndim))),
    ("shorter", lambda t, rng: t[: len(t) // 2]),
    ("empty", lambda t, rng: t[:0]),
    ("scalar", lambda t, rng: t.flatten()[0]),
    ("flat", lambda t, rng: t.flatten()),
    ("axes", lambda t, rng: t.reshape(*[1] * rng.choice([1, 5, 60]), *t.shape)),
    ("turned", lambda t, rng: t.transpose(0, -1)),
    ("expanded", lambda t, rng: t.flatten()[:1].expand(t.shape)),
    ("huge", lambda t, rng: t.flatten()[:1].expand(rng.choice([10**6, 2**31, 2**40, 2**62]))),
    ("wide", lambda t, rng: t.flatten()[:1].expand(*[rng.choice([1, 3, 2**20]) for _ in t.shape])),
    ("overlapping", lambda t, rng: t.flatten().as_strided(t.shape, [1] * t.ndim)),
    ("view", lambda t, rng: torch.cat([t.flatten()] * 2)[1 : 1 + t.numel()].reshape(t.shape)),
    ("sparse", lambda t, rng: t.to_sparse()),
    ("meta", lambda t, rng: t.to("meta")),
    ("parameter", lambda t, rng: torch.nn.Parameter(t)),
    ("array", lambda t, rng: t.numpy()),
    ("list", lambda t, rng: t.tolist()),
    ("zeros", lambda t, rng: torch.zeros(rng.choice([10**5, 10**6]))),
]


def _poked(tensor: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """One value of many replaced, as only a check of every value finds."""
    tensor = tensor.clone()
    tensor.view(-1)[rng.randrange(tensor.numel())] = rng.choice([float("nan"), 1e30, 0.0, -1.0])
    return tensor


def _wrapped(
    tensors: Tensors, state: dict[str, object] | None, rng: random.Random
) -> tuple[object, str]:
    """The state dict inside what a training program saves around it."""
    how = rng.choice(["bare"] * 8 + ["model", "module", "ema", "deep", "twice", "mixed", "many"])
    content: dict = dict(tensors)
    match how:
        case "model":
            content = {rng.choice(["model", "state_dict", "net", "a.b", "\n"]): content, "epoch": 3}
        case "module":
            prefix = rng.choice(
                ["module.", "_orig_mod.", "glow.", "model.module.", ".", "..", "\n."]
            )
            content = {prefix + key: value for key, value in content.items()}
        case "ema":
            content = {"model": content, "ema": dict(content), "step": rng.choice(ODD[:-3])}
        case "deep":
            for _ in range(rng.choice([2, 5, 30, 200])):
                content = {"state_dict": content}
        case "twice":
            content |= {f"ema.{key}": value for key, value in content.items()}
        case "mixed":
            halves = list(content)[::2]
            content = {f"module.{k}" if k in halves else k: v for k, v in content.items()}
        case "many":
            content = {f"m{i}": dict(content) for i in range(rng.choice([3, 70]))}
    if state is not None:
        key = rng.choice(["optimizer", "optim", "optimizer_state_dict"])
        content = {
            **content,
            key: rng.choice([*[state] * 6, [state], [state, state], {"0": state}]),
        }
    return content, how


def _saved(content: object, rng: random.Random) -> tuple[bytes, str]:
    """A file of torch.save, in either format, with its parts damaged."""
    buffer = io.BytesIO()
    is_zip = rng.random() < 0.75
    protocol = rng.choice([2, 2, 2, 3, 4, 5])
    try:
        torch.save(content, buffer, _use_new_zipfile_serialization=is_zip, pickle_protocol=protocol)
    except (RuntimeError, NotImplementedError, RecursionError, UnicodeEncodeError, ValueError):
        return b"\x80\x02}.", "what PyTorch cannot save"
    data = buffer.getvalue()
    chance = rng.random()
    if is_zip:
        if chance < 0.15:
            return zips.damage_zip(data, rng)
        if chance < 0.25:
            return zips.change_record(data, "data.pkl", lambda pickle: forge(pickle, rng)), "forged"
        if chance < 0.28:
            return zips.change_record(data, "data.pkl", lambda _: hostile(rng)), "hostile pickle"
    elif chance < 0.15:
        return forge(data, rng), "forged legacy"
    elif chance < 0.2:
        return hostile(rng), "hostile legacy"
    if chance > 0.9:
        return damage_bytes(data, rng)
    return data, "zip" if is_zip else "legacy"


def _safetensors(tensors: Tensors, rng: random.Random) -> tuple[bytes, str]:
    """A safetensors file, its header damaged at times."""
    kinds = {torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.int64: "I64"}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = b""
    for key, value in tensors.items():
        if not isinstance(value, torch.Tensor) or value.numel() > 10**5 or value.is_sparse:
            continue
        if value.dtype not in kinds or value.device.type == "meta":
            value = torch.zeros(value.shape)
        data = value.detach().contiguous().numpy().tobytes()
        places = [len(body), len(body) + len(data)]
        header[key] = {
            "dtype": kinds[value.dtype],
            "shape": list(value.shape),
            "data_offsets": places,
        }
        body += data
    text, how = json.dumps(header).encode(), "safetensors"
    if rng.random() < 0.6:
        text, how = damage_json(header, rng)
    length = len(text) if rng.random() < 0.95 else rng.choice([0, 2**32, 2**63, len(text) - 1])
    data = length.to_bytes(8, "little") + text + body
    if rng.random() < 0.15:
        return damage_bytes(data, rng)
    return data, f"safetensors {how}"
