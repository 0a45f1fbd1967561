// The C interface (include/cerebellum.h) of a module that was compiled for WebAssembly, called by one thread:
// the thread of a worker, as a rule. Every call here computes until it has its result.

import { Threads, sharedMemory } from './threads.js';

const PAGE = 65536;
/** Pages of a 32-bit memory: no browser gives more. The last one is never used, so that its end is a number of 32 bits. */
const MOST_PAGES = 65536;
/** What a module for several threads has in the beginning: `--initial-memory` in build.mjs. */
const INITIAL_PAGES = 64;

/** Numbers of `cbl_status`. */
export const STATUS = [
  'OK', 'BAD_HANDLE', 'BAD_ARGUMENT', 'BAD_OPTION', 'INVALID_UTF8', 'BUFFER_TOO_SMALL', 'NO_MEMORY', 'IO', 'BAD_MODEL',
  'MODEL_CHANGED', 'BAD_TOKEN', 'CONTEXT_FULL', 'BAD_POSITION', 'NO_LOGITS', 'NON_FINITE', 'NO_TOKENIZER', 'BAD_TEXT',
  'BUSY', 'CANCELLED', 'NO_THREADS', 'BAD_SAVED', 'UNSUPPORTED', 'PANIC', 'NO_GENERATION',
];
const BUFFER_TOO_SMALL = 5;

/** Numbers of `cbl_option`, and how a value is set. */
const OPTIONS = {
  verify: [2, 'flag'], context: [3, 'int'], cache: [4, ['f16', 'int8']], threads: [5, 'int'], chunk: [6, 'int'], allLogits: [7, 'flag'],
  isa: [8, 'string'], maxTokens: [9, 'int'], temperature: [10, 'float'], topK: [11, 'int'], topP: [12, 'float'],
  minP: [13, 'float'], repetitionPenalty: [14, 'float'], repetitionWindow: [15, 'int'], seed: [16, 'int'],
  ignoreEndOfText: [17, 'flag'], parseSpecial: [18, 'flag'], draft: [19, 'int'], pooling: [20, ['mean', 'last']],
  template: [21, 'string'], normalization: [22, ['sum', 'mean']],
  calibration: [23, ['none', 'contentFree', 'mutualInformation']], choices: [24, 'lines'], regex: [25, 'string'],
  jsonSchema: [26, 'schema'], templateTokens: [27, 'int'], date: [28, 'string'], thinking: [29, 'flag'],
  beginOfText: [30, 'flag'],
};

/** Why a text ended: numbers of `cbl_stop_reason`. */
const STOP_REASONS = [
  null, 'end_of_text', 'max_tokens', 'stop_string', 'context_full', 'cancelled', 'complete', 'incomplete',
];

/** A failure of the library; `status` is the name of a `cbl_status` without `CBL_`. */
export class CerebellumError extends Error {
  constructor(status, message) {
    super(message);
    this.name = 'CerebellumError';
    this.status = status;
  }
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/**
 * A module with one import and one export, the same function. What a module exports may stand in another one's
 * table, where the library finds callbacks by number: (pointer, pointer, length) -> bool.
 */
const CALLBACK = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 8, 1, 96, 3, 127, 127, 127, 1, 127, 2, 7, 1, 1, 99, 1, 102, 0, 0, 7, 5, 1, 1, 102, 0, 0,
]);

export class Engine {
  /** Over a compiled module, one for several threads or not. */
  static async start(module, hasThreads) {
    const now = () => performance.timeOrigin + performance.now();
    const { memory, maximum } = hasThreads ? sharedMemory(INITIAL_PAGES, MOST_PAGES) : { maximum: MOST_PAGES };
    let threads;
    const ofThreads = Object.fromEntries(['start', 'join', 'check'].map((name) => [`thread_${name}`, (...args) => threads[name](...args)]));
    // `env`: the clock of the constraints' library.
    const instance = await WebAssembly.instantiate(module, { cerebellum: { now, ...ofThreads }, env: { now, memory } });
    const engine = new Engine(instance.exports, memory);
    engine.mostBytes = (maximum - 1) * PAGE;
    if (hasThreads) {
      threads = new Threads(module, memory, instance.exports, (bytes, what) => engine.pages(bytes, what));
      engine.threads = threads;
    }
    const callback = await WebAssembly.instantiate(CALLBACK, {
      c: { f: (_, text, length) => Number(engine.onText(engine.text(text, length))) },
    });
    const table = instance.exports.__indirect_function_table;
    engine.callback = table.grow(1);
    table.set(engine.callback, callback.instance.exports.f);
    return engine;
  }

