"""The site shows a docstring's ``>>>`` lines as the code that they are."""

import re

import griffe

EXAMPLE = re.compile(r"^(?P<indent> *)>>> .*(?:\n(?P=indent)\S.*)*", re.MULTILINE)


class Fences(griffe.Extension):
    def on_instance(self, *, obj, **_):
        if obj.docstring and ">>>" in obj.docstring.value:
            obj.docstring.value = EXAMPLE.sub(_fenced, obj.docstring.value)


def _fenced(found):
    indent = found["indent"]
    return f"{indent}```pycon\n{found[0]}\n{indent}```"
