/**
 * The bridge with shards, several models, clients that are killed, and a ClickHouse that stands still or
 * dies: what the exporter gives of it, and that whoever inserts is never told.
 */
import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import {
  createWorkspace,
  type Exporter,
  get,
  killAll,
  startExporter,
} from '../pipeline/processes.ts'
import { createBridges, type Row, runScript, wait } from './dmi/bridge.ts'

const workspace = createWorkspace()
const bridges = createBridges(workspace)
let exporter: Exporter

beforeAll(async () => {
  exporter = await startExporter(workspace)
})

afterAll(() => {
  bridges.killAll()
  killAll()
  workspace.remove()
})

type Facts = readonly [act: string, layer: number, shard: number, start: number, end: number]

/** Rows of float32 numbers that follow each other, in a folder of their own. */
function rowsOf(
  name: string,
  [model, request]: readonly [string, string],
  all: readonly (readonly [Facts, readonly number[]])[],
) {
  const folder = join(workspace.root, name)
  mkdirSync(folder)
  let next = 0
  const values = all.map(([, shape]) => {
    const elements = shape.reduce((product, size) => product * size, 1)
    return Float32Array.from({ length: elements }, () => next++)
  })
  const rows = all.map(([facts, shape], index): Row => {
    writeFileSync(join(folder, `${index}.bin`), values[index] ?? new Float32Array())
    return [model, request, ...facts, 'torch.float', shape, `${index}.bin`]
  })
  writeFileSync(join(folder, 'rows.json'), JSON.stringify(rows))
  return { folder, values }
}

function send(folder: string, port: number): unknown {
  const words = ['--client', 'raw', '--connections', '2', '--batch', '3']
  return JSON.parse(runScript('feed.py', [folder, String(port), ...words]))
}

interface TraceView {
  readonly requests: readonly {
    readonly model: string
    readonly completeness: string
    readonly details: { readonly completeness: { readonly reasons: readonly string[] } }
  }[]
}

async function ended(trace: string, state: string) {
  return await vi.waitFor(async () => {
    const view = (await get(`${exporter.url}/v1/traces/${trace}`)).json<TraceView>()
    expect(view.requests.map((one) => one.completeness)).toEqual([state])
    return view.requests[0]
  }, wait)
}

async function fetched(trace: string, hook: string, query = '') {
  const path = `/v1/traces/${trace}/tensors/${hook}/0?format=safetensors${query}`
  const answer = await get(`${exporter.url}${path}`)
  expect(answer.status, Buffer.from(answer.bytes).toString().slice(0, 300)).toBe(200)
  const bytes = Buffer.from(answer.bytes)
  const start = 8 + Number(bytes.readBigUInt64LE(0))
  return [
    ...new Float32Array(
      bytes.buffer.slice(bytes.byteOffset + start, bytes.byteOffset + bytes.length),
    ),
  ]
}

const trace = (digit: number): string => digit.toString(16).padStart(32, 'a')
const span = '00f067aa0ba902b7'
const q = 'blocks.attn.hook_q'
const hidden = 'blocks.hook_resid_pre'

test('shards of two tensor-parallel ranks are one tensor when fetched, and a missing one is told', async () => {
  const bridge = await bridges.start('dmi-shards')
  // Three tokens, then one: two heads of two numbers from each rank.
  const whole = rowsOf(
    'shards',
    ['sharded', `${trace(1)}-${span}`],
    [
      [
        [q, 0, 0, 0, 3],
        [3, 2, 2],
      ],
      [
        [q, 0, 1, 0, 3],
        [3, 2, 2],
      ],
      [
        [hidden, 0, 0, 0, 3],
        [3, 4],
      ],
      [
        [q, 0, 1, 3, 4],
        [1, 2, 2],
      ],
      [
        [q, 0, 0, 3, 4],
        [1, 2, 2],
      ],
      [
        [hidden, 0, 0, 3, 4],
        [1, 4],
      ],
    ],
  )
  const part = rowsOf(
    'part',
    ['sharded', `${trace(2)}-${span}`],
    [
      [
        [q, 0, 0, 0, 3],
        [3, 2, 2],
      ],
      [
        [hidden, 0, 0, 0, 3],
        [3, 4],
      ],
    ],
  )
  send(whole.folder, bridge.port)
  send(part.folder, bridge.port)
  expect(await bridge.stop()).toMatchObject({ rows_written: 8, requests: 2, steps: 3 })
  await ended(trace(1), 'complete')
  const [prompt0, prompt1, , next1, next0] = whole.values.map((one) => [...one])
  const beside = (left: number[] = [], right: number[] = []): number[] =>
    Array.from({ length: left.length / 4 }, (_, token) => token * 4).flatMap((at) => [
      ...left.slice(at, at + 4),
      ...right.slice(at, at + 4),
    ])
  expect(await fetched(trace(1), 'q')).toEqual([
    ...beside(prompt0, prompt1),
    ...beside(next0, next1),
  ])
  expect(await fetched(trace(1), 'q', '&rank=1')).toEqual([...(prompt1 ?? []), ...(next1 ?? [])])
  const incomplete = await ended(trace(2), 'incomplete')
  expect(incomplete?.details.completeness.reasons).toContain('q: 1 of 2 records missing')
  const refused = await get(`${exporter.url}/v1/traces/${trace(2)}/tensors/q/0?format=safetensors`)
  expect(refused.status).toBe(409)
})

