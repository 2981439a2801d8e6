"""``python -m redense`` is the ``redense`` command."""

import sys

from redense.cli import main

sys.exit(main())
