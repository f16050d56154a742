"""The share of captions that `model.max_tokens` cuts, counted by hand."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.shard_fixture import WordTokenizer, captions_of, write
from zerovl.training import caption_lengths
from zerovl.training.caption_lengths import describe_cut, sampled_captions, share_cut

SIZES = {"web": 40, "art": 24}


def tokenizer(max_tokens: int) -> WordTokenizer:
    tokenize = WordTokenizer()
    tokenize.max_tokens = max_tokens
    return tokenize


@pytest.mark.parametrize("max_tokens", [3, 6, 8, 100])
def test_captions_that_are_cut_are_counted(tmp_path: Path, max_tokens: int) -> None:
    captions = [caption for name, pairs in SIZES.items() for row in range(pairs) for caption in captions_of(name, row)]
    longer = sum(len(caption.split()) + 2 > max_tokens for caption in captions)  # with beginning and end
    assert share_cut(captions, tokenizer(max_tokens)) == longer / len(captions)
    text = describe_cut(write(tmp_path, SIZES).manifest, tokenizer(max_tokens))
    assert (
        text == f"{100 * longer / len(captions):.3g}% are longer than model.max_tokens {max_tokens} and are cut there"
    )


def test_of_a_large_source_some_are_looked_at_from_all_over_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write(tmp_path, SIZES).manifest
    path = manifest.table_path("web", "train")
    rows = pq.read_table(path)
    broken = pa.Table.from_pylist([rows.slice(0, 1).to_pylist()[0] | {"error": "no picture"}], rows.schema)
    pq.write_table(pa.concat_tables([broken, rows]), path, row_group_size=4)
    monkeypatch.setattr(caption_lengths, "LOOKED_AT", 12)
    found = sampled_captions(manifest, "web")
    assert 6 <= len(found) <= 12
    whole = [caption for row in range(40) for caption in captions_of("web", row)]
    places = [whole.index(caption) for caption in found]
    assert places == sorted(places)
    assert (places[0], places[-1] > 0.8 * len(whole)) == (0, True)
    text = describe_cut(manifest, tokenizer(6))
    assert text.endswith(f"({len(found) + len(sampled_captions(manifest, 'art'))} of 127 looked at)")
