// The recorded logits of the demo model, and a click-through of the page in Firefox, without a driver: node test/firefox.mjs SITE
//
// Firefox opens a page that reports to this program's server. FIREFOX is the browser's path, firefox-esr if it is not
// set. SITE is what `npm run page` makes.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { extname, join, normalize } from 'node:path';
import { argv, env } from 'node:process';

const [, , site] = argv;
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.wasm': 'application/wasm' };

/** In the page: what every module gives, then the page of `examples/web` in a frame. */
async function report() {
  const { Model, hasRelaxedSimd } = await import('/cerebellum/index.js');
  const results = { relaxed: hasRelaxedSimd() };
  const checksum = (crc, numbers) => {
    let c = ~crc;
    for (const byte of new Uint8Array(numbers.buffer)) {
      c ^= byte;
      for (let bit = 0; bit < 8; bit += 1) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
    }
    return ~c >>> 0;
  };
  results.isolated = globalThis.crossOriginIsolated;
  for (const [isa, threads] of (results.relaxed ? ['simd128', 'relaxed-simd'] : ['simd128']).flatMap((it) => [[it, 1], [it, 2]])) {
    const model = await Model.load('/demo.cbl', { isa, cache: false, threads: threads > 1 });
    const session = await model.session({ context: 128, threads });
    let [crc, logits] = [0, await session.evaluate(await model.tokenize('Once upon a time'))];
    for (let step = 0; step < 64; step += 1) {
      crc = checksum(crc, logits);
      logits = await session.evaluate([logits.reduce((best, x, i) => (x > logits[best] ? i : best), 0)]);
    }
    results[`${isa} ${(await session.stats()).threads}`] = crc.toString(16).padStart(8, '0');
    model.close();
  }
  results.hostile = await Model.load(new Uint8Array(100).buffer).then(() => 'opened', ({ status }) => status);

  const frame = document.createElement('iframe');
  frame.src = '/index.html';
  document.body.append(frame);
  const $ = (id) => frame.contentDocument?.getElementById(id);
  const until = async (what) => { while (!what()) await new Promise((resume) => { setTimeout(resume, 50); }); };
  await until(() => $('status')?.textContent.includes('ready'));
  $('story-form').requestSubmit();
  await until(() => $('story-note').textContent !== '');
  results.story = $('story').textContent.length;
  $('story-length').value = 2000;
  $('story-form').requestSubmit();
  await until(() => $('story').textContent.length > 80);
  $('story-stop').click();
  await until(() => $('story-note').textContent !== '');
  results.stopped = $('story-note').textContent;
  $('command-text').value = 'set an alarm for six';
  $('command-form').requestSubmit();
  await until(() => $('command-note').textContent.includes('alarm'));
  $('english').value = 'I am tired.';
  $('english').dispatchEvent(new Event('input'));
  await until(() => $('french').textContent === 'Je suis fatigué.');
  return results;
}

const page = `<!doctype html><meta charset="utf-8"><title>test</title><body><script type="module">
${report}
const results = await report().catch((error) => ({ error: String(error) }));
await fetch('/report', { method: 'POST', body: JSON.stringify(results) });
</script>`;

let told;
const results = new Promise((resolve) => { told = resolve; });
const server = createServer(async (request, response) => {
  response.setHeader('cross-origin-opener-policy', 'same-origin');
  response.setHeader('cross-origin-embedder-policy', 'require-corp');
  const path = normalize(decodeURIComponent(new URL(request.url, 'http://x').pathname));
  if (path === '/report') {
    let body = '';
    for await (const piece of request) body += piece;
    response.end();
    told(JSON.parse(body));
  } else if (path === '/test') {
    response.writeHead(200, { 'content-type': 'text/html' }).end(page);
  } else {
    try {
      const bytes = readFileSync(join(site, path));
      response.writeHead(200, { 'content-type': TYPES[extname(path)] ?? 'application/octet-stream' }).end(bytes);
    } catch {
      response.writeHead(404).end();
    }
  }
}).listen(0, '127.0.0.1');
await new Promise((resolve) => { server.once('listening', resolve); });

const profile = mkdtempSync(join(tmpdir(), 'cerebellum-firefox-'));
const firefox = spawn(env.FIREFOX ?? 'firefox-esr', [
  '--headless', '--no-remote', '--profile', profile, `http://127.0.0.1:${server.address().port}/test`,
], { stdio: 'ignore', env: { ...env, HOME: profile } });
const limit = setTimeout(() => told({ error: 'nothing was reported within 60 s' }), 60000);
firefox.once('error', (error) => told({ error: String(error) }));
try {
  const got = await results;
  console.log(JSON.stringify(got));
  assert.equal(got.error, undefined);
  const recorded = readFileSync(new URL('../../../tests/data/recorded/logits.txt', import.meta.url), 'utf8');
  const [, wanted] = recorded.match(/^int4 F16 logits (\S+) .*"Once upon a time"$/m);
  for (const isa of got.relaxed ? ['simd128', 'relaxed-simd'] : ['simd128']) {
    for (const threads of [1, 2]) assert.equal(got[`${isa} ${threads}`], wanted);
  }
  assert.equal(got.hostile, 'BAD_MODEL');
  assert.ok(got.story > 200);
  assert.equal(got.stopped, 'Stopped.');
} finally {
  clearTimeout(limit);
  firefox.kill();
  await new Promise((resolve) => { if (firefox.exitCode === null && firefox.pid) firefox.once('exit', resolve); else resolve(); });
  server.close();
  server.closeAllConnections();
  rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
}
