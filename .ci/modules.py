#!/usr/bin/env python3
"""Checks the module structure of every crate: no import cycles, no long files, renames in one file.

A module is a file. Module A depends on module B if A's code, tests excluded, names an item that B defines: by a `use`
declaration or by a path such as `crate::b::f()` or `super::Error`. Names are followed through re-exports to the file that
defines the item. A declaration (`mod b;`) is no dependency, and neither is a re-export (`pub use b::Item;`) unless A's own
code also uses the name. A parent that uses its child while the child uses an item of the parent's file is a cycle like
any other.

    .ci/modules.py            checks the repository
    .ci/modules.py CRATE...   lists the dependencies between the modules of the crates in these folders
"""

import re
import subprocess
import sys
from pathlib import Path

MOST_LINES = 400
# The one file that renames: all others write and publish through it.
RENAMES = "common/files/src/durable.rs"

IDENTIFIER = r"(?:r#)?[A-Za-z_]\w*"
USE = re.compile(r"(?P<visible>\bpub\s*(?:\([^)]*\)\s*)?)?\buse\s+(?P<tree>[^;]+);")
PATH = re.compile(rf"(?<![\w:.])(?:::)?{IDENTIFIER}(?:\s*::\s*{IDENTIFIER})+!?")
DEFINITION = re.compile(rf"\b(?:struct|enum|union|fn|trait|type|const|static|mod|macro_rules!)\s+({IDENTIFIER})")
MODULE = re.compile(rf"\bmod\s+({IDENTIFIER})\s*;")
TEST = re.compile(r"#\[cfg\(test\)\]\s*")
LITERAL = re.compile(
    r"""//[^\n]*|/\*.*?\*/|\bb?r(?P<hashes>\#*)".*?"(?P=hashes)|b?"(?:\\.|[^"\\])*"|b?'(?:\\[^\n]*?|[^'\\\n])'""", re.DOTALL
)


def blank(text):
    """Returns the same number of lines without content."""
    return "\n" * text.count("\n")


def without_literals(source):
    """The source without comments, strings and characters."""
    return LITERAL.sub(lambda found: ("" if found[0][0] == "/" else '""') + blank(found[0]), source)


def item_end(code, start):
    """Returns the end of the item that starts at `start`: after its semicolon or its braces."""
    depth = 0
    for index in range(start, len(code)):
        letter = code[index]
        if letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
            if depth == 0 and letter == "}":
                return index + 1
        elif letter == ";" and depth == 0:
            return index + 1
    return len(code)


def without_tests(code):
    """Returns the code without test-only items."""
    while found := TEST.search(code):
        end = item_end(code, found.end())
        code = code[: found.start()] + blank(code[found.start() : end]) + code[end:]
    return code


def leaves(tree):
    """Yields the paths of a use tree, each with its local name: `a::{b, c as d}` is (a::b, b) and (a::c, d)."""
    tree = tree.strip().removeprefix("::")
    if brace := re.match(r"((?:[^{}]*::)?)\s*\{(.*)\}\s*$", tree, re.DOTALL):
        depth, part, parts = 0, "", []
        for letter in brace[2] + ",":
            depth += (letter == "{") - (letter == "}")
            if letter == "," and depth == 0:
                parts.append(part)
                part = ""
            else:
                part += letter
        for part in parts:
            if part.strip():
                yield from leaves(brace[1] + part.strip())
        return
    path, _, name = tree.partition(" as ")
    segments = [segment.strip() for segment in path.split("::")]
    if segments[-1] == "self" and len(segments) > 1:
        segments.pop()
    yield segments, name.strip() or segments[-1]


