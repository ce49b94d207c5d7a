"""What of the site is made from the code: configuration, commands, Python modules, files that ship, changes.

    configs/schema   ->  reference/configuration/*.md   a section per model, a row per key
    jobs/__main__.py ->  reference/commands.md          arguments and options of each command
    fusion           ->  reference/python/*.md          what mkdocstrings is told to show

MkDocs calls the functions `on_…`; everything else works without MkDocs.
"""

import importlib
import pkgutil
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from configs.schema.base import Strict
from configs.schema.compare import CompareConfig
from configs.schema.evidence import EvidenceConfig
from configs.schema.foe import FoeConfig
from configs.schema.fusegen import PRESETS, VARIANTS, FusegenConfig
from configs.schema.merge import MergeConfig
from configs.schema.pretrain import PretrainConfig
from configs.schema.serve import Serving

ROOT = Path(__file__).parents[1]
JOBS: dict[str, type[Strict]] = {
    "fusegen": FusegenConfig,
    "foe": FoeConfig,
    "merge": MergeConfig,
    "compare": CompareConfig,
    "serve": Serving,
    "pretrain": PretrainConfig,
    "evidence": EvidenceConfig,
}
"""What the file of each job is checked against."""
SHARED = {
    "plm": "Models that write",
    "expert": "Experts that answer",
    "stm": "Small task models",
    "task": "Tasks and texts",
}
"""Parts that several jobs have in common, by module."""
PLAIN: dict[Any, str] = {int: "integer", float: "number", str: "text", bool: "`true` or `false`"}
BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
SHIM = '<script src="https://unpkg.com/iframe-worker/shim"></script>'
IMAGE = re.compile(r'<p><img alt="([^"]*)" src="[^"]*figures/([a-z-]+\.svg)"\s*/?></p>')

Part = tuple[type[BaseModel], str]
"""A model, and the keys that lead to it."""


API = ("generation", "routing", "router", "merging", "comparing", "classifier", "base")
"""Modules of `jobs.api` that have something public."""


def pages() -> dict[str, str]:
    """Text of every page that is made from the code, by its place in the site."""
    found = {"reference/commands.md": commands(), "changelog.md": (ROOT / "CHANGELOG.md").read_text()}
    found["reference/configuration/shipped.md"] = shipped()
    for name in (*JOBS, *SHARED):
        found[f"reference/configuration/{name}.md"] = configuration(name)
    for package in ("generation", "routing", "merging"):
        found[f"reference/python/{package}.md"] = package_page(package)
    found["reference/python/statistics.md"] = "# Statistics\n\n::: fusion.statistics\n"
    found["reference/python/api.md"] = "# Jobs\n\n" + "\n".join(f"::: jobs.api.{name}\n" for name in API)
    return found


# Configuration


def configuration(name: str) -> str:
    """The page of a job's file, or of a part that several jobs share."""
    places = used()
    mine = [model for model in places if _page_of(model) == name]
    if name in JOBS:
        title = f"jobs {name}"
        mine.sort(key=lambda model: model is not JOBS[name])
    else:
        title = SHARED[name]
    doc = importlib.import_module(f"configs.schema.{name}").__doc__ or ""
    sections = [section(model, places) for model in mine]
    extra = [presets()] if name == "fusegen" else []
    return "\n\n".join([f"# {title}", _prose(doc), *sections, *extra]) + "\n"


def used() -> dict[type[BaseModel], list[str]]:
    """Models that files are made of, in the order in which one meets them, and where each may stand."""
    found: dict[type[BaseModel], list[str]] = {}
    for job, root in JOBS.items():
        for model, path in _below(root, ""):
            places = found.setdefault(model, [])
            if path:
                places.append(f"{job}: {path}")
    return found


def _below(model: type[BaseModel], path: str) -> Iterator[Part]:
    yield model, path
    for key, field in model.model_fields.items():
        for part, inner in _models(field.annotation):
            yield from _below(part, f"{path}.{key}{inner}".lstrip("."))


