"""Measurements as rows of docs/design/benchmarks.md."""


def markdown(report):
    """The tables of a report."""
    speed = ["| shape | parameters | what | Podium | peer | ratio (rounds) | peak memory, Podium | peer |",
             "|---|---|---|---|---|---|---|---|"]
    gaps = ["| shape | log-probabilities of | tokens | mean difference | largest |", "|---|---|---|---|---|"]
    for name, found in report["shapes"].items():
        for what, peer in (("sampling", "transformers"), ("step", "trl")):
            compared = found.get(what, {})
            if compared.get("seconds"):
                speed.append(speed_row(name, found["parameters"], what, peer, compared))
        for pair, gap in found.get("logprobs", {}).items():
            gaps.append(f"| {name} | {PAIRS[pair]} | {gap['tokens']} | {gap['mean']:.1e} | {gap['largest']:.1e} |")
    lines = [*speed, *([""] + gaps if len(gaps) > 2 else [])]
    if "nccl" in report:
        lines += ["", f"NCCL with one rank: {'the same bits' if report['nccl']['equal'] else 'OTHER bits'} as without, "
                      f"{report['nccl']['steps']} steps of the demo"]
    lines += [f"\nFAILED {failure['shape']}: {failure['what']}" for failure in report["failures"]]
    return "\n".join(lines)


PAIRS = {
    "podium-transformers": "`podium-learner score`, Transformers",
    "sampler-podium": "the sampler, `podium-learner score`",
    "podium-float32": "`podium-learner score`, Transformers in float32",
    "transformers-float32": "Transformers, Transformers in float32",
}


def speed_row(name, parameters, what, peer, compared):
    def missing(which):
        return "failed" if which in compared["rounds"] else "not measured"

    def value(which):
        if which not in compared["seconds"]:
            return missing(which)
        if what == "sampling":
            return f"{compared['tokens_per_s'][which]:.0f} tokens/s"
        return f"{compared['seconds'][which]:.2f} s"

    def memory(which):
        peaks = compared.get("gpu_bytes", compared.get("resident_bytes", {}))
        return f"{peaks[which] / 2**30:.1f} GiB" if which in peaks else missing(which)

    label = "sampling, Transformers' generate" if what == "sampling" else "GRPO step, TRL"
    ratio = "–"
    if "ratio" in compared:
        ratio = f"{compared['ratio']:.2f} ({', '.join(f'{one:.2f}' for one in compared['ratios'])})"
    size = f"{parameters / 1e9:.2f} · 10⁹" if parameters >= 1e9 else f"{parameters / 1e6:.1f} · 10⁶"
    return (f"| {name} | {size} | {label} | {value('podium')} | {value(peer)} | {ratio} "
            f"| {memory('podium')} | {memory(peer)} |")
