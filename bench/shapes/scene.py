"""Ground truth of a clip: what is in the scene and where it is in every frame. Whole numbers only.

Every clip is drawn from its own dice, so any clip can be made alone. Actions come in pairs that are each other's
film played backwards (`Scene.backward`, drawn apart from everything else): one frame alone cannot tell them apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from bench.shapes.chance import Dice

FRAMES = 20
SIDE = 64  # pixels
TURN = 64  # steps of a full turn
SINE = tuple(round(1024 * math.sin(2 * math.pi * step / TURN)) for step in range(TURN))
OPAQUE = 16

# Long-tailed lists: the first is the most frequent, rank r has a share proportional to 1 / r.
COLOURS = (
    ("red", (214, 40, 40)),
    ("blue", (45, 80, 215)),
    ("green", (40, 160, 60)),
    ("yellow", (238, 214, 50)),
    ("orange", (242, 136, 30)),
    ("white", (244, 244, 244)),
    ("purple", (128, 52, 170)),
    ("pink", (246, 150, 190)),
    ("black", (16, 16, 16)),
    ("brown", (120, 72, 34)),
    ("turquoise", (50, 200, 200)),
    ("navy", (22, 30, 96)),
    ("maroon", (112, 16, 40)),
    ("lime", (170, 240, 60)),
)
COLOUR_NAMES = tuple(name for name, _ in COLOURS)
SHAPES = ("circle", "square", "triangle", "star", "cross", "heart", "diamond", "ring", "hexagon", "crescent")
ROUND = ("circle", "ring", "hexagon")  # nobody sees them spin
SOLID = ("square", "circle", "hexagon")  # wide enough to hide something
SIZES = {"medium": 8, "large": 12, "small": 5}  # name -> radius in pixels, most frequent first
SMALLEST, WIDEST = 3, 14  # radii at the ends of growing and shrinking
TRINKETS = ("key", "arrow", "bolt", "house", "flower", "fish", "anchor", "umbrella", "mushroom", "crown")
TEXTURES = ("plain", "striped", "checked", "dotted", "wavy", "bricked")
FILLERS = ("still", "snow", "bars")  # unrelated frames: another scene's still, television snow, colour bars

ACTIONS = ("slide", "rise", "bounce", "spin", "scale", "meet", "hide", "orbit", "fade", "shake", "rest")
ACTION_WEIGHTS = (20, 16, 9, 12, 12, 10, 8, 6, 4, 2, 1)
ONE_WAY = ("bounce", "shake", "rest")  # the same film backwards
PAIRED = ("meet", "hide", "orbit")  # need a partner
SHORTEST_EVENT = 8  # frames left to the event in clips that begin or end with unrelated frames


@dataclass(frozen=True)
class Thing:
    """A coloured shape; `shade` brightens or darkens its colour, `angle` is its first angle in 64ths of a turn."""

    shape: str
    colour: str
    size: str
    shade: int = 0
    angle: int = 0


@dataclass(frozen=True)
class Trinket:
    """A small rare object, still in a corner; `corner` counts row by row: 0 top left .. 3 bottom right."""

    name: str
    colour: str
    corner: int


@dataclass(frozen=True)
class Ground:
    """A textured background in two dull tones; `key` seeds its grain."""

    texture: str
    tone: int
    contrast: int
    key: str


@dataclass(frozen=True)
class Filler:
    """Unrelated frames: `intro` at the beginning and `outro` at the end; `still` is set for stills of another scene."""

    kind: str
    intro: int
    outro: int
    still: Scene | None = None


@dataclass(frozen=True)
class Scene:
    """All that is true of a clip. `span` is the way in pixels, `upright` turns two-thing actions by a quarter."""

    actor: Thing
    action: str
    backward: bool
    mirrored: bool
    upright: bool
    span: int
    offset: int
    ground: Ground
    light: int  # 128ths
    partner: Thing | None = None
    trinket: Trinket | None = None
    filler: Filler | None = None

    @property
    def event(self) -> range:
        """Numbers of the frames that belong to the clip's event; the others are unrelated."""
        if self.filler is None:
            return range(FRAMES)
        return range(self.filler.intro, FRAMES - self.filler.outro)

    @property
    def heading(self) -> str:
        """What distinguishes the action from its own film backwards, empty for one-way actions."""
        names = {
            "slide": ("right", "left"),
            "rise": ("up", "down"),
            "spin": ("clockwise", "anticlockwise"),
            "scale": ("grow", "shrink"),
            "meet": ("together", "apart"),
            "hide": ("behind", "out"),
            "orbit": ("clockwise", "anticlockwise"),
            "fade": ("appear", "disappear"),
        }
        return names[self.action][self.backward] if self.action in names else ""


