"""Checks that the files that name a version name the same: python .ci/check_release.py [TAG]

The version is written in src/peterrec/_version.py, where the build reads it, and in CITATION.cff. A tag must be it, and
then CHANGELOG.md must have its heading, with a date: nothing is released that does not say what is new in it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def package_version(root: Path = ROOT) -> str:
    """Return the version in `_version.py`, without importing the package."""
    text = (root / "src" / "peterrec" / "_version.py").read_text()
    (version,) = re.findall(r'^__version__ = "([^"]+)"$', text, flags=re.MULTILINE)
    return str(version)


def problems(root: Path, tag: str | None = None) -> list[str]:
    """Return what disagrees, a line each."""
    version = package_version(root)
    cited = re.findall(r"^version: (\S+)$", (root / "CITATION.cff").read_text(), flags=re.MULTILINE)
    headings = re.findall(r"^## \[([^\]]+)\](.*)$", (root / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    released = dict(headings)
    lines = []
    if cited != [version]:
        lines.append(f"CITATION.cff has version {', '.join(cited) or 'none'}, _version.py {version}")
    if not headings or headings[0][0] != "Unreleased":
        lines.append("CHANGELOG.md does not begin with [Unreleased]")
    later = [name for name in released if name != "Unreleased" and _numbers(name) > _numbers(version)]
    lines += [f"CHANGELOG.md has {name}, which is later than _version.py {version}" for name in later]
    if tag is not None and tag != f"v{version}":
        lines.append(f"the tag is {tag}, _version.py {version}: the tag of that version is v{version}")
    if tag is not None and not re.fullmatch(r" - \d{4}-\d\d-\d\d", released.get(version, "")):
        lines.append(f"CHANGELOG.md has no heading `## [{version}] - YYYY-MM-DD`")
    return lines


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


if __name__ == "__main__":
    disagreements = problems(ROOT, *sys.argv[1:2])
    print("\n".join(disagreements) or f"every file says {package_version()}")
    sys.exit(bool(disagreements))
