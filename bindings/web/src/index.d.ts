/**
 * Options have the words of the Python module (docs/python.md), in camel case; `undefined` stands for the default. An
 * argument of the wrong type is a `TypeError`, an option with a wrong value a `CerebellumError` with the status `BAD_OPTION`.
 */

/** Options of {@link Model.load}. */
export interface LoadOptions {
  /** Called as bytes arrive; `total` is null if the server does not say how many there are. */
  onProgress?: (progress: { loaded: number; total: number | null }) => void;
  /** Stops the loading. */
  signal?: AbortSignal;
  /** Whether the file of an address is kept by the browser for the next visit (Cache API). True by default. */
  cache?: boolean;
  /** Check every checksum. A file that was kept is always checked. False by default. */
  verify?: boolean;
  /** The `info.digest` that the model must have; what was kept of another model is loaded again. */
  digest?: string;
  /** Compute in a worker, so that the page stays responsive: the default where there are workers. */
  worker?: boolean;
  /** The module: by default the one with relaxed instructions, where the engine has them. The bits are the same. */
  isa?: 'simd128' | 'relaxed-simd';
  /**
   * Load the module whose sessions may have several threads. By default where there can be threads: in a page that is
   * cross-origin isolated, and in Node. Where there cannot be, this changes nothing.
   */
  threads?: boolean;
}

export interface ModelInfo {
  architecture: string;
  /** Hash of the checkpoint that the model was made from. */
  digest: string;
  fileBytes: number;
  parameters: number;
  bitsPerWeight: number;
  vocabulary: number;
  context: number;
  embedding: number;
  layers: number;
  heads: number;
  endOfText: number | null;
  hasTokenizer: boolean;
}

export interface SessionOptions {
  /** Number of positions, for prompt and generated tokens together. */
  context?: number;
  /**
   * Number of threads that share the work. 1 by default. Where there are fewer (`model.hasThreads`), it gets what there
   * is, and `stats().threads` says how many. The bits are the same.
   */
  threads?: number;
  /** Type of the cached keys and values. `int8` takes about half the memory of `f16`, the default. */
  cache?: 'f16' | 'int8';
  /** Number of a prompt's tokens that are evaluated at once. 64 by default. */
  chunk?: number;
  /** Compute the logits of every token of a prompt: faster for `classify`. */
  allLogits?: boolean;
  /** The most tokens, 0 to 15, to guess and evaluate together with each token. 4 by default. */
  draft?: number;
}

export interface MemoryPlan {
  weightsBytes: number;
  cacheBytes: number;
  scratchBytes: number;
  /** What a session allocates. */
  totalBytes: number;
}

export interface GenerationOptions {
  /** Ends the text. A prompt that is being evaluated is finished first. */
  signal?: AbortSignal;
  /** The most tokens. 128 by default. */
  maxTokens?: number;
  /** The text ends before the first of these strings. */
  stop?: string | string[];
  /** 0, the default, takes the most probable token. */
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  repetitionWindow?: number;
  /** The same seed draws the same tokens on every machine. */
  seed?: number | bigint;
  logitBias?: Record<number, number>;
  ignoreEndOfText?: boolean;
  parseSpecial?: boolean;
  /** The text is one of these. Give one of this and the next two; a build without them refuses (`hasConstraints`). */
  choices?: string[];
  /** The text matches this regular expression from beginning to end. */
  regex?: string;
  /** The text is JSON that follows this schema: an object, or its text. */
  jsonSchema?: object | string;
}

export interface ChatOptions extends GenerationOptions {
  /** The day that the chat template may write, such as "2025-01-31". */
  date?: string;
  thinking?: boolean;
}

export interface Message {
  role: 'system' | 'user' | 'assistant';
  content: string;
}

export interface ClassifierOptions {
  template?: string;
  examples?: [text: string, label: string][];
  normalization?: 'sum' | 'mean';
  calibration?: 'none' | 'contentFree' | 'mutualInformation';
}

export type StopReason =
  | 'end_of_text' | 'max_tokens' | 'stop_string' | 'context_full' | 'cancelled' | 'complete' | 'incomplete';

