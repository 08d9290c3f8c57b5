"""What every test stands on: no hub by mistake, and no threads for tiny models."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: threads would only wait for one another
os.environ.setdefault("HF_ENDPOINT", "http://127.0.0.1:9")  # a test that wants a hub serves one
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
