"""Data sets exactly as their official archives unpack, one file each."""
