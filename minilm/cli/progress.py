"""What is seen of a training run: a live line in a terminal, plain lines elsewhere, and samples as it goes."""

from __future__ import annotations

import time

import numpy as np

from minilm.autograd import precision_notice
from minilm.data import evaluation_batches
from minilm.training import Callback, Config, flops_per_token, matrix_rate

from .errors import UsageError

__all__ = ["TrainingProgress"]

_REFRESH_SECONDS = 0.1
_PLAIN_SECONDS = 5.0


class TrainingProgress(Callback):
    """A callback of the trainer, and a `with` block around the whole command."""

    def __init__(self, config: Config) -> None:
        try:
            from rich.console import Console
            from rich.live import Live
        except ImportError as error:
            raise ImportError("the progress display needs rich, which is not installed: pip install rich") from error
        self.config = config
        self.console = Console(highlight=False, soft_wrap=True)
        self.live = Live(console=self.console, auto_refresh=False, transient=True) if self.console.is_terminal else None
        self._shown = 0.0
        self._val_loss: float | None = None
        self._rate = self._ceiling = self._flops = 0.0

    def __enter__(self) -> TrainingProgress:
        if self.live:
            self.live.start()
            self._update("preparing the data ...")
        return self

    def __exit__(self, *_) -> None:
        self._stop()

    def print(self, text: str) -> None:
        """A line above the live one."""
        self.console.print(text, markup=False)

    # -- before the first step ----------------------------------------------------------------------------------------

    def on_tokens(self, done: int, total: int) -> None:
        """While the corpus is made tokens."""
        if (self.live or total > 1e6) and self._is_time(_REFRESH_SECONDS, _PLAIN_SECONDS):
            self._update(f"tokenizing: {100 * done / max(total, 1):.0f}% of {total / 1e6:.1f}M characters")

    def show_run(self, run) -> None:
        """What is about to be trained, on what."""
        data, model, train = run.data, run.model, self.config.train
        self._prepare_sampling(run)
        self._flops = flops_per_token(model, train.context)
        on_gpu = {"size": 8192, "precision": self.config.precision} if model.device == "cuda" else {}
        self._ceiling = matrix_rate(model.device, **on_gpu)
        shape = self.config.model
        per_step = train.batch_size * train.context * train.accumulation
        passes = train.steps * per_step / len(data.train)
        digits = ".2f" if passes >= 0.1 else ".1g"
        self.print(f"data       {data.info['source']}")
        self.print(f"           {len(data.train):,} tokens to train on, {len(data.val):,} to validate on")
        self.print(f"tokenizer  {self.config.tokenizer}, {run.tokenizer.vocab_size:,} tokens")
        self.print(
            f"model      {model.n_parameters:,} parameters: {shape.n_layer} layers, {shape.n_head} heads, "
            f"{shape.n_embd} wide, {shape.n_positions} positions; on {model.device}"
        )
        self.print(
            f"training   {train.steps:,} steps of {per_step:,} tokens, {passes:{digits}} passes over the data; "
            f"seed {self.config.seed}"
        )
        if (notice := precision_notice(self.config.precision, model.device)) is not None:
            self.print(f"precision  {notice}")
        self.print(
            f"machine    {self._ceiling / 1e9:,.0f} GFLOP/s in a {on_gpu.get('precision', 'float32')} matrix product"
        )
        self.print(f"run folder {run.folder.path}")
        if run.trainer.step:
            done = run.trainer.step >= train.steps
            more = f", its last; further: --train.steps {2 * train.steps}" if done else ""
            self.print(f"resumed    after step {run.trainer.step:,}{more}")

    def _prepare_sampling(self, run) -> None:
        prompt = self.config.train.sample_prompt
        if prompt is None:  # the first words of the validation text
            first, _ = next(evaluation_batches(run.data.val, 1, min(8, len(run.data.val) - 1)))
            self._prompt_ids = first[0]
            if run.tokenizer.eos_token_id in self._prompt_ids:
                self._prompt_ids = self._prompt_ids[:1]
        else:
            try:
                self._prompt_ids = run.tokenizer.encode(prompt)
            except ValueError as error:
                raise UsageError(f"train.sample_prompt {prompt!r} can't be encoded: {error}") from error
            if not len(self._prompt_ids):
                raise UsageError("train.sample_prompt is empty; give some text, or leave it out")
        self.tokenizer = run.tokenizer

    # -- callbacks ----------------------------------------------------------------------------------------------------

    def on_start(self, trainer) -> None:
        self._first_step: int | None = None
        evaluated = [row["val_loss"] for row in trainer.history if "val_loss" in row]
        self._val_loss = evaluated[-1] if evaluated else None
        if trainer.step < trainer.config.steps:
            self._update("first step (kernels are compiled once on a machine, which takes a while) ...")

    def on_step(self, trainer, row: dict) -> None:
        if self._first_step is None:  # it waited for compilers, so time is counted from its end
            self._started, self._first_step = time.perf_counter(), trainer.step
        speed = row["tokens_per_second"]
        self._rate = speed if trainer.step <= self._first_step + 1 else 0.9 * self._rate + 0.1 * speed
        evaluated = "val_loss" in row
        if evaluated:
            self._val_loss = row["val_loss"]
        if evaluated or trainer.step == trainer.config.steps or self._is_time(_REFRESH_SECONDS, _PLAIN_SECONDS):
            line = self._line(trainer, row)
            self._update(line)
            if evaluated and self.live:
                self.print(line)
        interval = trainer.config.sample_interval
        due = evaluated if interval is None else interval and trainer.step % interval == 0
        if due and trainer.step < trainer.config.steps:
            with trainer.averaged_weights():
                self.show_sample(trainer, self.tokenizer)

    def on_notice(self, trainer, message: str) -> None:
        self.print(f"notice: {message}")

    def on_end(self, trainer) -> None:
        self._stop()

    # -- what is shown ------------------------------------------------------------------------------------------------

    def show_sample(self, trainer, tokenizer, tokens: int | None = None) -> None:
        """Some text by the model as it is now; the same seed each time, so that samples can be compared."""
        ids = trainer.model.generate(
            self._prompt_ids[None],
            tokens or trainer.config.sample_tokens,
            do_sample=True,
            temperature=0.7,
            top_p=0.9,
            seed=self.config.seed,
        )
        text = tokenizer.decode(np.asarray(ids[0]), skip_special_tokens=True)
        self.print(f"--- sample after step {trainer.step:,} " + "-" * 40)
        self.print(text.rstrip())
        self.print("-" * 60)

    def show_result(self, trainer) -> None:
        """The last line but the advice: how well it went."""
        if not trainer.history:
            return
        last = trainer.history[-1]
        best = f", best val loss {trainer.best_val_loss:.4f} at step {trainer.best_step:,}" if trainer.best_step else ""
        self.print(f"{trainer.outcome} after step {last['step']:,}: loss {last['loss']:.4f}{best}")

    def _line(self, trainer, row: dict) -> str:
        steps = trainer.config.steps
        done = trainer.step - self._first_step
        left = (time.perf_counter() - self._started) / done * (steps - trainer.step) if done else 0.0
        parts = [
            f"step {trainer.step:,}/{steps:,}",
            f"loss {row['loss']:.4f}",
            "val -" if self._val_loss is None else f"val {self._val_loss:.4f}",
            f"lr {row['lr']:.2e}",
            "norm - (step skipped)" if row["grad_norm"] is None else f"norm {row['grad_norm']:.2f}",
            f"{self._rate:,.0f} tok/s",
            f"{100 * self._rate * self._flops / self._ceiling:.0f}% of matrix rate",
            *([f"{row['memory_gb']:.1f} GB"] if "memory_gb" in row else []),
            f"ETA {int(left) // 3600}:{int(left) // 60 % 60:02}:{int(left) % 60:02}" if done else "ETA -",
        ]
        return "  ".join(parts)

    def _is_time(self, live: float, plain: float) -> bool:
        now = time.perf_counter()
        if now - self._shown < (live if self.live else plain):
            return False
        self._shown = now
        return True

    def _update(self, text: str) -> None:
        if self.live:
            from rich.text import Text

            self.live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
        else:
            self.print(text)

    def _stop(self) -> None:
        if self.live and self.live.is_started:
            self.live.update("", refresh=True)
            self.live.stop()
