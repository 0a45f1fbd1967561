#!/usr/bin/env python3
"""What matrix products cost 64-bit Arm processors, ours and llama.cpp's, without such a processor.

    .ci/arm speed                        builds what is needed and runs this
    products.py DIRECTORY [LLVM_MCA]     with programs of product.rs (`product`) and ggml_product.cpp
                                         (`ggml_product-LEVEL`), static, and trace.c (`trace.so`)

Each program multiplies a matrix once. qemu writes down the instructions that it executes meanwhile; they
are counted, with the bytes they load, and given to llvm-mca's models of cores. It is all that a product
takes once the tokens' values are quantized: unpacking, scales, conversion, sums, output. The peak is what
the same model gives for the instruction alone that multiplies.
"""

import bisect
import re
import subprocess
import sys
from pathlib import Path

INPUTS = 768
# Tokens and rows: decoding, a draft's verification, a prompt.
SIZES = {1: 64, 4: 64, 64: 16}
# Our groups' sizes; llama.cpp's blocks have 32.
WEIGHTS = [("int4", 32), ("int4", 64), ("int8", 32), ("int8", 128)]
# The instruction that multiplies, how many products it takes, and cores.
LEVELS = {
    "neon": ("smlal v{}.8h, v30.8b, v31.8b", 8, ["cortex-a53"]),
    "neon-dotprod": ("sdot v{}.4s, v30.16b, v31.16b", 16,
                     ["neoverse-n1", "apple-m1", "cortex-a55", "cortex-a510"]),
    "neon-i8mm": ("smmla v{}.4s, v30.16b, v31.16b", 32, ["neoverse-n2", "cortex-a510"]),
}


class Program:
    """A static program whose executed instructions can be followed."""

    def __init__(self, path):
        self.path = path
        text = subprocess.run(["aarch64-linux-gnu-objdump", "-d", "--no-show-raw-insn", path],
                              capture_output=True, text=True, check=True).stdout
        self.code = [(int(address, 16), instruction.strip()) for address, instruction
                     in re.findall(r"^\s*([0-9a-f]+):\s+([^;/\n]*)", text, re.M)]
        self.addresses = [address for address, _ in self.code]
        self.marks = [int(re.search(rf"^([0-9a-f]+) <{name}>:$", text, re.M)[1], 16)
                      for name in ("trace_begin", "trace_end")]

    def trace(self, *arguments):
        """The instructions between the marks, in the order of their execution."""
        out = self.path.with_suffix(".trace")
        subprocess.run(
            ["qemu-aarch64", "-cpu", "max", "-plugin", f"{self.path.parent / 'trace.so'},out={out}",
             self.path, *map(str, arguments)], check=True, stderr=subprocess.DEVNULL)
        blocks = [(int(address, 16), int(count, 16))
                  for address, count in map(str.split, out.read_text().splitlines())]
        out.unlink()
        starts = [address for address, _ in blocks]
        begin = starts.index(self.marks[0])
        end = starts.index(self.marks[1], begin)
        executed = []
        for address, count in blocks[begin + 1:end]:
            at = bisect.bisect_left(self.addresses, address)
            assert self.addresses[at] == address
            executed += [text for _, text in self.code[at:at + count]]
        return executed


def loaded(text):
    """Bytes that an instruction loads."""
    match = re.match(r"(ld\w*)\s+([^[]*)", text)
    if not match:
        return 0
    name, operands = match[1], match[2]
    if match := re.match(r"ldu?rs?([bhw])", name):
        return {"b": 1, "h": 2, "w": 4}[match[1]]
    size = {"q": 16, "d": 8, "s": 4, "h": 2, "b": 1, "x": 8, "w": 4}
    if not operands.startswith("{"):
        return sum(size[kind] for kind in re.findall(r"\b([qdshbxw])(?:\d+|zr)", operands))
    vectors = re.findall(r"v(\d+)\.(\d*)([bhsd])", operands)
    count = len(vectors)
    if "-" in operands:  # {v30.16b-v1.16b}
        count = (int(vectors[1][0]) - int(vectors[0][0])) % 32 + 1
    # One element for ld1 {v0.s}[1] and ld1r {v0.4s}.
    return count * size[vectors[0][2]] * (1 if name.endswith("r") else int(vectors[0][1] or 1))


def cycles(mca, cpu, instructions, iterations=1):
    """Cycles that so many executions of a sequence take."""
    straight = [re.sub(r"[0-9a-f]+ <.*>", "1f", text) for text in instructions
                if not re.match(r"(b|bl|blr|br|ret)\b(?!\.)", text)]
    run = subprocess.run(
        [mca, "-mtriple=aarch64", "-mattr=+dotprod,+i8mm,+fullfp16", f"-mcpu={cpu}",
         f"-iterations={iterations}", "-instruction-info=0", "-resource-pressure=0"],
        input="\n".join(straight) + "\n1:\n", capture_output=True, text=True, check=True)
    return int(re.search(r"Total Cycles:\s+(\d+)", run.stdout)[1])


def peak(mca, cpu, instruction, products):
    """The most products a cycle."""
    alone = [instruction.format(i) for i in range(24)]
    return products * round(100 * len(alone) / cycles(mca, cpu, alone, 100), 1)


class Product:
    """What one product executes."""

    def __init__(self, program, rows, tokens, *arguments):
        self.products = rows * INPUTS * tokens
        self.executed = program.trace(*arguments, rows, INPUTS, tokens)

    def figures(self, mca, cpu, most):
        """Instructions, cycles and bytes loaded for 1000 products, and the share of the peak."""
        took = cycles(mca, cpu, self.executed)
        figures = [len(self.executed), took, sum(map(loaded, self.executed))]
        return [f"{1000 * figure / self.products:.0f}" for figure in figures] + [
            f"{100 * self.products / took / most:.0f} %"]


def main(directory, mca="llvm-mca"):
    directory = Path(directory).resolve()
    ours = Program(directory / "product")
    columns = ["instructions", "cycles", "bytes", "of peak"]
    print("| core | tokens | weights, group | " + " | ".join(columns + [f"llama.cpp: {c}" for c in columns])
          + " |\n|---|---" + "|---" * 9 + "|")
    for level, (instruction, products, cores) in LEVELS.items():
        peer = Program(directory / f"ggml_product-{level}")
        for tokens, rows in SIZES.items():
            peers = {scheme: Product(peer, rows, tokens, level, scheme) for scheme in ("int4", "int8")}
            own = [Product(ours, rows, tokens, level, *weights) for weights in WEIGHTS]
            # Others than the first core for prompts only, where the products bound.
            for cpu in cores if tokens > 4 else cores[:1]:
                most = peak(mca, cpu, instruction, products)
                beside = {scheme: product.figures(mca, cpu, most) for scheme, product in peers.items()}
                for (scheme, group), product in zip(WEIGHTS, own):
                    row = product.figures(mca, cpu, most) + beside[scheme]
                    print(f"| {cpu} | {tokens} | {scheme}, {group} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*sys.argv[1:])
