"""What goes along with the mesh estimator in a run: learned or remembered beside it, or terms of its loss."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pipeline.reconstruction import pose_corrections
from pipeline.reconstruction.cameras.learning import CameraLearning, make_cameras
from pipeline.reconstruction.companions import mask_lessons, swaps, template_updates, usual_overlap
from pipeline.reconstruction.companions.mask_lessons import MaskLessons, make_mask_lessons
from pipeline.reconstruction.companions.semantics import SemanticConsistency, make_semantics
from pipeline.reconstruction.companions.swaps import NeighborSwaps, make_swaps
from pipeline.reconstruction.companions.template_updates import (
    TemplateUpdates,
    make_template_updates,
)
from pipeline.reconstruction.companions.textures import TextureTerms, make_textures
from pipeline.reconstruction.companions.usual_overlap import UsualOverlap
from pipeline.reconstruction.config import ReconstructionConfig
from pipeline.reconstruction.dataset import ReconstructionData
from pipeline.reconstruction.pose_corrections import PoseCorrections, make_corrections
from pipeline.reconstruction.student import Teaching, make_teaching
from utils import training


class Companions(NamedTuple):
    """What is learned or remembered beside the network; None where its option is off.

    Attributes:
        corrections: of the poses.
        teaching: of the student.
        swaps: with neighbors.
        semantics: parts of the template, which never change.
        textures: terms about them, beside that of their colors.
        masks: lessons of the mask head.
        templates: that follow the meshes.
        overlap: of meshes and masks.
        cameras: of the photographs.
    """

    corrections: PoseCorrections | None = None
    teaching: Teaching | None = None
    swaps: NeighborSwaps | None = None
    semantics: SemanticConsistency | None = None
    textures: TextureTerms | None = None
    masks: MaskLessons | None = None
    templates: TemplateUpdates | None = None
    overlap: UsualOverlap | None = None
    cameras: CameraLearning | None = None

    @property
    def members(self) -> dict[str, training.Stateful]:
        """What changes, by its name in a checkpoint."""
        members: dict[str, training.Stateful] = {}
        if self.corrections is not None:
            members[pose_corrections.KEY] = self.corrections
        if self.teaching is not None:
            members |= self.teaching.members
        if self.cameras is not None:
            members |= self.cameras.members
        if self.swaps is not None:
            members[swaps.KEY] = self.swaps.memory
        if self.masks is not None:
            members |= self.masks.members
        if self.templates is not None:
            members[template_updates.KEY] = self.templates
        if self.overlap is not None:
            members[usual_overlap.KEY] = self.overlap
        return members

    def stored(self) -> dict[str, Any]:
        """Returns what a model file holds of them."""
        entries: dict[str, Any] = {}
        if self.corrections is not None:
            entries[pose_corrections.KEY] = self.corrections.stored()
        if self.teaching is not None:
            entries["student"] = self.teaching.student.state_dict()
        if self.cameras is not None:
            entries["student"] = self.cameras.network.state_dict()
        if self.masks is not None:
            entries[mask_lessons.KEY] = self.masks.head.state_dict()
        if self.templates is not None:
            entries[template_updates.KEY] = self.templates.scene.templates
        if self.overlap is not None:
            entries[usual_overlap.KEY] = self.overlap.value
        return entries


def make_companions(
    config: ReconstructionConfig,
    data: ReconstructionData,
    device: torch.device,
    criterion: swaps.Criterion,
    total: int,
    found: tuple[Path, Mapping[str, Any]] | None,
) -> Companions:
    """Returns companions, for `total` steps, that know nothing; corrections also if the checkpoint has any."""
    stored = None if found is None else found[1].get(pose_corrections.KEY)
    corrections = make_corrections(config, data, device, stored)
    return Companions(
        corrections,
        make_teaching(config, data, device),
        make_swaps(config, data, device, criterion, corrections),
        make_semantics(config, data, device),
        make_textures(config, device),
        make_mask_lessons(config, data, device),
        make_template_updates(config, data, device),
        UsualOverlap(device),
        make_cameras(config, data, device, total),
    )
