"""The training loop."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path

from minilm import backend
from minilm.autograd import compute_in, no_grad
from minilm.checkpoint import CheckpointError, CheckpointStore, read_checkpoint
from minilm.data import evaluation_batches
from minilm.optim import EMA

from .arguments import check_arguments, check_folder, mean_loss
from .callbacks import Callback
from .captured_step import CapturedStep
from .config import TrainConfig
from .diverged import DivergedError, diagnose
from .interrupt import StopSignals
from .metrics import MetricsFile
from .one_batch import OneBatch
from .out_of_memory import advise
from .state import collect, positions, restore
from .step import Outcome, TrainingStep

__all__ = ["Trainer"]

_LEAST_SCALE = 2.0**-8  # of a loss; gradients that overflow even so are no matter of float16's range


class Trainer:
    """Trains a language model, evaluates it, writes down what happens, and goes on bit for bit after any stop.

    `precision` is what passes through the model compute in, a name of `minilm.autograd.PRECISIONS`.
    `model(inputs, targets=targets).loss` is the mean loss of a batch, `batches` a `BatchLoader` (anything with
    next_batch, state and set_state), `val_tokens` a TokenFile or an integer array to evaluate on, in rows of the
    config's `context` tokens. With a `folder`, which is made, metrics.jsonl and checkpoints/ are written there.
    `streams` are the random streams that training draws from, besides the order of the data: the default stream, from
    which dropout draws, if not given. `history` holds the rows of metrics.jsonl. TypeError for what is none of these.

    >>> from minilm import data, models, optim
    >>> model = models.GPT2(models.GPT2Config(vocab_size=8, n_positions=8, n_embd=8, n_layer=1, n_head=1))
    >>> batches = data.BatchLoader(np.arange(100) % 8, batch_size=4, context=8)
    >>> schedule = optim.make_schedule("cosine", steps=20)
    >>> trainer = Trainer(model, optim.AdamW(model.parameters(), lr=0.1), schedule, batches, TrainConfig(steps=20))
    >>> trainer.fit()
    'finished'
    >>> trainer.history[-1]["loss"] < trainer.history[0]["loss"]
    True
    """

    def __init__(
        self,
        model,
        optimizer,
        schedule,
        batches,
        config: TrainConfig | None = None,
        *,
        val_tokens=None,
        precision: str = "fp32",
        folder: str | os.PathLike | None = None,
        streams: Mapping[str, backend.Generator] | None = None,
        callbacks: Iterable[Callback] = (),
    ):
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.config = config = TrainConfig() if config is None else config
        self.callbacks = list(callbacks)
        check_arguments(optimizer, schedule, batches, config, self.callbacks)
        self.batches = OneBatch(batches) if config.overfit_one_batch else batches
        self.val_tokens = None if config.overfit_one_batch else val_tokens
        self.streams = dict(streams) if streams is not None else {"dropout": backend.default_generator}
        captured = model.device == "cuda" and config.cuda_graph
        step = CapturedStep if captured else TrainingStep
        self.work = step(model, optimizer, grad_clip=config.grad_clip, precision=precision)
        self.parameters = self.work.parameters
        self.ema = EMA(model, config.ema_decay, warmup=True) if config.ema_decay else None
        self.folder = None if folder is None else Path(folder)
        self.store = self.metrics = None
        if self.folder is not None:
            self.store = CheckpointStore(self.folder / "checkpoints", config.keep_last)
            self.metrics = MetricsFile(self.folder / "metrics.jsonl")
        self.step = 0
        self.history: list[dict] = []
        self.best_step: int | None = None  # of the evaluation with the lowest validation loss
        self.best_val_loss: float | None = None
        self.evaluations_since_best = 0
        self.outcome = "not started"
        self.signal: int | None = None  # that interrupted

    # -- the loop -----------------------------------------------------------------------------------------------------

    def fit(self) -> str:
        """Trains up to `config.steps`; returns the outcome: "finished", "stopped early" or "interrupted".

        The first Ctrl-C or SIGTERM ends it after the step, and saves; the second ends it at once. DivergedError as soon
        as loss or gradient is not finite, OutOfMemoryError where a step does not fit: that step changes nothing.
        FileExistsError where another run, not resumed, is in the folder.
        """
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.step == 0:
                check_folder(self.folder, self.store, self.metrics)
        backend.reuse_memory()
        self.model.train()
        self._tell("on_start")
        try:
            with StopSignals() as stop:
                if self._goes_on(stop):
                    self._advance(stop)  # compiles the kernels
                with backend.keep_objects():
                    while self._goes_on(stop):
                        self._advance(stop)
            if self.store and self.step and not self.store.path(self.step).exists():
                self._tell("on_checkpoint", self.save())
        finally:
            if self.metrics:
                self.metrics.close()
        self.signal = stop.received
        done, early = self.step >= self.config.steps, self._patience_is_out
        self.outcome = "finished" if done else "stopped early" if early else "interrupted"
        self._tell("on_end")
        return self.outcome

    def _goes_on(self, stop: StopSignals) -> bool:
        return self.step < self.config.steps and not self._patience_is_out and not stop.received

    def _advance(self, stop: StopSignals) -> None:
        """A step and what is due after it: evaluation, the row of metrics, a checkpoint."""
        refused, row, improved = self.work.refused, self.train_step(), False
        if self.work.refused not in (None, refused):
            self._tell("on_notice", f"steps are launched kernel by kernel: {self.work.refused}")
        if self.val_tokens is not None and self._due(self.config.eval_interval):
            row["val_loss"] = self.evaluate()
            improved = self._note_evaluation(row["val_loss"])
        self.history.append(row)
        if self.metrics:
            self.metrics.write(row)
        if self.store and (improved or stop.received or self._due(self._checkpoint_interval)):
            self._tell("on_checkpoint", self.save())
        self._tell("on_step", row)

    def train_step(self) -> dict:
        """One step of the optimiser, over `accumulation` batches; returns its row of metrics."""
        started = time.perf_counter()
        before = positions(self)
        self.schedule.apply(self.optimizer, self.step)
        batches = self.next_batches()
        try:
            with backend.guard_memory():
                done = self.work(batches)
        except MemoryError:
            done = None
        if done is None:  # outside of the handler, where nothing holds the step's arrays any more
            raise advise(self, before)
        if not done.updated and not self._may_skip(done):
            raise diagnose(self, before, done.loss, done.norm)
        if self.ema and done.updated:
            self.ema.update()
        self.step += 1
        tokens = sum(targets.size for _, targets in batches)
        row = {
            "step": self.step,
            "loss": done.loss,
            "lr": self.optimizer.param_groups[0]["lr"],
            "grad_norm": done.norm if done.updated else None,
            "tokens_per_second": round(tokens / (time.perf_counter() - started), 1),
        }
        if (used := backend.memory_in_use(self.model.device)) is not None:
            row["memory_gb"] = round(used / 1e9, 3)
        if self.work.scaler:
            row |= {"loss_scale": self.work.scaler.scale, "skipped_steps": self.work.scaler.skipped}
        return row

    def next_batches(self) -> list[tuple]:
        """The batches of one step."""
        return [self.batches.next_batch() for _ in range(self.config.accumulation)]

    def _may_skip(self, done: Outcome) -> bool:
        """Whether gradients overflowed because of the loss scale, which has been lowered since."""
        scaler = self.work.scaler
        return scaler is not None and math.isfinite(done.loss) and scaler.scale >= _LEAST_SCALE

    def evaluate(self) -> float:
        """The mean loss over the target tokens of the validation split (or of `eval_batches`), by the EMA if on."""
        if self.val_tokens is None:
            raise ValueError("this trainer has nothing to evaluate on; give it val_tokens=, a TokenFile or an array")
        rows = self.config.eval_batch_size or self.config.batch_size
        batches = evaluation_batches(self.val_tokens, rows, self.config.context)
        total = count = 0
        self.model.eval()
        with no_grad(), self.averaged_weights(), compute_in(self.work.precision):
            for inputs, targets in islice(batches, self.config.eval_batches):
                inputs, targets = (backend.to_device(ids, self.model.device) for ids in (inputs, targets))
                total += mean_loss(self.model, inputs, targets).item() * targets.size
                count += targets.size
        self.model.train()
        if not math.isfinite(total):
            raise DivergedError(
                f"the validation loss after step {self.step} is {total / count}; lower the learning rate"
            )
        return total / count

    def averaged_weights(self):
        """A `with` block in which the model has its averaged weights, where there are such."""
        return self.ema.swap() if self.ema else nullcontext()

    def _note_evaluation(self, val_loss: float) -> bool:
        self.schedule.observe(val_loss)
        improved = self.best_val_loss is None or val_loss < self.best_val_loss
        if improved:
            self.best_step, self.best_val_loss = self.step, val_loss
        self.evaluations_since_best = 0 if improved else self.evaluations_since_best + 1
        return improved

    @property
    def _patience_is_out(self) -> bool:
        patience = self.config.early_stopping
        return patience is not None and self.evaluations_since_best >= patience

    @property
    def _checkpoint_interval(self) -> int:
        return self.config.checkpoint_interval or self.config.eval_interval

    def _due(self, interval: int) -> bool:
        return self.step % interval == 0 or self.step == self.config.steps

    def _tell(self, event: str, *details) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self, *details)

    # -- stopping and going on ----------------------------------------------------------------------------------------

    def save(self) -> Path:
        """Writes a checkpoint of all that the next step depends on; returns its path."""
        self._require_folder()
        self.metrics.sync()
        return self.store.save(self.step, **collect(self))

    def resume(self, path: str | os.PathLike | None = None) -> Path | None:
        """Goes on from the checkpoint `path`, or from the newest that is whole; returns its path (None: none there).

        What belongs to later steps gives way: rows of metrics.jsonl are dropped, checkpoints renamed to
        `step-N.set-aside`. CheckpointError if `path`, or every checkpoint there is, is damaged.
        """
        self._require_folder()
        checkpoint, refused = (read_checkpoint(path), []) if path is not None else self.store.newest()
        for error in refused:
            self._tell("on_notice", str(error))
        if checkpoint is not None:
            restore(self, checkpoint)
        elif refused:
            raise CheckpointError(f"no checkpoint in {self.store.folder} is whole, of {len(refused)}: {refused[0]}")
        for moved in self.store.set_aside_after(self.step):
            self._tell("on_notice", f"a checkpoint of a later step was renamed to {moved}")
        self.history = self.metrics.cut_after(self.step)
        if [row["step"] for row in self.history] != list(range(1, self.step + 1)):
            self._tell("on_notice", f"{self.metrics.path} lacks rows of steps up to {self.step}: lost or edited")
        return checkpoint and checkpoint.path

    def _require_folder(self) -> None:
        if self.folder is None:
            raise ValueError("this trainer has no folder for checkpoints; make it with Trainer(..., folder=PATH)")

    @contextmanager
    def best_weights(self):
        """A `with` block in which the model has the weights of its best evaluation, else the last (averaged) ones."""
        best = None
        if self.store and self.best_step not in (None, self.step):
            try:
                tensors = read_checkpoint(self.store.path(self.best_step)).tensors
                best = {**tensors["model"], **tensors.get("ema", {})}
            except CheckpointError as error:
                self._tell("on_notice", f"the last weights are taken for the best ones, because {error}")
        if best is None:
            with self.averaged_weights():
                yield
            return
        last = {name: array.copy() for name, array in self.model.state_dict().items()}
        self.model.load_state_dict(best)
        try:
            yield
        finally:
            self.model.load_state_dict(last)
