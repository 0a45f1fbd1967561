#!/usr/bin/env python3
"""What llvm-mca's models of Arm cores predict for the loops of the matrix product.

    .ci/arm speed                  builds what is needed and runs this
    cores.py OBJECT [LLVM_MCA]     the kernels as an object file with v0 symbol names

For a prompt: one tile of tokens with one group of a panel, everything around the inner loop included
(scales, conversion, accumulators in and out). For decoding: the inner loop. The peak is what the same
model gives for the product instruction alone.
"""

import re
import subprocess
import sys

# Inputs that one round of the inner loop multiplies.
LOOPS = [
    # label, symbol, product, inputs a round, cores
    ("sdot", r"Group.*Rows.*Sdot.*tiles.*Unpacked", "sdot", 16,
     ["neoverse-n1", "apple-m1", "cortex-a55", "cortex-a510"]),
    ("smmla", r"Group.*Mmla.*tiles.*Unpacked", "smmla", 16, ["neoverse-n2", "cortex-a510"]),
    ("smlal int4", r"Group.*Smlal4.*tiles.*Unpacked", "smlal", 8, ["cortex-a53", "neoverse-n1"]),
    ("smlal int8", r"Group.*Smlal8.*tiles.*Unpacked", "smlal", 8, ["cortex-a53"]),
]
DECODE = [
    # label, symbol, bytes of weights in a round
    ("sdot int4", r"few_tokens.*Rows.*Sdot.*Nibbles.*Kj1_", 128, "neoverse-n1"),
    ("sdot int8", r"few_tokens.*Rows.*Sdot.*Signed.*Bytes.*Kj1_", 256, "neoverse-n1"),
    ("usdot int8", r"few_tokens.*Rows.*Usdot.*Bytes.*Kj1_", 256, "neoverse-n2"),
    ("smlal int4", r"few_tokens.*Smlal4.*Nibbles.*Kj1_", 64, "cortex-a53"),
]
PRODUCT = re.compile(r"(sdot|usdot|smmla|smlal2?|smull2?)\b")
BRANCH = re.compile(r"(b|b\.\w+|cbn?z|tbn?z)\s+(?:.*,\s*)?([0-9a-f]+) <")
ITERATIONS = 50


def functions(path):
    """Name -> [(address, instruction)]."""
    text = subprocess.run(
        ["aarch64-linux-gnu-objdump", "-d", "--no-show-raw-insn", path],
        capture_output=True, text=True, check=True).stdout
    found, code = {}, []
    for line in text.splitlines():
        if match := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            code = found.setdefault(match[1], [])
        elif match := re.match(r"\s*([0-9a-f]+):\s+([^;/]*)", line):
            code.append((int(match[1], 16), match[2].strip()))
    return found


def loops(code):
    """The inner loop with the most products, and the smallest loop around it or None."""
    index = {address: i for i, (address, _) in enumerate(code)}
    found = []
    for i, (_, text) in enumerate(code):
        match = BRANCH.match(text)
        target = match and index.get(int(match[2], 16))
        if target is not None and target <= i:
            found.append((target, i))

    def products(loop):
        return sum(bool(PRODUCT.match(text)) for _, text in code[loop[0]:loop[1] + 1])

    def inside(a, b):
        return a != b and b[0] <= a[0] and a[1] <= b[1]

    innermost = [a for a in found if not any(inside(b, a) and products(b) for b in found)]
    inner = max(innermost, key=products)
    around = [loop for loop in found if inside(inner, loop)]
    return inner, min(around, key=lambda loop: loop[1] - loop[0], default=None)


def trace(code, inner, outer, rounds):
    """What one round of the outer loop executes, with so many of the inner one."""
    index = {address: i for i, (address, _) in enumerate(code)}
    out, i = [], outer[0]
    while True:
        text = code[i][1]
        out.append(text)
        if i == outer[1]:
            return out
        if i == inner[1]:
            rounds -= 1
            i = inner[0] if rounds else i + 1
            continue
        match = BRANCH.match(text)
        # Other conditions are for groups without inputs, and for the end.
        i = index[int(match[2], 16)] if match and match[1] == "b" else i + 1
        if i == outer[0]:
            return out


def cycles(mca, cpu, instructions):
    """Cycles of a sequence that repeats."""
    def straight(text):
        return re.sub(r"[0-9a-f]+ <.*>", "1f", text)
    lines = [straight(text) for text in instructions if not re.match(r"(b|bl|blr|ret)\b(?!\.)", text)]
    run = subprocess.run(
        [mca, "-mtriple=aarch64", "-mattr=+dotprod,+i8mm", f"-mcpu={cpu}", f"-iterations={ITERATIONS}"],
        input="\n".join(lines) + "\n1:\n", capture_output=True, text=True, check=True)
    return int(re.search(r"Total Cycles:\s+(\d+)", run.stdout)[1]) / ITERATIONS


def peak(mca, cpu, product):
    """Products' instructions a cycle, alone and independent."""
    shape = {"smlal": "v{}.8h, v30.8b, v31.8b"}.get(product, "v{}.4s, v30.16b, v31.16b")
    alone = [f"{product} {shape.format(i)}" for i in range(24)]
    return round(len(alone) / cycles(mca, cpu, alone), 1)


def main(path, mca="llvm-mca"):
    code = functions(path)

    def one(symbol):
        names = [name for name in code if re.search(symbol, name)]
        if not names:
            sys.exit(f"no function matches {symbol}")
        return code[names[0]]

    print("| prompt | group | core | instructions a tile | products' instructions per cycle | of peak |")
    print("|---|---|---|---|---|---|")
    for label, symbol, product, inputs, cores in LOOPS:
        body = one(symbol)
        inner, outer = loops(body)
        for group in (64, 128):
            executed = trace(body, inner, outer, group // inputs)
            products = sum(bool(PRODUCT.match(text)) for text in executed)
            for cpu in cores:
                rate, most = products / cycles(mca, cpu, executed), peak(mca, cpu, product)
                print(f"| `{label}` | {group} | {cpu} | {len(executed)} | {rate:.2f} of {most:g} "
                      f"| {100 * rate / most:.0f} % |")
    print("\n| decode, inner loop | core | bytes of weights | instructions | cycles | bytes per cycle |")
    print("|---|---|---|---|---|---|")
    for label, symbol, size, cpu in DECODE:
        body = one(symbol)
        (first, last), _ = loops(body)
        executed = [text for _, text in body[first:last + 1]]
        took = cycles(mca, cpu, executed)
        print(f"| `{label}` | {cpu} | {size} | {len(executed)} | {took:.1f} | {size / took:.1f} |")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*sys.argv[1:])
