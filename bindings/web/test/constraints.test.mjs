// Texts with a required form, in modules that were built --with-constraints (`.ci/web constraints`): they are those of
// the native program, byte for byte. CEREBELLUM is that program.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { env } from 'node:process';
import test from 'node:test';
import { fileURLToPath } from 'node:url';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const { CerebellumError, Model, hasRelaxedSimd } = await import(here('../../../target/web/constraints/index.js'));
const file = here('../../../target/web/models/demo-int8.cbl');
const program = env.CEREBELLUM ?? here('../../../target/debug/cerebellum');

const SCHEMA = {
  type: 'object',
  properties: {
    name: { type: 'string', maxLength: 20 },
    age: { type: 'integer', minimum: 1, maximum: 120 },
    friends: { type: 'array', items: { enum: ['Tom', 'Lily', 'Ben'] }, maxItems: 3 },
  },
  required: ['name', 'age', 'friends'],
  additionalProperties: false,
};
const schema = here('../../../target/web/models/schema.json');
writeFileSync(schema, JSON.stringify(SCHEMA));
const PROMPT = 'Once upon a time, there was a little girl:';

function native(...args) {
  const { text } = JSON.parse(execFileSync(program, [
    'generate', '--json', '--quiet', '-m', file, '-p', PROMPT, '-n', '120', ...args,
  ], { encoding: 'utf8' }));
  return text;
}

for (const [isa, threads] of ['simd128', ...(hasRelaxedSimd() ? ['relaxed-simd'] : [])].flatMap((isa) => [[isa, 1], [isa, 2]])) {
  const name = `${isa}, ${threads === 1 ? 'one thread' : `${threads} threads`}`;
  test(`${name}: texts have their form, and are the native ones`, async () => {
    const model = await Model.load(readFileSync(file), { worker: false, isa, threads: threads > 1 });
    assert.equal(model.hasConstraints, true);
    const session = await model.session({ context: 256, threads });
    assert.equal((await session.stats()).threads, threads);
    const text = async (options) => {
      await session.reset();
      const stream = session.generate(PROMPT, { maxTokens: 120, ...options });
      return [await stream.text(), stream.stopReason];
    };

    for (const seed of [0, 1, 2]) {
      const sampling = { temperature: seed === 0 ? 0 : 1, seed };
      const [json, reason] = await text({ jsonSchema: SCHEMA, ...sampling });
      assert.equal(json, native('--json-schema', schema, '--temperature', `${sampling.temperature}`, '--seed', `${seed}`));
      assert.equal(reason, 'complete');
      const { name, age, friends, ...rest } = JSON.parse(json);
      assert.ok(typeof name === 'string' && age >= 1 && age <= 120 && friends.every((friend) => ['Tom', 'Lily', 'Ben'].includes(friend)));
      assert.deepEqual(rest, {});
      console.log(`${name}: ${json}`);
    }
    assert.deepEqual(await text({ jsonSchema: JSON.stringify(SCHEMA) }), await text({ jsonSchema: SCHEMA }));

    const [time] = await text({ regex: '[0-9]{1,2}:[0-9]{2}' });
    assert.equal(time, native('--regex', '[0-9]{1,2}:[0-9]{2}'));
    assert.match(time, /^ ?[0-9]{1,2}:[0-9]{2}$/);
    const [choice, reason] = await text({ choices: ['a red ball', 'a small dog'] });
    assert.equal(choice, native('--choices', 'a red ball,a small dog'));
    assert.match(choice, /^ ?a (red ball|small dog)$/);
    assert.equal(reason, 'complete');
    assert.deepEqual((await text({ jsonSchema: SCHEMA, maxTokens: 3 }))[1], 'incomplete');
  });

  test(`${name}: forms that make no sense are errors`, async () => {
    const model = await Model.load(readFileSync(file), { worker: false, isa, threads: threads > 1 });
    const session = await model.session({ context: 256, threads });
    const nested = (depth) => '{"type":"array","items":'.repeat(depth) + '{}' + '}'.repeat(depth);
    const refused = [
      { jsonSchema: '{' }, { jsonSchema: { type: 'nonsense' } }, { jsonSchema: nested(5000) },
      { jsonSchema: { type: 'integer', minimum: 2 ** 60 } }, { regex: '(' }, { regex: '('.repeat(20000) }, { regex: 'a(?=b)' },
      { choices: [] }, { choices: 'yes' }, { choices: ['two\nlines'] },
    ];
    for (const options of refused) {
      const failed = (error) => error instanceof CerebellumError && error.status === 'BAD_OPTION';
      await assert.rejects(session.generate('x', { maxTokens: 2, ...options }).text(), failed, JSON.stringify(options).slice(0, 80));
      await session.reset();
    }
    // As deep as JSON may be.
    await session.generate('x', { maxTokens: 2, jsonSchema: nested(60) }).text();
    assert.equal((await session.generate('x', { maxTokens: 2 }).text()).length > 0, true);
  });
}
