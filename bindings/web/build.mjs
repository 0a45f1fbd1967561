// npm run build [-- OPTIONS]: compiles the modules and puts the package together in dist/. Those for several threads
// need a standard library of their own: `rustup component add rust-src`, and options of cargo and rustc that may change.
//
//     --without-threads    only the modules for one thread
//     --with-constraints   with choices, regular expressions and JSON schemas for generated texts
//     --without-text       token ids only
//     --dist DIRECTORY     in place of dist/
//
// docs/web.md says how large they become.

import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { argv } from 'node:process';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const LINK = ['--export-table', '--growable-table'];
const SIMD = {
  simd128: ['-Ctarget-feature=+simd128'],
  'relaxed-simd': ['-Ctarget-feature=+simd128,+relaxed-simd', '-Cno-vectorize-loops', '-Cno-vectorize-slp'],
};
const THREADS = {
  features: ',+atomics,+bulk-memory,+mutable-globals',
  link: [
    // The memory comes from engine.js, which has this number, too.
    '--shared-memory', '--import-memory', '--initial-memory=4194304', '--max-memory=4294967296',
    ...['__stack_pointer', '__wasm_init_tls', '__tls_size', '__tls_align', '__tls_base', '__heap_base'].map((name) => `--export=${name}`),
  ],
  cargo: ['-Zbuild-std=std,panic_abort'],
};

let [dist, features, threads] = [here('dist'), ['capi', 'text', 'tables'], [false, true]];
for (let i = 2; i < argv.length; i += 1) {
  if (argv[i] === '--with-constraints') {
    features.push('constraints');
    // What compiles a schema calls itself along it, and asks that 2 MiB of the stack are left (src/threads/deep.rs).
    LINK.push('-zstack-size=3145728');
  } else if (argv[i] === '--without-text') {
    features = ['capi'];
  } else if (argv[i] === '--without-threads') {
    threads = [false];
  } else if (argv[i] === '--dist' && i + 1 < argv.length) {
    dist = resolve(argv[i += 1]);
  } else {
    throw new Error(`unknown option ${argv[i]}; there are --with-constraints, --without-text, --without-threads and --dist DIRECTORY`);
  }
}

function build(name, [feature, ...flags], hasThreads) {
  const target = here(`../../target/web/${name}`);
  const link = [...LINK, ...(hasThreads ? THREADS.link : [])].map((option) => `-Clink-arg=${option}`);
  execFileSync('cargo', [
    'rustc', '--locked', '--profile', 'device', '--target', 'wasm32-unknown-unknown', '--package', 'cerebellum', '--lib',
    '--crate-type', 'cdylib', '--no-default-features', '--features', ['std', ...features].join(','), ...(hasThreads ? THREADS.cargo : []),
  ], {
    cwd: here('../..'),
    stdio: 'inherit',
    env: {
      ...process.env,
      CARGO_TARGET_DIR: target,
      RUSTFLAGS: [feature + (hasThreads ? THREADS.features : ''), ...flags, ...link].join(' '),
      ...(hasThreads ? { RUSTC_BOOTSTRAP: '1' } : {}),
    },
  });
  const module = `${target}/wasm32-unknown-unknown/device/cerebellum.wasm`;
  copyFileSync(module, join(dist, `${name}.wasm`));
  const bytes = readFileSync(module);
  console.log(`${name}.wasm: ${bytes.length} bytes, ${gzipSync(bytes, { level: 9 }).length} compressed`);
}

const sysroot = execFileSync('rustc', ['--print', 'sysroot'], { encoding: 'utf8' }).trim();
if (threads.includes(true) && !existsSync(join(sysroot, 'lib/rustlib/src/rust/library/std'))) {
  throw new Error('modules for several threads need `rustup component add rust-src`; --without-threads does without them');
}
mkdirSync(dist, { recursive: true });
for (const name of Object.keys(SIMD)) rmSync(join(dist, `${name}-threads.wasm`), { force: true });
for (const hasThreads of threads) {
  for (const [name, flags] of Object.entries(SIMD)) build(hasThreads ? `${name}-threads` : name, flags, hasThreads);
}
for (const file of readdirSync(here('src'))) copyFileSync(here(`src/${file}`), join(dist, file));
