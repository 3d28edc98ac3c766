"""Sliders of shape, walks, swaps and colored parts: files in other programs, and what they hold."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import run_generation
from geometry import gltf
from geometry.glb import save_glb
from geometry.sphere_mesh import SphereMesh
from pipeline.generation import extras, sampling
from pipeline.generation.config import make_config
from pipeline.generation.linear.generator import LinearGenerator
from rendering import gallery
from tests.pipeline.generation.toy import OPTIONS, run

FOLDER = Path("output/toy_singletpl")


def read(path: Path) -> tuple[dict, bytes]:
    """Returns the tree and binary chunk of a .glb whose structure follows the format."""
    content = path.read_bytes()
    magic, version, length = struct.unpack("<4sII", content[:12])
    assert (magic, version, length) == (b"glTF", 2, len(content))
    # Both chunks start and end at multiples of four bytes
    size, kind = struct.unpack("<I4s", content[12:20])
    assert (size % 4, kind) == (0, b"JSON")
    other, kind = struct.unpack("<I4s", content[20 + size : 28 + size])
    assert (other % 4, kind) == (0, b"BIN\0")
    assert 28 + size + other == length
    return json.loads(content[20 : 20 + size]), content[28 + size :]


def accessor(tree: dict, binary: bytes, number: int) -> np.ndarray:
    return gltf._accessor(tree, [binary], number, 3)


def test_morph_targets_are_offsets_of_the_positions_by_name(tmp_path: Path) -> None:
    template = SphereMesh()
    offsets = {
        "1: wider": template.vertices * torch.tensor([0.5, 0, 0]),
        "2: higher": template.vertices * torch.tensor([0, 0, 0.25]),
    }
    texture = torch.zeros(3, 32, 32)
    save_glb(tmp_path / "m.glb", template, template.vertices, texture, None, offsets)
    tree, binary = read(tmp_path / "m.glb")
    [mesh] = tree["meshes"]
    [primitive] = mesh["primitives"]
    assert mesh["extras"]["targetNames"] == list(offsets)
    assert mesh["weights"] == [0, 0]
    positions = accessor(tree, binary, primitive["attributes"]["POSITION"])
    for target, factors in zip(primitive["targets"], ([0.5, 0, 0], [0, 0.25, 0]), strict=True):
        found = accessor(tree, binary, target["POSITION"])
        np.testing.assert_allclose(found, positions * factors, atol=1e-6)  # y up
        entry = tree["accessors"][target["POSITION"]]
        np.testing.assert_allclose([entry["min"], entry["max"]], [found.min(0), found.max(0)])
        view = tree["bufferViews"][entry["bufferView"]]
        assert view["byteOffset"] % 4 == 0
        assert view["byteOffset"] + view["byteLength"] <= tree["buffers"][0]["byteLength"]
    assert tree["buffers"][0]["byteLength"] == len(binary)


def test_modes_of_shape_are_found_and_named() -> None:
    vertices = SphereMesh().vertices
    generator = torch.manual_seed(0)
    length, width = (torch.randn(400, generator=generator) for _ in range(2))
    length, width = length - length.mean(), width - width.mean()
    factors = torch.ones(400, 1, 3)
    factors[:, 0, 1] += 0.2 * length
    factors[:, 0, 0] += 0.05 * width
    found = extras.shape_modes(vertices * factors, count=2)
    torch.testing.assert_close(found.mean, vertices, atol=1e-4, rtol=0)
    assert [name.partition(" (")[0] for name in found.modes] == ["1: longer", "2: wider"]
    first, second = found.modes.values()
    expected = [vertices * torch.tensor([0, 0.2, 0]), vertices * torch.tensor([0.05, 0, 0])]
    scale = [x.std(correction=0) for x in (length, width)]
    torch.testing.assert_close(first, expected[0] * scale[0], atol=5e-3, rtol=0)
    torch.testing.assert_close(second, expected[1] * scale[1], atol=5e-3, rtol=0)


def test_modes_of_a_statistical_generator_are_its_own() -> None:
    noise = torch.manual_seed(0)
    shape = torch.randn(4, 3, 32, 16, generator=noise)
    shape *= torch.tensor([0.05, 0.04, 0.03, 0.02])[:, None, None, None]
    generator, template = LinearGenerator(shape, torch.zeros(1, 3, 128, 64), 0), SphereMesh()
    texture, mean = generator.mean()
    found = extras.linear_modes(generator, mean, template)
    # What the generator itself makes of one code at a time
    codes = torch.cat([torch.zeros(1, 3), torch.eye(3)])
    center, *others = template.deform(generator(codes)[1])
    torch.testing.assert_close(found.mean, center)
    assert torch.equal(texture, torch.zeros(3, 128, 128))
    for offsets, vertices in zip(found.modes.values(), others, strict=True):
        sign = (offsets * (vertices - center)).sum().sign()
        torch.testing.assert_close(sign * offsets, vertices - center, atol=1e-5, rtol=0)


def test_an_export_adds_what_was_asked_for_and_shows_it(toy: Path) -> None:
    run("--iters", "1")
    run(
        "--export_morphs", "--swap", "--part_colors", "--interpolate", "1", "2:3", "--how_many", "2"
    )
    tree, _ = read(FOLDER / "morphs.glb")
    names = tree["meshes"][0]["extras"]["targetNames"]
    assert len(names) == extras.NUM_MODES
    page = (FOLDER / "index.html").read_text()
    assert page.count('type="range"') == extras.NUM_MODES
    assert 'href="mesh_1.glb" download' in page
    assert "checkpoint_sha256" in page
    for name in ("walk.gif", "swap.png", "parts.png"):
        assert f'alt="{name}"' in page
    assert (FOLDER / "mesh_1_parts.glb").exists()
    # Fewer meshes, and no leftovers of those before; the page keeps what is not made again
    run("--export_sample", "--how_many", "1")
    assert not (FOLDER / "parts.png").exists()
    run("--part_colors", "--how_many", "1")
    later = (FOLDER / "index.html").read_text()
    assert later.count('type="range"') == extras.NUM_MODES
    assert [f'alt="{name}"' in later for name in extras.CAPTIONS] == [True] * 3
    assert 'href="mesh_1.glb" download' not in later
    assert not (FOLDER / "mesh_1_parts.glb").exists()
    assert (FOLDER / "mesh_0_parts.glb").exists()


def test_a_swap_has_the_shape_of_one_sample_and_the_texture_of_another(toy: Path) -> None:
    run("--iters", "1")
    run("--swap", "--how_many", "3")
    (a, a_binary), (b, _), (both, both_binary) = (
        read(FOLDER / f"{name}.glb") for name in ("mesh_0", "mesh_2", "swap_0_2")
    )
    index = a["meshes"][0]["primitives"][0]["attributes"]["POSITION"]
    assert np.array_equal(accessor(a, a_binary, index), accessor(both, both_binary, index))
    assert both["asset"]["extras"]["shape of sample"] == 0
    assert both["asset"]["extras"]["texture of sample"] == 2
    assert b["asset"]["extras"]["sample"] == 2


def test_a_walk_begins_and_ends_at_its_samples(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("--iters", "1")
    codes = []
    generate_from = sampling.generate_from

    def spy(*arguments):
        codes.append(arguments[0])
        return generate_from(*arguments)

    monkeypatch.setattr(extras.sampling, "generate_from", spy)
    run("--interpolate", "7", "3:4", "--how_many", "1")
    walk = torch.cat(codes[-gallery.TURNTABLE_FRAMES :])
    first, last = (sampling.latent_codes([n], 64, 1.0, seed) for seed, n in ((7, 0), (3, 4)))
    torch.testing.assert_close(walk[0], first[0])
    torch.testing.assert_close(walk[gallery.TURNTABLE_FRAMES // 2], last[0])
    half = (first[0] + last[0]) / 2**0.5
    torch.testing.assert_close(walk[gallery.TURNTABLE_FRAMES // 4], half)
    with Image.open(FOLDER / "walk.gif") as picture:
        assert picture.n_frames == gallery.TURNTABLE_FRAMES  # type: ignore[attr-defined]


def test_parts_have_colors_of_their_own_and_are_symmetric(toy: Path) -> None:
    config = make_config(vars(run_generation.build_parser().parse_args(OPTIONS)))
    texture = extras.part_texture(config)  # both channels are even: the first one counts
    assert texture.shape == (3, 128, 128)
    torch.testing.assert_close(texture, torch.full_like(texture, 0.4))


@pytest.mark.parametrize(
    "options", [["--evaluate", "--swap"], ["--interpolate", "1"], ["--interpolate", "a", "2"]]
)
def test_meaningless_extras_are_usage_errors(toy: Path, options: list[str]) -> None:
    with pytest.raises(SystemExit) as error:
        run(*options)
    assert error.value.code == 2
