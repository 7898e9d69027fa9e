"""What must not be lost, on disk: weights, and checkpoints that are whole or refused.

files.py         files and folders that appear whole or not at all
weights.py       named arrays in a safetensors file
checkpoints.py   a folder of checkpoints: written aside and renamed, verified by SHA-256, pruned

There is no pickle anywhere: tensors are safetensors, all else is JSON.
"""

from .checkpoints import Checkpoint, CheckpointError, CheckpointStore, read_checkpoint, verify_checkpoint
from .files import atomic_write, sync_file, sync_folder
from .weights import load_weights, map_weights, save_weights

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "CheckpointStore",
    "atomic_write",
    "load_weights",
    "map_weights",
    "read_checkpoint",
    "save_weights",
    "sync_file",
    "sync_folder",
    "verify_checkpoint",
]
