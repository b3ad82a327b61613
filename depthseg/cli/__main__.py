"""The command as `python -m depthseg.cli`."""

from . import main

main()
