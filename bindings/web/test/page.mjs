// A click-through of the page in Chromium: node test/page.mjs SITE [SCREENSHOTS]
//
// SITE is what `npm run page` makes. CHROMIUM is the browser's path, /usr/bin/chromium if it is not set; CHAT_MODEL a
// model that chats, if not the one that `npm run page` makes; CEREBELLUM_HOSTILE a directory of hostile files, if not
// those of the tests.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { extname, join, normalize } from 'node:path';
import { argv, env } from 'node:process';
import { fileURLToPath } from 'node:url';

import { chromium } from 'playwright-core';

const [, , site, screenshots] = argv;
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const hostile = env.CEREBELLUM_HOSTILE ?? here('../../../tests/data/hostile');
const chatModel = env.CHAT_MODEL ?? here('../../../target/web/models/demo-chat.cbl');
/** A prompt that makes the module write where it has no memory: a true trap. */
const TRAP = `
const { generate } = Host.prototype;
host.generate = (args, ...rest) => {
  if (args.prompt.includes('trap the module')) host.engine.c.cbl_model_get_info(host.model, 0xffffff00, 64);
  return generate.call(host, args, ...rest);
};`;
/** A stack that is enough for a thread to wait for work, but not to do it. */
const SMALL_STACK = ['exports.__stack_pointer.value = stack;', 'exports.__stack_pointer.value = 700;'];
const TYPES = {
  '.html': 'text/html', '.js': 'text/javascript', '.mjs': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.wasm': 'application/wasm',
};
const server = createServer((request, response) => {
  const path = normalize(decodeURIComponent(new URL(request.url, 'http://x').pathname));
  try {
    const file = path.startsWith('/hostile/') ? join(hostile, path.slice(9)) : path === '/hostile.mjs' ? here('hostile.mjs') : join(site, path.replace(/^\/small-stack/, '').replace(/\/$/, '/index.html'));
    let bytes = readFileSync(file);
    if (path.endsWith('/worker.js')) bytes = Buffer.concat([bytes, Buffer.from(TRAP)]);
    if (path === '/small-stack/cerebellum/threads.js') bytes = Buffer.from(bytes.toString().replace(...SMALL_STACK));
    response.writeHead(200, { 'content-type': TYPES[extname(path)] ?? (path.endsWith('/') ? 'text/html' : 'application/octet-stream'), 'content-length': bytes.length });
    response.end(bytes);
  } catch {
    response.writeHead(404).end();
  }
}).listen(0, '127.0.0.1');
await new Promise((resolve) => { server.once('listening', resolve); });
const address = `http://127.0.0.1:${server.address().port}/`;

const profile = mkdtempSync(join(tmpdir(), 'cerebellum-page-'));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: env.CHROMIUM ?? '/usr/bin/chromium',
  headless: true,
  args: [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
    '--disable-sync',
  ],
});
const page = context.pages()[0] ?? await context.newPage();
const errors = [];
page.on('pageerror', (error) => errors.push(String(error)));
page.on('console', (message) => { if (message.type() === 'error') errors.push(message.text()); });
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

