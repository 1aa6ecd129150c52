/** Compares a fetched tensor with what the model process itself held, or with what Transformers computes. */
import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Ring2Error } from '../errors.ts'

export interface Verified {
  readonly hook: string
  readonly layer: number
  readonly trace_id: string
  readonly request_id: string
  readonly shape: readonly number[]
  readonly bytes: number
  /** Byte for byte, or within the tolerance. */
  readonly equal: boolean
  /** Largest difference from Transformers over the largest magnitude; 0 where bytes are compared. */
  readonly difference: number
}

interface Npy {
  readonly descr: string
  readonly shape: readonly number[]
  readonly data: Uint8Array
}

/** npy 1.0, C order: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html */
function parseNpy(file: Uint8Array): Npy {
  const headerBytes = (file[8] ?? 0) + 256 * (file[9] ?? 0)
  const header = Buffer.from(file.subarray(10, 10 + headerBytes)).toString('latin1')
  const descr = /'descr': '([^']+)'/.exec(header)?.[1]
  const shape = /'shape': \(([^)]*)\)/.exec(header)?.[1]
  if (descr === undefined || shape === undefined || !header.includes("'fortran_order': False")) {
    throw new Ring2Error('RING2_E_INTERNAL_EXPORTER', {
      expected: 'an npy file in C order',
      actual: header,
    })
  }
  return {
    descr,
    shape: shape
      .split(',')
      .filter((part) => part.trim() !== '')
      .map(Number),
    data: file.subarray(10 + headerBytes),
  }
}

/** With what the model process held, byte for byte. */
export function verify(
  fetched: Uint8Array,
  heldPath: string,
  what: Pick<Verified, 'hook' | 'layer' | 'trace_id' | 'request_id'>,
): Verified {
  const ours = parseNpy(fetched)
  const held = parseNpy(readFileSync(heldPath))
  const equal =
    ours.descr === held.descr &&
    ours.shape.join() === held.shape.join() &&
    Buffer.compare(ours.data, held.data) === 0
  return {
    ...what,
    shape: ours.shape,
    bytes: ours.data.byteLength,
    equal,
    difference: 0,
  }
}

export interface Reference {
  readonly python: string
  readonly model: string
  /** For what the comparing program reads. */
  readonly folder: string
  readonly tolerance: number
}

/** With the hidden states that Transformers computes for the same tokens. */
export async function verifyWithTransformers(
  fetched: Uint8Array,
  tokenIds: Uint8Array,
  { python, model, folder, tolerance }: Reference,
  what: Pick<Verified, 'hook' | 'layer' | 'trace_id' | 'request_id'>,
): Promise<Verified> {
  const { shape, data } = parseNpy(fetched)
  const [ids, states] = [join(folder, 'token-ids.npy'), join(folder, 'fetched.npy')]
  writeFileSync(ids, tokenIds)
  writeFileSync(states, fetched)
  const program = join(import.meta.dirname, 'compare_with_transformers.py')
  const words = [program, model, String(what.layer), ids, states]
  const { stdout } = await promisify(execFile)(python, words, {
    env: { ...process.env, HF_HUB_OFFLINE: '1' },
  })
  const { difference } = JSON.parse(stdout) as { difference: number }
  const equal = difference <= tolerance
  return { ...what, shape, bytes: data.byteLength, equal, difference }
}
