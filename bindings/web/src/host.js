// What a worker does for the page: loads a model into a module of its own, and answers messages.
//
// To the host:   { id, method, args }, { id, cancel: true }
// From the host: { id, progress }, { id, piece }, { id, done }, { id, error }

import { CerebellumError, Engine } from './engine.js';
import { canHaveThreads } from './threads.js';

/** f32x4.relaxed_madd(1 + 2^-12, 1 + 2^-12, -1): its last bit is there only if the engine rounds once. */
const PROBE = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 125, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0, 10, 31, 1, 29, 0,
  67, 0, 8, 128, 63, 253, 19, 67, 0, 8, 128, 63, 253, 19, 67, 0, 0, 128, 191, 253, 19, 253, 133, 2, 253, 31, 0, 11,
]);

/** Whether the build with relaxed instructions runs here and computes the same bits. */
export function hasRelaxedSimd() {
  try {
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(PROBE));
    return exports.f() === 1 / 2048 + 1 / 16777216;
  } catch {
    return false;
  }
}

const CACHE = 'cerebellum-models';
const DIGEST = 'cerebellum-digest';

/** Lets messages in that wait, before the next token is computed. */
const turn = globalThis.setImmediate
  ? () => new Promise((resume) => { globalThis.setImmediate(resume); })
  : (() => {
      const { port1, port2 } = new MessageChannel();
      const waiting = [];
      port1.onmessage = () => waiting.shift()();
      return () => new Promise((resume) => { waiting.push(resume); port2.postMessage(0); });
    })();

export class Host {
  /** `readModule(name)` gives the bytes of a module of this package, or a response with them. */
  constructor(readModule) {
    this.readModule = readModule;
    this.running = new Map();
    this.classifiers = new Map();
    this.templates = new Map();
  }

  /** Answers a message; what it has to say goes to `post`. */
  async handle({ id, method, args, cancel }, post) {
    if (cancel) {
      this.running.get(id)?.abort();
      return;
    }
    const abort = new AbortController();
    this.running.set(id, abort);
    try {
      const say = { progress: (progress) => post({ id, progress }), piece: (piece) => post({ id, piece }) };
      post({ id, done: await this[method](args, say, abort.signal) });
    } catch (error) {
      // A response that is no longer wanted goes on arriving otherwise.
      abort.abort();
      const { name, message, status } = error;
      post({ id, error: { name, message, status: status ?? null } });
    } finally {
      this.running.delete(id);
    }
  }

  // ---- Loading

  /** Starts the module: the one for several threads where they can be had. */
  async start(name, threads) {
    const start = async (file, hasThreads) => {
      const module = await this.readModule(file);
      return Engine.start(module instanceof WebAssembly.Module ? module : await WebAssembly.compile(module), hasThreads);
    };
    if (threads !== false && canHaveThreads()) {
      try {
        return await start(`${name}-threads`, true);
      } catch (error) {
        // It is not there, or the memory for it is not.
        console.warn(`Cerebellum has one thread: ${error.message}`);
      }
    }
    return start(name, false);
  }

  async load({ source, isa, threads, cache, verify, digest }, say, signal) {
    const name = isa ?? (hasRelaxedSimd() ? 'relaxed-simd' : 'simd128');
    this.engine = await this.start(name, threads);
    const isUrl = typeof source === 'string';
    const kept = isUrl && cache ? await this.cached(source, digest) : null;
    if (kept) {
      try {
        await this.take(kept, say, signal);
        this.openModel(true);
      } catch (error) {
        if (error.name === 'AbortError' || error.status === 'NO_MEMORY') throw error;
        // What is kept is damaged: once more, from where it came.
        this.model = undefined;
        await (await caches.open(CACHE)).delete(source);
      }
    }
    if (this.model === undefined) {
      await this.take(isUrl ? await fetchOk(source, signal) : source, say, signal);
      this.openModel(verify);
      if (isUrl && cache) this.keep(source);
    }
    if (digest !== undefined && this.info.digest !== digest) {
      throw new CerebellumError('BAD_MODEL', `the model's digest is ${this.info.digest || 'not stated'}, not ${digest}`);
    }
    return { info: this.info, isa: name, hasConstraints: this.engine.hasConstraints, hasThreads: this.engine.threads !== undefined };
  }

  openModel(verify) {
    this.model = this.engine.open(this.data, this.size, { verify });
    this.info = this.engine.info(this.model);
  }

