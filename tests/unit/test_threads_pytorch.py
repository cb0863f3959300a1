"""One thread, for NumPy and for PyTorch, in a process of its own."""

import json
import subprocess
import sys

CODE = """
import json
import numpy, torch
from threadpoolctl import threadpool_info
from course_lib import pytorch
pytorch.use_one_thread()
print(json.dumps([torch.get_num_threads(), *(pool["num_threads"] for pool in threadpool_info())]))
"""


def test_nothing_computes_on_more_than_one_thread(monkeypatch):
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "2")
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    counts = json.loads(done.stdout)
    assert len(counts) > 1
    assert set(counts) == {1}
