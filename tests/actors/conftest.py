"""What tests of experts share."""

from pathlib import Path

import pytest

from tests import experts


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Path:
    """A folder with tiny models that answer, and items; see `tests.experts.write`."""
    return experts.write(tmp_path_factory.mktemp("experts"))
