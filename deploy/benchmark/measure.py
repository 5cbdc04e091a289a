"""The measurements of one shape: Podium and its peers alternate, each in its own process."""

import contextlib
import json
import statistics
import time
from pathlib import Path

import processes
import workload as workloads


LONGEST_PROCESS_S = 7200


class Bench:
    """Locations of the programs, their environment, and whether there are peers to compare with."""

    def __init__(self, programs, python, environment, gpu, folder, peers, time_limit_s):
        self.programs, self.python, self.environment = programs, python, environment
        self.gpu, self.folder, self.count, self.peers = gpu, folder, 0, peers
        self.ends_at = time.monotonic() + time_limit_s if time_limit_s else None

    def podium(self, program, *arguments):
        """Runs one of Podium's programs; returns its output and peak memory."""
        return self.run([self.programs / program, *arguments])

    def script(self, script, command, workload_file, *arguments):
        """Runs a command of a script beside this one; returns its result with its peak memory."""
        path = Path(__file__).with_name(script)
        output, memory = self.run([self.python, path, command, "--workload", workload_file, *arguments])
        return json.loads(output.splitlines()[-1]) | memory

    def peer(self, command, workload_file, *arguments):
        """Runs a command of peers.py."""
        return self.script("peers.py", command, workload_file, *arguments)

    def run(self, command):
        self.count += 1
        log = self.folder / "logs" / f"{self.count:02}-{processes.name(command).split()[0]}.log"
        left = min(LONGEST_PROCESS_S, self.ends_at - time.monotonic()) if self.ends_at else LONGEST_PROCESS_S
        if left <= 0:
            raise processes.Failed("the time limit is over")
        return processes.run(command, log, self.environment, self.gpu, left)


