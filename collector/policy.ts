/**
 * What is wanted: which hooks and layers are measured or stored, of which requests and tokens.
 *
 * Pure. A policy is compiled once to one action per hook and layer and to the control words that tell
 * the producer, so that asking costs nothing and nobody copies what is not wanted.
 */
import { Ring2Error } from './errors.ts'
import { hooks } from './hooks.gen.ts'
import { constants, control } from './layout.gen.ts'
import type { Phase } from './records.ts'

export interface CapturePolicy {
  /** Hook names to measure, or `all`. */
  readonly stats: readonly string[]
  /** Hook names to store, which measures them too, or `all`. */
  readonly tensors: readonly string[]
  /** `HOOK[LAYERS]`: the only layers of a hook, such as `resid_pre[::4]`; left out: all of them. */
  readonly layers?: readonly string[]
  /** Share of the requests, chosen by their id; left out: all. */
  readonly requestShare?: number
  /** Whether only requests of sampled traces are wanted. */
  readonly sampledOnly?: boolean
  /** Whether tokens of the prompt are wanted; left out: yes. */
  readonly prefill?: boolean
  /** Generated tokens at positions that this divides; 0: none of them; left out: all. */
  readonly decodeEvery?: number
}

export interface CapturePlan {
  readonly policy: CapturePolicy
  /** ring2_control for the producer; its sequence is the consumer's. */
  readonly control: Uint8Array
  readonly choosesRequests: boolean
  readonly choosesTokens: boolean
  /** ring2_action; an id without a hook is dropped. */
  actionOf(hookId: number, layer: number): number
  wants(hook: string, layer: number): boolean
  /** Whether any token of [start, end) is wanted; see ring2_control_wants_tokens. */
  wantsTokens(phase: Phase, start: number, end: number): boolean
}

export const everything: CapturePolicy = { stats: ['all'], tensors: ['all'] }

const byName = new Map(hooks.map((hook) => [hook.name, hook]))
const wordsPerHook = constants.layersMax / 64

function refuse(expected: string, actual: string): Ring2Error {
  return new Ring2Error('RING2_E_POLICY', { expected, actual })
}

/** Compiles a policy. @throws RING2_E_POLICY for what is none. */
export function planCapture(policy: CapturePolicy): CapturePlan {
  for (const name of [...policy.stats, ...policy.tensors]) checkHook(name)
  const { requestShare = 1, sampledOnly = false, prefill = true, decodeEvery = 1 } = policy
  if (!(requestShare >= 0 && requestShare <= 1)) {
    throw refuse('a share of the requests from 0 to 1', String(requestShare))
  }
  if (!Number.isInteger(decodeEvery) || decodeEvery < 0 || decodeEvery >= 2 ** 31) {
    throw refuse('every n-th generated token, n from 0 to 2^31 - 1', String(decodeEvery))
  }
  const actions = planActions(policy)
  const chosen = { requestShare, sampledOnly, prefill, decodeEvery }
  return {
    policy,
    control: controlWords(actions, chosen),
    choosesRequests: requestShare < 1 || sampledOnly,
    choosesTokens: !prefill || decodeEvery !== 1,
    actionOf: (hookId, layer) => actions[indexOf(hookId, layer)] ?? constants.actionDrop,
    wants(name, layer) {
      const hook = byName.get(name)
      return hook !== undefined && actions[indexOf(hook.id, layer)] !== constants.actionDrop
    },
    wantsTokens(phase, start, end) {
      if (phase === 'prefill') return prefill
      return decodeEvery > 0 && Math.ceil(start / decodeEvery) * decodeEvery < end
    },
  }
}

function checkHook(name: string): void {
  if (name === 'all' || byName.has(name)) return
  const known = [...byName.keys()].join(', ')
  throw refuse(`hook names of the catalogue (${known}) or all`, `the hook ${JSON.stringify(name)}`)
}

function indexOf(hookId: number, layer: number): number {
  return hookId * constants.layersMax + Math.max(layer, 0)
}

