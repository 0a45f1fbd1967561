// Runs quantized GPT models in the browser, and in Node. The page's side: see index.d.ts for every word.

import { CerebellumError } from './engine.js';
import { Host, hasRelaxedSimd } from './host.js';

export { CerebellumError, hasRelaxedSimd };

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
    } else {
      const host = new Host(readModule);
      this.post = (message) => { host.handle(message, receive); };
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
    this.worker?.terminate();
  }

  /** A call; its `id` serves to cancel it. */
  call(method, args, { onProgress, onPiece, transfer } = {}) {
    const id = this.next;
    this.next += 1;
    const result = new Promise((resolve, reject) => {
      if (this.failed) reject(this.failed);
      this.pending.set(id, { resolve, reject, onProgress, onPiece });
    });
    if (!this.failed) this.post({ id, method, args }, transfer);
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

export class Model {
  static async load(source, options = {}) {
    const { onProgress, signal, worker = typeof Worker !== 'undefined', cache = true, verify = false, digest, isa } = options;
    signal?.throwIfAborted();
    const channel = new Channel(worker);
    let given = source;
    if (typeof source === 'string' || source instanceof URL) {
      given = new URL(source, globalThis.document?.baseURI ?? globalThis.location?.href).href;
    } else if (ArrayBuffer.isView(source)) {
      given = source.buffer.slice(source.byteOffset, source.byteOffset + source.byteLength);
    }
    const call = channel.call('load', { source: given, cache, verify, digest, isa }, {
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

  constructor(channel, { info, isa, hasConstraints }) {
    this.channel = channel;
    this.info = info;
    this.isa = isa;
    this.hasConstraints = hasConstraints;
  }

  plan(options) { return this.channel.run('plan', { options }); }
  verify() { return this.channel.run('verify', {}); }
  tokenize(text, options) { return this.channel.run('tokenize', { text, options }); }
  detokenize(tokens) { return this.channel.run('detokenize', { tokens }); }
  chatTokens(messages, options) { return this.channel.run('chatTokens', { messages, options }); }

  async session(options) {
    return new Session(this.channel, await this.channel.run('session', { options }));
  }

  async classifier(labels, options) {
    return new Classifier(await this.channel.run('classifier', { labels, options }), labels);
  }

  async template(name) { return new Template(await this.channel.run('template', { name })); }
  async templateFromText(text) { return new Template(await this.channel.run('template', { text })); }

  /** Frees everything of the model, its sessions too. */
  close() { this.channel.fail(new CerebellumError('BAD_HANDLE', 'the model is closed')); }
}

export class Classifier {
  constructor(handle, labels) {
    this.handle = handle;
    this.labels = labels;
  }
}

export class Template {
  constructor(handle) { this.handle = handle; }
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

  generate(prompt, { signal, ...options } = {}) { return this.stream('generate', { prompt, options }, signal); }
  chat(messages, { signal, ...options } = {}) { return this.stream('chat', { messages, options }, signal); }
  apply(template, text, { signal, ...options } = {}) {
    return this.stream('apply', { template: template.handle, text, options }, signal);
  }

  classify(classifier, text) { return this.run('classify', { classifier: classifier.handle, text }); }
  embed(text, options) { return this.run('embed', { text, options }); }
  evaluate(tokens) { return this.run('evaluate', { tokens }); }
  reset() { return this.run('reset', {}); }
  rewind(position) { return this.run('rewind', { position }); }
  stats() { return this.run('stats', {}); }
  tokens() { return this.run('tokens', {}); }
  close() { return this.run('free', {}); }

  run(method, args) { return this.channel.run(method, { session: this.handle, ...args }); }
  stream(method, args, signal) { return new TextStream(this.channel, method, { session: this.handle, ...args }, signal); }
}
