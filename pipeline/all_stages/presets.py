"""Presets: the options that differ from the defaults, of every stage, for a budget of time.

`--preset NAME` makes them the defaults of a command; options that are written out take precedence.
"""

from typing import Any

from utils.cli import Parser

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # At most half an hour for some hundred photographs on two cores: recognizable, coarse
    "cpu-30min": {
        "pose_optimization_step1": {"image_resolution": 128},
        "pose_optimization_step2": {"image_resolution": 128},
        "run_reconstruction": {
            **{"iters": 1200, "batch_size": 10, "width": 0.25},
            **{"image_resolution": 128, "pseudogt_resolution": 256},
        },
        "run_generation": {"kind": "linear", "texture_resolution": 256, "batch_size": 8},
    },
    # A night for some hundred photographs: finer textures, and time to learn them
    "cpu-overnight": {
        "run_reconstruction": {
            **{"iters": 4000, "lr": 0.0005, "batch_size": 10, "width": 0.375},
            **{"image_resolution": 128, "pseudogt_resolution": 256},
        },
        "run_generation": {
            **{"iters": 12000, "start_from": "linear", "batch_size": 8, "d_steps_per_g": 1},
            **{"lr_g": 0.0004, "lr_d": 0.0008, "mesh_regularization": 0.0005},
            **{"width": 0.375, "texture_resolution": 256, "evaluate_freq": 100000},
        },
    },
    # As published, for GPUs: these stages differ from their defaults
    "paper": {
        "pose_optimization_step1": {"search": "reference"},
        "run_reconstruction": {"iters": 130000},
        "run_generation": {"iters": 100000},
    },
}


def add_preset_option(parser: Parser, stage: str) -> None:
    """Adds --preset to the parser of a stage, which is named like its script."""
    presets = {name: stages.get(stage, {}) for name, stages in PRESETS.items()}
    parser.add_presets(presets)
