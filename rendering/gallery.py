"""Textured meshes to look at: a page that shows them and opens without network, and a turntable picture."""

import base64
import html
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from geometry import quaternion
from geometry.camera import Pose, project
from geometry.glb import target_names
from geometry.sphere_mesh import SphereMesh
from rendering.texture import render_textured
from utils.files import atomic_path, write_bytes
from utils.pictures import make_grid

GALLERY_MESHES = 40  # as many as a page can hold: each takes about a megabyte
TURNTABLE_MESHES = 8
TURNTABLE_FRAMES = 24
TURNTABLE_SIZE = 128  # pixels
_ELEVATION = 15.0  # degrees
_MILLISECONDS = 100  # per frame
_VIEWER = Path(__file__).parent / "viewer"

logger = logging.getLogger(__name__)


class Photograph(NamedTuple):
    """What a mesh was made from.

    Attributes:
        name: what stands below the two.
        jpeg: the picture file.
        orbit: `camera-orbit` of model-viewer from which the mesh is seen at first.
    """

    name: str
    jpeg: bytes
    orbit: str


class Extras(NamedTuple):
    """What a page shows beside its meshes.

    Attributes:
        morphs: .glb file with named morph targets, which get sliders; None for none.
        pictures: beside the page, and what each shows.
        origin: what the meshes were made from.
    """

    morphs: Path | None
    pictures: Mapping[Path, str]
    origin: Mapping[str, object]