async function look(name) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`), [], name);
  if (screenshots) await page.screenshot({ path: join(screenshots, `${name}.png`), fullPage: true });
}

const text = (selector) => page.locator(selector).innerText();
const ready = () => page.waitForFunction(() => document.getElementById('status').textContent.includes('ready'), null, { timeout: 30000 });

try {
  await page.setViewportSize({ width: 1200, height: 900 });
  await page.goto(address);
  await ready();
  console.log('kernels:', await text('#fact-isa'));

  await page.click('#story-form [type=submit]');
  await page.waitForSelector('#story-stop:not([disabled])');
  await page.waitForFunction(() => document.getElementById('story-note').textContent !== '', null, { timeout: 30000 });
  const story = await text('#story');
  assert.ok(story.length > 200, story);
  console.log('story:', await text('#fact-text'), 'prompt:', await text('#fact-prompt'), 'memory:', await text('#fact-memory'));

  await page.fill('#story-length', '2000');
  await page.click('#story-form [type=submit]');
  await page.waitForFunction(() => document.getElementById('story').textContent.length > 80);
  await page.click('#story-stop');
  await page.waitForFunction(() => document.getElementById('story-note').textContent === 'Stopped.');

  await page.fill('#command-text', 'set an alarm for six');
  await page.press('#command-text', 'Enter');
  await page.waitForFunction(() => document.getElementById('command-note').textContent.includes('alarm'));

  await page.fill('#english', 'I am tired.');
  await page.waitForFunction(() => document.getElementById('french').textContent === 'Je suis fatigué.');
  console.log('French:', await text('#french'));

  await page.click('#check');
  await page.waitForFunction(() => document.getElementById('fact-logits').textContent.length > 5, null, { timeout: 30000 });
  assert.match(await text('#fact-logits'), /as recorded/);

  await page.fill('#story-length', '150');
  await page.click('#story-form [type=submit]');
  await page.waitForFunction(() => /end|tokens/i.test(document.getElementById('story-note').textContent), null, { timeout: 30000 });
  assert.equal(await text('#story'), story, 'the same seed tells the same story');

  for (const scheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme: scheme });
    for (const [device, width, height] of [['desktop', 1200, 900], ['phone', 390, 844]]) {
      await page.setViewportSize({ width, height });
      await look(`${device}-${scheme}`);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= width, `${device}: ${wide} pixels wide`);
    }
  }

  // A file that is none.
  await page.setInputFiles('#file', { name: 'bad.cbl', mimeType: 'application/octet-stream', buffer: Buffer.from('no model') });
  await page.waitForFunction(() => document.getElementById('status').textContent.includes('cannot be opened'));
  await page.click('#demo');
  await ready();

  // A trap ends the text, and a new worker has the model again.
  const beginning = await page.inputValue('#story-text');
  await page.fill('#story-text', 'trap the module');
  await page.click('#story-form [type=submit]');
  await page.waitForFunction(() => document.getElementById('story-note').textContent.includes('fault'));
  assert.match(await text('#story-note'), /RuntimeError.*loaded again/);
  await ready();
  await page.fill('#story-text', beginning);
  await page.click('#story-form [type=submit]:not([disabled])');
  await page.waitForFunction(() => /tokens/.test(document.getElementById('story-note').textContent), null, { timeout: 30000 });
  assert.equal(await text('#story'), story, 'the same story after a trap');

  // Hostile files: errors that are no traps.
  const names = readdirSync(hostile, { recursive: true }).filter((name) => statSync(join(hostile, name)).isFile());
  const ends = await page.evaluate(async (files) => {
    const { Model } = await import('./cerebellum/index.js');
    const { damaged, endOf } = await import('./hostile.mjs');
    const counts = {};
    const open = async (bytes) => {
      // Thousands of workers take minutes to start; a trap is one in the page, too.
      const end = await endOf(Model, bytes, { worker: files.length < 500 });
      counts[end] = (counts[end] ?? 0) + 1;
      if (!/^([A-Z_]+|text)$/.test(end) || end === 'PANIC') counts.faults = [...counts.faults ?? [], bytes.name ?? 'the demo, damaged'];
    };
    for (const name of files) await open(new File([await (await fetch(`hostile/${name}`)).arrayBuffer()], name));
    const whole = new Uint8Array(await (await fetch('demo.cbl')).arrayBuffer());
    for (const bytes of damaged(whole, 100)) await open(bytes);
    return counts;
  }, names);
  console.log(`${names.length} hostile files and 100 of the demo model:`, JSON.stringify(ends));
  assert.ok(names.length > 5 && ends.BAD_MODEL > 20 && ends.text > 0);
  assert.equal(ends.faults, undefined);

  // More than a page can have is an error before anything is taken: a file of 5 GiB, all of it a hole.
  const large = join(profile, 'large.cbl');
  writeFileSync(large, '');
  truncateSync(large, 5 * 2 ** 30);
  const begun = performance.now();
  await page.setInputFiles('#file', large);
  await page.waitForFunction(() => document.getElementById('status').textContent.includes('5120 MiB'));
  console.log(`a file of 5 GiB, after ${Math.round(performance.now() - begun)} ms:`, await text('#status'));
  await page.click('#demo');
  await ready();

  // Another model, dropped onto the page, with a form for conversations.
  const drop = async (bytes, name) => {
    const data = await page.evaluateHandle(([base64, called]) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], called));
      return transfer;
    }, [bytes.toString('base64'), name]);
    await page.dispatchEvent('main', 'dragover', { dataTransfer: data });
    assert.ok(await page.isVisible('#drop'));
    await page.dispatchEvent('main', 'drop', { dataTransfer: data });
    assert.ok(!await page.isVisible('#drop'));
  };
  await drop(readFileSync(join(site, 'demo.cbl')), 'dropped.cbl');
  await page.waitForFunction(() => document.getElementById('status').textContent === 'dropped.cbl is ready.');
  assert.equal(await text('#story'), '', 'the text of the model before is gone');
  assert.ok(!await page.isVisible('#chat-section'));

  await page.setInputFiles('#file', chatModel);
  await page.waitForSelector('#chat-section:not([hidden])');
  await ready();
  await page.fill('#chat-text', 'What is the capital of France?');
  await page.press('#chat-text', 'Enter');
  await page.waitForFunction(() => document.getElementById('chat-stop').disabled && document.querySelector('.assistant')?.textContent.length > 10, null, { timeout: 60000 });
  console.log('chat:', (await text('.assistant')).slice(0, 60), '|', await text('#fact-text'), '|', await text('#fact-prompt'), '|', await text('#fact-memory'));
  await look('phone-dark-chat');
  await page.setViewportSize({ width: 1200, height: 900 });
  await page.emulateMedia({ colorScheme: 'light' });
  await look('desktop-light-chat');
  await page.click('#demo');
  await page.waitForFunction(() => document.getElementById('status').textContent === 'The demo model is ready.');
  assert.equal(await page.locator('.assistant').count(), 0);

  // Without a network.
  await page.evaluate(() => navigator.serviceWorker.ready);
  await page.waitForFunction(async () => (await caches.keys()).includes('cerebellum-models') && (await (await caches.open('cerebellum-models')).keys()).length > 0);
  await page.waitForFunction(() => document.getElementById('fact-threads').textContent === '1');
  assert.equal(await page.evaluate(() => globalThis.crossOriginIsolated), false);
  await page.reload();
  await ready();

  // The service worker has given it the headers for threads: the same bits, and a trap in a thread is an error.
  assert.equal(await page.evaluate(() => globalThis.crossOriginIsolated), true);
  const threads = await page.evaluate(() => Math.min(4, navigator.hardwareConcurrency));
  await page.waitForFunction((wanted) => document.getElementById('fact-threads').textContent === wanted, `${threads}`);
  await page.click('#check');
  await page.waitForFunction(() => document.getElementById('fact-logits').textContent.length > 5, null, { timeout: 30000 });
  assert.match(await text('#fact-logits'), /as recorded/);
  await page.click('#story-form [type=submit]');
  await page.waitForFunction(() => document.getElementById('story-note').textContent !== '', null, { timeout: 30000 });
  assert.equal(await text('#story'), story, 'the same story by several threads');
  console.log(`story by ${threads} threads:`, await text('#fact-text'), 'prompt:', await text('#fact-prompt'), 'memory:', await text('#fact-memory'));
  await look('desktop-light-threads');
  const small = await page.evaluate(async () => {
    const { Model } = await import('./small-stack/cerebellum/index.js');
    const model = await Model.load('demo.cbl');
    const session = await model.session({ context: 256, threads: 2 });
    const start = performance.now();
    const end = await session.generate('Once', { maxTokens: 200, ignoreEndOfText: true }).text().then(() => 'text', (error) => `${error.status}: ${error.message}`);
    return { end, ms: Math.round(performance.now() - start), then: await session.stats().then(() => 'stats', ({ status }) => status) };
  });
  console.log('a trap in a thread:', JSON.stringify(small));
  assert.match(small.end, /^PANIC: .*thread/);
  assert.equal(small.then, 'PANIC');

  errors.splice(0);
  server.close();
  server.closeAllConnections();
  await page.reload();
  await ready();
  await page.click('#story-form [type=submit]');
  await page.waitForFunction(() => document.getElementById('story-note').textContent !== '', null, { timeout: 30000 });
  assert.equal(await text('#story'), story, 'the same story offline');
  assert.deepEqual(errors.filter((error) => !error.includes('ERR_CONNECTION_REFUSED')), []);
  console.log('the page opens, tells, stops, classifies, translates, checks, outlives a trap, has threads after a reload, takes dropped files, chats, reloads offline; axe-core finds nothing');
} catch (error) {
  console.error(errors.join('\n'));
  if (screenshots) await page.screenshot({ path: join(screenshots, 'failed.png'), fullPage: true });
  throw error;
} finally {
  await context.close();
  server.close();
  rmSync(profile, { recursive: true, force: true });
}
