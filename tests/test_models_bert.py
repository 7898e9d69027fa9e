"""BERT and its heads: the same logits, losses and gradients as transformers', and what only ours promises."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_bert import CLASSES, IDS, TINY, arrays, tiny

import minilm
from minilm.models import (
    Bert,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
B, T = IDS.shape
STREAM = np.random.default_rng(1)
TYPES = (np.arange(T) > [[4], [2], [8]]).astype(np.int64)
MASKS = {
    "whole": None,
    "right": np.array([[1] * 9, [1] * 4 + [0] * 5, [1] * 7 + [0] * 2]),
    "left": np.array([[1] * 9, [0] * 4 + [1] * 5, [1] * 3 + [0] * 2 + [1] * 4]),
}
WORDS = np.where(STREAM.random((B, T)) < 0.4, STREAM.integers(0, 61, (B, T)), -100)
LABELS = {
    Bert: {},
    BertForMaskedLM: {"labels": WORDS},
    BertForPreTraining: {"labels": WORDS, "next_sentence_label": np.array([0, 1, 1])},
    BertForSequenceClassification: {"labels": np.array([1, 0, 1])},
    BertForTokenClassification: {"labels": np.where(WORDS < 0, -100, WORDS % 2)},
    BertForQuestionAnswering: {"start_positions": np.array([0, 8, 20]), "end_positions": np.array([[3], [9], [5]])},
}
CONFIGS = {
    "plain": {},
    "shape": {"num_attention_heads": 1, "type_vocab_size": 3, "num_hidden_layers": 1, "intermediate_size": 7},
    "switches": {"hidden_act": "relu", "layer_norm_eps": 1e-3, "pad_token_id": None, "tie_word_embeddings": False},
    "gelu_new": {"hidden_act": "gelu_new", "pad_token_id": 7},
}


@pytest.fixture
def peer_of(transformers, tmp_path, caplog):
    """Makes transformers' model from our files; loading must find each name, no other, and nothing to warn of."""

    def make(model):
        model.save_pretrained(tmp_path / "ours")
        kind = getattr(transformers, model.architecture)
        caplog.clear()
        peer, info = kind.from_pretrained(
            tmp_path / "ours", output_loading_info=True, attn_implementation="eager", dtype="auto"
        )
        assert not any(info.values()), info
        assert not [record.message for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
        return peer.eval()

    return make


def compare(model, peer, torch, given: dict, gradients: bool = True) -> None:
    """Outputs, hidden states, attentions, loss and its gradients are the peer's."""
    double = next(model.parameters()).dtype == np.float64
    tensors = {name: torch.from_numpy(value) for name, value in given.items()}
    seen = {"output_hidden_states": True, "output_attentions": True}
    ours, theirs = model(**given, **seen), peer(**tensors, **seen)
    found, expected = arrays(ours), arrays(theirs)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == (np.float64 if double else np.float32), name
        np.testing.assert_allclose(found[name], value, rtol=0, atol=5e-6 if double else 2e-5, err_msg=name)
    if not gradients:
        return
    if isinstance(model, Bert):  # it has no loss of its own
        ours.loss = (ours.last_hidden_state**3).mean() + ours.pooler_output.mean()
        theirs.loss = (theirs.last_hidden_state**3).mean() + theirs.pooler_output.mean()
    ours.loss.backward()
    theirs.loss.backward()
    peers = dict(peer.named_parameters())
    for name, parameter in model.named_parameters():
        grad = peers[name].grad
        expected = np.zeros(parameter.shape) if grad is None else grad.numpy()
        grad = np.zeros(parameter.shape) if parameter.grad is None else parameter.grad.data
        scale = max(abs(expected).max(), 1e-2)
        np.testing.assert_allclose(grad, expected, rtol=0, atol=(1e-10 if double else 1e-4) * scale, err_msg=name)


# Parity.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_outputs_losses_and_gradients_are_transformers(kind, changes, dtype, peer_of, torch):
    model = tiny(kind, **changes).to(dtype)
    given = {"input_ids": IDS, "attention_mask": MASKS["right"], "token_type_ids": TYPES, **LABELS[kind]}
    compare(model, peer_of(model), torch, given)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(
    "others", [{}, {"position_ids": np.arange(T)[None] + [[0], [2], [7]], "token_type_ids": TYPES}]
)
def test_masks_positions_and_defaults_are_transformers(mask, others, peer_of, torch):
    model = tiny(BertForPreTraining)
    given = {"input_ids": IDS, **others, **LABELS[BertForPreTraining]}
    if MASKS[mask] is not None:
        given["attention_mask"] = MASKS[mask]
    compare(model, peer_of(model), torch, given)


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ({"num_labels": 1}, np.array([0.5, -2, 3], np.float32)),
        ({"num_labels": 1}, np.array([[0.5], [-2], [3]], np.float32)),
        ({"num_labels": 3, "problem_type": "regression"}, STREAM.normal(size=(B, 3)).astype(np.float32)),
        ({"num_labels": 4}, np.array([3, 0, 2])),
        ({"id2label": {0: "bad", 1: "fair", 2: "good"}}, np.array([[2], [0], [1]])),
        ({"num_labels": 4}, (STREAM.random((B, 4)) < 0.5).astype(np.float32)),
        ({"num_labels": 1, "problem_type": "multi_label_classification"}, np.array([[1], [0], [1]], np.float32)),
    ],
    ids=["one number", "a column", "numbers", "classes", "named classes", "several of them", "yes or no"],
)  # fmt: skip
def test_a_sequence_classifiers_labels_mean_what_they_do_in_transformers(changes, labels, peer_of, torch):
    model = tiny(BertForSequenceClassification, **changes)
    compare(model, peer_of(model), torch, {"input_ids": IDS, "attention_mask": MASKS["right"], "labels": labels})


