import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { CapturePolicy } from '../../../collector/index.ts'
import { createPolicyKeeper } from '../../../exporter/capture-policy.ts'
import { loadConfig } from '../../../exporter/config.ts'
import { openServer } from './fixture.ts'

const url = '/v1/policy'

function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'ring2-policy-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  return folder
}

function createKeeper(spool: string, environment: Record<string, string> = {}) {
  const applied: CapturePolicy[] = []
  const { config } = loadConfig({ environment })
  const keeper = createPolicyKeeper({
    config,
    location: {
      target: { kind: 'directory', root: spool },
      ...{ spool, queue: spool, catalog: join(spool, 'catalog') },
    },
    logger: pino({ level: 'silent' }),
    onChange: async (policy) => void applied.push(policy),
  })
  return { keeper, applied }
}

describe('/v1/policy', () => {
  test('says what is captured, and replaces it', async () => {
    const { keeper, applied } = createKeeper(temporaryFolder())
    const { app } = await openServer({ policy: keeper })
    expect((await app.inject(url)).json()).toMatchObject({
      source: 'config',
      policy: { stats: ['all'], tensors: ['all'], layers: [], request_share: 1, prefill: true },
    })
    const payload = { tensors: ['resid_pre'], layers: ['resid_pre[::4]'], request_share: 0.5 }
    const answer = await app.inject({ method: 'PUT', url, payload })
    expect(answer.statusCode).toBe(200)
    expect(answer.json()).toMatchObject({ source: 'set', policy: payload })
    expect((await app.inject(url)).json()).toEqual(answer.json())
    expect(keeper.changes()).toBe(1)
    expect(applied).toMatchObject([{ tensors: ['resid_pre'], requestShare: 0.5 }])
  })

  test('refuses what is no policy by the key that is wrong, and keeps the one in force', async () => {
    const { keeper, applied } = createKeeper(temporaryFolder())
    const { app } = await openServer({ policy: keeper })
    for (const payload of [{ layers: ['resid_pre[-1]'] }, { share: 1 }, [1], 'null']) {
      const headers = { 'content-type': 'application/json' }
      const answer = await app.inject({ method: 'PUT', url, payload, headers })
      expect(answer.statusCode).toBe(400)
      expect(answer.json()).toMatchObject({ code: 'RING2_E_POLICY' })
    }
    expect(applied).toEqual([])
    expect(keeper.get().source).toBe('config')
    expect(keeper.changes()).toBe(0)
  })

  test("needs the token where there is one, and this machine's name where there is none", async () => {
    const { keeper, applied } = createKeeper(temporaryFolder())
    const guarded = await openServer({ policy: keeper, token: 'secret' })
    const put = { method: 'PUT', url, payload: {} } as const
    expect((await guarded.app.inject(put)).statusCode).toBe(401)
    const open = await openServer({ policy: keeper })
    const foreign = await open.app.inject({ ...put, headers: { host: 'evil.example' } })
    expect(foreign.statusCode).toBe(401)
    expect(applied).toEqual([])
    const headers = { authorization: 'Bearer secret', host: 'tensors.example' }
    expect((await guarded.app.inject({ ...put, headers })).statusCode).toBe(200)
  })
})

describe('a policy that was set', () => {
  test('is forgotten at a restart, unless it is to be kept', async () => {
    const folder = temporaryFolder()
    await createKeeper(folder).keeper.set({ decode_every: 4 })
    expect(readdirSync(folder)).toEqual([])
    expect(createKeeper(folder).keeper.get()).toMatchObject({
      source: 'config',
      policy: { decode_every: 1 },
    })
    const keeping = { RING2_CAPTURE_KEEP_POLICY: 'true' }
    await createKeeper(folder, keeping).keeper.set({ decode_every: 4 })
    expect(createKeeper(folder, keeping).keeper.get()).toMatchObject({
      source: 'kept',
      policy: { decode_every: 4 },
    })
  })

  test('and cannot be read is an error with its path, not a policy that wants more', () => {
    const folder = temporaryFolder()
    writeFileSync(join(folder, 'policy.json'), '{"stats": ["nothing"]}')
    expect(() => createKeeper(folder, { RING2_CAPTURE_KEEP_POLICY: 'true' })).toThrow(
      expect.objectContaining({
        code: 'RING2_E_POLICY',
        expected: expect.stringContaining(join(folder, 'policy.json')),
      }),
    )
  })
})
