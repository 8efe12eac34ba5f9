"""Constants of the task (Gymnasium's ``LunarLander-v3``) and of the physics (Box2D's defaults), as float32 where they
enter float32 arithmetic. Lengths in m, times in s, angles in rad."""

from typing import Any, NamedTuple

import numpy as np


def real(number: Any) -> float:
    """The float32 that is nearest to a number."""
    return float(np.float32(number))


def reals(numbers: object) -> list[float]:
    """The float32 that are nearest to the numbers of an array, in order."""
    return [float(number) for number in np.asarray(numbers, np.float32).ravel()]


# The task

SCALE = 30.0  # pixels per metre
WIDTH = 600 / SCALE
HEIGHT = 400 / SCALE
HELIPAD_HEIGHT = HEIGHT / 4
FRAMES = 50  # steps per second
TERRAIN_POINTS = 11
START_FORCE = 1000.0
MAIN_POWER = 13.0
SIDE_POWER = 0.6
WIND_RANGE = 9999

# The solver

TIME_STEP = real(1 / FRAMES)
VELOCITY_ITERATIONS = 180
POSITION_ITERATIONS = 60
TOI_POSITION_ITERATIONS = 20
PI = np.float32(3.14159265359)
SLOP = real(0.005)  # penetration that is left alone
RADIUS = real(np.float32(2) * np.float32(SLOP))  # a skin around edges and polygons
SKIN = real(np.float32(2) * np.float32(RADIUS))  # both skins together
ANGULAR_SLOP = real(np.float32(2) / np.float32(180) * PI)
MAX_CORRECTION = real(0.2)
MAX_ANGULAR_CORRECTION = real(np.float32(8) / np.float32(180) * PI)
CORRECTION_RATE = real(0.2)
TOI_CORRECTION_RATE = real(0.75)
MAX_TRANSLATION = 2.0  # per step
MAX_ROTATION = real(np.float32(0.5) * PI)  # per step
AABB_MARGIN = real(0.1)
AABB_MULTIPLIER = 2.0
SLEEP_TIME = 0.5
SLEEP_SPEED = real(0.01)
SLEEP_SPIN = ANGULAR_SLOP
EPSILON = 2.0**-23
LARGEST = float(np.finfo(np.float32).max)

# The bodies: the lander, and two legs that are alike

BODIES = 3
EDGES = 11
PAIRS = BODIES * EDGES
MAX_VERTICES = 6

_LANDER = np.array([(17, -10), (17, 0), (14, 17), (-14, 17), (-17, 0), (-17, -10)]) / SCALE
_LEG = np.array([(-2, -8), (2, -8), (2, 8), (-2, 8)]) / SCALE


class BodyConstants(NamedTuple):
    """What distinguishes bodies.

    Attributes:
        mass: the inverse of the mass.
        inertia: the inverse of the moment of inertia about the centre of mass.
        center: height of the centre of mass above the origin.
        centroid: the centre of the shape, which decides on which side of an edge the body is.
        vertices: of the convex polygon, counter-clockwise.
        normals: outwards; normal i belongs to the side from vertex i to the next one.
        friction: with the bottom of the world (edge 0), and with the terrain.
    """

    mass: float
    inertia: float
    center: float
    centroid: tuple[float, float]
    vertices: np.ndarray
    normals: np.ndarray
    friction: tuple[float, float]

    @property
    def sides(self) -> int:
        """Number of vertices."""
        return len(self.vertices)


def _normals(vertices: np.ndarray) -> np.ndarray:
    """Side directions, turned to the right and normalized as Box2D does: length, then multiplied by its inverse."""
    sides = np.roll(vertices, -1, axis=0) - vertices
    outward = np.stack([sides[:, 1], -sides[:, 0]], axis=1)
    length = np.sqrt(outward[:, 0] * outward[:, 0] + outward[:, 1] * outward[:, 1])
    return outward * (np.float32(1) / length)[:, None]


def _friction(body: float) -> tuple[float, float]:
    """The geometric mean of a body's friction and that of edge 0 (Box2D's default), and that of the terrain."""
    below, terrain = (np.sqrt(np.float32(body) * np.float32(edge)) for edge in (0.2, 0.1))
    return float(below), float(terrain)


LANDER = BodyConstants(
    mass=float.fromhex("0x1.a930b8p-3"),
    inertia=float.fromhex("0x1.46948ep+0"),
    center=float.fromhex("0x1.9ef44ap-4"),
    centroid=(real(3.8670831e-09), real(0.101307176)),
    vertices=_LANDER.astype(np.float32),
    normals=_normals(_LANDER.astype(np.float32)),
    friction=_friction(0.1),
)

LEG = BodyConstants(
    mass=float.fromhex("0x1.c1fffcp+3"),
    inertia=float.fromhex("0x1.172e92p+9"),
    center=0.0,
    centroid=(0.0, 0.0),
    vertices=_LEG.astype(np.float32),
    normals=np.array([(0, -1), (1, 0), (0, 1), (-1, 0)], np.float32),
    friction=_friction(0.2),
)

BODY_CONSTANTS = (LANDER, LEG, LEG)

# The joints: a hinge between the lander's origin and the upper end of each leg

LEG_AWAY = 20
LEG_DOWN = 18
LEG_SIDES = (-1, 1)  # Gymnasium's i of the first leg, which is on the right, and of the second one
MAX_MOTOR_IMPULSE = real(np.float32(TIME_STEP) * np.float32(40))


class JointConstants(NamedTuple):
    """What distinguishes joints.

    Attributes:
        anchor: on the leg, from its centre.
        reference: angle between lander and leg where the joint's angle is 0; it was that of the bodies at the start.
        speed: that the motor drives the joint to.
        lower: limit of the joint's angle.
        upper: limit of the joint's angle.
    """

    anchor: tuple[float, float]
    reference: float
    speed: float
    lower: float
    upper: float


LANDER_ANCHOR = (0.0, -LANDER.center)  # from the centre of mass

JOINTS = tuple(
    JointConstants(
        anchor=(real(side * LEG_AWAY / SCALE), real(LEG_DOWN / SCALE)),
        reference=real(side * 0.05),
        speed=real(0.3 * side),
        lower=real(0.9 - 0.5 if side < 0 else -0.9),
        upper=real(0.9 if side < 0 else -0.9 + 0.5),
    )
    for side in LEG_SIDES
)
