"""Programs that compile fast: compiler options, and `jax.jit` with them."""

from collections.abc import Callable, Iterable
from functools import cache, wraps
from typing import TypeVar

import jax
from jax.extend.core import get_opaque_trace_state

_Result = TypeVar("_Result")
_OLDER_LOOPS = "xla_cpu_use_fusion_emitters"
_NOTHING_TRACED = get_opaque_trace_state(convention="nnx")


def fast_to_compile(platform: str) -> dict[str, str | bool]:
    """Compiler options that make a program compile fast.

    There are none for GPUs and TPUs, and none where JAX is told to optimise nothing
    (`jax_disable_most_optimizations`), which compiles faster still.

    On a CPU they are LLVM's optimisation level 1 and, if jaxlib still has it (0.10.2 does, 0.11.2
    does not), XLA's older way to generate loops. The published model's step compiles in 4 s with
    both, 6 s with the first, and 9 s with neither. It runs equally fast: its products are library
    calls.

    Args:
        platform: where the program will run: "cpu", "gpu" or "tpu".
    """
    if platform != "cpu" or jax.config.values["jax_disable_most_optimizations"]:
        return {}
    return dict(_options_on_a_cpu())


@cache
def _options_on_a_cpu() -> dict[str, str | bool]:
    options: dict[str, str | bool] = {"xla_backend_optimization_level": "1"}
    older_loops = {_OLDER_LOOPS: False}
    try:
        jax.jit(lambda: 0, compiler_options=older_loops).lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if _OLDER_LOOPS not in str(error):  # "No such compile option" names it
            raise
        return options
    return options | older_loops


def quick_jit(
    function: Callable[..., _Result], *, static_argnames: Iterable[str] = ()
) -> Callable[..., _Result]:
    """Like `jax.jit`, but what is called by itself is compiled as `fast_to_compile` says.

    What is called while another program is traced becomes a part of that program, as with
    `jax.jit`, and is compiled with its options.
    """
    part = jax.jit(function, static_argnames=static_argnames)

    @cache
    def whole(*options: tuple[str, str | bool]) -> Callable[..., _Result]:
        return jax.jit(function, static_argnames=static_argnames, compiler_options=dict(options))

    @wraps(function)
    def call(*arguments: object) -> _Result:
        if get_opaque_trace_state(convention="nnx") != _NOTHING_TRACED:
            return part(*arguments)  # JAX takes no options for a part
        options = fast_to_compile(jax.local_devices()[0].platform)
        return whole(*options.items())(*arguments)

    return call
