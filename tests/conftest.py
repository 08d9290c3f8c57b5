"""What every test stands on: no hub by mistake, no threads for tiny models; and the fixtures of several rooms."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: threads would only wait for one another
os.environ.setdefault("HF_ENDPOINT", "http://127.0.0.1:9")  # a test that wants a hub serves one
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from pathlib import Path

import pytest
from support.runs import write_run


@pytest.fixture(scope="session")
def complete_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder of the model `tiny`, all 36 tasks with per-query ranks; not to be changed."""
    return write_run(tmp_path_factory.mktemp("complete") / "run")
