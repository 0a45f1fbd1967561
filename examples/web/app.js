// The page: a model in a worker, and what one can do with it. No library but bindings/web.

import { Model } from './cerebellum/index.js';

const DEMO = 'demo.cbl';
const INTENTS = ['alarm', 'timer', 'weather', 'play music', 'greeting', 'translate', 'tell joke', 'shopping list', 'time', 'restaurant reservation'];
/** Of the first line of tests/data/recorded/logits.txt, which is of this model. */
const RECORDED = '98322c59';

/** More would compete for the memory. Where the page may have no threads, it gets one. */
const THREADS = Math.min(4, navigator.hardwareConcurrency || 1);

const $ = (id) => document.getElementById(id);
const megabytes = (bytes) => `${(bytes / 1048576).toFixed(1)} MB`;

let model = null;
let loading = null;
let sessions = {};
/** What is open, and whether it was opened again after a fault. */
let opened = null;

// ---- The model

async function open(source, name, again = false) {
  loading?.abort();
  const abort = new AbortController();
  loading = abort;
  stopAll();
  model?.close();
  [model, sessions] = [null, {}];
  opened = { source, name, again };
  if (!again) forget();
  $('status').textContent = `Loading ${name} …`;
  $('facts').hidden = true;
  $('cancel-load').hidden = false;
  $('demo').hidden = source === DEMO;
  $('progress').hidden = false;
  $('progress').removeAttribute('value');
  enable(false);
  try {
    const made = await Model.load(source, {
      signal: abort.signal,
      onProgress: ({ loaded, total }) => { if (total) $('progress').value = loaded / total; },
    });
    if (loading !== abort) return made.close();
    model = made;
    await show(name, source === DEMO);
    enable(true);
    if (source === DEMO && !again) {
      classify();
      translate();
    }
  } catch (error) {
    if (loading === abort) $('status').textContent = error.name === 'AbortError' ? 'Loading was stopped.' : `${name} cannot be opened: ${error.message}`;
    if (source === DEMO) $('demo').hidden = false;
  } finally {
    if (loading === abort) {
      $('progress').hidden = true;
      $('cancel-load').hidden = true;
    }
  }
  return undefined;
}

/** What the model before has written. */
function forget() {
  messages = [];
  for (const id of ['messages', 'story', 'story-note', 'command-note', 'french']) $(id).replaceChildren();
  $('classes').tBodies[0].replaceChildren();
}

/** The words for a failure. After a fault in the module a new worker opens the model once more. */
function failed(error) {
  // Another one was opened meanwhile.
  if (error.status === 'BAD_HANDLE') return '';
  if (error.status !== 'PANIC' || model === null) return error.message;
  const { source, name, again } = opened;
  if (again) {
    model.close();
    model = null;
    enable(false);
    $('demo').hidden = false;
    $('status').textContent = `${name} had a fault again and is closed.`;
  } else {
    open(source, name, true);
  }
  return `A fault ended this: ${error.message}.${again ? '' : ' The model is loaded again.'}`;
}

async function show(name, isDemo) {
  const { info } = model;
  const canChat = await model.chatTokens([{ role: 'user', content: 'Hello' }]).then(() => true, () => false);
  $('status').textContent = `${isDemo ? 'The demo model' : name} is ready.`;
  $('fact-model').textContent = `${info.architecture}, ${info.layers} layers`;
  $('fact-parameters').textContent = `${(info.parameters / 1e6).toFixed(1)} million`;
  $('fact-file').textContent = `${megabytes(info.fileBytes)}, ${info.bitsPerWeight.toFixed(2)} bits a weight`;
  $('fact-isa').textContent = model.isa;
  for (const id of ['fact-prompt', 'fact-text', 'fact-logits']) $(id).textContent = '–';
  $('facts').hidden = false;
  $('chat-section').hidden = !canChat;
  for (const section of document.querySelectorAll('.demo-only')) section.hidden = !isDemo;
  $('logits').hidden = !isDemo;
  showStats(await (await session('story')).stats());
}

