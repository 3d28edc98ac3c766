"""Textured 3D meshes learned from collections of photographs.

The names are those of `textured_mesh_gan.api`, which is imported when one of them is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textured_mesh_gan.api import Estimator as Estimator
    from textured_mesh_gan.api import Generator as Generator
    from textured_mesh_gan.api import Mesh as Mesh
    from textured_mesh_gan.api import SphereMesh as SphereMesh
    from textured_mesh_gan.api import UserError as UserError
    from textured_mesh_gan.api import load_estimator as load_estimator
    from textured_mesh_gan.api import load_generator as load_generator
    from textured_mesh_gan.api import rasterize as rasterize

__all__ = [
    "Estimator",
    "Generator",
    "Mesh",
    "SphereMesh",
    "UserError",
    "load_estimator",
    "load_generator",
    "rasterize",
    "run",
]


def run(program: str, *options: str) -> None:
    """Runs a program of the guides in this process: `run("data.prepare", "--dataset", "my_birds")`.

    Raises:
        UserError: for a mistake in files; mistakes in options end the process, as in a shell.
    """
    from textured_mesh_gan.__main__ import run_program

    run_program([program, *options])


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".api", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