  constructor(exports, memory) {
    this.c = exports;
    this.memory = memory ?? exports.memory;
    /** Memory of our own for arguments and results: pages that the library did not ask for. */
    this.scratch = { start: 0, end: 0, top: 0 };
    // Of the pages that several threads begin with, those behind what the module has in them.
    if (memory) this.scratch = { start: exports.__heap_base.value, end: INITIAL_PAGES * PAGE, top: exports.__heap_base.value };
    this.onText = () => true;
  }

  // ---- Memory. It may grow in any call, which makes new buffers: no view is kept.

  get bytes() { return new Uint8Array(this.memory.buffer); }
  get view() { return new DataView(this.memory.buffer); }

  /** What other threads write at the same time cannot be decoded: what they might write is copied. */
  copy(start, end) { return this.threads ? this.bytes.slice(start, end) : this.bytes.subarray(start, end); }

  /** Whether the module was built with choices, regular expressions and JSON schemas. */
  get hasConstraints() { return this.c.cbl_has_constraints() !== 0; }

  /** So many bytes of new pages; all of them, or an error before anything is taken. */
  pages(bytes, what) {
    let start = this.memory.buffer.byteLength;
    const refuse = (why) => {
      throw new CerebellumError('NO_MEMORY', `${what} needs ${megabytes(bytes)}, and ${why}`);
    };
    if (start + bytes > this.mostBytes) {
      refuse(`of the ${megabytes(this.mostBytes)} that a page can have ${megabytes(this.mostBytes - start)} are free`);
    }
    try {
      start = PAGE * this.memory.grow(Math.ceil(bytes / PAGE));
    } catch {
      refuse('the browser gives no more');
    }
    return start;
  }

  /** A place for so many bytes until the call of `within` ends. */
  place(bytes) {
    const { scratch } = this;
    let at = (scratch.top + 15) & ~15;
    if (at + bytes > scratch.end) {
      const size = Math.max(PAGE, bytes + 16);
      scratch.start = at = this.pages(size, 'A call');
      scratch.end = this.memory.buffer.byteLength;
    }
    scratch.top = at + bytes;
    this.bytes.fill(0, at, at + bytes);
    return at;
  }

  /** Runs `body`, whose places are free again afterwards. */
  within(body) {
    const { scratch } = this;
    const { start, top } = scratch;
    try {
      return body();
    } finally {
      // After a growth all of the new pages are free.
      scratch.top = scratch.start === start ? top : scratch.start;
    }
  }

  string(text) {
    const bytes = encoder.encode(text);
    const at = this.place(bytes.length + 1);
    this.bytes.set(bytes, at);
    return [at, bytes.length];
  }

  /** An array of pointers to texts that end with a zero byte. */
  strings(texts) {
    const pointers = texts.map((text) => {
      if (text.includes('\0')) throw new CerebellumError('BAD_ARGUMENT', 'a text has a zero character');
      return this.string(text)[0];
    });
    const at = this.place(4 * Math.max(1, texts.length));
    new Uint32Array(this.memory.buffer, at, texts.length).set(pointers);
    return at;
  }

  ids(tokens) {
    const at = this.place(4 * Math.max(1, tokens.length));
    new Uint32Array(this.memory.buffer, at, tokens.length).set(tokens);
    return at;
  }

  text(at, length) { return decoder.decode(this.copy(at, at + length)); }

