"""Titles of items, and finding items by id or title."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from peterrec.data.catalogue import Catalogue, ItemId
from peterrec.data.sequences import IntArray
from peterrec.errors import DataError

COLUMNS = ["item_id", "title"]
FORM = "give a Parquet or CSV file with the columns item_id and title"
FIELD, WORD = "\n", " "  # what an id or a title begins with, and every further word of it
BLOCK = 1 << 16  # items that are searched at once


@dataclass(frozen=True)
class FoundItem:
    """An item, its title or None, and its number of events."""

    item: ItemId
    title: str | None
    count: int


class ItemSearch:
    """Search in the items of a catalogue. Case, accents and punctuation do not matter.

    Args:
        catalogue: items that are found.
        titles_path: Parquet or CSV with columns `item_id` and `title`; may have other items too, and lack some. Ids
            match as those of `Catalogue.encode`; of several titles of an item the first counts.

    Raises:
        DataError: the file cannot be read, or lacks a column.
    """

    def __init__(self, catalogue: Catalogue, titles_path: str | Path | None = None) -> None:
        ids, titles = _read_titles(Path(titles_path)) if titles_path is not None else (pa.array([], pa.string()),) * 2
        self._titles: dict[str, str] = dict(zip(reversed(ids.to_pylist()), reversed(titles.to_pylist()), strict=True))
        self._catalogue = catalogue
        self._order = np.argsort(-catalogue.counts, kind="stable")  # positions, most frequent first
        texts = pc.cast(catalogue.ids, pa.string())
        item_titles = pc.fill_null(titles.take(pc.index_in(texts, value_set=ids)), "")
        # Normalized ids and titles of the items in this order: the text that is searched.
        self._searched = pc.binary_join_element_wise(
            "", FIELD, _normalized(texts), FIELD, _normalized(item_titles), ""
        ).take(pa.array(self._order))

    def titles(self, items: Sequence[ItemId]) -> dict[str, str]:
        """Return titles by the text of the id, for items that have one; they need not be in the catalogue."""
        texts = map(str, items)
        return {text: self._titles[text] for text in texts if text in self._titles}

    def search(self, q: str, limit: int = 20) -> list[FoundItem]:
        """Return at most `limit` items whose id or title contains `q`, best first.

        First the item of that very id; then those whose id or title begins with it; then those where a word does; then
        all others; each from the most frequent to the least. Without `q` the most frequent of all.
        """
        q = q.encode(errors="ignore").decode().strip()  # half of a surrogate pair is nothing that a title can have
        if not q:
            return self._with_titles(self._order[:limit])
        exact = self._catalogue.find([q])[0] - self._catalogue.first
        positions = [exact] if exact >= 0 else []
        (query_text,) = _normalized(pa.array([q])).to_pylist()
        if query_text:
            positions += self._ranked(query_text, limit)
        return self._with_titles(np.array(list(dict.fromkeys(positions))[:limit], dtype=np.int64))

    def _ranked(self, query_text: str, limit: int) -> list[int]:
        """Return positions of matches: where a field begins with the text first, then where a word does, then all."""
        ranks: list[list[IntArray]] = [[], [], []]
        for start in range(0, len(self._searched), BLOCK):
            block = self._searched.slice(start, BLOCK)
            places, texts = _matching(self._order[start : start + BLOCK], block, query_text)
            for rank, beginning in enumerate((FIELD, WORD)):
                ranks[rank].append(_matching(places, texts, beginning + query_text)[0][:limit])
            ranks[2].append(places[:limit])
            if sum(map(len, ranks[0])) >= limit:  # later blocks have nothing better
                break
        return [place for rank in ranks for places in rank for place in places.tolist()]

    def _with_titles(self, positions: IntArray) -> list[FoundItem]:
        items = self._catalogue.decode(positions + self._catalogue.first)
        counts = self._catalogue.counts[positions].tolist()
        return [FoundItem(item, self._titles.get(str(item)), count) for item, count in zip(items, counts, strict=True)]


def _matching(places: IntArray, texts: pa.Array, text: str) -> tuple[IntArray, pa.Array]:
    """Return the texts that contain `wanted`, and their places."""
    matches = pc.match_substring(texts, text)
    return places[matches.to_numpy(zero_copy_only=False)], texts.filter(matches)


def _normalized(texts: pa.Array) -> pa.Array:
    """Return texts without case, accents and punctuation, a single space between words."""
    split = pc.utf8_normalize(pc.utf8_lower(texts), form="NFKD")
    plain = pc.replace_substring_regex(split, r"\p{M}+", "")
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(plain, r"[\p{P}\p{Z}\p{C}]+", WORD))


def _read_titles(path: Path) -> tuple[pa.Array, pa.Array]:
    """Return the ids and titles of a file, both text; those of which one is missing are left out."""
    try:
        if path.suffix in (".parquet", ".pq"):
            table = pq.read_table(path, columns=COLUMNS)
        else:
            # As text: an id such as 007 is not the number 7.
            as_text = pa_csv.ConvertOptions(column_types=dict.fromkeys(COLUMNS, pa.string()), include_columns=COLUMNS)
            lines = pa_csv.ParseOptions(newlines_in_values=True)
            table = pa_csv.read_csv(path, parse_options=lines, convert_options=as_text)
        lacking = [name for name in COLUMNS if name not in table.column_names]
        if lacking:
            raise DataError(f"lacks the column {lacking[0]}", remedy=FORM, path=path)
        columns = [pc.cast(table[name], pa.string()) for name in COLUMNS]
        table = pa.table(columns, names=COLUMNS).drop_null()
        table = table.filter(pc.not_equal(pc.utf8_trim_whitespace(table["title"]), ""))
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise DataError(f"cannot be read as titles ({error})", remedy=FORM, path=path) from error
    return table["item_id"].combine_chunks(), table["title"].combine_chunks()
