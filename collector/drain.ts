/**
 * Drains one segment at its own pace: records → policy → statistics → sink → release.
 *
 * One native call takes a batch, one measures it. Payload bytes are handed on by reference and stay
 * in the ring until `flush` has made what they became safe; only then is their space released.
 * Synchronous: it runs in a worker and never inside a callback.
 */
import { dirname } from 'node:path'
import type { ActiveRequest } from './active-request.ts'
import {
  parseModel,
  parseRequest,
  parseRequestEnd,
  parseVocabulary,
  readGap,
  readStep,
  unknownModel,
} from './bodies.ts'
import {
  type Checkpoint,
  type CheckpointFacts,
  readCheckpoint,
  removeCheckpoint,
  writeCheckpoint,
} from './checkpoint.ts'
import { type ControlBook, createControlBook } from './control-book.ts'
import type { DrainOptions, SegmentDrain } from './drain-contract.ts'
import { constants, drainResult, segmentInfo } from './layout.gen.ts'
import { collectorLimits } from './limits.ts'
import { createTrack, openConsumer } from './native.ts'
import { factsOf, must } from './outcomes.ts'
import type { Outcome, ProducerInfo } from './records.ts'
import { withoutPayload } from './redaction.ts'
import { foldRequest } from './request-samples.ts'
import { createRegistry } from './requests.ts'
import { decodeSegmentInfo, producerName, readSegmentInfo, type SegmentInfo } from './segments.ts'
import { actionOf, takeStep } from './wanted-slices.ts'
import { words } from './words.ts'

