import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { loadConfig } from '../../../exporter/config.ts'
import { type ImportOptions, importStream } from '../../../exporter/import/import-stream.ts'
import { importLimits } from '../../../exporter/limits.ts'
import { openTensors } from '../../../exporter/tensors/open.ts'
import { runPython } from '../tensors/python.ts'

const BIT = 1

function setUp(codec = 'none', overrides: Record<string, unknown> = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'ring2-import-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  runPython(join(import.meta.dirname, 'write_stream.py'), [folder, codec])
  const file = join(folder, 'capture.stream')
  const { config } = loadConfig({
    environment: { HOME: folder },
    overrides: { 'store.url': join(folder, 'store'), ...overrides },
  })
  const bring = (change: Partial<ImportOptions> = {}) =>
    importStream(config, {
      file,
      model: 'some/model',
      traceId: null,
      tokens: null,
      dtype: 'float16',
      codec: null,
      ...change,
    })
  async function fetch(traceId: string, hook: string) {
    const { catalog, reader } = await openTensors(config)
    try {
      const query = { traceId, requestId: null, hook, layer: -1 }
      const opened = await reader.open({ ...query, rank: null, tokens: null, heads: null })
      return { plan: opened.plan, data: await opened.read() }
    } finally {
      catalog.close()
    }
  }
  async function rows(traceId: string) {
    const { catalog, reader } = await openTensors(config)
    try {
      return await reader.list({ traceId, requestId: null, hook: null, layer: null })
    } finally {
      catalog.close()
    }
  }
  const valuesOf = (name: string) => new Uint8Array(readFileSync(join(folder, `${name}.bin`)))
  return { folder, file, bring, fetch, rows, valuesOf }
}

describe('importing a capture', () => {
  it.each(['none', 'lz4', 'zstd'])('gives every value back, compressed by %s', async (codec) => {
    const { bring, fetch, valuesOf } = setUp(codec)
    const report = bring()
    expect(report).toMatchObject({
      codec,
      packets: 16,
      tokens: 8,
      torn_bytes: 0,
      damaged_packets: 0,
    })
    const hooks = {
      root: 'module_root',
      model: 'module_model',
      'model.layers.0.mlp': 'module_model_layers_0_mlp',
      lm_head: 'final_logits',
    }
    for (const [module, hook] of Object.entries(hooks)) {
      const { plan, data } = await fetch(report.trace_id, hook)
      expect(data).toEqual(valuesOf(module))
      expect(plan.shape).toEqual([8, data.byteLength / 16])
      expect(plan.completeness).toBe('complete')
    }
  })

  it('stores once what is imported twice, and under another trace when asked', async () => {
    const { bring, rows } = setUp()
    const first = bring()
    const before = await rows(first.trace_id)
    const again = bring()
    expect(first.already_imported).toBe(false)
    expect(again).toEqual({ ...first, already_imported: true })
    expect(await rows(first.trace_id)).toEqual(before)
    const traceId = '0123456789abcdef0123456789abcdef'
    expect(bring({ traceId })).toMatchObject({ trace_id: traceId, already_imported: false })
    expect(await rows(traceId)).toHaveLength(16)
  })

  it('leaves out what is to be redacted, and nothing of it is in the store', async () => {
    const { folder, bring, fetch, valuesOf } = setUp('none', {
      'capture.redact_hooks': ['final_logits', 'token_ids'],
      'capture.redact_attributes': ['import.*'],
    })
    const tokens = join(folder, 'capture_tokens.json')
    const list = [{ token_index: 0, token_id: 11, token_text: 't' }]
    writeFileSync(tokens, JSON.stringify({ total_tokens: 1, tokens: list }))
    const { trace_id: traceId } = bring({ tokens })
    const refused = { code: 'RING2_E_REDACTED' }
    await expect(fetch(traceId, 'final_logits')).rejects.toMatchObject(refused)
    await expect(fetch(traceId, 'token_ids')).rejects.toMatchObject(refused)
    expect((await fetch(traceId, 'module_model')).data).toEqual(valuesOf('model'))
    const stored = readdirSync(join(folder, 'store'), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => readFileSync(join(entry.parentPath, entry.name)))
    const row = Buffer.from(valuesOf('lm_head').subarray(0, 16))
    expect(stored.filter((file) => file.includes(row))).toEqual([])
    const summary = Buffer.concat(stored)
    expect(summary.includes('strap-llm"')).toBe(true)
    expect(summary.includes('"import.format":"strap-llm"')).toBe(false)
  })

  it("redacts every module's payload for `all`", async () => {
    const { bring, fetch } = setUp('none', { 'capture.redact_hooks': ['all'] })
    const { trace_id: traceId } = bring()
    await expect(fetch(traceId, 'module_model')).rejects.toMatchObject({
      code: 'RING2_E_REDACTED',
    })
  })

  it('keeps token ids at their positions', async () => {
    const { folder, bring, fetch } = setUp()
    const tokens = join(folder, 'capture_tokens.json')
    const list = [11, 12, 13].map((id, index) => ({
      token_index: index + 5,
      token_id: id,
      token_text: `t${id}`,
    }))
    writeFileSync(tokens, JSON.stringify({ total_tokens: 3, tokens: list }))
    const report = bring({ tokens })
    const { plan, data } = await fetch(report.trace_id, 'token_ids')
    expect([...new Int32Array(data.slice().buffer)]).toEqual([11, 12, 13])
    expect(plan.tokens).toEqual([expect.objectContaining({ start: 5, end: 8 })])
    writeFileSync(tokens, '{"tokens": [{"token_index": 0}]}')
    expect(() => bring({ tokens })).toThrow(/RING2_E_IMPORT.*token_id/)
  })
})