  /** Text that ends with a zero byte. */
  name(at) {
    const { bytes } = this;
    return at === 0 ? '' : decoder.decode(this.copy(at, bytes.indexOf(0, at)));
  }

  u64(at) { return Number(this.view.getBigUint64(at, true)); }

  // ---- Calls

  fail(status, message) {
    throw new CerebellumError(STATUS[status] ?? `STATUS_${status}`, message || this.name(this.c.cbl_status_text(status)));
  }

  /** A call that takes a buffer for its message. */
  call(name, ...args) {
    const message = this.place(1024);
    const status = this.c[name](...args, message, 1024);
    if (status !== 0) this.fail(status, this.name(message));
  }

  /** A call on a session, which keeps its message. */
  on(session, name, ...args) {
    const status = this.c[name](session, ...args);
    if (status !== 0) this.fail(status, this.name(this.c.cbl_session_error(session)));
  }

  /** Makes something whose place is the argument before the message. */
  make(name, ...args) {
    const at = this.place(4);
    this.call(name, ...args, at);
    return this.view.getUint32(at, true);
  }

  /** Runs `body` with a set of options. */
  withOptions(given, allowed, where, body) {
    const { c } = this;
    const at = this.place(4);
    const status = c.cbl_options_new(at);
    if (status !== 0) this.fail(status);
    const options = this.view.getUint32(at, true);
    try {
      for (const [key, value] of Object.entries(given ?? {})) {
        if (value === undefined || value === null) continue;
        if (!allowed.includes(key)) {
          throw new TypeError(`${where} has no option ${JSON.stringify(key)}; it has ${allowed.join(', ')}`);
        }
        this.within(() => this.setOption(options, key, value));
      }
      return body(options);
    } finally {
      c.cbl_options_free(options);
    }
  }

  setOption(options, key, value) {
    const { c } = this;
    const check = (status) => {
      if (status !== 0) this.fail(status, `${key}: ${this.name(c.cbl_options_error(options))}`);
    };
    const bad = (expected) => {
      const shown = typeof value === 'bigint' ? value : JSON.stringify(value);
      throw new CerebellumError('BAD_OPTION', `${key} is ${expected}, not ${shown}`);
    };
    const isText = (it) => typeof it === 'string';
    if (key === 'stop') {
      const stops = isText(value) ? [value] : value;
      if (!Array.isArray(stops) || !stops.every(isText)) bad('a text or a list of texts');
      for (const stop of stops) check(c.cbl_options_add_stop(options, ...this.string(stop)));
    } else if (key === 'logitBias') {
      const isBias = ([token, bias]) => /^\d{1,9}$/.test(token) && typeof bias === 'number';
      if (typeof value !== 'object' || Array.isArray(value) || !Object.entries(value).every(isBias)) bad('an object with a number for each token id');
      for (const [token, bias] of Object.entries(value)) {
        check(c.cbl_options_set_logit_bias(options, Number(token), bias));
      }
    } else if (key === 'examples') {
      const isExample = (it) => Array.isArray(it) && it.length === 2 && it.every(isText);
      if (!Array.isArray(value) || !value.every(isExample)) bad('a list of pairs, a text and its label');
      for (const [text, label] of value) {
        check(c.cbl_options_add_example(options, ...this.string(text), ...this.string(label)));
      }
    } else {
      const [number, kind] = OPTIONS[key];
      if (Array.isArray(kind)) {
        if (!kind.includes(value)) bad(`one of ${kind.join(', ')}`);
        check(c.cbl_options_set_int(options, number, BigInt(kind.indexOf(value))));
      } else if (kind === 'flag') {
        if (typeof value !== 'boolean') bad('true or false');
        check(c.cbl_options_set_int(options, number, value ? 1n : 0n));
      } else if (kind === 'int') {
        if (typeof value !== 'bigint' && !Number.isSafeInteger(value)) bad('a whole number');
        check(c.cbl_options_set_int(options, number, BigInt.asIntN(64, BigInt(value))));
      } else if (kind === 'float') {
        if (typeof value !== 'number') bad('a number');
        check(c.cbl_options_set_float(options, number, value));
      } else {
        let text = value;
        if (kind === 'lines') {
          const isLine = (it) => isText(it) && it !== '' && !it.includes('\n');
          if (!Array.isArray(value) || value.length === 0 || !value.every(isLine)) bad('a list of texts, each of one line');
          text = value.join('\n');
        } else if (kind === 'schema' && !isText(value)) {
          text = JSON.stringify(value);
        }
        if (!isText(text)) bad(kind === 'schema' ? 'an object or a text' : 'a text');
        check(c.cbl_options_set_string(options, number, ...this.string(text)));
      }
    }
  }

