"""Configuration files of the command line: whatever they hold, the answer is one line, soon."""

from pathlib import Path

import numpy as np
import pytest

from torchdr_cne.cli import main
from torchdr_cne.cli.configuration import read_yaml
from torchdr_cne.cli.messages import one_line

LAUGHS = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
)
LAUGHS_IN_A_LIST = "- &a0 [x, x, x, x]\n" + "\n".join(
    f"- &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)
)
REFUSED = {
    "aliases that multiply": (LAUGHS, "the alias *a0, which stands for another value, is not read; write that value"),
    "aliases in a list": (LAUGHS_IN_A_LIST, "is not read; write that value (line 2, column 8)"),
    "an alias of itself": ("metric: &a [*a]", "the alias *a, which stands for another value, is not read"),
    "merged mappings": ("x: &x {a: 1}\noptimizer_kwargs: {<<: *x}", "the alias *x, which stands for another value"),
    "brackets without end": ("metric: " + "[" * 5000, "its lists or mappings are too deeply nested"),
    "a set": ("metric: !!set {a, b}", "the tag tag:yaml.org,2002:set is not read; write plain numbers, text, lists"),
    "bytes": ("metric: !!binary aGVsbG8=", "the tag tag:yaml.org,2002:binary is not read"),
    "an object": ("metric: !!python/object/apply:os.system [ls]", "object/apply:os.system is not read"),
    "a list as a method": ("method: [a]", "method in the configuration is ['a'] and needs a NAME"),
    "no method": ("method: null", "method in the configuration is None and needs a NAME"),
    "a mapping as a method": ("method: {a: 1}", "method in the configuration is {'a': 1} and needs a NAME"),
    "a number as data": ("data: 5", "5 does not exist; give a file"),
    "a list as data": ("data: [a, b]", "data in the configuration is ['a', 'b'] and needs a FILE"),
    "a list as a number": ("max_iter: [5]", "max_iter in the configuration is [5] and needs an integer or null"),
    "a long list": (f"max_iter: {[5] * 50}", f"max_iter in the configuration is {str([5] * 50)[:60]}… and needs"),
    "a date": ("metric: 2020-01-01", "metric='2020-01-01' is unknown"),
    "a key that is a list": ("[a]: 3", "found unhashable key (line 1, column 1)"),
    "a key that is a number": ("5: 3", "unknown option 5"),
    "no mapping": (f"- {[5] * 50}", "must hold lines like 'max_iter: 500', got [[5, 5, "),
    "no YAML": ("a: b: c", "mapping values are not allowed here (line 1, column 5)"),
    "an escape sequence": ('"\\e[31mred": 1', "unknown option \\x1b[31mred"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_one_line(name, tmp_path, monkeypatch, capsys):
    text, sentence = REFUSED[name]
    monkeypatch.chdir(tmp_path)
    np.save("data.npy", np.eye(40, dtype=np.float32))
    Path("run.yaml").write_text(text)
    data = [] if text.startswith("data") else ["--data", "data.npy"]
    assert main(["fit", "--config", "run.yaml", "--output", "out.npy", *data]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line
    assert len(line) < 400


def test_values_are_plain():
    text = "{a: 1, b: 1e-8, c: yes, d: null, e: [x, 2.5], f: 2020-01-01, g: '1'}"
    found = read_yaml(text)
    assert found == {"a": 1, "b": 1e-8, "c": True, "d": None, "e": ["x", 2.5], "f": "2020-01-01", "g": "1"}


def test_mappings_on_the_command_line_have_no_aliases_either(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("data.npy", np.eye(40, dtype=np.float32))
    assert main(["fit", "data.npy", "--output", "o.npy", "--optimizer_kwargs", "{a: &x [1], b: *x}"]) == 2
    assert "must be 'auto', a dict or None, got '{a: &x [1], b: *x}'" in capsys.readouterr().err


def test_no_message_obeys_escape_sequences():
    assert one_line("a\x1b[2J\tb\n\u202ec\x00 é") == "a\\x1b[2J b \\u202ec\\x00 é"
