"""The kernel lab: every implementation in the registry, checked, timed and plotted beside the others and their peers.

    python -m minilm_kernels.bench attention --shapes "1,12,4096,64" --causal true --csv results.csv --plot results.png
    python -m minilm_kernels.bench check-kernel mine.py

What it runs of an operation is in that operation's `workload.py`; `workload.py` here says what one is.
"""
