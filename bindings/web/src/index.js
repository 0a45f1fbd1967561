// Runs quantized GPT models in the browser, and in Node. The page's side: see index.d.ts for every word.

import { CerebellumError } from './engine.js';
import { Host, hasRelaxedSimd } from './host.js';

export { CerebellumError, hasRelaxedSimd };

const isTokens = (it) => (Array.isArray(it) || it instanceof Uint32Array) && it.every((id) => Number.isSafeInteger(id) && id >= 0);
const isObject = (it) => typeof it === 'object' && it !== null && !Array.isArray(it);
const isText = (it) => typeof it === 'string';

/** What an argument must be, in words and as a test. */
const KINDS = {
  text: ['a text', isText],
  prompt: ['a text or a list of token ids', (it) => isText(it) || isTokens(it)],
  tokens: ['a list of token ids', isTokens],
  labels: ['a list of texts', (it) => Array.isArray(it) && it.every(isText)],
  messages: [
    "a list of messages such as { role: 'user', content: 'Hello' }",
    (it) => Array.isArray(it) && it.every((message) => isObject(message) && isText(message.role) && isText(message.content)),
  ],
  position: ['a whole number', (it) => Number.isSafeInteger(it) && it >= 0],
  classifier: ['what classifier() of the same model has made', (it, channel) => it instanceof Classifier && it.channel === channel],
  template: ['what template() of the same model has made', (it, channel) => it instanceof Template && it.channel === channel],
  options: ['an object with options', (it) => it === undefined || it === null || isObject(it)],
  source: [
    'an address, a File, a Blob or the bytes of a model',
    (it) => isText(it) || it instanceof URL || it instanceof Blob || it instanceof ArrayBuffer || ArrayBuffer.isView(it),
  ],
  function: ['a function', (it) => typeof it === 'function'],
  signal: ['an AbortSignal', (it) => isObject(it) && typeof it.aborted === 'boolean' && typeof it.addEventListener === 'function'],
  flag: ['true or false', (it) => typeof it === 'boolean'],
  isa: ["'simd128' or 'relaxed-simd'", (it) => ['simd128', 'relaxed-simd'].includes(it)],
};

/** The options that are looked at here; all others go to the module, which knows them. */
const LOAD = {
  onProgress: 'function', signal: 'signal', worker: 'flag', cache: 'flag', verify: 'flag', digest: 'text', isa: 'isa', threads: 'flag',
};

function shown(value) {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value.constructor?.name ?? 'an object';
  try {
    const text = JSON.stringify(value) ?? String(value);
    return text.length > 60 ? `${text.slice(0, 60)}…` : text;
  } catch {
    return String(value);
  }
}

/** An argument that is not what a method takes is an error of the caller's. */
function check(method, kind, value, channel, name = kind) {
  const [expected, isGood] = KINDS[kind];
  if (!isGood(value, channel)) throw new TypeError(`${method}(): ${name} is ${expected}, not ${shown(value)}`);
}

/** Options without the signal, and the signal. */
function signalOf(method, options) {
  check(method, 'options', options);
  const { signal, ...others } = options ?? {};
  if (signal !== undefined && signal !== null) check(method, 'signal', signal);
  return [others, signal];
}

/** The modules of this package, where there is no worker. */
async function readModule(name) {
  const url = new URL(`./${name}.wasm`, import.meta.url);
  if (url.protocol !== 'file:') return WebAssembly.compileStreaming(fetch(url));
  const { readFile } = await import('node:fs/promises');
  return WebAssembly.compile(await readFile(url));
}

/** Messages to a host and what it answers, in a worker or here. */
class Channel {
  constructor(inWorker) {
    this.pending = new Map();
    this.next = 1;
    const receive = (message) => this.receive(message);
    if (inWorker) {
      this.worker = new Worker(new URL('./worker.js', import.meta.url), { type: 'module' });
      this.worker.onmessage = ({ data }) => receive(data);
      // A trap in the module, or a worker that the browser has ended: the page lives on.
      this.worker.onerror = (event) => this.fail(new CerebellumError('PANIC', event.message || 'the worker could not be started'));
      this.post = (message, transfer) => this.worker.postMessage(message, transfer);
      // The threads of a worker end with it.
      this.end = () => this.worker.terminate();
    } else {
      const host = new Host(readModule);
      this.post = (message) => { host.handle(message, receive); };
      this.end = () => host.close();
    }
  }

