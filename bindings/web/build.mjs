// npm run build [-- OPTIONS]: compiles the two modules and puts the package together in dist/.
//
//     --with-constraints   with choices, regular expressions and JSON schemas for generated texts
//     --without-text       token ids only
//     --dist DIRECTORY     in place of dist/
//
// docs/web.md says how large they become.

import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { argv } from 'node:process';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const LINK = ['--export-table', '--growable-table'];
const BUILDS = {
  simd128: ['-Ctarget-feature=+simd128'],
  'relaxed-simd': ['-Ctarget-feature=+simd128,+relaxed-simd', '-Cno-vectorize-loops', '-Cno-vectorize-slp'],
};

let [dist, features] = [here('dist'), ['capi', 'text']];
for (let i = 2; i < argv.length; i += 1) {
  if (argv[i] === '--with-constraints') {
    features.push('constraints');
    // What compiles a schema calls itself along it, and asks that 2 MiB of the stack are left (src/threads/deep.rs).
    LINK.push('-zstack-size=3145728');
  } else if (argv[i] === '--without-text') {
    features = ['capi'];
  } else if (argv[i] === '--dist' && i + 1 < argv.length) {
    dist = resolve(argv[i += 1]);
  } else {
    throw new Error(`unknown option ${argv[i]}; there are --with-constraints, --without-text and --dist DIRECTORY`);
  }
}

mkdirSync(dist, { recursive: true });
for (const [name, flags] of Object.entries(BUILDS)) {
  const target = here(`../../target/web/${name}`);
  execFileSync('cargo', [
    'rustc', '--locked', '--profile', 'device', '--target', 'wasm32-unknown-unknown', '--package', 'cerebellum', '--lib',
    '--crate-type', 'cdylib', '--no-default-features', '--features', ['std', ...features].join(','),
  ], {
    cwd: here('../..'),
    stdio: 'inherit',
    env: { ...process.env, CARGO_TARGET_DIR: target, RUSTFLAGS: [...flags, ...LINK.map((option) => `-Clink-arg=${option}`)].join(' ') },
  });
  const module = `${target}/wasm32-unknown-unknown/device/cerebellum.wasm`;
  copyFileSync(module, join(dist, `${name}.wasm`));
  const bytes = readFileSync(module);
  console.log(`${name}.wasm: ${bytes.length} bytes, ${gzipSync(bytes, { level: 9 }).length} compressed`);
}
for (const file of readdirSync(here('src'))) copyFileSync(here(`src/${file}`), join(dist, file));
