"""What every test stands on: the folder of the tests on the path, one demo for the session, no hub by mistake."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: threads would only wait for one another
os.environ.setdefault("HF_ENDPOINT", "http://127.0.0.1:9")  # a test that wants a hub serves one
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
