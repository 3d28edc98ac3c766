"""All modeled vehicles by file name."""

from collections.abc import Callable

from mesh_templates import airplanes, motorcycles, road_vehicles
from mesh_templates.primitives import Shape

SHAPES: dict[str, Callable[[], Shape]] = {
    "car1": road_vehicles.car1,
    "car2": road_vehicles.car2,
    "truck1": road_vehicles.truck1,
    "truck2": road_vehicles.truck2,
    "bus1": road_vehicles.bus1,
    "motorcycle1": motorcycles.motorcycle1,
    "motorcycle2": motorcycles.motorcycle2,
    "airplane1": airplanes.airplane1,
    "airplane2": airplanes.airplane2,
}