def rows(path):
    """The rows of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def shape(bench, workload, only, rounds, found, failures, say):
    """Takes the measurements of one shape that `only` names: adds results to `found` and failures with their cause to
    `failures`."""
    folder = bench.folder / workload.shape
    folder.mkdir()

    @contextlib.contextmanager
    def attempt(what):
        say(f"{workload.shape}: {what}")
        try:
            yield
        except processes.Failed as failure:
            say(f"{workload.shape}: {what} failed: {failure}")
            failures.append({"shape": workload.shape, "what": what, "why": str(failure)})

    def in_turns(name, sides):
        """Measures Podium and its peer, if there is one, round by round."""
        sides = {side: measure for side, measure in sides.items() if side == "podium" or bench.peers}
        measured = {side: [] for side in sides}
        for number in range(1, rounds + 1):
            for side, measure in sides.items():
                with attempt(f"{name}, {side}, round {number} of {rounds}"):
                    measured[side].append({"round": number} | measure(number))
                    found[name] = compare(measured, *sides)

    file, checkpoint, prompts = folder / "workload.json", folder / "checkpoint", folder / "prompts.jsonl"
    sampled = folder / "completions.jsonl"
    workload.write(file)
    workloads.write_prompts(workload, prompts)
    with attempt("checkpoint"):
        found["parameters"] = bench.script("weights.py", "checkpoint", file, "--out", checkpoint)["parameters"]
    if "parameters" not in found:
        return
    if "sampling" in only:
        in_turns("sampling", {
            "podium": lambda _: sample(bench, workload, checkpoint, prompts, sampled),
            "transformers": lambda _: bench.peer("generate", file, "--checkpoint", checkpoint, "--prompts", prompts),
        })
    if "step" in only:
        in_turns("step", {
            "podium": lambda number: train(bench, workload, checkpoint, folder / f"run-{number}"),
            "trl": lambda _: bench.peer("step", file, "--checkpoint", checkpoint),
        })
    if "logprobs" in only:
        with attempt("log-probabilities"):
            if not sampled.exists():
                sample(bench, workload, checkpoint, prompts, sampled)
            found["logprobs"] = correctness(bench, workload, folder, file, checkpoint, sampled)


def sample(bench, workload, checkpoint, prompts, sampled):
    """Seconds of each counted batch by `podium-rollout-worker generate`; the first batch warms up."""
    timings = sampled.with_name("timings.jsonl")
    bfloat16 = ["--bfloat16"] if workload.dtype == "bfloat16" else []
    _, memory = bench.podium(
        "podium-rollout-worker", "generate", "--model", checkpoint / "model", "--adapter", checkpoint / "adapter",
        "--input", prompts, "--output", sampled, "--timings", timings, "--group-size", workload.completions,
        "--max-new-tokens", workload.new_tokens, "--temperature", workload.temperature, "--top-p", workload.top_p,
        "--batch-size", workload.prompts, "--device", workload.device, "--threads", workload.threads, *bfloat16)
    batches = rows(timings)[1:]
    tokens = {batch["completion_tokens"] for batch in batches}
    if tokens != {workload.rows * workload.new_tokens}:
        raise processes.Failed(f"batches have {tokens} completion tokens: expected {workload.rows * workload.new_tokens}")
    return {"seconds": [batch["prefill_s"] + batch["decode_s"] for batch in batches],
            "prefill_seconds": [batch["prefill_s"] for batch in batches],
            "completion_tokens": tokens.pop()} | memory


def train(bench, workload, checkpoint, folder):
    """Seconds of each counted step of a run: coordinator, one worker and one learner rank as their own processes."""
    run_file = workloads.write_run(workload, folder, checkpoint / "model")
    _, memory = bench.podium("podium", "train", run_file, "--out", folder / "out")
    steps = rows(folder / "out" / "metrics.jsonl")
    for step in steps:
        lengths = step["completions/min_length"], step["completions/max_length"]
        if lengths != (workload.new_tokens, workload.new_tokens):
            raise processes.Failed(f"step {step['step']} has completions of {lengths} tokens")
        prompt = (step["num_tokens"] / step["step"] / workload.rows) - workload.new_tokens
        if prompt != workload.prompt_tokens:
            raise processes.Failed(f"prompts have {prompt} tokens: expected {workload.prompt_tokens}")
    counted = steps[2:-1]
    return {"seconds": [step["step_time"] for step in counted],
            "learner_seconds": [step["learner_seconds"] for step in counted]} | memory


def compare(found, own, peer=None):
    """The rounds of both, their medians, and how many times as long the peer takes, round by round."""
    times = {name: {one["round"]: statistics.median(one["seconds"]) for one in rounds} for name, rounds in found.items()}
    medians = {name: statistics.median(each.values()) for name, each in times.items() if each}
    compared = {"rounds": found, "seconds": medians}
    # A round in which one side failed has no ratio.
    both = [number for number in times[own] if number in times.get(peer, {})]
    if both:
        compared["ratios"] = [times[peer][number] / times[own][number] for number in both]
        compared["ratio"] = statistics.median(compared["ratios"])
    for name, rounds in found.items():
        tokens = [one["completion_tokens"] for one in rounds if "completion_tokens" in one]
        if tokens:
            compared.setdefault("tokens_per_s", {})[name] = tokens[0] / compared["seconds"][name]
        for kind in ("resident_bytes", "gpu_bytes"):
            peaks = [one[kind] for one in rounds if kind in one]
            if peaks:
                compared.setdefault(kind, {})[name] = max(peaks)
    return compared


def correctness(bench, workload, folder, file, checkpoint, sampled):
    """Log-probabilities of sampled completions: the sampler's, `podium-learner score`'s, and, with peers, Transformers' and
    those of Transformers in float32; mean and largest difference of each two."""
    given = [{"prompt_ids": row["prompt_ids"], "completion_ids": one["ids"], "sampler": one["logprobs"]}
             for row in rows(sampled)[:workload.prompts] for one in row["completions"]]
    source, scored = folder / "to-score.jsonl", folder / "scored.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in given))
    bench.podium(
        "podium-learner", "score", "--model", checkpoint / "model", "--adapter", checkpoint / "adapter",
        "--input", source, "--output", scored, "--temperature", workload.temperature, "--dtype", workload.dtype,
        "--device", workload.device, "--threads", workload.threads)

    def by_transformers(dtype):
        return bench.peer("score", file, "--checkpoint", checkpoint, "--rows", source, "--dtype", dtype)["logprobs"]

    values = {"sampler": [row["sampler"] for row in given], "podium": [row["logprobs"] for row in rows(scored)]}
    pairs = [("sampler", "podium")]
    if bench.peers:
        values["transformers"] = by_transformers(workload.dtype)
        pairs += [("podium", "transformers")]
    if bench.peers and workload.dtype != "float32":
        values["float32"] = by_transformers("float32")
        pairs += [("podium", "float32"), ("transformers", "float32")]

    def difference(one, other):
        gaps = [abs(a - b) for left, right in zip(values[one], values[other], strict=True)
                for a, b in zip(left, right, strict=True)]
        return {"mean": statistics.fmean(gaps), "largest": max(gaps), "tokens": len(gaps)}

    return {f"{one}-{other}": difference(one, other) for one, other in pairs}


def one_rank_nccl(bench, workload, say):
    """Whether a run over NCCL with one rank ends with the same weights as one without NCCL."""
    say("NCCL with one rank")
    policies = []
    for collective in ("nccl", "tcp"):
        out = bench.folder / f"demo-{collective}"
        _, _ = bench.podium(
            "podium", "demo", "--out", out, "--steps", 3, "--workers", 1, "--collective", collective,
            "--set", "evaluation.users=32", "--set", "launch.rollout_device='cpu'",
            "--set", f"launch.learner_device='{workload.device}'")
        policies.append((out / "policy" / "3" / "model.safetensors").read_bytes())
    return {"steps": 3, "equal": policies[0] == policies[1]}
