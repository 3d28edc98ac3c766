"""Trained models in Python: meshes from seeds, and from photographs, as arrays and files.

Everything here is imported from `textured_mesh_gan` itself, which loads PyTorch when it is first used.
Mistakes such as missing files raise `UserError`, whose text is one line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.crops import network_input, resize_crop
from data.image_files import UnreadablePicture
from geometry.camera import project
from geometry.glb import save_glb
from geometry.mesh_files import save_textured_mesh
from geometry.sphere_mesh import SphereMesh
from pipeline.generation import model_file as generators
from pipeline.generation import sampling
from pipeline.generation.config import GenerationConfig, make_config
from pipeline.reconstruction import model_file as estimators
from pipeline.reconstruction.meshes import estimator, photograph_files
from pipeline.reconstruction.meshes.collection_meshes import require_texture
from pipeline.reconstruction.meshes.whole_texture import whole_texture
from rendering.gallery import render_turned
from rendering.rasterizer import rasterize as rasterize
from run_generation import build_parser
from utils import model_file
from utils.cli import UserError
from utils.pictures import to_uint8

BATCH = 8  # meshes that are generated at a time


@dataclass(frozen=True)
class Mesh:
    """A textured mesh. All meshes of a model share faces and texture coordinates.

    Attributes:
        vertices: (V, 3) float32, object space: x lateral, front towards -y, z up; the size of a
            template is about 1.
        texture: (R, R, 3) uint8 RGB, row 0 at v = 1.
        sphere: topology that the mesh has.
    """

    vertices: NDArray[np.float32]
    texture: NDArray[np.uint8]
    sphere: SphereMesh = field(repr=False)

    @property
    def faces(self) -> NDArray[np.int64]:
        """(F, 3) indices of vertices, counter-clockwise seen from outside."""
        return self.sphere.faces.cpu().numpy()

    @property
    def uvs(self) -> NDArray[np.float32]:
        """(U, 2) texture coordinates in [0, 1], v up."""
        return self.sphere.uvs.cpu().numpy()

    @property
    def face_uvs(self) -> NDArray[np.int64]:
        """(F, 3) indices of the corners of the faces into `uvs`."""
        return self.sphere.face_uvs.cpu().numpy()

    def save(self, path: str | Path) -> None:
        """Writes .glb, or .obj with .mtl and .png beside it; y up.

        Raises:
            UserError: for another suffix.
        """
        path, sphere = Path(path), self.sphere.cpu()
        vertices, texture = torch.from_numpy(self.vertices), self._texture()
        if path.suffix == ".glb":
            save_glb(path, sphere, vertices, texture)
        elif path.suffix == ".obj":
            arrays = (sphere.faces, sphere.uvs, sphere.face_uvs)
            save_textured_mesh(path, vertices, *arrays, texture)
        else:
            raise UserError(f"{path}: expected a name that ends in .glb or .obj.")

    def render(
        self, size: int = 256, azimuth: float = 0.0, elevation: float = 15.0
    ) -> NDArray[np.uint8]:
        """Returns a picture (size, size, 3) uint8 on white, seen from a direction in degrees."""
        vertices = torch.from_numpy(self.vertices)[None]
        colors = render_turned(
            self.sphere.cpu(), vertices, self._texture()[None], size, azimuth, elevation
        )
        return to_uint8(colors[0])

    def _texture(self) -> Tensor:
        return torch.from_numpy(self.texture).permute(2, 0, 1).float() / 127.5 - 1


class Generator:
    """A trained GAN: meshes from seeds or from latent codes. Made by `load_generator`."""

    def __init__(self, model: generators.Model, config: GenerationConfig) -> None:
        self._model, self._config = model, config
        self._sphere = sampling.make_sphere(config.model)
        self._sphere.to(next(model.generator.parameters()).device)

    @property
    def categories(self) -> list[str]:
        """What the photographs showed that it was trained on."""
        return list(self._model.categories)

    def codes(self, numbers: Sequence[int], seed: int = 1) -> NDArray[np.float32]:
        """Returns the latent codes (B, 64) of samples: one number of one seed is always the same."""
        size, sigma = self._config.model.latent_dim, self._config.truncation_sigma
        return sampling.latent_codes(numbers, size, sigma, seed).numpy()

    def sample(self, count: int = 1, seed: int = 1, category: str | None = None) -> list[Mesh]:
        """Returns meshes; the first N are mesh_0 ... of `--export_sample --how_many N --seed SEED`.

        Args:
            count: how many, 1 or more.
            seed: of codes and conditions.
            category: of a model that is conditional on categories or labels, as --filter_class takes
                it; None draws from all.

        Raises:
            UserError: if the model does not know the category.
        """
        return self._meshes(self.codes(range(count), seed), self._rows(count, seed, category))

    def interpolate(
        self, first: int, second: int, steps: int = 8, seed: int = 1, category: str | None = None
    ) -> list[Mesh]:
        """Returns meshes on the straight line between the codes of two samples, both included.

        Args:
            first, second: numbers of samples, from 0 on.
            steps: how many meshes, 2 or more.
            seed, category: as in `sample`; all meshes have the same condition.
        """
        ends = self.codes([first, second], seed)
        line = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
        codes = (1 - line) * ends[0] + line * ends[1]
        return self._meshes(codes, self._rows(1, seed, category) * steps)

    def generate(
        self, codes: NDArray[np.float32], seed: int = 1, category: str | None = None
    ) -> list[Mesh]:
        """Returns the meshes of latent codes (B, 64), which are usually within [-1, 1]."""
        size = self._config.model.latent_dim
        if codes.ndim != 2 or codes.shape[1] != size:
            raise ValueError(f"codes: expected shape (B, {size}), got {codes.shape}.")
        return self._meshes(codes, self._rows(len(codes), seed, category))

    def _rows(self, count: int, seed: int, category: str | None) -> list[int]:
        """Draws the photographs whose conditions the meshes have, as an export does."""
        model = self._model
        options = replace(self._config.sampling, filter_class=category)
        config = replace(self._config, sampling=options)
        rows = sampling.eligible_rows(config, model.views, model.categories, model.label_names)
        rows = [row for row in rows if row in model.items or not model.items]
        if not rows:
            raise UserError(f"{model.path} holds no part maps and meshes of {category}.")
        return sampling.sample_rows(rows, count, seed)

    def _meshes(self, codes: NDArray[np.float32], rows: Sequence[int]) -> list[Mesh]:
        model, meshes = self._model, []
        for start in range(0, len(codes), BATCH):
            some = slice(start, start + BATCH)
            noise = torch.from_numpy(codes[some])
            made = sampling.generate_from(
                noise, model.generator, self._config, model.views, model.items, rows[some]
            )
            vertices = self._sphere.deform(made.displacement).cpu().numpy()
            textures = to_uint8(made.texture)
            meshes += [Mesh(*pair, self._sphere) for pair in zip(vertices, textures, strict=True)]
        return meshes


class Estimator:
    """A trained mesh estimator: meshes from photographs. Made by `load_estimator`."""

    def __init__(self, opened: estimator.Estimator) -> None:
        self._estimator = opened

    @property
    def category(self) -> str:
        """What it expects photographs to show."""
        return self._estimator.category_name

    def estimate(
        self,
        photograph: str | Path,
        mask: str | Path | None = None,
        *,
        texture_resolution: int = 512,
        refine_steps: int = 0,
    ) -> Mesh:
        """Returns the mesh of the object in a photograph, as `run_reconstruction.py --photo` does.

        Args:
            photograph: file of any size.
            mask: file that is white on the object; None if the photograph is transparent around it, or the
                mask head of the model is to find it.
            texture_resolution: R, in texels.
            refine_steps: that improve shape, texture and camera for this photograph; 50 take seconds.

        Raises:
            UserError: if one of the files cannot be used.
        """
        path, opened = Path(photograph), self._estimator
        masks = None if mask is None else photograph_files.match_masks(Path(mask), [path])
        finder = opened.mask_finder
        try:
            found = photograph_files.read_object(path, masks, finder, texture_resolution)
        except UnreadablePicture as error:  # belongs to no collection that could be prepared again
            raise UserError(f"{error.path} {error.reason}.") from error
        subject = found.subject
        image = network_input(subject.pixels, opened.model.options.image_resolution)
        mesh, _ = estimator.estimate(opened, image.to(opened.device), refine_steps)
        # What the photograph shows takes the place of what the network predicts
        sphere, side = opened.scene.sphere, min(len(subject.pixels), 2 * texture_resolution)
        crop = resize_crop(subject.pixels, side).to(opened.device)
        screen = project(mesh.vertices, mesh.pose)[0]
        texture = whole_texture(sphere, crop, screen, mesh.texture[0], texture_resolution)
        return Mesh(mesh.vertices[0].detach().cpu().numpy(), to_uint8(texture), sphere)


def load_generator(path: str | Path, device: str = "cpu") -> Generator:
    """Reads a generator: model.pth of a folder below checkpoints_gan/.

    Args:
        path: of the file.
        device: "cpu" or "cuda".

    Raises:
        UserError: if it is missing, damaged, or lacks the views that published files lack.
    """
    model = generators.load_model(path, torch.device(device))
    # Defaults of the command, and the options of the file
    args = model_file.load(Path(path)).get("args", {})
    names = ("--name", "api", "--mode", "singletpl", "--dataset", str(args.get("dataset", "api")))
    config = make_config(vars(build_parser().parse_args(names)))
    return Generator(model, replace(config, model=model.options))


def load_estimator(
    path: str | Path, category: str | None = None, device: str = "cpu", camera: str = "both"
) -> Estimator:
    """Reads a mesh estimator: model.pth of a folder below checkpoints_recon/.

    Args:
        path: of the file.
        category: what photographs will show; needed if the model knows several categories.
        device: "cpu" or "cuda".
        camera: where cameras come from: "student", "search" or "both".

    Raises:
        UserError: if it is missing or damaged, has no textures, or does not know the category.
    """
    model = estimators.load_model(path, torch.device(device))
    require_texture(model)
    return Estimator(estimator.make_estimator(model, category, camera, torch.device(device)))
