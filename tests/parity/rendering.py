"""Renders and tokenizes conversations and their completions with Transformers.

    python rendering.py --tokenizer DIR --input in.jsonl --output out.jsonl

Input rows: {"messages": [...], "variables": {...}, "completion": text, "ids": [...]}. Output rows: "prompt", the rendered
text with its generation prompt, "prompt_ids", "completion_ids" of the text and the end token, and "text" of the ids up to
their stop or padding tokens, special tokens included.
"""

import argparse
import json

from transformers import AutoTokenizer

p = argparse.ArgumentParser()
p.add_argument("--tokenizer", required=True)
p.add_argument("--input", required=True)
p.add_argument("--output", required=True)
a = p.parse_args()

tokenizer = AutoTokenizer.from_pretrained(a.tokenizer)
silent = {tokenizer.eos_token_id, tokenizer.pad_token_id}
with open(a.input) as rows, open(a.output, "w") as out:
    for line in rows:
        row = json.loads(line)
        render = {"add_generation_prompt": True, **row["variables"]}
        prompt = tokenizer.apply_chat_template(row["messages"], tokenize=False, **render)
        ids = tokenizer.apply_chat_template(row["messages"], tokenize=True, return_dict=True, **render)["input_ids"]
        completion = tokenizer(row["completion"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        text = tokenizer.decode([id for id in row["ids"] if id not in silent], clean_up_tokenization_spaces=False)
        written = {"prompt": prompt, "prompt_ids": ids, "completion_ids": completion, "text": text}
        out.write(json.dumps(written) + "\n")