  receive({ id, progress, piece, done, error }) {
    const call = this.pending.get(id);
    if (call === undefined) return;
    if (progress !== undefined) call.onProgress?.(progress);
    else if (piece !== undefined) call.onPiece?.(piece);
    else {
      this.pending.delete(id);
      if (error === undefined) return call.resolve(done);
      const reason = revived(error);
      call.reject(reason);
      // After a trap the module must not be used again.
      if (error.status === null && reason.status === 'PANIC') this.fail(reason);
    }
    return undefined;
  }

  /** Ends every call, and those to come. */
  fail(error) {
    this.failed = error;
    for (const { reject } of this.pending.values()) reject(error);
    this.pending.clear();
    this.end();
  }

  /** A call; its `id` serves to cancel it. */
  call(method, args, { onProgress, onPiece, transfer } = {}) {
    const id = this.next;
    this.next += 1;
    const result = new Promise((resolve, reject) => {
      if (this.failed) reject(this.failed);
      this.pending.set(id, { resolve, reject, onProgress, onPiece });
    });
    try {
      if (!this.failed) this.post({ id, method, args }, transfer);
    } catch (error) {
      // A function among the options, or an object that only looks like one.
      this.pending.get(id).reject(new TypeError(`${method}(): an argument cannot be sent to a worker: ${error.message}`));
      this.pending.delete(id);
    }
    return { id, result };
  }

  run(method, args) { return this.call(method, args).result; }
  cancel(id) { if (!this.failed) this.post({ id, cancel: true }); }
}

/** What errors of the browser's are in the library's words. */
const STATUS_OF = { CompileError: 'UNSUPPORTED', LinkError: 'UNSUPPORTED', NotReadableError: 'IO', NotFoundError: 'IO' };

function revived({ name, message, status }) {
  if (status !== null) return new CerebellumError(status, message);
  if (name === 'TypeError') return new TypeError(message);
  if (name === 'AbortError') return new DOMException(message, name);
  // Anything else is what the engine throws for a trap.
  return new CerebellumError(STATUS_OF[name] ?? 'PANIC', `${name}: ${message}`);
}

/** The whole address of what is relative to the page. */
function addressOf(source) {
  const base = globalThis.document?.baseURI ?? globalThis.location?.href;
  try {
    const { protocol, href } = new URL(source, base);
    if (protocol !== 'file:') return href;
  } catch {
    // Told below.
  }
  const instead = base === undefined ? 'in Node give the bytes of a file: Model.load(await readFile(path))' : 'give a File or its bytes';
  throw new TypeError(`Model.load(): ${shown(String(source))} is no address that a model can be loaded from: ${instead}`);
}

