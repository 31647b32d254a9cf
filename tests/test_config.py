"""Configuration: ranges, image sizes, shapes of latents, and the way through `hparams.json`."""

import dataclasses
import json
import re
from typing import Any

import pytest

from glow_jax import Config, GlowError, ModelConfig
from glow_jax.cli.flags import parse
from glow_jax.cli.training_flags import parse_training
from glow_jax.config import (
    DataConfig,
    OptimizerConfig,
    OutputConfig,
    TrainingConfig,
    from_json,
    to_json,
)
from glow_jax.config.checks import NO_FLAG


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (ModelConfig, "K", 0),
        (ModelConfig, "L", 0),
        (ModelConfig, "hidden_channels", -1),
        (ModelConfig, "actnorm_scale", 0.0),
        (ModelConfig, "actnorm_scale", float("nan")),
        (ModelConfig, "n_bits", 0),
        (ModelConfig, "n_bits", 9),
        (ModelConfig, "multi_class", True),  # without y_condition
        (DataConfig, "n_workers", -1),
        (DataConfig, "validation", -0.1),
        (DataConfig, "validation", 1.0),
        (DataConfig, "image_size", -1),
        (DataConfig, "memory_limit", -1.0),
        (OptimizerConfig, "lr", 0.0),
        (OptimizerConfig, "lr", float("nan")),
        (OptimizerConfig, "final_lr", 1e-4),  # without the cosine schedule
        (OptimizerConfig, "warmup", -1.0),
        (OptimizerConfig, "polyak_epochs", 0.0),
        (OptimizerConfig, "polyak_epochs", float("inf")),
        (OptimizerConfig, "max_grad_clip", -1.0),
        (OptimizerConfig, "max_grad_norm", -1.0),
        (OptimizerConfig, "ema_decay", 1.0),
        (OptimizerConfig, "ema_decay", -0.5),
        (TrainingConfig, "batch_size", 0),
        (TrainingConfig, "eval_batch_size", 0),
        (TrainingConfig, "epochs", 0),
        (TrainingConfig, "n_init_batches", 0),
        (TrainingConfig, "y_weight", -0.01),
        (TrainingConfig, "seed", -1),
        (TrainingConfig, "seed", 2**32),
        (TrainingConfig, "saved_optimizer", "a/run"),  # without saved_model
        (OutputConfig, "devices", -1),
    ],
)
def test_values_out_of_range(kind: Any, name: str, value: object) -> None:
    with pytest.raises(GlowError) as caught:
        kind(**{name: value})
    assert str(caught.value).startswith(f"{name} is {value}; it must be ")


def test_fresh_and_resume_exclude_each_other() -> None:
    with pytest.raises(GlowError, match="--fresh starts over and --resume goes on"):
        OutputConfig(fresh=True, resume=True)


def test_values_at_the_edges_of_their_ranges() -> None:
    ModelConfig(K=1, L=1, hidden_channels=1, n_bits=1, image_shape=(2, 2, 1))
    ModelConfig(y_condition=True, multi_class=True)
    DataConfig(n_workers=0, validation=0)
    OptimizerConfig(warmup=0, ema_decay=0)
    TrainingConfig(seed=2**32 - 1, y_weight=0, saved_model="a/run", saved_optimizer="a/run")


@pytest.mark.parametrize(
    ("image_shape", "L", "advice"),
    [
        ((28, 28, 1), 3, "the largest L that fits is 2"),
        ((32, 12, 3), 3, "the largest L that fits is 2"),
        ((6, 32, 3), 2, "the largest L that fits is 1"),
        ((32, 32, 3), 6, "the largest L that fits is 5"),
        ((7, 8, 1), 1, "no L fits an odd size"),
    ],
)
def test_image_sizes_that_cannot_be_squeezed(image_shape: Any, L: int, advice: str) -> None:
    with pytest.raises(GlowError) as caught:
        ModelConfig(image_shape=image_shape, L=L)
    height, width, _ = image_shape
    assert f"{height} x {width}" in str(caught.value)
    assert f"divisible by {2**L}; {advice}." in str(caught.value)
    fits = "fits is" in advice
    if fits:
        ModelConfig(image_shape=image_shape, L=int(advice[-1]))