/** A session for each use, made when it is needed. Those for long texts have threads. */
async function session(use) {
  const isShort = use === 'command' || use === 'translate';
  sessions[use] ??= model.session({
    context: Math.min(model.info.context, isShort ? 256 : 2048), allLogits: use === 'command', threads: isShort ? 1 : THREADS,
  });
  return sessions[use];
}

function showStats(stats) {
  const rate = (tokens, seconds) => (seconds > 0 && tokens > 0 ? `${Math.round(tokens / seconds)} tokens/s` : '–');
  $('fact-memory').textContent = megabytes(stats.memoryBytes);
  $('fact-threads').textContent = stats.threads;
  if (stats.promptTokens > 0) $('fact-prompt').textContent = rate(stats.promptTokens, stats.promptSeconds);
  if (stats.generatedTokens > 1) $('fact-text').textContent = rate(stats.generatedTokens - 1, stats.generationSeconds);
}

function enable(ready) {
  for (const button of document.querySelectorAll('button[type="submit"], #check')) button.disabled = !ready;
}

// ---- Texts

const running = new Map();

function stopAll() { for (const stream of running.values()) stream.cancel(); }

/** Shows a stream as it comes; the buttons say whether it runs. */
async function run(use, stream, output, scrolls = output) {
  running.set(use, stream);
  $(`${use}-stop`).disabled = false;
  $(`${use}-form`).querySelector('[type="submit"]').disabled = true;
  try {
    for await (const piece of stream) {
      const atEnd = scrolls.scrollTop + scrolls.clientHeight > scrolls.scrollHeight - 40;
      output.append(piece);
      if (atEnd) scrolls.scrollTop = scrolls.scrollHeight;
    }
    showStats(stream.stats);
  } finally {
    running.delete(use);
    $(`${use}-stop`).disabled = true;
    $(`${use}-form`).querySelector('[type="submit"]').disabled = model === null;
  }
}

const REASONS = {
  end_of_text: 'The end.', max_tokens: 'As many tokens as you asked for.', context_full: 'The context is full.', cancelled: 'Stopped.',
};

$('story-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  if (model === null || running.has('story')) return;
  const [prompt, output] = [$('story-text').value, $('story')];
  output.textContent = prompt;
  $('story-note').textContent = '';
  try {
    const story = await session('story');
    await story.reset();
    const stream = story.generate(prompt, {
      maxTokens: $('story-length').valueAsNumber || 150, temperature: $('story-temperature').valueAsNumber || 0, topP: 0.95,
      seed: Math.max(0, Math.trunc($('story-seed').valueAsNumber || 0)),
    });
    await run('story', stream, output);
    $('story-note').textContent = REASONS[stream.stopReason] ?? '';
  } catch (error) {
    $('story-note').textContent = failed(error);
  }
});
$('story-stop').addEventListener('click', () => running.get('story')?.cancel());

let messages = [];

$('chat-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const content = $('chat-text').value.trim();
  if (model === null || content === '' || running.has('chat')) return;
  $('chat-text').value = '';
  messages.push({ role: 'user', content });
  bubble('user', content);
  const answer = bubble('assistant', '');
  try {
    const stream = (await session('chat')).chat(messages, { maxTokens: 400, temperature: 0.4, topP: 0.95 });
    await run('chat', stream, answer, $('messages'));
    messages.push({ role: 'assistant', content: answer.textContent });
  } catch (error) {
    answer.textContent = failed(error);
    messages.pop();
  }
});
$('chat-text').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $('chat-form').requestSubmit();
  }
});
$('chat-stop').addEventListener('click', () => running.get('chat')?.cancel());
$('chat-new').addEventListener('click', () => {
  running.get('chat')?.cancel();
  messages = [];
  $('messages').replaceChildren();
  $('chat-text').focus();
});

function bubble(role, text) {
  const p = document.createElement('p');
  p.className = role;
  p.textContent = text;
  $('messages').append(p);
  $('messages').scrollTop = $('messages').scrollHeight;
  return p;
}

// ---- Commands

let classifier = null;

