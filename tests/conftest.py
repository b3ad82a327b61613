"""Settings of every test process."""

import os

# One thread each, also of the processes that tests start: the workers share the cores already.
os.environ.setdefault("OMP_NUM_THREADS", "1")
