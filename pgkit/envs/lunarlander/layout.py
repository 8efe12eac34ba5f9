"""Where the numbers of an environment lie: in its record, which outlives a step, and in the lanes of the solver."""

import torch

from pgkit.compiler.records import Layout
from pgkit.envs.lunarlander.constants import BODIES, EDGES, PAIRS

REAL = torch.float32
WHOLE = torch.int32
FLAG = torch.bool

BOX = Layout({"lower": (REAL, 2), "upper": (REAL, 2)})
"""A box with sides along the axes (AABB)."""

EDGE = Layout({"start": (REAL, 2), "end": (REAL, 2), "box": (BOX, 1)})

BODY = Layout(
    {
        "center": (REAL, 2),
        "angle": (REAL, 1),
        "sin": (REAL, 1),
        "cos": (REAL, 1),
        "origin": (REAL, 2),
        "velocity": (REAL, 2),  # of the centre
        "spin": (REAL, 1),
        "idle_time": (REAL, 1),  # for how long it has been at rest
        "box": (BOX, 1),  # with a margin
        # The motion of the step: from here to center and angle.
        "start_center": (REAL, 2),
        "start_angle": (REAL, 1),
        "start_fraction": (REAL, 1),  # of the step, at which the motion starts: 0 until an event in between
    }
)

JOINT = Layout({"impulse": (REAL, 3), "motor_impulse": (REAL, 1), "limit": (REAL, 1)})
"""``limit``: -1 at the lower limit, 1 at the upper one, else 0."""

CONTACT = Layout(
    {
        "normal": (REAL, 2),
        "plane_point": (REAL, 2),
        "points": (REAL, 4),
        "normal_impulse": (REAL, 2),
        "tangent_impulse": (REAL, 2),
        "event_time": (REAL, 1),  # when it begins to touch during the step, as a fraction; 1 if it does not
        "ids": (WHOLE, 2),
        "count": (WHOLE, 1),  # of points
        "events": (WHOLE, 1),  # during the step
        "is_touching": (FLAG, 1),
        "is_body_face": (FLAG, 1),  # the normal belongs to a side of the polygon, not to the edge
        "is_enabled": (FLAG, 1),  # for events of this step
        "has_event_time": (FLAG, 1),
    }
)

RECORD = Layout(
    {
        "generator": (torch.int64, 5),  # PCG64's state and increment, and the buffer of its integers
        "shaping": (torch.float64, 1),
        "main_power": (torch.float64, 1),
        "side_power": (torch.float64, 1),
        "bodies": (BODY, BODIES),
        "joints": (JOINT, 2),
        "edges": (EDGE, EDGES),
        "contacts": (CONTACT, PAIRS),  # of edge e and body b at e * BODIES + b
        "order": (WHOLE, PAIRS),  # the pairs whose boxes overlap, the newest first
        "pairs": (WHOLE, 1),  # how many these are
        "ground_fraction": (REAL, 1),  # as start_fraction, of the ground
        "steps": (WHOLE, 1),
        "wind_index": (WHOLE, 2),  # of wind and turbulence
        "force": (REAL, 2),
        "leg_contact": (FLAG, 2),
        "is_crashed": (FLAG, 1),
        "is_asleep": (FLAG, 1),
        "has_shaping": (FLAG, 1),
        "is_over": (FLAG, 1),  # the episode has ended: the next step resets
    }
)
"""One environment."""

_LANE_BODY = Layout(
    {
        "center": (REAL, 2),
        "angle": (REAL, 1),
        "sin": (REAL, 1),
        "cos": (REAL, 1),
        "origin": (REAL, 2),
        "velocity": (REAL, 2),
        "spin": (REAL, 1),
        "idle_time": (REAL, 1),
    }
)

CONSTRAINT = Layout(
    {
        "normal": (REAL, 2),
        "friction": (REAL, 1),
        "is_block": (REAL, 1),  # 1 if two points are solved together
        "k": (REAL, 3),  # xx, xy, yy of the matrix of both points
        "inverse": (REAL, 3),  # of this matrix
        "arm": (REAL, 4),
        "normal_mass": (REAL, 2),
        "tangent_mass": (REAL, 2),
        "normal_impulse": (REAL, 2),
        "tangent_impulse": (REAL, 2),
        # What positions are corrected by
        "has_point": (REAL, 2),
        "is_body_face": (REAL, 1),
        "face_normal": (REAL, 2),
        "plane_point": (REAL, 2),
        "points": (REAL, 4),
    }
)
"""A contact that touches, as the solver sees it. All zeros stand for no contact."""

CONSTRAINTS = Layout({"items": (CONSTRAINT, EDGES)})
"""Those of one body."""

LANE = Layout(
    {
        "bodies": (_LANE_BODY, BODIES),
        "joints": (JOINT, 2),
        "constraints": (CONSTRAINTS, BODIES),
        "force": (REAL, 2),  # on the lander
        "torque": (REAL, 1),
        "is_idle": (REAL, 1),  # 1 in a lane without an environment
        "is_solved": (REAL, 1),  # 1 if the positions were corrected far enough
    }
)
"""One environment in the solver."""
