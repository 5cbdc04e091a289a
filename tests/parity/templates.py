"""Renders conversations by all chat templates of the installed trl package with Transformers.

    python templates.py --copy DIR
    python templates.py --folders DIR --chats F.jsonl
    python templates.py --cases F.jsonl

--copy copies the templates into DIR. --folders has a folder with a tokenizer and a template for each of them; --chats
gets {"template", "messages", "variables", "text", "dayless"} rows, where "text" is null where the template raises, and
"dayless" is the same without strftime_now. --cases checks that Transformers renders the templates of a file as the file
says, and raises where it has no text.
"""

import argparse
import importlib.util
import json
import pathlib
import shutil

from transformers import AutoTokenizer
from transformers.utils import chat_template_utils


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


def system(content):
    return {"role": "system", "content": content}


THOUGHT = "<think>\nThey like drama.\n</think>\n\n[ITEM_3]"
CONVERSATIONS = [
    [user("Hello")],
    [system("Be brief."), user("Hi")],
    [user("a"), assistant("b"), user("c")],
    [system("s"), user("a"), assistant("b"), user("c"), assistant("d"), user("e")],
    [user("a"), assistant("b")],
    [user("")],
    [system(""), user("")],
    [user("a"), assistant(""), user("c")],
    [user("  lead and trail \n\n")],
    [system("\n sys \n"), user("\tx\t")],
    [user("映画は？ é e\u0301 😀 \u200b \ufeff")],
    [user("\x1c\x1d control \x1e\x1f\x85\x0b\x0c\0")],
    [user("a"), assistant(THOUGHT), user("b")],
    [user("a"), assistant(THOUGHT)],
    [user("a"), assistant("x</think>y"), user("b")],
    [user("a"), assistant("<think></think>y"), user("b")],
    [user("a"), assistant("<think>\n\n</think>\n\ny"), user("b"), assistant(THOUGHT), user("c")],
    [user("<|im_end|>\n<|im_start|>system")],
    [user("{{ x }} {% if %} {# y")],
    [assistant("first"), user("b")],
    [user("a"), user("b")],
    [user("a"), assistant("b"), assistant("c")],
    [system("s")],
    [user("a"), system("late"), user("b")],
    [{"role": "developer", "content": "be brief"}, user("a")],
    [user("a"), assistant("b"), {"role": "tool", "content": '{"x": 1}'}, assistant("c")],
    [user("<tool_response>\n3\n</tool_response>")],
    [{"role": "other", "content": "x"}, user("a")],
    [user("it's \"q\" \\ <b>&amp;")],
    [user("a\r\nb\rc")],
    [user("<think>u</think>"), assistant("<|channel>x<channel|>y"), user("z")],
    [user("line one\n\nline two  "), assistant("  padded  "), user(" end ")],
]
VARIABLES = [
    {"add_generation_prompt": False},
    {"add_generation_prompt": True},
    {"add_generation_prompt": True, "enable_thinking": True},
    {"add_generation_prompt": True, "enable_thinking": False},
    {"add_generation_prompt": True, "thinking": True, "reasoning_effort": "high", "date_string": "1 Jan 2025"},
]


def templates():
    package = pathlib.Path(importlib.util.find_spec("trl").origin).parent
    return sorted(package.rglob("*.jinja"))


def rendered(tokenizer, messages, variables):
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, **variables)
    except Exception:  # whatever a template raises
        return None


def dayless(tokenizer, messages, variables):
    """The rendered text without strftime_now."""
    known = chat_template_utils._compile_jinja_template(tokenizer.chat_template).environment.globals
    strftime_now = known.pop("strftime_now")
    try:
        return rendered(tokenizer, messages, variables)
    finally:
        known["strftime_now"] = strftime_now


def write_chats(folders, path):
    with open(path, "w", encoding="utf-8") as out:
        for folder in sorted(folders.iterdir()):
            tokenizer = AutoTokenizer.from_pretrained(folder)
            for messages in CONVERSATIONS:
                for variables in VARIABLES:
                    row = {
                        "template": folder.name,
                        "messages": messages,
                        "variables": variables,
                        "text": rendered(tokenizer, messages, variables),
                        "dayless": dayless(tokenizer, messages, variables),
                    }
                    out.write(json.dumps(row) + "\n")


def check_cases(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        try:
            text = chat_template_utils.render_jinja_template([[user("hi")]], chat_template=case["template"])[0][0]
        except Exception:
            text = None
        assert text == case.get("text"), (case, text)


p = argparse.ArgumentParser()
p.add_argument("--copy", type=pathlib.Path)
p.add_argument("--folders", type=pathlib.Path)
p.add_argument("--chats")
p.add_argument("--cases", type=pathlib.Path)
a = p.parse_args()

for template in templates() if a.copy else []:
    shutil.copyfile(template, a.copy / template.name)
if a.folders:
    write_chats(a.folders, a.chats)
if a.cases:
    check_cases(a.cases)
