"""Templates that follow the meshes: the mean displacement is folded into them from time to time.

Networks predict displacements of the sphere, and losses speak of displacements from the shapes that
were fitted to the photographs, templates with their modes. What all meshes have in common belongs to
the template (Li et al. 2020, https://arxiv.org/abs/2003.06473, section 3.3): it is added there, so that
the displacements lose as much, and no vertex moves.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.reconstruction.config import ReconstructionConfig
from pipeline.reconstruction.dataset import Labels, ReconstructionData
from pipeline.reconstruction.model import Scene, make_scene
from utils import distributed, training

KEY = "learned_templates"  # of the entry in checkpoints and model files


class TemplateUpdates:
    """The templates of a run, and the mean displacements since they were last updated.

    Attributes:
        scene: what all images share, with the templates as they are now.
        sums: (T, V, 3) of the displacements.
        counts: (T,) images in them.
    """

    def __init__(self, scene: Scene, interval: int) -> None:
        """Begins with the templates of the poses.

        Args:
            scene: what all images share.
            interval: steps between updates.
        """
        self.scene, self.interval = scene, interval
        self.sums = torch.zeros_like(scene.templates)
        self.counts = scene.templates.new_zeros(len(scene.templates))

    def observe(self, step: int, labels: Labels, vertices: Tensor) -> None:
        """Remembers the meshes of a batch, and updates the templates if it is time.

        Args:
            step: number of steps made before this one.
            labels: of the B images.
            vertices: (B, V, 3) their meshes, object space.
        """
        displacement = vertices.detach() - self.scene.shapes(labels)
        sums = torch.zeros_like(self.sums).index_add_(0, labels.template, displacement)
        self.sums += distributed.all_reduce_(sums)
        ones = torch.ones_like(displacement[:, 0, 0])
        counts = torch.zeros_like(self.counts).index_add_(0, labels.template, ones)
        self.counts += distributed.all_reduce_(counts)
        if (step + 1) % self.interval == 0:
            self.fold()

    def fold(self) -> None:
        """Adds the mean displacement to each template, and begins anew."""
        mean = self.sums / self.counts.clamp(min=1)[:, None, None]
        self.scene = self.scene._replace(templates=self.scene.templates + mean)
        self.sums.zero_()
        self.counts.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """Returns what training continues with."""
        return {"templates": self.scene.templates, "sums": self.sums, "counts": self.counts}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over a state.

        Raises:
            ValueError: if it is of other templates.
        """
        for name, own in self.state_dict().items():
            if state[name].shape != own.shape:
                raise ValueError(f"its learned templates have {name} of {tuple(state[name].shape)}")
        self.scene = self.scene._replace(templates=state["templates"].to(self.sums))
        self.sums.copy_(state["sums"])
        self.counts.copy_(state["counts"])


def make_template_updates(
    config: ReconstructionConfig, data: ReconstructionData, device: torch.device
) -> TemplateUpdates | None:
    """Returns the templates of a run, as they are before the first step; None if they stay as they are."""
    options = config.optimizer
    if not options.update_template_every:
        return None
    length = training.make_length(len(data), config.batch_size, options.iters, options.epochs or 1)
    interval = length.interval(options.update_template_every, 1)
    return TemplateUpdates(make_scene(data.vocabulary, config.model, device, data.modes), interval)
