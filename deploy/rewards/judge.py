#!/usr/bin/env python3
"""An external reward: a model behind an OpenAI-compatible endpoint judges the reasoning of completions.

Reads a request per line of standard input and writes an answer per line, as docs/guides/external-rewards.md describes.
Requires only Python. A failure of the endpoint ends the program; Podium starts it again and repeats the request.

    [[reward.external]]
    name = "judge"
    weight = 0.2
    min = 0.0
    max = 1.0
    command = ["python3", "judge.py"]
    timeout_ms = 120000
    batch_size = 4

Environment: JUDGE_URL, for example http://127.0.0.1:8000/v1; JUDGE_MODEL; JUDGE_API_KEY, if the endpoint requires a key.
"""

import json
import os
import re
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

INSTRUCTION = """A recommender was given this task:

{prompt}

It reasoned:

{reasoning}

It ranked: {ranking}

Grade how well the reasoning supports the ranking, from 0 (not at all) to 10 (fully). Reply with the number alone."""

# Seconds without data from the endpoint after which a grade fails. The completions of a request are graded at once, so that
# this is less than `timeout_ms`.
TIMEOUT = 100


def ask(text):
    """Returns the model's reply to a message."""
    body = {
        "model": os.environ["JUDGE_MODEL"],
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "seed": 0,
    }
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("JUDGE_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    address = os.environ["JUDGE_URL"].rstrip("/") + "/chat/completions"
    request = urllib.request.Request(address, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as reply:
        return json.load(reply)["choices"][0]["message"]["content"]


def reward(request, completion):
    """Returns the grade of a completion, from 0 to 1."""
    titles = {item["id"]: item["title"] for item in request["candidates"]}
    ranking = ", ".join(titles[item] for item in completion["ranking"])
    reasoning = completion["reasoning"] or "(no reasoning)"
    reply = ask(INSTRUCTION.format(prompt=request["prompt"], reasoning=reasoning, ranking=ranking))
    grade = re.search(r"\d+(\.\d+)?", reply)
    if grade is None:
        raise ValueError(f"the model replied {reply[:200]!r}: expected a number from 0 to 10")
    return min(float(grade[0]) / 10, 1.0)


def main():
    for line in sys.stdin:
        request = json.loads(line)
        completions = request["completions"]
        with ThreadPoolExecutor(len(completions)) as pool:
            rewards = list(pool.map(lambda completion: reward(request, completion), completions))
        print(json.dumps({"id": request["id"], "rewards": rewards}), flush=True)


if __name__ == "__main__":
    try:
        main()
    except (OSError, KeyError, IndexError, TypeError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
