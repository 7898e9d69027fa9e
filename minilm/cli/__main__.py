"""`python -m minilm.cli` is the command `minilm`."""

import sys

from .main import main

sys.exit(main())
