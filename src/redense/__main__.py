"""``python -m redense`` is the ``redense`` command."""

import os
import sys

if not sys.flags.safe_path and sys.path[0] == os.getcwd():  # noqa: PTH109  (pathlib is late here)
    del sys.path[0]  # a random.py in the folder one works in is not the standard library's

try:
    from redense.cli import main
except KeyboardInterrupt:  # before the command line can say it
    print("stopped", file=sys.stderr)
    sys.exit(130)

sys.exit(main())
