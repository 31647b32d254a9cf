"""Finding the layer where a model's output stops being finite."""

import jax
import jax.numpy as jnp

from glow_jax.model import Glow


def first_nonfinite_layer(model: Glow, x: jax.Array, y: jax.Array | None) -> str | None:
    """Run a batch through a model layer by layer; name the first whose output is not finite.

    Args:
        model: the model.
        x: images, (B, H, W, C).
        y: labels, (B, classes), for conditional models.

    Returns:
        For example `level 2, step 5, coupling` (counted from 1), or None if everything is finite.
    """
    if not _finite(x):
        return "the input"
    x, logdet = model.redequantize(x)
    if not _finite((x, logdet)):
        return "the dequantisation flow"
    for number, (level, split) in enumerate(model.levels_and_splits(), start=1):
        x, _ = level.squeeze.forward(x)
        for k in range(model.config.K):
            step = jax.tree.map(lambda leaf, k=k: leaf[k], level.steps)
            for name in ("actnorm", "permutation", "coupling"):
                x, logdet = getattr(step, name).forward(x)
                if not _finite((x, logdet)):
                    return f"level {number}, step {k + 1}, {name}"
        if split is not None:
            x, latent, prior = split.factor(x)
            if not _finite(prior.log_prob(latent)):
                return f"level {number}, split"
    if not _finite(model.top_prior(x.shape[0], y, x.dtype).log_prob(x)):
        return "the top prior"
    if model.classifier is not None and not _finite(model.classifier(jnp.mean(x, axis=(1, 2)))):
        return "the classifier"
    return None


def _finite(tree: object) -> bool:
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))
