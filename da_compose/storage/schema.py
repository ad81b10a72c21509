"""What a file may hold: metadata of known types and ranges, tensors of known shapes, all finite.

A checksum finds damage, not forgery: whoever changes a file can sum it anew. So nothing in a file
is believed, and nothing is allocated for it but what its own tensors are as large as.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import MISSING, dataclass, fields
from math import isfinite
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from da_compose.model.domain import NAME

DEEPEST = 32  # of metadata, lists and mappings in one another
MOST = 2**24  # a whole number that says a size or a place
LONGEST = 255  # letters of a name, as of a folder's
PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SQUARES = ("var", "running_var", "exp_avg_sq")  # names of what is never negative
Made = TypeVar("Made")


@dataclass(frozen=True)
class Field:
    """One entry of a file's metadata. expected: in words."""

    expected: str
    fits: Callable[[Any], bool]
    needed: bool = True


def whole(least: int = 0, most: int = MOST) -> Field:
    """A whole number."""
    return Field(
        f"a whole number from {least} to {most}",
        lambda value: type(value) is int and least <= value <= most,
    )


def one_of(*values: Any) -> Field:
    """One of a few values."""
    return Field(" or ".join(map(repr, values)), lambda value: value in values)


def optional(field: Field) -> Field:
    """An entry that may be missing, as in older files."""
    return Field(field.expected, field.fits, needed=False)


def mapping_of(field: Field) -> Field:
    """A mapping of any names."""
    return Field(
        f"a mapping to {field.expected}",
        lambda value: isinstance(value, dict) and all(map(field.fits, value.values())),
    )


def mapping_with(schema: Mapping[str, Field]) -> Field:
    """A mapping of these names."""
    return Field(
        f"a mapping of {', '.join(schema)}",
        lambda value: isinstance(value, dict) and misfit(value, schema) is None,
    )


def is_domain_name(value: Any) -> bool:
    """Whether this is what a domain may be called."""
    return isinstance(value, str) and bool(NAME.fullmatch(value))


def are_class_names(value: Any) -> bool:
    """Whether these are different texts, each of one line, without codes for a terminal."""
    listed = isinstance(value, (list, tuple)) and len(value) > 1
    return listed and all(map(_is_name, value)) and len(set(value)) == len(value)


def _is_name(value: Any) -> bool:
    codes = isinstance(value, str) and re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", value)
    return isinstance(value, str) and value.strip() != "" and len(value) <= LONGEST and not codes


TEXT = Field("text", lambda value: isinstance(value, str) and len(value) < 1000)
FLAG = Field("true or false", lambda value: isinstance(value, bool))
MAPPING = Field("a mapping", lambda value: isinstance(value, dict))
SHARE = Field("a number from 0 to 1", lambda v: type(v) in (int, float) and 0 <= v <= 1)
FINGERPRINT = Field(
    "16 hexadecimal digits",
    lambda value: isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{16}", value)),
)
DOMAIN = Field("a domain's name, one word", is_domain_name)
DOMAINS = Field(
    "different names of domains",
    lambda v: isinstance(v, list) and all(map(is_domain_name, v)) and len(set(v)) == len(v),
)
CLASSES = Field("two or more different names of classes, each a line of text", are_class_names)
OWN_CLASSES = Field(
    f"null, or {CLASSES.expected}", lambda value: value is None or are_class_names(value)
)
OWN_PARTS = {
    "input_adapter": FLAG,
    "heads": FLAG,
    "batch_norm": FLAG,
    "own_classes": OWN_CLASSES,
}


def check_class_names(names: Iterable[Any]) -> tuple[str, ...]:
    """The names, where a file could hold them; ValueError says which could not."""
    names = in_order(names)
    if not are_class_names(names):
        wrong = [name for name in names if not _is_name(name) or names.count(name) > 1]
        raise ValueError(
            f"class names must be different texts of one line, at least 2, at most {LONGEST} "
            f"letters each, got {short(wrong[:5] or names)}"
        )
    return names


def in_order(names: Iterable[Any]) -> tuple[Any, ...]:
    """Names of classes as they are numbered; ValueError where they have no order."""
    if isinstance(names, (Set, Mapping)):
        kind = type(names).__name__
        raise ValueError(f"class_names is a {kind}, expected a list, the name of class 0 first")
    return tuple(names)


