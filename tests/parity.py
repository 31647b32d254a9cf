"""What the parity tests share: the table of differences, and a training step in JAX."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import optax
import pytest
from flax import nnx

from glow_jax import Glow
from glow_jax.config import Config
from glow_jax.files import write_json
from glow_jax.training.step import loss_function


class Figures:
    """The largest difference that each comparison met, beside its bound.

    When a test file is done, `pytest -s` shows the table, and `--figures FILE` keeps it.
    """

    def __init__(self, title: str):
        self.title = title
        self.worst: dict[str, tuple[float, float]] = {}

    def check(self, name: str, difference: float, bound: float, detail: str = "") -> None:
        """Assert that a difference is within its bound, and keep the one nearest to it."""
        assert difference <= bound, f"{name} {detail}: {difference} > {bound}"
        before = self.worst.get(name, (0.0, bound))
        self.worst[name] = max(before, (difference, bound), key=lambda entry: entry[0] / entry[1])

    def print(self) -> None:
        print(f"\n| {self.title} | largest difference | bound |\n|---|---|---|")
        for name, (difference, bound) in self.worst.items():
            print(f"| {name} | {difference:.1e} | {bound:.1e} |")


def print_when_done(figures: Figures) -> Callable[..., Iterator[None]]:
    """A fixture that prints and keeps the table when the tests of a file are done."""

    @pytest.fixture(scope="module", autouse=True)
    def print_figures(request: pytest.FixtureRequest) -> Iterator[None]:
        yield
        figures.print()
        keep(request, figures.title, figures.worst)

    return print_figures


def keep(request: pytest.FixtureRequest, title: str, figures: object) -> None:
    """Put figures under a title into the JSON file that `--figures` names, if it is given."""
    path: Path | None = request.config.getoption("--figures")
    if path is not None:
        kept = json.loads(path.read_text()) if path.exists() else {}
        write_json(path, {**kept, title: figures})


def make_step(config: Config, optimizer: optax.GradientTransformation) -> Callable[..., Any]:
    """One update: (model, state, x, y) -> (model, state, loss)."""

    @jax.jit
    def step(
        model: Glow, state: optax.OptState, x: jax.Array, y: jax.Array
    ) -> tuple[Glow, optax.OptState, jax.Array]:
        graph, params, buffers = nnx.split(model, nnx.Param, ...)

        def loss_of(params: nnx.State) -> jax.Array:
            return loss_function(nnx.merge(graph, params, buffers), x, y, config)[0]

        loss, gradient = jax.value_and_grad(loss_of)(params)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        return nnx.merge(graph, params, buffers), state, loss

    return step
