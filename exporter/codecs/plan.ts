/** Names of encodings, and which codec the rows of each hook have by the configuration. Pure. */

import { hooks } from '../../collector/hooks.gen.ts'

/** Elements as they are. */
export const RAW = 'raw'
/** Nothing lost: bytes split by plane. */
export const LOSSLESS = 'bytes-zstd-1'
/** Each element within 1e-3 of the largest magnitude of its block. */
export const BOUNDED = 'absmax-zstd-1'

export const encodings: readonly string[] = [RAW, LOSSLESS, BOUNDED]

/** Names in the configuration. */
export const codecNames = ['lossless', 'absmax', 'raw'] as const
export type CodecName = (typeof codecNames)[number]

/** Hooks that are not in it are stored as they are. */
export type CodecPlan = ReadonlyMap<string, CodecName>

/** @param entries `HOOK=CODEC`; a hook's own entry wins over `all`, a later one over an earlier. */
export function planCodecs(entries: readonly string[]): CodecPlan {
  const pairs = entries.map((entry) => entry.split('=') as [string, CodecName])
  const all = pairs.filter(([hook]) => hook === 'all').at(-1)?.[1] ?? 'raw'
  return new Map([...hooks.map(({ name }) => [name, all] as const), ...pairs])
}
