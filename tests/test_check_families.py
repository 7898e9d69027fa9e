"""check_model on every family: a healthy model passes what is asked of its kind, and faults of that kind are found."""

from __future__ import annotations

import pytest

from minilm import models, ops
from minilm.backend import Generator
from minilm.cli.main import main
from minilm.evaluation import check_model

BERT = {
    "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 40,
}  # fmt: skip
LLAMA = {**BERT, "num_key_value_heads": 1}
BART = {
    "vocab_size": 50, "d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 40,
    "pad_token_id": 1, "decoder_start_token_id": 2, "forced_eos_token_id": None,
}  # fmt: skip
T5 = {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
RECURRENT = {"vocab_size": 50, "hidden_size": 16, "num_layers": 2}

WRITES = ["no position sees the future", "cached generation equals uncached"]
TRAINS = [
    "gradients match a float64 computation", "gradients match finite differences",
    "accumulated small batches equal one big batch",
]  # fmt: skip
LEFT, RIGHT = "padding on the left changes nothing", "padding on the right changes nothing"
SOURCE, ALONE = "padding of the text that is read changes nothing", "rows of a batch do not mix"
LOSS = "the loss is the mean over the targets"
DECODER = [*WRITES, LEFT, RIGHT, ALONE, LOSS, *TRAINS]
BOTH = [*WRITES, SOURCE, ALONE, LOSS, *TRAINS]
ENCODER = [RIGHT, ALONE, *TRAINS]

CASES = {
    "Llama": (models.Llama, models.LlamaConfig, LLAMA, DECODER),
    "Mistral": (models.Mistral, models.MistralConfig, {**LLAMA, "sliding_window": 4}, DECODER),
    "Qwen2": (models.Qwen2, models.Qwen2Config, LLAMA, DECODER),
    "LSTM": (models.RecurrentLM, models.RecurrentConfig, {**RECURRENT, "cell": "lstm"}, DECODER),
    "GRU": (models.RecurrentLM, models.RecurrentConfig, {**RECURRENT, "cell": "gru"}, DECODER),
    "BART": (models.BartForConditionalGeneration, models.BartConfig, BART, BOTH),
    "Marian": (models.MarianMTModel, models.MarianConfig, BART, BOTH),
    "T5": (models.T5ForConditionalGeneration, models.T5Config, T5, BOTH),
    "GRU to GRU": (models.RecurrentSeq2Seq, models.RecurrentConfig, RECURRENT, [n for n in BOTH if n != WRITES[1]]),
    **{
        name: (getattr(models, name), models.BertConfig, BERT, ENCODER)
        for name in (
            "Bert", "BertForMaskedLM", "BertForPreTraining", "BertForSequenceClassification",
            "BertForTokenClassification", "BertForQuestionAnswering",
        )
    },
}  # fmt: skip


def model_of(name: str, kind=None):
    own, config, settings, _ = CASES[name]
    model = (kind or own)(config(**settings), Generator(0))
    stream = Generator(1)
    for path, parameter in model.named_parameters():  # as after some training
        if "norm" not in path.lower():
            parameter.data = stream.normal(parameter.shape, std=0.2)
    return model.eval()


def failed(model) -> set[str]:
    return {result.name for result in check_model(model, length=12) if not result.ok}


@pytest.mark.parametrize("name", CASES)
def test_a_healthy_model_passes(name):
    results = check_model(model_of(name), length=12)
    assert [result.name for result in results] == CASES[name][3]
    assert all(result.ok for result in results), "\n".join(map(str, results))


def test_an_encoder_that_reads_its_padding():
    class Blind(models.Bert):
        def forward(self, input_ids, attention_mask=None, *rest, **given):
            return super().forward(input_ids, None, *rest, **given)

    assert failed(model_of("Bert", Blind)) == {RIGHT}


def test_a_decoder_that_looks_at_the_padding_of_what_was_read():
    class Blind(models.T5ForConditionalGeneration):
        def forward(self, input_ids=None, attention_mask=None, **given):
            return super().forward(input_ids, None, **given)

    assert failed(model_of("T5", Blind)) == {SOURCE}


def test_texts_that_are_read_by_the_wrong_row():
    class Mixing(models.BartForConditionalGeneration):
        def encode(self, *args, **given):
            out = super().encode(*args, **given)
            x = out.last_hidden_state
            out.last_hidden_state = x + ops.mean(x, axis=0, keepdims=True)
            return out

    assert ALONE in failed(model_of("BART", Mixing))


def test_a_head_that_loses_half_its_gradient():
    class Halved(models.BertForPreTraining):
        def forward(self, *args, **given):
            out = super().forward(*args, **given)
            half = out.seq_relationship_logits
            out.seq_relationship_logits = (half + half.detach()) / 2
            return out

    assert failed(model_of("BertForPreTraining", Halved)) == {TRAINS[1]}


@pytest.mark.parametrize("name", ["BertForMaskedLM", "T5"])
def test_the_command_checks_a_folder_without_a_tokenizer(name, tmp_path, capsys):
    model_of(name).save_pretrained(tmp_path)
    assert main(["check", str(tmp_path), "--length", "8"]) == 0
    out = capsys.readouterr().out
    assert f"{len(CASES[name][3])} of {len(CASES[name][3])} properties hold" in out
