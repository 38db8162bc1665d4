#!/usr/bin/env python3
"""The house rules that a compiler does not check, over every file that git knows.

Each rule is a function from a path and its text to complaints. Before the tree is looked at, each
proves itself: it has to complain about its bad samples, and to leave its good ones alone.
"""

import functools
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LINES_MAX = 800
FUNCTION_LINES_MAX = 70
FOLDERS = {"dataplane", "tenants", "sampling", "routing", "config", "perf", "tests", "docker"}
TOP_LEVEL = FOLDERS | {"CMakeLists.txt", "CMakePresets.json", "Makefile", "README.md", "LICENSE"}
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"', re.M)
ANY_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+(["<][^">]+[">])', re.M)
UNDONE = re.compile(r"\b(TO" r"DO|FIX" r"ME)\b")  # in two parts: this file obeys too


def expand(pattern):
    """dataplane/{io,tls} -> dataplane/io, dataplane/tls"""
    found = re.fullmatch(r"(.*)\{(.*)\}(.*)", pattern)
    if not found:
        return [pattern]
    return [found[1] + middle + found[3] for middle in found[2].split(",")]


def parse_layers(text):
    """Folder -> the folders that it may include."""
    layers = {}
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if not words:
            continue
        above = list(layers)
        if words[1:3] == ["everything", "above"]:
            but = expand(words[4]) if words[3:4] == ["but"] else []
            allowed = [folder for folder in above if folder not in but]
        else:
            allowed = [one for word in words[1:] if word != "-" for one in expand(word)]
        for folder in expand(words[0]):
            layers[folder] = set(allowed) | {folder}
    return layers


@functools.cache
def layers():
    with open(os.path.join(ROOT, "tests/tidy/layers.txt"), encoding="utf-8") as file:
        return parse_layers(file.read())


def layer_of(path):
    fits = [folder for folder in layers() if path.startswith(folder + "/")]
    return max(fits, key=len, default=None)


def is_c(path):
    return path.endswith((".c", ".h"))


def check_layers(path, text):
    own = layer_of(path)
    if not is_c(path) or not own:
        return
    for include in INCLUDE.findall(text):
        other = layer_of(include)
        if other and other not in layers()[own]:
            yield f"{own} may not include {include}"


def check_include_paths(path, text):
    if not is_c(path):
        return
    for include in INCLUDE.findall(text):
        if include.split("/")[0] not in FOLDERS or "/" not in include:
            yield f'"{include}" is not a path from the root'


def check_own_header(path, text, exists=None):
    header = path[:-2] + ".h"
    exists = exists or (lambda name: os.path.exists(os.path.join(ROOT, name)))
    first = ANY_INCLUDE.search(text)
    internal = os.path.dirname(path) + "/internal.h"  # the folder's own, it includes the public one
    taken = {f'"{header}"', f'"{internal}"'}
    if path.endswith(".c") and exists(header) and (not first or first[1] not in taken):
        yield f'"{header}" has to be its first include'


def check_header(path, text):
    if not path.endswith(".h"):
        return
    if not text.startswith("#pragma once\n"):
        yield "a header begins with #pragma once"
    public = not path.startswith("tests/") and os.path.basename(path) != "internal.h"
    if public and re.search(r"^[a-z][^#=({]*\bsl_\w+\([^{]*?\);", text, re.M):
        if "Threading" not in text:
            yield "a public header has a Threading line"


def check_file_length(path, text):
    count = text.count("\n")
    if is_c(path) and count > LINES_MAX:
        yield f"{count} lines, {LINES_MAX} are the most"


def check_function_length(path, text):
    start = None
    for number, line in enumerate(text.splitlines(), 1) if path.endswith(".c") else ():
        if line == "{":
            start = number
        elif line == "}" and start:
            if number - start - 1 > FUNCTION_LINES_MAX:
                yield f"line {start}: a function of {number - start - 1} lines"
            start = None


def check_undone(path, text):
    for number, line in enumerate(text.splitlines(), 1):
        if UNDONE.search(line):
            yield f"line {number}: work that is left undone belongs in no file"


def check_banners(path, text):
    for number, line in enumerate(text.splitlines(), 1) if is_c(path) else ():
        if re.match(r"\s*(//|/\*)\s*[-=*#~/]{4,}", line):
            yield f"line {number}: a banner"


def check_top_level(path, text):
    top = path.split("/")[0]
    if top not in TOP_LEVEL and not top.startswith("."):
        yield f"{top} has no place at the top level"


# rule, bad samples, good samples; a sample is a path and a text.
RULES = [
    (check_layers,
     [("dataplane/base/a.c", '#include "dataplane/io/io.h"\n'),
      ("dataplane/otlp/a.h", '#include "dataplane/http/http.h"\n'),
      ("tenants/deep/a.c", '#include "routing/routing.h"\n'),
      ("config/control/a.c", '#include "dataplane/shard/shard.h"\n')],
     [("dataplane/otlp/a.c", '#include "dataplane/base/base.h"\n'),
      ("config/control/a.c", '#include "routing/routing.h"\n'),
      ("dataplane/shard/a.c", '#include "tenants/tenants.h"\n'),
      ("dataplane/main.c", '#include "config/control/control.h"\n')]),
    (check_include_paths,
     [("dataplane/io/a.c", '#include "io.h"\n'), ("dataplane/io/a.c", '#include "../base/base.h"\n')],
     [("dataplane/io/a.c", '#include "dataplane/io/io.h"\n#include <sys/uio.h>\n')]),
    (lambda path, text: check_own_header(path, text, lambda name: name == "dataplane/io/a.h"),
     [("dataplane/io/a.c", '#include <stdio.h>\n#include "dataplane/io/a.h"\n'),
      ("dataplane/io/a.c", "int a;\n")],
     [("dataplane/io/a.c", '// Why.\n#include "dataplane/io/a.h"\n#include <stdio.h>\n'),
      ("dataplane/io/b.c", "#include <stdio.h>\n")]),
    (check_header,
     [("dataplane/io/a.h", "// First a word.\n#pragma once\n"),
      ("dataplane/io/a.h", "#pragma once\nint sl_io_run(int a,\n\t      int b);\n")],
     [("dataplane/io/a.h", "#pragma once\n// Threading: any.\nint sl_io_run(void);\n"),
      ("dataplane/io/a.h", "#pragma once\n#define A 1\n"),
      ("tests/lib/a.h", "#pragma once\nint sl_io_run(void);\n")]),
    (check_file_length,
     [("dataplane/io/a.c", "\n" * (LINES_MAX + 1))], [("dataplane/io/a.c", "\n" * LINES_MAX)]),
    (check_function_length,
     [("dataplane/io/a.c", "int a(void)\n{\n" + "\t;\n" * (FUNCTION_LINES_MAX + 1) + "}\n")],
     [("dataplane/io/a.c", ("int a(void)\n{\n" + "\t;\n" * FUNCTION_LINES_MAX + "}\n") * 2)]),
    (check_undone,
     [("dataplane/io/a.c", "// TO" "DO: more\n"), ("README.md", "FIX" "ME\n")],
     [("dataplane/io/a.c", "// To do nothing is fine.\n")]),
    (check_banners,
     [("dataplane/io/a.c", "/*********/\n"), ("dataplane/io/a.h", "// ---- io ----\n"),
      ("dataplane/io/a.h", "///////////\n")],
     [("dataplane/io/a.c", "// -> there, and -- so on\n\tx = a / b; // a/b\n")]),
    (check_top_level,
     [("src/a.c", ""), ("notes.txt", "")],
     [("dataplane/io/a.c", ""), (".gitignore", ""), ("LICENSE", "")]),
]


def prove():
    """The rules' own test."""
    table = parse_layers("a -\n{b,c} a # words\nd everything above\ne everything above but d\n")
    assert table == {"a": {"a"}, "b": {"a", "b"}, "c": {"a", "c"}, "d": {"a", "b", "c", "d"},
                     "e": {"a", "b", "c", "e"}}, table
    for rule, bad, good in RULES:
        for path, text in bad:
            assert list(rule(path, text)), f"a rule is blind to {path}: {text[:60]!r}"
        for path, text in good:
            assert not list(rule(path, text)), (path, text[:60], list(rule(path, text)))
    bad = subprocess.run(["clang-format-14", "--dry-run", "-Werror", "--assume-filename=a.c"],
                         cwd=ROOT, input="int a( ){\n    return 1;}\n", text=True,
                         capture_output=True)
    assert bad.returncode != 0, "clang-format takes anything"


def main():
    prove()
    listed = subprocess.run(["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"], cwd=ROOT,
                            check=True, capture_output=True, text=True).stdout
    paths = [path for path in listed.split("\0")
             if os.path.exists(os.path.join(ROOT, path)) and path]
    complaints = 0
    for path in paths:
        if path.startswith("tests/fuzz/corpus/"):
            continue
        with open(os.path.join(ROOT, path), encoding="utf-8", errors="replace") as file:
            text = file.read()
        for rule, _, _ in RULES[:2] + RULES[3:]:
            for complaint in rule(path, text):
                print(f"{path}: {complaint}")
                complaints += 1
        for complaint in check_own_header(path, text):
            print(f"{path}: {complaint}")
            complaints += 1
    sources = [path for path in paths if is_c(path)]
    assert len(sources) > 20, "this is not the tree"
    formatted = subprocess.run(["clang-format-14", "--dry-run", "-Werror", *sources], cwd=ROOT,
                               text=True, capture_output=True)
    if formatted.returncode != 0:
        print(formatted.stderr)
        complaints += 1
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