@dataclass(frozen=True)
class Pose:
    """One thing in one frame: centre and radius in pixels, angle in 64ths of a turn, opacity 0 .. 16."""

    thing: Thing
    x: int
    y: int
    radius: int
    angle: int
    opacity: int = OPAQUE


def draw_scene(dice: Dice, key: str, filler: bool = True) -> Scene:
    """Draw a scene; `key` names its grain, `filler=False` leaves out unrelated frames."""
    action = dice.weighted(ACTIONS, ACTION_WEIGHTS)
    actor = _draw_thing(dice, tuple(shape for shape in SHAPES if action != "spin" or shape not in ROUND))
    partner = _draw_partner(dice, actor, action)
    if action == "hide":
        actor = replace(actor, size=dice.pick(("small", "medium")))
    if action == "orbit":
        actor = replace(actor, size="small")
    if action == "spin":
        actor = replace(actor, angle=dice.below(TURN))
    scene = Scene(
        actor=actor,
        action=action,
        backward=dice.percent(50) and action not in ONE_WAY,
        mirrored=dice.percent(50),
        upright=dice.percent(50),
        span=dice.between(26, 42),
        offset=dice.between(-14, 14),
        ground=Ground(dice.weighted(TEXTURES, (30, 22, 16, 14, 10, 8)), dice.below(8), dice.between(16, 40), key),
        light=dice.between(104, 146),
        partner=partner,
    )
    if dice.percent(35):
        scene = replace(scene, trinket=_draw_trinket(dice, scene))
    if filler and dice.percent(30):
        scene = replace(scene, filler=_draw_filler(dice, key))
    return scene


def _draw_thing(dice: Dice, shapes: tuple[str, ...]) -> Thing:
    return Thing(
        shape=dice.zipf(shapes),
        colour=dice.zipf(COLOUR_NAMES),
        size=dice.weighted(tuple(SIZES), (50, 30, 20)),
        shade=dice.between(-14, 14),
        angle=dice.between(-5, 5),
    )


def _draw_partner(dice: Dice, actor: Thing, action: str) -> Thing | None:
    """The second thing: needed by paired actions, an onlooker in some other scenes; always of another colour."""
    if action not in PAIRED and not (action != "rest" and dice.percent(20)):
        return None
    partner = _draw_thing(dice, SOLID if action == "hide" else SHAPES)
    while partner.colour == actor.colour:
        partner = replace(partner, colour=dice.zipf(COLOUR_NAMES))
    if action == "hide":
        partner = replace(partner, size="large", angle=0)
    if action == "orbit":
        partner = replace(partner, size="medium")
    if action not in PAIRED:
        partner = replace(partner, size=dice.pick(("small", "medium")))
    return partner


def _draw_trinket(dice: Dice, scene: Scene) -> Trinket | None:
    """A small rare object in a corner that nothing comes near, if there is one."""
    name, colour = dice.zipf(TRINKETS), dice.pick(COLOUR_NAMES)
    poses = [pose for frame in path(scene) for pose in frame]
    for corner in dice.shuffled(range(4)):
        x, y = corner_centre(corner)
        if all(max(abs(pose.x - x), abs(pose.y - y)) >= pose.radius + 7 for pose in poses):
            return Trinket(name, colour, corner)
    return None


def _draw_filler(dice: Dice, key: str) -> Filler:
    kind = dice.weighted(FILLERS, (60, 20, 20))
    still = draw_scene(dice, f"{key}/still", filler=False) if kind == "still" else None
    first, second = dice.between(4, FRAMES - SHORTEST_EVENT), 0
    if dice.percent(40):  # unrelated frames on both sides
        second = dice.between(1, 4)
        first = min(first, FRAMES - SHORTEST_EVENT - second)
    intro, outro = (first, second) if dice.percent(60) else (second, first)
    return Filler(kind, intro, outro, still)


