// What is done with a hostile file, in Node and in browsers: what a page does with any file.

/** How it ends: `text`, or the status of the first error. `PANIC`, for a trap, comes before all others. */
export async function endOf(Model, bytes, options) {
  const ends = [];
  const run = async (body) => {
    try {
      return await body();
    } catch (error) {
      ends.push(error.status ?? String(error));
      return null;
    }
  };
  const model = await run(() => Model.load(bytes, options));
  if (model !== null) {
    const session = await run(() => model.session({ context: 32, chunk: 8 }));
    if (session !== null) {
      await run(() => session.generate('Once', { maxTokens: 3 }).text());
      await run(() => session.reset());
      await run(() => session.chat([{ role: 'user', content: 'Hello' }], { maxTokens: 2 }).text());
      await run(() => session.reset());
      await run(() => session.evaluate([0, 1]));
      await run(() => session.embed('a dog'));
      await run(async () => session.classify(await model.classifier(['a', 'b']), 'c'));
      await run(async () => session.apply(await model.template('translate'), 'Hello.', { templateTokens: 2 }).text());
      await run(() => session.close());
    }
    await run(async () => model.detokenize(await model.tokenize('Grüße <|endoftext|>')));
    await run(() => model.verify());
    model.close();
  }
  const first = ends[0] ?? 'text';
  return ends.find((end) => end === 'PANIC' || !/^[A-Z_]+$/.test(end)) ?? (model === null ? first : 'text');
}

/** A sound file cut or with a bit changed, in so many ways: the header's bytes first, then some of all others. */
export function* damaged(whole, count) {
  for (let i = 0; i < count; i += 1) {
    if (i % 10 === 9) {
      yield whole.slice(0, Math.floor((whole.length * i) / count));
    } else {
      const copy = whole.slice();
      copy[i < count / 2 ? (i * 13) % 4096 : (i * 2654435761) % whole.length] ^= 1 << i % 8;
      yield copy;
    }
  }
}
