"""The meters that scores need."""

from collections.abc import Sequence

from glow_jax.ood.complexity import CODECS
from glow_jax.ood.dimension import lid_meter
from glow_jax.ood.images import Images
from glow_jax.ood.measure import (
    Meter,
    ReplicatedModel,
    background_meter,
    codec_meter,
    ensemble_meter,
    gradient_meter,
    layer_norm_meter,
    likelihood_meter,
)
from glow_jax.ood.scores import BACKGROUND, ENSEMBLE, LAYER_NORMS, LID, Score


def meters_for(
    scores: Sequence[Score],
    flow: ReplicatedModel,
    training: Images,
    *,
    background: ReplicatedModel | None = None,
    ensemble: Sequence[ReplicatedModel] = (),
    lid_images: int,
) -> list[Meter]:
    """The meters whose numbers at least one score needs.

    Args:
        scores: the scores.
        flow: the run's model.
        training: training images.
        background: the second model for the likelihood ratio.
        ensemble: further models for WAIC.
        lid_images: images of each set whose intrinsic dimension is measured, at most.
    """
    needed = {name for score in scores for name in score.needs}
    meters = [likelihood_meter(flow)] if needed & {"bits_per_dim", "level_bits_per_dim"} else []
    if BACKGROUND in needed and background is not None:
        meters.append(background_meter(background))
    if ENSEMBLE in needed:
        meters.append(ensemble_meter(ensemble))
    if "gradient_norm" in needed:
        meters.append(gradient_meter(flow))
    if LAYER_NORMS in needed:
        meters.append(layer_norm_meter(flow))
    if needed & set(LID):
        meters.append(lid_meter(flow, training, lid_images))
    n_bits = flow.model.config.n_bits
    return meters + [codec_meter(name, n_bits) for name in CODECS if name in needed]
