"""JAX against numbers that the public PyTorch implementations gave."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

pytest.importorskip("torch")

from golden_cases import CHAIYUJIN, DATA, PUBLISHED, ROSINALITY, TRAINED, load_arrays
from parity import Figures, make_step, print_when_done

from glow_jax import Glow, bits_per_dim, initialise_actnorm
from glow_jax.bridge import mapping
from glow_jax.bridge.from_torch import convert
from glow_jax.bridge.proof import log_det
from glow_jax.config import Config, OptimizerConfig
from glow_jax.training.optimizer import make_optimizer

FIGURES = Figures("JAX and the public implementations")
print_figures = print_when_done(FIGURES)


# Compiling takes most of the time, and the bounds hold for unoptimised programs too; what a user
# runs is compared by test_parity_float32.py and by the proof of every conversion.


def labels(folder: Path, arrays: dict[str, np.ndarray], prefix: str) -> Any:
    conditional = json.loads((folder / "hparams.json").read_text())["y_condition"]
    return np.eye(10, dtype=np.float32)[arrays[f"{prefix}_labels"]] if conditional else None


def images(arrays: dict[str, np.ndarray], prefix: str) -> jax.Array:
    pixels = arrays[f"{prefix}_images"].astype(np.float32)
    return jnp.asarray(pixels / 256 - 0.5 + arrays[f"{prefix}_noise"])


def check(name: str, ours: Any, theirs: Any, tolerance: float) -> None:
    assert np.shape(ours) == np.shape(theirs), name
    difference = np.max(np.abs(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)))
    FIGURES.check(name, float(difference), tolerance)


@pytest.mark.parametrize("name", PUBLISHED)
def test_evaluation(name: str) -> None:
    folder = DATA / name
    arrays = load_arrays(name)
    model, config, _ = convert(folder / "glow.pt")
    shape, dimensions = config.model.image_shape, config.model.dimensions
    x, y = images(arrays, "eval"), labels(folder, arrays, "eval")
    assert shape == x.shape[1:]

    @jax.jit
    def evaluate(model: Glow, x: jax.Array, y: Any, top: jax.Array) -> dict[str, Any]:
        code = model.encode(x, y)
        prior = model.top_prior(x.shape[0], y, x.dtype)
        factored_out = (None,) * (config.model.L - 1)
        return {
            "z": code.latents[-1],
            "prior_mean": prior.mean,
            "prior_logs": prior.logs,
            "bpd": bits_per_dim(code.log_prob, shape),
            "flow_objective": code.log_prob - prior.log_prob(code.latents[-1]),
            "y_logits": None if y is None else model.classify(code.latents),
            "decoded_temperature0": model.decode((*factored_out, top), y, temperature=0),
        }

    ours = evaluate(model, x, y, arrays["eval_z"])
    nats = dimensions * np.log(2)
    objective = arrays["eval_flow_objective"] / nats + 8
    check(
        "evaluation: flow objective / (D log 2)", ours.pop("flow_objective") / nats, objective, 1e-5
    )
    check("evaluation: bits/dim", ours.pop("bpd"), arrays["eval_bpd"], 1e-5)
    for quantity, value in ours.items():
        if value is not None:
            check(f"evaluation: {quantity}", value, arrays[f"eval_{quantity}"], 1e-4)


@pytest.mark.parametrize("name", TRAINED)
def test_initialisation(name: str) -> None:
    folder = DATA / name
    arrays = load_arrays(name)
    model, _, _ = convert(folder / "uninitialised.pt")
    x, y = images(arrays, "init"), labels(folder, arrays, "init")
    ours = mapping.from_glow(initialise_actnorm(model, x, y))
    theirs = mapping.from_glow(convert(folder / "initialised.pt")[0])
    assert ours.keys() == theirs.keys()
    for key in ours:
        check("parameters after initialisation", ours[key], theirs[key], 1e-4)


@pytest.mark.parametrize("name", TRAINED)
def test_training_from_the_start_and_from_half_way(name: str) -> None:
    folder = DATA / name
    arrays = load_arrays(name)
    model, config, _ = convert(folder / "initialised.pt")
    run = Config(model=config.model, optimizer=OptimizerConfig(lr=5e-4, warmup=5))
    # Epochs of three batches give the learning rates that they had.
    optimizer = make_optimizer(run.optimizer, 3)
    step = make_step(run, optimizer)

    x, y = images(arrays, "train"), labels(folder, arrays, "train")
    if y is None:
        y = np.zeros((*x.shape[:2], 0), np.float32)
    final, _, final_state = convert(folder / "glow.pt", optimizer=folder / "optimizer.pt")
    theirs = mapping.from_glow(final)
    half_way, _, half_way_state = convert(folder / "midway.pt")
    fresh_state = optimizer.init(nnx.state(model, nnx.Param))
    for start, state, first in ((model, fresh_state, 0), (half_way, half_way_state, 6)):
        stage = f"resumed at step {first}" if first else "12 steps"
        for i in range(first, 12):
            start, state, loss = step(start, state, x[i], y[i])
            check(f"{stage}: losses", loss, arrays["train_losses"][i], 1e-4)
        ours = mapping.from_glow(start)
        for key in theirs:
            check(f"{stage}: final parameters", ours[key], theirs[key], 1e-4)
        for moment, wanted in zip(
            jax.tree.leaves(state), jax.tree.leaves(final_state), strict=True
        ):
            check(f"{stage}: moments", moment, wanted, 1e-4)


@pytest.mark.parametrize("name", ROSINALITY)
def test_rosinality(name: str) -> None:
    folder = DATA / name
    arrays = load_arrays(name)
    settings = json.loads((folder / "settings.json").read_text())
    n_bits = int(arrays["n_bits"])
    model, config, state = convert(
        folder / "model.pt", image_size=settings["image_size"], n_bits=n_bits
    )
    assert state is None
    shape, dimensions = config.model.image_shape, config.model.dimensions
    bins = np.floor(arrays["images"] / 2 ** (8 - n_bits))
    x = (bins / 2**n_bits - 0.5 + arrays["noise"]).astype(np.float32)
    eps = tuple(arrays[f"eps{level}"] for level in range(config.model.L))

    @jax.jit
    def evaluate(model: Glow, x: jax.Array, eps: Any) -> tuple[Any, jax.Array, jax.Array]:
        return model.encode(x), log_det(model, x), model.decode_noise(eps)

    code, logdet, sample = evaluate(model, x, eps)
    nats = dimensions * np.log(2)
    log_dets = np.broadcast_to(arrays["logdet"], logdet.shape)
    check("rosinality: log-determinant / (D log 2)", logdet / nats, log_dets / nats, 1e-5)
    check(
        "rosinality: log p / (D log 2)",
        (code.log_prob - logdet) / nats,
        arrays["log_p"] / nats,
        1e-5,
    )
    check(
        "rosinality: bits/dim",
        bits_per_dim(code.log_prob, shape, n_bits=n_bits),
        arrays["bpd"],
        1e-5,
    )
    for level, latent in enumerate(code.latents):
        check("rosinality: latents", latent, arrays[f"z{level}"], 1e-4)
    check("rosinality: sample", sample, arrays["sample"], 1e-4)


@pytest.mark.parametrize("name", CHAIYUJIN)
def test_chaiyujin(name: str) -> None:
    folder = DATA / name
    arrays = load_arrays(name)
    settings = json.loads((folder / "settings.json").read_text())
    model, config, state = convert(folder / "save_15.pkl")
    expected = {**settings, "image_shape": tuple(settings["image_shape"])}
    expected.pop("batch_size")
    if not expected["y_condition"]:
        expected.pop("y_classes")
    assert {key: getattr(config.model, key) for key in expected} == expected
    assert config.optimizer.optimizer == "adam"
    assert optax.tree.get_all_with_path(state, "count")[0][1] == 15
    # Theirs are in [0, 1], ours centred.
    x = (arrays["images"] / 255 + arrays["noise"] - 0.5).astype(np.float32)
    y = arrays["labels"] if config.model.y_condition else None

    @jax.jit
    def evaluate(model: Glow, x: jax.Array, y: Any) -> dict[str, jax.Array]:
        code = model.encode(x, y)
        prior = model.top_prior(x.shape[0], y, x.dtype).log_prob(code.latents[-1])
        return {
            "z": code.latents[-1],
            "flow_objective": code.log_prob - prior,
            "prior_log_prob": prior,
        }

    ours = evaluate(model, x, y)
    nats = config.model.dimensions * np.log(2)
    check("chaiyujin: z", ours["z"], arrays["z"], 1e-4)
    for quantity in ("flow_objective", "prior_log_prob"):
        check(
            f"chaiyujin: {quantity} / (D log 2)",
            ours[quantity] / nats,
            arrays[quantity] / nats,
            1e-5,
        )
    # Their temperature 0 means 1 (`eps_std or 1`): what they factored out is a draw, z is not.
    decoded = arrays["decoded_temperature0"] - np.float32(0.5)
    check("chaiyujin: z of decoded", evaluate(model, decoded, y)["z"], arrays["z"], 1e-4)