def save_page(
    path: Path,
    title: str,
    meshes: Sequence[Path],
    photographs: Sequence[Photograph] = (),
    extras: Extras | None = None,
) -> None:
    """Writes a page that opens without network, in which every mesh can be turned.

    Args:
        path: of the page.
        title: heading.
        meshes: .glb files, of which the first GALLERY_MESHES are shown.
        photographs: of the same number, each beside its mesh; none by default.
        extras: what else the page shows.
    """
    shown = meshes[:GALLERY_MESHES]
    note = f"{len(shown)} of {len(meshes)} meshes." if len(meshes) > len(shown) else ""
    beside = photographs or [None] * len(meshes)
    # Script and meshes are embedded, since a page opened from disk may not load other files
    page = Template((_VIEWER / "gallery.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        note=note,
        script=(_VIEWER / "model-viewer.min.js").read_text(encoding="utf-8"),
        extras="" if extras is None else _extras(extras),
        figures="\n".join(map(_figure, shown, beside)),
    )
    write_bytes(path, page.encode())


def announce(folder: Path, count: int) -> None:
    """Logs where the meshes of an export and their page are."""
    number = f"{count} mesh" if count == 1 else f"{count} meshes"
    logger.info("wrote %s to %s/, see %s/index.html", number, folder, folder)


def _figure(mesh: Path, photograph: Photograph | None) -> str:
    name = html.escape(photograph.name if photograph else mesh.stem)
    kind, orbit, picture = "", "60deg 75deg auto", ""
    link = html.escape(mesh.name)
    download = "" if photograph else f' <a href="{link}" download>.glb</a>'
    if photograph:
        kind, orbit = ' class="pair"', photograph.orbit
        picture = f'<img alt="{name}" src="data:image/jpeg;base64,{_base64(photograph.jpeg)}">'
    return (
        f'<figure{kind}>{picture}<model-viewer alt="{name}" camera-controls '
        f'interaction-prompt="none" camera-orbit="{orbit}" '
        f'src="data:model/gltf-binary;base64,{_base64(mesh.read_bytes())}">'
        f"</model-viewer><figcaption>{name}{download}</figcaption></figure>"
    )


def _extras(extras: Extras) -> str:
    """Returns sliders, pictures and the origin as HTML."""
    parts = []
    if extras.morphs is not None:
        # A mode is shown up to three standard deviations to either side
        sliders = "".join(
            f'<label>{html.escape(name)}<input type="range" min="-3" max="3" step="0.05" value="0"></label>'
            for name in target_names(extras.morphs)
        )
        name = html.escape(extras.morphs.name)
        parts.append(
            '<section id="morphs"><model-viewer alt="mean mesh" camera-controls '
            'interaction-prompt="none" camera-orbit="60deg 75deg auto" '
            f'src="data:model/gltf-binary;base64,{_base64(extras.morphs.read_bytes())}"></model-viewer>'
            f'<form>{sliders}<button type="reset">mean</button> <a href="{name}" download>{name}</a></form>'
            "</section>"
        )
    for picture, caption in extras.pictures.items():
        kind, name = picture.suffix.removeprefix("."), html.escape(picture.name)
        source = f"data:image/{kind};base64,{_base64(picture.read_bytes())}"
        parts.append(f'<p><img alt="{name}" src="{source}"><br>{name}: {html.escape(caption)}</p>')
    entries = "".join(
        f"<dt>{html.escape(str(key))}</dt><dd>{html.escape(str(value))}</dd>"
        for key, value in extras.origin.items()
    )
    parts.append(
        f"<details><summary>What these meshes were made from</summary><dl>{entries}</dl></details>"
    )
    return "\n".join(parts)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def turntable_frames(template: SphereMesh, vertices: Tensor, texture: Tensor) -> Tensor:
    """Renders meshes from all around, on white.

    Args:
        template: topology of the meshes.
        vertices: (B, V, 3) object space.
        texture: (B, 3, R, R) in [-1, 1].

    Returns:
        (B, frames, 3, size, size) uint8.
    """
    frames = [turned(template, vertices, texture, number) for number in range(TURNTABLE_FRAMES)]
    return torch.stack(frames, dim=1)


def turned(
    template: SphereMesh, vertices: Tensor, texture: Tensor, number: int, size: int = TURNTABLE_SIZE
) -> Tensor:
    """Renders one frame (B, 3, size, size) uint8 of the turntable of meshes, of TURNTABLE_FRAMES."""
    azimuth = number * (360 // TURNTABLE_FRAMES)
    colors = render_turned(template, vertices, texture, size, azimuth, _ELEVATION)
    return ((colors.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()


def render_turned(
    template: SphereMesh,
    vertices: Tensor,
    texture: Tensor,
    size: int,
    azimuth: float,
    elevation: float,
) -> Tensor:
    """Renders meshes from a direction in degrees, on white: (B, 3, size, size) in [-1, 1].

    Arguments are as in `turntable_frames`.
    """
    # Scaled by its radius, a mesh never leaves the picture while it turns
    radius = vertices.norm(dim=-1).amax(dim=1, keepdim=True)
    view = (torch.tensor(float(angle)) for angle in (azimuth, elevation, 0))
    rotation = quaternion.from_view(*view).to(vertices.device).expand(len(vertices), 4)
    pose = Pose(0.95 / radius, radius.new_zeros(len(radius), 2), rotation, 0 * radius)
    screen = project(vertices, pose, orthographic=True)
    seen = render_textured(template, screen, texture, 2 * size, soft=False)
    return F.avg_pool2d(seen.colors + (1 - seen.coverage), 2)


def save_turntable(path: Path, frames: Tensor) -> None:
    """Writes frames (B, frames, 3, size, size) uint8 as an animated picture that repeats forever."""
    columns = min(4, len(frames))
    # One grid of all meshes per frame
    grids = [make_grid(frame, columns, padding=0, value=255) for frame in frames.unbind(1)]
    pictures = [Image.fromarray(grid.permute(1, 2, 0).numpy()) for grid in grids]
    # One palette for all frames, or colors would flicker
    strip = Image.fromarray(torch.cat([g.permute(1, 2, 0) for g in grids[::4]]).numpy())
    palette = strip.quantize(256)
    first, *others = (picture.quantize(palette=palette) for picture in pictures)
    with atomic_path(path) as temporary:
        first.save(temporary, save_all=True, append_images=others, duration=_MILLISECONDS, loop=0)
