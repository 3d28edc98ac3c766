"""The options of stage 3 as frozen records, one for each part of the program that reads them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.memory import free_memory
from pipeline.reconstruction.splits import SplitOptions
from rendering.keypoint_transfer import TransferOptions
from utils import cli, distributed, options


@dataclass(frozen=True)
class DataOptions:
    """What the mesh estimator learns from.

    Attributes:
        dataset: a prepared dataset with estimated poses, or `all`.
        mode: singletpl or multitpl, the templates behind the poses.
        part: the photographs of the dataset that are used.
        semi_fraction: share of the images, by overlap, whose meshes are pinned to the template.
        no_prefetch: whether images are read again and again instead of being kept in memory.
        num_workers: processes that read images with `no_prefetch`.
        cache_gb: memory for crops over all processes, GB; None for a third of what is free.
    """

    dataset: str
    mode: str
    part: SplitOptions
    semi_fraction: float
    no_prefetch: bool
    num_workers: int
    cache_gb: float | None

    @property
    def cache_bytes(self) -> int:
        """Memory in which this process may keep crops."""
        if self.no_prefetch:
            return 0
        whole = free_memory() / 3 if self.cache_gb is None else self.cache_gb * 1e9
        return int(whole / distributed.world_size())


# Architecture of files from before there was a choice
EARLIER_MODEL = {
    **{"texture_model": "rgb", "shape_head": "convolution"},
    **{"pose_source": "estimated", "camera_source": "estimated", "num_hypotheses": 8},
    "mesh_resolution": 32,
}


@dataclass(frozen=True)
class ModelOptions:
    """Architecture of the network; belongs to a checkpoint.

    Attributes:
        image_resolution: side of the crops, a multiple of 32.
        texture_resolution: R, side of the predicted maps.
        prediction_type: which maps are predicted, one of models.reconstruction.PREDICTION_TYPES.
        norm_g: normalization, one of models.layers.NORMS.
        width: factor on all channel counts; 1 is the paper's size.
        texture_model: what textures consist of, one of models.reconstruction.TEXTURE_MODELS.
        shape_head: how shapes are predicted, one of models.reconstruction.SHAPE_HEADS.
        pose_source: where the poses of the photographs come from: "estimated" by step 2, or "sfm".
        camera_source: "predicted" learns them with the meshes; "estimated" has them from there.
        num_hypotheses: cameras that are proposed for each photograph, if they are predicted.
        mesh_resolution: S, side of the displacement maps, one of geometry.uv_maps.MESH_RESOLUTIONS.
    """

    image_resolution: int
    texture_resolution: int
    prediction_type: str
    norm_g: str
    width: float
    texture_model: str
    shape_head: str
    pose_source: str
    camera_source: str
    num_hypotheses: int
    mesh_resolution: int

    @property
    def rings(self) -> int:
        """Rings of the sphere: its vertices have as many rows as the displacement maps."""
        return self.mesh_resolution - 1

    @property
    def poses_from(self) -> str:
        """Where the poses come from, one of pipeline.reconstruction.cameras.sources.SOURCES."""
        return "predicted" if self.camera_source == "predicted" else self.pose_source

    @property
    def predicts_texture(self) -> bool:
        """Whether the network has a texture head."""
        return self.prediction_type in ("texture", "both")

    @property
    def predicts_parts(self) -> bool:
        """Whether the network has a head for part maps."""
        return self.prediction_type in ("semantics", "both")

    @property
    def predicts_flow(self) -> bool:
        """Whether the texture head says where in the photograph colors are."""
        return self.predicts_texture and self.texture_model == "flow"


@dataclass(frozen=True)
class OptimizerOptions:
    """Losses, rates and length of the training.

    Attributes:
        epochs: passes over the data; None if `iters` gives the length.
        iters: steps; None if `epochs` gives the length.
        loss: "mse" or "l1", for colors, parts and rendered silhouettes.
        mesh_regularization: final weight of the flatness loss.
        final_sharpness: of silhouettes at the end, per squared screen unit.
        silhouette: how they are compared, one of rendering.projection.terms.KINDS.
        point_grid: cells along each edge of the grid of points, with `volume`.
        lr: learning rate of Adam.
        lr_decay_every: epochs between halvings of the rates; None = default.
        pose_rate: learning rate of the corrections of single poses; 0 leaves the poses as they are,
            unless one of the next two is set.
        optimize_deltas: whether translations and scales are corrected, and rotations are not.
        optimize_z0: whether z0 is corrected, and rotations are not.
        flow_dt_weight: weight of the distance of texture flow from the masks.
        flow_cycle_weight: weight of the distance of texture flow from where texels are seen.
        perceptual_weight: weight of the perceptual distance of colors; 0 leaves it out.
        perceptual_features: what that compares: "gradients", a network of models.features, or "auto".
        bfloat16: whether the network runs in mixed precision.
        semantic_consistency: none, prob, vertex or both: how parts of template and images are compared.
        neighbor_weight: of swaps with similar objects; 0 makes none.
        student_weight: of rotations in the student's loss; 0 trains no student.
        mask_weight: of overlaps in the loss of the mask head; 0 trains none.
        update_template_every: steps with `iters`, else epochs, after which the mean displacement goes into
            the templates; None leaves them as they are.
    """

    epochs: int | None
    iters: int | None
    loss: str
    mesh_regularization: float
    final_sharpness: float
    silhouette: str
    point_grid: int
    lr: float
    lr_decay_every: int | None
    pose_rate: float
    optimize_deltas: bool
    optimize_z0: bool
    flow_dt_weight: float
    flow_cycle_weight: float
    perceptual_weight: float
    perceptual_features: str
    bfloat16: bool
    semantic_consistency: str
    neighbor_weight: float
    student_weight: float
    mask_weight: float
    update_template_every: int | None


@dataclass(frozen=True)
class OutputOptions:
    """What a run writes and when; intervals are steps with `iters`, else epochs; None = default.

    Attributes:
        checkpoint_freq: between numbered checkpoints.
        save_freq: between saves of the latest state.
        image_freq: between pictures.
        keep_checkpoints: number of numbered checkpoints that stay, beside the best one.
        tensorboard: whether curves and pictures go to tensorboard_recon/ too.
    """

    checkpoint_freq: int | None
    save_freq: int | None
    image_freq: int | None
    keep_checkpoints: int
    tensorboard: bool


@dataclass(frozen=True)
class ExportOptions:
    """Pseudo-ground-truth and meshes, and the features behind the statistics of the photographs.

    Attributes:
        pseudogt_resolution: side of their textures in texels.
        how_many: photographs whose meshes are exported; None for all.
        out_path: folder of the meshes; None for output/<run>_meshes.
        overwrite: whether meshes of another export are replaced.
        inception_weights: file of torchvision's Inception v3; None for torch's own copy.
        standard_fid: file of the Inception ported from TensorFlow; None leaves its statistics out.
    """

    pseudogt_resolution: int
    how_many: int | None
    out_path: str | None
    overwrite: bool
    inception_weights: str | None
    standard_fid: str | None


@dataclass(frozen=True)
class EvaluationOptions:
    """What --evaluate measures.

    Attributes:
        metrics: names of the measures; None for all that have a meaning for model and dataset.
        visualize: whether to write pictures of transferred keypoints.
        transfer: how keypoint transfer is measured.
    """

    metrics: tuple[str, ...] | None
    visualize: bool
    transfer: TransferOptions


@dataclass(frozen=True)
class PhotographOptions:
    """Photographs that belong to no collection.

    Attributes:
        photo: a photograph or a folder of some; None without --photo.
        mask: their masks; None where they are transparent or a network finds the object.
        mask_model: file of a saliency network; None without.
        mask_rcnn: file of the weights of Mask R-CNN; None without.
        category: what they show; None where the model knows one category.
        camera: where cameras come from: "student", "search" or "both".
        refine_steps: that improve shape, texture and camera for each photograph.
    """

    photo: str | None
    mask: str | None
    mask_model: str | None
    mask_rcnn: str | None
    category: str | None
    camera: str
    refine_steps: int


@dataclass(frozen=True)
class ReconstructionConfig:
    """All options of run_reconstruction.py that are read, which describes and defaults them.

    Attributes:
        name: of the run.
        which_epoch: the step of the checkpoint that is applied, or "latest".
        batch_size: images of a step (or of an evaluation's) over all devices.
        seed: of all random numbers.
        rasterizer: name of the backend.
    """

    name: str
    which_epoch: str
    batch_size: int
    seed: int
    rasterizer: str
    data: DataOptions
    model: ModelOptions
    optimizer: OptimizerOptions
    output: OutputOptions
    export: ExportOptions
    evaluation: EvaluationOptions
    photograph: PhotographOptions

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path("checkpoints_recon") / self.name


def make_config(parsed: Mapping[str, Any]) -> ReconstructionConfig:
    """Completes the parsed options: the mode comes from the name unless it was given.

    With --photo there is no dataset, whose name stays empty, and the model file knows its templates.
    """
    if parsed["photo"] is not None:
        return options.build(ReconstructionConfig, {**parsed, "dataset": ""})
    mode = cli.mode_from_name(parsed["name"], parsed["mode"])
    return options.build(ReconstructionConfig, {**parsed, "mode": mode})