def test_labels_come_as_arrays_tensors_or_lists():
    model = tiny(BertForSequenceClassification)
    expected = model(IDS, labels=np.array([1, 0, 1])).loss.item()
    for convert in (np.ndarray.tolist, minilm.tensor, lambda a: a.astype(np.uint8)):
        assert model(convert(IDS), labels=convert(np.array([1, 0, 1]))).loss.item() == expected
    floats = model(IDS, labels=np.array([[0, 1], [1, 0], [1, 1]], bool)).loss.item()
    assert floats == model(IDS, labels=[[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]).loss.item() != expected


def test_training_follows_torch_for_fifty_steps(peer_of, torch):
    config = BertConfig(**TINY, **NO_DROPOUT)
    model = BertForPreTraining(config, minilm.backend.Generator(0))
    peer = peer_of(model).train()
    optimizer = minilm.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    other = torch.optim.AdamW(peer.parameters(), lr=3e-3, weight_decay=0.0)
    given = {"input_ids": IDS, "token_type_ids": TYPES, **LABELS[BertForPreTraining]}
    tensors = {name: torch.from_numpy(value) for name, value in given.items()}
    losses = []
    for _ in range(50):
        ours, theirs = model(**given).loss, peer(**tensors).loss
        losses.append((ours.item(), theirs.item()))
        for loss, stepper in ((ours, optimizer), (theirs, other)):
            loss.backward()
            stepper.step()
            stepper.zero_grad()
    found, expected = np.array(losses).T
    assert found[-1] < 0.3 * found[0]
    np.testing.assert_allclose(found, expected, rtol=2e-3)


# forward.


def test_weights_begin_as_berts():
    config = BertConfig(**{**TINY, "vocab_size": 500, "hidden_size": 96, "pad_token_id": 3})
    weights = BertForPreTraining(config, minilm.backend.Generator(0)).state_dict()
    for name, value in weights.items():
        if name.endswith("bias"):
            assert not value.any(), name
        elif name.endswith("LayerNorm.weight"):
            assert (value == 1).all(), name
        elif value.size > 1000:
            assert value.std() == pytest.approx(0.02, rel=0.1), name
    table = weights["bert.embeddings.word_embeddings.weight"]
    assert np.flatnonzero(~table.any(axis=1)).tolist() == [3]


def test_the_padding_token_learns_as_a_word_but_not_as_an_input():
    model = tiny(BertForMaskedLM, tie_word_embeddings=False)
    model(IDS, labels=WORDS).loss.backward()
    grad = model.bert.embeddings.word_embeddings.weight.grad.data
    assert not grad[0].any()
    assert grad[IDS[1, 1]].any()
    tied = tiny(BertForMaskedLM)
    tied(IDS, labels=WORDS).loss.backward()
    assert tied.bert.embeddings.word_embeddings.weight.grad.data[0].any()


def test_padding_changes_nothing():
    model = tiny(Bert)
    alone = model(IDS[1:2, :4])
    padded = model(IDS, attention_mask=MASKS["right"])
    np.testing.assert_allclose(padded.last_hidden_state.data[1:2, :4], alone.last_hidden_state.data, atol=2e-6)
    np.testing.assert_allclose(padded.pooler_output.data[1:2], alone.pooler_output.data, atol=2e-6)


def test_dropout_acts_while_training_and_only_then():
    model = tiny(BertForSequenceClassification, **{**NO_DROPOUT, "classifier_dropout": 0.5})
    assert model.dropout.p == 0.5
    assert tiny(BertForSequenceClassification, hidden_dropout_prob=0.3).dropout.p == 0.3
    for kind, changes in (
        (BertForTokenClassification, {**NO_DROPOUT, "classifier_dropout": 0.5}),
        (Bert, {"hidden_dropout_prob": 0.0}),
        (Bert, {"attention_probs_dropout_prob": 0.0}),
    ):
        model = tiny(kind, **changes)
        values = lambda model=model: next(iter(arrays(model(IDS)).values()))
        np.testing.assert_array_equal(values(), values())
        model.train()
        minilm.manual_seed(0)
        first = values()
        assert not np.array_equal(first, values())
        minilm.manual_seed(0)
        np.testing.assert_array_equal(first, values())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m(IDS[0]), ValueError, r"\(B, T\).*ids\[None\]"),
        (lambda m: m(np.zeros((2, 0), np.int64)), ValueError, "at least one token"),
        (lambda m: m(np.ones((1, 17), int)), ValueError, "17 tokens are more than .* max_position_embeddings, 16"),
        (lambda m: m(IDS + 61), IndexError, "outside"),
        (lambda m: m(IDS * 1.0), TypeError, "integer"),
        (lambda m: m(IDS, attention_mask=np.ones((3, 8))), ValueError, r"attention_mask must be \(3, 9\); got"),
        (lambda m: m(IDS, attention_mask=np.full((3, 9), -1e9)), ValueError, "1 for tokens to see"),
        (lambda m: m(IDS, token_type_ids=TYPES[:1]), ValueError, r"token_type_ids must be \(3, 9\)"),
        (lambda m: m(IDS, token_type_ids=TYPES + 1), IndexError, "2"),
        (lambda m: m(IDS, position_ids=np.arange(3)), ValueError, r"position_ids must be \(9,\) or \(3, 9\)"),
        (lambda m: m(IDS, position_ids=np.arange(9) + 8), IndexError, "16"),
        (lambda m: m(IDS, labels=np.zeros((3, 9), int)), ValueError, r"labels must be \(3,\) or \(3, 1\)"),
        (lambda m: m(IDS, labels=np.zeros(3)), ValueError, r"labels must be \(3, 2\); got \(3,\)"),
        (lambda m: m(IDS, labels=[0, 1, 2]), ValueError, "2"),
        (lambda m: m(IDS, output_logits=True), TypeError, "output_logits"),
    ],
)  # fmt: skip
def test_bad_arguments_say_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call(tiny(BertForSequenceClassification))


