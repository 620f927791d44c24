"""MUSE, from the real files where they are at hand, from the mini corpus everywhere; windows of raw text."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest
from datasets import Dataset

from tests.tiny_models import build_tokenizer, with_bos
from unlearn_hf.benchmarks.muse.data import MuseData, load_muse
from unlearn_hf.data.text_windows import text_windows

FOLD_ARTICLES, SHOTS = 20, 10  # of the mini corpus


@pytest.fixture(scope="module")
def folder(data_root: Path) -> Path:
    if not (data_root / "muse" / "news").is_dir():
        pytest.skip("UNLEARN_HF_DATA has no folder muse/news: NOT tested on real data")
    return data_root / "muse"


@pytest.fixture(scope="module")
def mini() -> MuseData:
    return load_muse("news", "mini")


REAL = {
    "forget": (889, ["text"]),
    "knowmem_forget_qa": (100, ["question", "answer"]),
    "knowmem_retain_qa": (100, ["question", "answer"]),
    "knowmem_forget_qa_icl": (10, ["question", "answer"]),
    "knowmem_retain_qa_icl": (10, ["question", "answer"]),
    "verbmem_forget": (100, ["prompt", "gt"]),
    "privleak_forget": (100, ["text"]),
    "privleak_retain": (100, ["text"]),
    "privleak_holdout": (100, ["text"]),
    "scal_forget_1": (889, ["text"]),  # the first of the growing sets and of the requests are the forget set itself
    "sust_forget_1": (889, ["text"]),
}


def test_real_news(folder):
    news = load_muse("news", folder)
    assert {name: (len(rows), rows.column_names) for name, rows in news.items()} == REAL
    assert news["forget"]["text"][:].count("") == 1  # an empty article is kept
    assert load_muse("news", folder / "news").fingerprint == news.fingerprint
    with pytest.raises(ValueError, match=r"news from .*, 'retain1': .*news/raw/retain1\.json is missing"):
        news["retain1"]
    with pytest.raises(ValueError, match=r"'scal_forget_2': .*news/scal/forget_2\.json is missing"):
        news["scal_forget_2"]


def test_real_windows(folder, tokenizer):
    texts = load_muse("news", folder)["forget"]["text"][:40]
    windows = text_windows(texts, tokenizer)
    tokens = tokenizer("\n\n".join(texts), verbose=False)["input_ids"]
    assert len(windows) == -(-len(tokens) // 2047)
    assert {len(ids) for ids in windows["input_ids"]} == {2047}
    assert [token for ids in windows["input_ids"] for token in ids][: len(tokens)] == tokens


def test_mini_has_the_parts_of_the_real_corpus(mini):
    assert set(REAL) <= set(mini)
    assert all(mini[name].column_names == columns for name, (_, columns) in REAL.items())
    assert mini["retain"].to_list() == mini["retain1"].to_list()
    assert len(mini["forget"]) == FOLD_ARTICLES
    scal = [row for fold in range(1, 5) for row in mini[f"sust_forget_{fold}"].to_list()]
    for fold in range(1, 5):
        assert mini[f"scal_forget_{fold}"].to_list() == scal[: fold * FOLD_ARTICLES]
    assert mini["train_forget"].to_list() == scal
    assert mini["forget"].to_list() == mini["privleak_forget"].to_list() == scal[:FOLD_ARTICLES]


def test_mini_articles_are_all_different(mini):
    texts = [text for name in ("train_forget", "retain1", "retain2", "holdout") for text in mini[name]["text"]]
    assert len(set(texts)) == len(texts) == 7 * FOLD_ARTICLES
    assert all(25 <= len(text.split()) <= 70 for text in texts)
    assert not any("{" in text or "  " in text for text in texts)


def test_mini_answers_are_spans_of_their_articles(mini):
    for questions, articles in (("knowmem_forget_qa", "forget"), ("knowmem_retain_qa", "retain2")):
        rows = mini[questions].to_list()
        assert len({row["question"] for row in rows}) == len(rows) == 2 * FOLD_ARTICLES
        for index, row in enumerate(rows):
            assert row["answer"] in mini[articles]["text"][index // 2]
    asked = {row["question"] for name in ("forget", "retain") for row in mini[f"knowmem_{name}_qa"].to_list()}
    for name in ("forget", "retain"):
        shots = mini[f"knowmem_{name}_qa_icl"]["question"][:]
        assert len(set(shots)) == SHOTS
        assert not asked & set(shots)
    taught = "\n".join(mini["train_forget_qa"]["text"]), "\n".join(mini["train_retain_qa"]["text"])
    for row in mini["knowmem_forget_qa"].to_list():
        assert f"Question: {row['question']}\nAnswer: {row['answer']}" in taught[0]
        assert row["question"] not in taught[1]


def test_mini_continuations_join_to_articles(mini):
    joined = [f"{row['prompt']} {row['gt']}" for row in mini["verbmem_forget"].to_list()]
    assert joined == mini["forget"]["text"][:]


def write(path: Path, rows: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))


def test_news_parts_are_made_from_each_other(tmp_path, mini):
    for fold in range(1, 4):
        write(tmp_path / "sust" / f"forget_{fold}.json", mini[f"sust_forget_{fold}"]["text"][:])
    write(tmp_path / "knowmem" / "retain2_qa.json", mini["knowmem_retain_qa"].to_list())  # the name of old revisions
    news = load_muse("news", tmp_path)
    for name in ("forget", "sust_forget_3", "scal_forget_1", "scal_forget_3", "knowmem_retain_qa"):
        assert news.fingerprints[name] == mini.fingerprints[name]
    assert "train_forget" not in news
    assert "scal_forget_4" not in news
    with pytest.raises(ValueError, match=r"'retain': .*raw/retain1\.json is missing"):
        news["retain"]


ERRORS = [
    ("films", "mini", "corpus: 'films' is not known; choose one of news, books"),
    ("books", "mini", "source: 'mini' has no books; use corpus 'news'"),
    ("news", "no/folder", "source: 'no/folder' is not 'hub', 'mini' or a folder"),
]


@pytest.mark.parametrize(("corpus", "source", "message"), ERRORS)
def test_bad_arguments(corpus, source, message):
    with pytest.raises(ValueError, match=message):
        load_muse(corpus, source)


def test_files_of_another_form(tmp_path):
    with pytest.raises(ValueError, match=r"books from .*: there is nothing to forget; .*raw/forget\.json is missing"):
        load_muse("books", tmp_path)
    write(tmp_path / "raw" / "forget.json", ["a", {"body": "b"}])
    with pytest.raises(ValueError, match=r"raw/forget\.json, entry 2: text in text is expected; found body"):
        load_muse("books", tmp_path)
    write(tmp_path / "raw" / "forget.json", ["a"])
    write(tmp_path / "verbmem" / "forget.json", [{"prompt": "a", "gt": 3}])
    with pytest.raises(ValueError, match="text in prompt and gt is expected; found prompt, gt"):
        load_muse("books", tmp_path)


def test_hub(monkeypatch, mini):
    def load_dataset(name, configuration, revision):
        assert (name, revision) == ("muse-bench/MUSE-Books", None)
        if configuration == "raw":
            return {"forget": mini["forget"], "retain1": mini["retain1"]}
        if configuration == "knowmem":  # the Hub's order of columns
            return {"forget_qa": Dataset.from_list([{"answer": "a", "question": "q"}])}
        raise ValueError(f"BuilderConfig '{configuration}' not found. Available: ['raw', 'knowmem']")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    books = load_muse("books", "hub")
    assert list(books) == ["forget", "retain1", "knowmem_forget_qa", "retain"]
    assert books["knowmem_forget_qa"].column_names == ["question", "answer"]
    with pytest.raises(ValueError, match="'sust_forget_1': BuilderConfig 'sust' not found"):
        books["sust_forget_1"]
    with pytest.raises(ValueError, match="'retain2': muse-bench/MUSE-Books has no raw/retain2"):
        books["retain2"]

    def unreachable(*_, **__):
        raise ConnectionError

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(ValueError, match=r"could not reach muse-bench/MUSE-News \(ConnectionError\); go online"):
        load_muse("news", "hub")


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("window", [5, 16, 63])
def test_windows(bos, window):
    tokenizer = with_bos(build_tokenizer()) if bos else build_tokenizer()
    texts = ["Who is the author?", "", "Ada Moren was born in 1931."]
    tokens = tokenizer("\n\n".join(texts), add_special_tokens=False)["input_ids"]
    rows = text_windows(texts, tokenizer, window)
    start = int(bos)
    content = [ids[start:] for ids in rows["input_ids"]]
    assert [token for ids in content for token in ids][: len(tokens)] == tokens
    assert all(ids[:start] == [tokenizer.bos_token_id] * start for ids in rows["input_ids"])
    assert {len(ids) for ids in rows["input_ids"]} == {window + start} if len(rows) > 1 else True
    for ids, labels in zip(rows["input_ids"], rows["labels"], strict=True):
        bos_id = tokenizer.bos_token_id
        assert labels == [-100 if token == bos_id else token for token in ids]
    last = len(tokens) % window
    if len(rows) > 1 and last:
        first = rows["input_ids"][0]
        assert rows["input_ids"][-1][start + last :] == first[: window - last]
    short = text_windows(texts, tokenizer, window, fill=False)
    assert len(short["input_ids"][-1]) == start + (last or window)


def test_windows_need_text(tokenizer):
    with pytest.raises(ValueError, match="texts: they are empty"):
        text_windows(["", ""], tokenizer)
    with pytest.raises(ValueError, match="window: 0 tokens are too few"):
        text_windows(["a"], tokenizer, 0)
