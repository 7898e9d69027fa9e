"""Attention on Hopper: `forward.cu`, a kernel that only compute capability 9.0 can run, and what launches it."""