@pytest.mark.parametrize(
    ("image_shape", "L", "shapes"),
    [
        ((32, 32, 3), 3, ((16, 16, 6), (8, 8, 12), (4, 4, 48))),
        ((8, 4, 1), 1, ((4, 2, 4),)),
        ((8, 16, 4), 2, ((4, 8, 8), (2, 4, 32))),
    ],
)
def test_shapes_of_latents(image_shape: Any, L: int, shapes: Any) -> None:
    config = ModelConfig(image_shape=image_shape, L=L)
    assert config.latent_shapes == shapes
    height, width, channels = image_shape
    assert config.dimensions == height * width * channels
    assert config.dimensions == sum(h * w * c for h, w, c in shapes)


def test_the_published_defaults() -> None:
    model, training, optimizer = ModelConfig(), TrainingConfig(), OptimizerConfig()
    assert (model.K, model.L, model.hidden_channels, model.n_bits) == (32, 3, 512, 8)
    assert (model.flow_permutation, model.flow_coupling) == ("invconv", "affine")
    assert (model.LU_decomposed, model.learn_top, model.y_condition) == (True, True, False)
    assert (training.batch_size, training.eval_batch_size, training.epochs) == (64, 512, 250)
    assert (training.n_init_batches, training.y_weight) == (8, 0.01)
    assert (optimizer.lr, optimizer.warmup, optimizer.optimizer) == (5e-4, 5, "adamax")


# hparams.json


def through_json(config: Config) -> Config:
    return from_json(json.loads(json.dumps(to_json(config))))


def test_through_json_and_back() -> None:
    config = Config(
        preset="digits",
        model=ModelConfig(
            K=3,
            L=2,
            flow_permutation="shuffle",
            y_condition=True,
            multi_class=True,
            image_shape=(8, 12, 1),
            plain_levels=(0, 1),
            n_bits=4,
        ),
        data=DataConfig(dataset="digits", augment=False, validation=0.1),
        optimizer=OptimizerConfig(optimizer="adam", lr=1e-3, warmup=0.5),
        training=TrainingConfig(seed=2**32 - 1, saved_model="a/run"),
        output=OutputConfig(output_dir="ein/Ordner mit Lücken", cuda=False),
    )
    assert through_json(config) == config
    assert isinstance(through_json(config).model.image_shape, tuple)
    assert through_json(Config()) == Config()
    assert hash(through_json(config).model) == hash(config.model)  # models hold it statically


def test_whole_numbers_become_floats() -> None:
    optimizer = from_json({"optimizer": {"warmup": 5, "lr": 1}}).optimizer
    assert (type(optimizer.warmup), type(optimizer.lr)) == (float, float)


def test_absent_fields_take_their_defaults() -> None:
    assert from_json({}) == Config()
    assert from_json({"model": {"K": 4}}) == Config(model=ModelConfig(K=4))
    assert from_json({"optimizer": {"lr": 0.1}}).optimizer.polyak_epochs == 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([], ["hparams is []", "object"]),
        (None, ["hparams is None"]),
        ({"model": 3}, ["hparams.model is 3", "object"]),
        ({"modle": {}}, ["'modle'"]),
        ({"model": {"depth": 3}}, ["hparams.model", "'depth'"]),
        ({"model": {"K": "3"}}, ["hparams.model.K is '3'", "int"]),
        ({"model": {"K": 3.0}}, ["hparams.model.K is 3.0", "int"]),
        ({"model": {"K": True}}, ["hparams.model.K is True", "int"]),
        ({"model": {"K": None}}, ["hparams.model.K is None", "int"]),
        ({"model": {"learn_top": 1}}, ["hparams.model.learn_top is 1", "bool"]),
        ({"model": {"actnorm_scale": "1"}}, ["hparams.model.actnorm_scale is '1'", "float"]),
        ({"model": {"flow_coupling": "affin"}}, ["hparams.model.flow_coupling is 'affin'"]),
        ({"model": {"flow_coupling": []}}, ["hparams.model.flow_coupling is []"]),
        ({"model": {"image_shape": [32, 32]}}, ["hparams.model.image_shape is [32, 32]"]),
        ({"model": {"image_shape": [32, 32, 3.0]}}, ["hparams.model.image_shape"]),
        ({"model": {"image_shape": 32}}, ["hparams.model.image_shape is 32"]),
        ({"model": {"plain_levels": ["0"]}}, ["hparams.model.plain_levels is ['0']"]),
        ({"preset": 3}, ["hparams.preset is 3"]),
        ({"output": {"output_dir": 1}}, ["hparams.output.output_dir is 1", "str"]),
        ({"model": {"n_bits": 9}}, ["n_bits is 9", "from 1 to 8"]),
        ({"training": {"seed": -1}}, ["seed is -1"]),
    ],
)
def test_json_that_does_not_fit(values: object, words: list[str]) -> None:
    with pytest.raises(GlowError) as caught:
        from_json(values)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"flow_permutation": "rotate"}, "'rotate'"),
        ({"flow_coupling": "cubic"}, "'cubic'"),
        ({"plain_levels": (3,)}, "plain_levels"),
        ({"y_classes": 0, "y_condition": True}, "y_classes is 0"),
        ({"y_classes": -1}, "y_classes is -1"),
        ({"image_shape": (-8, 8, 1)}, "image_shape"),
    ],
)
def test_architectures_that_cannot_be_built_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(GlowError, match=words):
        ModelConfig(**changes)


