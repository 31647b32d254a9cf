"""The PyTorch Glow against checkpoints and numbers of the implementation with the same layout."""

import json
import math
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from golden_cases import DATA, PUBLISHED, TRAINED, load_arrays

from glow_jax.bridge.torch_glow import Glow, bits_per_dim, loss

# Tensors as small as these are faster on one thread.
torch.set_num_threads(1)


class Golden:
    """A folder of checkpoints, inputs and outputs of y0ast/Glow-PyTorch."""

    def __init__(self, name: str) -> None:
        # The largest differences met: latents 3e-6, bits/dim 1.4e-6, decoded images 1e-6,
        # initialised parameters 5e-7; over training, losses 2.4e-6, weights 6e-7, moments 2e-6.
        self.folder = DATA / name
        self.hparams = json.loads((self.folder / "hparams.json").read_text())
        self.arrays = load_arrays(name)
        shape = self.arrays["eval_images"].shape[1:]
        assert len(shape) == 3
        self.image_shape = shape

    def load(self, file: str) -> dict[str, Any]:
        return torch.load(self.folder / file, weights_only=True)

    def model(self, file: str) -> Glow:
        keys = ("K", "L", "hidden_channels", "flow_permutation", "flow_coupling", "LU_decomposed")
        keys += ("learn_top", "y_condition", "actnorm_scale")
        model = Glow(image_shape=self.image_shape, **{key: self.hparams[key] for key in keys})
        state = self.load(file)
        state = state.get("model", state)
        assert list(model.state_dict()) == list(state)
        model.load_state_dict(state, strict=True)
        return model

    def nchw(self, key: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[key]).movedim(-1, -3)

    def x(self, prefix: str) -> torch.Tensor:
        return self.nchw(f"{prefix}_images").float() / 256 - 0.5 + self.nchw(f"{prefix}_noise")

    def y(self, prefix: str) -> torch.Tensor | None:
        if not self.hparams["y_condition"]:
            return None
        return torch.eye(10)[torch.from_numpy(self.arrays[f"{prefix}_labels"])]


def assert_same_weights(model: Glow, expected: Glow, atol: float) -> None:
    weights = model.state_dict()
    for key, wanted in expected.state_dict().items():
        torch.testing.assert_close(
            weights[key], wanted, rtol=0, atol=atol, msg=lambda text, key=key: f"{key}: {text}"
        )


@pytest.mark.parametrize("name", PUBLISHED)
@torch.no_grad()
def test_golden_evaluation(name: str) -> None:
    golden = Golden(name)
    model, x, y = golden.model("glow.pt"), golden.x("eval"), golden.y("eval")
    code = model(x, y)
    dims = math.prod(golden.image_shape)
    mean, logs = model.top_prior(len(x), y)
    z = golden.nchw("eval_z")
    top = torch.distributions.Normal(mean, logs.exp()).log_prob(code.latents[-1]).sum((1, 2, 3))
    objective = code.log_prob - top - dims * math.log(256)
    bpd = bits_per_dim(code.log_prob, golden.image_shape)
    factored_out = [None] * (model.L - 1)
    decoded = model.decode([*factored_out, z], y)

    torch.testing.assert_close(code.latents[-1], z, rtol=0, atol=1e-5)
    torch.testing.assert_close(mean, golden.nchw("eval_prior_mean"), rtol=0, atol=1e-6)
    torch.testing.assert_close(logs, golden.nchw("eval_prior_logs"), rtol=0, atol=1e-6)
    expected = torch.from_numpy(golden.arrays["eval_flow_objective"])
    torch.testing.assert_close(objective, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(bpd, torch.from_numpy(golden.arrays["eval_bpd"]), rtol=0, atol=5e-6)
    expected = golden.nchw("eval_decoded_temperature0")
    torch.testing.assert_close(decoded, expected, rtol=0, atol=1e-5)
    if y is not None:
        expected = torch.from_numpy(golden.arrays["eval_y_logits"])
        torch.testing.assert_close(model.classify(code.latents[-1]), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", PUBLISHED)
def test_golden_initialisation(name: str) -> None:
    golden = Golden(name)
    model = golden.model("uninitialised.pt")
    model.initialise(golden.x("init"), golden.y("init"))
    assert_same_weights(model, golden.model("initialised.pt"), atol=1e-5)


@pytest.mark.parametrize("start", ["initialised.pt", "midway.pt"])
@pytest.mark.parametrize("name", TRAINED)
def test_golden_training(name: str, start: str) -> None:
    golden = Golden(name)
    model = golden.model(start)
    optimizer = torch.optim.Adamax(model.parameters(), weight_decay=5e-5)
    first = 0
    if start == "midway.pt":
        first = 6
        optimizer.load_state_dict(golden.load(start)["optimizer"])
    x, y = golden.x("train"), golden.y("train")
    losses = golden.arrays["train_losses"]
    for i in range(first, len(losses)):
        for group in optimizer.param_groups:
            group["lr"] = float(golden.arrays["train_lr"][i])
        optimizer.zero_grad()
        value = loss(model, x[i], None if y is None else y[i])
        value.backward()
        optimizer.step()
        assert value.item() == pytest.approx(losses[i], abs=1e-5)
    assert_same_weights(model, golden.model("glow.pt"), atol=5e-6)
    for moments in (golden.load("optimizer.pt"), golden.load("midway.pt")["optimizer"]):
        assert list(moments["state"]) == list(range(len(list(model.parameters()))))
        for i, parameter in enumerate(model.parameters()):
            assert moments["state"][i]["exp_avg"].shape == parameter.shape
    expected = golden.load("optimizer.pt")["state"]
    for i, state in optimizer.state_dict()["state"].items():
        torch.testing.assert_close(state["exp_avg"], expected[i]["exp_avg"], rtol=0, atol=2e-5)
        torch.testing.assert_close(state["exp_inf"], expected[i]["exp_inf"], rtol=0, atol=2e-5)
