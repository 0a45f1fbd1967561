// Threads of a module: workers that wait, each with an instance of the module of its own over the same memory
// (src/threads/spawn/web.rs). They are started before the library asks for them, for a browser starts no worker as
// long as the one that asks computes.

/** What is in a worker's place, before the function to call, its argument, and why it has failed. */
const [WAITS, RUNS, FAILED] = [1, 2, 3];
const [PLACE, REASON] = [3, 48];
/** Bytes of a thread's stack: `STACK_SIZE` of src/threads/spawn.rs, with the thread's own data above it. */
const STACK = 512 << 10;

/** Whether there is memory for several threads, and one may wait here: not in a page's own thread. */
export function canHaveThreads() {
  try {
    return Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 1) === 'not-equal';
  } catch {
    return false;
  }
}

/** Memory for several threads, and how many pages it can become: its addresses are reserved, of which phones have fewer. */
export function sharedMemory(initial, most) {
  for (let maximum = most; ; maximum /= 2) {
    try {
      return { memory: new WebAssembly.Memory({ initial, maximum, shared: true }), maximum };
    } catch (error) {
      if (maximum <= most / 8) throw error;
    }
  }
}

/** A worker of a browser's or of Node's. */
async function newWorker(start) {
  const url = new URL('./thread.js', import.meta.url);
  if (typeof Worker !== 'undefined') {
    const worker = new Worker(url, { type: 'module' });
    worker.postMessage(start);
    return worker;
  }
  const { Worker: NodeWorker } = await import('node:worker_threads');
  const worker = new NodeWorker(url, { workerData: start });
  for (const [event, name] of [['message', 'onmessage'], ['error', 'onerror']]) {
    worker.on(event, (it) => worker[name]?.(event === 'message' ? { data: it } : it));
  }
  return worker;
}

export class Threads {
  /** For an instance's exports; `pages(bytes, what)` gives new memory. */
  constructor(module, memory, exports, pages) {
    Object.assign(this, { module, memory, exports, pages });
    this.workers = [];
  }

  get waiting() { return this.workers.filter(({ place }) => Atomics.load(place, 0) === WAITS).length; }

  /** Sees to it that so many workers wait, if they can be had. */
  async have(count) {
    try {
      while (this.waiting < count && !this.isClosed) await this.add();
    } catch (error) {
      console.warn(`Cerebellum has ${this.waiting + 1} threads: ${error.message}`);
    }
  }

  async add() {
    const { module, memory, exports } = this;
    const [size, align] = [exports.__tls_size.value, exports.__tls_align.value];
    const stack = this.pages(STACK + size + align, 'A thread');
    const place = new Int32Array(new SharedArrayBuffer(4 * (PLACE + REASON)));
    const local = Math.ceil((stack + STACK) / align) * align;
    const worker = await newWorker({ module, memory, place, stack: stack + STACK, local });
    await new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => { if (data === null) resolve(); else reject(new Error(data)); };
      worker.onerror = (event) => reject(new Error(event.message || 'a worker could not be started'));
    });
    // A program ends although there are threads that wait.
    worker.unref?.();
    this.workers.push({ worker, place });
    if (this.isClosed) this.close();
  }

  start(start, life, stack) {
    const number = stack <= STACK ? this.workers.findIndex(({ place }) => Atomics.load(place, 0) === WAITS) : -1;
    if (number >= 0) {
      const { place } = this.workers[number];
      place.set([start, life], 1);
      Atomics.store(place, 0, RUNS);
      Atomics.notify(place, 0);
    }
    return number;
  }

  join(number) {
    const { place } = this.workers[number];
    while (Atomics.load(place, 0) === RUNS) Atomics.wait(place, 0, RUNS);
    this.check();
  }

  check() {
    const failed = this.workers.find(({ place }) => Atomics.load(place, 0) === FAILED);
    if (failed) throw new WebAssembly.RuntimeError(`a thread of the module: ${String.fromCharCode(...failed.place.subarray(PLACE).filter(Boolean))}`);
  }

  close() {
    this.isClosed = true;
    for (const { worker } of this.workers.splice(0)) worker.terminate();
  }
}

/** What a worker does: waits, and calls what it finds in its place. */
export async function live({ module, memory, place, stack, local }, tell) {
  const now = () => performance.timeOrigin + performance.now();
  const nothing = () => -1;
  try {
    const { exports } = await WebAssembly.instantiate(module, {
      cerebellum: { now, thread_start: nothing, thread_join: nothing, thread_check: nothing }, env: { now, memory },
    });
    exports.__stack_pointer.value = stack;
    exports.__wasm_init_tls(local);
    Atomics.store(place, 0, WAITS);
    tell(null);
    // From the next task on it does not return.
    setTimeout(() => serve(exports.__indirect_function_table, place), 0);
  } catch (error) {
    tell(`${error.name}: ${error.message}`);
  }
}

function serve(functions, place) {
  for (;;) {
    Atomics.wait(place, 0, WAITS);
    if (Atomics.load(place, 0) === RUNS) {
      let end = WAITS;
      try {
        functions.get(place[1])(place[2]);
      } catch (error) {
        place.set([...error.message].slice(0, REASON).map((letter) => letter.charCodeAt(0)), PLACE);
        end = FAILED;
      }
      Atomics.store(place, 0, end);
      Atomics.notify(place, 0);
    }
  }
}
