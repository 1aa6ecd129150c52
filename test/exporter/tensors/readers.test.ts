/** The readers that others made, by the lines that the documents give, on files of our writer. */
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { DuckDBInstance } from '@duckdb/node-api'
import { expect, test } from 'vitest'
import { answerOf } from '../../../exporter/tensors/tensor-facts.ts'
import { runPython } from './python.ts'
import {
  floats,
  model,
  otherModel,
  otherProducer,
  request,
  row,
  summary,
  traceA,
  traceB,
} from './rows.ts'
import { openFixture, query } from './store-fixture.ts'
import { temporaryFolder } from './temporary-folder.ts'

const document = readFileSync(join(import.meta.dirname, '../../../docs/storage.md'), 'utf8')
const start = document.indexOf('## Reading it')
const reading = document.slice(start, document.indexOf('\n## ', start))
const slug = 'HuggingFaceTB-SmolLM2-135M-Instruct'

function bits(...values: number[]): Uint8Array {
  return new Uint8Array(new Uint16Array(values).buffer)
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

interface Case {
  readonly dtype: string
  readonly steps: readonly [Uint8Array, Uint8Array]
  readonly values: readonly number[]
}

const cases: readonly Case[] = [
  {
    dtype: 'float32',
    steps: [floats(1, -2, 0.5, 3), floats(5, 6, 7, 8)],
    values: [1, -2, 0.5, 3, 5, 6, 7, 8],
  },
  {
    dtype: 'float16',
    steps: [bits(0x3c00, 0xc000, 0x3800, 0x0001), bits(0x7bff, 0, 0x3c00, 0x4200)],
    values: [1, -2, 0.5, 2 ** -24, 65_504, 0, 1, 3],
  },
]
const logits = bits(0x3f80, 0xc000, 0x4049, 0x0080)

/** One request of two steps whose hidden states are as the case says; another model's beside it. */
async function storeOf({ dtype, steps: [first, second] }: Case) {
  const root = temporaryFolder()
  const fixture = openFixture(root)
  const other = request({ requestId: 'request-2' })
  fixture.flush(
    [
      row({ dtype, data: first }),
      row({ dtype, data: second, step: 1, tokenStart: 1, tokenEnd: 2 }),
      row({
        hook: 'final_logits',
        layer: -1,
        dtype: 'bfloat16',
        data: logits,
        statistics: { marginMean: 2.5 },
      }),
      row({ request: other }),
    ],
    [summary()],
  )
  const elsewhere = request({ traceId: traceB, requestId: 'request-3' })
  const strange = { model: otherModel, producer: otherProducer, request: elsewhere }
  fixture.flush([row(strange)], [], otherProducer)
  const opened = await fixture.reader().open(query({ requestId: 'request-1' }))
  const answer = await answerOf(opened, 'arrow')
  const arrow = join(temporaryFolder(), 'tensor.arrow')
  const parts: Uint8Array[] = []
  for await (const part of answer.stream(0, answer.size)) parts.push(part)
  writeFileSync(arrow, Buffer.concat(parts))
  fixture.sink.close()
  fixture.catalog.close()
  return { root, url: pathToFileURL(arrow).href }
}

interface Seen {
  readonly reader: string
  readonly rows: readonly (readonly [string, number, string, string])[]
  readonly models: readonly string[]
  readonly slugs: readonly string[]
  readonly hours: readonly number[]
  readonly margins: readonly number[]
}

/** Runs the document's blocks, one after the other. */
function runBlocks(root: string, url: string) {
  const blocks = [...reading.matchAll(/^```python\n([\s\S]*?)^```/gm)].map(([, text]) => text)
  const snippets = join(temporaryFolder(), 'snippets.json')
  writeFileSync(snippets, JSON.stringify(blocks))
  const script = join(import.meta.dirname, 'read_store.py')
  return JSON.parse(runPython(script, [snippets, root, traceA, 'request-1', url]))
}

/** Of the request, as the documents' lines see them. */
function rowTexts({ dtype, steps }: Case): string[] {
  return [
    `final_logits -1 bfloat16 ${hex(logits)}`,
    `resid_pre 0 float32 ${hex(floats(1, 2, 3, 4))}`,
    ...steps.map((data) => `resid_pre 0 ${dtype} ${hex(data)}`),
  ]
}

async function runSql(sql: string): Promise<Record<string, unknown>[]> {
  const connection = await (await DuckDBInstance.create()).connect()
  try {
    return (await connection.runAndReadAll(sql)).getRowObjectsJson()
  } finally {
    connection.closeSync()
  }
}

/** Lays a file of a version with fewer columns, in another order, beside one of this version. */
async function addOlderFile(root: string, name: string): Promise<void> {
  const folder = join(root, 'tensors')
  const [file] = readdirSync(folder, { recursive: true })
    .map((path) => join(folder, String(path)))
    .filter((path) => path.endsWith('.parquet') && path.includes(slug))
  const columns = 'data, top1_probability_mean, margin_mean, surprisal_mean'
  await runSql(
    `COPY (SELECT * EXCLUDE (${columns}) REPLACE ('older' AS request_id, 'mlp_out' AS hook), data
           FROM read_parquet('${file}', hive_partitioning = false) WHERE step = 1)
     TO '${join(dirname(file ?? ''), name)}' (FORMAT parquet)`,
  )
}

test.each(cases)(
  'DuckDB, PyArrow, pandas and Polars read $dtype and bfloat16',
  async (one) => {
    const { root, url } = await storeOf(one)
    const found = runBlocks(root, url)
    const seen: Seen[] = found.seen
    // DuckDB hands over a pandas frame.
    expect(seen.map(({ reader }) => reader)).toEqual(['pandas', 'pyarrow', 'pandas', 'polars'])
    for (const { reader, rows, models, slugs, hours } of seen) {
      const texts = rows.map((each) => each.join(' ')).sort()
      expect(texts, reader).toEqual(rowTexts(one).sort())
      expect([models, slugs, hours]).toEqual([[model.name], [slug], [5]])
    }
    expect(found.hidden).toEqual([one.dtype, [2, 4], one.values])
    expect(found.array).toEqual([one.dtype, [2, 4], one.values])
    expect(found.logits).toEqual(['float32', [1, 4], [1, -2, 3.140625, 2 ** -126]])
  },
  120_000,
)

test.each(['00-first', 'zz-last'])(
  'the same lines read a store whose file %s is of a version with fewer columns',
  async (name) => {
    const one = cases[0] as Case
    const { root, url } = await storeOf(one)
    await addOlderFile(root, `${name}.parquet`)
    const found = runBlocks(root, url)
    const seen: Seen[] = found.seen
    expect(seen.map(({ reader }) => reader)).toEqual(['pandas', 'pyarrow', 'pandas', 'polars'])
    const older = `mlp_out 0 ${one.dtype} ${hex(one.steps[1])}`
    for (const { reader, rows, slugs, hours, margins } of seen) {
      const texts = rows.map((each) => each.join(' ')).sort()
      expect(texts, reader).toEqual([...rowTexts(one), older].sort())
      expect([slugs, hours, margins]).toEqual([[slug], [5], [2.5]])
    }
    expect(found.hidden).toEqual([one.dtype, [2, 4], one.values])
    const [statement] = [...reading.matchAll(/^```sql\n([\s\S]*?)^```/gm)].map(([, text]) => text)
    const asked = (statement ?? '')
      .replace('STORE', root)
      .replace(/'[0-9a-f]{32}'/, `'${traceA}'`)
      .replace('l2_mean', 'margin_mean')
    expect(await runSql(asked)).toHaveLength(2)
  },
  120_000,
)

const trinoTypes: Readonly<Record<string, string>> = {
  varbinary: 'BYTE_ARRAY',
  varchar: 'BYTE_ARRAY UTF8',
  integer: 'INT32',
  bigint: 'INT64',
  double: 'DOUBLE',
  timestamp: 'INT64 TIMESTAMP_MICROS',
  'array(bigint)': 'LIST of INT64',
}

/** Columns of the statement in the document: name and type, in order. */
function declaredColumns(): [string, string][] {
  const body = /CREATE TABLE hive[^(]*\(([\s\S]*?)\n\) WITH/.exec(reading)?.[1] ?? ''
  return body.split(',').map((text) => {
    const [name = '', type = ''] = text.trim().split(' ')
    return [name.replaceAll('"', ''), type]
  })
}

async function parquetColumns(root: string): Promise<[string, string][]> {
  const found = await runSql(
    `SELECT name, type, converted_type FROM parquet_schema('${root}/tensors/**/*.parquet')
     WHERE file_name = (SELECT min(file_name) FROM parquet_schema('${root}/tensors/**/*.parquet'))`,
  )
  const elements = found.map((one) => ({
    name: String(one.name),
    type: [one.type, one.converted_type].filter((text) => text !== null).join(' '),
  }))
  // After the root; of the list only its name and its element's type count.
  return elements.slice(1).flatMap(({ name, type }, index): [string, string][] => {
    if (name === 'list' || name === 'element') return []
    const list = type === 'LIST' ? `LIST of ${elements[index + 3]?.type}` : type
    return [[name, list]]
  })
}

test('Spark and Trino find the columns and types that the documents declare', async () => {
  const { root } = await storeOf(cases[0] as Case)
  const declared = declaredColumns()
  const partitions = declared.slice(-3)
  expect(partitions.map(([name]) => name)).toEqual(['model_slug', 'date', 'hour'])
  const stored = new Map(await parquetColumns(root))
  const columns = declared.slice(0, -3).map(([name, type]) => [name, trinoTypes[type]])
  expect(columns.sort()).toEqual([...stored].sort())
  expect(partitions.filter(([name]) => stored.has(name))).toEqual([])
})

test('folders are Hive partitions, and below tensors lies nothing but Parquet', async () => {
  const { root } = await storeOf(cases[0] as Case)
  for (const dataset of ['tensors', 'requests']) {
    const names = readdirSync(join(root, dataset), { recursive: true }).map(String)
    const files = names.filter((name) => statSync(join(root, dataset, name)).isFile())
    expect(files.length).toBeGreaterThan(0)
    const hour = dataset === 'tensors' ? '/hour=\\d{2}' : ''
    const form = new RegExp(
      `^model_slug=[A-Za-z0-9._-]+/date=\\d{4}-\\d\\d-\\d\\d${hour}/[A-Za-z0-9._-]+\\.parquet$`,
    )
    expect(files.filter((name) => !form.test(name))).toEqual([])
    for (const name of files) {
      const bytes = readFileSync(join(root, dataset, name))
      expect(bytes.subarray(-4).toString()).toBe('PAR1')
    }
  }
})
