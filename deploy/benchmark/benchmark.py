#!/usr/bin/env python3
"""Compares Podium's speed, memory and log-probabilities with Transformers and TRL on this machine: docs/design/benchmarks.md.

    make benchmark ARGS="--device cuda --shapes 0.6B,1.7B,4B"

Requires Podium's programs (built, or unpacked: --programs) and a Python with torch, transformers, peft and trl
(--python), or with torch alone for Podium's own speed (--no-peers); both compute with that Python's libtorch. Writes benchmark.json and prints rows for docs/design/benchmarks.md. The exit
code says whether every measurement succeeded.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import measure
import page
import processes
from workload import SHAPES, Workload

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("podium", "podium-coordinator", "podium-rollout-worker", "podium-learner")


def say(text):
    print(f"benchmark: {text}", file=sys.stderr, flush=True)


def fail(text):
    raise SystemExit(f"benchmark: {text}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    at_least_one = positive
    add("--device", default="auto", help="cpu, cuda, cuda:1, or auto: a GPU if there is one")
    add("--shapes", help=f"comma-separated list of {', '.join(SHAPES)}; default: 0.6B,1.7B,4B on a GPU, else 30M")
    add("--model", type=Path, help="a policy in a Hugging Face folder instead of random weights of a shape; its tokenizer is not used")
    add("--dtype", choices=("float32", "bfloat16"), help="default: bfloat16 on a GPU, else float32")
    add("--prompts", type=at_least_one, default=4, help="number of prompts per step and per sampled batch")
    add("--prompt-tokens", type=at_least_one, default=400)
    add("--completions", type=at_least_one, default=8, help="completions per prompt, at least 2")
    add("--new-tokens", type=at_least_one, default=64, help="tokens of every completion")
    add("--micro-batch-prompts", type=at_least_one, help="prompts per micro-batch of training; default: all of a step")
    add("--recompute", action="store_true", help="activation checkpointing, in Podium and in TRL")
    add("--only", default="sampling,step,logprobs", help="comma-separated list of measurements; default: all: %(default)s")
    add("--rounds", type=at_least_one, default=2, help="number of alternations between Podium and its peer")
    add("--batches", type=at_least_one, default=3, help="number of measured batches per round")
    add("--steps", type=at_least_one, default=3, help="number of measured steps per round")
    add("--no-peers", dest="peers", action="store_false", help="measure Podium alone; the Python requires only torch")
    add("--time-limit", type=at_least_one, help="seconds after which the benchmark ends with the measurements taken so far")
    add("--threads", type=at_least_one, default=2, help="number of threads of every computing process")
    add("--programs", type=Path, default=target / "release", help="folder of Podium's programs")
    add("--python", type=Path, default=ROOT / ".venv-oracle/bin/python", help="a Python with torch, transformers, peft and trl")
    add("--out", type=Path, help="output folder; default: a new one in runs/")
    add("--keep", action="store_true", help="keep checkpoints and runs")
    return parser.parse_args()


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not at least 1")
    return number


def device_of(wanted):
    """`cpu`, or `cuda:<index>`."""
    if wanted == "cpu":
        return wanted
    if wanted not in ("auto", "cuda") and not (wanted.startswith("cuda:") and wanted[5:].isdigit()):
        fail(f"--device is {wanted}: expected cpu, cuda, cuda:<index> or auto")
    gpus = ""
    if shutil.which("nvidia-smi"):
        gpus = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True).stdout
    if not gpus.startswith("GPU"):
        if wanted == "auto":
            return "cpu"
        fail(f"device {wanted} does not exist: nvidia-smi finds no GPU on this machine")
    return wanted if ":" in wanted else "cuda:0"


def shapes_of(flags, on_gpu):
    """Names of the shapes to measure."""
    if flags.model:
        if flags.shapes:
            fail("--model and --shapes exclude each other: a policy has one shape")
        if not (flags.model / "config.json").is_file() or not any(flags.model.glob("*.safetensors")):
            fail(f"--model is {flags.model}: expected a folder with config.json and *.safetensors")
        config = json.loads((flags.model / "config.json").read_text())
        missing = [key for key in SHAPES["tiny"] if key not in config and key != "head_dim"]
        if missing:
            fail(f"{flags.model / 'config.json'} has no {', '.join(missing)}")
        return [flags.model.resolve().name]
    shapes = (flags.shapes or ("0.6B,1.7B,4B" if on_gpu else "30M")).split(",")
    unknown = [name for name in shapes if name not in SHAPES]
    if unknown:
        fail(f"--shapes has {', '.join(unknown)}: expected some of {', '.join(SHAPES)}")
    return shapes


def physical_gpu(device):
    """The GPU's id for nvidia-smi, which CUDA_VISIBLE_DEVICES does not change; None for a CPU."""
    if device == "cpu":
        return None
    index = int(device[5:])
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return str(index)
    names = [name.strip() for name in visible.split(",") if name.strip()]
    if index >= len(names):
        fail(f"device {device} does not exist: CUDA_VISIBLE_DEVICES is {visible!r}")
    return names[index]


