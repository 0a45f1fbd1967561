// The page of `cerebellum serve` in Chromium, as somebody uses it.
//
//     node benches/serve/page.mjs URL [DIRECTORY-FOR-PICTURES]
//
// Needs playwright-core and axe-core where node finds them from the working directory, a server at URL whose model
// has a chat template, and Chromium (CHROMIUM, by default /usr/bin/chromium).

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { argv, cwd, env } from 'node:process';

const need = createRequire(join(cwd(), 'package.json'));
const { chromium } = need('playwright-core');
const axe = readFileSync(need.resolve('axe-core/axe.min.js'), 'utf8');
const [, , url = 'http://127.0.0.1:8080/', pictures] = argv;
if (pictures) mkdirSync(pictures, { recursive: true });

const HOSTILE = '<script>window.hurt = 1</script><img src=x onerror="window.hurt = 1">';
const SCREENS = { desktop: { width: 1280, height: 800 }, phone: { width: 360, height: 640 } };

const browser = await chromium.launch({
  executablePath: env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'],
});
try {
  for (const colorScheme of ['light', 'dark']) {
    for (const [screen, viewport] of Object.entries(SCREENS)) {
      await use(`${screen}-${colorScheme}`, { colorScheme, viewport, hasTouch: screen === 'phone' });
    }
  }
} finally {
  await browser.close();
}

async function use(name, options) {
  // axe is put into the page by the debugger, which the page's policy does not concern.
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const problems = [];
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && problems.push(message.text()));
  page.on('pageerror', (error) => problems.push(String(error)));
  page.on('request', (request) => new URL(request.url()).origin === new URL(url).origin
    || problems.push(`asks ${request.url()}`));
  await page.goto(url);
  await page.waitForFunction(() => document.querySelector('#model').textContent.includes('context'));
  const picture = (what) => pictures && page.screenshot({ path: join(pictures, `${name}-${what}.png`) });
  const idle = () => page.waitForSelector('#halt', { state: 'hidden', timeout: 120_000 });
  const look = async (what) => {
    await picture(what);
    const fits = await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
    assert.ok(fits, `${name}: ${what} is too wide`);
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => window.axe.run());
    const found = violations.map((it) => `${it.id}: ${it.nodes.map((node) => node.html).join(' ')}`);
    assert.deepEqual(found, [], `${name}, ${what}`);
  };
  await look('empty');

  // Settings hold for the next answer.
  await page.click('#show');
  await page.fill('#max_tokens', '24');
  await look('settings');
  await page.click('#show');

  // A conversation, with how probable tokens were.
  await page.fill('#text', 'What is the capital of France?');
  await page.press('#text', 'Enter');
  await idle();
  assert.match(await page.textContent('#status'), /tokens of prompt \(\d+ cached\)/);
  const token = page.locator('.model .token').first();
  await (options.hasTouch ? token.tap() : token.hover());
  assert.match(await page.textContent('#chances'), /%/);
  await look('chat');

  // What is said is text, whoever says it.
  await page.fill('#text', HOSTILE);
  await page.click('#send');
  await idle();
  assert.ok((await page.textContent('#out')).includes(HOSTILE));

  // Stop, with what there is of the text kept.
  await page.click('#completion');
  await page.click('#show');
  await page.fill('#max_tokens', '400');
  await page.click('#show');
  await page.fill('#text', 'Once upon a time');
  await page.click('#send');
  await page.waitForSelector('#out .token');
  await page.click('#halt');
  await page.waitForFunction(() => document.querySelector('#status').textContent === 'Stopped.');
  assert.ok((await page.textContent('#out')).startsWith('Once upon a time'));
  await look('stopped');

  // What the model says is text, too: an answer that can be nothing else, and an error.
  await page.route('**/v1/completions', (route) => {
    const piece = { choices: [{ index: 0, text: HOSTILE, logprobs: null, finish_reason: null }] };
    route.fulfill({ contentType: 'text/event-stream', body: `data: ${JSON.stringify(piece)}\n\ndata: [DONE]\n\n` });
  });
  await page.fill('#text', 'x');
  await page.click('#send');
  await idle();
  assert.equal(await page.textContent('#out .token'), HOSTILE);
  await page.unroute('**/v1/completions');
  await page.click('#show');
  await page.fill('#temperature', '-1');
  await page.click('#send');
  await page.waitForSelector('.error');
  await look('error');

  // A foreign script would not run.
  assert.equal(await page.evaluate(() => window.hurt), undefined);
  assert.deepEqual(problems.filter((it) => !/status of 400/.test(it)), [], `${name}: the console is empty`);
  await context.close();
  console.log(`${name}: ok`);
}
