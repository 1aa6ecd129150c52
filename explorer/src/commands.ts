/**
 * Commands that fetch one tensor outside the page: the CLI, Python, DuckDB, curl, ready to be copied.
 * Ids come from whoever traced the request, so each is quoted for the language it stands in. Pure.
 */
export interface CommandFacts {
  /** Base address of the API. */
  readonly origin: string
  /** Where the exporter keeps tensors; null when that is not known. */
  readonly store: string | null
  readonly authorized: boolean
  readonly traceId: string
  /** As rows have it: another one than the caller's when that was known late. */
  readonly storedTraceId: string
  readonly requestId: string
  readonly producer: string
  readonly hook: string
  /** −1 for hooks without layers. */
  readonly layer: number
}

export interface Command {
  readonly name: string
  readonly what: string
  readonly text: string
}

export function commandsOf(facts: CommandFacts): readonly Command[] {
  return [
    {
      name: 'Command line',
      what: 'writes an .npy file, in a checkout of ring2-exporter',
      text: fetchCommand(facts),
    },
    { name: 'Python', what: 'gives a NumPy array', text: pythonText(facts) },
    {
      name: 'DuckDB',
      what: 'reads the Parquet files themselves; where encoding is not raw, ring2.decode gives the elements',
      text: duckdbText(facts),
    },
    { name: 'curl', what: 'writes an .npy file', text: curlText(facts) },
  ]
}

export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`
}

/** JSON's escapes are Python's, but for lone surrogates, which no id can have come with. */
export function pythonText({
  origin,
  authorized,
  traceId,
  requestId,
  producer,
  hook,
  layer,
}: CommandFacts): string {
  const token = authorized ? ', token=os.environ["RING2_API_TOKEN"]' : ''
  const where = layer < 0 ? '' : `layer=${layer}, `
  return [
    `${authorized ? 'import os\n' : ''}import ring2`,
    '',
    `trace = ring2.open(${JSON.stringify(origin)}${token}).trace(${JSON.stringify(traceId)})`,
    'tensor = trace.tensor(',
    `    ${JSON.stringify(hook)}, ${where}request_id=${JSON.stringify(requestId)},`,
    `    producer=${JSON.stringify(producer)},`,
    ')',
    'values = tensor.numpy()',
  ].join('\n')
}

function fetchCommand({ store, traceId, requestId, producer, hook, layer }: CommandFacts): string {
  const words = ['npx', 'ring2-exporter', 'fetch', traceId, '--hook', hook]
  if (layer >= 0) words.push('--layer', String(layer))
  // An id that begins with a dash would be read as an option.
  words.push(`--request=${requestId}`, `--producer=${producer}`)
  if (store !== null) words.push(`--store=${store}`)
  return words.map(shellWord).join(' ')
}

function curlText(facts: CommandFacts): string {
  const { origin, authorized, traceId, requestId, producer, hook, layer } = facts
  const query = new URLSearchParams({ request_id: requestId, producer, format: 'npy' })
  const place = `${encodeURIComponent(hook)}/${layer < 0 ? 'global' : layer}`
  const address = `${origin}/v1/traces/${traceId}/tensors/${place}?${query}`
  const token = authorized ? ' -H "authorization: Bearer $RING2_API_TOKEN"' : ''
  return `curl -fsS${token} -o ${hook}.npy '${address.replaceAll("'", '%27')}'`
}

function duckdbText({
  store,
  storedTraceId,
  requestId,
  producer,
  hook,
  layer,
}: CommandFacts): string {
  const files = `${(store ?? 'STORE')
    .replace(/^file:\/\//, '')
    .split('?')[0]
    ?.replace(/\/+$/, '')}/tensors/**/*.parquet`
  return [
    'SELECT step, token_start, token_end, dtype, shape, encoding, data',
    `FROM read_parquet(${sqlText(files)}, hive_partitioning = false)`,
    `WHERE trace_id = ${sqlText(storedTraceId)} AND request_id = ${sqlText(requestId)}`,
    `  AND producer = ${sqlText(producer)} AND hook = ${sqlText(hook)} AND layer = ${layer}`,
    'ORDER BY step;',
  ].join('\n')
}

function sqlText(text: string): string {
  return `'${text.replaceAll("'", "''")}'`
}
