"""The `tether` command without Python's collector: what refers to itself stays, and shows."""

import gc

from tether.__main__ import main

gc.disable()
main()
