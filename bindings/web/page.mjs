// npm run page [-- DIRECTORY]: the page of examples/web with the package and the demo model, ready to be served.

import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, rmSync } from 'node:fs';
import { resolve } from 'node:path';
import { argv, execPath } from 'node:process';
import { fileURLToPath } from 'node:url';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const site = resolve(argv[2] ?? here('../../target/web/site'));

execFileSync(execPath, [here('build.mjs')], { stdio: 'inherit' });
rmSync(site, { recursive: true, force: true });
mkdirSync(site, { recursive: true });
cpSync(here('../../examples/web'), site, { recursive: true });
cpSync(here('dist'), `${site}/cerebellum`, { recursive: true });
const quantize = (...args) => execFileSync('cargo', [
  'run', '--quiet', '--locked', '--profile', 'demo', '--package', 'cerebellum-tools', '--no-default-features', '--bin', 'cerebellum', '--',
  'quantize', 'tools/demo', '--no-calibration', '--weights', 'int4', '--force', '--quiet', ...args,
], { cwd: here('../..'), stdio: 'inherit' });
quantize('--output', `${site}/demo.cbl`);
// The test's model that chats.
const models = here('../../target/web/models');
mkdirSync(models, { recursive: true });
quantize('--output', `${models}/demo-chat.cbl`, '--chat-template', here('test/chat.jinja'));
console.log(`${site}: serve it by anything, for example\n    python3 -m http.server --directory ${site}`);
