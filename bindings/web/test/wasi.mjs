// Runs a program for wasm32-wasip1 in Node.
import { readFileSync } from 'node:fs';
import { argv, env, exit } from 'node:process';
import { WASI } from 'node:wasi';

const wasi = new WASI({
  version: 'preview1', args: argv.slice(2), env, preopens: { '/': '/' }, returnOnExit: true,
});
const module = await WebAssembly.compile(readFileSync(argv[2]));
const instance = await WebAssembly.instantiate(module, wasi.getImportObject());
exit(wasi.start(instance));
