"""Studies: many training runs compared with honest uncertainty."""