class Module:
    """A file of a crate."""

    def __init__(self, file, name, parent):
        self.file, self.name, self.parent = file, name, parent
        self.root = parent.root if parent else self
        source = file.read_text()
        self.code = re.sub(r"\bpub\s*\(in [^)]*\)", "pub(super)", without_tests(without_literals(source)))
        self.children = {}
        self.uses = []
        for found in USE.finditer(self.code):
            line = self.code.count("\n", 0, found.start()) + 1
            self.uses += [(segments, name, bool(found["visible"]), line) for segments, name in leaves(found["tree"])]
        self.names = {name: segments for segments, name, _, _ in self.uses if name not in ("*", "_")}
        self.globs = [segments[:-1] for segments, name, _, _ in self.uses if name == "*"]
        self.rest = USE.sub(lambda found: blank(found[0]), self.code)
        self.definitions = set(DEFINITION.findall(self.rest))
        own_folder = file.parent if parent is None or file.name == "mod.rs" else file.with_suffix("")
        for child in MODULE.findall(self.rest):
            places = [own_folder / f"{child}.rs", own_folder / child / "mod.rs"]
            path = next((place for place in places if place.exists()), None)
            if path is None:
                raise SystemExit(f"{file}: mod {child} has no file")
            self.children[child] = Module(path, f"{name}::{child}", self)

    def __iter__(self):
        yield self
        for child in self.children.values():
            yield from child

    def resolve(self, segments, seen=frozenset()):
        """The module that defines what a path names here; None if that is another crate's, or unknown."""
        module, first = self, segments[0]
        if first == "crate":
            module, segments = self.root, segments[1:]
        elif first == "self":
            segments = segments[1:]
        elif first == "super":
            while segments and segments[0] == "super":
                module, segments = module.parent or module, segments[1:]
        elif first not in self.children and first not in self.names and first not in self.definitions:
            return None
        while segments and segments[0] in module.children:
            module, segments = module.children[segments[0]], segments[1:]
        if not segments:
            return module
        name = segments[0]
        if (module, name) in seen:
            return None
        seen = seen | {(module, name)}
        if name in module.definitions:
            return module
        if name in module.names:
            return module.resolve(module.names[name] + segments[1:], seen)
        if macro := self.macro(name):
            return macro
        for target in module.globs:
            through = module.resolve(target, seen)
            found = through and through.resolve(["self", *segments], seen)
            if found:
                return found
        return None

    def macro(self, name):
        """Returns the module that defines the macro of this name, which is visible in the crate's root."""
        defines = re.compile(rf"\bmacro_rules!\s+{name}\b")
        return next((module for module in self.root if defines.search(module.code)), None)

    def dependencies(self):
        """Returns the modules whose items this one names, each with the first such line."""
        found = {}

        def note(module, line):
            if module and module is not self:
                found.setdefault(module, line)

        for segments, name, visible, line in self.uses:
            if name == "*":
                # A glob import of a child or of the parent: uses of its names cannot be distinguished.
                if not visible:
                    note(self.resolve(segments[:-1]), line)
                continue
            used = re.search(rf"(?<![\w:.]){re.escape(name)}\b", self.rest)
            path = ["self", *segments] if segments[0] in self.children else segments
            is_module = self.names_module(path)
            if not is_module and (used or not visible):
                note(self.resolve(path), line)
        for path in PATH.finditer(self.rest):
            segments = [segment.strip() for segment in path[0].rstrip("!").split("::") if segment.strip()]
            note(self.resolve(segments), self.rest.count("\n", 0, path.start()) + 1)
        return found

    def names_module(self, segments):
        """Whether a path names a module itself: the dependencies are then the items used through it."""
        target = self.resolve(segments)
        return target is not None and (segments[-1] in ("super", "self", "crate") or (
            target.name.rsplit("::", 1)[-1] == segments[-1] and target.parent is not None
            and segments[-1] not in target.parent.definitions - set(target.parent.children)
        ))


def roots(folder):
    """The library and the program of a crate."""
    return [folder / "src" / name for name in ("lib.rs", "main.rs") if (folder / "src" / name).exists()]


def cycles(root):
    """Yields faults: the groups of modules that depend on each other, each with the lines of one shortest cycle."""
    graph = {module: module.dependencies() for module in root}

    def reach(start):
        """Returns a shortest path from a module back to itself, and all its dependencies."""
        before, queue, way = {}, [start], None
        for module in queue:
            for other in graph[module]:
                if other is start and way is None:
                    way = [start, module]
                    while way[-1] is not start:
                        way.append(before[way[-1]])
                if other not in before:
                    before[other] = module
                    queue.append(other)
        return way and way[::-1], set(before)

    reached = {module: reach(module) for module in graph}
    done = set()
    for module, (way, others) in sorted(reached.items(), key=lambda item: len(item[1][0] or [])):
        if way is None or module in done:
            continue
        group = {other for other in others if module in reached[other][1]}
        done |= group
        steps = [f"    {one.file}:{graph[one][other]} uses {other.file}" for one, other in zip(way, way[1:])]
        yield "\n".join([f"import cycle of {', '.join(sorted(str(member.file) for member in group))}", *steps])


def main():
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], capture_output=True, text=True, check=True)
    files = [Path(name) for name in listed.stdout.split("\n") if name and Path(name).exists()]
    faults = []
    if sys.argv[1:]:
        for file in (file for folder in sys.argv[1:] for file in roots(Path(folder))):
            for module in Module(file, "crate", None):
                for other, line in sorted(module.dependencies().items(), key=lambda item: item[1]):
                    print(f"{module.file}:{line}: {other.file}")
        return 0
    for manifest in (file for file in files if file.name == "Cargo.toml" and file.parts[0] != "fuzz"):
        for root in roots(manifest.parent):
            faults += cycles(Module(root, "crate", None))
    for file in (file for file in files if file.suffix == ".rs"):
        source = file.read_text()
        if (lines := source.count("\n")) > MOST_LINES:
            faults.append(f"{file}: {lines} lines, expected at most {MOST_LINES}")
        if "tests" not in file.parts and str(file) != RENAMES and re.search(r"\bfs::rename\b", without_tests(without_literals(source))):
            faults.append(f"{file}: fs::rename, expected only in {RENAMES}")
    print("\n".join(faults) if faults else "No import cycle, no file that is too long, no rename outside durable.rs.")
    return min(len(faults), 1)


if __name__ == "__main__":
    sys.exit(main())
