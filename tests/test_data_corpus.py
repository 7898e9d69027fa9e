"""A corpus of files: which, in which order, how cut in pieces, and what is held out."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.data import Corpus, DataError, Document, stdlib_corpus
from minilm.data.split import split
from minilm.tokenization import Tokenizer


def make(folder: Path, **files) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return folder


def test_one_file_is_read_as_it_is(tmp_path):
    text = "a\r\nb\x00\rc\n é\n"
    corpus = Corpus(make(tmp_path, a_txt=text) / "a.txt")
    assert ("".join(corpus.texts()), corpus.characters, len(corpus.documents)) == (text, len(text), 1)
    assert "".join(corpus.texts(size=1)) == text


def test_a_byte_order_mark_is_no_text(tmp_path):
    corpus = Corpus(make(tmp_path, a_txt=b"\xef\xbb\xbfab") / "a.txt")
    assert (list(corpus.texts()), corpus.characters) == (["ab"], 2)


def test_folder_is_sorted_and_passes_over_what_is_hidden(tmp_path):
    make(tmp_path, b_txt="b", a__z_txt="az", a__b_md="ab", c_txt="c")
    make(tmp_path / ".git", config_txt="no")
    make(tmp_path / "__pycache__", x_txt="no")
    (tmp_path / ".hidden").write_text("no")
    names = [document.name for document in Corpus(tmp_path).documents]
    assert names == ["a/b.md", "a/z.txt", "b.txt", "c.txt"]
    assert [document.name for document in Corpus(tmp_path, suffixes=(".md",)).documents] == ["a/b.md"]
    assert [document.name for document in Corpus(tmp_path, exclude=("a",)).documents] == ["b.txt", "c.txt"]


def test_several_files_come_in_the_order_given(tmp_path):
    make(tmp_path, a_txt="a", b_txt="b")
    assert list(Corpus([tmp_path / "b.txt", str(tmp_path / "a.txt")]).texts()) == ["b", "a"]
    with pytest.raises(DataError, match=r"a\.txt is in the corpus twice"):
        Corpus([tmp_path, tmp_path / "a.txt"])


def test_in_a_folder_what_is_no_text_is_skipped_and_listed(tmp_path):
    make(tmp_path, a_txt="text", b_bin=b"\x00\x01", c_txt=b"caf\xe9!", d_txt=b"", e_txt=b"cut \xe2\x82")
    corpus = Corpus(tmp_path)
    assert [document.name for document in corpus.documents] == ["a.txt"]
    reasons = dict(corpus.skipped)
    assert list(reasons) == ["b.bin", "c.txt", "d.txt", "e.txt"]
    assert "binary" in reasons["b.bin"]
    assert "byte 0xe9 at offset 3" in reasons["c.txt"]
    assert "empty" in reasons["d.txt"]
    assert "byte 0xe2 at offset 4" in reasons["e.txt"]


def test_the_offset_of_a_wrong_byte_counts_from_the_start_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("minilm.data.corpus._BLOCK_BYTES", 3)
    for good in ("", "x", "éé", "日本", "😀a", "\ufeffab"):
        path = tmp_path / "a.txt"
        path.write_bytes(good.encode("utf-8") + b"\xff")
        with pytest.raises(DataError, match=rf"not UTF-8: byte 0xff at offset {len(good.encode('utf-8'))} "):
            _ = Corpus(path).documents


def test_a_named_file_must_be_text(tmp_path):
    make(tmp_path, a_txt=b"caf\xe9", b_txt=b"", c_txt="fine")
    with pytest.raises(DataError, match=r"a\.txt is not UTF-8: byte 0xe9 at offset 3 .*iconv"):
        _ = Corpus([tmp_path / "c.txt", tmp_path / "a.txt"]).documents
    with pytest.raises(DataError, match=r"b\.txt is empty"):
        _ = Corpus(tmp_path / "b.txt").documents


def test_what_is_no_corpus_at_all(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*nowhere"):
        Corpus(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no file; give a folder of UTF-8 text files"):
        Corpus(tmp_path)
    make(tmp_path, a_bin=b"\x00")
    with pytest.raises(DataError, match=r"holds no file ending in \.txt or \.md"):
        Corpus(tmp_path, suffixes=[".txt", ".md"])
    with pytest.raises(DataError, match=r"none of the 1 files .* is text; the first, a\.bin, is a binary file"):
        _ = Corpus(tmp_path).documents
    with pytest.raises(DataError, match="at least one file or folder"):
        Corpus([])


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path):
    corpus = Corpus(make(tmp_path, a_txt="x" * 100) / "a.txt")
    assert corpus.characters == 100
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="became shorter while it was read"):
        list(corpus.texts(size=10))


def test_fingerprint_changes_with_the_files(tmp_path):
    path = make(tmp_path, a_txt="one") / "a.txt"
    first = Corpus(path).fingerprint
    assert Corpus(path).fingerprint == first
    path.write_text("three")
    assert Corpus(path).fingerprint != first


WORDS = st.lists(
    st.tuples(
        st.text(alphabet="abZé9日'.,<-_²", max_size=6).map(lambda word: word + "x"),
        st.text(alphabet=" \n\t\r", min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=30,
)
BPE = Tokenizer.train_bpe("baby's abba, 99 zZ xx\n\n\tab x\n    ax " * 20, vocab_size=300)


@settings(deadline=None)
@given(WORDS, st.integers(16, 40))
def test_tokens_of_the_pieces_are_the_tokens_of_the_whole(words, size):
    text = "".join(word + space for word, space in words)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.txt")
        path.write_bytes(text.encode("utf-8"))
        pieces = list(Document(path, "a.txt", len(text)).chunks(size=size))
    assert "".join(pieces) == text
    assert all(len(piece) <= 2 * size for piece in pieces)
    ids = [index for piece in pieces for index in BPE.encode(piece).tolist()]
    assert ids == BPE.encode(text).tolist()


def test_a_range_of_characters(tmp_path):
    text = "".join(chr(0x100 + index) for index in range(50))
    (document,) = Corpus(make(tmp_path, a_txt=text) / "a.txt").documents
    for start, stop in ((0, 50), (0, 7), (13, 40), (49, 50), (20, 20)):
        assert "".join(document.chunks(start, stop, size=8)) == text[start:stop]


def documents(*sizes: int) -> list[Document]:
    return [Document(Path(f"{index}.txt"), f"{index}.txt", size) for index, size in enumerate(sizes)]


def test_a_single_file_is_split_as_nanogpt_splits_it():
    (document,) = documents(1_115_394)
    train, val = split([document], 0.1)
    assert (train, val) == ([(document, 0, 1_003_854)], [(document, 1_003_854, 1_115_394)])


@settings(deadline=None)
@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=80), st.floats(0.02, 0.5))
def test_every_character_is_in_one_part(sizes, fraction):
    given_documents = documents(*sizes)
    try:
        train, val = split(given_documents, fraction)
    except DataError:
        assert min(fraction, 1 - fraction) * max(sizes) < 1 or len(sizes) < 3
        return
    pieces = sorted((part.document.name, part.start, part.stop) for part in train + val)
    expected = sorted(document.name for document in given_documents)
    assert sum(stop - start for _, start, stop in pieces) == sum(sizes)
    assert sorted({name for name, _, _ in pieces}) == expected
    assert all(start < stop for _, start, stop in pieces)


def test_of_many_documents_whole_ones_are_held_out():
    many = documents(*[100 + index % 50 for index in range(400)])
    train, val = split(many, 0.1)
    assert all(part.stop - part.start == part.document.characters for part in train + val)
    held_out = sum(part.stop for part in val) / sum(document.characters for document in many)
    assert abs(held_out - 0.1) < 0.003
    # Spread over the whole corpus, kept in its order, and the same whatever the order the documents come in.
    positions = [many.index(part.document) for part in val]
    assert positions == sorted(positions)
    assert min(positions) < 60
    assert max(positions) > 340
    assert {part.document for part in split(many[::-1], 0.1)[1]} == {part.document for part in val}


def test_few_large_documents_each_give_their_end():
    train, val = split(documents(1000, 2000, 10), 0.25)
    assert [(part.start, part.stop) for part in val] == [(750, 1000), (1500, 2000)]
    assert [(part.start, part.stop) for part in train] == [(0, 750), (0, 1500), (0, 10)]


def test_a_split_that_leaves_nothing_is_an_error():
    with pytest.raises(DataError, match="1 characters in 1 documents leaves nothing for training"):
        split(documents(1), 0.1)
    for fraction in (0, 1, -0.1, 1.5):
        with pytest.raises(ValueError, match="val_fraction is the share held out"):
            split(documents(100), fraction)


def test_the_standard_library_is_a_corpus():
    corpus = stdlib_corpus()
    names = [document.name for document in corpus.documents]
    assert names == sorted(names)
    assert "argparse.py" in names
    assert corpus.characters > 3_000_000
    excluded = {"site-packages", "test", "tests", "idlelib", "encodings", "__pycache__"}
    assert not any(excluded & set(Path(name).parts) for name in names)
    assert stdlib_corpus().fingerprint == corpus.fingerprint


def test_no_standard_library_is_an_error(tmp_path, monkeypatch):
    make(tmp_path, a_py="x = 1\n")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError, match="holds only 6 bytes of Python source; give a text file"):
        stdlib_corpus()
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path / "python311.zip"))
    with pytest.raises(DataError, match=r"standard library is not at .*python311\.zip"):
        stdlib_corpus()