def test_unknown_optimizer_is_refused() -> None:
    with pytest.raises(GlowError, match="'sgd'"):
        OptimizerConfig(optimizer="sgd")  # pyright: ignore[reportArgumentType]


# Flags


def test_an_error_is_a_value_error() -> None:
    assert issubclass(GlowError, ValueError)
    with pytest.raises(ValueError, match="K is 0"):
        ModelConfig(K=0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--K 0", "K is 0; it must be at least 1."),
        ("--hidden-channels -3", "hidden_channels is -3; it must be at least 1."),
        ("--warmup nan", "warmup is nan; it must be 0 (off) or above."),
        ("--no-y-condition --multi_class", "multi_class is True; it must be off if y_condition"),
        ("--checkpoint_every never", "checkpoint_every is 'never'; it must be a number of steps"),
        ("--preset nothing", "There is no preset 'nothing'; there are digits"),
    ],
)
def test_a_value_out_of_range_is_one_sentence(
    line: str, message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(GlowError) as caught:
        parse_training(line.split())
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr() == ("", "")  # no box of the parser's


def test_every_field_has_a_flag_and_help_but_those_that_are_no_choice(
    capsys: pytest.CaptureFixture,
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(Config, ["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out.replace("_", "-")
    without = set()
    for section in (ModelConfig, DataConfig, OptimizerConfig, TrainingConfig, OutputConfig):
        for entry in dataclasses.fields(section):
            shown = re.search(rf"--(no-)?{entry.name.replace('_', '-')}\b", text) is not None
            has_flag = not entry.metadata.items() >= NO_FLAG.items()
            assert shown == has_flag, entry.name
            without |= set() if has_flag else {entry.name}
    assert without == {
        "image_shape",
        "y_classes",
        "classifier",
        "actnorm_logs_factor",
        "plain_levels",
    }
    with pytest.raises(GlowError, match="Unrecognized options: --y_classes"):
        parse(Config, ["--y_classes", "3"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--K", "x"], "Error parsing --K: invalid literal for int() with base 10: 'x'; "),
        (["--K"], "Missing value for argument '--K'. Expected 1 values; "),
        (["--epoch", "3"], "perhaps you meant --epochs or --polyak-epochs; "),
        (["--flow_coupling", "both"], "Expected one of ('additive', 'affine'); "),
        (["--step", "last"], "could be instantiated from ['last']; "),
    ],
)
def test_what_is_wrong_with_a_flag_is_one_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(GlowError) as caught:
        parse(Config, words)
    assert f"{sentence}--help lists the flags." in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr() == ("", "")


def test_fields_without_a_flag_keep_the_values_of_the_default() -> None:
    model = ModelConfig(image_shape=(8, 8, 1), L=2, plain_levels=(1,), classifier=False)
    config = parse(Config, ["--K", "5"], default=Config(model=model))
    assert config == Config(model=dataclasses.replace(model, K=5))
    assert type(config.model) is ModelConfig
