/**
 * The page at `/` where the explorer is not built: what builds it, and what the routes are.
 */

const routes: readonly (readonly [string, string])[] = [
  ['/v1/traces', 'requests kept, newest first; q, since, model, verdict, limit, cursor'],
  ['/v1/traces/{trace_id}', 'requests, token ranges, tensors kept, statistics, completeness'],
  ['/v1/traces/{trace_id}/tensors', 'every stored row; hook, layer, request_id, producer'],
  [
    '/v1/traces/{trace_id}/tensors/{hook}/{layer}',
    'one tensor stitched over steps; request_id, producer, tokens=a:b, heads, rank, ' +
      'format=npy|safetensors|json, require=complete',
  ],
  ['/v1/traces/{trace_id}/tokens', 'tokens with entropy and surprisal; start, limit'],
  ['/v1/traces/{trace_id}/tokens/{position}/alternatives', 'the most probable tokens; k'],
  ['/v1/traces/{trace_id}/views/norms', 'norms by layer and token; hook, tokens, columns'],
  ['/v1/traces/{trace_id}/views/pattern/{layer}', 'attention; head, queries, keys, size'],
  ['/v1/store', 'where the tensors are kept'],
  ['/v1/rings', 'live segments'],
  ['/metrics', 'OpenMetrics'],
  ['/healthz', 'whether the process works'],
  ['/readyz', 'whether it takes data'],
  ['/openapi.json', 'all of this for machines'],
]

const style =
  'body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}' +
  'td{padding:.2rem 1rem .2rem 0;vertical-align:top}code{font-size:.9em}' +
  '@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}a{color:#8bf}}'

export function pageOf(version: string, baseUrl: string): string {
  const rows = routes.map(([path, text]) => `<tr><td>${linkOf(path)}</td><td>${text}</td></tr>`)
  return `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>ring2-exporter</title><style>${style}</style></head>
<body>
<h1>ring2-exporter ${escapeHtml(version)}</h1>
<p>Tensors of a running model, kept by trace id. A tensor can reveal its prompt: treat these
answers like the prompts themselves.</p>
<p>The explorer is not built: <code>npm run setup</code> in the checkout builds it; then start again.</p>
<table>${rows.join('\n')}</table>
<p>Example:
<code>curl -O -J '${escapeHtml(baseUrl)}/v1/traces/TRACE_ID/tensors/resid_pre/0'</code></p>
</body>
</html>
`
}

function linkOf(path: string): string {
  if (path.includes('{')) return `<code>${escapeHtml(path)}</code>`
  return `<a href="${path}"><code>${escapeHtml(path)}</code></a>`
}

function escapeHtml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;')
}
