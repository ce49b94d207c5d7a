"""How pages are made from templates."""

from collections.abc import Callable, Mapping

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def environment(filters: Mapping[str, Callable[..., str]], *folders: str) -> Environment:
    """Templates of folders of this package, the first that has one; they share the base and the macros."""
    found = Environment(
        loader=ChoiceLoader([PackageLoader("jobs.report", folder) for folder in (*folders, "templates")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= filters
    return found
