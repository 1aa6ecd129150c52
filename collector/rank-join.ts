/**
 * Brings the parts of a request together that the ranks of a parallel model saw, each in a segment of
 * its own, so that the request is told of once.
 *
 * A part stays in its segment's checkpoint until the one summary is safe. The first rank's segment
 * tells it; when that is stored the other parts are dropped; when those have been stored without
 * them the join is forgotten. Whichever of these a crash falls between, the request is told of once:
 * the teller's checkpoint names the requests whose parts others may still hold.
 *
 * Kept apart, and said: two parts that claim one rank, and ranks of worlds of different sizes.
 */
import type { DrainEvent } from './drain-event.ts'
import { collectorLimits } from './limits.ts'
import { compareRanks, isParallel, missingRanks, rankText } from './ranks.ts'
import type { ModelInfo, ProducerInfo, RequestInfo, RequestSummary } from './records.ts'
import { type RequestPart, summarizeParts } from './request-summary.ts'
import type { Verdicts } from './verdicts.ts'

/** What a segment's registry does with a part that it holds. */
export interface PartHolder {
  /** This segment tells of the request; its part is no longer held. */
  tell(summary: RequestSummary, name: string): void
  /** Another segment has told of it, and that is safe. */
  drop(name: string): void
  /** No other segment holds a part of it any more. */
  settled(name: string): void
}

export interface RankJoin {
  /** A request begins: under the trace that another rank's part has, when one came before. */
  begin(info: RequestInfo, model: ModelInfo, producer: ProducerInfo): RequestInfo
  /** A part has ended. */
  offer(part: RequestPart, holder: PartHolder): void
  /** From a checkpoint: this segment has told of these, and other segments may still hold parts. */
  restoreTold(names: readonly string[], producer: ProducerInfo, holder: PartHolder): void
  /** All that this segment has told and dropped so far is safe. */
  flushed(producer: ProducerInfo): void
  /** The segment is given back: what it holds comes again from its checkpoint. */
  withdraw(producer: ProducerInfo): void
  /** Tells of what has waited long enough. */
  turn(): void
  /** Tells of everything that waits: nothing more will come. */
  release(): void
  /** Requests of which some parts have ended and others not. */
  waiting(): number
}

export interface RankJoinOptions {
  readonly verdicts: Verdicts
  onEvent(event: DrainEvent): void
  readonly now?: () => number
}

interface Offered {
  readonly part: RequestPart
  readonly holder: PartHolder
}

interface Group {
  readonly name: string
  identity: RequestInfo | null
  /** Boots of the segments in which the request goes on. */
  readonly active: Set<string>
  readonly parts: Map<string, Offered>
  /** Ranks that nothing was heard of when the request was told of. */
  absent: ReadonlySet<string>
  untilMillis: number
  /** Who has told of it; its summary is not safe before `safe`. */
  teller: { readonly boot: string; readonly holder: PartHolder; safe: boolean } | null
  /** Boots of segments that have dropped their part and not stored that. */
  readonly dropping: Set<string>
}

/** Names a request for all ranks of one replica of a model. */
export function groupName(info: RequestInfo, model: ModelInfo): string {
  const { ranks, world } = model
  // A trace that the tap found may have come between two ranks' beginnings.
  const trace = info.traceOrigin === 'request' ? info.traceId : ''
  const sizes = [world?.tp, world?.pp, ranks?.dp]
  return JSON.stringify([model.name, model.revision, ...sizes, trace, info.requestId])
}

