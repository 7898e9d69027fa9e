"""What a run is told: types, nearest names, files, presets; and the folder that it is told to write to."""

import json
import sys

import pytest

from minilm.training import (
    PRESETS,
    Callback,
    Config,
    ConfigError,
    Run,
    RunFolder,
    RunFolderError,
    TrainConfig,
    load_config_file,
    merge,
    preset,
)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_sound_and_survive_json(name):
    config = preset(name).check()
    assert config.preset == name
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_cpu_preset_is_nanogpts():
    config = preset("shakespeare-char-cpu")
    model, optim, train = config.model, config.optim, config.train
    assert (model.n_layer, model.n_head, model.n_embd, model.dropout) == (4, 4, 128, 0.0)
    assert (train.context, train.batch_size, train.steps, train.grad_clip) == (64, 12, 2000, 1.0)
    assert (optim.lr, optim.min_lr, optim.warmup_steps, optim.beta1, optim.beta2) == (1e-3, 1e-4, 100, 0.9, 0.99)
    assert (optim.weight_decay, optim.schedule, config.tokenizer) == (0.1, "cosine", "char")
    schedule = config.make_schedule()
    assert schedule(100) == 1.0
    assert schedule(2000) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": {"step": 5}}, r"no setting 'train.step'; did you mean 'train.steps'"),
        ({"leanring_rate": 5}, r"no setting 'leanring_rate'"),
        ({"steps": 5}, r"no setting 'steps'; did you mean 'train.steps'"),
        ({"train": {"steps": "many"}}, r"'train.steps' is a whole number, and 'many' was given"),
        ({"train": {"steps": 2.5}}, r"'train.steps' is a whole number"),
        ({"train": {"steps": True}}, r"'train.steps' is a whole number"),
        ({"optim": {"lr": "fast"}}, r"'optim.lr' is a number"),
        ({"optim": {"decay_embeddings": 1}}, r"'optim.decay_embeddings' is true or false"),
        ({"train": 7}, r"'train' is a section"),
        ({"data": [1, 2]}, r"'data' is a list of texts"),
        ({"train": {"steps": 0}}, r"train.steps is 0; expected at least 1"),
        ({"train": {"ema_decay": 1.5}}, r"train.ema_decay is 1.5"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        merge(Config(), settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": {"context": 512}}, r"train.context is 512, and the model has 256 positions.*n_positions to 512"),
        ({"model": {"n_embd": 10}}, r"n_embd \(10\) is no multiple of n_head \(4\)"),
        ({"model": {"dropout": 1.0}}, r"model.dropout is 1.0"),
        ({"optim": {"min_lr": 1.0}}, r"optim.min_lr is 1.0; expected 0 to optim.lr"),
        ({"optim": {"lr": 0.0}}, r"optim.lr is 0.0"),
        ({"optim": {"beta2": 1.0}}, r"optim.beta2 is 1.0"),
        ({"optim": {"schedule": "cosin"}}, r"optim.schedule 'cosin' does not fit.*cosine"),
        ({"train": {"steps": 50}}, r"longer than its warm-up: raise train.steps, or lower optim.warmup_steps"),
        ({"device": "gpu"}, r"device is 'gpu'; expected auto, cpu or cuda"),
        ({"seed": -1}, r"seed is -1"),
        ({"val_fraction": 1.0}, r"val_fraction is 1.0"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        merge(Config(), settings).check()


def test_unknown_presets_get_the_nearest_name():
    with pytest.raises(ConfigError, match=r"no preset 'shakespear-char'; did you mean 'shakespeare-char'"):
        preset("shakespear-char")


def test_files_of_settings(tmp_path):
    (tmp_path / "a.toml").write_text('preset = "tiny"\n[train]\nsteps = 7\n[optim]\nlr = 1\n')
    config = merge(Config(), load_config_file(tmp_path / "a.toml"))
    assert (config.train.steps, config.optim.lr, config.preset) == (7, 1.0, "tiny")
    (tmp_path / "a.json").write_text('{"train": {"eval_batches": null}, "data": "a.txt"}')
    assert merge(Config(), load_config_file(tmp_path / "a.json")).data == ("a.txt",)
    pytest.importorskip("yaml")
    (tmp_path / "a.yaml").write_text("train: {steps: 7}\noptim:\n  lr: 1e-3\n")  # which YAML takes for text
    assert merge(Config(), load_config_file(tmp_path / "a.yaml")).optim.lr == 1e-3
    (tmp_path / "empty.yml").write_text("")
    assert load_config_file(tmp_path / "empty.yml") == {}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "train = ", "can't be read as TOML"),
        ("a.json", "{", "can't be read as JSON"),
        ("a.json", "[1]", "holds list"),
        ("a.ini", "", "is no configuration file"),
    ],
)
def test_files_that_are_no_settings(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config_file(tmp_path / name)
    with pytest.raises(ConfigError, match="no configuration file at"):
        load_config_file(tmp_path / "none.toml")


def test_yaml_without_its_library_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "a.yaml").write_text("train: {steps: 7}")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ImportError, match=r"minilm\[yaml\]"):
        load_config_file(tmp_path / "a.yaml")


# -- the folder -------------------------------------------------------------------------------------------------------


