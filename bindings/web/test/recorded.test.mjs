// The recorded logits (tests/recorded_logits.rs) and the tests' hostile files, in both modules.
// CEREBELLUM_MODELS is a directory with the demo model as demo-int4.cbl and demo-int8.cbl, CEREBELLUM_HOSTILE one with
// hostile files, such as those that `HOSTILE_EXPORT=DIRECTORY cargo test --test hostile` writes.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync, statSync } from 'node:fs';
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

for (const isa of isas) {
  test(`${isa} gives the recorded logits`, async () => {
    const lines = readFileSync(join(data, 'recorded/logits.txt'), 'utf8').trim().split('\n');
    const kept = new Map();
    for (const line of lines) {
      const [, scheme, kv, wantLogits, wantTokens, quoted] = line.match(/^(\S+) (\S+) logits (\S+) tokens (\S+) (.*)$/);
      const name = join(models, `demo-${scheme}.cbl`);
      if (!kept.has(name)) kept.set(name, await Model.load(readFileSync(name), { worker: false, isa, verify: true }));
      const model = kept.get(name);
      const session = await model.session({ cache: kv.toLowerCase() });
      assert.equal((await session.stats()).isa, isa);
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
  });

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

test('the modules are small', () => {
  for (const isa of ['simd128', 'relaxed-simd']) {
    const bytes = readFileSync(join(here, `../dist/${isa}.wasm`));
    assert.ok(bytes.length <= 900_000 && gzipSync(bytes, { level: 9 }).length <= 350_000, `${isa}: ${bytes.length} bytes`);
  }
});
