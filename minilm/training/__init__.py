"""The training loop and what is around it.

trainer.py      the loop: steps, evaluation, checkpoints, exact resume
state.py        what a checkpoint holds; arguments.py: what a trainer is given, looked at
config.py       what a run is told, as typed dataclasses; presets.py: settings known to work
run.py          from a configuration to a trainer, in a run folder; run_folder.py: what lies in that folder
metrics.py      metrics.jsonl and loss.png
step.py         forward, backward, clipping, update, in any precision; out_of_memory.py: what to lower where it fails
callbacks.py    what may be hung on a run; interrupt.py: Ctrl-C; diverged.py: NaN; one_batch.py: a test of a model
speed.py        the machine's ceiling
"""

from minilm.backend import OutOfMemoryError

from .callbacks import Callback
from .config import Config, ConfigError, ModelConfig, OptimConfig, TrainConfig, load_config_file, merge
from .diverged import DivergedError
from .metrics import MetricsFile, draw_loss
from .presets import PRESETS, needs_data, preset
from .run import Run
from .run_folder import RunFolder, RunFolderError
from .speed import flops_per_token, matrix_rate
from .trainer import Trainer

__all__ = [
    "PRESETS",
    "Callback",
    "Config",
    "ConfigError",
    "DivergedError",
    "MetricsFile",
    "ModelConfig",
    "OptimConfig",
    "OutOfMemoryError",
    "Run",
    "RunFolder",
    "RunFolderError",
    "TrainConfig",
    "Trainer",
    "draw_loss",
    "flops_per_token",
    "load_config_file",
    "matrix_rate",
    "merge",
    "needs_data",
    "preset",
]
