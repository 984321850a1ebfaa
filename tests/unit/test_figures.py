"""Figures: what stands in the SVG is what was measured, whatever the captions hold, and the same values give the same bytes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import SVG, Drawn, border_colours

from bench import BenchError
from bench.figures.canvas import CHARACTER, RED, SMALL, YELLOW, cells, plain, wrap
from bench.figures.charts import bar_chart, frequency, panels, probabilities
from bench.figures.curves import Point, history, memory, rewards, sweep
from bench.figures.drawing import Epoch
from bench.figures.effects import Course, Effect, courses, effects
from bench.figures.explained import explained
from bench.figures.grids import heat_maps, word_map
from bench.figures.masks import fade, masks, regions, upsample
from bench.figures.strips import Frame, key_strip, quoted
from bench.pages.document import Picture
from bench.records.figure_data import Shown, Trace, read_trace, write_trace


def clip(count: int = 20, boxes: bool = False, **more: Any) -> Shown:
    frames = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3)).astype(np.uint8)
    here = tuple(((0.0, 0.0, 8.0, 8.0), (8.0, 8.0, 20.0, 20.0)) for _ in range(count)) if boxes else ()
    return Shown("clip1", "a dog runs", tuple(range(count)), here, {}, frames, **more)


CURVES = {
    "recnet:global": [Point(0.2, (30.0, 32.0), 38.3), Point(0.1, (29.0, 29.5))],
    "recnet:local": [Point(0.1, (33.0,), 39.1)],
}
ROWS = [
    Epoch("base", 100, {"cross_entropy": 40.0, "loss": 40.0, "val_cider_tokens": 1.0}),
    Epoch("base", 200, {"cross_entropy": 30.0, "loss": 30.0, "val_cider_tokens": 5.0}),
    Epoch("reconstruct", 300, {"cross_entropy": 31.0, "reconstruction": 9.0, "loss": 32.0, "val_cider_tokens": 7.0}),
]
RUNS = {
    name: [
        [Epoch("boost", 100 * (n + 1), {"reward": n + seed, "val_cider_tokens": n}) for n in range(3)]
        for seed in range(2)
    ]
    for name in ("none", "scst")
}
COURSES = (
    [Course((100, 200), (-1.0 + n, 3.0 + n), (0.1, 0.3), (0.5, 0.5)) for n in range(2)],
    [Course((100, 200, 300), (-1.0, 0.0, 9.0)), Course((100, 200), (-1.0, 1.0))],
)
CELLS = {(0.3, 1.0): 80.0, (0.5, 1.0): 85.3, (0.3, 2.0): 84.0}
HOSTILE = [
    "<script>alert('1 & 2')</script> \"quoted\" ]]>",
    "costs $5 or $x^2_3$ \\frac{1}{2}",
    "null \x00 escape \x1b[31m surrogate \ud800 not \ufffe",
    "turned \u202eround\u202c and\nbroken\tlines",
    "一只狗在跑 😀 собака бежит كلب يجري",
    "a" * 300,
    "",
]


def hostile() -> Picture:
    return quoted(HOSTILE[0], [Frame(0, None)], [(f"{text} {number}", text) for number, text in enumerate(HOSTILE)])


PICTURES: dict[str, Callable[[], Picture]] = {
    "sweep": lambda: sweep(CURVES, {"salstm:xe": [27.0]}, "BLEU-4", "λ"),
    "history": lambda: history(ROWS, ["cross_entropy", "reconstruction", "loss"], "recnet:local"),
    "rewards": lambda: rewards(RUNS, "reward"),
    "effects": lambda: effects(
        [Effect("recnet: local, msvd", 0.3, -0.8, 1.4, 2.8), Effect("b", 2.0, 1.0, 3.0, None)], "CIDEr"
    ),
    "courses": lambda: courses(*COURSES, "CIDEr-D"),
    "bars": lambda: bar_chart({"XE": [50.0, 52.0], "DXE": [55.0]}, {"DXE": 55.0}, "CIDEr", "msrvtt, test"),
    "heat maps": lambda: heat_maps({"ours": CELLS, "as printed": CELLS}, "CIDEr", "λ", "γ"),
    "word map": lambda: word_map(["a", "dog"], [[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], "etenet", "clip1"),
    "points": lambda: panels({"base": {"training": [[0, 0], [1, 1]], "inference": [[2, 0], [0, 1]]}}),
    "strip": hostile,
    "key frames": lambda: key_strip("vre", clip(), 13, [0.05] * 20, [("step 1", "a dog")]),
    "masks": lambda: masks("vre", clip(), ["a", "dog"], [[0.25] * 4, [0.1, 0.1, 0.7, 0.1]]),
    "regions": lambda: regions("hail", clip(3, boxes=True), [[0.9, 0.1]] * 3, [("ha", "a dog")]),
    "words": lambda: frequency([50, 30, 10, 5, 3, 1, 1], [("a", 10), ("dog", 4)], 10),
    "ranges": lambda: probabilities("glrg", [], "a dog", {"words": [("dog", 0.9)], "objects": [("object 1", 0.2)]}),
}


@pytest.mark.parametrize("name", PICTURES)
def test_same_values_give_the_same_bytes_on_a_white_page(name: str) -> None:
    first = PICTURES[name]()
    time.sleep(1.1 if name == "sweep" else 0)  # past a full second: a date would show
    assert PICTURES[name]().svg == first.svg
    assert "dc:date" not in first.svg and "matplotlib v" not in first.svg.lower()
    page = Drawn(first.svg).groups["patch_1"]
    assert "fill: #ffffff" in "".join(path.get("style", "") for path in page.iter(f"{SVG}path"))
    assert first.alt == plain(first.alt) and len(first.alt) > 30


def test_one_video_explained_is_all_its_parts_below_one_another() -> None:
    """Whatever its name holds, and with the words of each part still pointing at their own part."""
    traces = {
        "attention": [[0.03] * 10 + [0.3] + [0.03] * 9, [0.05] * 20],
        "key_frame": 13,
        "refocusing": [0.05] * 20,
        "spatial_attention": [[0.25] * 4, [0.1, 0.1, 0.7, 0.1]],
        "region_attention": [[0.9, 0.1]] * 20,
    }
    named = replace(clip(boxes=True), clip='id="x" url(#y) <b>')
    captions = [("caption (-2.10)", "a dog"), ("or (-3.40)", "a cat")]
    first, second = (explained(named, captions, ["a", "dog"], traces) for _ in range(2))
    assert first.svg == second.svg
    drawn = Drawn(first.svg)
    assert {'id="x" url(#y) <b>', "a dog", "or (-3.40)", "Key frame", "Places, on the key frame", "Regions"} <= {
        *drawn.texts
    }
    heights = [float(part.get("height", "")) for part in drawn.root if part.tag == f"{SVG}svg"]
    tops = [float(part.get("y", "")) for part in drawn.root if part.tag == f"{SVG}svg"]
    assert tops == pytest.approx([sum(heights[:number]) for number in range(5)], abs=0.01)
    names = {part.get("id") for part in drawn.root.iter() if part.get("id")}
    pointed = {
        match
        for part in drawn.root.iter()
        for value in part.attrib.values()
        for match in re.findall(r"url\(#(.*?)\)", value)
    }
    assert pointed and pointed <= names
    assert RED in drawn.styles("part2-border-13")
    assert len(drawn.ids("part1-most")) == 2
    assert "10" in drawn.texts, "the frame of most weight is shown"
    plain_one = Drawn(explained(clip(), captions, ["a", "dog"], {}).svg)
    assert len([part for part in plain_one.root if part.tag == f"{SVG}svg"]) == 1


def test_a_users_style_changes_no_figure() -> None:
    import matplotlib as mpl

    before = PICTURES["bars"]().svg
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "black", "svg.fonttype": "path"}):
        assert PICTURES["bars"]().svg == before


def test_no_caption_breaks_a_picture() -> None:
    picture = hostile()
    drawn = Drawn(picture.svg)  # it parses
    assert not [part for part in drawn.root.iter() if part.tag.endswith("script")]
    said = " ".join(drawn.texts)
    assert "<script>alert('1 & 2')</script>" in said
    assert "$5 or $x^2_3$ \\frac{1}{2}" in said, "not read as mathematics"
    assert "一只狗在跑 😀 собака бежит كلب يجري" in said
    assert "turned round and broken lines" in said, "no letter turns the direction of what follows"
    assert not re.search("[\x00-\x08\x0b\x1b\ud800\u202e\ufffe]", picture.svg + picture.alt)
    assert "(says nothing)" in said
    assert sum(text.count("a") for text in drawn.texts if set(text) <= {"a", " ", "5"}) == 600, "as name and as caption"


def test_lines_fit_and_lose_nothing() -> None:
    text = "one two three " * 20 + "x" * 90 + " 一只狗" * 9
    lines = wrap(text, inches=3)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert max(map(cells, lines)) <= int(3 * 72 / (SMALL * CHARACTER))
    assert wrap("", 1) == [""]


def test_curves_have_a_point_for_each_setting_and_printed_ones_apart() -> None:
    drawn = Drawn(PICTURES["sweep"]().svg)
    assert [drawn.marks(name) for name in ("curve-0", "curve-1", "printed-0", "printed-1")] == [2, 1, 1, 1]
    assert {"recnet:global", "recnet:local", "salstm:xe", "BLEU-4, as printed"} <= set(drawn.texts)
    assert "recnet:global is highest, 31.0, at λ = 0.2" in PICTURES["sweep"]().alt
    alone = Drawn(sweep({"a": [Point(0.1, (1.0,))]}, {}, "CIDEr", "λ").svg)
    assert not alone.ids("printed") and "CIDEr, as printed" not in alone.texts


def test_training_curves_show_the_switch_of_phases() -> None:
    drawn = Drawn(PICTURES["history"]().svg)
    assert drawn.ids("switch") == ["switch-1"]
    assert {"base", "reconstruct", "XE", "reconstruction", "total", "validation CIDEr-D"} <= set(drawn.texts)
    assert [drawn.marks(f"cross_entropy-{phase}") for phase in (0, 1)] == [2, 1]
    assert drawn.ids("reconstruction") == ["reconstruction-1"], "there is none before it is switched on"
    assert "#009e73" in drawn.styles("val_cider_tokens-0")
    assert "Phase base: XE from 40.0 to 30.0" in PICTURES["history"]().alt


def test_reward_curves_have_a_line_for_each_seed_and_one_colour_for_each_cell() -> None:
    drawn = Drawn(PICTURES["rewards"]().svg)
    assert drawn.ids("reward-") == [f"reward-{cell}-{seed}" for cell in (0, 1) for seed in (0, 1)]
    assert all(drawn.marks(line) == 3 for line in drawn.ids("reward-") + drawn.ids("val_cider_tokens-"))
    assert drawn.texts.count("none") == drawn.texts.count("scst") == 1, "each once in the legend"


def test_a_phase_with_rewards_is_drawn_from_the_best_score_before_as_far_as_all_cells_go() -> None:
    picture = PICTURES["courses"]()
    drawn = Drawn(picture.svg)
    assert [drawn.marks(name) for name in ("drawn", "baseline", "with", "without")] == [2, 2, 3, 3]
    assert {"drawn-band", "with-band"} <= set(drawn.groups) and {"with rewards", "without"} <= set(drawn.texts)
    assert "with rewards from 0.00 to 3.50; without from 0.00 to 0.50" in picture.alt
    assert "drawn caption from 0.10 to 0.30" in picture.alt
    assert "without" not in courses([], [], "CIDEr-D").alt


def test_gains_have_their_intervals_and_what_is_claimed() -> None:
    picture = PICTURES["effects"]()
    drawn = Drawn(picture.svg)
    assert drawn.marks("gains") == 2 and drawn.marks("claimed") == 1
    assert "recnet: local, msvd +0.3 (-0.8 to +1.4), claimed +2.8; b +2.0 (+1.0 to +3.0)." in picture.alt


def test_bars_carry_their_numbers_and_say_what_is_not_printed() -> None:
    drawn = Drawn(PICTURES["bars"]().svg)
    assert len(drawn.ids("ours")) == 2 and drawn.ids("printed") == ["printed-1"]
    assert {"XE", "DXE", "51.0", "55.0", "not printed"} <= set(drawn.texts)


def test_heat_map_frames_the_highest_cell_and_leaves_absent_ones_empty() -> None:
    drawn = Drawn(PICTURES["heat maps"]().svg)
    for text in ("80.0", "85.3", "84.0", "–"):
        assert drawn.texts.count(text) == 2
    assert drawn.ids("best") == ["best-0", "best-1"]
    assert "highest 85.3 at λ = 0.5, γ = 1" in PICTURES["heat maps"]().alt


def test_hidden_states_are_as_many_points_as_captions() -> None:
    drawn = Drawn(PICTURES["points"]().svg)
    assert (drawn.marks("training-0"), drawn.marks("inference-0")) == (2, 2)
    assert drawn.styles("training-0") != drawn.styles("inference-0")


def test_key_frames_wear_their_colours() -> None:
    captions = [("reference", "a dog"), ("step 1", "one"), ("step 2", "two")]
    drawn = Drawn(key_strip("vre", clip(), 13, [0.05] * 20, captions).svg)
    assert border_colours(drawn) == {"border-10": YELLOW, "border-13": RED}
    shown = sorted(int(name.removeprefix("frame-")) for name in drawn.ids("frame-"))
    assert shown == [0, 2, 4, 6, 8, 10, 12, 13, 14, 16, 18], "even frames, and an odd one where it was chosen"
    assert {"default", "predicted", "one", "two", "step 1", "step 2"} <= set(drawn.texts)
    assert len(drawn.images()) == 11
    assert len(drawn.ids("weight-")) == 20
    assert np.array_equal(drawn.images()[7], clip().frames[13]), "pixels as they are, in their place"


def test_key_frame_that_stays_is_said_to_be_both() -> None:
    picture = key_strip("vre", clip(), 10, [0.05] * 20, [])
    assert border_colours(Drawn(picture.svg)) == {"border-10": RED}
    assert "default = predicted" in Drawn(picture.svg).texts and "stays in the middle" in picture.alt


def test_strip_without_pixels_says_so() -> None:
    picture = quoted("clip1", [], [("reference", "a dog")], "No pixels of this clip are shown: put them there.")
    assert not Drawn(picture.svg).images()
    assert "No pixels of this clip are shown: put them there." in Drawn(picture.svg).texts


def test_upsampled_mask_is_linear_between_the_centres_of_its_cells() -> None:
    mask = upsample(np.array([[0.0, 1.0], [2.0, 3.0]]), 4, 4)
    # centres of the cells lie at 1 and 3 of 4 pixels, those of the pixels at 0.5, 1.5, 2.5, 3.5
    assert np.allclose(mask[0], [0, 0.25, 0.75, 1])
    assert np.allclose(mask[:, 0], [0, 0.5, 1.5, 2])
    assert np.allclose(mask[3, 3], 3)


def test_masked_frame_is_brightest_where_the_word_looks() -> None:
    white = Shown("c", "r", (7,), (), {}, np.full((1, 20, 20, 3), 250, np.uint8))
    drawn = Drawn(masks("vre", white, ["dog"], [[0.1, 0.1, 0.7, 0.1]]).svg)
    frame, masked = drawn.images()
    assert (frame == 250).all() and {"frame 7", "dog"} <= set(drawn.texts)
    assert masked[15:, :5].min() == 250, "the third place of four is the lower left"
    assert masked[:5].max() < 130 and masked[:, 15:].max() < 130
    assert "“dog” in row 2, column 1" in masks("vre", white, ["dog"], [[0.1, 0.1, 0.7, 0.1]]).alt


def test_long_captions_are_cut_and_odd_grids_are_rows() -> None:
    words = [f"w{number}" for number in range(20)]
    picture = masks("vre", clip(), words, np.full((20, 6), 1 / 6).tolist())
    assert len(Drawn(picture.svg).images()) == 14 and "The first 13 of 20 words." in Drawn(picture.svg).texts
    assert "grid of 1 by 6" in picture.alt


def test_unattended_regions_fade() -> None:
    grey = np.full((10, 10, 3), 100, np.uint8)
    faded = fade(grey, [(0, 0, 5, 5), (5, 5, 14, 14), (-4, 5, 5, 10)], [1.0, 0.5, 0.0])
    assert (faded[:5, :5] == 100).all(), "full attention: as it was"
    assert (faded[5:, 5:] > 100).all() and (faded[5:, 5:] < faded[0, 9]).all(), "half of it: between"
    assert (faded[5:, :5] == faded[0, 9]).all(), "none: as white as what is in no region"


def test_region_boxes_are_drawn_on_every_frame_or_a_heat_map_without_them() -> None:
    drawn = Drawn(regions("hail", clip(3, boxes=True), [[0.9, 0.1]] * 3, [("hail:ha", "a dog runs")]).svg)
    assert len(drawn.images()) == 3 and "a dog runs" in drawn.texts
    assert drawn.root.findall(f".//{SVG}path[@style]") and "weights" not in drawn.groups
    for bare in (clip(3), Shown("c", "r")):
        assert "weights" in Drawn(regions("hail", bare, [[0.9, 0.1]] * 3, []).svg).groups


def test_word_distribution_is_that_of_the_counts() -> None:
    tokens = [500] + [5] * 99  # the top 5 of 100 words hold 520 of 995 tokens
    picture = frequency(tokens, [("a", 10), ("$5", 3)], 10)
    assert "hold 52 % of the training tokens" in picture.alt and "“a” in 100 %" in picture.alt
    assert {"a", "$5", "100", "30", "100 words, 995 tokens"} <= set(Drawn(picture.svg).texts)
    assert len(Drawn(picture.svg).ids("word-")) == 2


def test_ranges_stand_in_the_papers_order() -> None:
    drawn = Drawn(PICTURES["ranges"]().svg)
    titles = [text for text in drawn.texts if "(" in text]
    assert titles == ["words (long range)", "objects (key frame)"]
    assert {"dog", "object 1"} <= set(drawn.texts)


def trace_of(reference: str = "a \ud800 dog") -> Trace:
    shown = Shown("c/1", reference, (0, 4), (((0.0, 1.0, 2.0, 3.0),),) * 2, {"vre": {"words": ["a"], "attention": [[1 / 3]]}},
                  np.arange(2 * 4 * 4 * 3).reshape(2, 4, 4, 3).astype(np.uint8))  # fmt: skip
    return Trace(
        "key_frames", {"vre": "k" * 16}, {"clips": 1}, {"other": "lacks"}, {"keys": [1]}, (shown, Shown("d", "r"))
    )


def test_traces_come_back_as_they_were_and_are_the_same_bytes(tmp_path: Path) -> None:
    write_trace(tmp_path, trace_of())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(before) == ["key_frames.json", "key_frames.npz"]
    found = read_trace(tmp_path, "key_frames")
    assert found is not None
    assert (found.cells, found.lacking, found.facts) == ({"vre": "k" * 16}, {"other": "lacks"}, {"keys": [1]})
    first, second = found.clips
    assert np.array_equal(first.frames, trace_of().clips[0].frames) and first.picture(4) is not None
    assert first.boxes == trace_of().clips[0].boxes and first.by_cell["vre"]["attention"] == [[0.3333]]
    assert len(second.frames) == 0 and second.picture(0) is None
    time.sleep(2.1)  # zip files count in steps of two seconds
    write_trace(tmp_path, found)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert read_trace(tmp_path, "masks") is None
    path = tmp_path / "key_frames.json"
    path.write_text(path.read_text().replace('"by_cell"', '"told"'))
    earlier = read_trace(tmp_path, "key_frames")
    assert earlier is not None and earlier.clips[0].by_cell == first.by_cell, "as earlier versions wrote it"


def test_frames_of_another_try_are_not_shown_beside_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A try that ends between its two files leaves new frames beside old words, and is told from a whole one."""
    write_trace(tmp_path, trace_of())
    other = replace(trace_of(), clips=(replace(trace_of().clips[0], frames=trace_of().clips[0].frames + 1),))
    with monkeypatch.context() as patch:
        patch.setattr("bench.records.figure_data.write_atomically", lambda *_: exec("raise KeyboardInterrupt"))
        with pytest.raises(KeyboardInterrupt):
            write_trace(tmp_path, other)
    with pytest.raises(BenchError, match="the frames are not those that were written with it"):
        read_trace(tmp_path, "key_frames")
    write_trace(tmp_path, other)
    assert read_trace(tmp_path, "key_frames") is not None
    write_trace(tmp_path, replace(other, clips=()))
    assert not (tmp_path / "key_frames.npz").exists() and read_trace(tmp_path, "key_frames") is not None


def test_damaged_traces_are_refused_in_a_sentence(tmp_path: Path) -> None:
    write_trace(tmp_path, trace_of())
    (tmp_path / "key_frames.npz").write_bytes(b"no zip file")
    with pytest.raises(BenchError, match="cannot be read"):
        read_trace(tmp_path, "key_frames")
    (tmp_path / "key_frames.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(BenchError, match=r"key_frames\.json"):
        read_trace(tmp_path, "key_frames")


def test_logarithmic_axes_have_numbers() -> None:
    held = {"step 1": {"whole": [2_000_000, 90_000_000], "pieces": [2_000_000, 2_000_000]}}
    svg = memory([8, 128], held, 8).svg
    assert "$" not in svg and "mathdefault" not in svg
    assert all(f">{number}<" in svg for number in (2, 5, 10, 20, 50))
