from pathlib import Path

import pytest
from support.result_files import write_run


@pytest.fixture(scope="session")
def complete_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder of the model `tiny`, all 36 tasks with per-query ranks; not to be changed."""
    return write_run(tmp_path_factory.mktemp("complete") / "run")
