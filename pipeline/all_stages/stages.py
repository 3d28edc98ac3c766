"""The stages of the pipeline as commands, with the files that each reads and writes."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from data.cache import folders


@dataclass(frozen=True)
class Config:
    """Options of run_all.py, which describes and defaults them.

    Attributes:
        dataset: folder below datasets/.
        category: what the photographs show; None if the collection says so.
        name: of both runs.
        mode: singletpl or multitpl.
        preset: one of pipeline.all_stages.presets.PRESETS.
        how_many: generated meshes to export.
        machine: options that every stage but the preparation takes, such as --gpu_ids and --seed.
    """

    dataset: str
    category: str | None
    name: str
    mode: str
    preset: str
    how_many: int
    machine: tuple[str, ...]


class Stage(NamedTuple):
    """A command of the pipeline.

    Attributes:
        title: for people.
        program: module with the command, as `python -m` finds it in the repository.
        words: its options.
        inputs: files and folders whose change makes its results out of date.
        outputs: files and folders that exist once it has succeeded.
    """

    title: str
    program: str
    words: tuple[str, ...]
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]


def plan(config: Config) -> list[Stage]:
    """Returns the stages from photographs to exported meshes, in order."""
    cache = folders.cache_folder(config.dataset)
    reconstruction = Path("checkpoints_recon") / config.name
    generation = Path("checkpoints_gan") / config.name
    # What the stages leave for each other
    detections = cache / "detections.json"
    hypotheses = cache / f"camera_hypotheses_silhouette_{config.mode}.bin"
    poses = cache / f"poses_estimated_{config.mode}.bin"
    views = cache / f"poses_metadata_{config.mode}.npz"
    estimator, generator = reconstruction / "model.pth", generation / "model.pth"
    records = [folder / "metrics.jsonl" for folder in (reconstruction, generation)]
    meshes = Path("output") / config.name / "index.html"
    # Options that several of them share
    dataset = ("--dataset", config.dataset)
    category = ("--category", config.category) if config.category else ()
    posed = (*dataset, "--mode", config.mode, "--preset", config.preset, *config.machine)
    run = ("--name", config.name, *posed)
    distance = () if config.preset == "paper" else ("--proxy_distance",)
    export = ("--export_sample", "--how_many", str(config.how_many), "--overwrite")
    # fmt: off
    return [
        Stage("preparation", "data.prepare", (*dataset, *category), (Path("datasets") / config.dataset,), (detections,)),
        Stage("poses, step 1", "pose_optimization_step1", posed, (detections,), (hypotheses,)),
        Stage("poses, step 2", "pose_optimization_step2", posed, (hypotheses,), (poses,)),
        Stage("reconstruction", "run_reconstruction", run, (poses,), (estimator,)),
        Stage("reconstruction, evaluated", "run_reconstruction", (*run, "--evaluate"), (estimator,), (records[0],)),
        Stage("pseudo-ground-truth", "run_reconstruction", (*run, "--generate_pseudogt"), (estimator,), (views,)),
        Stage("generator", "run_generation", run, (views,), (generator,)),
        Stage("generator, evaluated", "run_generation", (*run, "--evaluate", *distance), (generator,), (records[1],)),
        Stage("exported meshes", "run_generation", (*run, *export), (generator,), (meshes,)),
    ]
    # fmt: on