/** ring2_action by hook and layer; a global hook has its own at layer 0. */
function planActions(policy: CapturePolicy): Uint8Array {
  const layers = chosenLayers(policy.layers ?? [])
  const includes = (list: readonly string[], name: string) =>
    list.includes('all') || list.includes(name)
  const actions = new Uint8Array(constants.hooksMax * constants.layersMax)
  for (const hook of hooks) {
    let action: number = constants.actionDrop
    if (includes(policy.tensors, hook.name)) action = constants.actionTensor
    else if (includes(policy.stats, hook.name)) action = constants.actionStats
    const only = layers.get(hook.name) ?? (hook.layered ? layers.get('all') : undefined)
    for (let layer = 0; layer < constants.layersMax; layer++) {
      if (only === undefined || only.has(layer)) actions[indexOf(hook.id, layer)] = action
    }
  }
  return actions
}

/** The layers that are named for each hook, by its name or `all`. */
function chosenLayers(items: readonly string[]): Map<string, Set<number>> {
  const layers = new Map<string, Set<number>>()
  for (const item of items) {
    const parts = /^([a-z_0-9]+)\[([^\]]*)\]$/.exec(item.trim())
    if (parts === null) throw refuse('HOOK[LAYERS], such as resid_pre[::4]', JSON.stringify(item))
    const [, hook = '', selection = ''] = parts
    checkHook(hook)
    if (byName.get(hook)?.layered === false) {
      throw refuse('a hook that has layers', `${hook}, which has none`)
    }
    const chosen = layers.get(hook) ?? new Set()
    layers.set(hook, chosen)
    for (const part of selection.split(',')) addLayers(part.trim(), chosen, item)
  }
  return layers
}

/** `5`, `2:10` or `::4`: as in Python, but counted from the first layer only. */
function addLayers(part: string, chosen: Set<number>, item: string): void {
  const bounds = /^(\d{0,4})(?:(:)(\d{0,4})(?::(\d{0,4}))?)?$/.exec(part)
  const [, first = '', colon, last = '', every = ''] = bounds ?? []
  const one = colon === undefined
  const start = first === '' ? 0 : Number(first)
  const end = one ? start + 1 : last === '' ? constants.layersMax : Number(last)
  const step = every === '' ? 1 : Number(every)
  const whole = bounds !== null && !(one && first === '')
  if (!whole || step === 0 || start >= constants.layersMax || end > constants.layersMax) {
    throw refuse(
      `layers from 0 to ${constants.layersMax - 1}, such as 5, 2:10 or ::4`,
      JSON.stringify(item),
    )
  }
  for (let layer = start; layer < end; layer += step) chosen.add(layer)
}

function controlWords(
  actions: Uint8Array,
  chosen: Required<Pick<CapturePolicy, 'requestShare' | 'sampledOnly' | 'prefill' | 'decodeEvery'>>,
): Uint8Array {
  const bytes = new Uint8Array(control.bytes)
  const view = new DataView(bytes.buffer)
  const sampled = chosen.sampledOnly ? constants.controlSampledOnly : 0
  view.setUint32(control.flags, sampled | (chosen.prefill ? constants.controlPrefill : 0), true)
  const share = BigInt(Math.round(chosen.requestShare * constants.controlAllRequests))
  view.setBigUint64(control.requestShare, share, true)
  view.setUint32(control.decodeEvery, chosen.decodeEvery, true)
  const complete = policyWantsAll(actions)
  for (let hook = 0; hook < constants.hooksMax; hook++) {
    for (let word = 0; word < wordsPerHook; word++) {
      const offset = control.wanted + 8 * (hook * wordsPerHook + word)
      view.setBigUint64(offset, complete ? 2n ** 64n - 1n : bitsOf(actions, hook, word), true)
    }
  }
  return bytes
}

/** Then the words are those of a new segment, and nothing needs to be written. */
function policyWantsAll(actions: Uint8Array): boolean {
  return hooks.every(({ id }) => {
    const from = indexOf(id, 0)
    return actions.subarray(from, from + constants.layersMax).every((action) => action > 0)
  })
}

function bitsOf(actions: Uint8Array, hook: number, word: number): bigint {
  let bits = 0n
  for (let bit = 0; bit < 64; bit++) {
    const action = actions[indexOf(hook, word * 64 + bit)]
    if (action !== constants.actionDrop) bits |= 1n << BigInt(bit)
  }
  return bits
}
