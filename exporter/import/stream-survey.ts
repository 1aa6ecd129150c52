/**
 * The first pass over a capture: which modules it has, how many values each of their packets holds,
 * and its fingerprint. What the rows are called and shaped like follows from this.
 *
 * A capture has no shapes. The values of one token are the greatest common divisor of the sizes of a
 * module's packets: exact as soon as there is a step of one token beside a prefill of several; a
 * module whose packets all have one size counts as one entry each.
 */

import { createHash } from 'node:crypto'
import { Ring2Error } from '../errors.ts'
import { importLimits } from '../limits.ts'
import { createModuleHooks } from './module-hooks.ts'
import { readStream, type StreamEnd } from './stream-file.ts'
import { codecOf, type StreamCodec, unpack } from './stream-payload.ts'

export interface ModuleFacts {
  readonly module: string
  readonly hook: string
  packets: number
  /** Values of one entry of the token axis. */
  width: number
  /** Values of the first packet, and of all. */
  first: number
  values: number
}

export interface StreamSurvey {
  readonly codec: StreamCodec
  readonly elementBytes: number
  /** SHA-256 of the whole packets and of what the rows depend on besides, in hexadecimal. */
  readonly fingerprint: string
  readonly modules: ReadonlyMap<string, ModuleFacts>
  readonly packets: number
  /** Whole packets whose payload cannot be read, or holds no whole elements. */
  readonly damagedPackets: number
  readonly end: StreamEnd
}

export interface SurveyOptions {
  /** Null: by the first packet's mark. */
  readonly codec: StreamCodec | null
  readonly dtype: string
  readonly elementBytes: number
}

/** @throws Ring2Error RING2_E_IMPORT for a capture of more modules than the bound. */
export function surveyStream(fd: number, options: SurveyOptions): StreamSurvey {
  const hash = createHash('sha256').update(`${options.dtype}\n`)
  const hookOf = createModuleHooks()
  const modules = new Map<string, ModuleFacts>()
  let codec = options.codec
  let packets = 0
  let damagedPackets = 0
  const end = readStream(fd, ({ name, data }) => {
    codec ??= codecOf(data)
    packets += 1
    hash.update(`${name.length} ${data.byteLength}\n${name}`).update(data)
    const values = valuesOf(unpack(codec, data), options.elementBytes)
    if (values === null) damagedPackets += 1
    else count(modules, name, values, hookOf)
  })
  const fingerprint = hash.digest('hex')
  const { elementBytes } = options
  return {
    codec: codec ?? 'none',
    elementBytes,
    fingerprint,
    modules,
    packets,
    damagedPackets,
    end,
  }
}

/** Null for a payload that holds no whole elements. */
export function valuesOf(content: Uint8Array | null, elementBytes: number): number | null {
  if (content === null || content.byteLength === 0) return null
  return content.byteLength % elementBytes === 0 ? content.byteLength / elementBytes : null
}

function count(
  modules: Map<string, ModuleFacts>,
  module: string,
  values: number,
  hookOf: (module: string) => string,
): void {
  const known = modules.get(module)
  if (known !== undefined) {
    known.packets += 1
    known.values += values
    known.width = divisor(known.width, values)
    return
  }
  if (modules.size >= importLimits.modulesMax) {
    throw new Ring2Error('RING2_E_IMPORT', {
      expected: `at most ${importLimits.modulesMax} names of modules`,
      actual: 'more',
    })
  }
  const hook = hookOf(module)
  modules.set(module, { module, hook, packets: 1, width: values, first: values, values })
}

function divisor(left: number, right: number): number {
  let [large, small] = [left, right]
  while (small !== 0) [large, small] = [small, large % small]
  return large
}
