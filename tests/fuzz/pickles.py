"""Pickles that name what they should not, or that no pickler would write."""

import pickle
import pickletools
import random
import struct

from .case import CANARY, OUTSIDE

# Relative to the folder of a case, in which the program runs.
_COMMAND = f"touch {OUTSIDE}/{CANARY}"
_CODE = f"open('{OUTSIDE}/{CANARY}', 'w').close()"
_HOSTILE = [
    ("os", "system", (_COMMAND,)),
    ("posix", "system", (_COMMAND,)),
    ("subprocess", "check_output", (["touch", f"{OUTSIDE}/{CANARY}"],)),
    ("builtins", "exec", (_CODE,)),
    ("__builtin__", "eval", (f"exec({_CODE!r})",)),
    ("builtins", "open", (f"{OUTSIDE}/{CANARY}", "w")),
    ("torch", "load", ("other.pt",)),
    ("torch.hub", "load_state_dict_from_url", ("http://localhost:1/x",)),
    ("importlib", "import_module", ("payload",)),
    ("runpy", "run_path", ("payload.py",)),
    ("numpy", "fromfile", ("/etc/passwd",)),
    ("webbrowser", "open", ("http://localhost:1",)),
]
_NAMES = [b"os system", b"builtins eval", b"torch._utils _rebuild_tensor_v3", b"torch Size"]
_NAMES += [b"torch._utils _rebuild_parameter", b"torch HalfStorage", b"torch ComplexFloatStorage"]
_NAMES += [b"torch._tensor _rebuild_from_type_v2", b"collections OrderedDict", b"a b", b"\xff \xfe"]
_NUMBERS = [-1, 0, 1, 2, 3, 255, 65535, 2**31 - 1, -(2**31)]


def hostile(rng: random.Random) -> bytes:
    """A pickle that would run something, if anything in it were called."""
    module, name, arguments = rng.choice(_HOSTILE)
    if rng.random() < 0.3:  # as an object with a state, or by the older instructions
        argument = pickle.dumps(arguments, 0)[:-1]
        kind = rng.choice([b"R", b"\x81", b"R}b", b"R0}", b"R(lp9\n1"])
        return b"\x80\x02c" + f"{module}\n{name}\n".encode() + argument + kind + b"."
    if rng.random() < 0.2:
        return b"(" + pickle.dumps(arguments[0], 0)[:-1] + f"i{module}\n{name}\n.".encode()
    called = f"c{module}\n{name}\n".encode() + pickle.dumps(arguments, 2)[2:-1] + b"R"
    around = [b"\x80\x02%b.", b"\x80\x02}X\x01\x00\x00\x00a%bs.", b"\x80\x02](%be."]
    return rng.choice(around) % called


def forge(data: bytes, rng: random.Random) -> bytes:
    """A pickle with one or a few of its instructions changed."""
    try:
        places = [place for _, _, place in pickletools.genops(data) if place is not None]
        end = places[-1] + 1
    except (ValueError, UnicodeError):
        return data
    for _ in range(rng.choice([1, 1, 2, 5])):
        data, end = _forged(data, places, end, rng)
    return data


def _forged(data: bytes, places: list[int], end: int, rng: random.Random) -> tuple[bytes, int]:
    number = rng.randrange(len(places))
    begin = min(places[number], len(data))
    stop = places[number + 1] if number + 1 < len(places) else end
    old = data[begin:stop]
    match rng.choice(["name", "number", "instruction", "drop", "double", "insert", "deep"]):
        case "name" if b"c" in data:
            begin = data.find(b"c", begin)
            middle = data.find(b"\n", begin)
            stop = data.find(b"\n", middle + 1) + 1
            if begin < 0 or middle < 0 or stop <= begin or stop - begin > 100:
                return data, end
            new = b"c" + rng.choice(_NAMES).replace(b" ", b"\n") + b"\n"
        case "number":
            huge = 2 ** rng.choice([31, 40, 62, 63, 64, 200, 20_000])
            packed = huge.to_bytes(huge.bit_length() // 8 + 1, "little")
            new = rng.choice(
                [
                    b"J" + struct.pack("<i", rng.choice(_NUMBERS)),
                    b"\x8b" + len(packed).to_bytes(4, "little") + packed,
                    b"G" + struct.pack(">d", rng.choice([1e308, -1.0, float("nan")])),
                    rng.choice([b"N", b"\x88", b"}", b")", b"]", b"X\x01\x00\x00\x00a"]),
                ]
            )
        case "instruction":
            new = bytes([rng.randrange(256)]) + old[1:]
        case "drop":
            new = b""
        case "double":
            new = old + old
        case "insert":
            new = rng.choice([b"0", b"1", b"2", b"(", b"t", b"Q", b"R", b"b", b"h\xff", b"."]) + old
        case _:
            new = b"(" * 1000 + old + b"t" * rng.choice([10, 1000])
    return data[:begin] + new + data[stop:], end + len(new) - len(old)
