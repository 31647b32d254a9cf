"""The PyTorch Glow against its own algebra: inverses, Jacobians, gradients and the keys."""

import math
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from glow_jax.bridge.torch_glow import Glow, bits_per_dim, loss
from glow_jax.bridge.torch_layers import ActNorm
from glow_jax.bridge.torch_mixing import Permutation

# Tensors as small as these are faster on one thread.
torch.set_num_threads(1)

SMALL: dict[str, Any] = {"image_shape": (4, 4, 2), "K": 2, "L": 2, "hidden_channels": 5}
CONFIGS: dict[str, dict[str, Any]] = {
    "affine_lu": {},
    "additive_plain": {"flow_coupling": "additive", "LU_decomposed": False},
    "mixed_lu_pad_ones": {"LU_decomposed": (False, True), "padding": "ones"},
    "reverse_no_learn_top": {"flow_permutation": "reverse", "learn_top": False},
    "shuffle_additive": {"flow_permutation": "shuffle", "flow_coupling": "additive"},
    "conditional": {"y_condition": True, "y_classes": 3},
    "conditional_no_learn_top": {"y_condition": True, "y_classes": 3, "learn_top": False},
    "one_level_oblong": {"L": 1, "image_shape": (2, 6, 1)},
    "three_levels": {"L": 3, "K": 1, "image_shape": (8, 8, 1), "padding": "ones"},
    "edge_bias_no_classifier": {
        "hidden_channels": 8,  # of 5, no unit of a layer would be on
        "y_condition": True,
        "y_classes": 3,
        "classifier": False,
        "padding": "edge_bias",
        "actnorm_logs_factor": 3.0,
    },
}


