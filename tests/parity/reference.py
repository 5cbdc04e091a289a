"""Runs scripts one after another in one process, so that Transformers is imported once.

    python reference.py

Every line of standard input is a job, a JSON list: the script's path and its arguments. Every job is answered with one
line of JSON on standard output: null, or what the script printed and why it failed.
"""

import contextlib
import io
import json
import os
import runpy
import sys
import traceback

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def run(script, *arguments):
    """Runs a script as `python script arguments...` would; raises what the script raises."""
    import torch

    torch.set_num_threads(1)  # the models are tiny, and tests run in parallel
    before = sys.argv
    sys.argv = [str(script), *map(str, arguments)]
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        if end.code not in (None, 0):
            raise RuntimeError(f"{script} failed with exit code {end.code}") from end
    finally:
        sys.argv = before


def serve():
    for line in sys.stdin:
        failure, printed = None, io.StringIO()
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                run(*json.loads(line))
        except Exception:
            failure = printed.getvalue() + traceback.format_exc()
        print(json.dumps(failure), flush=True)


if __name__ == "__main__":
    serve()
