"""A trained model applied to single photographs: their meshes, and the cameras that see them."""

from typing import NamedTuple

import torch
from torch import Tensor

from data.definitions import ViewPrior, check_views
from geometry.camera import Pose, select
from models.companions.student import StudentNetwork
from pipeline.reconstruction.dataset import Labels
from pipeline.reconstruction.meshes.camera_search import (
    Appearance,
    Camera,
    Proposals,
    judge,
    search_camera,
)
from pipeline.reconstruction.meshes.mask_search import MaskFinder
from pipeline.reconstruction.meshes.refinement import Refined, refine
from pipeline.reconstruction.model import Scene, make_scene, predict
from pipeline.reconstruction.model_file import Model
from pipeline.reconstruction.student import estimate_pose
from utils.cli import UserError


class Estimator(NamedTuple):
    """A model in use on photographs of one of its categories.

    Attributes:
        model: the network and what it knows.
        scene: what all photographs share.
        category: number of the category.
        views: its prior.
        camera: where cameras come from: "student", "search" or "both".
        device: where to compute.
    """

    model: Model
    scene: Scene
    category: int
    views: ViewPrior
    camera: str
    device: torch.device

    @property
    def category_name(self) -> str:
        """The word for what the photographs show."""
        return self.model.vocabulary.categories[self.category]

    @property
    def mask_finder(self) -> MaskFinder | None:
        """What finds the object where there is no mask: the mask head of the model, if it has one."""
        head = self.model.mask_head
        return head and MaskFinder(head, self.category, self.category_name)


def make_estimator(
    model: Model, category: str | None, camera: str, device: torch.device
) -> Estimator:
    """Returns a model in use on photographs of a category.

    Args:
        model: with a texture head.
        category: what the photographs show; may be None if the model knows one category only.
        camera: where cameras come from: "student", "search" or "both".
        device: of the model.

    Raises:
        UserError: if the model does not know the category, or has no student that is asked for.
    """
    if camera == "student" and model.student is None:
        raise UserError(
            f"{model.path} has no student that estimates cameras. Use --camera search, or train with "
            "--student_weight."
        )
    names = model.vocabulary.categories
    if category is None and len(names) > 1:
        raise UserError(
            f"{model.path} knows several categories: add --category {' or '.join(names)}."
        )
    if category is not None and category not in names:
        raise UserError(f"--category {category}: {model.path} knows {', '.join(names)}.")
    number = names.index(category) if category else 0
    views = check_views(model.vocabulary.views[number].tolist(), f"{model.path}: views")
    return Estimator(
        model, make_scene(model.vocabulary, model.options, device), number, views, camera, device
    )


@torch.no_grad()
def estimate(estimator: Estimator, image: Tensor, refine_steps: int) -> tuple[Refined, Camera]:
    """Estimates the mesh of a crop (4, h, h), and the camera that it is seen with.

    Args:
        estimator: the model.
        image: crop as networks see it.
        refine_steps: that improve both for this photograph.
    """
    sphere = estimator.scene.sphere
    prediction = predict(estimator.model.network, estimator.scene, image[None], _labels(estimator))
    assert prediction.texture is not None
    vertices, texture = prediction.vertices[0], prediction.texture
    seen = Appearance(sphere, vertices, texture[0], image)
    student, category = estimator.model.student, _labels(estimator).category
    camera = find_camera(student, estimator.views, estimator.camera, category, seen)
    mesh = Refined(prediction.vertices, texture, camera.pose)
    if not refine_steps:
        return mesh, camera
    mesh = refine(sphere, mesh, image[None], refine_steps)
    return mesh, judge(Appearance(sphere, mesh.vertices[0], mesh.texture[0], image), mesh.pose)


def find_camera(
    student: StudentNetwork | None, views: ViewPrior, way: str, category: Tensor, seen: Appearance
) -> Camera:
    """Finds the camera of a photograph by the student, by the outline, or by both.

    Args:
        student: in evaluation mode; may be None unless the camera is to be the student's.
        views: prior of the category.
        way: where the camera comes from: "student", "search" or "both".
        category: (1,) int64.
        seen: estimated mesh and photograph.
    """
    proposals = None
    if student is not None and way != "search":
        said = estimate_pose(student, seen.image[None], category)
        proposals = Proposals(select(said.alternatives, 0), said.probability[0])
        if way == "student":
            return judge(seen, said.pose)
    return search_camera(seen, views, proposals)


def _labels(estimator: Estimator) -> Labels:
    """Labels of a photograph of which nothing is known: the network needs its category only."""
    zeros = torch.zeros(1, 1, device=estimator.device)
    rotation = torch.tensor([[1.0, 0.0, 0.0, 0.0]], device=estimator.device)
    pose = Pose(zeros + 1, zeros.expand(1, 2), rotation, zeros)
    category = torch.tensor([estimator.category], device=estimator.device)
    return Labels(pose, 0 * category, category, category < 0, zeros[:, :0])
