"""The pretrained networks that --features and --parts_features ask for."""

import logging
from pathlib import Path

from models.backbones import Backbone, load_backbone
from models.features import INSTALL, FeatureNetwork, default_features, load_features
from utils.cli import UserError

logger = logging.getLogger(__name__)


def choose_network(choice: str) -> FeatureNetwork | None:
    """Returns the network that --features asks for, and says in a line which, or why there is none."""
    if choice == "none":
        return None
    name = default_features() if choice == "auto" else choice
    if name is None:
        logger.info("features: none are used; for those of a pretrained network: %s", INSTALL)
        return None
    try:
        network = load_features(name)
    except UserError as error:
        if choice != "auto":
            raise
        logger.info("features: none are used: %s", error)
        return None
    logger.info("features: of the network %s", network.name)
    return network


def choose_backbone(choice: str | None) -> Backbone | FeatureNetwork | None:
    """Returns the network that --parts_features asks for: a file, or as --features does."""
    if choice is None:
        return None
    suffixes = (".pth", ".pt", ".bin", ".safetensors")
    is_file = Path(choice).exists() or (":" not in choice and choice.endswith(suffixes))
    return load_backbone(choice) if is_file else load_features(choice)
