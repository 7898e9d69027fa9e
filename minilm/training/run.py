"""From a configuration to a trainer, in a run folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from minilm import backend, nn
from minilm.autograd import check_precision
from minilm.data import (
    BatchLoader,
    Corpus,
    DataError,
    Prefetcher,
    PreparedData,
    evaluation_batches,
    prepare,
    stdlib_corpus,
)
from minilm.models import GPT2, GPT2Config
from minilm.optim import AdamW, decay_groups
from minilm.tokenization import Tokenizer, TokenizerRecipe

from .callbacks import Callback
from .config import Config, ConfigError
from .metrics import draw_loss
from .presets import needs_data
from .run_folder import RunFolder
from .trainer import Trainer

__all__ = ["Run"]

_STREAMS = ("init", "data", "dropout")
# What a run can't change on the way: the batches or the weights of its checkpoints would mean something else.
_FIXED = ("preset", "data", "val_data", "val_fraction", "tokenizer", "vocab_size", "seed", "model")


class Run:
    """A training run in its folder: data, tokenizer, model, and the `trainer` that goes through with it.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from minilm.training import preset, merge
    >>> folder = tempfile.TemporaryDirectory()
    >>> _ = Path(folder.name, "text.txt").write_text("to be or not to be, " * 200)
    >>> settings = {"data": Path(folder.name, "text.txt").as_posix(), "train": {"steps": 20}}
    >>> run = Run.start(merge(preset("tiny"), settings), Path(folder.name, "run"))
    >>> run.fit()
    'finished'
    >>> sorted(path.name for path in Path(folder.name, "run").glob("*.json"))
    ['config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json', 'training.json']
    >>> folder.cleanup()
    """

    def __init__(self, folder: RunFolder, config: Config, callbacks: Iterable[Callback], progress):
        self.folder, self.config = folder, config
        device = _device(config)
        self.data = _prepared(config, folder, progress)
        self.tokenizer = Tokenizer.from_file(self.data.tokenizer_path)
        folder.publish_tokenizer(self.tokenizer)
        # Three streams, so that another model shape does not change the order of the data, and so on.
        root = backend.Generator(config.seed)
        streams = {name: backend.Generator(root.seed64()) for name in _STREAMS}
        train = config.train
        batches = BatchLoader(self.data.train, train.batch_size, train.context, seed=streams["data"].seed64() >> 1)
        evaluation_batches(self.data.val, 1, train.context)  # too short a text to validate on is an error now
        if device == "cuda":
            batches = Prefetcher(batches, device)
        self.model = GPT2(self._model_config(), streams["init"]).to(device)
        nn.set_recompute(self.model, config.recompute)
        # Layers draw dropout from the default stream.
        backend.default_generator.set_state(streams["dropout"].state())
        streams["dropout"] = backend.default_generator
        optim = config.optim
        groups = decay_groups(
            self.model.named_parameters(), optim.weight_decay, decay_embeddings=optim.decay_embeddings
        )
        optimizer = AdamW(groups, lr=optim.lr, betas=(optim.beta1, optim.beta2), eps=optim.eps)
        self.trainer = Trainer(
            self.model,
            optimizer,
            config.make_schedule(),
            batches,
            train,
            val_tokens=self.data.val,
            precision=config.precision,
            folder=folder.path,
            streams=streams,
            callbacks=callbacks,
        )

    @classmethod
    def start(
        cls,
        config: Config,
        folder: str | os.PathLike,
        *,
        callbacks: Iterable[Callback] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> Run:
        """A new run in a new or empty folder. If it can't begin (no such text, too short a text), no folder is left.

        `progress(done, total)` is called with the characters of the corpus that were made tokens.
        Raises ConfigError, DataError, FileNotFoundError, RunFolderError.
        """
        _check(config)
        place = RunFolder(folder)
        place.create(config)
        try:
            return cls(place, config, callbacks, progress)
        except (ConfigError, DataError, OSError, ValueError, RuntimeError):
            place.discard()
            raise

    @classmethod
    def resume(
        cls,
        folder: str | os.PathLike,
        config: Config | None = None,
        *,
        checkpoint: str | os.PathLike | None = None,
        callbacks: Iterable[Callback] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> Run:
        """The run in `folder`, at its newest whole checkpoint (or at `checkpoint`), or at its start if it has none.

        `config` may differ from the run's own in how training goes on (steps, learning rate, evaluation ...); what it
        can't change is a ConfigError. Raises CheckpointError where every checkpoint is damaged.
        """
        place = RunFolder(folder)
        saved = place.read_config()
        config = saved if config is None else config
        for name, now, then in _differences(config.to_dict(), saved.to_dict()):
            if name.split(".")[0] in _FIXED:
                raise ConfigError(
                    f"{name} is {now!r}, and the run in {folder} was started with {then!r}; this can't change on the "
                    "way: leave it out, or start a new run"
                )
        _check(config)
        place.lock()
        run = cls(place, config, callbacks, progress)
        asked = [{k: v for k, v in group.items() if k != "params"} for group in run.trainer.optimizer.param_groups]
        run.trainer.resume(checkpoint)
        if config != saved:
            for group, settings in zip(run.trainer.optimizer.param_groups, asked):
                group.update(settings, initial_lr=settings["lr"])
            place.write_config(config)
        return run

    def fit(self) -> str:
        """Trains to the end or to an interruption, and publishes; returns the trainer's outcome.

        The folder is others' afterwards, also while this object lives.
        """
        self.folder.lock()
        try:
            outcome = self.trainer.fit()
            self.publish()
        finally:
            self.folder.unlock()
        return outcome

    def publish(self) -> None:
        """Writes the best weights so far, and the losses as a picture, where others look for them."""
        with self.trainer.best_weights():
            self.model.save_pretrained(self.folder.path)
        try:
            draw_loss(self.trainer.history, self.folder.loss_image)
        except ImportError as error:
            for callback in self.trainer.callbacks:
                callback.on_notice(self.trainer, str(error))

    def _model_config(self) -> GPT2Config:
        shape, eos = self.config.model, self.tokenizer.eos_token_id
        return GPT2Config(
            vocab_size=self.tokenizer.vocab_size,
            n_positions=shape.n_positions,
            n_embd=shape.n_embd,
            n_layer=shape.n_layer,
            n_head=shape.n_head,
            resid_pdrop=shape.dropout,
            embd_pdrop=shape.dropout,
            attn_pdrop=shape.dropout,
            tie_word_embeddings=shape.tie_word_embeddings,
            bos_token_id=eos,
            eos_token_id=eos,
        )


def _differences(now: dict, then: dict, prefix: str = "") -> Iterator[tuple]:
    """(name, value now, value then) of the settings that differ, sections gone through."""
    for name, value in now.items():
        if isinstance(value, dict):
            yield from _differences(value, then[name], f"{prefix}{name}.")
        elif value != then[name]:
            yield prefix + name, value, then[name]


def _device(config: Config) -> str:
    return backend.default_device() if config.device == "auto" else config.device


def _check(config: Config) -> None:
    config.check()
    if not config.data and needs_data(config.preset):
        raise ConfigError(
            f"the preset {config.preset!r} is for a text of yours: name it with --data input.txt. Shakespeare's is at "
            "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
        )
    TokenizerRecipe(config.tokenizer, config.vocab_size)  # a kind, file or size that can't be is an error now
    if config.device == "cuda" and (problem := backend.cuda_problem()) is not None:
        raise ConfigError(f"device 'cuda' can't be used here: {problem}")
    try:
        check_precision(config.precision, _device(config))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _prepared(config: Config, folder: RunFolder, progress) -> PreparedData:
    """The run's token files: made once, and from then on not made again, whatever becomes of the corpus."""
    if len(config.data) == 1 and PreparedData.is_prepared(config.data[0]):
        return PreparedData.open(config.data[0])
    if PreparedData.is_prepared(folder.data):
        return PreparedData.open(folder.data)
    corpus = Corpus(config.data) if config.data else stdlib_corpus()
    val_corpus = Corpus(config.val_data) if config.val_data else None
    recipe = TokenizerRecipe(config.tokenizer, config.vocab_size)
    return prepare(
        corpus, recipe, folder.data, val_fraction=config.val_fraction, val_corpus=val_corpus, progress=progress
    )