def test_half_of_what_a_loss_is_of_is_refused():
    with pytest.raises(ValueError, match="labels came without next_sentence_label"):
        tiny(BertForPreTraining)(IDS, labels=WORDS)
    with pytest.raises(ValueError, match="end_positions came without start_positions"):
        tiny(BertForQuestionAnswering)(IDS, end_positions=[1, 2, 3])
    with pytest.raises(ValueError, match="num_labels is 3"):
        tiny(BertForQuestionAnswering, num_labels=3)


# Texts in one row.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_texts_in_one_row_are_as_apart(dtype):
    model = tiny(BertForSequenceClassification).to(dtype)
    lengths = [9, 4, 7]
    row = np.concatenate([ids[:n] for ids, n in zip(IDS, lengths)])[None]
    types = np.concatenate([kinds[:n] for kinds, n in zip(TYPES, lengths)])[None]
    starts = np.cumsum([0, *lengths])
    given = {"labels": np.array([1, 0, 1]), "output_hidden_states": True, "output_attentions": True}
    apart = model(IDS, attention_mask=MASKS["right"], token_type_ids=TYPES, **given)
    apart.loss.backward()
    expected = {name: parameter.grad.data.copy() for name, parameter in model.named_parameters()}
    model.zero_grad()
    packed = model(row, token_type_ids=types, cu_seqlens=minilm.tensor(starts), **given)
    packed.loss.backward()
    close = {"rtol": 0, "atol": 1e-12 if dtype == "float64" else 5e-6}
    np.testing.assert_allclose(packed.logits.data, apart.logits.data, **close)
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.grad.data, expected[name], **close, err_msg=name)
    for i, (start, n) in enumerate(zip(starts, lengths)):
        mine = slice(start, start + n)
        for ours, theirs in zip(packed.hidden_states, apart.hidden_states):
            np.testing.assert_allclose(ours.data[0, mine], theirs.data[i, :n], **close)
        for ours, theirs in zip(packed.attentions, apart.attentions):
            np.testing.assert_allclose(ours.data[0, :, mine, mine], theirs.data[i, :, :n, :n], **close)
    assert row.shape[1] > TINY["max_position_embeddings"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(IDS, cu_seqlens=[0, 4, 9]), r"one row, \(1, T\)"),
        (lambda m: m(IDS[:1], np.ones((1, 9)), cu_seqlens=[0, 4, 9]), "no attention_mask"),
        (lambda m: m(IDS[:1], cu_seqlens=[0, 4, 8]), r"must rise from 0 to 9"),
        (lambda m: m(IDS[:1], cu_seqlens=[0, 4, 4, 9]), r"must rise from 0 to 9"),
        (lambda m: m(IDS[:1], cu_seqlens=[0.0, 9.0]), r"must rise from 0 to 9"),
        (lambda m: m(IDS.reshape(1, -1), cu_seqlens=[0, 9, 27]), "18 tokens are more than .* 16"),
    ],
)
def test_starts_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(tiny(Bert))
