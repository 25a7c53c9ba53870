"""The `tether` command without Python's cycle collector, so that cycles stay in memory and show."""

import gc

from tether.__main__ import main

gc.disable()
main()
