// Tokens a second of a model in Node, one thread: node speed.mjs MODEL.cbl [PROMPT] [TEXT] [ISA...]
// (node --experimental-wasm-relaxed-simd for Node 20). The median of 3 runs.

import { readFileSync } from 'node:fs';
import { argv } from 'node:process';

import { Model, hasRelaxedSimd } from '../../bindings/web/dist/index.js';

const [, , file, prompt = 512, text = 64, ...wanted] = argv;
const isas = wanted.length > 0 ? wanted : ['simd128', ...(hasRelaxedSimd() ? ['relaxed-simd'] : [])];
const median = (numbers) => numbers.sort((a, b) => a - b)[numbers.length >> 1];

for (const isa of isas) {
  const model = await Model.load(readFileSync(file), { worker: false, isa });
  const session = await model.session({ context: Number(prompt) + Number(text) + 8, draft: 0 });
  const tokens = Array.from({ length: Number(prompt) }, (_, i) => (i * 7919 + 13) % Math.min(model.info.vocabulary, 4096));
  const [prompts, texts] = [[], []];
  for (let run = 0; run < 4; run += 1) {
    await session.reset();
    await session.generate(tokens, { maxTokens: Number(text) + 1, ignoreEndOfText: true }).text();
    const { promptSeconds, generatedTokens, generationSeconds } = await session.stats();
    // The first run warms the compiler up.
    if (run > 0) {
      prompts.push(tokens.length / promptSeconds);
      texts.push((generatedTokens - 1) / generationSeconds);
    }
  }
  const { memoryBytes } = await session.stats();
  console.log(`${isa}: prompt of ${prompt} ${median(prompts).toFixed(1)} tokens/s, text of ${text} ${median(texts).toFixed(1)} tokens/s, memory ${(memoryBytes / 1048576).toFixed(1)} MiB (file ${(model.info.fileBytes / 1048576).toFixed(1)})`);
}