/** Takes a segment and goes on where the last exporter stopped. */
export function openDrain(options: DrainOptions): SegmentDrain {
  const found = readSegmentInfo(options.path)
  const consumer = openConsumer(options.path, found.payloadBytes)
  const producer: ProducerInfo = {
    // One life of a producer has one name, also when its file was moved aside.
    segment: producerName(found.segment),
    boot: found.boot,
    host: options.host,
    pid: found.producerPid,
  }
  const track = createTrack()
  const registry = createRegistry({
    producer,
    expected: { wantsOf: (sequence) => book.wantsOf(sequence) },
    verdicts: options.verdicts,
    requestsMax: options.requestsMax,
    requestIdleMicros: options.requestIdleMicros,
    ...(options.ranks === undefined ? {} : { ranks: options.ranks }),
    onLeave: (request) => track.end(options.folds.keyOf(request)),
    onEnd(summary) {
      foldRequest(options.folds, summary)
      options.sink.finish(summary)
      options.onEnd(summary)
    },
  })
  const state = {
    position: 0,
    released: 0,
    borrowedBytes: 0,
    oldestPendingMicros: 0,
    flushDueMillis: Number.POSITIVE_INFINITY,
    retryAtMillis: 0,
    failures: 0,
    failing: false,
    closed: false,
    /** Slices of this batch whose request is not known any more. */
    orphans: 0,
    producerGone: false,
    steps: [] as Uint8Array[],
    /** Prepared and not yet published. */
    files: [] as string[],
  }
  const infoWords = words(new Uint8Array(segmentInfo.bytes))
  const resultWords = words(new Uint8Array(drainResult.bytes))
  const { slices, sink } = options
  /** As it is before anything of this segment was drained. */
  const unbegun = registry.store()
  let recorded = false
  let book: ControlBook
  try {
    const checkpoint = readCheckpoint(options.stateDirectory, producer)
    book = createControlBook(consumer, options.plan, checkpoint?.controls)
    resume(checkpoint)
  } catch (error) {
    consumer.close(false)
    track.destroy()
    throw error
  }

  function resume(checkpoint: Checkpoint | null): void {
    must(sink.discardExcept(producer, checkpoint?.files ?? []))
    state.position = state.released = readInfo().metaTail
    if (checkpoint === null) return
    recorded = true
    // What was released had been published before; the files may have been moved since.
    if (checkpoint.position > state.position) must(sink.publish(checkpoint.files))
    for (const step of checkpoint.steps) {
      const body = new Uint8Array(Buffer.from(step, 'base64'))
      consumer.addStep(body)
      state.steps.push(body)
      const { step: number, sequence } = readStep(body)
      book.step(number, sequence)
    }
    registry.restore(checkpoint.registry)
    learnModel()
    if (checkpoint.position > state.position) {
      consumer.seek(checkpoint.position)
      state.position = state.released = checkpoint.position
    }
    options.onEvent({
      level: 'info',
      message: 'resumed a segment from its checkpoint',
      facts: { segment: producer.segment, position: state.position, requests: registry.active() },
    })
  }

  function learnModel(): void {
    const model = registry.model()
    if (model.name !== unknownModel.name) options.onModel?.(model)
  }

  function readInfo(): { metaTail: number } {
    consumer.info(infoWords.bytes)
    return { metaTail: infoWords.u64(segmentInfo.metaTail) }
  }

  function body(index: number): Uint8Array {
    const { buffer, byteOffset } = consumer.payload
    // Cheaper than `subarray`, which asks for the constructor of each view.
    const start = byteOffset + slices.payloadOffset(index)
    return new Uint8Array(buffer, start, slices.payloadBytes(index))
  }

  function malformed(kind: string, reason: string): void {
    options.onEvent({
      level: 'warn',
      message: `skipped a malformed ${kind} record`,
      facts: { segment: producer.segment, reason },
    })
  }

  /** Before measuring: learns who the tensors belong to and decides what becomes of each. */
  function prepareSlice(index: number): void {
    switch (slices.kind(index)) {
      case constants.kindTensor: {
        slices.setAction(index, actionOf(book, registry, slices, index))
        slices.setGroups(index, options.groups)
        break
      }
      case constants.kindStep: {
        const bytes = body(index)
        state.steps.push(bytes.slice())
        if (state.steps.length > collectorLimits.checkpointStepsMax) state.steps.shift()
        const atMicros = slices.capturedAtMicros(index)
        takeStep(book, registry, readStep(bytes), atMicros)
        break
      }
      case constants.kindModel: {
        const model = parseModel(body(index))
        if (model.ok) {
          registry.setModel(model.value)
          learnModel()
          if (model.warning !== undefined) malformed('part of a MODEL', model.warning)
        } else malformed('MODEL', model.reason)
        break
      }
      case constants.kindRequest: {
        const request = parseRequest(body(index), slices.capturedAtMicros(index))
        if (request.ok) {
          registry.begin(options.onBegin?.(request.value, producer) ?? request.value)
        } else malformed('REQUEST', request.reason)
        break
      }
      case constants.kindVocabulary: {
        const part = parseVocabulary(body(index))
        if (part.ok) sink.vocabulary?.(part.value, producer, slices.capturedAtMicros(index))
        else malformed('VOCABULARY', part.reason)
        break
      }
      case constants.kindGap:
        registry.gap(readGap(body(index)))
        break
      default:
        break
    }
  }

  /** The elements of a slice: the ring's own memory, or a copy when they do not lie in one piece. */
  function elements(index: number): Uint8Array {
    if (slices.isContiguous(index)) return body(index)
    const copy = new Uint8Array(slices.payloadBytes(index))
    consumer.gather(slices.record(index), copy)
    return copy
  }

  function deliver(index: number, request: ActiveRequest): void {
    const stored = slices.action(index) === constants.actionTensor
    const hook = slices.hook(index)
    const statistics = slices.statistics(index)
    const hidden = options.redacted?.has(hook) === true
    const layer = slices.layer(index)
    const phase = slices.phase(index)
    const tokenStart = slices.tokenStart(index)
    const tokenEnd = slices.tokenEnd(index)
    const capturedAtMicros = slices.capturedAtMicros(index)
    const nan = slices.nan(index)
    const posInf = slices.posInf(index)
    const negInf = slices.negInf(index)
    registry.addSlice(request, {
      hook,
      layer,
      phase,
      tokenStart,
      tokenEnd,
      statistics,
      nan,
      posInf,
      negInf,
      storedBytes: stored ? (hidden ? 0 : slices.payloadBytes(index)) : null,
      capturedAtMicros,
      extra: slices.isExtra(index),
    })
    if (!stored) return
    sink.append({
      request: request.info,
      model: request.model,
      producer,
      hook,
      layer,
      step: slices.step(index),
      phase,
      tokenStart,
      tokenEnd,
      kvOffset: slices.kvOffset(index),
      ranks: slices.ranks(index),
      capturedAtMicros,
      dtype: slices.dtype(index),
      shape: slices.shape(index),
      statistics,
      nonfinite: nan + posInf + negInf,
      // A checksum of few elements gives them away too.
      ...(hidden ? withoutPayload : { crc32c: slices.crc32c(index), data: elements(index) }),
    })
  }

  /** Requests of the batch by the key that folding uses; see FoldBook.keyOf. */
  function assignFoldKeys(count: number): Map<number, ActiveRequest> {
    const byKey = new Map<number, ActiveRequest>()
    const keyOf = new Map<number, number>()
    for (let index = 0; index < count; index++) {
      if (slices.kind(index) !== constants.kindTensor) continue
      if (slices.action(index) === constants.actionDrop) continue
      const own = slices.requestKey(index)
      let key = keyOf.get(own)
      if (key === undefined) {
        const request = registry.find(own)
        if (request === undefined) {
          orphan(index)
          continue
        }
        key = options.folds.keyOf(request.info)
        keyOf.set(own, key)
        byKey.set(key, request)
      }
      slices.setRequestKey(index, key)
      const prompt = slices.phase(index) === 'decode' ? byKey.get(key)?.phases.prefill : undefined
      slices.setPromptTokens(index, prompt?.tokenEnd ?? -1)
    }
    return byKey
  }

  /** Its request has ended or was given up: a tensor without a name is not kept. */
  function orphan(index: number): void {
    slices.setAction(index, constants.actionDrop)
    state.orphans += 1
  }

  function reportOrphans(): void {
    if (state.orphans === 0) return
    options.onEvent({
      level: 'warn',
      message: 'dropped tensors that came after their request had ended or was given up',
      facts: { segment: producer.segment, tensors: state.orphans },
    })
    state.orphans = 0
  }

  function endRequest(index: number): void {
    const end = parseRequestEnd(body(index))
    if (end.ok) registry.end(end.value, slices.capturedAtMicros(index))
    else malformed('REQUEST_END', end.reason)
  }

  function drainBatch(): number {
    consumer.drain(slices.bytes, slices.capacity, options.batchBytes, resultWords.bytes)
    const count = resultWords.u64(drainResult.slices)
    for (let index = 0; index < count; index++) prepareSlice(index)
    const byKey = assignFoldKeys(count)
    reportOrphans()
    consumer.measure(options.folds.of(registry.model().name), track, slices.bytes, count)
    for (let index = 0; index < count; index++) {
      const kind = slices.kind(index)
      if (kind === constants.kindRequestEnd) endRequest(index)
      if (kind !== constants.kindTensor || slices.action(index) === constants.actionDrop) continue
      const request = byKey.get(slices.requestKey(index))
      if (request !== undefined) deliver(index, request)
    }
    if (count > 0 && state.oldestPendingMicros === 0) {
      state.oldestPendingMicros = slices.capturedAtMicros(0)
    }
    state.borrowedBytes += resultWords.u64(drainResult.payloadBytes)
    state.position = resultWords.u64(drainResult.nextPosition)
    state.producerGone = resultWords.u32(drainResult.finished) === 1
    return count
  }

  function somethingPending(): boolean {
    // Prepared files count too: a flush that failed to publish them must be tried again.
    const waiting = sink.pending().summaries + state.files.length
    return waiting > 0 || state.position !== state.released || registry.changed()
  }

  function flushIsDue(nowMillis: number): boolean {
    if (nowMillis < state.retryAtMillis || !somethingPending()) return false
    const share = collectorLimits.flushOccupancy
    return (
      state.producerGone ||
      nowMillis >= state.flushDueMillis ||
      sink.pending().bytes >= options.flushBytes ||
      state.borrowedBytes >= share * found.payloadBytes ||
      state.position - state.released >= share * found.metaSlots
    )
  }

  function record(facts: Omit<CheckpointFacts, 'directory'>): Outcome<void> {
    const whole = { directory: dirname(options.path), ...facts }
    return writeCheckpoint(options.stateDirectory, producer, whole, options.fsync)
  }

  function commit(): Outcome<void> {
    // Before the first file, so that whoever comes after a crash knows whose files these are.
    const begin = { position: state.released, files: [], steps: [], registry: unbegun }
    const begun = recorded ? null : record(begin)
    if (begun !== null && begun.status !== 'success') return begun
    recorded = true
    const prepared = sink.prepare(producer)
    if (prepared.status !== 'success') return prepared
    state.files.push(...prepared.value)
    const named = record({
      position: state.position,
      files: state.files,
      steps: state.steps.map((step) => Buffer.from(step).toString('base64')),
      registry: registry.store(),
      controls: book.store(),
    })
    if (named.status !== 'success') return named
    const published = sink.publish(state.files)
    if (published.status === 'success') state.files.length = 0
    return published
  }

  function flush(): Outcome<void> {
    const outcome = commit()
    state.failing = outcome.status !== 'success'
    if (outcome.status !== 'success') {
      state.failures += 1
      state.retryAtMillis = performance.now() + collectorLimits.flushRetryMillis
      options.onEvent({
        level: 'error',
        message: 'could not store; the data waits in the ring',
        facts: { segment: producer.segment, error: factsOf(outcome.error) },
      })
      return outcome
    }
    consumer.release(state.position)
    state.released = state.position
    state.borrowedBytes = 0
    state.oldestPendingMicros = 0
    state.flushDueMillis = Number.POSITIVE_INFINITY
    registry.saved()
    options.ranks?.flushed(producer)
    return outcome
  }

  function info(): SegmentInfo {
    consumer.info(infoWords.bytes)
    return decodeSegmentInfo(options.path, infoWords)
  }

  /** The last counters, or null while something is still to be stored. */
  function finish(): SegmentInfo | null {
    if (somethingPending()) {
      if (performance.now() < state.retryAtMillis || flush().status !== 'success') return null
    }
    // Parts of requests stay in the checkpoint until other ranks have theirs.
    if (registry.unsettled() > 0) return null
    const last = info()
    state.closed = true
    track.destroy()
    consumer.close(true)
    removeCheckpoint(options.stateDirectory, producer)
    return last
  }

  return {
    producer,
    path: options.path,
    turn() {
      const count = drainBatch()
      const now = performance.now()
      registry.giveUp(Date.now() * 1000, state.producerGone)
      if (somethingPending() && state.flushDueMillis === Number.POSITIVE_INFINITY) {
        state.flushDueMillis = now + options.flushMillis
      }
      const last = state.producerGone ? finish() : null
      if (state.producerGone) return { slices: count, finished: last !== null, last }
      if (flushIsDue(now)) flush()
      return { slices: count, finished: false, last: null }
    },
    flush,
    setPlan: (plan) => book.apply(plan),
    info,
    lagSeconds: () =>
      state.oldestPendingMicros === 0
        ? 0
        : Math.max(0, Date.now() / 1000 - state.oldestPendingMicros / 1e6),
    activeRequests: () => registry.active(),
    failures: () => state.failures,
    isFailing: () => state.failing,
    close() {
      if (state.closed) return
      state.closed = true
      options.ranks?.withdraw(producer)
      track.destroy()
      consumer.close(false)
    },
  }
}
