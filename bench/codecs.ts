/**
 * Codecs on activations of a real model: ratio and error for each hook and element type, and speed
 * against zstd of the raw bytes and against what STRAP-LLM does (float16, then lz4 or zstd).
 *
 *   node bench/codecs.ts                      {"results": […]}
 *   node bench/codecs.ts --table FILE         besides, the tables of docs/codecs.md, in place
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { constants, zstdCompressSync } from 'node:zlib'
import {
  createFoldBook,
  createSlices,
  createVerdicts,
  hooks,
  noBaselines,
  openDrain,
  planCapture,
  type TensorRow,
  type TensorSink,
} from '../collector/index.ts'
import { decodePayload } from '../exporter/codecs/codec.ts'
import { createRowEncoder, type RowEncoder } from '../exporter/codecs/encode.ts'
import { planCodecs } from '../exporter/codecs/plan.ts'
import { comparePairs, type Result, round } from './pairs.ts'

const MIB = 1024 * 1024
const python = process.env.RING2_PYTHON ?? join(import.meta.dirname, '..', '.venv/bin/python')
const program = join(import.meta.dirname, 'codecs_capture.py')
const types = ['float32', 'float16', 'bfloat16'] as const
const pairs = 5
/** Elements that share a scale. */
const block = 64
/** Rows of one decode step are small; speed is measured on prefills, the bulk of the bytes. */
const speedBytesMax = 16 * MIB

interface Figures {
  readonly hook: string
  readonly dtype: string
  readonly bytes: number
  readonly zstdRaw: number
  readonly lossless: number
  readonly bounded: number
  /** Largest error over the largest magnitude of its block. */
  readonly error: number
}