def example(name: str, batch: int) -> tuple[Glow, torch.Tensor, torch.Tensor | None]:
    """A float64 model without the zeros of a fresh one, which would hide errors; images, labels."""
    torch.manual_seed(0)
    config = {**SMALL, **CONFIGS[name]}
    model = Glow(**config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    height, width, channels = config["image_shape"]
    x = torch.rand(batch, channels, height, width, dtype=torch.float64) - 0.5
    y = torch.eye(3, dtype=torch.float64)[torch.arange(batch) % 3] if model.y_condition else None
    return model, x, y


@pytest.mark.parametrize("name", CONFIGS)
def test_decoding_inverts_encoding(name: str) -> None:
    model, x, y = example(name, 3)
    with torch.no_grad():
        code = model(x, y)
        from_latents = model.decode(code.latents, y)
        from_noise = model.decode_noise(code.noise, y)
    torch.testing.assert_close(from_latents, x, rtol=0, atol=1e-10)
    torch.testing.assert_close(from_noise, x, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", CONFIGS)
def test_log_det_is_that_of_the_jacobian(name: str) -> None:
    model, x, y = example(name, 2)

    def flat_latents(image: torch.Tensor, label: torch.Tensor | None) -> torch.Tensor:
        return torch.cat([z.flatten() for z in model.encode(image[None], label).latents])

    code = model.encode(x, y)
    for i in range(2):
        label = None if y is None else y[i : i + 1]
        jacobian = torch.autograd.functional.jacobian(
            lambda image, label=label: flat_latents(image, label), x[i]
        )
        assert isinstance(jacobian, torch.Tensor)
        expected = torch.linalg.slogdet(jacobian.reshape(x[i].numel(), -1)).logabsdet
        torch.testing.assert_close(code.log_det[i], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", CONFIGS)
def test_log_probabilities_add_up(name: str) -> None:
    model, x, y = example(name, 3)
    code = model.encode(x, y)
    torch.testing.assert_close(code.level_log_prob.sum(1), code.log_prob)
    mean, logs = model.top_prior(3, y)
    torch.testing.assert_close(code.noise[-1], (code.latents[-1] - mean) / logs.exp())
    # The noise is standard normal under the model, after one more change of variables.
    unit = torch.cat([noise.flatten(1) for noise in code.noise], dim=1)
    density = torch.distributions.Normal(0.0, 1.0).log_prob(unit).sum(1)

    def flat_noise(image: torch.Tensor) -> torch.Tensor:
        label = None if y is None else y[:1]
        return torch.cat([noise.flatten() for noise in model.encode(image[None], label).noise])

    jacobian = torch.autograd.functional.jacobian(flat_noise, x[0])
    assert isinstance(jacobian, torch.Tensor)
    log_det = torch.linalg.slogdet(jacobian.reshape(x[0].numel(), -1)).logabsdet
    torch.testing.assert_close(code.log_prob[0], density[0] + log_det)


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_reach_every_parameter(name: str) -> None:
    model, x, y = example(name, 3)
    # A zero input's kernel has no gradient unless it is padded with something else.
    idle = {"learn_top_fn.conv.weight"} if "padding" not in CONFIGS[name] else {}
    x.requires_grad_()
    loss(model, x, y).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert bool(parameter.grad.any()) != (key in idle), key
    assert x.grad is not None
    assert x.grad.abs().min() > 0


def test_missing_latents_are_the_mean_of_their_prior() -> None:
    model, x, y = example("conditional", 3)
    noise = model.encode(x, y).noise
    for missing in ({0}, {1}, {0, 1}):
        given = [None if level in missing else noise[level] for level in range(2)]
        zeros = [torch.zeros_like(n) if i in missing else n for i, n in enumerate(noise)]
        torch.testing.assert_close(model.decode_noise(given, y), model.decode_noise(zeros, y))
    unconditional = example("affine_lu", 1)[0]
    assert unconditional.decode([None, None]).shape == (1, 2, 4, 4)


@pytest.mark.parametrize("name", CONFIGS)
def test_initialise_normalises_every_actnorm(name: str) -> None:
    config = {**SMALL, **CONFIGS[name], "actnorm_scale": 0.5}
    model = Glow(**config).double()
    height, width, channels = config["image_shape"]
    x = 3 * torch.rand(64, channels, height, width, dtype=torch.float64) + 1
    outputs: list[tuple[torch.Tensor, float]] = []
    model.initialise(x)
    for level in range(model.L):
        for step in model.steps(level):

            def keep(module: Any, args: Any, step: Any = step) -> None:
                z = (args[0] + step.actnorm.bias) * (step.actnorm.factor * step.actnorm.logs).exp()
                outputs.append((z, 0.5))

            step.register_forward_pre_hook(keep)
            for i in (0, 2):
                step.block[i].register_forward_hook(
                    lambda module, args, output: outputs.append((output.clone(), 1.0))
                )
    y = None if not model.y_condition else torch.eye(3, dtype=torch.float64)[torch.arange(64) % 3]
    with torch.no_grad():
        model.encode(x, y)
    assert len(outputs) == 3 * model.K * model.L
    for z, scale in outputs:
        mean = z.mean((0, 2, 3))
        torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-9)
        deviation = z.square().mean((0, 2, 3)).sqrt()
        torch.testing.assert_close(deviation, torch.full_like(mean, scale), rtol=1e-3, atol=0)


def test_initialise_reads_a_standard_deviation_plus_1e_6() -> None:
    actnorm = ActNorm(1, scale=2.0).double()
    actnorm.initialise(torch.tensor([1.0, 5.0], dtype=torch.float64).reshape(2, 1, 1, 1))
    assert actnorm.bias.item() == -3
    assert actnorm.logs.item() == pytest.approx(math.log(2 / (2 + 1e-6)), abs=1e-12)


def test_a_fresh_model_is_a_rotation_of_its_input() -> None:
    torch.manual_seed(0)
    model = Glow(**SMALL, flow_coupling="additive")
    x = torch.rand(3, 2, 4, 4) - 0.5
    code = model(x)
    torch.testing.assert_close(code.log_det, torch.zeros(3), rtol=0, atol=1e-5)
    energy = sum(z.square().sum((1, 2, 3)) for z in code.latents)
    torch.testing.assert_close(energy, x.square().sum((1, 2, 3)))
    torch.testing.assert_close(
        code.log_prob, -0.5 * (x.square().sum((1, 2, 3)) + 32 * math.log(2 * math.pi))
    )


def test_keys_of_the_published_layout() -> None:
    model = Glow(
        image_shape=(4, 4, 1), K=1, L=2, hidden_channels=3, LU_decomposed=True, y_condition=True
    )
    step = [
        "actnorm.bias",
        "actnorm.logs",
        "invconv.lower",
        "invconv.log_s",
        "invconv.upper",
        "invconv.p",
        "invconv.sign_s",
        "block.0.conv.weight",
        "block.0.actnorm.bias",
        "block.0.actnorm.logs",
        "block.2.conv.weight",
        "block.2.actnorm.bias",
        "block.2.actnorm.logs",
        "block.4.logs",
        "block.4.conv.weight",
        "block.4.conv.bias",
    ]
    assert list(model.state_dict()) == [
        "prior_h",
        *(f"flow.layers.1.{key}" for key in step),
        "flow.layers.2.conv.logs",
        "flow.layers.2.conv.conv.weight",
        "flow.layers.2.conv.conv.bias",
        *(f"flow.layers.4.{key}" for key in step),
        "learn_top_fn.logs",
        "learn_top_fn.conv.weight",
        "learn_top_fn.conv.bias",
        "project_ycond.logs",
        "project_ycond.linear.weight",
        "project_ycond.linear.bias",
        "project_class.logs",
        "project_class.linear.weight",
        "project_class.linear.bias",
    ]
    plain = Glow(image_shape=(4, 4, 1), K=1, L=1, hidden_channels=3, LU_decomposed=False)
    assert [key for key in plain.state_dict() if "invconv" in key] == [
        "flow.layers.1.invconv.weight"
    ]


def test_shuffle_indices_can_be_set_and_are_not_stored() -> None:
    model, x, _ = example("shuffle_additive", 2)
    other = Glow(**SMALL, **CONFIGS["shuffle_additive"]).double()
    assert not any("indices" in key for key in model.state_dict())
    other.load_state_dict(model.state_dict())
    assert not torch.allclose(other(x).log_prob, model(x).log_prob)
    for level in range(model.L):
        for theirs, ours in zip(other.steps(level), model.steps(level), strict=True):
            assert isinstance(theirs.invconv, Permutation)
            assert isinstance(ours.invconv, Permutation)
            theirs.invconv.indices.copy_(ours.invconv.indices)
    torch.testing.assert_close(other(x).log_prob, model(x).log_prob)


def test_a_permutation_takes_input_channel_indices_i_to_output_channel_i() -> None:
    model = Glow(**{**SMALL, "K": 1, "L": 1}, flow_permutation="shuffle", flow_coupling="additive")
    x = torch.rand(1, 2, 4, 4)
    squeezed = torch.nn.functional.pixel_unshuffle(x, 2)
    permutation = model.steps(0)[0].invconv
    assert isinstance(permutation, Permutation)
    indices = permutation.indices
    torch.testing.assert_close(model(x).latents[0], squeezed[:, indices], rtol=0, atol=0)


def test_bits_per_dim_and_losses() -> None:
    # A uniform density over the whole range of 32 dimensions costs all the bits there are.
    assert bits_per_dim(torch.zeros(1), (4, 4, 2), 5).item() == pytest.approx(5)
    model, x, y = example("conditional", 3)
    assert y is not None
    code = model(x, y)
    bpd = bits_per_dim(code.log_prob, (4, 4, 2)).mean()
    torch.testing.assert_close(bpd, (32 * math.log(256) - code.log_prob.mean()) / 32 / math.log(2))
    probabilities = model.classify(code.latents[-1]).softmax(1)
    cross_entropy = -(y * probabilities.log()).sum(1).mean()
    torch.testing.assert_close(loss(model, x, y, y_weight=0.5), bpd + 0.5 * cross_entropy)
    p = model.classify(code.latents[-1]).sigmoid()
    binary = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    torch.testing.assert_close(loss(model, x, y, multi_class=True), bpd + 0.01 * binary)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"image_shape": (4, 6, 2)}, "halved"),
        ({"flow_permutation": "random"}, "flow_permutation"),
        ({"flow_coupling": "cubic"}, "flow_coupling"),
        ({"LU_decomposed": (True,)}, "1 values for 2 levels"),
    ],
)
def test_bad_arguments_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Glow(**{**SMALL, **config})


def test_labels_must_match_the_model() -> None:
    model, x, y = example("conditional", 3)
    with pytest.raises(ValueError, match="labels"):
        model(x)
    unconditional = example("affine_lu", 3)[0]
    with pytest.raises(ValueError, match="labels"):
        unconditional(x, y)
    with pytest.raises(ValueError, match="no classifier"):
        unconditional.classify(torch.zeros(1, 16, 1, 1, dtype=torch.float64))
    with pytest.raises(ValueError, match="1 latents for 2 levels"):
        unconditional.decode([None])
