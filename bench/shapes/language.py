"""Captions of a scene: a grammar with synonyms and levels of detail, and annotators who are vague, sloppy or wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench.shapes import words
from bench.shapes.chance import Dice
from bench.shapes.options import MOST_CAPTIONS
from bench.shapes.scene import PAIRED, Scene, Thing, Trinket, draw_scene

PLANTED = {"vague": 2, "poor": 1, "wrong": 2}
"""Bad captions per clip: `vague` fits any clip, `poor` is broken English, `wrong` tells of another scene."""

BARE, PLAIN, FULL = range(3)  # levels of detail: shape; and colour; and size
LEVEL_WEIGHTS = (10, 62, 28)

Item = TypeVar("Item")


@dataclass(frozen=True)
class PlantedCaption:
    """A caption and what is known of it: `good`, or a kind of `PLANTED`."""

    text: str
    kind: str


def usual(dice: Dice | None, choices: Sequence[Item]) -> Item:
    """One of `choices`, rank r with weight 1 / r^2; without dice the first, which is the usual one."""
    if dice is None:
        return choices[0]
    return dice.weighted(choices, [3600 // (rank * rank) for rank in range(1, len(choices) + 1)])


def with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def write_captions(scene: Scene, dice: Dice) -> list[PlantedCaption]:
    """The 20 captions of a clip, bad ones at random positions."""
    kinds = [kind for kind, count in PLANTED.items() for _ in range(count)]
    kinds += ["good"] * (MOST_CAPTIONS - len(kinds))
    return [PlantedCaption(_write(scene, kind, dice), kind) for kind in dice.shuffled(kinds)]


def canonical(scene: Scene) -> str:
    """The plain caption that the ground truth asks for, in the most usual words."""
    return _sentence(scene, None, PLAIN, "present", "{who} {does}")


def _write(scene: Scene, kind: str, dice: Dice) -> str:
    if kind == "vague":
        return usual(dice, dice.shuffled(words.VAGUE))
    if kind == "wrong":
        return _good(_another(scene, dice), dice)
    return _poor(scene, dice) if kind == "poor" else _good(scene, dice)


def _another(scene: Scene, dice: Dice) -> Scene:
    """A scene of another shape, colour and action."""
    while True:
        other = draw_scene(dice, "", filler=False)
        different = (
            other.actor.shape != scene.actor.shape,
            other.actor.colour != scene.actor.colour,
            (other.action, other.heading) != (scene.action, scene.heading),
        )
        if all(different):
            return other


def _good(scene: Scene, dice: Dice) -> str:
    level = dice.weighted((BARE, PLAIN, FULL), LEVEL_WEIGHTS)
    _, tense, frame = dice.weighted(words.OPENERS, [weight for weight, _, _ in words.OPENERS])
    return _sentence(scene, dice, level, tense, frame)


def _poor(scene: Scene, dice: Dice) -> str:
    """Broken English: words dropped, one repeated, misspelt where a misspelling is known."""
    text = _sentence(scene, dice, dice.pick((BARE, PLAIN)), "gerund", "{who} {does}").split()
    text = [word for word in text if word not in ("a", "an", "the", "to", "is")]
    text = [words.TYPOS.get(word, word) if dice.percent(50) else word for word in text]
    if dice.percent(30):
        twice = dice.below(len(text))
        text.insert(twice, text[twice])
    return " ".join(text)


def _sentence(scene: Scene, dice: Dice | None, level: int, tense: str, frame: str) -> str:
    ways = words.PHRASES[scene.action, scene.heading]
    way = ways[0] if dice is None else dice.weighted(ways, [weight for weight, _, _ in ways])
    verb = usual(dice, way[1])[0 if tense == "present" else 1]
    partner = "" if scene.partner is None else with_article(_noun(scene.partner, dice, min(level, PLAIN)))
    parts = [verb, usual(dice, way[2]).format(partner=partner)]
    if dice is not None:
        parts += _extras(scene, dice, partner)
    who = with_article(_noun(scene.actor, dice, level, sized=scene.action != "scale"))
    return frame.format(who=who, does=" ".join(part for part in parts if part))


def _noun(thing: Thing, dice: Dice | None, level: int, sized: bool = True) -> str:
    parts = [usual(dice, words.SHAPES[thing.shape])]
    if level >= PLAIN:
        parts.insert(0, usual(dice, words.COLOURS[thing.colour]))
    if level >= FULL and sized:
        parts.insert(0, usual(dice, words.SIZES[thing.size]))
    return " ".join(part for part in parts if part)


def _extras(scene: Scene, dice: Dice, partner: str) -> list[str]:
    """What else an annotator mentions, if anything."""
    extras = []
    if scene.action in ("slide", "rise") and dice.percent(12):
        extras.append(usual(dice, words.QUICKLY if scene.span > 34 else words.SLOWLY))
    if scene.partner is not None and scene.action not in PAIRED and dice.percent(45):
        extras.append(usual(dice, words.ONLOOKER).format(partner=partner))
    elif scene.trinket is not None and dice.percent(45):
        extras.append(_aside(scene.trinket, dice))
    elif dice.percent(14):
        ground = usual(dice, words.GROUNDS[scene.ground.texture])
        extras.append(usual(dice, words.GROUND).format(ground=ground))
    return extras


def _aside(trinket: Trinket, dice: Dice) -> str:
    noun = trinket.name
    if dice.percent(50):
        noun = f"{usual(dice, words.COLOURS[trinket.colour])} {noun}"
    if dice.percent(30):
        noun = f"{usual(dice, words.SIZES['small'])} {noun}"
    corner = words.CORNERS[trinket.corner]
    return usual(dice, words.TRINKET).format(trinket=with_article(noun), corner=corner)