/** The rows that the model's run gave, copied out of the ring. */
function captureRows(dtype: string): TensorRow[] {
  const directory = mkdtempSync('/dev/shm/ring2-bench-')
  try {
    const segment = `codecs-${dtype}`
    const model = process.env.RING2_MODEL_DIR ?? ''
    const args = [program, 'capture', model, dtype, directory, segment]
    const { status } = spawnSync(python, args, { stdio: ['ignore', 'ignore', 'inherit'] })
    if (status !== 0) throw new Error(`the capture in ${dtype} failed with status ${status}`)
    return drainRows(join(directory, `ring2.${segment}`), directory)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

function drainRows(path: string, stateDirectory: string): TensorRow[] {
  const rows: TensorRow[] = []
  const sink: TensorSink = {
    append: (row) => void rows.push({ ...row, data: row.data.slice() }),
    finish: () => undefined,
    pending: () => ({ rows: 0, bytes: 0, summaries: 0 }),
    prepare: () => ({ status: 'success', value: [] }),
    publish: () => ({ status: 'success', value: undefined }),
    discardExcept: () => ({ status: 'success', value: undefined }),
  }
  const drain = openDrain({
    path,
    host: 'bench',
    plan: planCapture({ stats: ['all'], tensors: ['all'] }),
    sink,
    verdicts: createVerdicts({ rules: ['all'], statistics: [], book: noBaselines }),
    folds: createFoldBook(),
    groups: 0,
    slices: createSlices(4096),
    batchBytes: 64 * MIB,
    stateDirectory,
    fsync: false,
    flushMillis: 1e9,
    flushBytes: 2 ** 40,
    requestsMax: 16,
    requestIdleMicros: 1e12,
    onEnd: () => undefined,
    onEvent: () => undefined,
  })
  while (!drain.turn().finished) {
    // Takes batch after batch; the last turn gives the segment back.
  }
  return rows
}

function floatsOf(dtype: string, bytes: Uint8Array): Float32Array {
  const { buffer, byteOffset, byteLength } = bytes
  if (dtype === 'float32') return new Float32Array(buffer, byteOffset, byteLength / 4)
  if (dtype === 'float16') {
    return Float32Array.from(new Float16Array(buffer, byteOffset, byteLength / 2))
  }
  const words = Uint32Array.from(
    new Uint16Array(buffer, byteOffset, byteLength / 2),
    (bits) => bits << 16,
  )
  return new Float32Array(words.buffer)
}

/** Largest |x − x′| over the largest finite |x| of its block; blocks end with their row. */
function worstError(row: TensorRow, decoded: Uint8Array): number {
  const before = floatsOf(row.dtype, row.data)
  const after = floatsOf(row.dtype, decoded)
  const width = row.shape.at(-1) ?? before.length
  let worst = 0
  for (let start = 0; start < before.length; start += width) {
    for (let at = start; at < start + width; at += block) {
      const end = Math.min(at + block, start + width)
      let most = 0
      let error = 0
      for (let index = at; index < end; index += 1) {
        const value = before[index] ?? Number.NaN
        if (!Number.isFinite(value)) continue
        most = Math.max(most, Math.abs(value))
        error = Math.max(error, Math.abs(value - (after[index] ?? Number.NaN)))
      }
      if (error > 0) worst = Math.max(worst, error / most)
    }
  }
  return worst
}

const zstd1 = { params: { [constants.ZSTD_c_compressionLevel]: 1 }, chunkSize: MIB }

function measureHook(hook: string, dtype: string, rows: readonly TensorRow[]): Figures {
  const encoders = ['lossless', 'absmax'].map((codec) =>
    createRowEncoder(planCodecs([`all=${codec}`])),
  )
  const sums = { bytes: 0, zstd: 0, lossless: 0, bounded: 0, error: 0 }
  for (const row of rows) {
    const [lossless, bounded] = encoders.map((encode) => encode(row))
    if (lossless === undefined || bounded === undefined) throw new Error('no encoder')
    const facts = { dtype: row.dtype, data_bytes: row.data.byteLength }
    const decoded = decodePayload(bounded.encoding ?? 'raw', bounded.data, facts)
    sums.bytes += row.data.byteLength
    sums.zstd += Math.min(row.data.byteLength, zstdCompressSync(row.data, zstd1).byteLength)
    sums.lossless += lossless.data.byteLength
    sums.bounded += bounded.data.byteLength
    if (/float/.test(row.dtype)) sums.error = Math.max(sums.error, worstError(row, decoded))
  }
  return {
    hook,
    dtype,
    bytes: sums.bytes,
    zstdRaw: sums.bytes / sums.zstd,
    lossless: sums.bytes / sums.lossless,
    bounded: sums.bytes / sums.bounded,
    error: sums.error,
  }
}

function measureRatios(rows: readonly TensorRow[]): Figures[] {
  const byHook = Map.groupBy(rows, ({ hook, dtype }) => `${hook} ${dtype}`)
  const order = hooks.map(({ name }) => name)
  return [...byHook.values()]
    .map((group) => measureHook(group[0]?.hook ?? '', group[0]?.dtype ?? '', group))
    .toSorted((left, right) => order.indexOf(left.hook) - order.indexOf(right.hook))
}

/** Answers of the peer process, one line for each question. */
function openPeer(file: string) {
  const child: ChildProcess = spawn(python, [program, 'peer', file], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const { stdin, stdout } = child
  if (stdin === null || stdout === null) throw new Error('the peer has no pipes')
  const lines = createInterface({ input: stdout })[Symbol.asyncIterator]()
  return {
    async ask(codec: string): Promise<number> {
      stdin.write(`${codec}\n`)
      const { value } = await lines.next()
      return Number(String(value).split(' ')[0])
    },
    close: () => stdin.end(),
  }
}

async function measureSpeed(rows: readonly TensorRow[]): Promise<Result[]> {
  const some: TensorRow[] = []
  let bytes = 0
  for (const row of rows) {
    if (row.dtype !== 'float32' || row.phase !== 'prefill' || row.hook === 'final_logits') continue
    if (bytes + row.data.byteLength > speedBytesMax) break
    some.push(row)
    bytes += row.data.byteLength
  }
  const folder = mkdtempSync('/tmp/ring2-bench-')
  const file = join(folder, 'elements')
  writeFileSync(file, Buffer.concat(some.map(({ data }) => data)))
  const peer = openPeer(file)
  const rate = (act: () => void) => {
    const start = performance.now()
    act()
    return bytes / ((performance.now() - start) / 1000) / 1e9
  }
  const encodeAll = (encode: RowEncoder) => rate(() => void some.map(encode))
  const bounded = createRowEncoder(planCodecs(['all=absmax']))
  const lossless = createRowEncoder(planCodecs(['all=lossless']))
  const raw = () => rate(() => void some.map(({ data }) => zstdCompressSync(data, zstd1)))
  const encoded = { absmax: some.map(bounded), lossless: some.map(lossless) }
  const decodeAll = (of: readonly TensorRow[]) =>
    rate(() => {
      for (const [index, { encoding, data, dtype }] of of.entries()) {
        const facts = { dtype, data_bytes: some[index]?.data.byteLength ?? 0 }
        decodePayload(encoding ?? 'raw', data, facts)
      }
    })
  const packed = some.map(({ data }) => zstdCompressSync(data, zstd1))
  const { zstdDecompressSync } = await import('node:zlib')
  const unpackAll = () =>
    rate(() => void packed.map((one) => zstdDecompressSync(one, { chunkSize: MIB })))
  const compare = (
    name: string,
    vs: string,
    ours: () => number,
    theirs: () => number | Promise<number>,
  ) => comparePairs({ name, unit: 'GB/s', vs, ours, theirs, pairs })
  const results = [
    await compare('absmax, encode', 'zstd-1 of the raw bytes', () => encodeAll(bounded), raw),
    await compare(
      'absmax, encode',
      'float16 and lz4',
      () => encodeAll(bounded),
      () => peer.ask('lz4'),
    ),
    await compare(
      'absmax, encode',
      'float16 and zstd-3',
      () => encodeAll(bounded),
      () => peer.ask('zstd'),
    ),
    await compare('lossless, encode', 'zstd-1 of the raw bytes', () => encodeAll(lossless), raw),
    await compare(
      'absmax, decode',
      'zstd-1 of the raw bytes',
      () => decodeAll(encoded.absmax),
      unpackAll,
    ),
    await compare(
      'lossless, decode',
      'zstd-1 of the raw bytes',
      () => decodeAll(encoded.lossless),
      unpackAll,
    ),
  ]
  peer.close()
  rmSync(folder, { recursive: true })
  return results
}

const BEGIN = '<!-- Generated by `node bench/codecs.ts --table docs/codecs.md`; do not edit. -->'
const END = '<!-- End of what is generated. -->'

function table(figures: readonly Figures[]): string {
  const cell = (value: number) => value.toFixed(2)
  const head = '| hook | element | MiB | zstd-1 of raw | `lossless` | `absmax` | largest error |'
  const rows = figures.map((one) => {
    const error = one.error === 0 ? '0' : one.error.toExponential(2)
    const facts = [one.hook, one.dtype, (one.bytes / MIB).toFixed(1), cell(one.zstdRaw)]
    return `| ${[...facts, cell(one.lossless), cell(one.bounded), error].join(' | ')} |`
  })
  return [head, '|---|---|---|---|---|---|---|', ...rows].join('\n')
}

function writeTable(path: string, figures: readonly Figures[]): void {
  const text = readFileSync(path, 'utf8')
  const [before, rest = ''] = text.split(BEGIN)
  const after = rest.split(END)[1] ?? ''
  writeFileSync(path, `${before}${BEGIN}\n\n${table(figures)}\n\n${END}${after}`)
}

function ratioResults(figures: readonly Figures[]): Result[] {
  return figures
    .filter(({ dtype }) => /float/.test(dtype))
    .map((one) => ({
      name: `absmax, ${one.hook}, ${one.dtype}: ratio`,
      unit: '×',
      ours: round(one.bounded),
      peers: { 'zstd-1 of the raw bytes': round(one.zstdRaw), lossless: round(one.lossless) },
      ratio: null,
    }))
}

const { values } = parseArgs({ options: { table: { type: 'string' } } })
const figures: Figures[] = []
const speed: Result[] = []
for (const dtype of types) {
  const rows = captureRows(dtype)
  figures.push(...measureRatios(rows))
  if (values.table !== undefined) writeTable(values.table, figures)
  if (dtype === 'float32') speed.push(...(await measureSpeed(rows)))
}
process.stdout.write(`${JSON.stringify({ results: [...speed, ...ratioResults(figures)] })}\n`)
