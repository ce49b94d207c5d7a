"""From a YAML file and `--set` overrides, or a mapping and keywords, to a checked configuration, or one line
that says what is wrong.

A job's file is one mapping. `task: NAME` stands for `configs/tasks/NAME.yaml` and `plms: NAME` for
`configs/plms/NAME.yaml` (or the YAML file of that path). Relative paths are looked up from the working
directory first, then beside this package, so that what ships is found from anywhere.
"""

import types
import typing
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from configs.schema.base import ConfigError

PACKAGE_ROOT = Path(__file__).parents[1]
NAMED = {"task": Path(__file__).parent / "tasks", "plms": Path(__file__).parent / "plms"}
"""Keys whose value may be a name, and where the files of these names lie."""

Config = TypeVar("Config", bound=BaseModel)
Change = tuple[str, Any, str]
"""A dotted key, its new value, and how a person wrote that."""
NO_WAY = "{} does not lead to a key of the configuration"


def locate(path: str) -> Path:
    """A local path of a configuration: from the working directory, else beside the packages that ship."""
    here = Path(path).expanduser()
    shipped = PACKAGE_ROOT / path
    return shipped if not here.exists() and shipped.exists() else here


def load(path: str, model: type[Config], overrides: list[str] | None = None) -> Config:
    """The configuration of a file, with `key.sub=value` overrides applied; ConfigError when it is wrong."""
    return _checked(read_yaml(locate(path)), path, model, [_parsed(text) for text in overrides or []])


def resolve(
    source: str | PathLike[str] | Mapping[str, Any] | Config | None,
    model: type[Config],
    changes: Mapping[str, Any],
) -> Config:
    """The configuration of a file, a mapping or an object (None: of the changes alone), with values replaced;
    ConfigError when it is wrong.

    A change is `key=value`, or `key__sub=value` (also `**{"key.sub": value}`) for a value further down.
    """
    if isinstance(source, model) and not changes:
        return source
    path = fspath(source) if isinstance(source, str | PathLike) else model.__name__
    data = read_yaml(locate(path)) if isinstance(source, str | PathLike) else _plain(source or {})
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path}: a YAML file, a mapping or a {path} is needed, got {type(source).__name__}"
        )
    pairs = [(name.replace("__", "."), _plain(value)) for name, value in changes.items()]
    return _checked(data, path, model, [(dotted, value, f"{dotted}={value!r}") for dotted, value in pairs])


def _plain(value: Any) -> Any:  # noqa: ANN401
    """A copy without configuration objects and paths, as a file would have it."""
    if isinstance(value, BaseModel):
        return _plain(value.model_dump())
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return fspath(value) if isinstance(value, PathLike) else value


def _checked(data: dict[str, Any], path: str, model: type[Config], changes: Sequence[Change]) -> Config:
    """The configuration of a mapping, in which some values are replaced first."""
    for dotted, value, said in sorted(changes, key=lambda change: change[0] not in NAMED):
        section, dot, _ = dotted.partition(".")
        if dot:
            _expand(data, path, section)
        _apply(data, dotted, value, said)
    for key in NAMED:
        _expand(data, path, key)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_one_line(error, model)}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except PermissionError:
        raise ConfigError(f"{path}: may not be read") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder, a YAML file is needed") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a mapping of keys to values is needed, got {type(data).__name__}")
    return data


def _expand(data: dict[str, Any], path: str, key: str) -> None:
    """Put the content of a named file in the place of its name."""
    name = data.get(key)
    if key not in NAMED or not isinstance(name, str):
        return
    file = NAMED[key] / f"{name}.yaml"
    if not file.is_file():
        file = locate(name)
    if not file.is_file():
        shipped = ", ".join(sorted(p.stem for p in NAMED[key].glob("*.yaml")))
        raise ConfigError(
            f"{path}: {key}: unknown name {name!r}; allowed: {shipped}, or a YAML file of your own"
        )
    content = read_yaml(file)
    data[key] = content.get(key, content)


def _parsed(override: str) -> Change:
    """A `--set` option taken apart; its value is read as YAML."""
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise ConfigError(f"--set {override}: write it as key.sub=value")
    try:
        return dotted, yaml.safe_load(text), f"--set {override}"
    except yaml.YAMLError:
        raise ConfigError(f"--set {override}: {NO_WAY.format(dotted)}") from None


def _apply(data: dict[str, Any], dotted: str, value: Any, said: str) -> None:  # noqa: ANN401
    """Set one dotted key, list items by number."""
    *parents, last = dotted.split(".")
    node: Any = data
    try:
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        if isinstance(node, list):
            node[int(last)] = value
        else:
            node[last] = value
    except (AttributeError, TypeError, ValueError, IndexError):
        raise ConfigError(f"{said}: {NO_WAY.format(dotted)}") from None


def _one_line(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem of a validation error in one line: key, problem, what is allowed."""
    problems = error.errors(include_url=False)
    first = problems[0]
    where = _where(first["loc"], model)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{'.'.join(map(str, where)) or 'file'}: {_problem(first, where, model)}{more}"


def _problem(problem: Any, where: list[str | int], model: type[BaseModel]) -> str:  # noqa: ANN401
    kind, message = problem["type"], str(problem["msg"]).removeprefix("Value error, ")
    if kind == "extra_forbidden":
        owner = _model_at(model, where[:-1], problem.get("loc", ()))
        allowed = ", ".join(owner.model_fields) if owner else "see the documentation of this section"
        return f"unknown key; allowed: {allowed}"
    if kind == "missing":
        return "missing, it must be given"
    if kind == "union_tag_not_found":
        return f"kind is missing; allowed: {', '.join(sorted(_tags(_models_at(model, where))))}"
    if kind in {"value_error", "union_tag_invalid"}:
        return message
    return f"{message[0].lower()}{message[1:]}, got {problem['input']!r}"


def _where(loc: tuple[int | str, ...], model: type[BaseModel]) -> list[str | int]:
    """The path of keys a person wrote: without the tags that pydantic adds for unions."""
    path: list[str | int] = []
    for part in loc:
        owners = _models_at(model, path)
        named = isinstance(part, int) or not owners or any(part in owner.model_fields for owner in owners)
        if named or part not in _tags(owners):
            path.append(part)
    return path


def _tags(owners: list[type[BaseModel]]) -> set[str]:
    tags: set[str] = set()
    for owner in owners:
        kind = owner.model_fields.get("kind")
        tags |= set(get_args(kind.annotation)) if kind else set()
    return tags


def _model_at(
    model: type[BaseModel], path: list[str | int], loc: tuple[int | str, ...]
) -> type[BaseModel] | None:
    owners = _models_at(model, path)
    tagged = [owner for owner in owners if _tags([owner]) & set(loc)]
    return next(iter(tagged or owners), None)


def _models_at(model: type[BaseModel], path: list[str | int]) -> list[type[BaseModel]]:
    owners = [model]
    for part in path:
        if isinstance(part, int):
            continue
        fields = [owner.model_fields[part] for owner in owners if part in owner.model_fields]
        owners = [below for field in fields for below in _models_in(field.annotation)]
    return owners


def _models_in(annotation: Any) -> list[type[BaseModel]]:  # noqa: ANN401
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if isinstance(annotation, types.UnionType) or get_origin(annotation) in {
        typing.Union,
        typing.Annotated,
        tuple,
    }:
        return [below for argument in get_args(annotation) for below in _models_in(argument)]
    return []