def corner_centre(corner: int) -> tuple[int, int]:
    """Centre (x, y) of a trinket in pixels."""
    return (7, SIDE - 8)[corner % 2], (7, SIDE - 8)[corner // 2]


def path(scene: Scene) -> list[list[Pose]]:
    """Poses of every event frame, in painting order. A backward scene is the forward one from last to first."""
    last = len(scene.event) - 1
    frames = [_poses(scene, step, last) for step in range(last + 1)]
    return frames[::-1] if scene.backward else frames


def _poses(scene: Scene, step: int, last: int) -> list[Pose]:
    """Poses at `step` 0 .. `last` of the forward action."""
    if scene.action in PAIRED:
        return _paired_poses(scene, step, last)
    actor, radius, centre = scene.actor, SIZES[scene.actor.size], SIDE // 2
    x, y, angle, opacity = centre + scene.offset, centre - scene.offset // 2, actor.angle, OPAQUE
    way = scene.span * step // last - scene.span // 2
    if scene.action == "slide":
        x, y = centre + way, centre + scene.offset
    elif scene.action == "rise":
        x, y = centre + scene.offset, centre - way
    elif scene.action == "bounce":
        y = SIDE - 4 - radius - _hop(step, last, SIDE - 12 - 2 * radius)
    elif scene.action == "spin":
        # half a turn in all: less than half of a star's symmetry between two frames, even in the shortest event
        angle += TURN // 2 * step // last
    elif scene.action == "scale":
        radius = SMALLEST + (WIDEST - SMALLEST) * step // last
        x, y = centre + scene.offset // 2, centre - scene.offset // 2
    elif scene.action == "fade":
        opacity = OPAQUE * step // last
    elif scene.action == "shake":
        x += 5 if step % 2 else -5
    pose = Pose(actor, x, y, radius, angle % TURN, opacity)
    return [pose] if scene.partner is None else [_onlooker(scene, scene.partner), pose]


def _hop(step: int, last: int, height: int) -> int:
    """Height above the floor in pixels: two parabolas over the event."""
    half = 2 * step % last if step < last else 0
    return 4 * height * half * (last - half) // (last * last)


def _onlooker(scene: Scene, partner: Thing) -> Pose:
    """A thing that stays at the side that the actor does not use."""
    low = scene.offset < 0 if scene.action in ("slide", "rise") else scene.mirrored
    across = SIDE - 11 if low else 11
    if scene.action == "slide":
        x, y = SIDE // 2 + scene.offset // 2, across
    elif scene.action == "rise":
        x, y = across, SIDE // 2 + scene.offset // 2
    else:
        x, y = 10 if scene.offset > 0 else SIDE - 11, across
    return Pose(partner, x, y, SIZES[partner.size], partner.angle)


def _paired_poses(scene: Scene, step: int, last: int) -> list[Pose]:
    """Both things of a paired action, around the centre; `mirrored` swaps the sides, `upright` turns by a quarter."""
    assert scene.partner is not None
    partner, actor = scene.partner, scene.actor
    near, far = SIZES[actor.size], SIZES[partner.size]
    drift = scene.offset // 2
    if scene.action == "orbit":
        reach = near + far + 3
        turned = 2 * scene.span + TURN * 3 // 4 * step // last
        first = (SINE[(turned + TURN // 4) % TURN] * reach // 1024, SINE[turned % TURN] * reach // 1024)
        second = (0, 0)
    elif scene.action == "hide":
        first = (-(near + far + 3) + (near + far + 3) * step // last, drift // 3)
        second = (0, 0)
    else:
        apart = scene.span // 2 * (last - step) // last
        first, second = (-apart - near, drift), (apart + far, drift)
    poses = []
    for thing, (along, across) in ((actor, first), (partner, second)):
        if scene.action != "orbit":  # an orbit mirrored would turn the other way
            along = -along if scene.mirrored else along
            along, across = (across, along) if scene.upright else (along, across)
        poses.append(Pose(thing, SIDE // 2 + along, SIDE // 2 + across, SIZES[thing.size], thing.angle))
    return poses
