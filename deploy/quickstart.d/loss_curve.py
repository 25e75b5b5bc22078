# SPDX-License-Identifier: Apache-2.0
"""Draws the training loss of metrics.train.jsonl with plain characters, and checks it.

    loss_curve.py METRICS [MAX_FINAL_SHARE]

Exit 1 if the last loss is above MAX_FINAL_SHARE of the first.
"""

import json
import sys

WIDTH, HEIGHT = 72, 14


def read_losses(path):
    with open(path, encoding="utf-8") as file:
        return [(record["step"], record["loss"]) for record in map(json.loads, file)]


def draw(points):
    """One column for each group of neighbouring steps, at the mean of their losses."""
    columns = min(WIDTH, len(points))
    means = []
    for i in range(columns):
        group = points[i * len(points) // columns:(i + 1) * len(points) // columns]
        means.append(sum(loss for _, loss in group) / len(group))
    top = max(means)
    lines = []
    for row in range(HEIGHT, 0, -1):
        low, high = top * (row - 1) / HEIGHT, top * row / HEIGHT
        cells = "".join("*" if low < mean <= high or (row == 1 and mean <= high) else " " for mean in means)
        lines.append(f"{high:7.2f} |{cells}".rstrip())
    lines.append(f"{0:7.2f} +{'-' * columns}")
    first, last = str(points[0][0]), str(points[-1][0])
    lines.append(" " * 9 + first + "step".center(columns - len(first) - len(last)) + last)
    return "\n".join(lines)


def main():
    points = read_losses(sys.argv[1])
    if not points:
        sys.exit(f"{sys.argv[1]}: no metrics")
    print(draw(points))
    first, last = points[0][1], points[-1][1]
    share = last / first
    print(f"\ntraining loss: {first:.3f} at step {points[0][0]}, {last:.3f} at step {points[-1][0]} ({100 * share:.1f} % of the first)")
    if len(sys.argv) > 2 and not share <= float(sys.argv[2]):
        sys.exit(f"the last loss should be at most {100 * float(sys.argv[2]):.0f} % of the first")


if __name__ == "__main__":
    main()
