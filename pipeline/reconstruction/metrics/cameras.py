"""The cameras that single photographs get without poses of step 2, as those of one's own do."""

from typing import ClassVar

from data.definitions import check_views
from pipeline.reconstruction.meshes.camera_search import Appearance
from pipeline.reconstruction.meshes.estimator import find_camera
from pipeline.reconstruction.metrics.interface import MeanMetric, Measured, Setting, Unavailable
from pipeline.reconstruction.metrics.student_poses import RIGHT, TrueRotations


class FoundCameras(MeanMetric):
    """Cameras from the student, from a search by the outline, or from both, as --camera says."""

    titles: ClassVar = {
        "camera_right": f"share of the cameras found (--camera) within {RIGHT:.0f} degrees of the true ones",
        "camera_degrees": "mean angle between them and the true ones, degrees",
        "camera_iou": "overlap of mesh and mask under the cameras found",
        "camera_color_error": "mean absolute color error under them, inside the mask, in 0-1",
    }
    on_request = True  # a search for every photograph takes longer than everything else

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._way = setting.config.photograph.camera
        if not setting.config.model.predicts_texture:
            raise Unavailable(
                "--metrics camera: the model predicts no texture. Train with --prediction_type both."
            )
        if self._way == "student" and setting.student is None:
            raise Unavailable(
                "--metrics camera: the model has no student. Use --camera search, or train it with a "
                "--student_weight above 0."
            )
        self._truth = TrueRotations(setting)
        views = setting.data.vocabulary.views
        self._views = [check_views(row.tolist(), "views of the collection") for row in views]

    def measure(self, batch: Measured) -> dict[str, list[float]]:
        """Finds the camera of each photograph by itself."""
        assert batch.prediction.texture is not None, "the model predicts textures"
        values: dict[str, list[float]] = {name: [] for name in self.titles}
        for i, image in enumerate(batch.image):
            category = batch.labels.category[i : i + 1]
            vertices, texture = batch.prediction.vertices[i], batch.prediction.texture[i]
            seen = Appearance(self._setting.scene.sphere, vertices, texture, image)
            views = self._views[int(category)]
            camera = find_camera(self._setting.student, views, self._way, category, seen)
            values["camera_iou"].append(camera.iou)
            values["camera_color_error"].append(camera.color_error)
            # Not every collection knows the truth
            angle = self._truth.angle(int(batch.index[i]), camera.pose.rotation[0])
            if angle is not None:
                values["camera_degrees"].append(angle)
                values["camera_right"].append(float(angle < RIGHT))
        return values
