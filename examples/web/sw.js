// Keeps the page for visits without a network. What the network has goes first, so that a new version is seen at once;
// the model's file is kept by bindings/web itself.
//
// And gives the page the headers with which browsers let it have threads, from the second visit on: so any server does.

const CACHE = 'cerebellum-page';
const FILES = [
  './', 'style.css', 'app.js', 'icon.svg',
  // Modules for several threads are kept when they are used; without a network the others will do.
  ...['index.js', 'engine.js', 'host.js', 'worker.js', 'thread.js', 'threads.js', 'simd128.wasm', 'relaxed-simd.wasm']
    .map((name) => `cerebellum/${name}`),
];

addEventListener('install', (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES)).then(() => skipWaiting()));
});
addEventListener('activate', (event) => event.waitUntil(clients.claim()));

/** The same response, for a page of its own: "cross-origin isolated". */
function isolated(response) {
  const headers = new Headers(response.headers);
  headers.set('cross-origin-opener-policy', 'same-origin');
  headers.set('cross-origin-embedder-policy', 'require-corp');
  const { status, statusText } = response;
  return new Response(response.body, { status, statusText, headers });
}

async function answer(request) {
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(request);
    if (response.ok) await cache.put(request, response.clone());
    return isolated(response);
  } catch (error) {
    const kept = await cache.match(request, { ignoreSearch: true });
    if (kept) return isolated(kept);
    throw error;
  }
}

addEventListener('fetch', (event) => {
  const { request } = event;
  const ours = new URL(request.url).origin === location.origin;
  if (request.method === 'GET' && ours && !request.url.endsWith('.cbl')) event.respondWith(answer(request));
});
