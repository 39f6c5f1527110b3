"""``python -m kata_runtime``."""

import sys

from kata_runtime.cli.main import main

sys.exit(main())