  // ---- Models

  /** Opens the model whose `size` bytes are at `data`. */
  open(data, size, options) {
    return this.within(() => this.withOptions(options, ['verify'], 'Model.load()', (made) =>
      this.make('cbl_model_open_memory', data, size, made)));
  }

  info(model) {
    return this.within(() => {
      const at = this.place(64);
      const status = this.c.cbl_model_get_info(model, at, 64);
      if (status !== 0) this.fail(status);
      const { view } = this;
      const number = (offset) => view.getUint32(at + offset, true);
      const end = view.getInt32(at + 52, true);
      return {
        architecture: this.name(number(0)), digest: this.name(number(4)), fileBytes: this.u64(at + 8),
        parameters: this.u64(at + 16), bitsPerWeight: view.getFloat64(at + 24, true), vocabulary: number(32),
        context: number(36), embedding: number(40), layers: number(44), heads: number(48),
        endOfText: end < 0 ? null : end, hasTokenizer: view.getUint8(at + 56) !== 0,
      };
    });
  }

  plan(model, options) {
    return this.within(() => this.withOptions(options, SESSION, 'Model.plan()', (made) => {
      const at = this.place(32);
      this.call('cbl_model_plan', model, made, at, 32);
      const [weightsBytes, cacheBytes, scratchBytes, totalBytes] = [0, 8, 16, 24].map((offset) => this.u64(at + offset));
      return { weightsBytes, cacheBytes, scratchBytes, totalBytes };
    }));
  }

  verify(model) { this.within(() => this.call('cbl_model_verify', model)); }

  tokenize(model, text, options) {
    return this.within(() => this.withOptions(options, ['parseSpecial', 'beginOfText'], 'Model.tokenize()', (made) => {
      const [at, length] = this.string(text);
      const [capacity, count] = [3 * length + 2, this.place(4)];
      const tokens = this.place(4 * capacity);
      this.call('cbl_model_tokenize', model, made, at, length, tokens, capacity, count);
      return [...new Uint32Array(this.memory.buffer, tokens, this.view.getUint32(count, true))];
    }));
  }

  detokenize(model, tokens) {
    return this.within(() => {
      const [ids, length] = [this.ids(tokens), this.place(4)];
      const message = this.place(1024);
      const run = (to, capacity) =>
        this.c.cbl_model_detokenize(model, ids, tokens.length, to, capacity, length, message, 1024);
      let status = run(this.place(1), 0);
      let [to, size] = [0, 0];
      if (status === BUFFER_TOO_SMALL) {
        size = this.view.getUint32(length, true);
        to = this.place(size);
        status = run(to, size);
      }
      if (status !== 0) this.fail(status, this.name(message));
      return this.text(to, size);
    });
  }

  chatTokens(model, messages, options) {
    return this.within(() => this.withOptions(options, ['date', 'thinking'], 'chat()', (made) => {
      const roles = this.strings(messages.map(({ role }) => role));
      const contents = this.strings(messages.map(({ content }) => content));
      const [number, message] = [this.place(4), this.place(1024)];
      const run = (to, capacity) => this.c.cbl_chat_tokens(
        model, made, roles, contents, messages.length, to, capacity, number, message, 1024,
      );
      let status = run(this.place(4), 0);
      let [to, count] = [0, 0];
      if (status === BUFFER_TOO_SMALL) {
        count = this.view.getUint32(number, true);
        to = this.place(4 * count);
        status = run(to, count);
      }
      if (status !== 0) this.fail(status, this.name(message));
      return [...new Uint32Array(this.memory.buffer, to, count)];
    }));
  }

