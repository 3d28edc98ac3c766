"""Options of stage 2."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SemanticsConfig:
    """Options of pose_optimization_step2.py, described there."""

    dataset: str
    mode: str
    mesh_path: str
    batch_size: int
    image_resolution: int
    symmetric: bool
    num_workers: int
    semantic_rounds: int
    refine_steps: int
    parts_source: str
    num_parts: int
    parts_iters: int
    parts_features: str | None
    keep_share: float
    v_agr_threshold: float | None
    export_semantic_template: bool
    visualize: bool
    gpu_ids: tuple[int | str, ...] | None
    seed: int
    rasterizer: str
