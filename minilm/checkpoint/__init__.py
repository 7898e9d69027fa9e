"""What must not be lost, on disk: weights, and checkpoints that are whole or refused.

weights.py       named arrays in a safetensors file
checkpoints.py   a folder of checkpoints: written aside and renamed, verified by SHA-256, pruned

There is no pickle anywhere: tensors are safetensors, all else is JSON.
"""

from .checkpoints import Checkpoint, CheckpointError, CheckpointStore, read_checkpoint, verify_checkpoint
from .weights import load_weights, map_weights, save_weights

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "CheckpointStore",
    "load_weights",
    "map_weights",
    "read_checkpoint",
    "save_weights",
    "verify_checkpoint",
]
