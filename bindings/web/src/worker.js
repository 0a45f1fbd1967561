// The worker of a model: everything that computes is here, so that the page stays responsive.

import { Host } from './host.js';

const host = new Host((name) => WebAssembly.compileStreaming(fetch(new URL(`./${name}.wasm`, import.meta.url))));

globalThis.onmessage = ({ data }) => host.handle(data, (message) => globalThis.postMessage(message));
