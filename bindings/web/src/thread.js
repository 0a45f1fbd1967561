// One of a module's threads, in a worker of a browser's or of Node's.

import { live } from './threads.js';

if (typeof globalThis.postMessage === 'function') {
  globalThis.onmessage = ({ data }) => live(data, (message) => globalThis.postMessage(message));
} else {
  const { parentPort, workerData } = await import('node:worker_threads');
  await live(workerData, (message) => parentPort.postMessage(message));
}
