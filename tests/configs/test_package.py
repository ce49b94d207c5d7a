"""What a wheel must hold beside Python: everything that is looked up beside the packages."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
SOURCE_ONLY = {"cluster/Dockerfile"}
"""Files that are of use beside a checkout alone."""


@pytest.mark.parametrize("package", ["jobs", "actors", "fusion", "cluster", "configs"])
def test_every_file_of_a_package_is_packaged(package):
    assert f"{package}*" in SETUP["packages"]["find"]["include"]
    patterns = SETUP["package-data"].get(package, [])
    packaged = {file for pattern in patterns for file in (ROOT / package).glob(pattern)}
    here = {file for file in (ROOT / package).rglob("*") if file.is_file()}
    data = {file for file in here if file.suffix not in {".py", ".pyc"}}
    assert {str(file.relative_to(ROOT)) for file in data - packaged} <= SOURCE_ONLY