test('models that share a bridge are told apart', async () => {
  const bridge = await bridges.start('dmi-models')
  for (const digit of [3, 4]) {
    const request = `${trace(digit)}-${span}`
    const rows: readonly (readonly [Facts, readonly number[]])[] = [
      [
        [hidden, 0, 0, 0, 2],
        [2, digit],
      ],
    ]
    send(rowsOf(`model-${digit}`, [`model-${digit}`, request], rows).folder, bridge.port)
  }
  expect(await bridge.stop()).toMatchObject({ rows_written: 2, requests: 2 })
  for (const digit of [3, 4]) {
    expect(await ended(trace(digit), 'complete')).toMatchObject({ model: `model-${digit}` })
    expect(await fetched(trace(digit), 'resid_pre')).toHaveLength(2 * digit)
  }
})

test('a client that is killed in the middle of a payload costs its row alone', async () => {
  const bridge = await bridges.start('dmi-killed')
  const broken = rowsOf(
    'broken',
    ['killed', `${trace(5)}-${span}`],
    [
      [
        [hidden, 0, 0, 0, 2],
        [2, 8],
      ],
      [
        [hidden, 1, 0, 0, 2],
        [2, 4096],
      ],
    ],
  )
  const { child: client } = await bridges.startScript('stop_in_mid_block.py', [
    broken.folder,
    String(bridge.port),
  ])
  // Others go on while it stands still.
  const others = rowsOf(
    'others',
    ['killed', `${trace(6)}-${span}`],
    [
      [
        [hidden, 0, 0, 0, 2],
        [2, 8],
      ],
    ],
  )
  expect(send(others.folder, bridge.port)).toEqual({ sent: 1 })
  const gone = once(client, 'exit')
  client.kill('SIGKILL')
  await gone
  const counts = await bridge.stop()
  expect(counts).toMatchObject({ rows: 3, rows_written: 2, rows_aborted: 1, requests: 2 })
  // Behind the place that was given up, too.
  await vi.waitFor(async () => {
    for (const number of [5, 6]) {
      expect((await get(`${exporter.url}/v1/traces/${trace(number)}`)).status).toBe(200)
    }
  }, wait)
  expect(await fetched(trace(5), 'resid_pre')).toEqual([...(broken.values[0] ?? [])])
  expect(await fetched(trace(6), 'resid_pre')).toEqual([...(others.values[0] ?? [])])
})

test.each([
  ['stalls', 7, 0],
  ['dies', 8, 0],
  ['refuses', 9, 2],
  ['raves', 10, 0],
])(
  'a ClickHouse that %s in an INSERT is cut off, and every row is taken',
  async (how, digit, withheld) => {
    const { line: port } = await bridges.startScript('fake_clickhouse.py', [how])
    const tee = ['--tee', `127.0.0.1:${port}`, '--tee-wait-ms', '500', '--tee-buffer-mb', '1']
    const bridge = await bridges.start(`dmi-${how}`, tee)
    const facts = Array.from({ length: 12 }, (_, layer) => {
      return [[hidden, layer, 0, 0, 2] as const, [2, 131072]] as const
    })
    const rows = rowsOf(how, ['teed', `${trace(digit)}-${span}`], facts)
    expect(send(rows.folder, bridge.port)).toEqual({ sent: 12 })
    // The connection that made the table was served to its end.
    const counts = await bridge.stop()
    expect(counts).toMatchObject({
      ...{ rows: 12, rows_written: 12, connections: 3 },
      ...{ tees_cut: 2, answers_withheld: withheld },
    })
    await ended(trace(digit), 'complete')
    const whole = await fetched(trace(digit), 'resid_pre')
    expect(whole.every((value, index) => value === index)).toBe(true)
  },
)
