// A click-through of the page in Chromium: node test/page.mjs SITE [SCREENSHOTS]
//
// SITE is what `npm run page` makes. CHROMIUM is the browser's path, /usr/bin/chromium if it is not set.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { extname, join, normalize } from 'node:path';
import { argv, env } from 'node:process';

import { chromium } from 'playwright-core';

const [, , site, screenshots] = argv;
const TYPES = {
  '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.wasm': 'application/wasm',
};
const server = createServer((request, response) => {
  const path = normalize(decodeURIComponent(new URL(request.url, 'http://x').pathname));
  try {
    const bytes = readFileSync(join(site, path.endsWith('/') ? `${path}index.html` : path));
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
  await page.waitForFunction(() => document.getElementById('french').textContent !== '');
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

  if (env.CHAT_MODEL) {
    await page.setInputFiles('#file', env.CHAT_MODEL);
    await ready();
    await page.fill('#chat-text', 'What is the capital of France?');
    await page.press('#chat-text', 'Enter');
    await page.waitForFunction(() => document.getElementById('chat-stop').disabled && document.querySelector('.assistant')?.textContent.length > 10, null, { timeout: 60000 });
    console.log('chat:', await text('.assistant'), '|', await text('#fact-text'), '|', await text('#fact-prompt'), '|', await text('#fact-memory'));
    await look('phone-dark-chat');
    await page.setViewportSize({ width: 1200, height: 900 });
    await page.emulateMedia({ colorScheme: 'light' });
    await look('desktop-light-chat');
    await page.click('#demo');
    await ready();
  }

  // Without a network.
  await page.evaluate(() => navigator.serviceWorker.ready);
  await page.waitForFunction(async () => (await caches.keys()).includes('cerebellum-models') && (await (await caches.open('cerebellum-models')).keys()).length > 0);
  await page.reload();
  await ready();
  errors.splice(0);
  server.close();
  server.closeAllConnections();
  await page.reload();
  await ready();
  await page.click('#story-form [type=submit]');
  await page.waitForFunction(() => document.getElementById('story-note').textContent !== '', null, { timeout: 30000 });
  assert.equal(await text('#story'), story, 'the same story offline');
  assert.deepEqual(errors.filter((error) => !error.includes('ERR_CONNECTION_REFUSED')), []);
  console.log('the page opens, tells, stops, classifies, translates, checks, reloads offline; axe-core finds nothing');
} catch (error) {
  console.error(errors.join('\n'));
  if (screenshots) await page.screenshot({ path: join(screenshots, 'failed.png'), fullPage: true });
  throw error;
} finally {
  await context.close();
  server.close();
  rmSync(profile, { recursive: true, force: true });
}
