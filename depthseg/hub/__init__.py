"""Publishing checkpoints on the Hub."""
