"""The papers' equations as float64 loops: one caption, one frame, one word at a time, no mask, no batch.

Nothing here imports the code under test. A parameter carries its paper's symbol: `p["W_v"]`, `p["b_d"]`. Frames and words
are the real ones only; `words` is w_1 .. w_n without BOS and EOS.
"""
