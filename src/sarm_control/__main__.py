"""`python -m sarm_control` is the `sarm` command."""

import sys

from sarm_control.cli import main

sys.exit(main())
