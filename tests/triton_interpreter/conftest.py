"""These files are run in a process of their own, with TRITON_INTERPRET=1, by tests/test_triton.py."""

import os

if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore_glob = ["test_*.py"]
