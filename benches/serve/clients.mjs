// The package openai of npm with `cerebellum serve`: node clients.mjs NODE_MODULES URL MODEL EXPECTED

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { argv } from 'node:process';

const [, , packages, baseURL, model, expected] = argv;
const require = createRequire(join(packages, 'x.js'));
const { OpenAI } = require('openai');
const client = new OpenAI({ baseURL, apiKey: 'none' });

const completion = await client.completions.create({ model, prompt: 'Once upon a time', max_tokens: 12 });
assert.equal(completion.choices[0].text, expected);

const asked = { model, messages: [{ role: 'user', content: 'What is the capital of France?' }], max_tokens: 12 };
const answer = (await client.chat.completions.create(asked)).choices[0].message.content;
let streamed = '';
for await (const piece of await client.chat.completions.create({ ...asked, stream: true })) {
  streamed += piece.choices[0]?.delta.content ?? '';
}
assert.equal(streamed, answer);

const response = await client.responses.create({ model, input: asked.messages[0].content, max_output_tokens: 12, store: false });
assert.equal(response.output_text, answer);

const schema = { type: 'object', properties: { ok: { type: 'boolean' } }, required: ['ok'], additionalProperties: false };
const response_format = { type: 'json_schema', json_schema: { name: 'answer', strict: true, schema } };
const parsed = await client.chat.completions.parse({ ...asked, max_tokens: 40, response_format });
assert.equal(typeof JSON.parse(parsed.choices[0].message.content).ok, 'boolean');

const { data } = await client.embeddings.create({ model, input: ['a king', 'the sea'] });
assert.equal(data.length, 2);
await assert.rejects(client.completions.create({ model, prompt: 'x', suffix: 'the end' }), { status: 400, param: 'suffix' });
console.log(JSON.parse(readFileSync(join(packages, 'openai', 'package.json'), 'utf8')).version);
