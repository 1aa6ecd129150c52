/**
 * Which process of a parallel model a segment is of. The MODEL record says so, which lies in the ring no
 * more once it was drained: the exporter that drained it keeps it in the segment's checkpoint.
 */
import {
  producerName,
  type Ranks,
  Ring2Error,
  readCheckpoint,
  type SegmentInfo,
} from '../collector/index.ts'

/** Ranks of one process, and how many there are along each axis. */
export interface Place {
  readonly ranks: Ranks
  readonly world: Ranks
}

/** Null for a model in one process, and until an exporter of this store has flushed the segment. */
export type RanksOf = (info: Pick<SegmentInfo, 'segment' | 'boot'>) => Place | null

const axes = ['tp', 'pp', 'dp', 'ep'] as const
const segmentsMax = 1024

/**
 * Reads each checkpoint until it knows the model, which stays the same.
 *
 * @param stateDirectory where the exporter's checkpoints are.
 */
export function createRanksOf(stateDirectory: string): RanksOf {
  const known = new Map<string, Place | null>()
  return ({ segment, boot }) => {
    const found = known.get(boot)
    if (found !== undefined) return found
    const place = readPlace(stateDirectory, { segment: producerName(segment), boot })
    // Of segments that have gone nobody asks again.
    if (known.size >= segmentsMax) known.clear()
    if (place !== undefined) known.set(boot, place)
    return place ?? null
  }
}

/** Undefined while it is not known. */
function readPlace(
  stateDirectory: string,
  life: Readonly<Record<'segment' | 'boot', string>>,
): Place | null | undefined {
  try {
    const model = readCheckpoint(stateDirectory, life)?.registry.model
    if (model === undefined || model.name === 'unknown') return undefined
    const { ranks, world } = model
    if (ranks === undefined || world === undefined) return null
    return axes.some((axis) => world[axis] > 1) ? { ranks, world } : null
  } catch (error) {
    // Whoever drains the segment says so; its counters are right all the same.
    if (error instanceof Ring2Error) return undefined
    throw error
  }
}

/** `tp 1/2, pp 0/4`: along each axis of several processes, which one of how many. */
export function placeText(place: Place | null): string {
  if (place === null) return '–'
  const { ranks, world } = place
  return axes
    .filter((axis) => world[axis] > 1)
    .map((axis) => `${axis} ${ranks[axis]}/${world[axis]}`)
    .join(', ')
}
