"""Completing the configuration of a run before it starts."""

import dataclasses
import secrets
import zlib

from glow_jax.config import Config
from glow_jax.data import Dataset, Readable
from glow_jax.data.fit import check_fits
from glow_jax.devices import Devices, of_main_process, same_in_all_processes
from glow_jax.errors import GlowError


def resolve(config: Config, dataset: Dataset, devices: int) -> Config:
    """Fill in the values that the data set, chance and other values decide.

    Args:
        config: the configuration as requested.
        dataset: the images.
        devices: the number of devices that this process trains on.

    Raises:
        GlowError: the model does not fit the data set, or the processes have different flags or
            numbers of devices.
    """
    saved = config.output.output_dir if config.output.resume else config.training.saved_model
    check_fits(config.model, dataset, source=saved)
    every_time = (config.output.resume, config.output.step, config.output.checkpoint_every)
    flags = (dataclasses.replace(config, output=None), every_time, devices)
    if not same_in_all_processes(zlib.crc32(repr(flags).encode())):
        raise GlowError(
            "The processes of this run were started with different flags, or have different "
            "numbers of devices."
        )
    model = dataclasses.replace(
        config.model, image_shape=dataset.image_shape, y_classes=dataset.classes
    )
    seed = config.training.seed or of_main_process(secrets.randbelow(10_000) + 1)
    precision = config.training.network_precision
    training = dataclasses.replace(config.training, seed=int(seed), precision=precision)
    return dataclasses.replace(config, model=model, training=training)


def check_sizes(
    config: Config, training_images: Readable, validation_images: Readable, devices: Devices
) -> None:
    """Raise `GlowError` if there are too few images, or the devices cannot share a batch.

    Nor may an epoch have too few updates for openai_adamax's memory of gradients, or the warm-up
    leave no epoch to the cosine schedule.
    """
    training, images = config.training, len(training_images)
    if config.data.validation and not len(validation_images):
        raise GlowError(
            f"validation is {config.data.validation}, which holds out no training image at all."
        )
    if training.images_per_update > images:
        raise GlowError(
            f"batch_size * accumulate = {training.batch_size} * {training.accumulate} is larger "
            f"than the {images} training images."
        )
    devices.check_batch_size(training.batch_size)
    optimizer, updates = config.optimizer, images // training.images_per_update
    if optimizer.optimizer == "openai_adamax" and updates * optimizer.polyak_epochs < 1:
        raise GlowError(
            f"polyak_epochs is {optimizer.polyak_epochs}, of epochs of {updates} updates; "
            "openai_adamax remembers gradients over at least one update: give more "
            "--polyak_epochs."
        )
    if optimizer.schedule == "cosine" and optimizer.warmup >= training.epochs:
        raise GlowError(
            f"warmup is {optimizer.warmup:g} of {training.epochs} epochs, which leaves none to the "
            "cosine schedule: give fewer epochs of --warmup, or more --epochs."
        )
    starts_new = not (config.output.resume or training.saved_model)
    height, width, _ = config.model.latent_shapes[-1]
    if starts_new and training.n_init_batches * training.batch_size * height * width == 1:
        raise GlowError(
            f"n_init_batches * batch_size = {training.n_init_batches} * {training.batch_size}: an "
            f"actnorm of level {config.model.L}, of 1 x 1, cannot be initialised from one value; "
            "give more --n_init_batches."
        )
    if starts_new and training.n_init_batches * training.batch_size > images:
        raise GlowError(
            f"n_init_batches * batch_size = {training.n_init_batches} * {training.batch_size} is "
            f"larger than the {images} training images; give fewer --n_init_batches."
        )
