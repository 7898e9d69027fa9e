"""Which tiles attention's kernel for Hopper is fastest with: TFLOP/s of each, on the card at hand.

    PYTHONPATH=.:kernels python benchmarks/attention_sm90.py [--head-size 128] [--lengths 2048,16384]

16k positions, 2048 channels, bfloat16, the forward pass alone; the median of 20 runs. The kernel's own choice is
`_TILES`, `_MASKED_KEYS` and `_PINGPONG` in `minilm_kernels/attention/sm90/forward.py`; each other choice has to give
the same numbers before it is timed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from itertools import pairwise

import ml_dtypes
import numpy as np
from minilm_kernels.attention import attention
from minilm_kernels.attention.sm90 import forward as sm90

from minilm.backend import cuda_problem

POSITIONS, CHANNELS, RUNS = 16384, 2048, 20
# Keys to a block, warpgroups that compute, whether they take turns: what compiles without spills.
CHOICES = {
    64: [(128, 3, 1), (96, 3, 1), (128, 2, 1), (128, 2, 0), (176, 2, 1), (176, 2, 0)],
    128: [(176, 2, 1), (176, 2, 0), (128, 2, 1), (128, 2, 0), (96, 2, 1), (80, 3, 1)],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--head-size", type=int, default=128, choices=sorted(CHOICES))
    parser.add_argument("--lengths", default="2048,16384", help="query and key lengths; they divide 16384")
    args = parser.parse_args()
    problem = cuda_problem()
    if problem is not None:
        print(f"no GPU can be used here: {problem}", file=sys.stderr)
        return 1
    import cupy

    capability = cupy.cuda.Device().compute_capability
    if capability != "90":
        print(f"the kernel is for compute capability 9.0, and this card's is {int(capability) / 10}", file=sys.stderr)
        return 1
    print(f"{'T':>6} {'causal':>6} {'keys':>5} {'groups':>6} {'turns':>5} {'TFLOP/s':>8}")
    for T in map(int, args.lengths.split(",")):
        shape = POSITIONS // T, CHANNELS // args.head_size, T, args.head_size
        q, k, v = (cupy.random.standard_normal(shape, np.float32).astype(ml_dtypes.bfloat16) for _ in range(3))
        for causal in (False, True):
            expected = attention(q, k, v, causal=causal, implementation="cuda")[0].astype(np.float32)
            for keys, groups, turns in CHOICES[args.head_size]:
                sm90._TILES[args.head_size], sm90._MASKED_KEYS, sm90._PINGPONG = (keys, groups), keys, turns
                out = attention(q, k, v, causal=causal, implementation="cuda_sm90")[0]
                wrong = float(abs(out.astype(np.float32) - expected).max())
                if not wrong < 0.05:
                    print(f"{T:6} {causal!s:>6} {keys:5} {groups:6} {turns:5} wrong by {wrong:.3g}")
                    continue
                seconds = median_seconds(cupy, q, k, v, causal)
                flops = 4 * POSITIONS * T * CHANNELS / (2 if causal else 1)
                print(f"{T:6} {causal!s:>6} {keys:5} {groups:6} {turns:5} {flops / seconds / 1e12:8.0f}", flush=True)
    return 0


def median_seconds(cupy, q, k, v, causal: bool) -> float:
    """Of one forward pass, between events that are recorded without waiting in between."""
    events = [cupy.cuda.Event() for _ in range(RUNS + 1)]
    for event in events:
        attention(q, k, v, causal=causal, implementation="cuda_sm90")
        event.record()
    events[-1].synchronize()
    times = [cupy.cuda.get_elapsed_time(start, stop) for start, stop in pairwise(events)]
    return statistics.median(times) / 1e3


if __name__ == "__main__":
    sys.exit(main())
