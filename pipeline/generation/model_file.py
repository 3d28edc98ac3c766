"""The generator on disk: what a model file holds, and what published checkpoints lack.

A file of ours is enough to generate meshes: it holds the views and categories to draw from and, for
models that are conditional on the pseudo-ground-truth, a sample of that. Published checkpoints hold
weights and options only, and need cache/ beside them.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from data.cache import pseudo_files
from data.cache.folders import class_names
from data.cache.label_files import check_labels
from data.cache.pseudo_files import PoseMetadata
from data.pseudo_ground_truth import PseudoGroundTruth
from models import generator as generators
from models.state_dicts import translate
from pipeline.generation import sampling
from pipeline.generation.config import GenerationConfig, GeneratorOptions
from pipeline.generation.linear.generator import LinearGenerator, from_state
from pipeline.generation.linear.refined import (
    AnyGenerator,
    RefinedGenerator,
    base_of,
    network_sizes,
)
from pipeline.generation.sampling import make_generator, sample_rows
from utils import checkpoint, model_file
from utils.cli import UserError
from utils.options import build, flatten

logger = logging.getLogger(__name__)

NUM_ITEMS = 64  # of the pseudo-ground-truth, in a model that is conditional on it


class Item(NamedTuple):
    """What a conditional model takes from the pseudo-ground-truth of a photograph.

    Attributes:
        seg: (K, r, r) part probabilities in UV space; (0, 1, 1) if not wanted.
        mesh: (3, S, S) displacement map.
    """

    seg: Tensor
    mesh: Tensor


class Model(NamedTuple):
    """A trained generator and what it draws from.

    Attributes:
        generator: with averaged weights, ready for inference.
        options: its architecture.
        categories: names of the classes of the training photographs.
        label_names: labels of each set that it is conditional on; empty for categories.
        views: poses and classes of these photographs; (K, S) labels for classes of a model with sets.
        items: of some rows of the views; empty for a model that needs none, or a published one.
        step: number of steps it was trained for; None where a published file does not say.
        path: the file.
    """

    generator: AnyGenerator
    options: GeneratorOptions
    categories: list[str]
    label_names: dict[str, list[str]]
    views: PoseMetadata
    items: Mapping[int, Item]
    step: int | None
    path: Path


def describe(dataset: PseudoGroundTruth, config: GenerationConfig) -> dict[str, Any]:
    """Returns what a file holds beside the weights and the number of steps."""
    description = model_file.header(flatten(config))
    description |= {"categories": class_names(config.data.dataset)}
    views = dataset.metadata
    if dataset.label_names:
        description |= {"labels": {"names": dataset.label_names, "values": views.category}}
        views = views._replace(category=torch.zeros(len(dataset), dtype=torch.int64))
    description |= {"views": views._asdict()}
    if not needs_items(config.model):
        return description
    # A sample of what such a model is conditional on, spread over the photographs
    rows = sample_rows(range(len(dataset)), min(NUM_ITEMS, len(dataset)), config.seed)
    items = [dataset[row] for row in rows]
    maps = {
        "seg": torch.stack([item.seg for item in items]).half(),
        "mesh": torch.stack([item.mesh for item in items]),
    }
    return description | {"items": {"rows": rows, **maps}}


def needs_items(options: GeneratorOptions) -> bool:
    """Returns whether a model takes part maps or meshes from the pseudo-ground-truth."""
    return options.conditional_semantics or options.texture_only


def save_model(
    folder: Path, generator: AnyGenerator, description: Mapping[str, Any], step: int
) -> None:
    """Writes the model file of a run; the generator is the averaged one."""
    weights = {"generator_running_avg": generator.state_dict()}
    checkpoint.save(folder / model_file.NAME, {**description, **weights, "iteration": step})


def refuse_another_kind(config: GenerationConfig) -> None:
    """Raises a UserError if the folder of a run holds a model of another kind, which would be replaced."""
    path = config.folder / model_file.NAME
    kinds = (
        {str(model_file.load(path).get("args", {}).get("kind", "gan"))} if path.exists() else set()
    )
    # Runs of earlier versions have checkpoints of networks only
    if checkpoint.numbered(config.folder):
        kinds.add("gan")
    if kinds - {config.model.kind}:
        raise UserError(
            f"{config.folder} holds a model of --model {' and '.join(sorted(kinds))}, which --model "
            f"{config.model.kind} would replace. Choose another --name, or move it away."
        )


def load_model(path: str | Path, device: torch.device) -> Model:
    """Reads a model that holds what it draws from: a model file or a checkpoint of ours.

    Raises:
        UserError: if the file is missing, damaged, or holds too little.
    """
    path = Path(path)
    state = model_file.load(path)
    if "generator_running_avg" not in state:
        raise UserError(
            f"{path} holds no generator. Those of run_generation.py are in checkpoints_gan/."
        )
    # Published checkpoints lack the views
    if "views" not in state:
        raise UserError(
            f"{path} does not hold the views that it draws from. Apply it where they are, in cache/: "
            "python run_generation.py --export_sample"
        )
    try:
        options = build(
            GeneratorOptions,
            {"label_sets": (), "kind": "gan", "start_from": "scratch", **_known_args(state)},
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} does not state its architecture ({error}).") from None
    return _build(path, state, options, *_stored_views(path, state), device)


def load_trained(
    config: GenerationConfig, path: Path, device: torch.device
) -> tuple[Model, GenerationConfig]:
    """Reads a model, ours or a published one, for use on a data set.

    Returns:
        The model, and the options with its architecture. Its views are its own if it was trained on
        that data set, else those in cache/.

    Raises:
        UserError: if the file is missing, damaged, or of another architecture.
    """
    state = model_file.load(path)
    # The architecture is the file's
    other = stored_architecture(path, state, config.model)
    if other:
        text = ", ".join(f"{key} {value}" for key, value in other.items())
        logger.info("%s brings its own options: %s", path, text)
    config = replace(config, model=replace(config.model, **other))
    # Photographs that were kept from its training, if it is that of the data set that was asked for
    asked = {"dataset": config.data.dataset, "mode": config.data.mode}
    trained = checkpoint.stored_options(path, state, asked)
    same = "views" in state and not trained
    held_out = float(state.get("args", {}).get("held_out", 0.0)) if same else 0.0
    config = replace(config, data=replace(config.data, held_out=held_out))
    # Its own views, too
    if same:
        return _build(path, state, config.model, *_stored_views(path, state), device), config
    # Otherwise those in cache/; a name that was mistyped has none there
    missing = pseudo_files.metadata_path(config.data.dataset, config.data.mode)
    if trained and not missing.exists():
        words = " ".join(f"--{key} {value}" for key, value in trained.items())
        raise UserError(
            f"{path} was trained with {words}. {missing} does not exist: ask for {words}."
        )
    names = class_names(config.data.dataset)
    views = pseudo_files.load_metadata(config.data.dataset, config.data.mode)
    without = {key: value for key, value in state.items() if key != "items"}  # of other rows
    if config.model.label_sets:
        count = len(state.get("views", {}).get("paths", ()))
        known = check_labels(path, state.get("labels"), count).names
        without["labels"] = sampling.labels_of(config, views.paths, known)._asdict()
    return _build(path, without, config.model, names, views, device), config


def stored_architecture(
    path: Path, state: Mapping[str, Any], present: GeneratorOptions
) -> dict[str, Any]:
    """Returns the options of a file's architecture that differ from the present ones, by name.

    Raises:
        UserError: if they are damaged.
    """
    return checkpoint.stored_options(path, {**state, "args": _known_args(state)}, asdict(present))


def _known_args(state: Mapping[str, Any]) -> Any:
    """Returns the options of a file; those from before there was a choice have maps of 32 x 32."""
    args = state.get("args", {})
    return {"mesh_resolution": 32, **args} if isinstance(args, dict) else args


def load_generator(
    options: GeneratorOptions, path: Path, state: Mapping[str, Any], device: torch.device
) -> AnyGenerator:
    """Returns the averaged generator of a file's content, ready for inference.

    Raises:
        UserError: if there is none, or one of another architecture.
    """
    if "generator_running_avg" not in state:
        raise UserError(f"{path} has no entry generator_running_avg, so it is no GAN of ours.")
    try:
        # Sizes come from the weights, so that no data set is needed
        weights = translate(state["generator_running_avg"])
        if options.kind == "linear":
            return _fitting(from_state(weights), options).to(device).eval()
        refined = options.start_from == "linear"
        sizes = network_sizes(weights) if refined else generators.sizes(weights)
        with torch.device("meta"):  # takes no memory, whatever sizes the file asks for
            generator = make_generator(options, **sizes)
        if refined:
            generator = RefinedGenerator(_fitting(base_of(weights), options), generator)
        generator.load_state_dict(weights, assign=True)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} holds no generator, or one of another architecture: {reason}"
        ) from None
    return generator.to(device).float().eval().requires_grad_(False)


def _fitting(fitted: LinearGenerator, options: GeneratorOptions) -> LinearGenerator:
    """Returns a statistical generator; ValueError unless its maps have the size that the options state."""
    side = fitted.shape.shape[2]
    if side != options.mesh_resolution:
        raise ValueError(f"displacement maps of {side}, options of {options.mesh_resolution}")
    return fitted


def _build(
    path: Path,
    state: Mapping[str, Any],
    options: GeneratorOptions,
    categories: list[str],
    views: PoseMetadata,
    device: torch.device,
) -> Model:
    generator = load_generator(options, path, state, device)
    # The weights tell the conditions; the options must agree
    names: dict[str, list[str]] = {}
    if options.label_sets:
        labels = check_labels(path, state.get("labels"), len(views.paths))
        names, views = labels.names, views._replace(category=labels.values)
    conditional = (bool(generator.num_classes), bool(generator.num_parts))
    sizes = tuple(map(len, names.values())) or generator.num_classes
    if (
        conditional != (options.conditional_class, options.conditional_semantics)
        or sizes != generator.num_classes
        or tuple(names) != options.label_sets
    ):
        raise UserError(
            f"{path} has a generator of {list(generator.num_classes)} classes and "
            f"{generator.num_parts} parts, which its options contradict."
        )
    items = _stored_items(path, state, views)
    step = model_file.step_of(path, state)
    return Model(generator, options, categories, names, views, items, step, path)


def _stored_views(path: Path, state: Mapping[str, Any]) -> tuple[list[str], PoseMetadata]:
    """Returns the names of the classes, and the views."""
    remedy = "Replace it by an intact copy."
    views = pseudo_files.metadata_from(path, state["views"], remedy)
    categories = state.get("categories")
    if not isinstance(categories, list) or not all(isinstance(x, str) for x in categories):
        raise UserError(f"{path}: its categories are damaged ({categories!r:.80}). {remedy}")
    return categories, views


def _stored_items(path: Path, state: Mapping[str, Any], views: PoseMetadata) -> dict[int, Item]:
    if "items" not in state:
        return {}
    try:
        # Every row must be one of the views
        rows, seg, mesh = (state["items"][name] for name in ("rows", "seg", "mesh"))
        items = {row: Item(*maps) for row, *maps in zip(rows, seg.float(), mesh, strict=True)}
        _ = [views.paths[row] for row in rows]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(f"{path}: its items are damaged ({error!r}).") from None
    return items
