"""A small break of the source: what no longer holds, and the text that is replaced."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Mutation(NamedTuple):
    """One break.

    Attributes:
        effect: what the code then does.
        file: below src/peterrec.
        text: stands exactly once in the file.
        broken: what takes its place.
    """

    effect: str
    file: str
    text: str
    broken: str

    def path(self, root: Path) -> Path:
        """Where the file is in a checkout."""
        return root / "src" / "peterrec" / self.file

    def source(self, root: Path) -> str:
        """The file with the break.

        Raises:
            ValueError: the text does not stand in it exactly once, or nothing would change.
        """
        source = self.path(root).read_text()
        if source.count(self.text) != 1 or self.text == self.broken:
            times = source.count(self.text)
            raise ValueError(f"{self.effect}: this stands {times} times in {self.file}, not once:\n{self.text}")
        return source.replace(self.text, self.broken)
