// The recorded logits (tests/recorded_logits.rs) and the tests' hostile files, in all modules.
// CEREBELLUM_MODELS is a directory with the demo model as demo-int4.cbl and demo-int8.cbl, CEREBELLUM_HOSTILE one with
// hostile files, such as those that `HOSTILE_EXPORT=DIRECTORY cargo test --test hostile` writes.

import assert from 'node:assert/strict';
import { cpSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { dirname, join } from 'node:path';
import { env } from 'node:process';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

import { Model, hasRelaxedSimd } from '../dist/index.js';
import { Host } from '../dist/host.js';
import { damaged, endOf } from './hostile.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const models = process.env.CEREBELLUM_MODELS ?? join(here, '../../../target/web/models');
const data = join(here, '../../../tests/data');

const TABLE = new Uint32Array(256).map((_, n) => {
  let c = n;
  for (let bit = 0; bit < 8; bit += 1) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c >>> 0;
});

/** CRC-32 of 4-byte numbers, as `format::checksum`. */
function checksum(crc, numbers) {
  let c = ~crc;
  for (const byte of new Uint8Array(numbers.buffer)) c = TABLE[(c ^ byte) & 255] ^ (c >>> 8);
  return ~c >>> 0;
}

const hex = (n) => n.toString(16).padStart(8, '0');

function best(logits) {
  let at = 0;
  for (let i = 1; i < logits.length; i += 1) if (logits[i] > logits[at]) at = i;
  return at;
}

/** A prompt as Rust writes it between quotation marks. */
function unquoted(text) {
  return text.slice(1, -1).replace(/\\u\{([0-9a-f]+)\}|\\(.)/g, (_, code, escaped) =>
    (code ? String.fromCodePoint(parseInt(code, 16)) : { n: '\n', t: '\t' }[escaped] ?? escaped));
}

const isas = ['simd128', ...(hasRelaxedSimd() ? ['relaxed-simd'] : [])];
if (isas.length === 1) console.log('relaxed-simd SKIPPED: this engine has no relaxed instructions, or they round twice');

for (const [isa, threads] of isas.flatMap((isa) => [[isa, 0], [isa, 1], [isa, 2], [isa, 3]])) {
  // `.ci/equality` reads the names of those that end so.
  test(`${isa}${threads > 0 ? ` with ${threads} threads` : ''} gives the recorded logits`, async () => {
    const lines = readFileSync(join(data, 'recorded/logits.txt'), 'utf8').trim().split('\n');
    const kept = new Map();
    for (const line of lines) {
      const [, scheme, kv, wantLogits, wantTokens, quoted] = line.match(/^(\S+) (\S+) logits (\S+) tokens (\S+) (.*)$/);
      const name = join(models, `demo-${scheme}.cbl`);
      if (!kept.has(name)) kept.set(name, await Model.load(readFileSync(name), { worker: false, isa, verify: true, threads: threads > 0 }));
      const model = kept.get(name);
      assert.equal(model.hasThreads, threads > 0);
      const session = await model.session({ cache: kv.toLowerCase(), threads: Math.max(1, threads) });
      const stats = await session.stats();
      assert.deepEqual([stats.isa, stats.threads], [isa, Math.max(1, threads)]);
      let logits = await session.evaluate(await model.tokenize(unquoted(quoted)));
      let [crc, tokens] = [0, []];
      for (let step = 0; step < 64; step += 1) {
        crc = checksum(crc, logits);
        tokens.push(best(logits));
        logits = await session.evaluate(tokens.slice(-1));
      }
      const got = `${hex(crc)} ${hex(checksum(0, Uint32Array.from(tokens)))}`;
      assert.equal(got, `${wantLogits} ${wantTokens}`, line);
      await session.close();
    }
    assert.equal(kept.size, 2);
    for (const model of kept.values()) model.close();
  });
}

for (const isa of isas) {
  test(`${isa}: hostile files are errors`, async () => {
    const directory = env.CEREBELLUM_HOSTILE ?? join(data, 'hostile');
    const names = readdirSync(directory, { recursive: true }).map((name) => join(directory, name)).filter((name) => statSync(name).isFile());
    const whole = new Uint8Array(readFileSync(join(models, 'demo-int4.cbl')));
    const counts = {};
    const open = async (bytes, name) => {
      const end = await endOf(Model, bytes, { worker: false, isa });
      assert.match(end, /^(?!PANIC)([A-Z_]+|text)$/, name);
      counts[end] = (counts[end] ?? 0) + 1;
    };
    for (const name of names) await open(readFileSync(name), name);
    for (const length of [0, 1, 7, 8, 64, 100, 4096, whole.length - 1]) await open(whole.slice(0, length), `${length} bytes`);
    for (const bytes of damaged(whole, 600)) await open(bytes, 'damaged');
    console.log(`${isa}: ${names.length} files and 608 of the demo model:`, JSON.stringify(counts));
    assert.ok(counts.text > 0 && counts.BAD_MODEL > 100, JSON.stringify(counts));
  });
}

test('a text streams, stops where the loop is left, and goes on', async () => {
  const model = await Model.load(readFileSync(join(models, 'demo-int8.cbl')), { worker: false });
  const session = await model.session({ context: 256 });
  const whole = await session.generate('Once upon a time', { maxTokens: 40 }).text();
  await session.reset();
  const stream = session.generate('Once upon a time', { maxTokens: 40 });
  const pieces = [];
  for await (const piece of stream) {
    pieces.push(piece);
    if (pieces.length === 5) break;
  }
  assert.ok(whole.startsWith(pieces.join('')));
  assert.equal(stream.stopReason, 'cancelled');
  await session.reset();
  const again = session.generate('Once upon a time', { maxTokens: 40 });
  assert.equal(await again.text(), whole);
  assert.ok(again.stats.generatedTokens > 0);
});

test('classes, embeddings, templates and plans', async () => {
  const model = await Model.load(readFileSync(join(models, 'demo-int8.cbl')), { worker: false });
  const session = await model.session({ allLogits: true });
  const labels = ['alarm', 'timer', 'weather', 'play music', 'greeting'];
  const classifier = await model.classifier(labels);
  const { label, probabilities } = await session.classify(classifier, 'will it rain in paris tomorrow');
  assert.equal(label, 'weather');
  assert.ok(Math.abs(probabilities.reduce((a, b) => a + b) - 1) < 1e-9);
  const vector = await session.embed('a dog');
  assert.equal(vector.length, model.info.embedding);
  const { totalBytes, cacheBytes } = await model.plan({ context: 128 });
  assert.ok(totalBytes > cacheBytes);
  await assert.rejects(model.session({ context: 1 << 30 }), { status: 'BAD_OPTION' });
  await assert.rejects(model.session({ contxt: 1 }), TypeError);
  await assert.rejects(session.generate('x', { temperature: -1 }).text(), { status: 'BAD_OPTION' });
  const translate = await model.template('translate');
  const stream = session.apply(translate, 'I am hungry.');
  assert.ok((await stream.text()).length > 0);
  assert.equal(await model.detokenize(await model.tokenize('Grüße')), 'Grüße');
});

test('threads: as many as there can be, and they end with their session', async () => {
  const bytes = readFileSync(join(models, 'demo-int4.cbl'));
  const alone = await Model.load(bytes, { threads: false });
  assert.equal((await (await alone.session({ context: 64, threads: 4 })).stats()).threads, 1);
  await assert.rejects(alone.session({ threads: 0 }), { status: 'BAD_OPTION' });
  const model = await Model.load(bytes);
  await assert.rejects(model.session({ threads: 65 }), { status: 'BAD_OPTION' });
  await assert.rejects(model.session({ threads: 1.5 }), { status: 'BAD_OPTION' });
  const together = await Promise.all([2, 3].map((threads) => model.session({ context: 64, threads })));
  const counts = async (sessions) => (await Promise.all(sessions.map((it) => it.stats()))).map(({ threads }) => threads);
  assert.deepEqual(await counts(together), [2, 3]);
  const texts = async (sessions) => Promise.all(sessions.map((it) => it.generate('Once upon a time', { maxTokens: 20 }).text()));
  const [text, same] = await texts(together);
  assert.equal(text, same);
  // The workers of sessions that were closed serve the next ones: no more memory is taken.
  const { memoryBytes } = await together[0].stats();
  for (let round = 0; round < 20; round += 1) {
    for (const session of together.splice(0)) await session.close();
    for (const threads of [3, 2]) together.push(await model.session({ context: 64, threads }));
  }
  assert.deepEqual(await texts(together), [text, text]);
  assert.ok((await together[0].stats()).memoryBytes <= memoryBytes + 65536);
  // A larger plan, as each thread has buffers of its own.
  const [one, four] = await Promise.all([1, 4].map((threads) => model.plan({ threads })));
  assert.ok(four.scratchBytes >= one.scratchBytes);
  model.close();
  await assert.rejects(together[0].stats(), { status: 'BAD_HANDLE' });
});

test('a trap in a thread is an error, and other models live on', async () => {
  const copy = join(here, '../../../target/web/trap');
  rmSync(copy, { recursive: true, force: true });
  cpSync(join(here, '../dist'), copy, { recursive: true });
  const file = join(copy, 'threads.js');
  const sound = readFileSync(file, 'utf8');
  // So small a stack is enough to wait for work, but not to do it.
  const small = sound.replace('exports.__stack_pointer.value = stack;', 'exports.__stack_pointer.value = 700;');
  assert.notEqual(small, sound);
  writeFileSync(file, small);
  const trapping = await import(file);
  assert.ok(trapping.canHaveThreads());
  const { Model: Other } = await import(join(copy, 'index.js'));
  const bytes = readFileSync(join(models, 'demo-int4.cbl'));
  const [model, sound2] = [await Other.load(bytes), await Model.load(bytes)];
  const session = await model.session({ context: 256, threads: 2 });
  const start = performance.now();
  const ended = await session.generate('Once upon a time', { maxTokens: 200, ignoreEndOfText: true }).text().then(() => null, (error) => error);
  assert.equal(ended?.status, 'PANIC', String(ended));
  assert.match(ended.message, /thread/);
  assert.ok(performance.now() - start < 10_000);
  await assert.rejects(session.stats(), { status: 'PANIC' });
  assert.ok((await (await sound2.session({ context: 64, threads: 2 })).generate('Once', { maxTokens: 5 }).text()).length > 0);
  sound2.close();
});

test('arguments of the wrong kind are errors that say what is right', async () => {
  const model = await Model.load(readFileSync(join(models, 'demo-int8.cbl')));
  const other = await Model.load(readFileSync(join(models, 'demo-int4.cbl')));
  const session = await model.session({ context: 64 });
  const [classifier, template] = [await other.classifier(['a', 'b']), await other.template('translate')];
  const calls = [
    ['source', () => Model.load(5)], ['source', () => Model.load(null)], ['readFile', () => Model.load('demo.cbl')],
    ['readFile', () => Model.load('./demo.cbl')], ['readFile', () => Model.load(new URL('file:///demo.cbl'))],
    ['no option "thread"', () => Model.load(new ArrayBuffer(8), { thread: true })], ['options', () => Model.load(new ArrayBuffer(8), true)],
    ['onProgress', () => Model.load(new ArrayBuffer(8), { onProgress: 5 })], ['signal', () => Model.load(new ArrayBuffer(8), { signal: {} })],
    ['isa', () => Model.load(new ArrayBuffer(8), { isa: 'avx2' })], ['threads', () => Model.load(new ArrayBuffer(8), { threads: 2 })],
    ['worker', () => Model.load(new ArrayBuffer(8), { worker: true })],
    ['options', () => model.plan(5)], ['threads', () => model.plan({ treads: 2 })], ['options', () => model.session('x')],
    ['labels', () => model.classifier('a')], ['labels', () => model.classifier([1, 2])], ['name', () => model.template(5)],
    ['text', () => model.templateFromText()], ['text', () => model.tokenize(['a'])], ['tokens', () => model.detokenize('a')],
    ['tokens', () => model.detokenize([1.5])], ['messages', () => model.chatTokens('Hello')], ['messages', () => model.chatTokens([{ role: 'user' }])],
    ['prompt', () => session.generate(5)], ['prompt', () => session.generate([-1])], ['options', () => session.generate('x', 5)],
    ['signal', () => session.generate('x', { signal: 5 })], ['sent to a worker|no option', () => session.generate('x', { onText() {} }).text()],
    ['messages', () => session.chat('Hello')], ['messages', () => session.chat(['Hello'])], ['messages', () => session.chat({ role: 'user', content: 'x' })],
    ['template', () => session.apply('translate', 'x')], ['template', () => session.apply(template, 'x')],
    ['text', async () => session.apply(await model.template('translate'), ['x'])],
    ['classifier', () => session.classify('x', 'y')], ['classifier', () => session.classify(classifier, 'y')],
    ['text', async () => session.classify(await model.classifier(['a', 'b']), ['x'])], ['text', () => session.embed(['x'])],
    ['tokens', () => session.evaluate(5)], ['position', () => session.rewind('1')],
  ];
  for (const [words, call] of calls) {
    await assert.rejects(async () => call(), (error) => error instanceof TypeError && new RegExp(words).test(error.message) && /^\w[\w.]*\(\)/.test(error.message), String(call));
  }
  const values = {
    stop: 5, logitBias: [1], seed: 'x', ignoreEndOfText: 'no', temperature: '1', maxTokens: 2.5, topK: true,
  };
  for (const [name, value] of Object.entries(values)) {
    await assert.rejects(session.generate('x', { [name]: value }).text(), (error) => error.status === 'BAD_OPTION' && error.message.includes(name), name);
  }
  await assert.rejects(model.classifier(['a', 'b'], { examples: ['a'] }), { status: 'BAD_OPTION' });
  const told = await model.template('translat').catch(({ message }) => message);
  const names = told.slice(told.indexOf('it has ') + 7).split(', ');
  assert.ok(names.includes('translate'), told);
  assert.equal(new Set(names).size, names.length, told);
  assert.ok((await session.generate('Once', { maxTokens: 3, signal: null, topK: null }).text()).length > 0);
});

/** What loading gives, and what it took of the module's memory. */
async function loading(source) {
  const host = new Host(async (name) => readFileSync(join(here, `../dist/${name}.wasm`)));
  const answers = [];
  await host.handle({ id: 1, method: 'load', args: { source, cache: false, verify: false } }, (it) => answers.push(it));
  return { ...answers.at(-1), bytes: host.engine.memory.buffer.byteLength };
}

test('a file of more than 4 GiB is refused before anything is taken or read', async () => {
  const empty = (await loading(new ArrayBuffer(0))).bytes;
  const check = ({ error, bytes }) => {
    assert.equal(error.status, 'NO_MEMORY');
    assert.match(error.message, /needs 5120 MiB, and of the 4096 MiB that a page can have \d+ MiB are free/);
    assert.equal(bytes, empty);
  };
  const server = createServer((_, response) => {
    response.writeHead(200, { 'content-length': 5 * 2 ** 30 });
    response.write('the beginning');
  }).listen(0, '127.0.0.1');
  await new Promise((done) => { server.once('listening', done); });
  try {
    // As a file; Node's own has 32 bits for its size. The test of the page opens a true one.
    check(await loading({ size: 5 * 2 ** 30, stream: () => assert.fail('it is read') }));
    // A server that would go on sending: the connection is closed.
    const closed = new Promise((done) => { server.once('connection', (socket) => socket.once('close', done)); });
    check(await loading(`http://127.0.0.1:${server.address().port}/`));
    await closed;
  } finally {
    server.close();
    server.closeAllConnections();
  }
});

test('where less memory can be reserved for threads, that is the limit; where none can be, there is one thread', async () => {
  const bytes = readFileSync(join(models, 'demo-int4.cbl'));
  const { Memory } = WebAssembly;
  const { warn } = console;
  console.warn = () => {};
  try {
    for (const most of [16384, 0]) {
      WebAssembly.Memory = function memory(limits) {
        if (limits.maximum > most) throw new RangeError('no more');
        return new Memory(limits);
      };
      const model = await Model.load(bytes);
      const session = await model.session({ context: 64, threads: 2 });
      assert.equal((await session.stats()).threads, most > 0 ? 2 : 1);
      assert.ok((await session.generate('Once', { maxTokens: 3 }).text()).length > 0);
      model.close();
      const { error } = await loading({ size: 5 * 2 ** 30, stream: () => assert.fail('it is read') });
      assert.match(error.message, most > 0 ? /of the 1024 MiB that a page can have/ : /of the 4096 MiB/);
    }
  } finally {
    WebAssembly.Memory = Memory;
    console.warn = warn;
  }
});

test('the modules are small', () => {
  for (const isa of ['simd128', 'relaxed-simd', 'simd128-threads', 'relaxed-simd-threads']) {
    const bytes = readFileSync(join(here, `../dist/${isa}.wasm`));
    assert.ok(bytes.length <= 900_000 && gzipSync(bytes, { level: 9 }).length <= 350_000, `${isa}: ${bytes.length} bytes`);
  }
});
