"""The programs of a run, from shapes alone, and machines that are not there to compile them for.

Nothing is computed, and no weights are made.
"""

import importlib.util
import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding
from jax.stages import Compiled

from glow_jax import Glow, initialise_actnorm
from glow_jax.config import Config
from glow_jax.devices import Devices, mean_over_devices
from glow_jax.errors import GlowError
from glow_jax.model import abstract_glow
from glow_jax.training.initial import as_trained
from glow_jax.training.optimizer import make_optimizer
from glow_jax.training.signals import Requests
from glow_jax.training.step import TrainStep, make_train_step, new_state, prepare_images


class Program(NamedTuple):
    """A function, and arguments of shapes and dtypes alone.

    Attributes:
        function: of arrays.
        arguments: trees of `jax.ShapeDtypeStruct`.
        over_devices: whether the function averages over devices, which share a batch.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    over_devices: bool = False


def _shape(*sizes: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype)


def training_step(config: Config, batch: int, *, over_devices: bool = False) -> Program:
    """The step of a run, as `train.py` takes it.

    Args:
        config: the run.
        batch: B, images of one device.
        over_devices: whether gradients are averaged over devices.
    """
    architecture = config.model
    optimizer = make_optimizer(config.optimizer, 10)
    prepare = partial(prepare_images, config=config, flips=True, shifts=True)
    mean = {"mean": mean_over_devices} if over_devices else {}
    step = make_train_step(optimizer, config, prepare=prepare, **mean)
    model = as_trained(abstract_glow(architecture), config)
    state = jax.eval_shape(lambda model: new_state(model, optimizer, config), model)
    classes = architecture.y_classes if architecture.y_condition else 0
    images = _shape(batch, *architecture.image_shape, dtype=jnp.uint8)
    arguments = (state, images, _shape(batch, classes), _shape(batch, dtype=jnp.uint32))
    return Program(step, arguments, over_devices)


def likelihood(config: Config, batch: int) -> Program:
    """The log-densities of B images; the model computes as in training."""
    images = _shape(batch, *config.model.image_shape)
    model = as_trained(abstract_glow(config.model), config)
    return Program(lambda model, x: model.log_prob(x), (model, images))


def sampling(config: Config, batch: int) -> Program:
    """B samples; the model computes as in training."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    model = as_trained(abstract_glow(config.model), config)
    return Program(lambda model, key: model.sample(key, batch), (model, key))


def initialisation(config: Config, batch: int) -> Program:
    """A new model, whose actnorms B images initialise."""

    def initialise(key: jax.Array, x: jax.Array) -> Glow:
        return initialise_actnorm(Glow(config.model, rngs=nnx.Rngs(key)), x)

    key = jax.eval_shape(lambda: jax.random.key(0))
    return Program(initialise, (key, _shape(batch, *config.model.image_shape)))


# An NVIDIA H100 (SXM5), as the compiler has to know it: sizes in bytes, limits of compute
# capability 9.0 from the CUDA C++ Programming Guide, the rest from the card's data sheet.
_H100 = """
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
runtime_version { major: 12 minor: 9 }
dnn_version_info { major: 9 minor: 8 }
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  device_memory_size: 85899345920
  memory_bandwidth: 3350000000000
  l2_cache_size: 52428800
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}
"""
# platform -> the compiler's module, what to install
_COMPILERS = {
    "tpu": ("libtpu", "-e '.[aot]'"),
    "cuda": ("jax_cuda12_plugin", "'jax[cuda12]'"),
}


def missing(platform: str) -> str | None:
    """What has to be installed to compile for "tpu" or "cuda"; None if it is there."""
    module, package = _COMPILERS[platform]
    if importlib.util.find_spec(module):
        return None
    return f"{module} is not installed: pip install {package}"


def absent_machine(platform: str, topology: str) -> topologies.TopologyDescription:
    """A machine that is not there.

    Args:
        platform: "tpu" or "cuda".
        topology: as "v5e:2x4" for 8 chips of a TPU v5e; as "1x1x8" for 8 H100 in one machine.

    Raises:
        GlowError: the compiler for the platform is not installed.
    """
    lacking = missing(platform)
    if lacking:
        raise GlowError(f"Programs cannot be compiled for {topology} here: {lacking}.")
    if platform == "tpu":
        # Ask no server of Google's cloud about this machine, and let others compile beside this.
        os.environ.update(TPU_SKIP_MDS_QUERY="1", ALLOW_MULTIPLE_LIBTPU_LOAD="1")
        return topologies.get_topology_desc(platform="tpu", topology_name=topology)
    options = {"target_config": _H100, "topology": topology}
    return topologies.get_topology_desc("", "cuda", **options)


def compile_for(machine: topologies.TopologyDescription, program: Program) -> Compiled:
    """Compile a program for all devices of an absent machine if they share a batch, or for one."""
    if not program.over_devices:
        here = SingleDeviceSharding(machine.devices[0])
        arguments = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
            program.arguments,
        )
        return jax.jit(program.function).lower(*arguments).compile()
    devices = Devices(absent=machine)
    state, *batch = program.arguments
    replicated = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((devices.count, *leaf.shape), leaf.dtype), state
    )
    zeros = (np.zeros((devices.count * len(leaf), *leaf.shape[1:]), leaf.dtype) for leaf in batch)
    step: TrainStep = program.function
    return devices.training_step(step).compile(replicated, Requests.of(), *zeros)