export function createRankJoin(options: RankJoinOptions): RankJoin {
  const now = options.now ?? (() => performance.now())
  const groups = new Map<string, Group>()
  /** Requests told of without some rank, and which: those may still come. */
  const toldWithout = new Map<string, ReadonlySet<string>>()
  const worlds = new Map<string, string>()

  function groupOf(name: string): Group {
    const known = groups.get(name)
    if (known !== undefined) return known
    const group: Group = {
      name,
      identity: null,
      active: new Set(),
      parts: new Map(),
      absent: new Set(),
      untilMillis: Number.POSITIVE_INFINITY,
      teller: null,
      dropping: new Set(),
    }
    groups.set(name, group)
    return group
  }

  function report(message: string, { producer, request }: RequestPart): void {
    const rank = rankText(request.model.ranks)
    const facts = { segment: producer.segment, rank, request_id: request.info.requestId }
    options.onEvent({ level: 'warn', message, facts })
  }

  function checkWorld(part: RequestPart): void {
    const { info, model } = part.request
    const place = JSON.stringify([model.name, info.requestId])
    const world = JSON.stringify([model.world?.tp, model.world?.pp])
    const known = worlds.get(place)
    if (known !== undefined && known !== world) {
      report('a request came from ranks of worlds of different sizes: they are kept apart', part)
    }
    remember(worlds, place, world)
  }

  function tell(group: Group): void {
    const offered = [...group.parts.values()].sort((left, right) =>
      compareRanks(left.part.request.model.ranks, right.part.request.model.ranks),
    )
    const [first, ...others] = offered
    if (first === undefined) return
    const { part, holder } = first
    const { model } = part.request
    const parts = others.map((one) => one.part)
    const models = [part, ...parts].map(({ request }) => request.model)
    group.absent = new Set(missingRanks(model, models))
    group.untilMillis = Number.POSITIVE_INFINITY
    group.teller = { boot: part.producer.boot, holder, safe: false }
    group.parts.delete(rankText(model.ranks))
    holder.tell(summarizeParts([part, ...parts], options.verdicts), group.name)
  }

  /** The summary is safe: the others need not hold what it was made of. */
  function dropParts(group: Group): void {
    for (const { part, holder } of group.parts.values()) {
      group.dropping.add(part.producer.boot)
      holder.drop(group.name)
    }
    group.parts.clear()
  }

  function settle(group: Group): void {
    const { teller, name, absent, dropping } = group
    if (teller?.safe !== true || dropping.size > 0) return
    if (now() < group.untilMillis) return
    teller.holder.settled(name)
    groups.delete(name)
    if (absent.size > 0) remember(toldWithout, name, absent)
  }

  function tellAlone({ part, holder }: Offered, name: string): void {
    report('two producers claim one rank of a request: they are kept apart', part)
    holder.tell(summarizeParts([part], options.verdicts), name)
    holder.settled(name)
  }

  /** The request has been told of: a part that is in that, or one that came too late for it. */
  function takeTold(group: Group, rank: string, offered: Offered): void {
    if (group.absent.has(rank)) report(lateMessage, offered.part)
    group.parts.set(rank, offered)
    if (group.teller?.safe === true) dropParts(group)
  }

  return {
    begin(info, model, producer) {
      if (!isParallel(model)) return info
      const group = groupOf(groupName(info, model))
      group.active.add(producer.boot)
      group.identity ??= info
      return { ...info, ...sameTrace(group.identity) }
    },
    offer(part, holder) {
      const { model, info } = part.request
      const name = groupName(info, model)
      const rank = rankText(model.ranks)
      if (toldWithout.get(name)?.has(rank)) {
        report(lateMessage, part)
        groups.get(name)?.active.delete(part.producer.boot)
        if (groups.get(name)?.active.size === 0) groups.delete(name)
        holder.drop(name)
        return
      }
      const group = groupOf(name)
      group.active.delete(part.producer.boot)
      const known = group.parts.get(rank)
      if (known !== undefined && known.part.producer.boot !== part.producer.boot) {
        tellAlone({ part, holder }, name)
        return
      }
      if (group.teller !== null) {
        takeTold(group, rank, { part, holder })
        return
      }
      checkWorld(part)
      group.parts.set(rank, { part, holder })
      group.untilMillis = now() + collectorLimits.rankWaitMillis
      const models = Array.from(group.parts.values(), (one) => one.part.request.model)
      if (missingRanks(model, models).length === 0) tell(group)
    },
    restoreTold(names, producer, holder) {
      for (const name of names) {
        const group = groupOf(name)
        group.teller = { boot: producer.boot, holder, safe: true }
        // Which parts others still hold is not known: they have until then to come.
        group.untilMillis = now() + collectorLimits.rankWaitMillis
        dropParts(group)
      }
    },
    flushed({ boot }) {
      for (const group of groups.values()) {
        if (group.teller?.boot === boot && !group.teller.safe) {
          group.teller.safe = true
          group.untilMillis = Number.NEGATIVE_INFINITY
          dropParts(group)
          settle(group)
        } else if (group.dropping.delete(boot)) settle(group)
      }
    },
    withdraw({ boot }) {
      for (const group of groups.values()) {
        group.active.delete(boot)
        group.dropping.delete(boot)
        for (const [rank, { part }] of group.parts) {
          if (part.producer.boot === boot) group.parts.delete(rank)
        }
        // Its part comes again from the checkpoint, and is told then.
        if (group.teller?.boot === boot && !group.teller.safe) group.teller = null
        if (group.teller === null && group.active.size + group.parts.size === 0) {
          groups.delete(group.name)
        }
      }
    },
    turn() {
      for (const group of groups.values()) {
        if (now() < group.untilMillis || group.active.size > 0) continue
        if (group.teller === null) tell(group)
        else settle(group)
      }
    },
    release() {
      for (const group of groups.values()) if (group.teller === null) tell(group)
    },
    waiting: () => {
      let count = 0
      for (const { teller, parts } of groups.values()) {
        if (teller === null && parts.size > 0) count += 1
      }
      return count
    },
  }
}

const lateMessage = 'a rank ended a request after it had been told of without it'

/** Bounded: the oldest is forgotten. */
function remember<T>(map: Map<string, T>, name: string, value: T): void {
  map.delete(name)
  map.set(name, value)
  if (map.size > collectorLimits.rankRequestsMax) map.delete(map.keys().next().value as string)
}

/** What makes a request one of a trace: the same in every rank. */
function sameTrace(info: RequestInfo): Partial<RequestInfo> {
  const { traceId, spanId, parentSpanId, traceFlags, traceState, traceOrigin } = info
  return { traceId, spanId, parentSpanId, traceFlags, traceState, traceOrigin }
}
