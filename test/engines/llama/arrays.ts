/** Tensors of one request that has ended, as the exporter's API gives them. */
import { expect, vi } from 'vitest'
import { type Exporter, get } from '../../pipeline/processes.ts'

const wait = { timeout: 30_000, interval: 200 }

export interface Kept {
  readonly request_id: string
  readonly completeness: string
  readonly tokens: number
  readonly steps: number
}

/** The request of a trace, once it has ended. */
export function keptOf(exporter: Exporter, trace: string): Promise<Kept> {
  return vi.waitFor(async () => {
    const answer = await get(`${exporter.url}/v1/traces/${trace}`)
    expect(answer.status).toBe(200)
    const { requests } = answer.json<{ requests: (Kept & { ended_at: string | null })[] }>()
    expect(requests).toHaveLength(1)
    const [request] = requests
    if (request === undefined) throw new Error('no request')
    expect(request.ended_at).toEqual(expect.any(String))
    expect(request.completeness).not.toBe('unknown')
    return request
  }, wait)
}

export interface Matrix {
  readonly shape: readonly number[]
  readonly rows: readonly (readonly number[])[]
}

/** The stitched tensor of a request: rows of float32, or of int32 where its dtype says so. */
export async function matrixOf(
  exporter: Exporter,
  trace: string,
  hook: string,
  layer: number,
): Promise<Matrix> {
  await keptOf(exporter, trace)
  const found = await vi.waitFor(async () => {
    const url = `${exporter.url}/v1/traces/${trace}/tensors/${hook}/${layer}?format=npy`
    const answer = await get(url)
    expect(answer.status, Buffer.from(answer.bytes).toString().slice(0, 300)).toBe(200)
    return Buffer.from(answer.bytes)
  }, wait)
  const start = 10 + found.readUInt16LE(8)
  const head = found.subarray(10, start).toString()
  const shape = (/\(([\d, ]+)\)/.exec(head)?.[1] ?? '')
    .split(',')
    .filter((part) => part.trim() !== '')
    .map(Number)
  const data = found.subarray(start)
  const read = head.includes('i4') ? data.readInt32LE.bind(data) : data.readFloatLE.bind(data)
  const [count = 0, width = 1] = shape
  const rows = Array.from({ length: count }, (_, row) =>
    Array.from({ length: width }, (_, column) => read((row * width + column) * 4)),
  )
  return { shape, rows }
}
