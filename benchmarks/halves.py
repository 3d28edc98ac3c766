"""The collections that poses are measured on, and the two halves of each.

Constants and methods are chosen by the one half; what is reported comes from the other, which nothing
was chosen by. Collections are estimated whole, only the judging is split.
"""

from collections.abc import Callable
from typing import NamedTuple

HALVES = ("choosing", "reporting")


class Protocol(NamedTuple):
    """How a collection is measured.

    Attributes:
        category: what it is prepared as.
        chooses: whether an image, given its name and the id of its true shape (-1 = unknown), is of
            the half that constants are chosen by.
        view: the side that all photographs show; None where the collection states its views.
        source: name of the collection that lends its files; None = its own.
    """

    category: str
    chooses: Callable[[str, int], bool]
    view: str | None = None
    source: str | None = None

    def half_of(self, name: str, shape_id: int) -> str:
        """Returns the half of an image."""
        return HALVES[0] if self.chooses(name, shape_id) else HALVES[1]


SYNTHETIC_IMAGES = 60
SYNTHETIC = {
    f"synthetic_{category}": Protocol(category, lambda *_: False)
    for category in ("bird", "car", "horse", "airplane", "motorcycle", "elephant")
}
PHOTOGRAPHED = {
    "photobirds": Protocol("bird", lambda _, shape_id: shape_id < 8),
    "photocars": Protocol("car", lambda _, shape_id: shape_id < 4),
    "weizmann_horses": Protocol("horse", lambda name, _: int(name[-3:]) <= 80, view="left"),
    "realcars": Protocol("car", lambda name, _: name.startswith("side_")),
}
# Objects that the template does not fit: only their confidence matters, and should be low
MISFITS = {"photobirds_as_cars": Protocol("car", lambda *_: False, source="photobirds")}
COLLECTIONS = PHOTOGRAPHED | SYNTHETIC | MISFITS
