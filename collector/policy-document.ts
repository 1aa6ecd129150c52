/**
 * A policy as people write it: JSON or YAML with the keys of the configuration's `capture` section.
 * Keys that are left out want everything. Pure.
 */
import { Ring2Error } from './errors.ts'
import { type CapturePolicy, planCapture } from './policy.ts'

/** The keys, in the order they are shown. */
export interface PolicyDocument {
  readonly stats: readonly string[]
  readonly tensors: readonly string[]
  readonly layers: readonly string[]
  readonly request_share: number
  readonly sampled_only: boolean
  readonly prefill: boolean
  readonly decode_every: number
}

const wanted: PolicyDocument = {
  stats: ['all'],
  tensors: ['all'],
  layers: [],
  request_share: 1,
  sampled_only: false,
  prefill: true,
  decode_every: 1,
}

/** The policy that a document states. @throws RING2_E_POLICY naming the key that is wrong. */
export function readPolicy(document: unknown): CapturePolicy {
  if (typeof document !== 'object' || document === null || Array.isArray(document)) {
    throw refuse('an object', nameOf(document))
  }
  for (const [key, value] of Object.entries(document)) checkKey(key, value)
  const policy = policyOf({ ...wanted, ...document })
  planCapture(policy)
  return policy
}

export function policyOf(document: PolicyDocument): CapturePolicy {
  const { stats, tensors, layers, prefill } = document
  return {
    ...{ stats, tensors, layers, prefill },
    requestShare: document.request_share,
    sampledOnly: document.sampled_only,
    decodeEvery: document.decode_every,
  }
}

export function documentOf(policy: CapturePolicy): PolicyDocument {
  return {
    stats: policy.stats,
    tensors: policy.tensors,
    layers: policy.layers ?? wanted.layers,
    request_share: policy.requestShare ?? wanted.request_share,
    sampled_only: policy.sampledOnly ?? wanted.sampled_only,
    prefill: policy.prefill ?? wanted.prefill,
    decode_every: policy.decodeEvery ?? wanted.decode_every,
  }
}

function checkKey(key: string, value: unknown): void {
  if (!Object.hasOwn(wanted, key)) {
    throw refuse(`keys among ${Object.keys(wanted).join(', ')}`, `the key ${JSON.stringify(key)}`)
  }
  const model: unknown = Reflect.get(wanted, key)
  if (Array.isArray(model)) {
    const texts = Array.isArray(value) && value.every((entry) => typeof entry === 'string')
    if (!texts) throw refuse(`${key} to be a list of texts`, nameOf(value))
  } else if (typeof value !== typeof model) {
    throw refuse(`${key} to be a ${typeof model}`, nameOf(value))
  }
}

function nameOf(value: unknown): string {
  if (value === null) return 'null'
  return Array.isArray(value) ? 'a list' : `${typeof value} ${JSON.stringify(value) ?? ''}`.trim()
}

function refuse(expected: string, actual: string): Ring2Error {
  return new Ring2Error('RING2_E_POLICY', { expected, actual })
}
