"""The training engine: options, loop, checkpoints, scoring."""
