import { expect, test } from 'vitest'
import { hooks } from '../../collector/hooks.gen.ts'
import { constants, control } from '../../collector/layout.gen.ts'
import { type CapturePolicy, everything, planCapture } from '../../collector/policy.ts'
import { documentOf, readPolicy } from '../../collector/policy-document.ts'

const idOf = (name: string) => hooks.find((hook) => hook.name === name)?.id ?? -1
const actionOf = (policy: CapturePolicy, name: string, layer = 0) =>
  planCapture(policy).actionOf(idOf(name), layer)
const wordsOf = (policy: CapturePolicy) => {
  const words = planCapture(policy).control
  return new DataView(words.buffer)
}

test('everything stores every hook of the catalogue and drops ids without a hook', () => {
  const plan = planCapture(everything)
  const known = new Set(hooks.map((hook) => hook.id))
  for (let id = 0; id < constants.hooksMax; id++) {
    const action = known.has(id) ? constants.actionTensor : constants.actionDrop
    expect(plan.actionOf(id, -1)).toBe(action)
    expect(plan.actionOf(id, constants.layersMax - 1)).toBe(action)
  }
  expect(plan.control.subarray(control.wanted).every((byte) => byte === 0xff)).toBe(true)
  expect(plan.choosesRequests || plan.choosesTokens).toBe(false)
})

test('a hook that is stored is measured too, and one in neither list is dropped', () => {
  const policy = { stats: ['pattern'], tensors: ['resid_pre'] }
  expect(actionOf(policy, 'resid_pre')).toBe(constants.actionTensor)
  expect(actionOf(policy, 'pattern')).toBe(constants.actionStats)
  expect(actionOf(policy, 'q')).toBe(constants.actionDrop)
})

test('measuring everything and storing nothing stores nothing', () => {
  const plan = planCapture({ stats: ['all'], tensors: [] })
  expect(hooks.every(({ id }) => plan.actionOf(id, 0) === constants.actionStats)).toBe(true)
})

test('empty lists want nothing at all', () => {
  const plan = planCapture({ stats: [], tensors: [] })
  expect(hooks.some(({ id }) => plan.actionOf(id, 0) !== constants.actionDrop)).toBe(false)
  expect(plan.control.subarray(control.wanted).every((byte) => byte === 0)).toBe(true)
})

test.each<[string, readonly number[]]>([
  ['resid_pre[::4]', [0, 4, 8]],
  ['resid_pre[0,5,11]', [0, 5, 11]],
  ['resid_pre[2:5]', [2, 3, 4]],
  ['resid_pre[ 1 , 8:11:2 ]', [1, 8, 10]],
])('%s wants these layers of the hook, and all of others', (item, layers) => {
  const plan = planCapture({ ...everything, layers: [item] })
  const wanted = Array.from({ length: 12 }, (_, layer) => layer).filter((layer) =>
    plan.wants('resid_pre', layer),
  )
  expect(wanted).toEqual(layers)
  expect(plan.wants('q', 3)).toBe(true)
  const words = new DataView(plan.control.buffer)
  const bits = words.getBigUint64(control.wanted + 32 * idOf('resid_pre'), true)
  const expected = layers.reduce((sum, layer) => sum | (1n << BigInt(layer)), 0n)
  expect(bits & 0xfffn).toBe(expected)
})

test('layers of all hooks leave global hooks alone, and a hook of its own wins', () => {
  const plan = planCapture({ ...everything, layers: ['all[0]', 'q[3]'] })
  expect(plan.wants('k', 0)).toBe(true)
  expect(plan.wants('k', 3)).toBe(false)
  expect(plan.wants('q', 0)).toBe(false)
  expect(plan.wants('q', 3)).toBe(true)
  expect(plan.wants('final_logits', -1)).toBe(true)
})

test('requests and tokens become control words', () => {
  const words = wordsOf({
    ...everything,
    ...{ requestShare: 0.25, sampledOnly: true, prefill: false, decodeEvery: 8 },
  })
  expect(words.getBigUint64(control.requestShare, true)).toBe(1n << 30n)
  expect(words.getUint32(control.flags, true)).toBe(constants.controlSampledOnly)
  expect(words.getUint32(control.decodeEvery, true)).toBe(8)
  expect(wordsOf(everything).getBigUint64(control.requestShare, true)).toBe(1n << 32n)
  expect(wordsOf(everything).getUint32(control.flags, true)).toBe(constants.controlPrefill)
})

test('tokens are chosen as the producer chooses them', () => {
  const plan = planCapture({ ...everything, prefill: false, decodeEvery: 4 })
  expect(plan.wantsTokens('prefill', 0, 9)).toBe(false)
  expect([7, 8, 9].map((start) => plan.wantsTokens('decode', start, start + 1))).toEqual([
    false,
    true,
    false,
  ])
  expect(planCapture({ ...everything, decodeEvery: 0 }).wantsTokens('decode', 0, 99)).toBe(false)
})

test.each<[Partial<CapturePolicy>, string]>([
  [{ stats: ['resid_prä'] }, 'the hook "resid_prä"'],
  [{ tensors: ['resid_prä'] }, 'the hook "resid_prä"'],
  [{ layers: ['resid_prä[0]'] }, '"resid_prä[0]"'],
  [{ layers: ['nothing[0]'] }, 'the hook "nothing"'],
  [{ layers: ['resid_pre'] }, '"resid_pre"'],
  [{ layers: ['resid_pre[]'] }, '"resid_pre[]"'],
  [{ layers: ['resid_pre[-1]'] }, '"resid_pre[-1]"'],
  [{ layers: ['resid_pre[::0]'] }, '"resid_pre[::0]"'],
  [{ layers: ['resid_pre[256]'] }, '"resid_pre[256]"'],
  [{ layers: ['final_logits[0]'] }, 'final_logits, which has none'],
  [{ requestShare: 1.5 }, '1.5'],
  [{ requestShare: Number.NaN }, 'NaN'],
  [{ decodeEvery: -1 }, '-1'],
  [{ decodeEvery: 2 ** 31 }, '2147483648'],
])('%j is refused by what it is', (change, actual) => {
  expect(() => planCapture({ ...everything, ...change })).toThrow(
    expect.objectContaining({ code: 'RING2_E_POLICY', actual: expect.stringContaining(actual) }),
  )
})

test('a document that leaves keys out wants everything of them, and reads as it is shown', () => {
  const policy = readPolicy({ tensors: ['resid_pre'], decode_every: 4 })
  expect(policy).toMatchObject({ stats: ['all'], prefill: true, requestShare: 1, decodeEvery: 4 })
  expect(readPolicy(documentOf(policy))).toEqual(policy)
  expect(documentOf(everything)).toEqual(documentOf(readPolicy({})))
})

test.each<[unknown, string]>([
  [null, 'null'],
  [[], 'a list'],
  ['all', 'string "all"'],
  [{ tensor: ['q'] }, 'the key "tensor"'],
  [{ stats: 'all' }, 'string "all"'],
  [{ stats: [1] }, 'a list'],
  [{ prefill: 'yes' }, 'string "yes"'],
  [{ request_share: null }, 'null'],
  [{ __proto__: null, toString: 1 }, 'the key "toString"'],
])('the document %j is refused', (document, actual) => {
  expect(() => readPolicy(document)).toThrow(
    expect.objectContaining({ code: 'RING2_E_POLICY', actual }),
  )
})
