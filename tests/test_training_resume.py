"""Runs that stop and go on, bit for bit: signals, damaged and other runs' checkpoints, and which ones are kept."""

import signal

import numpy as np
import pytest
from tiny_run import Notices, StopAt, losses, make

from minilm.checkpoint import CheckpointError
from minilm.optim import SGD
from minilm.training import Callback, MetricsFile


@pytest.mark.parametrize("settings", [{"dropout": 0.3}, {"ema_decay": 0.9, "accumulation": 2}, {"schedule": "plateau"}])
@pytest.mark.parametrize("stop", [1, 4, 7])
def test_a_run_interrupted_and_gone_on_with_is_the_run_never_stopped(tmp_path, settings, stop):
    whole = make(tmp_path / "whole", **settings) if (tmp_path / "whole").mkdir() is None else None
    assert whole.fit() == "finished"
    (tmp_path / "parts").mkdir()
    first = make(tmp_path / "parts", callbacks=[StopAt(stop)], **settings)
    assert first.fit() == "interrupted"
    assert first.signal == signal.SIGINT
    second = make(tmp_path / "parts", **settings)
    assert second.resume() == tmp_path / "parts" / "checkpoints" / f"step-{stop}"
    assert second.fit() == "finished"
    assert losses(second) == losses(whole)
    for name, array in whole.model.state_dict().items():
        assert np.array_equal(array, second.model.state_dict()[name])
    ours, theirs = (MetricsFile(tmp_path / name / "metrics.jsonl").read() for name in ("parts", "whole"))
    for row in ours + theirs:
        del row["tokens_per_second"]
    assert ours == theirs


def test_sigterm_is_as_good_as_ctrl_c_and_handlers_come_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    trainer = make(tmp_path, callbacks=[StopAt(5, signal.SIGTERM)])
    assert trainer.fit() == "interrupted"
    assert (trainer.signal, trainer.step) == (signal.SIGTERM, 5)
    assert trainer.store.steps()[-1] == 5
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_the_second_ctrl_c_ends_it_at_once(tmp_path):
    class Twice(StopAt):
        def on_step(self, trainer, row):
            super().on_step(trainer, row)
            super().on_step(trainer, row)

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, callbacks=[Twice(5)]).fit()
    assert make(tmp_path).resume().name == "step-4"


def test_a_damaged_checkpoint_is_passed_over_and_later_rows_dropped(tmp_path):
    whole = make(tmp_path)
    whole.fit()
    weights = tmp_path / "checkpoints" / "step-12" / "optimizer.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 13, "lo')  # as a kill in the middle of a row leaves it
    notices = Notices()
    again = make(tmp_path, callbacks=[notices])
    assert again.resume().name == "step-8"
    assert "step-12" in notices.messages[0]
    assert "optimizer.safetensors" in notices.messages[0]
    assert (tmp_path / "checkpoints" / "step-12.set-aside").is_dir()
    assert [row["step"] for row in MetricsFile(tmp_path / "metrics.jsonl").read()] == list(range(1, 9))
    again.fit()
    assert losses(again) == losses(whole)


def test_nothing_whole_to_go_on_from_is_an_error(tmp_path):
    make(tmp_path, steps=4).fit()
    (tmp_path / "checkpoints" / "step-4" / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoint .*step-4 .*state\.json"):
        make(tmp_path).resume()
    assert len(MetricsFile(tmp_path / "metrics.jsonl").read()) == 4


def test_going_on_from_an_earlier_checkpoint(tmp_path):
    whole = make(tmp_path)
    whole.fit()
    again = make(tmp_path)
    assert again.resume(tmp_path / "checkpoints" / "step-8").name == "step-8"
    again.fit()
    assert losses(again) == losses(whole)
    new = make(tmp_path / "new")
    assert new.resume() is None
    new.fit()
    assert losses(new) == losses(whole)


def test_another_run_in_the_folder_is_not_mixed_up_with(tmp_path):
    make(tmp_path).fit()
    before = sorted((tmp_path / "checkpoints").iterdir()), (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(FileExistsError, match="resume"):
        make(tmp_path, steps=3).fit()
    assert before == (sorted((tmp_path / "checkpoints").iterdir()), (tmp_path / "metrics.jsonl").read_bytes())


def test_a_checkpoint_of_another_setting_is_refused(tmp_path):
    make(tmp_path).fit()
    with pytest.raises(CheckpointError, match="ema_decay"):
        make(tmp_path, ema_decay=0.9).resume()
    with pytest.raises(ValueError, match="SGD"):
        make(tmp_path, optimizer=SGD).resume()


def test_rows_that_are_missing_are_told(tmp_path):
    make(tmp_path).fit()
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    notices = Notices()
    make(tmp_path, callbacks=[notices]).resume()
    assert "lacks rows" in notices.messages[0]


def test_the_best_and_the_last_are_kept(tmp_path):
    trainer = make(tmp_path, steps=12, eval_interval=2, checkpoint_interval=1, keep_last=2)
    given = iter([3.0, 1.0, 2.0, 2.5, 2.0, 1.5])
    trainer.evaluate = lambda: next(given)
    held = {}

    class Keep(Callback):
        def on_step(self, trainer, row):
            held[row["step"]] = trainer.model.transformer.wte.weight.numpy().copy()

    trainer.callbacks.append(Keep())
    trainer.fit()
    assert (trainer.best_step, trainer.best_val_loss) == (4, 1.0)
    assert trainer.store.steps() == [4, 11, 12]
    with trainer.best_weights():
        assert np.array_equal(trainer.model.transformer.wte.weight.numpy(), held[4])
    assert np.array_equal(trainer.model.transformer.wte.weight.numpy(), held[12])
    (trainer.store.path(4) / "manifest.json").unlink()
    notices = Notices()
    trainer.callbacks.append(notices)
    with trainer.best_weights():
        assert np.array_equal(trainer.model.transformer.wte.weight.numpy(), held[12])
    assert "step-4" in notices.messages[0]


def test_early_stopping_also_after_going_on(tmp_path):
    values = [3.0, 2.0, 2.1, 2.2, 2.3]

    def trainer(given, **more):
        out = make(tmp_path, steps=100, eval_interval=2, early_stopping=3, **more)
        out.evaluate = lambda: given.pop(0)
        return out

    first = trainer(values[:3], callbacks=[StopAt(6)])
    assert first.fit() == "interrupted"
    second = trainer(values[3:])
    second.resume()
    assert second.fit() == "stopped early"
    assert (second.step, second.best_step) == (10, 4)
    assert second.store.steps()[-1] == 10
    third = trainer([])
    third.resume()
    assert third.fit() == "stopped early"  # there is nothing left to do
    assert third.step == 10
