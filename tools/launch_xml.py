"""Read the subset of ROS 2 launch XML that this project uses into a list of processes to start.

Tags, attributes and substitutions are those of the `launch_xml` and `launch_ros` packages, and mean the same;
what is not in the subset is refused by name, never passed over.
"""

from __future__ import annotations

import os
import shlex
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import yaml

CONDITIONS = {"if", "unless"}
PROCESS = {"name", "output", "cwd", "on_exit", *CONDITIONS}
TAGS: dict[str, set[str]] = {
    "launch": set(),
    "arg": {"name", "default", "description", *CONDITIONS},
    "let": {"name", "value", *CONDITIONS},
    "node": {"pkg", "exec", "namespace", "args", *PROCESS},
    "executable": {"cmd", *PROCESS},
    "param": {"name", "value", "from", "type"},
    "remap": {"from", "to"},
    "env": {"name", "value"},
    "group": {"scoped", *CONDITIONS},
    "push-ros-namespace": {"namespace", *CONDITIONS},
    "set_env": {"name", "value", *CONDITIONS},
    "include": {"file", *CONDITIONS},
}
CHILDREN = {
    "launch": {"arg", "let", "node", "executable", "group", "push-ros-namespace", "set_env", "include"},
    "group": {"let", "node", "executable", "group", "push-ros-namespace", "set_env", "include"},
    "node": {"param", "remap", "env"},
    "executable": {"env"},
    "include": {"arg"},
}
SUBSTITUTIONS = (
    "$(var x), $(env X default), $(find-pkg-share package), $(find-pkg-prefix package), $(dirname)"
)


class LaunchFileError(Exception):
    """What is wrong with a launch file or its arguments, and what would be right."""


@dataclass(frozen=True)
class Argument:
    """A declared argument: `default` is None when a value must be given."""

    name: str
    default: str | None
    description: str


