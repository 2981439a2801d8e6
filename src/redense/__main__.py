"""``python -m redense`` is the ``redense`` command."""

import os
import sys

if not sys.flags.safe_path and sys.path[0] == os.getcwd():  # noqa: PTH109  (pathlib is late here)
    del sys.path[0]  # a random.py in the folder one works in is not the standard library's

from redense.cli import main

sys.exit(main())
