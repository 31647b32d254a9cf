"""What the text of a compiled program says about it."""

import re
from functools import cache

import numpy as np

_COLLECTIVES = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute"
_BYTES = {"pred": 1, "u8": 1, "s32": 4, "u32": 4, "bf16": 2, "f32": 4}
_COMPUTATION = re.compile(r"^(?:ENTRY )?%(\S+) \(.*?^\}", re.MULTILINE | re.DOTALL)
_LOOP = re.compile(r" while\(.*condition=%([^\s,]+), body=%([^\s,]+)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
# A GPU's operations that only name memory, loops, which are counted by what is in them, and what is
# sent. All others launch a kernel, and a call of a library one or more.
_LAUNCH_NOTHING = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while"),
    *("all-reduce", "all-reduce-start", "all-reduce-done", "partition-id", "replica-id"),
}
_OPERATION = re.compile(r"^\s+(?:ROOT )?%\S+ = .*? ([a-z][a-z0-9-]*)\(", re.MULTILINE)
_COUNTED_LOOP = re.compile(r' while\(.*body=%([^\s,]+).*"known_trip_count":\{"n":"(\d+)"')


def communication(text: str) -> dict[str, int]:
    """The bytes that each kind of collective operation returns on a device."""
    found: dict[str, int] = {}
    for shapes, kind in re.findall(rf"^.*? = (.*?) ({_COLLECTIVES})(?:-start)?\(", text, re.M):
        for dtype, sizes in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
            elements = int(np.prod([int(size) for size in sizes.split(",") if size]))
            found[kind] = found.get(kind, 0) + _BYTES[dtype] * elements
    return found


def collectives(text: str) -> int:
    """The number of collective operations."""
    return len(re.findall(rf"^.*? = .*? (?:{_COLLECTIVES})(?:-start)?\(", text, re.M))


def estimated_cycles(text: str) -> int:
    """The compiler's own estimate of a TPU program: the sum over its instructions, loops unrolled.

    It counts no communication between devices, and no copy that runs beside a computation.
    """
    computations = {found[1]: found[0] for found in _COMPUTATION.finditer(text)}

    @cache
    def cycles(name: str) -> int:
        body = computations[name]
        own = sum(int(number) for number in _CYCLES.findall(body))
        return own + sum(
            _turns(computations[condition]) * cycles(inside)
            for condition, inside in _LOOP.findall(body)
        )

    return cycles(_entry(text))


def kernels(text: str) -> int:
    """How many operations of a GPU's program launch kernels, loops unrolled.

    A call of a library counts as one, and what is sent between devices is left out.
    """
    computations = {found[1]: found[0] for found in _COMPUTATION.finditer(text)}

    @cache
    def launched(name: str) -> int:
        body = computations[name]
        loops = [(inside, int(turns)) for inside, turns in _COUNTED_LOOP.findall(body)]
        names = _OPERATION.findall(body)
        assert len(loops) == names.count("while"), "a loop does not say how often it runs"
        assert "conditional" not in names, "what a branch launches depends on the data"
        own = sum(operation not in _LAUNCH_NOTHING for operation in names)
        return own + sum(turns * launched(inside) for inside, turns in loops)

    return launched(_entry(text))


def _entry(text: str) -> str:
    (entry,) = re.findall(r"^ENTRY %(\S+)", text, re.MULTILINE)
    return entry


def _turns(condition: str) -> int:
    """How often a loop runs, from its condition: as long as a counter is below a number."""
    (turns,) = re.findall(r"= s32\[\]\S* constant\((\d+)\)", condition)
    assert "direction=LT" in condition, condition
    return int(turns)


def convolutions(text: str) -> list[tuple[str, str]]:
    """The dtype and the precision of each convolution of a GPU's or TPU's program.

    Matrix products are not among them, though a TPU computes them as convolutions too.
    """
    lines = re.findall(
        r'^.* convolution\(.*conv_general_dilated".*|^.* = \(.*"__cudnn\$conv.*', text, re.M
    )
    found = (re.search(r" = \(?(\w+)\[.*operand_precision=\{(\w+),\2\b", line) for line in lines)
    return [(line[1], line[2]) if line else ("", "default") for line in found]


def operations(text: str) -> set[str]:
    """The names of all operations, as `add`; a call of what is not XLA's has the callee's name."""
    names = _OPERATION.findall(text)
    callees = re.findall(r'custom_call_target="([^"]*)"', text)
    return {*names, *callees} - {"custom-call"}