describe('a damaged capture', () => {
  it('gives everything before a torn tail, and says how much is torn', async () => {
    const { file, bring, fetch, valuesOf } = setUp()
    const size = readFileSync(file).byteLength
    truncateSync(file, size - 30)
    const report = bring()
    // The last packet: a header, its name, and 80 bytes of values.
    expect(report.torn_bytes).toBe(6 + 'lm_head'.length + 80 - 30)
    expect(report.packets).toBe(15)
    const { plan, data } = await fetch(report.trace_id, 'final_logits')
    expect(data).toEqual(valuesOf('lm_head').subarray(0, 7 * 80))
    expect(plan.completeness).toBe('incomplete')
  })

  it('reports every cut of the last packet, and no cut gives a packet more', () => {
    const { file, bring } = setUp()
    const whole = readFileSync(file)
    for (let cut = 1; cut < 93; cut += 7) {
      writeFileSync(file, whole.subarray(0, whole.byteLength - cut))
      expect(bring()).toMatchObject({ packets: 15, torn_bytes: 93 - cut })
    }
  })

  it('refuses a whole packet that is larger than is taken, and says so', () => {
    const { file, bring } = setUp()
    const whole = readFileSync(file)
    const header = Buffer.alloc(7)
    header.writeUInt16BE(1)
    header.writeUInt32BE(importLimits.packetBytesMax + 1, 2)
    header.write('m', 6)
    writeFileSync(file, Buffer.concat([whole, header]))
    expect(bring()).toMatchObject({ packets: 16, torn_bytes: 7 })
    truncateSync(file, whole.byteLength + 7 + importLimits.packetBytesMax + 1)
    expect(() => bring()).toThrow(/RING2_E_IMPORT.*at most 268435456 bytes.*268435457 bytes of "m"/)
  })

  it('says which model a capture is stored under that was imported before', () => {
    const { bring } = setUp()
    bring()
    const again = bring({ model: 'other/model' })
    expect(again).toMatchObject({ model: 'some/model', already_imported: true })
  })

  it('tells NUL at the end from a torn tail', () => {
    const { file, bring } = setUp()
    appendFileSync(file, new Uint8Array(5000))
    expect(bring()).toMatchObject({ packets: 16, torn_bytes: 0, padding_bytes: 5000 })
    appendFileSync(file, 'rest')
    expect(bring()).toMatchObject({ packets: 16, torn_bytes: 5004, padding_bytes: 0 })
  })

  it('does not believe a length that the file cannot hold', () => {
    const { file, bring } = setUp()
    appendFileSync(file, Uint8Array.of(0, 1, 0xff, 0xff, 0xff, 0xff, 65))
    expect(bring()).toMatchObject({ packets: 16, torn_bytes: 7 })
  })

  it.each(['lz4', 'zstd'])('passes over a packet of %s that cannot be read', async (codec) => {
    const { file, bring, fetch } = setUp(codec)
    const bytes = readFileSync(file)
    // The mark of the second packet's frame: its header and name come after the first packet.
    const first = 6 + bytes.readUInt32BE(2)
    const at = first + 6 + bytes.readUInt16BE(first)
    bytes[at] = (bytes[at] ?? 0) ^ BIT
    writeFileSync(file, bytes)
    const report = bring()
    expect(report).toMatchObject({ packets: 16, damaged_packets: 1 })
    expect((await fetch(report.trace_id, 'final_logits')).plan.completeness).toBe('complete')
  })

  it('is an error when there is nothing to import', () => {
    const { file, bring } = setUp()
    writeFileSync(file, 'no capture')
    expect(() => bring()).toThrow(/RING2_E_IMPORT/)
    expect(() => bring({ file: `${file}.absent` })).toThrow(/RING2_E_IMPORT.*absent.*ENOENT/)
  })
})
