"""Named sets of defaults: `python train.py --preset NAME`, each with what it should reach."""

from glow_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig

PRESETS: dict[str, Config] = {
    # The quick start: scikit-learn's digits, in minutes on two CPU cores.
    "digits": Config(
        preset="digits",
        model=ModelConfig(K=8, L=2, hidden_channels=64, n_bits=4),
        data=DataConfig(dataset="digits", validation=0.1),
        optimizer=OptimizerConfig(lr=2e-3, warmup=5, ema_decay=0.99, max_grad_norm=50),
        training=TrainingConfig(batch_size=64, epochs=60, n_init_batches=8, eval_batch_size=360),
    ),
}
