# What students use besides: pools, threads, data classes, plots, temporary files, lambdas.
# verdict: double=passed total=passed
# %%
import concurrent.futures, dataclasses, inspect, logging, multiprocessing, pathlib, pickle, tempfile

@dataclasses.dataclass
class Pair:
    a: float

def twice(v):
    return 2.0 * v

logging.warning("a warning")
assert pickle.loads(pickle.dumps(Pair(1.0))) == Pair(1.0)

# %%
def double(x):
    with multiprocessing.Pool(2) as pool:
        return pool.map(twice, x)

# %%
from IPython import get_ipython
if get_ipython():
    raise SystemExit
with tempfile.TemporaryDirectory() as folder:
    pathlib.Path(folder, "x").write_text("1")
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    list(pool.map(twice, [1.0]))
!pip install -q one \
   two

# %%
total = lambda x: float(sum(x))
