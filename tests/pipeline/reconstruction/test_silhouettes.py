"""The silhouette term of stage 3 by points: what it compares, and runs that repeat."""

import pytest
import torch

import run_reconstruction
from pipeline.reconstruction.model import Prediction, make_data, make_scene
from pipeline.reconstruction.silhouettes import COVER_WEIGHT, PointSilhouettes
from rendering.projection.terms import Moment, make_term
from rendering.rasterizer import rasterize
from tests.pipeline.reconstruction.toy import config, run, state
from tests.runs import assert_equal


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(("kind", "weight"), [("volume", 1.0), ("cover", COVER_WEIGHT)])
def test_screens_are_compared_with_the_masks_of_their_images(kind: str, weight: float) -> None:
    options = config()
    scene = make_scene(make_data(options).vocabulary, options.model, torch.device("cpu"))
    screen = torch.cat([0.5 * scene.sphere.vertices[None], 0.8 * scene.sphere.vertices[None]])
    masks = rasterize(screen, scene.sphere.faces, 64, soft=False).coverage
    template = torch.zeros(2, dtype=torch.int64)

    def error(order: list[int]) -> torch.Tensor:
        prediction = Prediction(*[torch.zeros(0)] * 4, screen=screen[order])
        compare = PointSilhouettes(kind, 32, scene).at(3, 0.75, template)
        return compare(prediction, torch.zeros(0), masks)

    # The mean over the images, of the same errors as elsewhere
    term = make_term(kind, scene.templates, scene.sphere.faces, 32)
    errors, _ = term(screen, template, masks[:, 0], torch.arange(2), Moment(3, 0.75))
    torch.testing.assert_close(error([0, 1]), weight * errors.mean())
    assert error([0, 1]) < error([1, 0])


@pytest.mark.slow
@pytest.mark.usefixtures("toy")
def test_a_run_with_points_repeats_and_differs_from_a_rendered_one() -> None:
    ends = []
    for number, options in enumerate([["volume", "--point_grid", "16"]] * 2 + [["raster"]]):
        name = f"run{number}_singletpl"
        run("--iters", "2", "--name", name, "--silhouette", *options)
        ends.append(state(name)["generator"])
    assert_equal(*ends[:2])
    assert any(not torch.equal(value, ends[2][key]) for key, value in ends[0].items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--point_grid", "32"], "--point_grid 32 is for --silhouette volume"),
        (["--silhouette", "cover", "--shape_model", "points"], "--silhouette is for meshes"),
    ],
)
def test_points_that_nothing_uses_are_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run_reconstruction.main(["--name", "a_singletpl", "--dataset", "toy", *options])
    assert message in capsys.readouterr().err
