"""The order of batches, random crops, and what is streamed."""

import errno
import itertools
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest

from glow_jax import GlowError
from glow_jax.data import Batch, InMemory, streaming
from glow_jax.data.batch_order import InOrder, Process, Shuffled
from glow_jax.data.batching import batches_in_order, random_crops, training_batches
from glow_jax.data.dataset import hold_out
from glow_jax.data.streaming import Streamed


def numbered(n: int) -> InMemory:
    """Images that say which they are: image i is filled with i."""
    images = np.tile(np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1), (1, 4, 4, 1))
    return InMemory(images, np.arange(n) % 3)


def numbers(batch: Batch | InMemory) -> list[int]:
    return batch.images[:, 0, 0, 0].tolist()


def make_split(count: int = 50, size: int = 8, crop: int = 0) -> InMemory:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return InMemory(images, rng.integers(0, 5, count).astype(np.int32), crop)


# Order.


def take(n: int, *, seed: int = 1, first_step: int = 0, images: int = 17) -> list[list[int]]:
    batches = training_batches(
        numbered(images), batch_size=5, classes=3, seed=seed, first_step=first_step
    )
    return [numbers(batch) for batch in itertools.islice(batches, n)]


def test_an_epoch_has_every_image_at_most_once_and_drops_the_last_batch() -> None:
    batches = take(9)  # three epochs of three batches
    assert {len(batch) for batch in batches} == {5}
    epochs = [list(itertools.chain(*batches[start : start + 3])) for start in (0, 3, 6)]
    assert [len(set(epoch)) for epoch in epochs] == [15, 15, 15]
    assert epochs[0] != epochs[1] != epochs[2]
    assert all(epoch != sorted(epoch) for epoch in epochs)


def test_over_the_epochs_every_image_is_seen() -> None:
    assert {image for batch in take(30) for image in batch} == set(range(17))


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    assert take(7) == take(7)
    assert take(3) != take(3, seed=2)
    # Epoch 1 of a seed is not epoch 0 of the next.
    assert take(6)[3:] != take(3, seed=2)


@pytest.mark.parametrize("first_step", [1, 3, 4, 8])
def test_training_resumes_exactly(first_step: int) -> None:
    assert take(5, first_step=first_step) == take(13)[first_step : first_step + 5]


def test_a_batch_knows_its_images_and_labels() -> None:
    batches = training_batches(numbered(17), batch_size=5, classes=3, seed=1, first_step=0)
    for batch in itertools.islice(batches, 4):
        assert batch.indices.tolist() == numbers(batch)
        np.testing.assert_array_equal(batch.labels, np.eye(3)[batch.indices % 3])


def test_evaluation_takes_every_image_in_order() -> None:
    batches = list(batches_in_order(numbered(17), batch_size=5, classes=3))
    assert [len(batch.images) for batch in batches] == [5, 5, 5, 2]
    assert list(itertools.chain(*map(numbers, batches))) == list(range(17))
    assert np.concatenate([batch.indices for batch in batches]).tolist() == list(range(17))
    (whole,) = batches_in_order(numbered(17), batch_size=50, classes=3)
    assert numbers(whole) == list(range(17))


def test_orders_give_every_image_once():
    shuffled = Shuffled(20, 6, seed=1)
    epoch = np.concatenate([shuffled[step] for step in range(3)])
    assert len(set(epoch)) == 18
    assert not np.array_equal(shuffled[0], shuffled[3])
    in_order = InOrder(20, 6)
    np.testing.assert_array_equal(
        np.concatenate(list(map(in_order.__getitem__, range(4)))), range(20)
    )


@pytest.mark.parametrize("streams", [False, True])
def test_processes_take_parts_of_each_batch(streams: bool) -> None:
    split = Streamed(numbered(17), 0) if streams else numbered(17)
    wanted: dict[str, Any] = {"batch_size": 5, "classes": 3}
    parts = [
        [numbers(batch) for batch in batches_in_order(split, process=Process(i, 2), **wanted)]
        for i in range(2)
    ]
    assert [len(part) for part in parts[0]] == [3, 3, 3, 1]
    joined = [one + other for one, other in zip(*parts, strict=True)]
    assert joined == [numbers(batch) for batch in batches_in_order(split, **wanted)]


# Random crops.


def test_random_crops_are_functions_of_draw_and_index():
    images = make_split(6, size=12).images
    indices = np.arange(6)
    crops = random_crops(images, 8, indices, (1, 5))
    np.testing.assert_array_equal(crops[3:], random_crops(images[3:], 8, indices[3:], (1, 5)))
    assert not np.array_equal(crops, random_crops(images, 8, indices, (1, 6)))
    # Every place is reached, and none lies outside.
    flat = np.arange(9, dtype=np.uint8).reshape(1, 3, 3, 1).repeat(400, 0)
    corners = random_crops(flat, 2, np.arange(400), ())[:, 0, 0, 0]
    assert set(corners) == {0, 1, 3, 4}


# Streams.


@pytest.mark.parametrize("n_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_streamed_examples_are_those_in_memory(n_workers: int):
    split = make_split(50, size=12, crop=8)
    kept, _ = hold_out(split, 0.2)
    streamed, held_out = hold_out(Streamed(split, n_workers, crop=8), 0.2)
    assert (len(streamed), len(held_out)) == (40, 10)
    assert streamed.image_shape == kept.image_shape == (8, 8, 3)
    # From the middle of one epoch into the next: a step number is all that a resume needs.
    wanted: dict[str, Any] = {"batch_size": 16, "classes": 5, "seed": 3, "first_step": 3}
    batches = training_batches(streamed, **wanted)
    for step, (one, other) in enumerate(
        zip(training_batches(kept, **wanted), batches, strict=False)
    ):
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
        if step == 4:
            break
    batches.close()


def test_streamed_in_order():
    split = make_split(20)
    parts = list(batches_in_order(Streamed(split, 0), batch_size=8, classes=5))
    np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), split.images)
    assert [len(part.images) for part in parts] == [8, 8, 4]


def numbers_of(split: Streamed, capsys: pytest.CaptureFixture[str]) -> tuple[list[int], str]:
    streaming._say_once.cache_clear()
    parts = split.batches(InOrder(len(split), 8), 0, 3)
    return [number for part in parts for number in numbers(part)], capsys.readouterr().err


@pytest.mark.parametrize("lacks", ["room", "semaphores"])
def test_threads_read_where_shared_memory_is_too_small(
    lacks: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    if lacks == "semaphores":
        monkeypatch.setattr("multiprocessing.context.SpawnContext.BoundedSemaphore", full)
    else:
        monkeypatch.setattr(streaming, "_SHARED", Path(__file__).parent)
        usage = SimpleNamespace(free=4 * 2 * 8 * 4 * 4 - 1)  # two processes, four batches each
        monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    found, said = numbers_of(Streamed(numbered(20), 2), capsys)
    assert found == list(range(20))
    assert "is too small for 2 processes that read images: threads read them instead" in said


class Killing(InMemory):
    """Images whose reading ends the process, as full shared memory does."""

    def __getitem__(self, indices: np.ndarray) -> NoReturn:
        os.kill(os.getpid(), signal.SIGBUS)
        raise AssertionError


def test_a_reading_process_that_is_killed_is_one_sentence():
    split = Streamed(Killing(numbered(8).images, numbered(8).labels), 1)
    with pytest.raises(GlowError, match="reads images was ended by SIGBUS, as happens where"):
        list(split.batches(InOrder(8, 8), 0, 1))