@dataclass(frozen=True)
class Process:
    """One process to start; `required` means that its end ends all of them."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    cwd: str | None = None
    required: bool = False
    stderr_only: bool = False


@dataclass
class Scope:
    """What substitutions see at one place of a file."""

    file: Path
    variables: dict[str, str]
    environment: dict[str, str]
    namespace: str = ""

    def copy(self) -> Scope:
        return Scope(self.file, dict(self.variables), dict(self.environment), self.namespace)


def read_launch_file(file: Path, settings: dict[str, str], scratch: Path) -> list[Process]:
    """The processes of a launch file, with `settings` for its arguments. Raises LaunchFileError.

    Parameters set in the file itself are written into the folder `scratch`, which must outlive the processes.
    """
    declared = {argument.name for argument in declared_arguments(file)}
    unknown = sorted(set(settings) - declared)
    if unknown:
        known = ", ".join(sorted(declared)) or "none"
        raise LaunchFileError(f"{file.name} has no argument {', '.join(unknown)}; it has: {known}")
    return _Reader(scratch).file(Scope(file, dict(settings), {}))


def declared_arguments(file: Path) -> list[Argument]:
    return [
        Argument(_required(tag, "name", file), tag.get("default"), tag.get("description", ""))
        for tag in _parse(file).iter("arg")
        if "value" not in tag.attrib
    ]


def show_arguments(file: Path) -> str:
    """What `--show-args` prints, in the manner of `ros2 launch`."""
    lines = ["Arguments (pass arguments as '<name>:=<value>'):"]
    for argument in declared_arguments(file):
        lines += ["", f"    '{argument.name}':", f"        {argument.description or 'no description given'}"]
        if argument.default is not None:
            lines.append(f"        (default: '{argument.default}')")
    return "\n".join(lines) if len(lines) > 1 else "No arguments."


def _parse(file: Path) -> ElementTree.Element:
    try:
        root = ElementTree.parse(file).getroot()
    except OSError as error:
        raise LaunchFileError(f"{file}: cannot be read ({error.strerror})") from error
    except ElementTree.ParseError as error:
        raise LaunchFileError(f"{file}: not XML: {error}") from error
    if root.tag != "launch":
        raise LaunchFileError(f"{file}: the outermost tag is <{root.tag}>, not <launch>")
    return root


def _required(tag: ElementTree.Element, attribute: str, file: Path) -> str:
    if attribute not in tag.attrib:
        raise LaunchFileError(f"{file}: <{tag.tag}> needs the attribute {attribute!r}")
    return tag.attrib[attribute]


class _Reader:
    """Walks the tags in order, as launch does: what is set above is seen below."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch

    def file(self, scope: Scope) -> list[Process]:
        return self._children(_parse(scope.file), scope)

    def _children(self, parent: ElementTree.Element, scope: Scope) -> list[Process]:
        found: list[Process] = []
        for tag in parent:
            self._check(tag, parent, scope)
            if not self._wanted(tag, scope):
                continue
            if tag.tag == "arg":
                self._declare(tag, scope)
            elif tag.tag == "let":
                scope.variables[_required(tag, "name", scope.file)] = self._get(tag, "value", scope)
            elif tag.tag == "set_env":
                scope.environment[_required(tag, "name", scope.file)] = self._get(tag, "value", scope)
            elif tag.tag == "push-ros-namespace":
                scope.namespace = _join_namespace(scope.namespace, self._get(tag, "namespace", scope))
            elif tag.tag == "group":
                scoped = _truth(self._get(tag, "scoped", scope, "true"), tag, scope)
                found += self._children(tag, scope.copy() if scoped else scope)
            elif tag.tag == "include":
                found += self._include(tag, scope)
            else:
                found.append(self._node(tag, scope) if tag.tag == "node" else self._executable(tag, scope))
        return found

    def _check(self, tag: ElementTree.Element, parent: ElementTree.Element, scope: Scope) -> None:
        allowed = CHILDREN.get(parent.tag, set())
        if tag.tag not in allowed:
            raise LaunchFileError(
                f"{scope.file}: <{tag.tag}> is not supported inside <{parent.tag}>; supported there: "
                f"{', '.join(f'<{name}>' for name in sorted(allowed)) or 'nothing'}"
            )
        attributes = {"name", "value"} if parent.tag == "include" else TAGS[tag.tag]
        unknown = sorted(set(tag.attrib) - attributes)
        if unknown:
            raise LaunchFileError(
                f"{scope.file}: <{tag.tag}> does not support the attribute {', '.join(unknown)}; "
                f"supported: {', '.join(sorted(attributes))}"
            )

    def _wanted(self, tag: ElementTree.Element, scope: Scope) -> bool:
        for attribute, wanted in (("if", True), ("unless", False)):
            if attribute in tag.attrib and _truth(self._get(tag, attribute, scope), tag, scope) != wanted:
                return False
        return True

    def _declare(self, tag: ElementTree.Element, scope: Scope) -> None:
        name = _required(tag, "name", scope.file)
        if name in scope.variables:
            return
        if "default" not in tag.attrib:
            raise LaunchFileError(f"{scope.file}: the argument {name!r} needs a value: {name}:=...")
        scope.variables[name] = self._get(tag, "default", scope)

    def _include(self, tag: ElementTree.Element, scope: Scope) -> list[Process]:
        inner = scope.copy()
        inner.file = Path(self._get(tag, "file", scope))
        for argument in tag:
            self._check(argument, tag, scope)
            name = _required(argument, "name", scope.file)
            inner.variables[name] = self._get(argument, "value", scope)
        return self.file(inner)

    def _node(self, tag: ElementTree.Element, scope: Scope) -> Process:
        package, executable = self._get(tag, "pkg", scope), self._get(tag, "exec", scope)
        path = Path(_package_prefix(package)) / "lib" / package / executable
        if not os.access(path, os.X_OK):
            have = (
                ", ".join(sorted(p.name for p in path.parent.glob("*"))) if path.parent.is_dir() else "none"
            )
            raise LaunchFileError(f"package {package!r} has no executable {executable!r}; it has: {have}")
        ros = []
        name = self._get(tag, "name", scope, "")
        namespace = _join_namespace(scope.namespace, self._get(tag, "namespace", scope, ""))
        if name:
            ros += ["-r", f"__node:={name}"]
        if namespace:
            ros += ["-r", f"__ns:={namespace}"]
        for child in tag:
            self._check(child, tag, scope)
            if child.tag == "remap":
                ros += ["-r", f"{self._get(child, 'from', scope)}:={self._get(child, 'to', scope)}"]
            elif child.tag == "param":
                ros += ["--params-file", self._param_file(child, scope, _full_name(namespace, name))]
        command = [str(path), *shlex.split(self._get(tag, "args", scope, ""))]
        command += ["--ros-args", *ros] if ros else []
        return self._process(tag, scope, name or executable, command)

    def _executable(self, tag: ElementTree.Element, scope: Scope) -> Process:
        command = shlex.split(self._get(tag, "cmd", scope))
        if not command:
            raise LaunchFileError(f"{scope.file}: <executable> has an empty cmd")
        return self._process(tag, scope, self._get(tag, "name", scope, Path(command[0]).name), command)

    def _process(self, tag: ElementTree.Element, scope: Scope, name: str, command: list[str]) -> Process:
        environment = dict(scope.environment)
        for child in tag.findall("env"):
            self._check(child, tag, scope)
            environment[_required(child, "name", scope.file)] = self._get(child, "value", scope)
        on_exit, output = tag.get("on_exit"), self._get(tag, "output", scope, "screen")
        if on_exit not in (None, "shutdown"):
            raise LaunchFileError(
                f"{scope.file}: on_exit={on_exit!r} is not supported; supported: shutdown, "
                "or no such attribute (ros2 launch, too, reads it literally, without $(...))"
            )
        if output not in ("screen", "both", "log"):
            raise LaunchFileError(
                f"{scope.file}: output={output!r} is not supported; supported: screen, both, log"
            )
        return Process(
            name=name,
            command=tuple(command),
            environment=environment,
            cwd=self._get(tag, "cwd", scope, "") or None,
            required=on_exit == "shutdown",
            stderr_only=output == "log",
        )

    def _param_file(self, tag: ElementTree.Element, scope: Scope, node: str) -> str:
        """A parameter as a file: its value is read as YAML, which is how launch finds out the type."""
        if "from" in tag.attrib:
            path = self._get(tag, "from", scope)
            if not Path(path).is_file():
                raise LaunchFileError(f"{scope.file}: no parameter file {path}")
            return path
        name, text = _required(tag, "name", scope.file), self._get(tag, "value", scope)
        kind = tag.get("type", "")
        if kind not in ("", "str"):
            raise LaunchFileError(f"{scope.file}: <param type={kind!r}> is not supported; supported: str")
        try:
            value = text if kind == "str" else yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise LaunchFileError(
                f"{scope.file}: parameter {name}: {text!r} is not YAML ({error})"
            ) from error
        value = "" if value is None else value
        number, path = tempfile.mkstemp(prefix=f"{name}_", suffix=".yaml", dir=self.scratch)
        with os.fdopen(number, "w", encoding="utf-8") as file:
            yaml.safe_dump({node: {"ros__parameters": {name: value}}}, file)
        return path

    def _get(self, tag: ElementTree.Element, attribute: str, scope: Scope, default: str | None = None) -> str:
        if attribute not in tag.attrib and default is not None:
            return default
        return substitute(_required(tag, attribute, scope.file), scope)


