"""Attention forward in six steps from the textbook to vectors, each faster than the one before: read them in order.

    step1_textbook    the formula in NumPy
    step2_blocked     a block of queries at a time: no T x S matrix, and half of the work where the mask is causal
    step3_online      compiled loops and the online softmax: no score is ever stored
    step4_tiled       tiles of queries and keys: what was loaded is used again while it is in the cache
    step5_packed      keys transposed into a tile, two queries at a time: every loop becomes a loop over vectors
    step6_registers   vectors by hand: 6 x 16 results stay in registers while a product runs

The seventh is the product kernel, `../forward.py`. Each step runs when it is asked for by its name,

    attention(q, k, v, causal=True, implementation="step3_online")

and is tested and timed like every other implementation. `notebooks/attention_ladder.ipynb` has the measured picture.
"""

from . import step1_textbook, step2_blocked, step3_online, step4_tiled, step5_packed, step6_registers

__all__ = ["step1_textbook", "step2_blocked", "step3_online", "step4_tiled", "step5_packed", "step6_registers"]