def _config(tmp_path, **train):
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question " * 100)
    train = {"steps": 4, "eval_interval": 2, "sample_interval": 0, **train}
    return merge(preset("tiny"), {"data": str(tmp_path / "text.txt"), "train": train, "optim": {"warmup_steps": 1}})


def test_a_run_in_its_folder_and_what_can_change_on_the_way(tmp_path):
    config = _config(tmp_path)
    run = Run.start(config, tmp_path / "run")
    assert run.fit() == "finished"
    assert RunFolder(tmp_path / "run").read_config() == config
    (tmp_path / "text.txt").unlink()  # the run has made its own of it

    with pytest.raises(RunFolderError, match=r"holds another run.*--output-dir.*--resume auto"):
        Run.start(config, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"seed is 5, and the run .* was started with 1337"):
        Run.resume(tmp_path / "run", merge(config, {"seed": 5}))
    with pytest.raises(ConfigError, match=r"model.n_layer is 3, and the run .* was started with"):
        Run.resume(tmp_path / "run", merge(config, {"model": {"n_layer": 3}}))

    longer = merge(config, {"train": {"steps": 6}, "optim": {"lr": 1e-2, "weight_decay": 0.5}})
    run = Run.resume(tmp_path / "run", longer)
    assert run.trainer.step == 4
    groups = {group["name"]: group for group in run.trainer.optimizer.param_groups}
    assert (groups["decay"]["initial_lr"], groups["decay"]["weight_decay"]) == (1e-2, 0.5)
    assert groups["no_decay"]["weight_decay"] == 0
    assert run.fit() == "finished"
    assert run.trainer.history[-1]["step"] == 6
    assert run.trainer.history[4]["lr"] == pytest.approx(1e-2 * longer.make_schedule()(4))
    assert RunFolder(tmp_path / "run").read_config() == longer


def test_streams_are_apart_and_the_seed_decides(tmp_path):
    config = _config(tmp_path)
    wide = merge(config, {"model": {"n_layer": 1, "dropout": 0.1}})
    runs = [Run.start(c, tmp_path / str(i)) for i, c in enumerate([config, wide, merge(config, {"seed": 1})])]
    first, other, reseeded = ([b.tolist() for b in run.trainer.batches.next_batch()] for run in runs)
    assert first == other  # another model sees the same data
    assert first != reseeded
    assert set(runs[0].trainer.streams) == {"init", "data", "dropout"}


def test_two_processes_can_not_have_one_folder(tmp_path):
    pytest.importorskip("fcntl")
    run = Run.start(_config(tmp_path), tmp_path / "run")
    with pytest.raises(RunFolderError, match="another process is training"):
        Run.resume(tmp_path / "run")
    run.folder.unlock()
    assert Run.resume(tmp_path / "run").trainer.step == 0


def test_a_run_holds_its_folder_for_as_long_as_it_trains(tmp_path):
    pytest.importorskip("fcntl")

    class Looks(Callback):
        found = None

        def on_step(self, trainer, row):
            with pytest.raises(RunFolderError, match="another process is training"):
                Run.resume(tmp_path / "run")
            self.found = True

    run = Run.start(_config(tmp_path), tmp_path / "run", callbacks=[looks := Looks()])
    run.fit()
    assert looks.found
    again = Run.resume(tmp_path / "run")  # while `run` is there
    with pytest.raises(RunFolderError, match="another process is training"):
        run.fit()
    assert again.fit() == run.fit() == "finished"


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(RunFolderError, match=r"holds 'letter.txt' and is no run"):
        Run.start(_config(tmp_path), tmp_path / "mine")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="is a file"):
        Run.start(_config(tmp_path), tmp_path / "file")
    hidden = tmp_path / "hidden"
    (hidden / ".git").mkdir(parents=True)
    with pytest.raises(FileNotFoundError):
        Run.start(merge(_config(tmp_path), {"data": "nowhere"}), hidden)
    assert [path.name for path in hidden.iterdir()] == [".git"]


def test_an_unfinished_run_says_what_to_do(tmp_path):
    with pytest.raises(RunFolderError, match="there is no run folder"):
        RunFolder(tmp_path / "none").weights_folder()
    with pytest.raises(RunFolderError, match="is no run folder"):
        RunFolder(tmp_path).weights_folder()
    run = Run.start(_config(tmp_path), tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"unfinished; go on with: minilm train --resume auto"):
        run.folder.weights_folder()
    run.trainer.fit()
    with pytest.raises(RunFolderError, match=r"newest checkpoint, .*step-4"):
        run.folder.weights_folder()
    run.publish()
    assert run.folder.weights_folder() == tmp_path / "run"
    (tmp_path / "run" / "training.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"training\.json is damaged"):
        run.folder.read_config()


def test_impossible_train_settings_are_refused_at_once():
    with pytest.raises(ConfigError, match=r"train\.batch_size is 0"):
        TrainConfig(batch_size=0)


def test_settings_in_a_dict_are_refused():
    with pytest.raises(ConfigError, match=r"train\.steps is \{'steps': 3\}; expected a number; .* \*\*settings"):
        TrainConfig({"steps": 3})
    with pytest.raises(ConfigError, match=r"train\.batch_size is '8'; expected a number$"):
        TrainConfig(batch_size="8")
