"""The flags of `train.py`: what they mean, and which are refused."""

from pathlib import Path

import pytest
from training_runs import error_of, two_epochs

import train as train_script
from glow_jax.cli.training_flags import parse_training
from glow_jax.config import Config, ModelConfig
from glow_jax.runs import load_run, write_config


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_epochs(tmp_path_factory)


def test_every_flag_of_the_pytorch_code_parses() -> None:
    line = (
        "--dataset cifar10 --dataroot ./ --download --no_augment --batch_size 64 --epochs 250 "
        "--eval_batch_size 512 --saved_model= --saved_optimizer= --seed 0 --hidden_channels 512 "
        "--K 32 --L 3 --actnorm_scale 1.0 --flow_permutation invconv --flow_coupling affine "
        "--no_LU_decomposed --no_learn_top --y_condition --y_weight 0.01 --max_grad_clip 0 "
        "--max_grad_norm 0 --n_workers 6 --lr 5e-4 --warmup 5 --n_init_batches 8 --no_cuda "
        "--output_dir output/ --fresh"
    )
    config = parse_training(line.split())
    assert not config.model.LU_decomposed
    assert not config.model.learn_top
    assert not config.data.augment
    assert not config.output.cuda
    dashes = parse_training(["--no-LU-decomposed", "--hidden-channels", "7"])
    assert dashes.model.hidden_channels == 7
    assert not dashes.model.LU_decomposed
    assert parse_training([]) == Config()


def test_the_help_says_first_what_the_command_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_training(["--help"])
    assert "\n\nTrain a Glow.\n\n" in capsys.readouterr().out


def test_bits_are_those_of_the_data_set_unless_given() -> None:
    assert parse_training(["--dataset", "digits"]).model.n_bits == 4
    assert parse_training(["--dataset", "digits", "--n_bits", "3"]).model.n_bits == 3
    assert parse_training(["--dataset", "cifar10"]).model.n_bits == 8


def test_bits_follow_the_data_set_that_replaces_a_presets() -> None:
    assert parse_training(["--preset", "cifar10", "--dataset", "digits"]).model.n_bits == 4
    assert parse_training(["--preset", "digits"]).model.n_bits == 4


@pytest.mark.slow
def test_a_saved_optimizer_brings_its_settings(trained: Path) -> None:
    line = ["--preset", "digits", "--saved_model", str(trained), "--saved_optimizer", str(trained)]
    assert parse_training(line).optimizer == load_run(trained).config.optimizer
    assert parse_training([*line, "--lr", "0.5"]).optimizer.lr == 0.5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "digit"], ["'digit'", "digits"]),
        (["--preset", "digits", "--dataset", "digitz"], ["'digitz'", "digits"]),
        (["--preset", "digits", "--L", "4"], ["8 x 8", "L = 4", "largest L that fits is 3"]),
        (
            ["--preset", "digits", "--batch_size", "5000"],
            ["= 5000 * 1 is larger", "1293"],
        ),
        (["--preset", "digits", "--n_init_batches", "40"], ["40 * 64", "1293"]),
        (["--preset", "digits", "--n_bits", "9"], ["n_bits is 9", "1 to 8"]),
        (["--preset", "digits", "--lr", "-1"], ["lr is -1.0"]),
        (
            ["--preset", "digits", "--optimizer", "openai_adamax", "--polyak_epochs", "0.04"],
            ["polyak_epochs is 0.04", "20 updates", "more --polyak_epochs"],
        ),
        (["--preset", "digits", "--schedule", "cosine", "--final_lr", "0.1"], ["final_lr is 0.1"]),
        (
            ["--preset", "digits", "--schedule", "cosine", "--epochs", "5"],
            ["warmup is 5 of 5 epochs", "--warmup", "--epochs"],
        ),
        (["--preset", "digits", "--saved_model", "nowhere"], ["nowhere", "no run folder"]),
        (["--preset", "digits", "--multi_class", "--y_condition"], ["--multi_class"]),
        (["--preset", "digits", "--fresh", "--resume"], ["--fresh", "--resume"]),
    ],
)
def test_bad_input_to_train(
    arguments, words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    folder = tmp_path / "run"
    message = error_of(train_script.main, monkeypatch, capsys, *arguments, "--output_dir", folder)
    for word in words:
        assert word in message
    assert not folder.exists()


def test_unknown_flag_value_exits_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    message = error_of(train_script.main, monkeypatch, capsys, "--flow_coupling", "quadratic")
    assert "'quadratic'" in message


def test_a_refused_start_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_config(tmp_path / "empty", Config(model=ModelConfig(K=1, L=1, image_shape=(8, 8, 1))))
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "precious").write_text("mine")
    for folder, flags in ((tmp_path / "new", []), (tmp_path / "old", ["--fresh"])):
        arguments = ["--preset", "digits", "--saved_model", tmp_path / "empty", *flags]
        arguments += ["--output_dir", folder]
        assert "no checkpoint" in error_of(train_script.main, monkeypatch, capsys, *arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "old"]
