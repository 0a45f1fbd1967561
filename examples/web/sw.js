// Keeps the page for visits without a network. What the network has goes first, so that a new version is seen at once;
// the model's file is kept by bindings/web itself.

const CACHE = 'cerebellum-page';
const FILES = [
  './', 'style.css', 'app.js', 'icon.svg',
  ...['index.js', 'engine.js', 'host.js', 'worker.js', 'simd128.wasm', 'relaxed-simd.wasm'].map((name) => `cerebellum/${name}`),
];

addEventListener('install', (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES)).then(() => skipWaiting()));
});
addEventListener('activate', (event) => event.waitUntil(clients.claim()));

async function answer(request) {
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(request);
    if (response.ok) await cache.put(request, response.clone());
    return response;
  } catch (error) {
    const kept = await cache.match(request, { ignoreSearch: true });
    if (kept) return kept;
    throw error;
  }
}

addEventListener('fetch', (event) => {
  const { request } = event;
  const ours = new URL(request.url).origin === location.origin;
  if (request.method === 'GET' && ours && !request.url.endsWith('.cbl')) event.respondWith(answer(request));
});
