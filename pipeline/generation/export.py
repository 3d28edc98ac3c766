"""Exports generated meshes: .obj, .mtl, .png and .glb for each, and pictures and a page of them all."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from geometry.glb import save_glb
from geometry.mesh_files import save_textured_mesh
from geometry.sphere_mesh import SphereMesh
from pipeline.generation import export_folder, extras, sampling
from pipeline.generation.config import GenerationConfig
from pipeline.generation.evaluation import choose_file
from pipeline.generation.model_file import Model, load_trained, needs_items
from rendering import gallery, rasterizer
from utils import distributed
from utils.cli import UserError
from utils.pictures import make_grid, save_image, to_uint8
from utils.progress import progress
from utils.run_directory import configure_logging

logger = logging.getLogger(__name__)

GRID_SIZE = 256  # pixels of one rendering in the picture
GRID_SUPERSAMPLING = 4
_ORIGIN = ("run", "checkpoint", "step", "seed", "truncation_sigma")  # what files say of themselves


def export_sample(device: torch.device, config: GenerationConfig) -> None:
    """Writes `how_many` meshes, a page and a turntable to <export_folder>/<run>/, beside it <run>.png.

    Raises:
        UserError: if the folder holds meshes of another seed or model, unless they may be replaced.
    """
    rasterizer.set_backend(config.rasterizer)
    configure_logging()
    # Everything that may fail comes before the folder is touched
    path = choose_file(config, device)
    model, config = load_trained(config, path, device)
    items = _items(model, config)
    template = sampling.make_sphere(config.model).to(device)
    how_many = config.sampling.how_many or config.batch_size
    eligible = _with_items(_rows(model, config), model)
    rows = sampling.sample_rows(eligible, how_many, config.seed)
    # All processes check the folder before one of them changes it
    assert config.sampling.export_folder is not None
    folder = Path(config.sampling.export_folder) / config.name
    record = export_folder.provenance(config, path, model.step)
    export_folder.check(folder, record, overwrite=config.sampling.overwrite)
    distributed.barrier()
    if distributed.is_main():
        export_folder.begin(folder, record)
    distributed.barrier()
    # Each process writes the meshes of its shard
    pictures, frames = [], []
    mine = list(distributed.shard(how_many))
    with progress(total=len(mine), description="exporting") as bar:
        for start in range(0, len(mine), config.batch_size):
            numbers = mine[start : start + config.batch_size]
            chosen = [rows[i] for i in numbers]
            sample = sampling.generate(model.generator, config, model.views, items, chosen, numbers)
            origins = [_origin(record, model.views.paths[rows[i]], i) for i in numbers]
            _write_meshes(folder, template, sample, dict(zip(numbers, origins, strict=True)))
            pictures.append(_picture(template, sample).cpu())
            turning = [i for i, number in enumerate(numbers) if number < gallery.TURNTABLE_MESHES]
            if turning:
                some = sampling.select(sample, turning)
                vertices = template.deform(some.displacement)
                frames.append(gallery.turntable_frames(template, vertices, some.texture))
            bar.update(len(numbers))
    # Pictures of all meshes together
    all_pictures, all_frames = (_gathered(parts) for parts in (pictures, frames))
    if distributed.is_main():
        grid = make_grid(all_pictures, sampling.GRID_COLUMNS, padding=0, value=-1.0)
        save_image(export_folder.picture_path(folder), to_uint8(grid))
        gallery.save_turntable(folder / "turntable.gif", all_frames)
        meshes = [folder / f"mesh_{number}.glb" for number in range(how_many)]
        drawn = extras.Drawn(model, config, template, items, eligible)
        export_folder.finish(folder, how_many)
        added = _save_extras(folder, drawn, how_many, record)
        gallery.save_page(folder / "index.html", config.name, meshes, extras=added)
        gallery.announce(folder, how_many)


def _save_extras(
    folder: Path, drawn: extras.Drawn, how_many: int, record: Mapping[str, object]
) -> gallery.Extras:
    """Writes what was asked for beside the meshes; returns that and what earlier exports of the model left there."""
    options, morphs = drawn.config.sampling, folder / extras.MORPHS
    origin = {key: record[key] for key in (*_ORIGIN, "checkpoint_sha256")}
    if options.export_morphs:
        extras.save_morphs(morphs, drawn, origin)
    if options.interpolate is not None:
        extras.save_walk(folder / "walk.gif", drawn, options.interpolate)
    if options.swap:
        extras.save_swaps(folder, drawn, origin)
    if options.part_colors:
        extras.save_parts(folder, drawn, how_many, origin)
    pictures = {folder / name: text for name, text in extras.CAPTIONS.items()}
    present = {path: text for path, text in pictures.items() if path.exists()}
    return gallery.Extras(morphs if morphs.exists() else None, present, origin)


def _rows(model: Model, config: GenerationConfig) -> list[int]:
    """Returns the views to draw from: those of --filter_class, if it is given."""
    return sampling.eligible_rows(config, model.views, model.categories, model.label_names)


def _items(model: Model, config: GenerationConfig) -> sampling.Items | None:
    """Returns what a conditional model takes from photographs: its own sample, else the cache's."""
    if not needs_items(model.options):
        return None
    return model.items or sampling.optional_dataset(config)


def _with_items(eligible: Sequence[int], model: Model) -> list[int]:
    """Returns those of the rows that a conditional model has a part map and a mesh of.

    Raises:
        UserError: if there are none.
    """
    rows = [row for row in eligible if row in model.items or not model.items]
    if not rows:
        raise UserError(
            f"{model.path} has no part maps and meshes of the category that was asked for."
        )
    return rows


def _gathered(parts: list[Tensor]) -> Tensor:
    """Joins the batches of all processes, in the order of their ranks."""
    return torch.cat([part for process in distributed.gather(parts) for part in process])


def _origin(record: Mapping[str, object], photograph: str, number: int) -> dict[str, object]:
    """Returns what a mesh was made from, for its files: of the record of the export, and its own."""
    common = {key: record[key] for key in _ORIGIN}
    return common | {"sample": number, "pose and category of": photograph}


def _write_meshes(
    folder: Path,
    template: SphereMesh,
    sample: sampling.Generated,
    origins: Mapping[int, Mapping[str, object]],
) -> None:
    """Writes the meshes of a batch, numbered by the keys of their origins."""
    vertices = template.deform(sample.displacement)
    for i, (number, origin) in enumerate(origins.items()):
        save_textured_mesh(
            folder / f"mesh_{number}.obj",
            vertices[i],
            template.faces,
            template.uvs,
            template.face_uvs,
            sample.texture[i],
            origin,
        )
        path = folder / f"mesh_{number}.glb"
        save_glb(path, template, vertices[i], sample.texture[i], origin)


def _picture(template: SphereMesh, sample: sampling.Generated) -> Tensor:
    """Antialiased renderings on white, (B, 4, size, size) in [-1, 1]; the last channel is coverage.

    Each mesh is turned as in its photograph, and fills its tile whatever its size there.
    """
    shown = sampling.framed(template, sample)
    colors, coverage = sampling.render(template, shown, GRID_SIZE * GRID_SUPERSAMPLING)
    # Colors are zero where nothing covers: adding what is uncovered makes that white
    layers = torch.cat([colors + (1 - coverage), 2 * coverage - 1], dim=1)
    return F.avg_pool2d(layers, GRID_SUPERSAMPLING)