  classifier(model, labels, options) {
    return this.within(() => this.withOptions(options, CLASSIFIER, 'Model.classifier()', (made) =>
      this.make('cbl_classifier_new', model, made, this.strings(labels), labels.length)));
  }

  template(model, name) {
    return this.within(() => this.make('cbl_template_named', model, ...this.string(name)));
  }

  templateFromText(text) { return this.within(() => this.make('cbl_template_new', ...this.string(text))); }

  // ---- Sessions

  /** With as many of the threads that are asked for as can be had. */
  async session(model, given) {
    const options = { ...given };
    if (Number.isSafeInteger(options.threads) && options.threads > 1) {
      // What is wrong with the options is said before workers are started.
      this.plan(model, options);
      await this.threads?.have(options.threads - 1);
      options.threads = Math.min(options.threads, 1 + (this.threads?.waiting ?? 0));
    }
    const { totalBytes } = this.plan(model, options);
    const free = this.mostBytes - this.memory.buffer.byteLength;
    if (totalBytes > free) {
      throw new CerebellumError('NO_MEMORY', `A session needs ${megabytes(totalBytes)}, and of the ${megabytes(this.mostBytes)} ` +
        `that a page can have ${megabytes(free)} are free: a smaller context or cache: 'int8' needs less`);
    }
    return this.within(() => this.withOptions(options, SESSION, 'Model.session()', (made) =>
      this.make('cbl_session_new', model, made)));
  }

  stats(session) {
    return this.within(() => {
      const at = this.place(112);
      this.on(session, 'cbl_session_get_stats', at, 112);
      const { view } = this;
      const seconds = (offset) => view.getFloat64(at + offset, true);
      return {
        isa: this.name(view.getUint32(at, true)), context: this.u64(at + 8), position: this.u64(at + 16),
        threads: this.u64(at + 24), evaluatedTokens: this.u64(at + 32), evaluationSeconds: seconds(40),
        promptTokens: this.u64(at + 48), promptSeconds: seconds(56),
        generatedTokens: this.u64(at + 64), generationSeconds: seconds(72),
        stopReason: STOP_REASONS[view.getInt32(at + 80, true)] ?? null,
        guessedTokens: this.u64(at + 88), rightGuesses: this.u64(at + 96),
        memoryBytes: this.memory.buffer.byteLength,
      };
    });
  }

  tokens(session) {
    return this.within(() => {
      const at = this.place(8);
      this.on(session, 'cbl_session_tokens', at, at + 4);
      const { view } = this;
      return [...new Uint32Array(this.memory.buffer, view.getUint32(at, true), view.getUint32(at + 4, true))];
    });
  }

  evaluate(session, tokens) {
    this.within(() => this.on(session, 'cbl_session_evaluate', this.ids(tokens), tokens.length));
  }

  logits(session) {
    return this.within(() => {
      const at = this.place(8);
      this.on(session, 'cbl_session_logits', at, at + 4);
      const { view } = this;
      return new Float32Array(this.memory.buffer, view.getUint32(at, true), view.getUint32(at + 4, true)).slice();
    });
  }

  free(session) { this.c.cbl_session_free(session); }
  reset(session) { this.on(session, 'cbl_session_reset'); }
  rewind(session, position) { this.on(session, 'cbl_session_rewind', position); }

