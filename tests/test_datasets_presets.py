"""The model and the training step of presets, traced without computing anything."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from glow_jax.catalogue import CATALOGUE, sizes
from glow_jax.config import Config
from glow_jax.config.presets import PRESETS, PUBLISHED
from glow_jax.model import Glow
from glow_jax.training.optimizer import make_optimizer
from glow_jax.training.step import make_train_step, new_state, prepare_images

# Tracing a step of each of the others as well takes 20 seconds.
TRACED = ("cifar10-qualitative",)


def config_of(name: str) -> Config:
    """The preset; where it leaves the shape of images to the data set, the catalogue's shape."""
    config = PRESETS[name]
    if config.data.image_size:
        return config
    shape = CATALOGUE[config.data.dataset].image_shape
    return dataclasses.replace(config, model=dataclasses.replace(config.model, image_shape=shape))


def build(config: Config) -> Glow:
    return Glow(config.model, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("name", PRESETS)
def test_a_model_can_be_built(name: str):
    config = config_of(name)
    images = jnp.zeros((2, *config.model.image_shape))
    code = nnx.eval_shape(lambda: build(config).encode(images))
    assert [latent.shape[1:] for latent in code.latents] == list(config.model.latent_shapes)


@pytest.mark.parametrize(
    "name",
    [name if name in TRACED else pytest.param(name, marks=pytest.mark.slow) for name in PRESETS],
)
def test_a_training_step_can_be_traced(name: str):
    config = config_of(name)
    entry = CATALOGUE[config.data.dataset]
    optimizer = make_optimizer(config.optimizer, 100)

    def step() -> jax.Array:
        state = new_state(build(config), optimizer, config)
        prepare = partial(prepare_images, config=config, flips=entry.flips, shifts=entry.shifts)
        train_step = make_train_step(optimizer, config, prepare=prepare)
        count = config.training.batch_size
        images = jnp.zeros((count, *config.model.image_shape), jnp.uint8)
        labels = jnp.zeros((count, entry.classes))
        return train_step(state, images, labels, jnp.arange(count))[1].bits_per_dim

    traced = jax.eval_shape(step)
    assert (traced.shape, traced.dtype) == ((), jnp.float32)


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_agree_with_the_table(name: str):
    config = PRESETS[name]
    entry = CATALOGUE[config.data.dataset]
    assert config.preset == name
    assert config.model.n_bits == entry.n_bits
    size, crop = sizes(entry, config.data.image_size, name)
    assert config.model.image_shape == (crop or size, crop or size, entry.image_shape[2])


def test_published_settings():
    table = {
        name: (row.image_size, row.K, row.L, row.flow_coupling, row.bits_per_dim)
        for name, row in PUBLISHED.items()
    }
    assert table["cifar10"] == (32, 32, 3, "affine", 3.35)
    assert table["imagenet32"] == (32, 48, 3, "affine", 4.09)
    assert table["imagenet64"] == (64, 48, 4, "affine", 3.81)
    assert table["celeba256"] == (256, 32, 6, "additive", 1.03)
    assert PRESETS["celeba256"].model.n_bits == 5
    assert table["lsun64"][1:3] == (48, 3)
    assert table["cifar10-qualitative"][3] == "additive"
