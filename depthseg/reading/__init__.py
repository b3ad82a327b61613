"""Options as they are written, in YAML files and on the command line, become values of their declared types.

A value is read in two steps. First it keeps its text, whatever YAML makes of it (`no`, `0016E5`, `1e-3`). Then the
declared type of its option decides: text stays text, `no` is false where it may be true or false, `1e-3` is a number.
Free maps, which declare no types, follow one rule: see `written.free_value`.
"""

from .allowed import Allowed, BelongsTo, Count, NotNegative, Positive, PositiveCount, at_least
from .declared import TypeReader, built, declared, no_problems, typed
from .interpolation import interpolated, literal
from .layers import Change, layered, merged, read_with_bases
from .overrides import read_override, read_pairs
from .reference import reference
from .renamed import renamed
from .written import Written, free_value, is_null, shown, written
from .yaml_files import read_yaml, write_yaml

__all__ = [
    "Allowed",
    "BelongsTo",
    "Change",
    "Count",
    "NotNegative",
    "Positive",
    "PositiveCount",
    "TypeReader",
    "Written",
    "at_least",
    "built",
    "declared",
    "free_value",
    "interpolated",
    "is_null",
    "layered",
    "literal",
    "merged",
    "no_problems",
    "read_override",
    "read_pairs",
    "read_with_bases",
    "read_yaml",
    "reference",
    "renamed",
    "shown",
    "typed",
    "write_yaml",
    "written",
]
