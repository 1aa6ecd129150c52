/** Compares a fetched tensor with what the model process itself held, byte for byte. */
import { readFileSync } from 'node:fs'
import { Ring2Error } from '../errors.ts'

export interface Verified {
  readonly hook: string
  readonly layer: number
  readonly trace_id: string
  readonly request_id: string
  readonly shape: readonly number[]
  readonly bytes: number
  readonly equal: boolean
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
  }
}
