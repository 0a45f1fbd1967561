// Speed in Chromium, by one thread and by two, beside wllama (a port of llama.cpp) and our native runtime on AVX2.
//
//     npm install --prefix DIRECTORY @wllama/wllama        (outside of this repository; 3.13 was used)
//     cd bindings/web && npm install && npm run build && cd ../..
//     cargo build --release -p cerebellum-tools
//     node benches/web/compare.mjs DIRECTORY/node_modules/@wllama/wllama OUTPUT.json NAME=MODEL.cbl,THEIRS.gguf...
//
// A model's files hold the same weights: ours runs in both modules and natively, theirs in wllama. The page for one
// thread has no special headers, the one for two is cross-origin isolated. All take turns, each in a page of its own with
// modules that are compiled anew: a prompt of 512 tokens (theirs is the same text), then 64 tokens one by one. A first
// turn of the same length, whose figures are thrown away, lets the engine compile everything for speed.
//
// ROUNDS is the number of rounds, 3 by default. If OUTPUT exists, its samples are kept: rounds may come in parts.
// TOKENS (512) is the length of the prompt, which must fit into the model's context with 72 more; CHROMIUM the browser,
// FLAGS more of its options, CEREBELLUM the native program. ONLY, a regular expression, chooses among what would be measured.

import { execFileSync } from 'node:child_process';
import { createReadStream, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { extname, join, normalize } from 'node:path';
import { argv, env, exit } from 'node:process';
import { fileURLToPath } from 'node:url';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const { chromium } = createRequire(here('../../bindings/web/package.json'))('playwright-core');

const [, , wllama, output, ...named] = argv;
if (named.length === 0) {
  console.error('usage: node compare.mjs WLLAMA OUTPUT.json NAME=MODEL.cbl[,THEIRS.gguf]...');
  exit(2);
}
const program = env.CEREBELLUM ?? here('../../target/release/cerebellum');
const length = Number(env.TOKENS ?? 512);
const only = new RegExp(env.ONLY ?? '');
/** A figure takes seconds; what takes minutes is stuck. */
const PATIENCE = 240_000;

const models = named.map((it) => {
  const [name, files] = it.split('=');
  const [our, their] = files.split(',');
  return { name, our, their };
});
const files = models.flatMap(({ our, their }) => [our, their]);
const TYPES = { '.js': 'text/javascript', '.wasm': 'application/wasm' };

const server = createServer((request, response) => {
  const path = normalize(new URL(request.url, 'http://x').pathname);
  const [, root, ...rest] = path.split('/');
  const file = {
    cerebellum: () => join(here('../../bindings/web/dist'), ...rest),
    wllama: () => join(wllama, ...rest),
    model: () => files[Number(rest[0])],
  }[root]?.();
  response.setHeader('cross-origin-embedder-policy', 'require-corp');
  if (path === '/1' || path === '/2') {
    if (path === '/1') response.removeHeader('cross-origin-embedder-policy');
    else response.setHeader('cross-origin-opener-policy', 'same-origin');
    response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><title>speed</title>');
  } else if (file && existsSync(file)) {
    response.writeHead(200, {
      'content-type': TYPES[extname(file)] ?? 'application/octet-stream', 'content-length': statSync(file).size,
    });
    createReadStream(file).pipe(response);
  } else {
    response.writeHead(404).end();
  }
}).listen(0, '127.0.0.1');
await new Promise((done) => { server.once('listening', done); });
const address = `http://127.0.0.1:${server.address().port}/`;

/** In the page. `firstSeconds` is from the start of loading, over a local network, to the first piece of text. */
async function ours({ at, isa, threads, tokens }) {
  const { Model } = await import('/cerebellum/index.js');
  const start = performance.now();
  const model = await Model.load(`/model/${at}`, { isa, cache: false });
  const session = await model.session({ context: tokens.length + 72, draft: 0, threads });
  await session.generate(tokens.slice(0, 1), { maxTokens: 1, ignoreEndOfText: true }).text();
  const firstSeconds = (performance.now() - start) / 1000;
  let stats;
  for (let run = 0; run < 2; run += 1) {
    await session.reset();
    const stream = session.generate(tokens, { maxTokens: 65, ignoreEndOfText: true });
    await stream.text();
    ({ stats } = stream);
  }
  if (stats.threads !== threads) throw new Error(`${stats.threads} threads instead of ${threads}`);
  return {
    firstSeconds, tokens: tokens.length, prompt: tokens.length / stats.promptSeconds,
    decode: (stats.generatedTokens - 1) / stats.generationSeconds, memoryBytes: stats.memoryBytes,
  };
}

async function theirs({ at, text, context, threads }) {
  const { Wllama } = await import('/wllama/esm/index.js');
  const said = [];
  const say = (...words) => { said.push(words.join(' ')); };
  const start = performance.now();
  const it = new Wllama({ default: '/wllama/esm/wasm/wllama.wasm' }, { logger: { debug: say, log: say, warn: say, error: say } });
  try {
    const blob = await (await fetch(`/model/${at}`)).blob();
    await it.loadModel([blob], { n_ctx: context, n_threads: threads, n_gpu_layers: 0, n_parallel: 1, warmup: false });
    const complete = (prompt, count) => it.createCompletion({
      prompt, max_tokens: count, temperature: 0, ignore_eos: true, cache_prompt: false,
    });
    await complete('Once', 1);
    const firstSeconds = (performance.now() - start) / 1000;
    let timings;
    for (let run = 0; run < 2; run += 1) ({ timings } = await complete(text, 65));
    const { prompt_n: tokens, prompt_per_second: prompt, predicted_ms: ms, predicted_n: count } = timings;
    return { firstSeconds, tokens, prompt, decode: (1000 * (count - 1)) / ms, threads: it.getNumThreads() };
  } catch (error) {
    throw new Error(`${error.message}\n${said.slice(-20).join('\n')}`);
  }
}

function native(file, threads) {
  const { results } = JSON.parse(execFileSync(program, [
    'bench', '--json', '--quiet', '-m', file, '-t', threads, '-p', length, '-n', '64', '--depth', length, '-r', '1', '--draft', '0',
    '--context', length + 72,
  ], { env: { ...env, CEREBELLUM_ISA: 'avx2' } }));
  const speed = (wanted) => results.find(({ kind }) => kind === wanted).tokens_per_second;
  return { tokens: length, prompt: speed('prompt'), decode: speed('decode') };
}

// 17 tokens of this are 16 words and a full stop for most tokenizers.
const SENTENCE = 'The old man went down to the sea and looked at the boats that came in today. ';
const browser = await chromium.launch({
  executablePath: env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', ...(env.FLAGS ?? '').split(' ').filter(Boolean)],
});

/** A page of its own, which is closed afterwards. */
async function inPage(run, args) {
  const { threads = 1 } = args;
  const page = await browser.newPage();
  let timer;
  try {
    await page.goto(`${address}${threads}`);
    return await Promise.race([
      page.evaluate(run, args),
      new Promise((_, fail) => { timer = setTimeout(() => fail(new Error(`nothing after ${PATIENCE / 1000} s`)), PATIENCE); }),
    ]);
  } finally {
    clearTimeout(timer);
    await page.close();
  }
}

/** The prompt: as many tokens of our file, and the text that they are. */
async function promptOf(at) {
  return inPage(async ({ file, sentence, count }) => {
    const { Model } = await import('/cerebellum/index.js');
    const model = await Model.load(`/model/${file}`, { cache: false });
    const { hasTokenizer, vocabulary } = model.info;
    if (!hasTokenizer) return { tokens: Array.from({ length: count }, (_, i) => (i * 7919 + 13) % Math.min(vocabulary, 4096)), text: sentence.repeat(count / 16) };
    const tokens = (await model.tokenize(sentence.repeat(1 + count / 16))).slice(0, count);
    return { tokens, text: await model.detokenize(tokens) };
  }, { file: at, sentence: SENTENCE, count: length });
}

const samples = existsSync(output) ? JSON.parse(readFileSync(output, 'utf8')).samples : {};
const kinds = [];
for (const [i, { name, our, their }] of models.entries()) {
  const { tokens, text } = await promptOf(2 * i);
  for (const threads of [1, 2]) {
    const add = (kind, run) => kinds.push({ name: `${name}, ${kind}${threads > 1 ? `, ${threads} threads` : ''}`, run });
    for (const isa of ['relaxed-simd', 'simd128']) add(isa, () => inPage(ours, { at: 2 * i, isa, threads, tokens }));
    if (their) add('wllama', () => inPage(theirs, { at: 2 * i + 1, text, context: length + 128, threads }));
    if (existsSync(program)) add('native AVX2', async () => native(our, threads));
  }
}
try {
  for (let round = 0; round < Number(env.ROUNDS ?? 3); round += 1) {
    for (const { name, run } of kinds.filter((kind) => only.test(kind.name))) {
      const sample = await run();
      (samples[name] ??= []).push(sample);
      console.log(name, JSON.stringify(sample));
    }
  }
} finally {
  const { version } = JSON.parse(readFileSync(join(wllama, 'package.json'), 'utf8'));
  writeFileSync(output, `${JSON.stringify({ chromium: browser.version(), wllama: version, samples }, null, 1)}\n`);
  await browser.close();
  server.close();
}

const median = (numbers) => numbers.sort((a, b) => a - b)[numbers.length >> 1];
const figure = (name, key) => (samples[name] ? median(samples[name].map((sample) => sample[key])) : NaN);
const ratio = (n) => (n > 0 ? n.toFixed(2) : '');
console.log('\n| model | first text, s | prompt, tokens/s | of wllama | of native | text, tokens/s | of wllama | of native |');
console.log('|---|---|---|---|---|---|---|---|');
for (const { name: model } of models) {
  for (const threads of ['', ', 2 threads']) {
    for (const kind of ['relaxed-simd', 'simd128', 'wllama', 'native AVX2']) {
      const name = `${model}, ${kind}${threads}`;
      if (!samples[name]) continue;
      const cells = ['prompt', 'decode'].flatMap((key) => [
        figure(name, key).toFixed(1),
        ...['wllama', 'native AVX2'].map((other) => ratio(figure(name, key) / figure(`${model}, ${other}${threads}`, key))),
      ]);
      console.log(`| ${name} | ${ratio(figure(name, 'firstSeconds'))} | ${cells.join(' | ')} |`);
    }
  }
}
