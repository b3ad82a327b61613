"""Conversion of published checkpoints: a file in the layout of its authors becomes a depthseg model or encoder."""
