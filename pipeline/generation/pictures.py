"""Pictures of a training run: always of the same codes, conditions and views, so that they compare."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import default_collate

from data.pseudo_ground_truth import PseudoGroundTruth
from geometry import camera
from geometry.sphere_mesh import SphereMesh
from pipeline.generation import sampling
from pipeline.generation.config import GenerationConfig
from pipeline.generation.linear.refined import AnyGenerator
from utils.pictures import draw_wireframe, labeled_rows, make_grid, to_uint8

NUM_SAMPLES = 16
SIZE = 128  # pixels of a rendering
_COLUMNS = 8


class Shown(NamedTuple):
    """What is drawn from.

    Attributes:
        template: topology of the meshes.
        dataset: samples whose conditions and views are shown.
        config: of the run.
    """

    template: SphereMesh
    dataset: PseudoGroundTruth
    config: GenerationConfig

    @property
    def rows(self) -> list[int]:
        """The samples."""
        return sampling.sample_rows(range(len(self.dataset)), NUM_SAMPLES, self.config.seed)


def draw_samples(generator: AnyGenerator, shown: Shown, step: int) -> np.ndarray:
    """Returns renderings of generated meshes on white, (H, W, 3) uint8."""
    metadata, rows = shown.dataset.metadata, shown.rows
    sample = sampling.generate(
        generator, shown.config, metadata, shown.dataset, rows, range(NUM_SAMPLES)
    )
    colors, coverage = sampling.render(shown.template, sample, SIZE)
    halves = (colors + (1 - coverage)).split(_COLUMNS)
    names = (f"samples {_COLUMNS * i} to {_COLUMNS * (i + 1) - 1}" for i in range(len(halves)))
    return labeled_rows(dict(zip(names, halves, strict=True)), f"step {step}")


def draw_details(generator: AnyGenerator, shown: Shown) -> dict[str, np.ndarray]:
    """Returns maps, renderings with exchanged halves, and a wireframe, by name."""
    fake, real = _fake_and_real(generator, shown)
    # Exchanged halves show whether the texture or the mesh is at fault
    views = {
        "fake": fake,
        "fake_texture": fake._replace(displacement=real.displacement),
        "fake_mesh": fake._replace(texture=real.texture),
        "real": real,
    }
    # Displacements are small: the largest one takes the full range of colors
    shape = fake.displacement / fake.displacement.abs().amax().clamp(min=1e-6)
    maps = {"real_tex": real.texture, "fake_tex": fake.texture, "fake_mesh": shape}
    renderings = {k: sampling.render(shown.template, v, SIZE)[0] for k, v in views.items()}
    pictures = dict(_grids("image", maps)) | dict(_grids("render", renderings))
    return pictures | {"render/wireframe": _wireframe(fake, shown.template)}


def _fake_and_real(
    generator: AnyGenerator, shown: Shown
) -> tuple[sampling.Generated, sampling.Generated]:
    """Returns generated meshes, and the pseudo-ground-truth whose conditions and poses they have."""
    rows, device = shown.rows, next(generator.parameters()).device
    real = type(shown.dataset[0])(
        *(x.to(device) for x in default_collate([shown.dataset[r] for r in rows]))
    )
    metadata = shown.dataset.metadata
    fake = sampling.generate(
        generator, shown.config, metadata, shown.dataset, rows, range(NUM_SAMPLES)
    )
    return fake, sampling.Generated(real.texture, real.mesh, fake.pose)


def _grids(group: str, images: Mapping[str, Tensor]) -> Iterator[tuple[str, np.ndarray]]:
    for name, pictures in images.items():
        yield f"{group}/{name}", to_uint8(make_grid(pictures.cpu(), _COLUMNS))


def _wireframe(sample: sampling.Generated, template: SphereMesh) -> np.ndarray:
    first = sampling.select(sample, [0])
    vertices = camera.project(template.deform(first.displacement), first.pose)
    canvas = to_uint8(sampling.render(template, first, 2 * SIZE)[0][0])
    return draw_wireframe(canvas, vertices[0], template.faces)