def parse(text: str) -> dict[str, Any]:
    """Metadata from JSON; ValueError where it is no mapping or nested too deeply."""
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError("its metadata are nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError(f"its metadata are a {type(found).__name__}, expected a mapping")
    level: list[Any] = [found]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if level:
        raise ValueError("its metadata are nested too deeply")
    return found


def misfit(metadata: Mapping[str, Any], schema: Mapping[str, Field]) -> str | None:
    """What of metadata does not fit a schema, in words; None where all does."""
    for name in metadata:
        if name not in schema:
            return f"{short(name)} is not known"
    for name, field in schema.items():
        if name not in metadata:
            if field.needed:
                return f"{name} is missing"
        elif not field.fits(metadata[name]):
            return f"{name} is {short(metadata[name])}, expected {field.expected}"
    return None


def check_metadata(metadata: Mapping[str, Any], schema: Mapping[str, Field]) -> None:
    """Raise ValueError where metadata do not fit a schema."""
    if (said := misfit(metadata, schema)) is not None:
        raise ValueError(said)


def made_of(kind: type[Made], values: Mapping[str, Any]) -> Made:
    """A dataclass of JSON values, each of its field's type; ValueError where one is not."""
    hints = get_type_hints(kind)
    schema = {
        one.name: Field(
            f"{one.type}",
            lambda value, hint=hints[one.name]: _is_of(value, hint),
            needed=one.default is MISSING,
        )
        for one in fields(kind)  # pyright: ignore[reportArgumentType]
    }
    check_metadata(values, schema)
    return kind(**{n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})


def _is_of(value: Any, hint: Any) -> bool:
    """Whether a value of JSON is of a type: numbers, text, tuples of one kind, or a choice."""
    if get_origin(hint) is UnionType:
        return any(_is_of(value, one) for one in get_args(hint))
    if get_origin(hint) is tuple:
        kind = get_args(hint)[0]
        return isinstance(value, list) and len(value) < MOST and all(_is_of(v, kind) for v in value)
    if hint is int:
        return type(value) is int and 0 <= value <= MOST
    if hint is float:
        return type(value) in (int, float) and isfinite(value)
    return value is None if hint is NoneType else type(value) is hint


def check_tensors(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, one_precision: bool = False
) -> None:
    """Raise ValueError where tensors are not those expected, which may be on the meta device.

    one_precision: floats may be of another one than expected, all of the same.
    """
    both = [name for name in expected if name in found]
    floats = [name for name in both if one_precision and expected[name].is_floating_point()]
    types = {name: expected[name].dtype for name in both}
    types |= dict.fromkeys(floats, found[floats[0]].dtype if floats else torch.float32)
    wrong = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of another shape": [name for name in both if found[name].shape != expected[name].shape],
        "of another type": [name for name in both if found[name].dtype != types[name]],
        "not of floats": [name for name in floats if not found[name].is_floating_point()],
    }
    if any(wrong.values()):
        raise ValueError(in_words(wrong))


def check_values(tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError where a number is not finite, or a variance of batch norm negative."""
    for name, tensor in tensors.items():
        if tensor.is_complex() or (tensor.is_floating_point() and tensor.dtype not in PRECISIONS):
            raise ValueError(f"{short(name)} is of type {tensor.dtype}")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{short(name)} is not finite")
        if name.rpartition(".")[2] in SQUARES and (tensor < 0).any():
            raise ValueError(f"{short(name)} is negative, as no mean of squares is")


def in_words(wrong: Mapping[str, Sequence[str]]) -> str:
    """What is wrong with which names, the first of them."""
    return "; ".join(
        f"{what}: {', '.join(map(short, names[:5]))}{', ...' if len(names) > 5 else ''}"
        for what, names in wrong.items()
        if names
    )


def short(value: Any, most: int = 80) -> str:
    """A value in at most a line."""
    said = value if isinstance(value, str) and value.isprintable() else repr(value)
    return said if len(said) <= most else f"{said[: most - 3]}..."