def _models(annotation: Any) -> Iterator[Part]:  # noqa: ANN401
    """Models in a type, and what stands for an item where they are those of a list or mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, ""
        return
    items = {tuple: "[]", dict: ".NAME"}.get(get_origin(annotation), "")
    for argument in get_args(annotation) if get_origin(annotation) is not Literal else ():
        for model, inner in _models(argument):
            yield model, items + inner


def _page_of(model: type[BaseModel]) -> str:
    return model.__module__.rpartition(".")[2]


def section(model: type[BaseModel], places: dict[type[BaseModel], list[str]]) -> str:
    """A model: what it is, where it stands, and its keys."""
    name = model.__name__
    parent = next((base for base in model.__mro__[1:] if base in places), None)
    title = "The file" if model in JOBS.values() else name
    lines = [f"## {title} {{#{name.lower()}}}", "", _prose(model.__doc__ or ""), ""]
    if places[model]:
        lines += ["At " + ", ".join(f"`{place}`" for place in dict.fromkeys(places[model])) + ".", ""]
    if parent:
        lines += [f"It has all keys of {_link(parent, _page_of(model))}; only what differs is here.", ""]
    lines += ["| key | value | default | |", "|---|---|---|---|"]
    own = model.__annotations__
    lines += [
        _row(key, field, _page_of(model))
        for key, field in model.model_fields.items()
        if not parent or (key in own and get_origin(own[key]) is not ClassVar)
    ]
    return "\n".join(lines)


def _row(key: str, field: FieldInfo, page: str) -> str:
    extra = field.json_schema_extra
    about = _prose(field.description or "").replace("\n", " ")
    if key == "kind" and not about:
        about = "Says that it is this one."
    if isinstance(extra, dict) and extra.get("resource"):
        about += " *May change when a run goes on.*"
    cells = (f"`{key}`", _type(field, page), _default(field), about)
    return _cells(*cells)


def _cells(*cells: str) -> str:
    """A row of a table; bars are safe in code, and are escaped elsewhere."""
    parts = [cell.split("`") for cell in cells]
    safe = ["`".join(p if n % 2 else p.replace("|", "\\|") for n, p in enumerate(part)) for part in parts]
    return f"| {' | '.join(safe)} |"


def _type(field: FieldInfo, page: str) -> str:
    arguments = get_args(field.annotation)
    if type(None) in arguments and field.metadata:  # bounds concern what is not null
        kept = [one for one in arguments if one is not type(None)]
        name = " or ".join(_name(one, page) for one in kept)
        return f"{_with_limits(name, field.metadata)} or `null`"
    return _with_limits(_name(field.annotation, page), field.metadata)


def _name(annotation: Any, page: str) -> str:  # noqa: ANN401, PLR0911
    """A type in words, with links to models."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in PLAIN:
        return PLAIN[annotation]
    if annotation is type(None):
        return "`null`"
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is Annotated:
        return _with_limits(_name(arguments[0], page), arguments[1:])
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(_name(argument, page) for argument in arguments)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"list of {_name(arguments[0], page)}"
        return "list: " + ", ".join(_name(argument, page) for argument in arguments)
    if origin is dict:
        return f"mapping of names to {_name(arguments[1], page)}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _link(annotation, page)
    return "any value"


def _with_limits(name: str, metadata: typing.Iterable[Any]) -> str:
    """A type with its bounds, pattern and least length."""
    said = []
    for part in metadata:
        for one in getattr(part, "metadata", [part]):  # a Field inside of Annotated has some of its own
            said += [f"{word} {getattr(one, key):g}" for key, word in BOUNDS.items() if hasattr(one, key)]
            if getattr(one, "min_length", None):
                said.append(f"({one.min_length} at least)" if name.startswith("list") else "(not empty)")
            if getattr(one, "pattern", None):
                said.append(f"like `{one.pattern}`")
    return f"{name} {' and '.join(said)}".strip()


def _link(model: type[BaseModel], page: str) -> str:
    place = _page_of(model)
    return f"[{model.__name__}]({'' if place == page else place + '.md'}#{model.__name__.lower()})"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        given = value.model_dump(mode="json", exclude_defaults=True)
        kind = getattr(value, "kind", None)
        return f"`{_inline({'kind': kind, **given} if kind else given)}`" if kind or given else "its defaults"
    return f"`{_inline(value)}`"


def _inline(value: Any) -> str:  # noqa: ANN401
    value = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _prose(doc: str) -> str:
    """A docstring with every line at the margin, and indented parts as they are."""
    first, _, rest = doc.strip().partition("\n")
    lines = rest.splitlines()
    margin = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return "\n".join([first, *(line[margin:] for line in lines)])


def presets() -> str:
    """What presets and variants of FuseGen change."""
    rows = ["## Presets {#presets}", "", "What a file says counts more than its preset.", ""]
    rows += ["| `preset` | what it sets |", "|---|---|"]
    rows += [f"| `{name}` | {_switches(sections)} |" for name, sections in PRESETS.items()]
    rows += ["", "## Variants {#variants}", "", "A variant counts more than the file.", ""]
    rows += ["| `variant` | what it sets |", "|---|---|"]
    rows += [f"| `{name}` | {_switches(sections)} |" for name, sections in VARIANTS.items()]
    return "\n".join(rows)


