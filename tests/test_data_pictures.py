"""One picture: every format, as its viewer shows it, and whatever is damaged."""

import concurrent.futures
import io
import os
import subprocess
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from glow_jax.data.decoding import ENDINGS, TooLargeError, UnreadableError
from glow_jax.data.memory import Budget
from glow_jax.data.pictures import examine, open_picture
from glow_jax.data.scaling import to_bytes
from glow_jax.errors import GlowError

SIDE = 24


def colours() -> np.ndarray:
    """A smooth picture in colours, uint8, (24, 24, 3), which no format changes much."""
    ramp = np.linspace(0, 255, SIDE)
    across, down = np.meshgrid(ramp, ramp)
    return np.stack([across, down, 255 - across], axis=-1).astype(np.uint8)


def save(path: Path, picture: Image.Image, **options: Any) -> Path:
    picture.save(path, **options)
    return path


def pixels(source: Path | bytes, mode: str = "RGB", **options: object) -> np.ndarray:
    return np.asarray(open_picture(source, mode, **options), np.int64)  # pyright: ignore[reportArgumentType]


# Formats


@pytest.mark.parametrize(
    "ending",
    [
        *(".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpg"),
        *(".pcx", ".png", ".ppm", ".qoi", ".sgi", ".tga", ".tif", ".webp"),
    ],
)
def test_every_format_of_photographs(tmp_path: Path, ending: str):
    if ending == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    assert ending in ENDINGS
    options: dict[str, Any] = {"format": "JPEG"} if ending == ".jpe" else {}
    if ending in (".jpg", ".jpe", ".jfif", ".webp", ".avif"):
        options["quality"] = 95
    path = save(tmp_path / f"picture{ending}", Image.fromarray(colours()), **options)
    assert np.abs(pixels(path) - colours()).mean() < (20 if ending == ".gif" else 6)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tga"])
def test_postscript_is_never_given_to_another_program(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
):
    def run(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    for name in ("Popen", "run", "check_call", "call", "check_output"):
        monkeypatch.setattr(subprocess, name, run)
    path = tmp_path / f"picture{ending}"
    Image.fromarray(colours()).save(path, format="EPS")
    with pytest.raises(UnreadableError):
        open_picture(path, "RGB")
    for other in ("ICO", "PDF", "PPM"):
        Image.fromarray(colours()).save(path, format=other)
        if other == "PPM":
            assert pixels(path).shape == (SIDE, SIDE, 3)
        else:
            with pytest.raises(UnreadableError):
                open_picture(path, "RGB")


# Orientation


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_exif_says(tmp_path: Path, ending: str, orientation: int):
    from PIL import ImageOps

    stored = colours()[:, :16]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"p{ending}", Image.fromarray(stored), exif=exif.tobytes())
    with Image.open(path) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"), np.int64)
    found = pixels(path)
    assert found.shape == ((16, SIDE, 3) if orientation > 4 else (SIDE, 16, 3))
    np.testing.assert_array_equal(found, expected)
    assert examine(path).size == found.shape[1::-1]


def test_a_damaged_exif_block_is_ignored(tmp_path: Path):
    path = save(tmp_path / "p.jpg", Image.fromarray(colours()), exif=b"Exif\0\0garbage of no kind")
    assert pixels(path).shape == (SIDE, SIDE, 3)


# Transparency


@pytest.mark.parametrize("ending", [".png", ".webp", ".tif", ".tga"])
def test_transparent_parts_are_shown_on_white(tmp_path: Path, ending: str):
    alpha = np.zeros((SIDE, SIDE, 1), np.uint8)
    alpha[:8], alpha[8:16] = 255, 128
    layered = np.concatenate([colours(), alpha], axis=-1)
    options = {"lossless": True, "exact": True} if ending == ".webp" else {}
    path = save(tmp_path / f"p{ending}", Image.fromarray(layered), **options)
    found = pixels(path)
    np.testing.assert_array_equal(found[:8], colours()[:8])
    assert (found[16:] == 255).all()
    half = colours()[8:16].astype(int) * 128 / 255 + 255 * 127 / 255
    assert np.abs(found[8:16] - half).max() <= 1.5
    assert examine(path).transparent


