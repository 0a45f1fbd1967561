// Tokens a second of a model in Node: node speed.mjs MODEL.cbl [PROMPT] [TEXT] [ISA...]
// (node --experimental-wasm-relaxed-simd for Node 20). The median of 3 runs. THREADS (1) is the number of threads, CACHE
// (f16) the type of the cache.

import { readFileSync } from 'node:fs';
import { argv, env } from 'node:process';

import { Model, hasRelaxedSimd } from '../../bindings/web/dist/index.js';

const [, , file, prompt = 512, text = 64, ...wanted] = argv;
const [threads, cache] = [Number(env.THREADS ?? 1), env.CACHE ?? 'f16'];
const isas = wanted.length > 0 ? wanted : ['simd128', ...(hasRelaxedSimd() ? ['relaxed-simd'] : [])];
const median = (numbers) => numbers.sort((a, b) => a - b)[numbers.length >> 1];

for (const isa of isas) {
  const model = await Model.load(readFileSync(file), { worker: false, isa, threads: threads > 1 });
  const session = await model.session({ context: Number(prompt) + Number(text) + 8, draft: 0, threads, cache });
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
