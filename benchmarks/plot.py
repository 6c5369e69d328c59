"""How cost grows with people: a picture of the jobs' results, written beside them."""

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from matplotlib import figure

_SIZE = re.compile(r"\w+, ([\d,]+) x [\d,]+(?:, (.*))?")


def curves(document: dict[str, Any]) -> dict[str, list[tuple[int, float]]]:
    """By contender and variant: people on each side, and CPU microseconds for each of them."""
    found: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for comparison in document["comparisons"]:
        match = _SIZE.fullmatch(comparison["what"])
        if match is None:
            continue
        people, variant = int(match[1].replace(",", "")), match[2]
        for one in comparison["figures"]:
            name = one["name"] if variant is None else f"{one['name']}, {variant}"
            found[name].append((people, one["us"]))
            if one is comparison["figures"][0]:
                beside = one["cost"]["more"]["beside kernels µs"]
                found[f"{name}, beside kernels"].append((people, beside))
    return {name: points for name, points in found.items() if len(points) > 1}


def draw(result: Path) -> Path | None:
    """The picture of a results file, as SVG; None if nothing has several sizes."""
    document = json.loads(result.read_text("utf-8"))
    found = curves(document)
    if not found:
        return None
    picture = figure.Figure(figsize=(8, 5), layout="constrained")
    axes = picture.subplots()
    for name, points in found.items():
        people, cost = zip(*points, strict=True)
        style = ":" if name.endswith("beside kernels") else "-"
        axes.plot(people, cost, style, marker="o", label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("people on each side")
    axes.set_ylabel("CPU µs a person, both sides together")
    machine = document["machine"]
    ifma = "with" if machine["avx512_ifma"] else "no"
    axes.set_title(f"{document['subject']} on {machine['processor']}, {ifma} AVX-512 IFMA")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    path = result.with_suffix(".svg")
    picture.savefig(path, metadata={"Date": None})
    return path
