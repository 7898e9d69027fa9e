"""`minilm info PATH` on each family: what it says of a saved model is so."""

from __future__ import annotations

import minilm_kernels
import pytest

from minilm import models
from minilm.backend import Generator
from minilm.checkpoint import CheckpointStore
from minilm.cli.main import main
from minilm.tokenization import Tokenizer

BERT = {
    "vocab_size": 260, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 40,
}  # fmt: skip
BART = {
    "vocab_size": 260, "d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 40,
    "pad_token_id": 1, "decoder_start_token_id": 2,
}  # fmt: skip
T5 = {"vocab_size": 260, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 1, "num_decoder_layers": 2, "num_heads": 2}
RECURRENT = {"vocab_size": 260, "hidden_size": 16, "num_layers": 2}
HEADS = ("Bert", "BertForMaskedLM", "BertForPreTraining", "BertForSequenceClassification", "BertForTokenClassification")
GPT2 = {"vocab_size": 260, "n_positions": 40, "n_embd": 16, "n_layer": 2, "n_head": 2}
MODELS = {
    "GPT2": (models.GPT2Config, GPT2),
    "Llama": (models.LlamaConfig, {**BERT, "num_key_value_heads": 1}),
    "Qwen2": (models.Qwen2Config, BERT | {"num_key_value_heads": 1}),
    **dict.fromkeys((*HEADS, "BertForQuestionAnswering"), (models.BertConfig, BERT)),
    "BartForConditionalGeneration": (models.BartConfig, BART),
    "MarianMTModel": (models.MarianConfig, BART),
    "T5ForConditionalGeneration": (models.T5Config, T5),
    "RecurrentLM": (models.RecurrentConfig, {**RECURRENT, "cell": "lstm"}),
    "RecurrentSeq2Seq": (models.RecurrentConfig, {**RECURRENT, "cell": "gru"}),
}

LAYER = 4 * 16 * 16 + 2 * 16 * 24  # of BERT, and of a BART's encoder
CROSS = 2 * 16 * 16  # keys or values, and the rest, of a decoder's look at the encoder
TABLE = 260 * 16
ONE = "a token"


def cost(numbers: int, keys: int | None = None) -> str:
    rest = " forward" if keys is None else f" forward, and {keys / 1024:,.1f} KiB of keys and values"
    return f"{2 * numbers / 1e3:,.1f} kFLOP{rest}"


def sides(read: int, made: int, keys: int) -> dict:
    kept = f"and {keys / 1024:,.1f} KiB of keys and values"
    return {
        "a token read": f"{2 * read / 1e3:,.1f} kFLOP, {kept}",
        "a token made": f"{2 * made / 1e3:,.1f} kFLOP, {kept}",
    }


STILL = "the state stays as large as it is"
LLAMA_LAYER = 16 * (16 + 8 + 8 + 16) + 3 * 16 * 24
BART_SIDES = sides(LAYER + 2 * CROSS, 2 * (LAYER + CROSS) + TABLE, 2 * 4 * 2 * 16)
T5_LAYER = 4 * 16 * 8 + 2 * 16 * 24
LSTM = 2 * 8 * 16 * 16
SAID = {
    "GPT2": {ONE: cost(2 * 12 * 16 * 16 + TABLE, 2 * 4 * 2 * 16), "context": "40 tokens"},
    "Llama": {ONE: cost(2 * LLAMA_LAYER + TABLE, 2 * 4 * 2 * 8), "shape": "2 layers, 2 heads, 1 key heads, 16 wide"},
    "Qwen2": {ONE: cost(2 * LLAMA_LAYER + TABLE, 2 * 4 * 2 * 8)},
    "Bert": {ONE: cost(2 * LAYER + 16 * 16), "context": "40 tokens"},  # with the pooler
    "BertForMaskedLM": {ONE: cost(2 * LAYER + 16 * 16 + TABLE)},
    "BertForPreTraining": {ONE: cost(2 * LAYER + 2 * 16 * 16 + TABLE + 2 * 16)},
    "BertForSequenceClassification": {ONE: cost(2 * LAYER + 16 * 16 + 2 * 16)},
    "BertForTokenClassification": {ONE: cost(2 * LAYER + 2 * 16)},
    "BertForQuestionAnswering": {ONE: cost(2 * LAYER + 2 * 16)},
    "BartForConditionalGeneration": {**BART_SIDES, "shape": "1 encoder layers, 2 decoder layers, 2 heads, 16 wide"},
    "MarianMTModel": BART_SIDES,
    "T5ForConditionalGeneration": {
        **sides(T5_LAYER + 2 * 2 * 16 * 8, 2 * (T5_LAYER + 2 * 16 * 8) + TABLE, 2 * 4 * 2 * 8),
        "shape": "1 encoder layers, 2 decoder layers, 2 heads, 16 wide", "context": "of any length",
    },
    "RecurrentLM": {ONE: f"{2 * (LSTM + TABLE) / 1e3:,.1f} kFLOP forward; {STILL}", "context": "of any length"},
    "RecurrentSeq2Seq": {"a token made": f"{2 * (12 * 256 + 256 + 512 + TABLE) / 1e3:,.1f} kFLOP; {STILL}"},
}  # fmt: skip


def info(path, capsys) -> dict[str, str]:
    assert main(["info", str(path)]) == 0
    return {line[:14].rstrip(): line[15:] for line in capsys.readouterr().out.splitlines()}


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model(name, tmp_path, capsys):
    config, values = MODELS[name]
    model = getattr(models, name)(config(**values), Generator(0))
    model.save_pretrained(tmp_path)
    assert info(tmp_path, capsys)["tokenizer"].startswith(f"none: no tokenizer in {tmp_path}")
    Tokenizer.byte().save(tmp_path)
    said = info(tmp_path, capsys)
    assert said["model"] == f"{name} ({model.architecture}), {tmp_path}"
    assert said["parameters"] == f"{model.n_parameters:,}"
    size = sum(tensor.data.nbytes for tensor in (*model.parameters(), *model.buffers()))
    assert said["memory"] == f"{size / 1024:,.1f} KiB of float32"
    assert said["tokenizer"].startswith("Tokenizer(BPE, vocab_size=256")
    assert {key: said[key][: len(value)] for key, value in SAID[name].items()} == SAID[name]


def test_a_folder_without_a_model(tmp_path, capsys):
    assert main(["info", str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err


def test_a_run_and_its_checkpoint(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(minilm_kernels, "compile_ahead", lambda: None)  # a process that would outlive the test
    (tmp_path / "text.txt").write_text("to be, or not to be: that is the question. " * 100)
    sizes = ["--model.n-layer", "1", "--model.n-embd", "16", "--model.n-head", "2", "--model.n-positions", "16"]
    train = ["--train.steps", "2", "--train.context", "16", "--train.batch-size", "2", "--optim.warmup-steps", "0"]
    train += ["--tokenizer", "byte"]
    run = tmp_path / "run"
    assert main(["train", "--data", str(tmp_path / "text.txt"), "--output-dir", str(run), *sizes, *train]) == 0
    capsys.readouterr()
    newest = CheckpointStore(run / "checkpoints").steps()[-1]
    whole, part = info(run, capsys), info(run / "checkpoints" / f"step-{newest}", capsys)
    assert whole["context"] == "16 tokens"
    assert whole["tokenizer"].startswith("Tokenizer(BPE")
    del whole["model"], part["model"]
    assert whole == part