export class Model {
  static async load(source, options) {
    check('Model.load', 'source', source);
    check('Model.load', 'options', options);
    for (const [name, value] of Object.entries(options ?? {})) {
      if (!(name in LOAD)) throw new TypeError(`Model.load() has no option ${JSON.stringify(name)}; it has ${Object.keys(LOAD).join(', ')}`);
      if (value !== undefined && value !== null) check('Model.load', LOAD[name], value, null, name);
    }
    const { onProgress, signal, worker = typeof Worker !== 'undefined', cache = true, verify = false, digest, isa, threads } = options ?? {};
    if (worker && typeof Worker === 'undefined') throw new TypeError('Model.load(): worker is false where there are no workers as in browsers');
    signal?.throwIfAborted();
    let given = source;
    if (typeof source === 'string' || source instanceof URL) {
      given = addressOf(source);
    } else if (ArrayBuffer.isView(source)) {
      given = source.buffer.slice(source.byteOffset, source.byteOffset + source.byteLength);
    }
    const channel = new Channel(worker);
    const call = channel.call('load', { source: given, cache, verify, digest, isa, threads }, {
      onProgress,
      transfer: given instanceof ArrayBuffer ? [given] : undefined,
    });
    const abort = () => channel.cancel(call.id);
    signal?.addEventListener('abort', abort);
    try {
      const loaded = await call.result;
      return new Model(channel, loaded);
    } catch (error) {
      channel.fail(error);
      throw error;
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }

  constructor(channel, { info, isa, hasConstraints, hasThreads }) {
    this.channel = channel;
    this.info = info;
    this.isa = isa;
    this.hasConstraints = hasConstraints;
    this.hasThreads = hasThreads;
  }

  async plan(options) {
    check('plan', 'options', options);
    return this.channel.run('plan', { options });
  }

  verify() { return this.channel.run('verify', {}); }

  async tokenize(text, options) {
    check('tokenize', 'text', text);
    check('tokenize', 'options', options);
    return this.channel.run('tokenize', { text, options });
  }

  async detokenize(tokens) {
    check('detokenize', 'tokens', tokens);
    return this.channel.run('detokenize', { tokens });
  }

  async chatTokens(messages, options) {
    check('chatTokens', 'messages', messages);
    check('chatTokens', 'options', options);
    return this.channel.run('chatTokens', { messages, options });
  }

  async session(options) {
    check('session', 'options', options);
    return new Session(this.channel, await this.channel.run('session', { options }));
  }

  async classifier(labels, options) {
    check('classifier', 'labels', labels);
    check('classifier', 'options', options);
    return new Classifier(this.channel, await this.channel.run('classifier', { labels, options }), labels);
  }

  async template(name) {
    check('template', 'text', name, null, 'name');
    return new Template(this.channel, await this.channel.run('template', { name }));
  }

  async templateFromText(text) {
    check('templateFromText', 'text', text);
    return new Template(this.channel, await this.channel.run('template', { text }));
  }

  /** Frees everything of the model, its sessions too. */
  close() { this.channel.fail(new CerebellumError('BAD_HANDLE', 'the model is closed')); }
}

export class Classifier {
  constructor(channel, handle, labels) {
    this.channel = channel;
    this.handle = handle;
    this.labels = labels;
  }
}

export class Template {
  constructor(channel, handle) {
    this.channel = channel;
    this.handle = handle;
  }
}

/** A text that comes piece by piece. */
export class TextStream {
  constructor(channel, method, args, signal) {
    this.pieces = [];
    this.stopReason = null;
    this.stats = null;
    const call = channel.call(method, args, { onPiece: (piece) => { this.pieces.push(piece); this.wake?.(); } });
    this.cancel = () => channel.cancel(call.id);
    if (signal?.aborted) this.cancel();
    signal?.addEventListener('abort', this.cancel);
    this.ended = call.result.then((result) => Object.assign(this, result), (error) => { this.error = error; })
      .finally(() => {
        signal?.removeEventListener('abort', this.cancel);
        this.isEnded = true;
        this.wake?.();
      });
  }

  async* [Symbol.asyncIterator]() {
    let read = 0;
    try {
      for (;;) {
        while (read < this.pieces.length) {
          read += 1;
          yield this.pieces[read - 1];
        }
        if (this.isEnded) break;
        await new Promise((resolve) => { this.wake = resolve; });
      }
    } finally {
      // Leaving the loop ends the text.
      if (!this.isEnded) {
        this.cancel();
        await this.ended;
      }
    }
    if (this.error) throw this.error;
  }

  /** The whole text. */
  async text() {
    await this.ended;
    if (this.error) throw this.error;
    return this.pieces.join('');
  }
}

export class Session {
  constructor(channel, handle) {
    this.channel = channel;
    this.handle = handle;
  }

  generate(prompt, given) {
    check('generate', 'prompt', prompt);
    const [options, signal] = signalOf('generate', given);
    return this.stream('generate', { prompt, options }, signal);
  }

  chat(messages, given) {
    check('chat', 'messages', messages);
    const [options, signal] = signalOf('chat', given);
    return this.stream('chat', { messages, options }, signal);
  }

  apply(template, text, given) {
    check('apply', 'template', template, this.channel);
    check('apply', 'text', text);
    const [options, signal] = signalOf('apply', given);
    return this.stream('apply', { template: template.handle, text, options }, signal);
  }

  async classify(classifier, text) {
    check('classify', 'classifier', classifier, this.channel);
    check('classify', 'text', text);
    return this.run('classify', { classifier: classifier.handle, text });
  }

  async embed(text, options) {
    check('embed', 'text', text);
    check('embed', 'options', options);
    return this.run('embed', { text, options });
  }

  async evaluate(tokens) {
    check('evaluate', 'tokens', tokens);
    return this.run('evaluate', { tokens });
  }

  reset() { return this.run('reset', {}); }

  async rewind(position) {
    check('rewind', 'position', position);
    return this.run('rewind', { position });
  }

  stats() { return this.run('stats', {}); }
  tokens() { return this.run('tokens', {}); }
  close() { return this.run('free', {}); }

  run(method, args) { return this.channel.run(method, { session: this.handle, ...args }); }
  stream(method, args, signal) { return new TextStream(this.channel, method, { session: this.handle, ...args }, signal); }
}