async function classify() {
  const text = $('command-text').value.trim();
  if (model === null || text === '') return;
  const of = model;
  try {
    if (classifier?.model !== of) classifier = { model: of, made: of.classifier(INTENTS) };
    const commands = await session('command');
    const { label, probabilities } = await commands.classify(await classifier.made, text);
    const rows = INTENTS.map((intent, i) => [intent, probabilities[i]]).sort((a, b) => b[1] - a[1]).slice(0, 5);
    $('classes').tBodies[0].replaceChildren(...rows.map(([intent, p]) => {
      const row = document.createElement('tr');
      const [name, value, bar] = [document.createElement('th'), document.createElement('td'), document.createElement('span')];
      row.className = intent === label ? 'best' : '';
      name.scope = 'row';
      name.textContent = intent;
      bar.className = 'bar';
      bar.style.width = `${Math.round(p * 65)}%`;
      value.append(bar, `${(100 * p).toFixed(1)} %`);
      row.append(name, value);
      return row;
    }));
    $('command-note').textContent = `It is about: ${label}.`;
  } catch (error) {
    if (of === model) $('command-note').textContent = failed(error);
  }
}

$('command-form').addEventListener('submit', (event) => {
  event.preventDefault();
  classify();
});

// ---- Translation: the last text that was typed, while it is typed

let translating = null;
let template = null;

async function translate() {
  if (translating) {
    translating.again = true;
    return;
  }
  translating = { again: true };
  try {
    while (translating.again && model !== null) {
      translating.again = false;
      const text = $('english').value.trim();
      if (template?.model !== model) template = { model, made: model.template('translate') };
      const stream = text === '' ? null : (await session('translate')).apply(await template.made, text);
      $('french').textContent = stream ? await stream.text() : '';
    }
  } catch (error) {
    $('french').textContent = failed(error);
  } finally {
    translating = null;
  }
}
$('english').addEventListener('input', translate);

// ---- The same bits

function checksum(crc, numbers) {
  let c = ~crc;
  for (const byte of new Uint8Array(numbers.buffer)) {
    c ^= byte;
    for (let bit = 0; bit < 8; bit += 1) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  }
  return ~c >>> 0;
}

$('check').addEventListener('click', async () => {
  if (model === null) return;
  $('check').disabled = true;
  $('fact-logits').textContent = '…';
  const check = await model.session({ context: 128, threads: THREADS });
  let [crc, logits] = [0, await check.evaluate(await model.tokenize('Once upon a time'))];
  for (let step = 0; step < 64; step += 1) {
    crc = checksum(crc, logits);
    logits = await check.evaluate([logits.reduce((best, x, i) => (x > logits[best] ? i : best), 0)]);
  }
  await check.close();
  const got = crc.toString(16).padStart(8, '0');
  $('fact-logits').textContent = `${got}, ${got === RECORDED ? 'as recorded' : `not ${RECORDED}`}`;
  $('check').disabled = false;
});

// ---- Files

$('file').addEventListener('change', ({ target }) => {
  const [file] = target.files;
  if (file) open(file, file.name);
  target.value = '';
});
$('demo').addEventListener('click', () => open(DEMO, 'the demo model'));
$('cancel-load').addEventListener('click', () => loading?.abort());
addEventListener('dragover', (event) => {
  event.preventDefault();
  $('drop').hidden = false;
});
addEventListener('dragleave', (event) => { if (event.relatedTarget === null) $('drop').hidden = true; });
addEventListener('drop', (event) => {
  event.preventDefault();
  $('drop').hidden = true;
  const [file] = event.dataTransfer.files;
  if (file) open(file, file.name);
});

if ('serviceWorker' in navigator) {
  // From now on it gives the page what it needs for threads.
  const first = navigator.serviceWorker.controller === null;
  navigator.serviceWorker.register('sw.js').catch(() => {});
  navigator.serviceWorker.addEventListener('controllerchange', () => {
    $('threads-hint').hidden = !first || crossOriginIsolated || THREADS === 1 || window.top !== window;
  });
}
open(DEMO, 'the demo model');
