// npm run build: compiles the two modules and puts the package together in dist/.

import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const LINK = ['--export-table', '--growable-table'].map((option) => `-Clink-arg=${option}`);
const BUILDS = {
  simd128: ['-Ctarget-feature=+simd128'],
  'relaxed-simd': ['-Ctarget-feature=+simd128,+relaxed-simd', '-Cno-vectorize-loops', '-Cno-vectorize-slp'],
};

mkdirSync(here('dist'), { recursive: true });
for (const [name, flags] of Object.entries(BUILDS)) {
  const target = here(`../../target/web/${name}`);
  execFileSync('cargo', [
    'rustc', '--locked', '--profile', 'device', '--target', 'wasm32-unknown-unknown', '--package', 'cerebellum', '--lib',
    '--crate-type', 'cdylib', '--no-default-features', '--features', 'capi,text',
  ], {
    cwd: here('../..'),
    stdio: 'inherit',
    env: { ...process.env, CARGO_TARGET_DIR: target, RUSTFLAGS: [...flags, ...LINK].join(' ') },
  });
  const module = `${target}/wasm32-unknown-unknown/device/cerebellum.wasm`;
  copyFileSync(module, here(`dist/${name}.wasm`));
  const bytes = readFileSync(module);
  console.log(`${name}.wasm: ${bytes.length} bytes, ${gzipSync(bytes, { level: 9 }).length} compressed`);
}
for (const file of readdirSync(here('src'))) copyFileSync(here(`src/${file}`), here(`dist/${file}`));
