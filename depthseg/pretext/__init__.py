"""Objectives: what a network is trained to do, with everything that takes."""

from .supervised import SupervisedObjective

__all__ = ["SupervisedObjective"]
