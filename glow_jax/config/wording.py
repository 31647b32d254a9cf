"""A configuration in words."""

from glow_jax.config.model import ModelConfig


def architecture(model: ModelConfig) -> str:
    """What a model is built of, on one line."""
    mixing = model.flow_permutation
    if mixing == "invconv":
        mixing = "LU-decomposed 1x1 convolutions" if model.LU_decomposed else "1x1 convolutions"
        if model.plain_levels:
            plain = ", ".join(str(level + 1) for level in model.plain_levels)
            mixing += f" (plain in level {plain})"
    paddings = {
        "zeros": [],
        "ones": ["last convolutions padded with ones"],
        "edge_bias": ["3x3 convolutions with an edge bias"],
    }
    conditional = f"{model.y_classes} {'labels' if model.multi_class else 'classes'}"
    conditional += "" if model.classifier else " without a classifier"
    parts = [
        f"K = {model.K}, L = {model.L}, {model.hidden_channels} hidden channels",
        f"{model.flow_coupling} couplings, {mixing}",
        f"{'learned' if model.learn_top else 'unit normal'} top prior",
        conditional if model.y_condition else "unconditional",
        *paddings[model.padding],
    ]
    return "; ".join(parts)


def image_format(model: ModelConfig) -> str:
    """The size and depth of a model's images."""
    height, width, channels = model.image_shape
    return f"{height} x {width} x {channels}, {model.n_bits} bits"
