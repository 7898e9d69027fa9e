"""Token files: what is written comes back, what is damaged is refused, and nothing is ever half there."""

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.data import DataError, TokenFile, TokenFileWriter

DIGEST = "0123456789abcdef" * 4


def write(path, ids, vocab_size=300, eos_token_id=None):
    with TokenFileWriter(path, vocab_size=vocab_size, tokenizer_digest=DIGEST, eos_token_id=eos_token_id) as writer:
        writer.write(ids)
    return path


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(300, "uint16"), (65536, "uint16"), (65537, "uint32"), (1 << 32, "uint32")]
)
def test_written_in_pieces_it_comes_back_whole(tmp_path, vocab_size, dtype):
    ids = np.random.default_rng(0).integers(0, vocab_size, 1000)
    ids[0] = vocab_size - 1
    path = tmp_path / "a.tokens"
    with TokenFileWriter(path, vocab_size=vocab_size, tokenizer_digest=DIGEST, eos_token_id=7) as writer:
        for start in range(0, 1000, 300):
            writer.write(ids[start : start + 300])
            writer.write([])
    file = TokenFile(path)
    assert (file.tokens == ids).all()
    assert file.tokens.dtype.name == dtype
    assert not file.tokens.flags.writeable
    assert isinstance(file.tokens.base, np.memmap)
    assert (len(file), file.vocab_size, file.eos_token_id, file.tokenizer_digest) == (1000, vocab_size, 7, DIGEST)
    assert file.checksum == zlib.crc32(np.ascontiguousarray(file.tokens))
    assert path.stat().st_size == 128 + 1000 * file.tokens.itemsize


def test_strided_and_small_integers_are_written_right(tmp_path):
    ids = np.arange(20, dtype=np.uint8)[::2]
    assert TokenFile(write(tmp_path / "a", ids)).tokens.tolist() == ids.tolist()
    assert TokenFile(tmp_path / "a").eos_token_id is None


def test_every_bit_of_the_header_is_guarded(tmp_path):
    whole = write(tmp_path / "a", range(50)).read_bytes()
    for position in range(128):
        for bit in (0, 7):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            (tmp_path / "b").write_bytes(damaged)
            with pytest.raises(
                DataError, match="not a token file of minilm" if position < 8 else "is damaged: its header"
            ):
                TokenFile(tmp_path / "b")


def test_cut_short_or_grown_is_named(tmp_path):
    whole = write(tmp_path / "a", range(50)).read_bytes()
    for size in range(len(whole)):
        (tmp_path / "b").write_bytes(whole[:size])
        expected = (
            "not a token file" if size < 8 else "its header does not" if size < 128 else "promises 50 ids, so 228"
        )
        with pytest.raises(DataError, match=expected):
            TokenFile(tmp_path / "b")
    (tmp_path / "b").write_bytes(whole + b"\0")
    with pytest.raises(DataError, match="promises 50 ids, so 228 bytes, and it has 229"):
        TokenFile(tmp_path / "b")


def test_changed_ids_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr("minilm.data.token_file._VERIFY_BYTES", 16)
    whole = bytearray(write(tmp_path / "a", range(50)).read_bytes())
    TokenFile(tmp_path / "a")
    for position in (128, 177, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        (tmp_path / "b").write_bytes(damaged)
        with pytest.raises(DataError, match="its ids do not match their checksum"):
            TokenFile(tmp_path / "b")
        assert len(TokenFile(tmp_path / "b", verify=False)) == 50


def test_a_file_of_another_format_version_says_so(tmp_path):
    whole = bytearray(write(tmp_path / "a", range(50)).read_bytes())
    whole[8] = 2
    whole[124:128] = zlib.crc32(whole[:124]).to_bytes(4, "little")
    (tmp_path / "a").write_bytes(whole)
    with pytest.raises(DataError, match=r"token file format 2 .* reads format 1"):
        TokenFile(tmp_path / "a")


def test_foreign_files(tmp_path):
    (tmp_path / "a").write_bytes(np.arange(1000, dtype=np.uint16).tobytes())
    with pytest.raises(DataError, match="is not a token file of minilm"):
        TokenFile(tmp_path / "a")
    with pytest.raises(FileNotFoundError, match="no token file at"):
        TokenFile(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no token file at"):
        TokenFile(tmp_path)


def test_wrong_tokenizer_is_named(tmp_path):
    file = TokenFile(write(tmp_path / "a", [1]))
    file.check_tokenizer(DIGEST)
    with pytest.raises(DataError, match="made with tokenizer 0123456789ab, and this one is ffffffffffff"):
        file.check_tokenizer("ff" * 32)


@pytest.mark.parametrize(
    ("ids", "message"), [([300], "id 300 is outside"), ([-1], "id -1 is outside"), ([0.5], "integers, not float64")]
)
def test_wrong_ids_leave_no_file(tmp_path, ids, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "a", ids)
    assert list(tmp_path.iterdir()) == []


def test_no_ids_is_an_error_and_leaves_no_file(tmp_path):
    with pytest.raises(DataError, match="no token was written to"):
        write(tmp_path / "a", [])
    assert list(tmp_path.iterdir()) == []


def test_wrong_settings():
    with pytest.raises(ValueError, match="64 hexadecimal digits, not 4"):
        TokenFileWriter("a", vocab_size=300, tokenizer_digest="abcd")
    for size in (0, (1 << 32) + 1):
        with pytest.raises(ValueError, match="vocab_size is"):
            TokenFileWriter("a", vocab_size=size, tokenizer_digest=DIGEST)


def test_an_interrupted_write_leaves_the_file_that_was_there(tmp_path):
    path = write(tmp_path / "a", [1, 2, 3])
    before = path.read_bytes()
    mapped = TokenFile(path)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012, SIM117
        with TokenFileWriter(path, vocab_size=300, tokenizer_digest=DIGEST) as writer:
            writer.write([4, 5])
            assert path.read_bytes() == before
            raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    write(path, [9])
    assert TokenFile(path).tokens.tolist() == [9]
    assert mapped.tokens.tolist() == [1, 2, 3]  # who has the old file mapped keeps it


@settings(deadline=None, max_examples=30)
@given(ids=st.lists(st.integers(0, 70_000), min_size=1))
def test_any_ids_come_back(tmp_path_factory, ids):
    path = tmp_path_factory.mktemp("tokens") / "a"
    assert TokenFile(write(path, ids, vocab_size=70_001)).tokens.tolist() == ids