  /** Begins to continue a text or tokens; returns a function that makes the next piece: `null` at the end. */
  generate(session, prompt, options, allowed = GENERATION, where = 'generate()') {
    const generation = this.within(() => this.withOptions(options, allowed, where, (made) => {
      const at = this.place(8);
      if (typeof prompt === 'string') {
        this.on(session, 'cbl_generation_begin', made, ...this.string(prompt), at);
      } else {
        this.on(session, 'cbl_generation_begin_from_tokens', made, this.ids(prompt), prompt.length, at);
      }
      return this.view.getBigUint64(at, true);
    }));
    return {
      /** The next token's text, often empty; `null` when the text has ended. */
      next: () => this.within(() => {
        const [step, reason] = [this.place(24), this.place(4)];
        this.on(session, 'cbl_generation_next', generation, step, 24, reason);
        const { view } = this;
        if (view.getInt32(reason, true) !== 0) return null;
        return this.text(view.getUint32(step + 8, true), view.getUint32(step + 12, true));
      }),
      /** Ends it; why it ended. */
      end: () => this.within(() => {
        const reason = this.place(4);
        this.on(session, 'cbl_generation_end', generation, reason);
        return STOP_REASONS[this.view.getInt32(reason, true)] ?? null;
      }),
    };
  }

  /**
   * Begins the answer to a conversation, as `generate`. What the session holds of it is not evaluated again; the
   * oldest turns after the system message are left out where the context is too small, as `cbl_chat_answer` does.
   */
  chat(model, session, messages, options = {}) {
    const { date, thinking, ...rest } = options;
    const { context } = this.stats(session);
    const room = Math.min(rest.maxTokens ?? 128, Math.floor(context / 2));
    let [kept, leftOut] = [[...messages], 0];
    let tokens = this.chatTokens(model, kept, { date, thinking });
    const first = kept[0]?.role === 'system' ? 1 : 0;
    while (tokens.length + room > context) {
      const turn = kept.findIndex(({ role }, i) => i > first && role === 'user');
      if (turn < 0) break;
      leftOut += turn - first;
      kept.splice(first, turn - first);
      tokens = this.chatTokens(model, kept, { date, thinking });
    }
    const held = this.tokens(session);
    let same = 0;
    while (same < held.length && same < tokens.length - 1 && held[same] === tokens[same]) same += 1;
    this.rewind(session, same);
    const stream = this.generate(session, tokens.slice(same), rest, GENERATION, 'chat()');
    return { ...stream, promptTokens: tokens.length - same, reusedTokens: same, leftOut };
  }

  /** Applies a template to a text; `onText` gets the pieces, and ends it by false. */
  apply(session, template, text, options, onText) {
    return this.within(() => this.withOptions(options, ['seed', 'templateTokens'], 'apply()', (made) => {
      const at = this.place(56);
      this.onText = onText;
      try {
        this.on(session, 'cbl_apply_template', template, made, ...this.string(text), this.callback, 0, at, 56);
      } finally {
        this.onText = () => true;
      }
      return STOP_REASONS[this.view.getInt32(at + 48, true)] ?? null;
    }));
  }

  classify(session, classifier, labels, text) {
    return this.within(() => {
      const [label, probabilities] = [this.place(4), this.place(8 * labels.length)];
      this.on(session, 'cbl_classify', classifier, ...this.string(text), label, probabilities, labels.length);
      return {
        label: labels[this.view.getUint32(label, true)],
        probabilities: [...new Float64Array(this.memory.buffer, probabilities, labels.length)],
      };
    });
  }

  embed(session, width, text, options) {
    return this.within(() => this.withOptions(options, ['pooling', 'parseSpecial'], 'embed()', (made) => {
      const [to, count] = [this.place(4 * width), this.place(4)];
      this.on(session, 'cbl_embed', made, ...this.string(text), to, width, count);
      return new Float32Array(this.memory.buffer, to, width).slice();
    }));
  }
}

const SESSION = ['context', 'threads', 'cache', 'chunk', 'isa', 'allLogits', 'draft'];
const SAMPLING = [
  'temperature', 'topK', 'topP', 'minP', 'repetitionPenalty', 'repetitionWindow', 'seed', 'logitBias',
];
const GENERATION = [
  ...SAMPLING, 'maxTokens', 'stop', 'ignoreEndOfText', 'parseSpecial', 'choices', 'regex', 'jsonSchema',
];
const CLASSIFIER = ['template', 'examples', 'normalization', 'calibration'];

function megabytes(bytes) { return `${Math.ceil(bytes / 1048576)} MiB`; }
