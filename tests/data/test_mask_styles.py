"""Masks of every style that tools write are read as the one object that they show."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import mask_styles
from data.image_files import read_mask, read_mask_numbers
from data.mask_styles import Rule, Source, apply, decide, numbers_of, observe

H, W = 80, 100
YY, XX = np.mgrid[:H, :W]
RADIUS = np.hypot((XX - 50) / 35, (YY - 40) / 28)
OBJECT = RADIUS < 1
RING = (RADIUS < 1.15) & ~OBJECT  # of 4 to 5 pixels, as the void border of Pascal VOC
SOFT = np.clip((1 - RADIUS) * 16 + 0.5, 0, 1)  # 0.5 on the outline, with a soft edge of 2 pixels
LEFT = OBJECT & (XX < 50)
BYTES = np.where(OBJECT, 255, 0).astype(np.uint8)


def gray(values: np.ndarray, dtype: type = np.uint8) -> Image.Image:
    return Image.fromarray(values.astype(dtype))


def colored(inside: tuple, outside: tuple = (0, 0, 0), ring: tuple | None = None) -> Image.Image:
    pixels = np.where(OBJECT[..., None], inside, outside)
    pixels = pixels if ring is None else np.where(RING[..., None], ring, pixels)
    return Image.fromarray(pixels.astype(np.uint8))


def with_palette(indices: np.ndarray, colors: dict[int, tuple]) -> Image.Image:
    picture = Image.fromarray(indices.astype(np.uint8))
    palette = np.zeros((256, 3), np.uint8)
    for index, color in colors.items():
        palette[index] = color
    picture.putpalette(palette.tobytes())
    return picture


def with_alpha(mode: str, color: int, alpha: np.ndarray) -> Image.Image:
    picture = Image.new(mode, (W, H), (color,) * len(mode))
    picture.putalpha(Image.fromarray(alpha))
    return picture


def jpeg_noise() -> Image.Image:
    noise = np.random.default_rng(0).integers(-6, 7, (H, W))
    return gray(np.clip(SOFT * 255 + noise, 0, 255).round())


def transparent_palette() -> Image.Image:
    picture = with_palette(OBJECT * 1, {0: (9, 99, 200), 1: (9, 99, 201)})
    picture.info["transparency"] = bytes([0, 255])
    return picture


VOC = {0: (0, 0, 0), 3: (128, 128, 0), 255: (224, 224, 192)}
STYLES: dict[str, Callable[[], Image.Image]] = {
    "8 bits": lambda: gray(BYTES),
    "1 bit": lambda: Image.fromarray(OBJECT),
    "0 and 1": lambda: gray(OBJECT),
    "0 and 128": lambda: gray(OBJECT * 128),
    "16 bits": lambda: gray(OBJECT * 65535, np.uint16),
    "255 in 16 bits": lambda: gray(OBJECT * 255, np.uint16),
    "1 in 16 bits": lambda: gray(OBJECT * 1, np.uint16),
    "number 1003 in 16 bits": lambda: gray(OBJECT * 1003, np.uint16),
    "32 bits": lambda: gray(OBJECT * 70000, np.int32),
    "float 0 to 1": lambda: gray(SOFT, np.float32),
    "float 0 and 1": lambda: gray(OBJECT, np.float32),
    "float 0 and 255": lambda: gray(BYTES, np.float32),
    "inverted": lambda: gray(255 - BYTES),
    "inverted 16 bits": lambda: gray(65535 - OBJECT * 65535, np.uint16),
    "inverted soft": lambda: gray((1 - SOFT) * 255),
    "soft": lambda: gray(SOFT * 255),
    "soft in five steps": lambda: gray((SOFT * 4).round() * 63.75),
    "soft in 16 bits": lambda: gray(SOFT * 65535, np.uint16),
    "noise of JPEG": jpeg_noise,
    "gray in RGB": lambda: gray(BYTES).convert("RGB"),
    "red": lambda: colored((255, 0, 0)),
    "dark red": lambda: colored((128, 0, 0)),
    "red on white": lambda: colored((255, 0, 0), (255, 255, 255)),
    "yellow on purple": lambda: colored((253, 231, 37), (68, 1, 84)),
    "colors of VOC with void": lambda: colored((128, 128, 0), ring=(224, 224, 192)),
    "RGBA, white": lambda: with_alpha("RGB", 255, BYTES),
    "RGBA, black": lambda: with_alpha("RGB", 0, BYTES),
    "LA": lambda: with_alpha("L", 255, BYTES),
    "RGBA, opaque": lambda: gray(BYTES).convert("RGBA"),
    "RGBA, soft": lambda: with_alpha("RGB", 255, (SOFT * 255).astype(np.uint8)),
    "transparent palette": transparent_palette,
    "labels with void": lambda: gray(np.where(RING, 255, OBJECT * 1)),
    "label 15 with void": lambda: gray(np.where(RING, 255, OBJECT * 15)),
    "label 15 with a thin void": lambda: gray(np.where(RING & (RADIUS < 1.03), 255, OBJECT * 15)),
    "two labels": lambda: gray(np.where(LEFT, 2, OBJECT * 1)),
    "two labels in 16 bits": lambda: gray(np.where(LEFT, 1002, OBJECT * 1001), np.uint16),
    "two bright labels": lambda: gray(np.where(LEFT, 75, OBJECT * 38)),
    "trimap of pets": lambda: gray(np.where(RING, 3, np.where(OBJECT, 1, 2))),
    "palette of VOC": lambda: with_palette(np.where(RING, 255, OBJECT * 3), VOC),
    "palette of two colors": lambda: with_palette(OBJECT * 1, {1: (200, 30, 30)}),
    "palette, white first": lambda: with_palette(~OBJECT * 1, {0: (255,) * 3}),
    "palette, red first": lambda: with_palette(~OBJECT * 1, {0: (255, 0, 0)}),
}


@pytest.mark.parametrize("style", STYLES)
def test_each_style_is_read_as_the_object(style: str, tmp_path: Path) -> None:
    suffix = ".tif" if style.startswith(("float", "32")) else ".png"
    STYLES[style]().save(tmp_path / f"mask{suffix}")
    mask = read_mask(tmp_path / f"mask{suffix}")
    assert set(np.unique(mask)) == {0, 255}
    assert np.array_equal(mask > 127, OBJECT) or (
        "oft" in style or style.startswith(("float 0 to", "noise"))
    )
    different = (mask > 127) != OBJECT
    assert not (different & (np.abs(RADIUS - 1) > 0.04)).any()  # a soft edge may round either way


def rule_of(*pictures: Image.Image, source: Source = "gray") -> Rule:
    numbers = [numbers_of(picture) for picture in pictures]
    return decide(source, [observe(n.values) for n in numbers if n.source == source])


def test_one_odd_mask_does_not_decide_for_the_others() -> None:
    white = gray(np.full((H, W), 255))
    ones, empty = gray(np.ones((H, W))), gray(np.zeros((H, W)))
    assert rule_of(gray(BYTES), white, ones, empty, gray(BYTES)) == Rule()
    assert rule_of(gray(BYTES), gray(BYTES), gray(255 - BYTES)) == Rule()
    assert rule_of(gray(255 - BYTES), gray(255 - BYTES), gray(BYTES)).inverted


def test_masks_of_different_labels_are_label_maps() -> None:
    rule = rule_of(gray(OBJECT * 3), gray(OBJECT * 15), gray(np.where(RING, 255, OBJECT * 3)))
    assert rule == Rule(labels=True, background=0, void=255)


def test_white_is_no_void_beside_gray() -> None:
    doubtful = (RADIUS < 1.03) & (RADIUS >= 0.97)
    trimap = gray(np.where(doubtful, 128, BYTES))
    assert rule_of(trimap).void is None
    mask = apply(rule_of(trimap), numbers_of(trimap))
    assert mask[RADIUS < 0.9].all()


def test_what_was_assumed_is_said() -> None:
    def words(picture: Image.Image) -> str:
        source = numbers_of(picture).source
        return rule_of(picture, source=source).describe(source)

    assert words(gray(BYTES)) == "white = 255 means object"
    assert words(gray(OBJECT)) == "a value above 0.5 means object"
    assert words(gray(255 - BYTES)) == "the masks are inverted, 127.5 and below means object"
    assert words(with_alpha("L", 0, BYTES)) == "opaque means object"
    assert words(colored((9, 9, 99), (255, 255, 255))) == "every color but #ffffff means object"
    assert words(with_palette(np.where(RING, 255, OBJECT * 3), VOC)) == (
        "every value but 0 means object, 255 is undecided and counts as background"
    )


def test_large_masks_are_looked_at_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_styles, "_OBSERVED", 500)
    for style in ("8 bits", "inverted", "noise of JPEG", "labels with void", "red on white"):
        numbers = numbers_of(STYLES[style]())
        evidence = observe(numbers.values)
        assert evidence.pixels.sum() < 1500
        mask = apply(decide(numbers.source, [evidence]), numbers)
        assert not ((mask != OBJECT) & (np.abs(RADIUS - 1) > 0.04)).any(), style


def test_the_user_may_say_how_masks_are_read(tmp_path: Path) -> None:
    with_alpha("L", 255, BYTES).save(tmp_path / "a.png")
    assert read_mask_numbers(tmp_path / "a.png", "bright").values.min() == 255
    numbers = numbers_of(gray(BYTES))
    evidence = [observe(numbers.values)]
    assert np.array_equal(apply(decide("gray", evidence, "dark"), numbers), ~OBJECT)
    assert decide("gray", evidence, "labels") == Rule(labels=True)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_numbers_that_are_not_finite_are_no_mask(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        numbers_of(gray(np.where(OBJECT, bad, 0), np.float32))
