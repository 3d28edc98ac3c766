"""Options of stages 1 and 2 in pieces, by use; the scripts describe them and hold the defaults."""

from dataclasses import dataclass

from utils.cli import UserError


@dataclass(frozen=True)
class CollectionOptions:
    """What is worked on.

    Attributes:
        dataset: folder of the collection below cache/.
        mode: templates: singletpl or multitpl.
        image_resolution: size of the masks, in pixels.
    """

    dataset: str
    mode: str
    image_resolution: int


@dataclass(frozen=True)
class ComputeOptions:
    """How it is computed; results depend on the rasterizer only, and on that by rounding.

    Attributes:
        batch_size: images at a time over all devices; -1 chooses.
        num_workers: processes that load images.
        rasterizer: name of the backend, or auto.
    """

    batch_size: int
    num_workers: int
    rasterizer: str


@dataclass(frozen=True)
class SearchOptions:
    """Search for hypotheses in stage 1.

    Attributes:
        search: contour or reference.
        refine_steps: steps of the contour search by rendering.
        adapt_shape: usual size of deformations of the template; 0 for none.
        camera_optim_steps: steps of the reference search.
        camera_lr_decay_after: step of it after which the learning rate falls to a tenth.
        prune: whether it keeps the better half of the hypotheses twice; None: with multitpl.
        silhouette: how silhouettes are compared, one of rendering.projection.terms.KINDS.
        point_grid: cells along each edge of the grid of points, with `volume`.
    """

    search: str
    refine_steps: int
    adapt_shape: float
    camera_optim_steps: int
    camera_lr_decay_after: int
    prune: bool | None
    silhouette: str
    point_grid: int


@dataclass(frozen=True)
class ChoiceOptions:
    """Choice of one pose per image in stage 2.

    Attributes:
        semantic_rounds: times that the semantic template is made and poses are chosen.
        refine_steps: steps that move the best candidates in each round.
        symmetric: whether mirrored vertices share their parts.
        clips: whether photographs named <clip>_<number> are frames of clips.
        shape_modes: number of modes of shape that are learned and fitted; 0 for none.
        parts_source: maps, appearance or learned.
        features: a network whose features are compared, auto or none.
        parts_features: weights of a network whose features learned parts share, or None.
        keep_share: share of the images that is kept.
        v_agr_threshold: keeps images by the published rule instead, or None.
    """

    semantic_rounds: int
    refine_steps: int
    symmetric: bool
    clips: bool
    shape_modes: int
    parts_source: str
    features: str
    parts_features: str | None
    keep_share: float
    v_agr_threshold: float | None


@dataclass(frozen=True)
class PartsConfig:
    """Discovery of parts.

    Attributes:
        dataset: folder of the collection below cache/.
        mode: templates: singletpl or multitpl.
        num_parts: number of parts.
        parts_iters: steps of the training.
        seed: of the training.
    """

    dataset: str
    mode: str
    num_parts: int
    parts_iters: int
    seed: int


@dataclass(frozen=True)
class OutputOptions:
    """What stage 2 writes beside the poses.

    Attributes:
        export_semantic_template: whether to write templates and parts as plain arrays.
        visualize: whether to write pictures of the poses.
    """

    export_semantic_template: bool
    visualize: bool


@dataclass(frozen=True)
class Step1Options:
    """Options of pose_optimization_step1.py, in pieces.

    Attributes:
        collection: what is worked on.
        compute: how it is computed.
        search: the search.
        resume: whether to continue an interrupted run.
        v_agr_threshold: agreement score below which a pose counts as confident in the report.
    """

    collection: CollectionOptions
    compute: ComputeOptions
    search: SearchOptions
    resume: bool
    v_agr_threshold: float


@dataclass(frozen=True)
class Step2Options:
    """Options of pose_optimization_step2.py, in pieces.

    Attributes:
        collection: what is worked on.
        compute: how it is computed.
        choice: of the poses.
        parts: their discovery, where they are learned.
        output: what is written beside the poses.
    """

    collection: CollectionOptions
    compute: ComputeOptions
    choice: ChoiceOptions
    parts: PartsConfig
    output: OutputOptions


def check_sphere(mesh_path: str) -> None:
    """Raises a UserError for spheres other than that of the templates."""
    if mesh_path != "autodetect" and "31rings" not in mesh_path:
        raise UserError(
            f"--mesh_path {mesh_path}: remeshed templates are spheres of 31 rings. Use autodetect."
        )
