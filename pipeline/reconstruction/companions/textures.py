"""Terms of the loss about textures, beside that of their colors."""

import logging

import torch
from torch import Tensor

from models.features import INSTALL, default_features, load_features
from models.perceptual import PerceptualDistance, feature_distance, gradient_distance
from pipeline.reconstruction.config import OptimizerOptions, ReconstructionConfig
from pipeline.reconstruction.model import Prediction, Scene
from pipeline.reconstruction.texture_flow import cycle_term, mask_term
from utils.cli import UserError
from utils.training import Term

logger = logging.getLogger(__name__)


class TextureTerms:
    """The terms that have a weight.

    `flow_dt` pulls flow into the mask and `flow_cycle` to where texels are seen, both of networks that
    predict flow; `perceptual` compares what renderings and photographs look like.
    """

    def __init__(self, options: OptimizerOptions, device: torch.device) -> None:
        """Loads the network behind the perceptual term, if that has a weight.

        Raises:
            UserError: if the network that was asked for, or its weights, are not there.
        """
        self._options = options
        self._distance: PerceptualDistance | None = None
        if options.perceptual_weight:
            self._distance = choose_distance(options.perceptual_features, device)

    def __call__(
        self, prediction: Prediction, colors: Tensor, image: Tensor, scene: Scene
    ) -> dict[str, Term]:
        """Compares a prediction with its photographs.

        Args:
            prediction: with textures; flow is that of these photographs, not of their mirror images.
            colors: (B, 3, h, h) rendered, zero outside the mesh.
            image: (B, 4, h, h) crops.
            scene: what the images share.
        """
        terms, options = {}, self._options
        if prediction.flow is not None and options.flow_dt_weight:
            value = mask_term(prediction.flow, image[:, 3:])
            terms["flow_dt"] = Term(value, options.flow_dt_weight)
        if prediction.flow is not None and options.flow_cycle_weight:
            value = cycle_term(prediction.flow, prediction.screen, scene.sphere, image.shape[-1])
            terms["flow_cycle"] = Term(value, options.flow_cycle_weight)
        if self._distance is not None:
            value = self._distance(colors, image[:, :3])
            terms["perceptual"] = Term(value, options.perceptual_weight)
        return terms


def make_textures(config: ReconstructionConfig, device: torch.device) -> TextureTerms | None:
    """Returns the terms of a run; None if it predicts no textures.

    Raises:
        UserError: if what the perceptual term compares is not there.
    """
    if config.model.predicts_texture:
        return TextureTerms(config.optimizer, device)
    if config.optimizer.perceptual_weight:
        raise UserError(
            f"--perceptual_weight {config.optimizer.perceptual_weight:g}: colors are compared, but --prediction_type "
            f"{config.model.prediction_type} predicts none. Use --prediction_type texture or both."
        )
    return None


def choose_distance(choice: str, device: torch.device) -> PerceptualDistance:
    """Returns the distance that --perceptual_features asks for, and says in a line which.

    Raises:
        UserError: if the network that was asked for, or its weights, are not there.
    """
    name = default_features() if choice == "auto" else choice
    if name is None or name == "gradients":
        why = "" if name else f"; for features of a pretrained network: {INSTALL}"
        logger.info("perceptual distance: of gradients%s", why)
        return gradient_distance
    network = load_features(name)
    logger.info("perceptual distance: of features of the network %s", network.name)
    return feature_distance(network.to(device))