def _switches(sections: dict[str, dict[str, Any]]) -> str:
    keys = [f"`{s}.{key}: {_inline(v)}`" for s, switches in sections.items() for key, v in switches.items()]
    return ", ".join(keys) or "nothing"


def shipped() -> str:
    """The files of jobs that ship, with what their first lines say."""
    rows = ["# Files that ship", "", "| file | what it is |", "|---|---|"]
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        if path.parent.name in {"schema", "voices", "tasks", "plms"}:
            continue
        head = path.read_text().partition("\n\n")[0]
        comment = [line.removeprefix("#").strip() for line in head.splitlines() if line.startswith("#")]
        about = " ".join(comment).partition("python -m")[0].rstrip(" .:") or yaml.safe_load(head)["name"]
        rows.append(f"| `{path.relative_to(ROOT)}` | {about} |")
    for kind, key in (("tasks", "task"), ("plms", "plms")):
        names = ", ".join(f"`{path.stem}`" for path in sorted((ROOT / "configs" / kind).glob("*.yaml")))
        rows.append(f"| `configs/{kind}/` | what `{key}:` may name: {names} |")
    return "\n".join(rows) + "\n"


# Commands


def commands() -> str:
    """All commands with their arguments and options, from what `--help` is made of."""
    import typer

    from jobs.__main__ import app

    group = typer.main.get_command(app)
    lines = [
        "# Commands",
        "",
        "Each is `python -m jobs COMMAND …`; the wheel also installs it as `jobs COMMAND …`. `--help` says "
        "the same as this page, and `python -m jobs --version` which version it is.",
        "",
        "## Exit status",
        "",
        "| status | |",
        "|---|---|",
        "| 0 | done |",
        "| 1 | the run failed: one line says which step, and why; start the same command again to go on |",
        "| 2 | bad configuration or usage: one line says file, key, problem, and what is allowed |",
        "| 130 | interrupted |",
    ]
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        lines += ["", f"## {name}", "", command.help, "", *_usage(name, command)]
    return "\n".join(lines) + "\n"


def _usage(name: str, command: Any) -> Iterator[str]:  # noqa: ANN401
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option"]
    words = " ".join(one.metavar or one.name.upper() for one in arguments)
    yield f"```text\npython -m jobs {name} [OPTIONS] {words}\n```\n"
    yield "| | value | default | |\n|---|---|---|---|"
    for one in arguments:
        yield _cells(f"`{one.metavar}`", "", "**required**", one.help)
    for one in options:
        if "--help" in one.opts:
            continue
        value = "" if one.is_flag else f"`{one.metavar or _kind(one)}`"
        default = "" if one.default is None or one.is_flag else f"`{one.default}`"
        yield _cells(f"`{one.opts[0]}`", value, default, one.help)


def _kind(option: Any) -> str:  # noqa: ANN401
    return "TEXT" if option.type_descriptor.annotation is str else "NUMBER"


# Python


def package_page(package: str) -> str:
    """What mkdocstrings is told to show of a package of `fusion`."""
    found = importlib.import_module(f"fusion.{package}")
    lines = [f"# {package.capitalize()}", "", _prose(found.__doc__ or "")]
    for module in pkgutil.iter_modules(found.__path__):
        lines += ["", f"## {module.name}", "", f"::: fusion.{package}.{module.name}"]
        lines += ["    options:", "      heading_level: 3"]
    return "\n".join(lines) + "\n"


# MkDocs


def on_files(files: Any, config: Any) -> Any:  # noqa: ANN401
    """Add the pages that are made from the code."""
    from mkdocs.structure.files import File

    for place, text in pages().items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_content(html: str, page: Any, **_: Any) -> str:  # noqa: ANN401
    """Put figures into the page itself, where they take its colours; tell tables of keys from others."""
    if page.file.src_uri.startswith(("reference/configuration/", "reference/commands")):
        return f'<div class="keys">{html}</div>'
    return IMAGE.sub(lambda found: _figure(found[1], found[2]), html)


def on_post_page(output: str, **_: Any) -> str:  # noqa: ANN401
    """Put a script of ours where the plugin `offline` would fetch one from elsewhere."""
    script = (ROOT / "docs/assets/search-from-disk.js").read_text()
    return output.replace(SHIM, f"<script>{script}</script>")


def on_post_template(output_content: str, **_: Any) -> str:  # noqa: ANN401
    """The same for pages without a source, such as 404."""
    return on_post_page(output_content)


def _figure(about: str, name: str) -> str:
    drawing = (ROOT / "docs/figures" / name).read_text()
    return f'<figure class="drawing" role="img" aria-label="{about}">{drawing}</figure>'
