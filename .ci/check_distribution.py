"""Checks that the wheel and sdist in a folder hold the package, whole, and no other file."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from collections.abc import Iterable
from email.parser import HeaderParser
from pathlib import Path

from check_release import package_version

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "src" / "peterrec"
# Of each kind of file that is no module, those without which something stops to work.
ESSENTIAL = (
    "peterrec/py.typed",
    "peterrec/__init__.pyi",
    "peterrec/benchmark/readme.md.jinja",
    "peterrec/experiments/grid/quick.yaml",
    "peterrec/report/templates/report.html",
    "peterrec/report/templates/report.css",
    "peterrec/serving/page/index.html",
    "peterrec/serving/page/app.js",
)
BESIDE_SOURCES = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "PKG-INFO", ".gitignore"}
METADATA = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


def package_files() -> set[str]:
    """Return the files of the package in the source tree, as a wheel names them."""
    paths = (path for path in SOURCES.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(SOURCES.parent).as_posix() for path in paths}


def differences(expected: set[str], names: Iterable[str]) -> list[str]:
    """Return what is wrong with the names of an archive, a line for each file that is missing or too much."""
    names = set(names)
    return [f"lacks {name}" for name in sorted(expected - names)] + [
        f"has {name}, which does not belong there" for name in sorted(names - expected)
    ]


def wheel_problems(path: Path, version: str) -> list[str]:
    """Return what is wrong with a wheel: its files, and its metadata."""
    info = f"peterrec-{version}.dist-info"
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        if f"{info}/METADATA" not in names:
            return [f"is not of version {version}"]
        metadata = HeaderParser().parsestr(archive.read(f"{info}/METADATA").decode())
        scripts = archive.read(f"{info}/entry_points.txt").decode()
    expected = package_files() | set(ESSENTIAL) | {f"{info}/{name}" for name in METADATA}
    problems = differences(expected, names)
    wanted = {"Version": version, "License-Expression": "Apache-2.0", "Description-Content-Type": "text/markdown"}
    problems += [f"has {key}: {metadata[key]}, not {value}" for key, value in wanted.items() if metadata[key] != value]
    if "peterrec = peterrec.cli.main:run" not in scripts:
        problems.append("does not install the command peterrec")
    return problems


def sdist_problems(path: Path, version: str) -> list[str]:
    """Return what is wrong with the files of an sdist."""
    with tarfile.open(path) as archive:
        names = [member.name for member in archive.getmembers() if member.isfile()]
    top = f"peterrec-{version}/"
    expected = {f"src/{name}" for name in package_files() | set(ESSENTIAL)} | BESIDE_SOURCES
    return differences(expected, [name.removeprefix(top) for name in names])


def main(folder: Path) -> int:
    """Check what is in a folder; return the exit status."""
    version = package_version()
    wheels, sdists = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    if (len(wheels), len(sdists)) != (1, 1):
        print(f"{folder} has {len(wheels)} wheels and {len(sdists)} sdists: remove it, and build both", file=sys.stderr)
        return 1
    problems = [f"{wheels[0].name} {line}" for line in wheel_problems(wheels[0], version)]
    problems += [f"{sdists[0].name} {line}" for line in sdist_problems(sdists[0], version)]
    for line in problems:
        print(line, file=sys.stderr)
    if not problems:
        print(f"{wheels[0].name} and {sdists[0].name} hold {len(package_files())} files of the package, and no other")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