  /** Streams the model to where it stays. */
  async take(source, say, signal) {
    const { engine } = this;
    const isResponse = typeof Response !== 'undefined' && source instanceof Response;
    let total = null;
    if (isResponse) {
      const length = source.headers.get('content-length');
      if (length !== null && !source.headers.has('content-encoding')) total = Number(length);
    } else {
      total = source.size ?? source.byteLength;
    }
    this.data = total === null ? null : engine.pages(total, 'The model');
    this.size = 0;
    const add = (chunk) => {
      if (total !== null && this.size + chunk.length > total) throw new CerebellumError('IO', `the model is longer than the ${total} bytes announced`);
      if (total === null) {
        // Nobody else asks for pages meanwhile, so these follow the ones before.
        const end = this.data === null ? 0 : this.data + this.size;
        const missing = this.data === null ? chunk.length : end + chunk.length - engine.memory.buffer.byteLength;
        if (missing > 0) {
          const at = engine.pages(missing, 'The model');
          this.data ??= at;
        }
      }
      engine.bytes.set(chunk, this.data + this.size);
      this.size += chunk.length;
      say.progress({ loaded: this.size, total });
    };
    if (source instanceof ArrayBuffer || ArrayBuffer.isView(source)) {
      add(source instanceof ArrayBuffer ? new Uint8Array(source) : new Uint8Array(source.buffer, source.byteOffset, source.byteLength));
    } else {
      const reader = (isResponse ? source.body : source.stream()).getReader();
      for (;;) {
        signal.throwIfAborted();
        const { value, done } = await reader.read();
        if (done) break;
        add(value);
      }
    }
    if (total !== null && this.size < total) throw new CerebellumError('IO', `the model ends after ${this.size} of ${total} bytes`);
    if (this.size === 0) throw new CerebellumError('BAD_MODEL', 'the model is empty');
  }

  /** What was kept of an address, if it is the model that is wanted. */
  async cached(url, digest) {
    try {
      const kept = await (await caches.open(CACHE)).match(url);
      return kept && (digest === undefined || kept.headers.get(DIGEST) === digest) ? kept : null;
    } catch {
      return null;
    }
  }

  /** Keeps a model for the next visit, piece by piece out of the module's memory. */
  async keep(url) {
    const { engine, data, size } = this;
    let done = 0;
    const body = new ReadableStream({
      pull(to) {
        if (done === size) return to.close();
        const end = Math.min(size, done + (1 << 20));
        to.enqueue(engine.bytes.slice(data + done, data + end));
        done = end;
        return undefined;
      },
    });
    try {
      const headers = { 'content-length': String(size), [DIGEST]: this.info.digest };
      await (await caches.open(CACHE)).put(url, new Response(body, { headers }));
    } catch {
      // No room, or a page that may keep nothing: it is loaded again next time.
    }
  }

  /** Ends what runs, and the threads. */
  close() {
    for (const abort of this.running.values()) abort.abort();
    this.engine?.threads?.close();
  }

  // ---- Calls

  async plan({ options }) { return this.engine.plan(this.model, options); }
  async verify() { this.engine.verify(this.model); }
  async tokenize({ text, options }) { return this.engine.tokenize(this.model, text, options); }
  async detokenize({ tokens }) { return this.engine.detokenize(this.model, tokens); }
  async chatTokens({ messages, options }) { return this.engine.chatTokens(this.model, messages, options); }
  async session({ options }) { return this.engine.session(this.model, options); }
  async classifier({ labels, options }) {
    const made = this.engine.classifier(this.model, labels, options);
    this.classifiers.set(made, labels);
    return made;
  }
  async template({ name, text }) {
    return text === undefined ? this.engine.template(this.model, name) : this.engine.templateFromText(text);
  }

  async free({ session }) { this.engine.free(session); }
  async reset({ session }) { this.engine.reset(session); }
  async rewind({ session, position }) { this.engine.rewind(session, position); }
  async stats({ session }) { return this.engine.stats(session); }
  async tokens({ session }) { return this.engine.tokens(session); }
  async evaluate({ session, tokens }) {
    this.engine.evaluate(session, tokens);
    return this.engine.logits(session);
  }
  async classify({ session, classifier, text }) {
    return this.engine.classify(session, classifier, this.classifiers.get(classifier), text);
  }
  async embed({ session, text, options }) { return this.engine.embed(session, this.info.embedding, text, options); }

  // ---- Streams

  async generate({ session, prompt, options }, say, signal) {
    return this.pieces(session, this.engine.generate(session, prompt, options), say, signal);
  }

  async chat({ session, messages, options }, say, signal) {
    const answer = this.engine.chat(this.model, session, messages, options);
    const { promptTokens, reusedTokens, leftOut } = answer;
    return { ...await this.pieces(session, answer, say, signal), promptTokens, reusedTokens, leftOut };
  }

  async apply({ session, template, text, options }, say, signal) {
    const stopReason = this.engine.apply(session, template, text, options, (piece) => {
      say.piece(piece);
      return !signal.aborted;
    });
    return { stopReason, stats: this.engine.stats(session) };
  }

  async pieces(session, generation, say, signal) {
    try {
      // A request to stop that came before the first token.
      await turn();
      while (!signal.aborted) {
        const piece = generation.next();
        if (piece === null) break;
        if (piece !== '') say.piece(piece);
        await turn();
      }
    } catch (error) {
      // After a trap nothing may be called.
      if (error instanceof CerebellumError) generation.end();
      throw error;
    }
    const stopReason = generation.end();
    return { stopReason, stats: this.engine.stats(session) };
  }
}

async function fetchOk(url, signal) {
  const response = await fetch(url, { signal }).catch((error) => {
    throw error.name === 'AbortError' ? error : new CerebellumError('IO', `${url}: ${error.message}`);
  });
  if (!response.ok) throw new CerebellumError('IO', `${url}: ${response.status} ${response.statusText}`);
  return response;
}
