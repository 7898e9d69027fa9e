"""What an encoder-decoder model returns and learns beside transformers' model of the same files."""

from __future__ import annotations

import numpy as np
import pytest

__all__ = ["compare"]


def compare(model, peer, torch, given: dict, unused: tuple[str, ...] = ()) -> None:
    """Logits, states, attentions, loss and gradients are the peer's, but for padding; `unused` weights get none.

    `given` has arrays: input_ids, labels, and the masks of both.
    """
    dtype = next(model.parameters()).dtype
    atol = 2e-5 if dtype == np.float32 else 5e-6
    wanted = {"output_hidden_states": True, "output_attentions": True}
    out = model(**given, **wanted)
    theirs = peer(**{name: torch.from_numpy(x) for name, x in given.items()}, **wanted)
    assert out.logits.dtype == out.loss.dtype == dtype
    real = {"encoder": given["attention_mask"] == 1, "decoder": given["decoder_attention_mask"] == 1}
    np.testing.assert_allclose(out.logits.data[real["decoder"]], theirs.logits.detach()[real["decoder"]], atol=atol)
    np.testing.assert_allclose(
        out.encoder_last_hidden_state.data[real["encoder"]],
        theirs.encoder_last_hidden_state.detach()[real["encoder"]],
        atol=atol,
    )
    for name in ("encoder_hidden_states", "decoder_hidden_states"):
        kept, ours, others = real[name[:7]], getattr(out, name), getattr(theirs, name)
        assert len(ours) == len(others)
        for x, y in zip(ours, others):
            np.testing.assert_allclose(x.data[kept], y.detach().numpy()[kept], atol=atol, err_msg=name)
    for name in ("encoder_attentions", "decoder_attentions", "cross_attentions"):
        kept = real["encoder" if name.startswith("enc") else "decoder"]
        ours, others = getattr(out, name), getattr(theirs, name)
        assert len(ours) == len(others)
        for x, y in zip(ours, others):
            x, y = x.data.swapaxes(1, 2)[kept], y.detach().numpy().swapaxes(1, 2)[kept]
            np.testing.assert_allclose(x, y, atol=atol, err_msg=name)
    assert out.loss.item() == pytest.approx(theirs.loss.item(), rel=1e-5)

    out.loss.backward()
    theirs.loss.backward()
    peers = dict(peer.named_parameters())
    for name, parameter in model.named_parameters():
        gradient = peers[name].grad
        if gradient is None:
            assert parameter.grad is None
            assert name in unused
            continue
        gradient = gradient.numpy()
        scale = max(np.abs(gradient).max(), 1e-3)
        np.testing.assert_allclose(parameter.grad.data / scale, gradient / scale, atol=1e-4, err_msg=name)