def environment(python, out):
    """The environment in which programs find libtorch and NCCL only in the packages of the Python."""
    find = "import importlib.util, pathlib; print(pathlib.Path(importlib.util.find_spec('torch').origin).parent)"
    try:
        torch = Path(subprocess.check_output([python, "-c", find], text=True).strip())
    except (OSError, subprocess.CalledProcessError) as error:
        fail(f"{python} is not a Python with torch ({error}): run `make oracle` to create one, or name another with --python")
    pinned = ROOT / "deploy/setup/versions.env"
    version = (torch / "version.py").read_text().split("__version__ = '")[1].split("'")[0].split("+")[0]
    wanted = next(line[6:] for line in pinned.read_text().splitlines() if line.startswith("TORCH="))
    if version != wanted:
        fail(f"{python} has torch {version}: expected {wanted}, which Podium is built with")
    folders = [torch / "lib", *sorted(torch.parent.glob("nvidia/*/lib"))]
    # NCCL is loaded by a name that the package lacks.
    nccl = next(torch.parent.glob("nvidia/nccl/lib/libnccl.so.2"), None)
    if nccl:
        links = out / "lib"
        links.mkdir()
        (links / "libnccl.so").symlink_to(nccl)
        folders.append(links)
    path = ":".join([*map(str, folders), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
    return os.environ | {"LD_LIBRARY_PATH": path}


def machine():
    """Properties of the measuring machine."""
    def first(path, key):
        try:
            lines = Path(path).read_text().splitlines()
        except OSError:
            return None
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), None)

    return {"cpu": first("/proc/cpuinfo", "model name"), "cores": os.cpu_count(),
            "memory": first("/proc/meminfo", "MemTotal"), "load_before": os.getloadavg(), "system": platform.platform()}


def git_commit():
    if not shutil.which("git"):
        return None
    found = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return found.stdout.strip() or None if found.returncode == 0 else None


def main():
    # If interrupted, the benchmark writes the measurements taken so far and leaves no process behind.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    flags = arguments()
    device = device_of(flags.device)
    on_gpu = device != "cpu"
    shapes = shapes_of(flags, on_gpu)
    only = set(flags.only.split(","))
    if not only <= {"sampling", "step", "logprobs"}:
        fail(f"--only is {flags.only}: expected some of sampling, step, logprobs")
    if flags.completions < 2:
        fail(f"--completions is {flags.completions}: expected at least 2, since they are compared with one another")
    programs = flags.programs.resolve()
    missing = [name for name in PROGRAMS if not (programs / name).is_file()]
    if missing:
        fail(f"{programs} has no {', '.join(missing)}: run `make build`, or name another folder with --programs")
    workloads = [
        Workload(shape=name, model=flags.model and str(flags.model.resolve()), device=device, dtype=flags.dtype or ("bfloat16" if on_gpu else "float32"),
                 threads=flags.threads, prompts=flags.prompts, prompt_tokens=flags.prompt_tokens,
                 completions=flags.completions, new_tokens=flags.new_tokens,
                 micro_batch_prompts=flags.micro_batch_prompts or flags.prompts, recompute=flags.recompute,
                 batches=flags.batches, steps=flags.steps)
        for name in shapes
    ]
    for workload in workloads:
        problem = workload.problem()
        if problem:
            fail(problem)
    began = datetime.datetime.now(datetime.timezone.utc)
    out = (flags.out or ROOT / "runs" / f"benchmark-{began:%Y%m%d-%H%M%S}").resolve()
    if out.exists() and any(out.iterdir()):
        fail(f"{out} is not empty")
    (out / "logs").mkdir(parents=True)
    # The interpreter of a virtual environment is identified by its path, including links.
    python = flags.python.absolute()
    bench = measure.Bench(programs, python, environment(python, out), physical_gpu(device), out, flags.peers, flags.time_limit)
    report = {"date": f"{began:%Y-%m-%d}", "machine": machine(), "device": device, "shapes": {}, "failures": [],
              "podium": {"version": None, "commit": git_commit()},
              "workload": {name: value for name, value in vars(workloads[0]).items() if name != "shape"}}
    try:
        about = out / "about.json"
        workloads[0].write(about)
        report |= bench.script("weights.py", "about", about)
        version, _ = bench.podium("podium", "--version")
        report["podium"]["version"] = version.strip()
        for workload in workloads:
            found = report["shapes"][workload.shape] = {}
            measure.shape(bench, workload, only, flags.rounds, found, report["failures"], say)
            write(out, report)
            if not flags.keep:
                shutil.rmtree(out / workload.shape)
        if on_gpu:
            report["nccl"] = measure.one_rank_nccl(bench, workloads[0], say)
    except (processes.Failed, KeyboardInterrupt) as failure:
        why = str(failure) or "interrupted"
        report["failures"].append({"shape": "all", "what": "the benchmark", "why": why})
        say(why)
    report["machine"]["load_after"] = os.getloadavg()
    write(out, report)
    print(page.markdown(report))
    say(f"wrote all measurements to {out / 'benchmark.json'}")
    unequal = "nccl" in report and not report["nccl"]["equal"]
    return 1 if report["failures"] or unequal else 0


def write(out, report):
    (out / "benchmark.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