export interface SessionStats {
  isa: string;
  context: number;
  position: number;
  threads: number;
  evaluatedTokens: number;
  evaluationSeconds: number;
  promptTokens: number;
  promptSeconds: number;
  generatedTokens: number;
  generationSeconds: number;
  stopReason: StopReason | null;
  guessedTokens: number;
  rightGuesses: number;
  /** The memory of the whole module: weights, sessions, everything. */
  memoryBytes: number;
}

/** A failure of the library. After `PANIC` the model can only be closed; the page and other models live on. */
export class CerebellumError extends Error {
  /** The name of a status of include/cerebellum.h, such as `CONTEXT_FULL` or `NO_MEMORY`. */
  readonly status: string;
}

/** Whether this engine runs the module with relaxed instructions, and computes the same bits with it. */
export function hasRelaxedSimd(): boolean;

/** A text that comes piece by piece. Leaving the loop ends it. */
export class TextStream implements AsyncIterable<string> {
  [Symbol.asyncIterator](): AsyncIterator<string>;
  /** The whole text, when it has ended. */
  text(): Promise<string>;
  /** Ends it. */
  cancel(): void;
  /** Why it ended; null before. */
  readonly stopReason: StopReason | null;
  /** The session's figures at the end; null before. */
  readonly stats: SessionStats | null;
}

export class Classifier {
  readonly labels: string[];
}

export class Template {}

export class Model {
  /**
   * Loads a model into a module of its own. The bytes of an address or file go straight to where they stay; an
   * `ArrayBuffer` is handed over and cannot be used afterwards.
   */
  static load(source: string | URL | Blob | ArrayBuffer | ArrayBufferView, options?: LoadOptions): Promise<Model>;
  readonly info: ModelInfo;
  /** The module that computes. */
  readonly isa: 'simd128' | 'relaxed-simd';
  /** Whether the module was built with `choices`, `regex` and `jsonSchema`. */
  readonly hasConstraints: boolean;
  /** Whether sessions may have several threads. */
  readonly hasThreads: boolean;
  /** What memory a session would take; nothing is allocated. */
  plan(options?: SessionOptions): Promise<MemoryPlan>;
  session(options?: SessionOptions): Promise<Session>;
  classifier(labels: string[], options?: ClassifierOptions): Promise<Classifier>;
  /** A template of the model file or a built-in one, such as "translate". */
  template(name: string): Promise<Template>;
  templateFromText(text: string): Promise<Template>;
  tokenize(text: string, options?: { parseSpecial?: boolean; beginOfText?: boolean }): Promise<number[]>;
  detokenize(tokens: number[]): Promise<string>;
  /** The tokens that the model would get of a conversation; fails if the file has no form for conversations. */
  chatTokens(messages: Message[], options?: { date?: string; thinking?: boolean }): Promise<number[]>;
  /** Checks every checksum. */
  verify(): Promise<void>;
  /** Frees everything, sessions too. */
  close(): void;
}

/** One sequence of tokens. */
export class Session {
  /** Continues the session's text by a prompt: `for await (const piece of session.generate("Once upon a time"))`. */
  generate(prompt: string | number[], options?: GenerationOptions): TextStream;
  /** Answers a conversation. What the session has of it already is not evaluated again. */
  chat(messages: Message[], options?: ChatOptions): TextStream & { promptTokens?: number; reusedTokens?: number; leftOut?: number };
  /** Applies a template to a text. */
  apply(template: Template, text: string, options?: { signal?: AbortSignal; seed?: number | bigint; templateTokens?: number }): TextStream;
  classify(classifier: Classifier, text: string): Promise<{ label: string; probabilities: number[] }>;
  /** A vector of length one; similar texts have similar vectors. */
  embed(text: string, options?: { pooling?: 'mean' | 'last'; parseSpecial?: boolean }): Promise<Float32Array>;
  /** Evaluates tokens; the logits of the last one. */
  evaluate(tokens: number[]): Promise<Float32Array>;
  reset(): Promise<void>;
  rewind(position: number): Promise<void>;
  tokens(): Promise<number[]>;
  stats(): Promise<SessionStats>;
  close(): Promise<void>;
}
