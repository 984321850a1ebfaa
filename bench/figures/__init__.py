"""The data figures of the papers, drawn as SVG: one module per kind.

`FIGURES` holds what `draw.figure` of a `methods/<paper>/reproduce.yaml` may name. The rows marked with a star read what
`bench.reproduction.tracing.TRACES` left under the same name.

| name | arguments (with defaults) | draws |
|---|---|---|
| `lambda_curves` | `metric: bleu4`, `setting: reconstruction_weight` | score against a setting, one curve per variant |
| `training_curves` | `losses: [cross_entropy, reconstruction, loss]` | losses and validation CIDEr of each cell, phase by phase |
| `reward_curves` | `value: reward` | reward and validation CIDEr of all cells over the captions read |
| `bars` | `metrics: [cider]` | scores of the cells as bars, printed ones beside them |
| `grid` | `x: information_weight`, `y: relevance_exponent`, `metric: cider` | heat map over two settings |
| `step_memory` * | `sizes: [8, 16, ..]`, `piece: 8` | memory of a training step by size of batch, whole and in pieces |
| `hidden_states` * | `count: 200`, `perplexity: 30`, `seed: 0` | t-SNE of last hidden states, a panel per cell |
| `qualitative` * | `clips: 3`, `frames: 6` | frames with one reference and the captions of all cells |
| `key_frames` * | `clips: 3` | even frames, default and predicted key frame, captions of both steps (last cell) |
| `spatial_masks` * | `clips: 2` | frames times the spatial attention at each word (last cell) |
| `region_attention` * | `clips: 3`, `frames: 6` | frames, less attended regions whiter (last cell), captions of all cells |
| `frame_weights` * | `clips: 2` | attention over frames at each word (last cell) |
| `top_words` * | `clips: 2`, `top: 8` | most probable words, actions and objects of a clip (last cell) |
| `word_frequency` * | `words: 15` | share of vocabulary against share of tokens; clips per common word. Needs no cells |

`lambda_curves`, `bars` and `grid` set the paper's numbers beside ours where `drawing.printed` has them: a mapping from the
name of a cell to metrics in percent, `{"local 0.1": {"bleu4": 39.1}}`.

All starred figures but `step_memory`, `hidden_states` and `word_frequency` also know `real_frames: false`: frames of released
clips may not be committed, so they are drawn only where this is set (and the stream `pixels` is cached); those of `shapes`
always.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.figures.charts import bars, hidden_states, top_words, word_frequency
from bench.figures.curves import lambda_curves, reward_curves, step_memory, training_curves
from bench.figures.drawing import Drawing
from bench.figures.grids import frame_weights, grid
from bench.figures.masks import region_attention, spatial_masks
from bench.figures.strips import key_frames, qualitative
from bench.pages.document import Part

FIGURES: dict[str, Callable[[Drawing], list[Part]]] = {
    figure.__name__: figure
    for figure in (
        lambda_curves,
        training_curves,
        reward_curves,
        step_memory,
        bars,
        grid,
        hidden_states,
        qualitative,
        key_frames,
        spatial_masks,
        region_attention,
        frame_weights,
        top_words,
        word_frequency,
    )
}