def test_grey_and_palette_transparency(tmp_path: Path):
    grey = np.full((SIDE, SIDE), 40, np.uint8)
    alpha = np.zeros((SIDE, SIDE), np.uint8)
    alpha[:8] = 255
    path = save(tmp_path / "la.png", Image.merge("LA", [Image.fromarray(a) for a in (grey, alpha)]))
    expected = np.where(alpha, 40, 255)
    np.testing.assert_array_equal(pixels(path, "L"), expected)
    assert examine(path).grey
    indices = Image.fromarray((alpha // 255).astype(np.uint8), "P")
    indices.putpalette([9, 90, 200, 40, 40, 40])
    for name in ("p.png", "p.gif"):
        path = save(tmp_path / name, indices, transparency=0)
        np.testing.assert_array_equal(pixels(path)[..., 0], expected)
        assert examine(path).transparent
    path = save(tmp_path / "bytes.png", indices, transparency=bytes([0, 255]))
    np.testing.assert_array_equal(pixels(path)[..., 0], expected)
    path = save(tmp_path / "key.png", Image.fromarray(colours()), transparency=(0, 0, 255))
    assert (pixels(path)[0, 0] == 255).all()
    assert not examine(save(tmp_path / "o.png", Image.fromarray(colours()))).transparent


# Depth


@pytest.mark.parametrize("ending", [".png", ".tif", ".pgm"])
def test_sixteen_bits_are_scaled(tmp_path: Path, ending: str):
    values = np.linspace(0, 65535, SIDE * SIDE).reshape(SIDE, SIDE).astype(np.uint16)
    path = save(tmp_path / f"p{ending}", Image.fromarray(values))
    np.testing.assert_array_equal(pixels(path, "L"), values >> 8)
    assert examine(path).grey


def test_big_endian_and_signed_and_wide_and_floating_point(tmp_path: Path):
    values = np.linspace(0, 65535, SIDE * SIDE).reshape(SIDE, SIDE).astype(np.uint16)
    big = Image.frombytes("I;16B", (SIDE, SIDE), values.astype(">u2").tobytes())
    np.testing.assert_array_equal(pixels(save(tmp_path / "b.tif", big), "L"), values >> 8)
    wide = save(tmp_path / "i.tif", Image.fromarray(values.astype(np.int32)))
    np.testing.assert_array_equal(pixels(wide, "L"), values >> 8)
    floats = (values / 65535).astype(np.float32)
    found = pixels(save(tmp_path / "f.tif", Image.fromarray(floats)), "L")
    np.testing.assert_array_equal(found, np.rint(floats * 255))
    # Half a level beyond is rounded; more has no scale that all pictures of a folder share.
    found = pixels(save(tmp_path / "o.tif", Image.fromarray(floats * np.float32(1.001))), "L")
    np.testing.assert_array_equal(found, np.rint(floats * np.float32(1.001) * 255))
    for number, (lowest, highest) in enumerate([(0, 1.01), (-0.5, 0.5), (0, 255), (0, 1000)]):
        stretched = floats * np.float32(highest - lowest) + np.float32(lowest)
        path = save(tmp_path / f"{number}.tif", Image.fromarray(stretched))
        with pytest.raises(
            UnreadableError, match=rf"lie in {lowest}\.\.{highest}, and only 0\.\.1"
        ):
            open_picture(path, "L")


def test_wide_whole_numbers_are_of_16_bits_or_refused(tmp_path: Path):
    ramp = np.linspace(0, 1, SIDE * SIDE).reshape(SIDE, SIDE)
    for lowest, highest, reason in (
        (-30_000, 35_535, "outside 0..65535"),
        (0, 2**30, "outside 0..65535"),
        (0, 200, "in 0..200, which may be of 8 or of 16 bits"),
    ):
        values = (lowest + ramp * (highest - lowest)).astype(np.int32)
        path = save(tmp_path / "p.tif", Image.fromarray(values))
        with pytest.raises(UnreadableError, match=f"numbers of 32 bits lie {reason}: save them as"):
            open_picture(path, "L")
    for kind in (np.uint32, np.int64):
        with pytest.raises(GlowError, match="save them as 8 or 16 bits"):
            to_bytes(np.array([0, np.iinfo(kind).max], kind))
        assert to_bytes(np.array([0, 300, 65_535], kind)).tolist() == [0, 1, 255]
    assert to_bytes(np.zeros(3, np.int64)).tolist() == [0, 0, 0]


def test_a_deep_picture_that_uses_little_of_its_type_is_known(tmp_path: Path):
    values = np.linspace(0, 4095, SIDE * SIDE).reshape(SIDE, SIDE).astype(np.uint16)
    path = save(tmp_path / "p.png", Image.fromarray(values))
    np.testing.assert_array_equal(pixels(path, "L"), values >> 8)
    assert examine(path).dull
    np.save(tmp_path / "p.npy", values)
    assert examine(tmp_path / "p.npy").dull
    assert not examine(save(tmp_path / "q.png", Image.fromarray(values * 16))).dull
    assert not examine(save(tmp_path / "r.png", Image.fromarray(colours()[:1]))).dull
    # Where the file says that its values have 12 bits, they are scaled from there.
    assert to_bytes(values, 12).max() == 255


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.uint16, np.float16])
def test_types_are_scaled_over_their_range(kind: Any):
    if np.issubdtype(kind, np.floating):
        values = np.array([0, 0.5, 1], kind)
        assert to_bytes(values).tolist() == [0, 128, 255]
        return
    limits = np.iinfo(kind)
    values = np.array([limits.min, limits.max // 2 + limits.min // 2, limits.max]).astype(kind)
    found = to_bytes(values)
    assert found[0] == 0
    assert abs(int(found[1]) - 127) <= 1
    assert found[2] == 255


def test_values_of_no_range_are_refused():
    for values in (np.array([0, np.nan]), np.array([-1.0]), np.array([1e9]), np.array(["a"])):
        with pytest.raises(GlowError):
            to_bytes(values)


def test_other_modes(tmp_path: Path):
    grey = Image.fromarray(colours()).convert("L")
    found = pixels(save(tmp_path / "one.png", grey.convert("1")), "L")
    assert set(np.unique(found)) == {0, 255}
    ink = save(tmp_path / "cmyk.jpg", Image.fromarray(colours()).convert("CMYK"), quality=95)
    assert np.abs(pixels(ink) - colours()).mean() < 6
    indexed = save(tmp_path / "p.png", Image.fromarray(colours()).quantize(256))
    assert np.abs(pixels(indexed) - colours()).mean() < 20
    facts = examine(indexed)
    assert not facts.grey
    assert not facts.moving
    assert examine(save(tmp_path / "rgb.png", grey.convert("RGB"))).grey


# Pictures that move


@pytest.mark.parametrize("ending", [".gif", ".png", ".webp", ".tif"])
def test_the_first_frame_is_read_and_the_others_are_known(tmp_path: Path, ending: str):
    frames = [Image.new("RGB", (SIDE, SIDE), (200 * n, 40, 90)) for n in range(2)]
    path = save(
        tmp_path / f"p{ending}", frames[0], save_all=True, append_images=frames[1:], duration=9
    )
    assert pixels(path)[..., 0].max() < 20
    assert examine(path).moving


# Size and damage


def test_a_picture_beyond_the_limit_is_named(tmp_path: Path):
    path = save(tmp_path / "p.png", Image.new("1", (15_000, 15_000)))
    with pytest.raises(TooLargeError, match=r"15000 x 15000 .* more than picture_limit 200"):
        open_picture(path, "L")
    small = save(tmp_path / "s.png", Image.fromarray(colours()))
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(TooLargeError, match="24 x 24"):
        open_picture(small, "L", limit=500 / 1e6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pixels(small, limit=1000).shape == (SIDE, SIDE, 3)
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(
    "ending", [".avif", ".bmp", ".gif", ".jp2", ".jpg", ".png", ".qoi", ".sgi", ".tga", ".tif"]
)
def test_damaged_pictures_are_unreadable_or_read(tmp_path: Path, ending: str):
    if ending == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    whole = save(tmp_path / f"p{ending}", Image.fromarray(colours())).read_bytes()
    rng = np.random.default_rng(len(ending))
    outcomes = set()
    for _ in range(40):
        damaged = bytearray(whole)
        for _ in range(rng.integers(1, 5)):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        damaged = bytes(damaged[: rng.integers(len(damaged))] if rng.random() < 0.5 else damaged)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcomes.add(open_picture(damaged, "RGB", limit=1, ending=ending).mode)
        except UnreadableError:
            outcomes.add("unreadable")
    assert outcomes <= {"RGB", "unreadable"}


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_end_is_read_if_all_pixels_are_there(tmp_path: Path, progressive: bool):
    path = save(tmp_path / "p.jpg", Image.fromarray(colours()), progressive=progressive)
    content, expected = path.read_bytes(), pixels(path)
    assert content.endswith(b"\xff\xd9")
    path.write_bytes(content[:-2])
    np.testing.assert_array_equal(pixels(path), expected)
    np.testing.assert_array_equal(pixels(content[:-2]), expected)
    for missing in (4, 20, len(content) // 2):
        with pytest.raises(UnreadableError):
            pixels(content[:-missing])


# Memory


def test_a_decoded_picture_takes_little_more_than_its_pixels(tmp_path: Path):
    side = 3000
    alpha = np.zeros((side, side, 4), np.uint8)
    deep = np.arange(side * side, dtype=np.uint16).reshape(side, side)
    # Four bytes decoded and four flat; two decoded and one flat. What a band takes comes to it.
    for number, (picture, most) in enumerate(((alpha, 8), (deep, 3))):
        path = save(tmp_path / f"{number}.png", Image.fromarray(picture), compress_level=1)
        before = _memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # begins a new maximum
        examine(path)
        taken = (_memory("VmHWM") - before) / side**2
        assert taken < most + 4, f"{taken:.1f} bytes for each pixel"


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def test_all_threads_share_one_budget():
    budget, taken, most = Budget(), [], []
    started = threading.Barrier(4)

    def decode(_: int) -> None:
        started.wait()
        with budget.share(10) as take:
            take(4)
            taken.append(4)
            most.append(sum(taken))
            time.sleep(0.02)
            taken.pop()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(decode, range(4)))
    assert max(most) == 8
    with budget.share(10) as take:  # all has been given back, and what is more goes alone
        take(11)


def test_what_no_budget_holds_is_refused_by_its_size(tmp_path: Path):
    path = tmp_path / "p.npy"
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (14000, 14000, 4), }\n"
    path.write_bytes(b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header)
    os.truncate(path, 14_000**2 * 32 + 10 + len(header))  # no block of the disk is used
    with pytest.raises(
        TooLargeError, match=r"takes 8\.6 GB of memory, more than picture_limit 200"
    ):
        examine(path)
    if features.check("jpg_2000"):
        large = save(tmp_path / "p.jp2", Image.new("L", (64, 64))).read_bytes()
        place = large.index(b"ihdr") + 4
        sides = (14_000).to_bytes(4, "big") * 2
        with pytest.raises(TooLargeError, match=r"takes 5\.1 GB of memory"):
            examine(large[:place] + sides + large[place + 8 :])


def test_arrays_are_pictures(tmp_path: Path):
    for shape in ((SIDE, SIDE), (SIDE, SIDE, 1), (SIDE, SIDE, 3)):
        values = colours()[..., : shape[2]] if len(shape) == 3 else colours()[..., 0]
        np.save(tmp_path / "p.npy", values)
        expected = values if values.ndim == 3 else values[..., None]
        np.testing.assert_array_equal(
            pixels(tmp_path / "p.npy"), np.broadcast_to(expected, (SIDE, SIDE, 3))
        )
    for bad in (np.zeros((4, 8, 8, 3), np.uint8), np.zeros((0, 8)), np.array(["a"])):
        np.save(tmp_path / "p.npy", bad)
        with pytest.raises(UnreadableError):
            open_picture(tmp_path / "p.npy", "RGB")
    content = io.BytesIO()
    np.save(content, np.array([{}]), allow_pickle=True)
    with pytest.raises(UnreadableError, match="no numbers"):
        open_picture(content.getvalue(), "RGB", ending=".npy")
