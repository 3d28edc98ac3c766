"""The mesh estimator on disk: what a model file holds, and how it is applied to a data set.

A file of ours is enough to estimate meshes from photographs. Published checkpoints hold weights and
options only: the data set that they are applied to defines their categories and parts.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from data.cache.storage import check_numbers
from data.definitions import ViewPrior, usual_views
from models.companions.mask_head import MaskHead
from models.companions.student import StudentNetwork
from models.reconstruction import ReconstructionNetwork
from models.state_dicts import translate
from pipeline.reconstruction import pose_corrections
from pipeline.reconstruction.cameras.network import CameraNetwork, write_poses
from pipeline.reconstruction.config import EARLIER_MODEL, ModelOptions, ReconstructionConfig
from pipeline.reconstruction.dataset import ReconstructionData, Vocabulary
from pipeline.reconstruction.model import make_data, place, untrained
from utils import checkpoint, model_file
from utils.cli import UserError
from utils.options import build, flatten

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)


class Model(NamedTuple):
    """A trained mesh estimator.

    Attributes:
        network: in evaluation mode.
        options: its architecture.
        vocabulary: the categories, parts and templates that it knows.
        step: number of steps it was trained for; None where a published file does not say.
        path: the file.
        args: all options of the run that trained it; empty for published files.
        student: estimates poses, in evaluation mode; None where the file holds none.
        mask_head: finds objects in photographs, likewise.
        usual_overlap: of its meshes and their masks in training; None where the file does not say.
    """

    network: ReconstructionNetwork
    options: ModelOptions
    vocabulary: Vocabulary
    step: int | None
    path: Path
    args: Mapping[str, Any]
    student: StudentNetwork | None = None
    mask_head: MaskHead | None = None
    usual_overlap: float | None = None


def describe(data: ReconstructionData, config: ReconstructionConfig) -> dict[str, Any]:
    """Returns what a file holds beside the weights and the number of steps."""
    return model_file.header(flatten(config)) | data.vocabulary._asdict()


def save_model(
    folder: Path,
    network: ReconstructionNetwork,
    description: Mapping[str, Any],
    companions: Callable[[], Mapping[str, Any]],
    step: int,
) -> None:
    """Writes the model file of a run, with what `companions` return of themselves."""
    weights = {"generator": network.state_dict(), "iteration": step}
    state = {**description, **weights, **companions()}
    checkpoint.save(folder / model_file.NAME, state)


def load_model(path: str | Path, device: torch.device) -> Model:
    """Reads a model that holds its own vocabulary: a model file or a checkpoint of ours.

    Raises:
        UserError: if the file is missing, damaged, or holds too little.
    """
    path = Path(path)
    state = model_file.load(path)
    if "generator_running_avg" in state:
        raise UserError(
            f"{path} holds a generator. Networks that see photographs are in checkpoints_recon/."
        )
    require_meshes(path, state.get("args", {}))
    vocabulary = _stored_vocabulary(path, state)
    if vocabulary is None:
        raise UserError(
            f"{path} does not state its categories, parts and templates. Apply it to the "
            "data set that it was made for: python run_reconstruction.py --evaluate"
        )
    # Without a data set to ask, the file must state its architecture as well
    args = state.get("args", {})
    try:
        options = build(ModelOptions, EARLIER_MODEL | args)
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} does not state its architecture ({error}).") from None
    return _build(path, state, options, vocabulary, device)


def load_trained(
    config: ReconstructionConfig, device: torch.device, cache_bytes: int = 0
) -> tuple[Model, ReconstructionData, ReconstructionConfig]:
    """Reads the model that --which_epoch names and the data it is to be used on.

    Args:
        config: options of the run.
        device: where the model is to work.
        cache_bytes: memory for crops that are read more than once.

    Returns:
        The model, the data with the poses that the model has learned, and the options with its
        architecture.

    Raises:
        UserError: if one of them is missing, or they know different parts or templates.
    """
    remedy = f"Train it with: python run_reconstruction.py --name {config.name} --dataset {config.data.dataset}"
    path = model_file.resolve(config.folder, config.which_epoch, remedy)
    state = model_file.load(path)
    # The architecture is the file's, the images are the data set's
    other = stored_architecture(path, state, config.model)
    config = replace(config, model=replace(config.model, **other))
    data = make_data(config, cache_bytes)
    # Published files know what the data set knows
    check_vocabulary(path, state, data)
    vocabulary = _stored_vocabulary(path, state) or data.vocabulary
    pose_corrections.apply_stored(path, state, data)
    model = _build(path, state, config.model, vocabulary, device)
    if isinstance(model.student, CameraNetwork):
        write_poses(model.student, data, device)
    return model, data, config


def stored_architecture(
    path: Path, state: Mapping[str, Any], present: ModelOptions
) -> dict[str, Any]:
    """Returns the options of a file's architecture that differ from the present ones, by name.

    Raises:
        UserError: if they are damaged.
    """
    args = state.get("args", {})
    require_meshes(path, args)
    known = EARLIER_MODEL | args if isinstance(args, dict) else args
    return checkpoint.stored_options(path, {**state, "args": known}, asdict(present))


def require_meshes(path: Path, args: Any) -> None:
    """Refuses a model of points by the options that it was trained with."""
    if isinstance(args, dict) and args.get("shape_model") == "points":
        raise UserError(f"{path} is a model of points: add --shape_model points.")


def check_vocabulary(path: Path, state: Mapping[str, Any], data: ReconstructionData) -> None:
    """Refuses a model of other parts or templates than the data set's; published ones state neither.

    Raises:
        UserError: names the difference, and what to do.
    """
    remedy = f"python run_reconstruction.py --name <another> --dataset {data.dataset}"
    # Channels of the part maps would mean other parts
    stored, present = state.get("part_names", data.part_names), data.part_names
    if stored != present:
        raise UserError(
            f"{path} was trained with the parts {', '.join(stored) or 'none'}; the dataset now has "
            f"{', '.join(present) or 'none'}. Train again with: {remedy}"
        )
    # Poses would mean other axes
    templates = state.get("templates", data.templates)
    if not (isinstance(templates, Tensor) and torch.equal(templates.cpu(), data.templates)):
        raise UserError(
            f"{path} was trained with other templates than those in cache/remeshed_templates/. "
            f"Train again with: {remedy}"
        )


def load_weights(network: ReconstructionNetwork, state: Mapping[str, Any], path: Path) -> None:
    """Fills a network with the weights of a checkpoint, ours or a published one.

    Raises:
        UserError: if they are of another architecture.
    """
    try:
        # A network on the meta device has no memory, and takes over the tensors of the file
        empty = next(network.parameters()).is_meta
        network.load_state_dict(translate(state["generator"]), assign=empty)
    except (KeyError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} does not fit this dataset and these options ({reason}). "
            "Use those that it was trained with."
        ) from None


def _build(
    path: Path,
    state: Mapping[str, Any],
    options: ModelOptions,
    vocabulary: Vocabulary,
    device: torch.device,
) -> Model:
    # An impossible architecture is the fault of the file
    try:
        with torch.device("meta"):  # takes no memory, whatever sizes the file asks for
            network = untrained(options, vocabulary)
        student = _untrained_student(options, vocabulary)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{path} has an architecture that cannot be ({error}).") from None
    if isinstance(student, CameraNetwork):
        state = {"student": None, **state}  # without which the model cannot be used
    load_weights(network, state, path)
    network = place(network, device).eval().requires_grad_(False)
    count = len(vocabulary.categories)
    student = _companion(path, state, "student", student, device)
    mask_head = _companion(path, state, "mask_head", MaskHead(count), device)
    step, args = model_file.step_of(path, state), state.get("args", {})
    overlap = _usual_overlap(path, state)
    return Model(network, options, vocabulary, step, path, args, student, mask_head, overlap)


def _usual_overlap(path: Path, state: Mapping[str, Any]) -> float | None:
    """Returns how well the meshes of the training cover their masks; complete checkpoints do not say."""
    overlap = state.get("usual_overlap")
    if overlap is None or isinstance(overlap, dict):
        return None
    if not isinstance(overlap, float) or not 0 <= overlap <= 1:
        raise UserError(
            f"{path}: its usual_overlap is {overlap!r:.40}, expected a number from 0 to 1."
        )
    return overlap


def _untrained_student(options: ModelOptions, vocabulary: Vocabulary) -> StudentNetwork:
    """Returns the network that estimates poses; where they are predicted, it is the camera network."""
    count, size = len(vocabulary.categories), vocabulary.templates.shape[1]
    if options.camera_source == "predicted":
        return CameraNetwork(count, size, options.num_hypotheses)
    return StudentNetwork(count)


def _companion(
    path: Path, state: Mapping[str, Any], name: str, network: AnyNetwork, device: torch.device
) -> AnyNetwork | None:
    """Fills a network beside the estimator; None if the file was trained without, or before there was one."""
    if name not in state:
        return None
    try:
        network.load_state_dict(state[name])
    except (ValueError, TypeError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: its {name.replace('_', ' ')} is damaged ({reason}). Replace it by an intact copy."
        ) from None
    return network.to(device).eval().requires_grad_(False)


def _stored_vocabulary(path: Path, state: Mapping[str, Any]) -> Vocabulary | None:
    """Returns the vocabulary of a file; None if it was written before files had one."""
    if not state.keys() >= {*Vocabulary._fields} - {"views"}:
        return None
    # Names first, since they determine the sizes
    for names in (state["categories"], state["part_names"]):
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"{path}: its categories and parts are damaged ({names!r:.80}).")
    # The views came later than the other entries
    usual = torch.tensor([usual_views(name) for name in state["categories"]], dtype=torch.float64)
    known = {"views": usual, **state}
    vocabulary = Vocabulary(**{name: known[name] for name in Vocabulary._fields})
    # Sizes that agree with the names
    shapes = {
        "selection": (len(vocabulary.categories), "P", 1 + len(vocabulary.part_names)),
        "templates": ("T", "V", 3),
        "template_category": ("T",),
        "views": (len(vocabulary.categories), len(ViewPrior._fields)),
    }
    check_numbers(path, vocabulary._asdict(), shapes, "Replace it by an intact copy.")
    return vocabulary
