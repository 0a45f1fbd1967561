#!/usr/bin/env python3
"""What a token and a prompt cost by count, and what that predicts: the tables of docs/growth.md.

A token reads every weight once, and the keys and values before it; a prompt multiplies every weight of the layers
with every token, and each query with the keys and values before it. `cerebellum bench` states the same counts for a
model file (`bytes_per_token`, `gmac_per_second`).
"""

# Layers, width, heads of queries, of keys, their size, width of the MLP, vocabulary, whether the head is the embedding.
MODELS = {
    "SmolLM2 135M": (30, 576, 9, 3, 64, 1536, 49152, True),
    "Gemma 3 270M": (18, 640, 4, 1, 256, 2048, 262144, True),
    "Qwen2.5 0.5B": (24, 896, 14, 2, 64, 4864, 151936, True),
    "Llama 3.2 1B": (16, 2048, 32, 8, 64, 8192, 128256, True),
    "SmolLM2 1.7B": (24, 2048, 32, 32, 64, 8192, 49152, True),
    "Llama 3.2 3B": (28, 3072, 24, 8, 128, 8192, 128256, True),
    "Llama 3.1 8B": (32, 4096, 32, 8, 128, 14336, 128256, False),
}
# Bytes read per second, 8-bit multiply-accumulates per second, in billions. docs/growth.md says where from.
MACHINES = {
    "Raspberry Pi 5": (11.7, 180),
    "phone": (30, 400),
    "laptop": (60, 1200),
    "two cores of Zen 4": (38, 360),
}
# Panels of 16 rows: weights of 4 bits, a float16 scale for 64 of them and row, the scales in whole lines of 64 bytes.
GROUP, PANEL, LINE = 64, 16, 64
# Meetings of the threads in a layer, and what one takes, measured (docs/kernels.md, "One token, phase by phase").
MEETINGS, MEETING = 6, 0.5e-6


def matrix(rows, cols):
    """Bytes of a matrix."""
    groups = -(-cols // GROUP)
    lines = -(-groups * PANEL * 2 // LINE)
    return -(-rows // PANEL) * (groups * GROUP * PANEL // 2 + lines * LINE)


def count(layers, width, heads, kv_heads, size, inner, vocabulary, tied):
    """Bytes and weights of the layers and of the head, bytes of a position's cache, attention's products of a pair."""
    shapes = [((heads + 2 * kv_heads) * size, width), (width, heads * size), (inner, width), (inner, width), (width, inner)]
    return {
        "layers": layers * sum(matrix(*shape) for shape in shapes),
        "weights": layers * sum(rows * cols for rows, cols in shapes),
        "head": matrix(vocabulary, width),
        "head_weights": vocabulary * width,
        "position": layers * 2 * kv_heads * size * 2,
        "pair": layers * 2 * heads * size,
    }


def decode(model, machine, positions):
    """Tokens per second after so many positions."""
    read, _ = MACHINES[machine]
    c = count(*MODELS[model])
    seconds = (c["layers"] + c["head"] + positions * c["position"]) / (read * 1e9)
    return 1 / (seconds + MODELS[model][0] * MEETINGS * MEETING)


def prompt(model, machine, tokens):
    """Tokens per second of a prompt: attention's products count four times, as they are of floats."""
    _, rate = MACHINES[machine]
    c = count(*MODELS[model])
    products = c["weights"] * tokens + c["head_weights"] + 4 * c["pair"] * tokens**2 / 2
    return tokens / (products / (rate * 1e9))


def main():
    """Prints the tables."""
    print("| model | weights | MB a token, empty cache | MB for 1000 positions | GMAC a prompt of 512 |\n|---|---|---|---|---|")
    for name, shape in MODELS.items():
        c = count(*shape)
        weights = c["weights"] + c["head_weights"] * (1 if shape[-1] else 2)
        products = (c["weights"] * 512 + c["head_weights"] + c["pair"] * 512**2 / 2) / 1e9
        print(f"| {name} | {weights / 1e6:.0f} M | {(c['layers'] + c['head']) / 1e6:.1f} | {c['position'] / 1e3:.1f} | {products:.0f} |")
    print("\n| tokens/s: decode / prompt of 512 | " + " | ".join(MACHINES) + " |\n|---" + "|---" * len(MACHINES) + "|")
    for name in MODELS:
        cells = [f"{decode(name, m, 0):.0f} / {prompt(name, m, 512):.0f}" for m in MACHINES]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