def _truth(text: str, tag: ElementTree.Element, scope: Scope) -> bool:
    known = {"true": True, "1": True, "false": False, "0": False}
    if text.strip().lower() not in known:
        raise LaunchFileError(f"{scope.file}: condition of <{tag.tag}> is {text!r}, not true, false, 1 or 0")
    return known[text.strip().lower()]


def _join_namespace(outer: str, inner: str) -> str:
    if not inner or inner.startswith("/"):
        return inner.rstrip("/") or outer
    return f"{outer}/{inner}".rstrip("/") if outer else f"/{inner}".rstrip("/")


def _full_name(namespace: str, name: str) -> str:
    """Whose parameters: one node's, or (name not known here) any node's of the process."""
    return f"{namespace}/{name}" if name else "/**"


def _package_prefix(package: str) -> str:
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        return str(get_package_prefix(package))
    except (PackageNotFoundError, ValueError) as error:
        raise LaunchFileError(f"no package {package!r} in this workspace ({error})") from error


def substitute(text: str, scope: Scope) -> str:
    """Replace every $(...), from the innermost outwards."""
    result, at = "", 0
    while (start := text.find("$(", at)) >= 0:
        depth, end = 1, start + 2
        while end < len(text) and depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        if depth:
            raise LaunchFileError(f"{scope.file}: no closing bracket in {text!r}")
        result += text[at:start] + _resolve(substitute(text[start + 2 : end - 1], scope), scope)
        at = end
    return result + text[at:]


def _resolve(inside: str, scope: Scope) -> str:
    kind, _, rest = inside.strip().partition(" ")
    rest = rest.strip()
    resolvers: dict[str, Callable[[str], str]] = {
        "var": lambda name: _variable(name, scope),
        "env": lambda words: _environment_variable(words, scope),
        "find-pkg-share": lambda name: os.path.join(_package_prefix(name), "share", name),
        "find-pkg-prefix": _package_prefix,
        "dirname": lambda _: str(scope.file.resolve().parent),
    }
    if kind not in resolvers:
        raise LaunchFileError(f"{scope.file}: $({inside}) is not supported; supported: {SUBSTITUTIONS}")
    return resolvers[kind](rest)


def _variable(name: str, scope: Scope) -> str:
    if name not in scope.variables:
        known = ", ".join(sorted(scope.variables)) or "none"
        raise LaunchFileError(
            f"{scope.file}: $(var {name}): no such argument or let above; there are: {known}"
        )
    return scope.variables[name]


def _environment_variable(words: str, scope: Scope) -> str:
    name, _, default = words.partition(" ")
    value = scope.environment.get(name, os.environ.get(name))
    if value is None:
        if not default:
            raise LaunchFileError(
                f"{scope.file}: $(env {name}): not set; give a default: $(env {name} value)"
            )
        return default.strip().strip("'\"")
    return value
