"""The words of the caption grammar. In every tuple the first word is the usual one; the others are rarer in turn."""

from __future__ import annotations

COLOURS = {
    "red": ("red", "crimson", "scarlet"),
    "blue": ("blue", "azure"),
    "green": ("green", "emerald"),
    "yellow": ("yellow", "golden"),
    "orange": ("orange", "amber"),
    "white": ("white", "snowy"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rosy"),
    "black": ("black", "dark"),
    "brown": ("brown", "chocolate"),
    "turquoise": ("turquoise", "cyan", "teal"),
    "navy": ("navy", "dark blue"),
    "maroon": ("maroon", "dark red"),
    "lime": ("lime", "light green"),
}

SHAPES = {
    "circle": ("circle", "ball", "disc"),
    "square": ("square", "box", "block"),
    "triangle": ("triangle", "pyramid"),
    "star": ("star",),
    "cross": ("cross", "plus sign"),
    "heart": ("heart", "love heart"),
    "diamond": ("diamond", "rhombus"),
    "ring": ("ring", "hoop", "donut"),
    "hexagon": ("hexagon", "polygon"),
    "crescent": ("crescent", "moon", "half moon"),
}

SIZES = {
    "small": ("small", "little", "tiny"),
    "medium": ("", "medium sized", "normal"),
    "large": ("large", "big", "huge"),
}

GROUNDS = {
    "plain": ("a plain background", "an empty background", "a grey wall"),
    "striped": ("a striped background", "stripes", "a striped wall"),
    "checked": ("a checked background", "a chessboard", "tiles"),
    "dotted": ("a dotted background", "dots", "a spotted carpet"),
    "wavy": ("a wavy background", "waves", "the sea"),
    "bricked": ("a brick wall", "bricks", "a wall"),
}

CORNERS = ("top left corner", "top right corner", "bottom left corner", "bottom right corner")

# Verbs as (present, gerund).
MOVE = (
    ("moves", "moving"),
    ("slides", "sliding"),
    ("glides", "gliding"),
    ("travels", "travelling"),
    ("drifts", "drifting"),
)
RISE = (("rises", "rising"), ("climbs", "climbing"), ("floats", "floating"))
FALL = (("falls", "falling"), ("drops", "dropping"), ("sinks", "sinking"))
BOUNCE = (("bounces", "bouncing"), ("jumps", "jumping"), ("hops", "hopping"))
SPIN = (("spins", "spinning"), ("turns", "turning"), ("rotates", "rotating"), ("whirls", "whirling"))
GROW = (("grows", "growing"), ("expands", "expanding"), ("swells", "swelling"))
SHRINK = (("shrinks", "shrinking"), ("contracts", "contracting"), ("dwindles", "dwindling"))
MEET = (("meets", "meeting"), ("bumps into", "bumping into"), ("approaches", "approaching"))
PART = (("moves away from", "moving away from"), ("leaves", "leaving"), ("flees from", "fleeing from"))
HIDE = (("hides behind", "hiding behind"), ("goes behind", "going behind"), ("vanishes behind", "vanishing behind"))
EMERGE = (("comes out from behind", "coming out from behind"), ("emerges from behind", "emerging from behind"))
ORBIT = (("circles", "circling"), ("goes around", "going around"), ("orbits", "orbiting"))
APPEAR = (("appears", "appearing"), ("fades in", "fading in"), ("shows up", "showing up"))
VANISH = (("disappears", "disappearing"), ("fades away", "fading away"), ("vanishes", "vanishing"))
SHAKE = (("shakes", "shaking"), ("trembles", "trembling"), ("jitters", "jittering"))
REST = (("stays", "staying"), ("rests", "resting"), ("stands still", "standing still"))

CLOCKWISE = ("clockwise", "to the right", "like a clock")
ANTICLOCKWISE = ("anticlockwise", "counterclockwise", "to the left")

Verbs = tuple[tuple[str, str], ...]

# (action, heading) -> ways to say it: (weight, verbs, what follows; `{partner}` is the second thing)
PHRASES: dict[tuple[str, str], tuple[tuple[int, Verbs, tuple[str, ...]], ...]] = {
    ("slide", "right"): ((1, MOVE, ("to the right", "right", "from left to right", "rightwards")),),
    ("slide", "left"): ((1, MOVE, ("to the left", "left", "from right to left", "leftwards")),),
    ("rise", "up"): ((2, MOVE, ("up", "upwards", "to the top")), (1, RISE, ("", "up"))),
    ("rise", "down"): ((2, MOVE, ("down", "downwards", "to the bottom")), (1, FALL, ("", "down"))),
    ("bounce", ""): ((1, BOUNCE, ("up and down", "", "on the floor", "off the ground")),),
    ("spin", "clockwise"): ((3, SPIN, CLOCKWISE), (2, SPIN, ("", "around", "in place"))),
    ("spin", "anticlockwise"): ((3, SPIN, ANTICLOCKWISE), (2, SPIN, ("", "around", "in place"))),
    ("scale", "grow"): (
        (2, GROW, ("", "in size")),
        (1, (("gets bigger", "getting bigger"), ("becomes larger", "becoming larger")), ("",)),
    ),
    ("scale", "shrink"): (
        (2, SHRINK, ("", "in size")),
        (1, (("gets smaller", "getting smaller"), ("becomes tiny", "becoming tiny")), ("",)),
    ),
    ("meet", "together"): ((3, MEET, ("{partner}",)), (1, MOVE, ("towards {partner}",))),
    ("meet", "apart"): ((1, PART, ("{partner}",)),),
    ("hide", "behind"): ((1, HIDE, ("{partner}",)),),
    ("hide", "out"): ((1, EMERGE, ("{partner}",)),),
    ("orbit", "clockwise"): ((2, ORBIT, ("{partner}",)), (1, ORBIT, ("{partner} clockwise",))),
    ("orbit", "anticlockwise"): ((2, ORBIT, ("{partner}",)), (1, ORBIT, ("{partner} anticlockwise",))),
    ("fade", "appear"): ((1, APPEAR, ("", "slowly", "out of nothing")),),
    ("fade", "disappear"): ((1, VANISH, ("", "slowly", "into nothing")),),
    ("shake", ""): ((1, SHAKE, ("", "from side to side", "quickly")),),
    ("rest", ""): ((1, REST, ("where it is", "in one place", "without moving")),),
}

ONLOOKER = ("near {partner}", "next to {partner}", "while {partner} stays still", "beside {partner}")
TRINKET = (
    "and there is {trinket} in the {corner}",
    "with {trinket} in the {corner}",
    "while {trinket} lies in the corner",
    "and {trinket} can be seen",
)
GROUND = ("over {ground}", "in front of {ground}", "across {ground}", "on {ground}")
SLOWLY = ("slowly", "calmly")
QUICKLY = ("quickly", "fast", "rapidly")

# (weight, tense, frame): `{who}` is the actor with its article.
OPENERS = (
    (52, "present", "{who} {does}"),
    (22, "gerund", "{who} is {does}"),
    (9, "gerund", "there is {who} {does}"),
    (6, "gerund", "we see {who} {does}"),
    (5, "gerund", "an animation of {who} {does}"),
    (3, "gerund", "this clip shows {who} {does}"),
    (3, "present", "in this video {who} {does}"),
)

VAGUE = (
    "something is moving",
    "an object moves on the screen",
    "a shape is doing something",
    "a short animation",
    "a video of some shapes",
    "things happen on a background",
    "some kind of drawing",
    "a cartoon plays",
    "this is a clip with a thing in it",
    "a colourful picture changes",
)

TYPOS = {
    "circle": "cirlce",
    "square": "sqaure",
    "triangle": "traingle",
    "star": "starr",
    "moving": "movign",
    "moves": "mvoes",
    "right": "rigth",
    "left": "letf",
    "yellow": "yelow",
    "green": "gren",
    "purple": "purpel",
    "bounces": "bouces",
    "spins": "spinns",
    "behind": "behnd",
    "background": "backround",
}
